//! When management records were lost, and how many.

use std::collections::VecDeque;

/// Most losses that are told apart; of older ones the time is forgotten, and they count for everything before the rest.
const LOSSES_MAX: usize = 1024;
/// A loss is told of within a second; what was lost may be that much older.
const AROUND_NS: u64 = 1_000_000_000;

/// The log, in order of time.
#[derive(Debug, Default)]
pub(super) struct LossLog(VecDeque<(u64, u64)>);

impl LossLog {
    /// This was told to be lost.
    pub(super) fn note(&mut self, boot_ns: u64, lost: u64) {
        if lost == 0 {
            return;
        }
        if self.0.len() == LOSSES_MAX
            && let Some((_, oldest)) = self.0.pop_front()
            && let Some((_, next)) = self.0.front_mut()
        {
            *next += oldest;
        }
        self.0.push_back((boot_ns, lost));
    }

    /// What was lost in this span of time, as far as was told.
    pub(super) fn between(&self, from_ns: u64, to_ns: u64) -> u64 {
        let span = from_ns..=to_ns.saturating_add(AROUND_NS);
        self.0.iter().filter(|(boot_ns, _)| span.contains(boot_ns)).map(|(_, lost)| lost).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_counts_for_the_second_before_it_was_told() {
        let mut log = LossLog::default();
        log.note(10_000_000_000, 3);
        log.note(20_000_000_000, 4);
        log.note(30_000_000_000, 0);
        assert_eq!(log.between(0, 8_999_999_999), 0);
        assert_eq!(log.between(0, 9_000_000_000), 3);
        assert_eq!(log.between(10_000_000_000, 40_000_000_000), 7);
        assert_eq!(log.between(20_000_000_001, 40_000_000_000), 0);
    }

    #[test]
    fn nothing_that_was_lost_is_forgotten() {
        let mut log = LossLog::default();
        (0..3 * LOSSES_MAX as u64).for_each(|second| log.note(second, 1));
        assert_eq!(log.0.len(), LOSSES_MAX);
        assert_eq!(log.between(0, u64::MAX), 3 * LOSSES_MAX as u64);
    }
}
