//! Both clocks, read as one moment.

use rustix::time::{ClockId, clock_gettime};
use sensor_core::time::Timestamp;

/// Readings to choose the best of.
const ATTEMPTS: u32 = 3;

/// Reads boot clock and wall clock for the same moment.
///
/// The wall clock is read between two readings of the boot clock; of a few attempts the one that was interrupted least
/// counts, so that the distance between the clocks does not jitter with the scheduler.
#[must_use]
pub fn now() -> Timestamp {
    (0..ATTEMPTS)
        .map(|_| {
            let before = nanoseconds(ClockId::Boottime);
            let unix_ns = nanoseconds(ClockId::Realtime);
            let after = nanoseconds(ClockId::Boottime);
            let width = after.saturating_sub(before);
            (width, Timestamp { boot_ns: before + width / 2, unix_ns })
        })
        .min_by_key(|(width, _)| *width)
        .expect("invariant: ATTEMPTS is not 0")
        .1
}

/// Reads the boot clock alone, which is all that most steps need.
#[must_use]
pub fn boot_ns() -> u64 {
    nanoseconds(ClockId::Boottime)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // Both clocks are positive unless the machine's date lies before 1970.
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn both_clocks_are_of_the_same_moment() {
        let before = boot_ns();
        let sample = now();
        let after = boot_ns();
        assert!(before <= sample.boot_ns && sample.boot_ns <= after);
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
        assert!(wall.abs_diff(sample.unix_ns) < 5_000_000_000);
    }
}
