//! RFC 3339 in UTC with nanoseconds, written and read without allocation: `2026-11-22T10:39:00.123456789Z`.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// A wall-clock time, nanoseconds since 1970-01-01T00:00:00Z; reaches to the year 2554.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UtcTime(pub u64);

/// Bytes of the written form; always the same.
pub const TEXT_LEN: usize = 30;

const NS_PER_SEC: u64 = 1_000_000_000;
const SECS_PER_DAY: u64 = 86_400;
/// Days of the 400-year cycle after which the Gregorian calendar repeats.
const DAYS_PER_CYCLE: u64 = 146_097;
/// Days from 0000-03-01, where the computation starts its years, to 1970-01-01.
const DAYS_TO_EPOCH: u64 = 719_468;

impl UtcTime {
    /// Writes the text form into `buffer`.
    pub fn write(self, buffer: &mut [u8; TEXT_LEN]) -> &str {
        let (secs, nanos) = (self.0 / NS_PER_SEC, self.0 % NS_PER_SEC);
        let (days, in_day) = (secs / SECS_PER_DAY, secs % SECS_PER_DAY);
        let (year, month, day) = civil_from_days(days);
        *buffer = *b"0000-00-00T00:00:00.000000000Z";
        digits(&mut buffer[0..4], year);
        digits(&mut buffer[5..7], month);
        digits(&mut buffer[8..10], day);
        digits(&mut buffer[11..13], in_day / 3600);
        digits(&mut buffer[14..16], in_day / 60 % 60);
        digits(&mut buffer[17..19], in_day % 60);
        digits(&mut buffer[20..29], nanos);
        std::str::from_utf8(buffer).expect("invariant: only ASCII was written")
    }

    /// Reads the text form, in exactly the shape [`UtcTime::write`] gives it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: &[u8; TEXT_LEN] = text.as_bytes().try_into().ok()?;
        let punctuation =
            [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (TEXT_LEN - 1, b'Z')];
        if punctuation.iter().any(|(index, byte)| bytes[*index] != *byte) {
            return None;
        }
        let field = |from: usize, to: usize| number(&bytes[from..to]);
        let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
        let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
        let nanos = field(20, 29)?;
        let days = days_from_civil(year, month, day)?;
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let secs = days * SECS_PER_DAY + hour * 3600 + minute * 60 + second;
        secs.checked_mul(NS_PER_SEC)?.checked_add(nanos).map(Self)
    }
}

/// Writes `value` right-aligned over the zeros already in `out`.
fn digits(out: &mut [u8], mut value: u64) {
    for byte in out.iter_mut().rev() {
        *byte = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits
        .iter()
        .try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + u64::from(byte - b'0')))
}

/// Year, month and day of a day since 1970-01-01. Years begin in March here, so that the leap day is their last.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_TO_EPOCH;
    let (cycle, day_of_cycle) = (days / DAYS_PER_CYCLE, days % DAYS_PER_CYCLE);
    // Takes out the leap days: one per 4 years (1460 days), not per 100 (36 524), the last day of the cycle included.
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524
        - day_of_cycle / (DAYS_PER_CYCLE - 1))
        / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    // From March on, five months have 153 days.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (cycle * 400 + year_of_cycle + u64::from(month <= 2), month, day)
}

/// Days from 1970-01-01 to a date, which must exist and not lie before.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let march_year = year - u64::from(month <= 2);
    let (cycle, year_of_cycle) = (march_year / 400, march_year % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_cycle = 365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100 + day_of_year;
    let days = cycle * DAYS_PER_CYCLE + day_of_cycle - DAYS_TO_EPOCH;
    // A day past the end of its month comes back as another date.
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.write(&mut [0; TEXT_LEN]))
    }
}

impl Serialize for UtcTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.write(&mut [0; TEXT_LEN]))
    }
}

impl<'de> Deserialize<'de> for UtcTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = UtcTime;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time as in 2026-11-22T10:39:00.123456789Z")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<UtcTime, E> {
                UtcTime::parse(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for UtcTime {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{9}Z$",
            "description": "RFC 3339 in UTC with nanoseconds."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(ns: u64) -> String {
        UtcTime(ns).to_string()
    }

    #[test]
    fn days_that_calendars_get_wrong() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000000Z"),
        ];
        for (secs, expected) in cases {
            assert_eq!(text(secs * NS_PER_SEC), expected);
        }
        assert_eq!(text(u64::MAX), "2554-07-21T23:34:33.709551615Z");
    }

    #[test]
    fn only_times_that_exist_in_exactly_our_shape_are_read() {
        for bad in [
            "",
            "2026-11-22T10:39:00Z",
            "2026-11-22T10:39:00.123Z",
            "2026-11-22 10:39:00.123456789Z",
            "2026-11-22T10:39:00.123456789z",
            "2026-11-22T10:39:00.12345678+9",
            "2026-02-29T10:39:00.123456789Z",
            "2026-04-31T10:39:00.123456789Z",
            "2026-00-10T10:39:00.123456789Z",
            "2026-13-10T10:39:00.123456789Z",
            "2026-11-00T10:39:00.123456789Z",
            "2026-11-22T24:39:00.123456789Z",
            "2026-11-22T10:60:00.123456789Z",
            "2026-11-22T10:39:60.123456789Z",
            "1969-12-31T23:59:59.999999999Z",
            "2554-07-21T23:34:33.709551616Z",
            "9999-12-31T23:59:59.999999999Z",
            "２026-11-22T10:39:00.12345678Z",
        ] {
            assert_eq!(UtcTime::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_another_calendar(ns: u64) {
            let theirs = jiff::Timestamp::from_nanosecond(i128::from(ns)).expect("in range");
            prop_assert_eq!(text(ns), format!("{theirs:.9}"));
            prop_assert_eq!(UtcTime::parse(&text(ns)), Some(UtcTime(ns)));
        }

        #[test]
        fn never_panics_on_text(text in "\\PC{0,40}", digits in "[0-9TZ:.-]{30}") {
            for text in [text, digits] {
                if let Some(time) = UtcTime::parse(&text) {
                    prop_assert_eq!(time.to_string(), text);
                }
            }
        }
    }
}
