//! When an entry holds: hours and days on the wall of some place, and single windows.
//!
//! Time comes in with the event, and the rules of the zones are compiled in: the same event has the same verdict today,
//! in a replay a year later and on another host.

use std::ops::Range;

use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;

/// Minutes of a day.
const DAY_MINUTES: u16 = 24 * 60;

/// When an expectation holds; every part that is given must agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Whose clocks and calendar days and hours speak of.
    pub zone: TimeZone,
    /// Days of the week.
    pub days: Days,
    /// Hours of those days.
    pub hours: Hours,
    /// One window, nanoseconds since 1970: a maintenance.
    pub window_unix_ns: Range<u64>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { zone: TimeZone::UTC, days: Days::ALL, hours: Hours::ALL, window_unix_ns: 0..u64::MAX }
    }
}

impl Schedule {
    /// Whether the expectation holds at this time, nanoseconds since 1970.
    ///
    /// Where clocks are put back, an hour comes twice and both count; where they are put forward, what lies in the hour
    /// that is left out does not happen.
    #[must_use]
    pub fn covers(&self, unix_ns: u64) -> bool {
        if !self.window_unix_ns.contains(&unix_ns) {
            return false;
        }
        if self.days == Days::ALL && self.hours == Hours::ALL {
            return true;
        }
        // Every time of 64 bits lies before the year 2555.
        let Ok(time) = Timestamp::from_nanosecond(unix_ns.into()) else { return false };
        let wall = self.zone.to_datetime(time);
        let minute = wall.hour().unsigned_abs() as u16 * 60 + wall.minute().unsigned_abs() as u16;
        match self.hours.day_of(minute) {
            Some(Began::SameDay) => self.days.contains(wall.weekday()),
            Some(Began::DayBefore) => self.days.contains(wall.weekday().previous()),
            None => false,
        }
    }

    /// Whether this schedule holds whenever the other one does, as far as that can be told without a calendar.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        let window = self.window_unix_ns.start <= other.window_unix_ns.start
            && other.window_unix_ns.end <= self.window_unix_ns.end;
        let always = self.days == Days::ALL && self.hours == Hours::ALL;
        window
            && (always
                || (self.zone == other.zone && self.hours == other.hours && self.days.includes(other.days)))
    }
}

/// Days of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days(u8);

impl Days {
    /// The whole week.
    pub const ALL: Self = Self(0x7f);
    /// No day.
    pub const NONE: Self = Self(0);

    /// Adds the days from the first to the last of a span, which may go round the end of the week.
    pub fn add(&mut self, first: Weekday, last: Weekday) {
        let mut day = first;
        self.0 |= bit(day);
        while day != last {
            day = day.next();
            self.0 |= bit(day);
        }
    }

    fn contains(self, day: Weekday) -> bool {
        self.0 & bit(day) != 0
    }

    fn includes(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }
}

fn bit(day: Weekday) -> u8 {
    1 << day.to_monday_zero_offset()
}

/// A span of a day in minutes, the end not included; one that ends before it begins goes past midnight and belongs to the
/// day on which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    start: u16,
    end: u16,
}

/// On which day a span began that a minute lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Began {
    SameDay,
    DayBefore,
}

impl Hours {
    /// The whole day.
    pub const ALL: Self = Self { start: 0, end: DAY_MINUTES };

    /// A span; `None` when it has no minute or lies beyond the day.
    #[must_use]
    pub fn new(start: u16, end: u16) -> Option<Self> {
        (start < DAY_MINUTES && end <= DAY_MINUTES && start != end).then_some(Self { start, end })
    }

    fn day_of(self, minute: u16) -> Option<Began> {
        if self.start < self.end {
            return (self.start..self.end).contains(&minute).then_some(Began::SameDay);
        }
        if minute >= self.start {
            return Some(Began::SameDay);
        }
        (minute < self.end).then_some(Began::DayBefore)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix_ns(time: &str) -> u64 {
        let time: Timestamp = time.parse().expect("a time");
        u64::try_from(time.as_nanosecond()).expect("after 1970")
    }

    fn schedule(zone: &str, days: Option<(Weekday, Weekday)>, hours: Option<(u16, u16)>) -> Schedule {
        let mut schedule = Schedule { zone: TimeZone::get(zone).expect("a zone"), ..Schedule::default() };
        if let Some((first, last)) = days {
            schedule.days = Days::NONE;
            schedule.days.add(first, last);
        }
        if let Some((start, end)) = hours {
            schedule.hours = Hours::new(start, end).expect("a span");
        }
        schedule
    }

    fn check(schedule: &Schedule, cases: &[(&str, bool)]) {
        for (time, covered) in cases {
            assert_eq!(schedule.covers(unix_ns(time)), *covered, "{time}");
        }
    }

    #[test]
    fn working_hours_follow_the_clocks_of_their_zone() {
        let work =
            schedule("Europe/Berlin", Some((Weekday::Monday, Weekday::Friday)), Some((7 * 60, 20 * 60)));
        check(
            &work,
            &[
                // Winter: UTC+1. The 23rd of November 2026 is a Monday.
                ("2026-11-23T05:59:59.999999999Z", false),
                ("2026-11-23T06:00:00Z", true),
                ("2026-11-23T18:59:59.999999999Z", true),
                ("2026-11-23T19:00:00Z", false),
                // Summer: UTC+2.
                ("2026-07-06T05:00:00Z", true),
                ("2026-07-06T18:00:00Z", false),
                // Saturday and Sunday.
                ("2026-11-28T12:00:00Z", false),
                ("2026-11-29T12:00:00Z", false),
            ],
        );
    }

    #[test]
    fn the_day_is_that_of_the_zone() {
        let mondays = schedule("Asia/Tokyo", Some((Weekday::Monday, Weekday::Monday)), None);
        check(
            &mondays,
            &[
                ("2026-11-22T14:59:59Z", false),
                ("2026-11-22T15:00:00Z", true),
                ("2026-11-23T14:59:59Z", true),
                ("2026-11-23T15:00:00Z", false),
            ],
        );
    }

    #[test]
    fn a_span_past_midnight_belongs_to_the_day_it_begins_on() {
        let friday_night = schedule("UTC", Some((Weekday::Friday, Weekday::Friday)), Some((22 * 60, 6 * 60)));
        check(
            &friday_night,
            &[
                ("2026-11-27T05:00:00Z", false),
                ("2026-11-27T21:59:59Z", false),
                ("2026-11-27T22:00:00Z", true),
                ("2026-11-28T05:59:59Z", true),
                ("2026-11-28T06:00:00Z", false),
                ("2026-11-28T22:00:00Z", false),
            ],
        );
    }

    #[test]
    fn an_hour_that_comes_twice_counts_twice() {
        let hour = schedule("Europe/Berlin", None, Some((2 * 60, 3 * 60)));
        check(
            &hour,
            &[
                // The 25th of October 2026: from 03:00 summer time back to 02:00.
                ("2026-10-24T23:59:59Z", false),
                ("2026-10-25T00:30:00Z", true),
                ("2026-10-25T01:30:00Z", true),
                ("2026-10-25T02:00:00Z", false),
                // The 29th of March 2026: from 02:00 to 03:00.
                ("2026-03-29T00:59:59Z", false),
                ("2026-03-29T01:00:00Z", false),
            ],
        );
    }

    #[test]
    fn days_go_round_the_end_of_the_week() {
        let mut days = Days::NONE;
        days.add(Weekday::Saturday, Weekday::Monday);
        let held: Vec<Weekday> =
            Weekday::Monday.cycle_forward().take(7).filter(|day| days.contains(*day)).collect();
        assert_eq!(held, [Weekday::Monday, Weekday::Saturday, Weekday::Sunday]);
    }

    #[test]
    fn a_window_ends_where_it_ends() {
        let window_unix_ns = unix_ns("2026-12-01T22:00:00Z")..unix_ns("2026-12-02T04:00:00Z");
        let maintenance = Schedule { window_unix_ns, ..Schedule::default() };
        check(
            &maintenance,
            &[
                ("2026-12-01T21:59:59.999999999Z", false),
                ("2026-12-01T22:00:00Z", true),
                ("2026-12-02T03:59:59.999999999Z", true),
                ("2026-12-02T04:00:00Z", false),
            ],
        );
    }

    #[test]
    fn spans_without_a_minute_are_none() {
        assert_eq!(Hours::new(60, 60), None);
        assert_eq!(Hours::new(0, DAY_MINUTES + 1), None);
        assert_eq!(Hours::new(DAY_MINUTES, 0), None);
        assert!(Hours::new(0, DAY_MINUTES) == Some(Hours::ALL));
    }

    #[test]
    fn inclusion_asks_for_the_same_clocks() {
        let always = Schedule::default();
        let berlin = schedule("Europe/Berlin", Some((Weekday::Monday, Weekday::Friday)), Some((60, 120)));
        let tokyo = Schedule { zone: TimeZone::get("Asia/Tokyo").expect("a zone"), ..berlin.clone() };
        let mut monday = berlin.clone();
        monday.days = Days::NONE;
        monday.days.add(Weekday::Monday, Weekday::Monday);
        assert!(always.includes(&berlin) && berlin.includes(&berlin) && berlin.includes(&monday));
        assert!(!berlin.includes(&always) && !berlin.includes(&tokyo) && !monday.includes(&berlin));
        let window = Schedule { window_unix_ns: 5..10, ..Schedule::default() };
        assert!(always.includes(&window) && !window.includes(&always));
    }
}
