//! When an entry of the allow-list holds, as written, and what that means.

use jiff::civil;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use sensor_core::allow_list::{Days, Hours, Schedule};
use serde::{Deserialize, Serialize};

use super::allow::AllowSection;
use super::values::At;
use super::values::times::{DaySpan, HourSpan, LocalTime, Zone};

/// When an entry holds; every part that is given must agree.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WhenSection {
    /// Days of the week, each alone or as a span: `mon-fri`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<At<DaySpan>>,
    /// Hours of these days; past midnight they belong to the day on which they begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hours: Option<At<HourSpan>>,
    /// Begin of a single window, such as a maintenance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<At<LocalTime>>,
    /// Its end, not included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<At<LocalTime>>,
    /// Whose days, hours and clocks these are; UTC if none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<At<Zone>>,
}

impl WhenSection {
    fn zone(&self) -> TimeZone {
        self.zone.as_ref().map_or(TimeZone::UTC, |zone| zone.value.0.clone())
    }

    fn schedule(&self) -> Schedule {
        let zone = self.zone();
        let mut days = if self.days.is_empty() { Days::ALL } else { Days::NONE };
        self.days.iter().for_each(|span| days.add(span.value.first, span.value.last));
        let moment = |time: &Option<At<LocalTime>>, otherwise| {
            time.as_ref().map_or(otherwise, |time| unix_ns(&zone, time.value.0))
        };
        let window_unix_ns = moment(&self.from, 0)..moment(&self.until, u64::MAX);
        let hours = self.hours.as_ref().map_or(Hours::ALL, |hours| hours.value.hours());
        Schedule { zone, days, hours, window_unix_ns }
    }
}

/// When an entry holds.
#[must_use]
pub fn schedule(entry: &AllowSection) -> Schedule {
    entry.when.as_ref().map_or_else(Schedule::default, |when| when.value.schedule())
}

/// The first moment at which an entry holds no longer: the end of the day it expires on, where its hours are.
#[must_use]
pub fn until_unix_ns(entry: &AllowSection) -> Option<u64> {
    let zone = entry.when.as_ref().map_or(TimeZone::UTC, |when| when.value.zone());
    let last = entry.expires.as_ref()?.value.0;
    // The last day there is does not end.
    last.tomorrow().ok().map(|next| unix_ns(&zone, next.at(0, 0, 0, 0)))
}

/// Nanoseconds since 1970 when the clocks of a zone show this. A time that they leave out is that much later, of one that
/// comes twice the first counts. What lies before 1970 or after 2554 is as early or as late as can be told.
fn unix_ns(zone: &TimeZone, time: civil::DateTime) -> u64 {
    let moment = zone.to_ambiguous_timestamp(time).compatible();
    let ns = moment
        .map_or(if time.year() < 1970 { i128::MIN } else { i128::MAX }, |moment| moment.as_nanosecond());
    u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
}
