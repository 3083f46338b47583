//! Times as people write them: days, hours, dates, local times and the zones they are of.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{self, Weekday};
use jiff::tz::TimeZone;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use sensor_core::allow_list::Hours;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::nearest::did_you_mean;
use super::{ValueError, quoted};

const WEEK: [(Weekday, &str); 7] = [
    (Weekday::Monday, "mon"),
    (Weekday::Tuesday, "tue"),
    (Weekday::Wednesday, "wed"),
    (Weekday::Thursday, "thu"),
    (Weekday::Friday, "fri"),
    (Weekday::Saturday, "sat"),
    (Weekday::Sunday, "sun"),
];

/// One day of the week or a span of them, as in `sat` or `mon-fri`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DaySpan {
    /// The first day.
    pub first: Weekday,
    /// The last day, included.
    pub last: Weekday,
}

impl FromStr for DaySpan {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let day = |part: &str| {
            WEEK.into_iter().find(|(_, name)| *name == part).map(|(day, _)| day).ok_or_else(|| {
                let names = WEEK.map(|(_, name)| name);
                ValueError::new(format!("{} is no day of the week", quoted(part)), did_you_mean(part, &names))
            })
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Ok(Self { first: day(first)?, last: day(last)? })
    }
}

impl fmt::Display for DaySpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |day: Weekday| WEEK[usize::from(day.to_monday_zero_offset().unsigned_abs())].1;
        if self.first == self.last {
            return f.write_str(name(self.first));
        }
        write!(f, "{}-{}", name(self.first), name(self.last))
    }
}

text_value!(
    DaySpan,
    json_schema!({"type": "string", "pattern": "^(mon|tue|wed|thu|fri|sat|sun)(-(mon|tue|wed|thu|fri|sat|sun))?$", "description": "A day of the week or a span of them, as in sat or mon-fri."})
);

/// Hours of a day, as in `07:00-20:00`; the end is not included, and a span such as `22:00-06:00` goes past midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HourSpan {
    start: u16,
    end: u16,
}

impl HourSpan {
    /// The same for the core.
    #[must_use]
    pub fn hours(&self) -> Hours {
        Hours::new(self.start, self.end).expect("invariant: parsing refuses what is no span")
    }
}

/// Minutes of `HH:MM`, up to 24:00.
fn minutes(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |part: &str| (part.len() == 2).then(|| part.parse::<u16>().ok()).flatten();
    let (hour, minute) = (number(hour)?, number(minute)?);
    (minute < 60 && (hour < 24 || (hour, minute) == (24, 0))).then_some(hour * 60 + minute)
}

impl FromStr for HourSpan {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let span = text.split_once('-').and_then(|(start, end)| Some((minutes(start)?, minutes(end)?)));
        span.filter(|(start, end)| Hours::new(*start, *end).is_some())
            .map(|(start, end)| Self { start, end })
            .ok_or_else(|| {
                ValueError::new(
                    format!("{} are no hours of a day", quoted(text)),
                    "write begin and end, as in \"07:00-20:00\" or \"22:00-06:00\"",
                )
            })
    }
}

impl fmt::Display for HourSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, end } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", start / 60, start % 60, end / 60, end % 60)
    }
}

text_value!(
    HourSpan,
    json_schema!({"type": "string", "pattern": "^[0-2][0-9]:[0-5][0-9]-[0-2][0-9]:[0-5][0-9]$", "description": "Hours of a day, as in 07:00-20:00; 22:00-06:00 goes past midnight."})
);

/// A time zone by its name in the IANA database, which is part of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(pub TimeZone);

impl FromStr for Zone {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let unknown = || {
            ValueError::new(
                format!("unknown time zone {}", quoted(text)),
                "write a name of the IANA database, as in Europe/Berlin or UTC",
            )
        };
        TimeZone::get(text).map(Self).map_err(|_| unknown())
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}

text_value!(
    Zone,
    json_schema!({"type": "string", "description": "A time zone by its name in the IANA database, as in Europe/Berlin."})
);

/// A date, as in `2027-03-31`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date(pub civil::Date);

impl FromStr for Date {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        civil::Date::strptime("%Y-%m-%d", text).map(Self).map_err(|_| {
            ValueError::new(
                format!("{} is no date", quoted(text)),
                "write year, month and day, as in 2027-03-31",
            )
        })
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_value!(
    Date,
    json_schema!({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$", "description": "A date, as in 2027-03-31."})
);

/// A time on the clocks of a place, as in `2026-12-01T22:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime(pub civil::DateTime);

impl FromStr for LocalTime {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        civil::DateTime::strptime("%Y-%m-%dT%H:%M", text).map(Self).map_err(|_| {
            ValueError::new(
                format!("{} is no date with a time", quoted(text)),
                "write both, without a zone, as in 2026-12-01T22:00",
            )
        })
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.strftime("%Y-%m-%dT%H:%M").fmt(f)
    }
}

text_value!(
    LocalTime,
    json_schema!({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}$", "description": "A time on the clocks of the entry's zone, as in 2026-12-01T22:00."})
);
