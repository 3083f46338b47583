//! When management records were lost, and how many.

use std::collections::VecDeque;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::finding::Completeness;
use crate::state::kept::COUNT_MAX;
use crate::time::Timestamp;

/// Most losses that are told apart; of older ones the time is forgotten, and they count for everything before the rest.
const LOSSES_MAX: usize = 1024;
/// Most times without a sensor that are told apart.
const GAPS_MAX: usize = 64;
/// A loss is told of within a second; what was lost may be that much older.
const AROUND_NS: u64 = 1_000_000_000;

/// The log, in order of time.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct LossLog {
    losses: VecDeque<(u64, u64)>,
    /// When no sensor ran: from, until.
    gaps: VecDeque<(u64, u64)>,
    /// The node was started anew after all this.
    #[serde(skip)]
    has_ended: bool,
}

/// What was not seen in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Missed {
    /// Management records.
    pub(super) lost: u64,
    /// For how long no sensor ran.
    pub(super) unwatched_ns: u64,
    /// The node was started anew after that.
    pub(super) has_ended: bool,
}

impl LossLog {
    /// This was told to be lost.
    pub(super) fn note(&mut self, boot_ns: u64, lost: u64) {
        if lost == 0 {
            return;
        }
        if self.losses.len() == LOSSES_MAX
            && let Some((_, oldest)) = self.losses.pop_front()
            && let Some((_, next)) = self.losses.front_mut()
        {
            *next += oldest;
        }
        self.losses.push_back((boot_ns, lost));
    }

    /// No sensor ran in this time.
    pub(super) fn note_gap(&mut self, from_ns: u64, to_ns: u64) {
        if from_ns >= to_ns {
            return;
        }
        // Of the oldest two one is made, and what was seen between them is given up.
        if self.gaps.len() == GAPS_MAX
            && let Some((from_ns, _)) = self.gaps.pop_front()
            && let Some(next) = self.gaps.front_mut()
        {
            next.0 = from_ns;
        }
        self.gaps.push_back((from_ns, to_ns));
    }

    /// What was not seen from an event to another one, and until it is told of.
    pub(super) fn missed(&self, first: Timestamp, last: Timestamp, told: Timestamp) -> Missed {
        let until_ns = told.boot_ns.max(last.boot_ns);
        let overlap =
            |(from, to): &(u64, u64)| (*to).min(until_ns).saturating_sub((*from).max(first.boot_ns));
        Missed {
            lost: self.between(first.boot_ns, last.boot_ns),
            unwatched_ns: self.gaps.iter().map(overlap).fold(0, u64::saturating_add),
            has_ended: self.has_ended,
        }
    }

    /// The node is started anew: nothing more will be known of what was before.
    pub(super) fn end_with_boot(&mut self) {
        self.has_ended = true;
    }

    /// A log of which nothing is left: nothing up to this time may be taken for complete.
    pub(super) fn unknown(until_ns: u64) -> Self {
        Self { gaps: VecDeque::from([(0, until_ns)]), ..Self::default() }
    }

    /// Whether it can be what was kept.
    pub(super) fn is_plausible(&self) -> bool {
        self.losses.len() <= LOSSES_MAX
            && self.gaps.len() <= GAPS_MAX
            && self.losses.iter().all(|(_, lost)| *lost <= COUNT_MAX)
    }

    /// What was lost in this span of time, as far as was told.
    pub(super) fn between(&self, from_ns: u64, to_ns: u64) -> u64 {
        let span = from_ns..=to_ns.saturating_add(AROUND_NS);
        self.losses.iter().filter(|(boot_ns, _)| span.contains(boot_ns)).map(|(_, lost)| lost).sum()
    }
}

impl Missed {
    /// Whether nothing was.
    pub(super) const fn is_nothing(&self) -> bool {
        self.lost == 0 && self.unwatched_ns == 0 && !self.has_ended
    }

    /// How complete a finding's evidence is, of which `cut` says that there was no room for all.
    pub(super) const fn completeness(&self, cut: bool) -> Completeness {
        let Self { lost, unwatched_ns, .. } = *self;
        Completeness { complete: self.is_nothing() && !cut, lost, unwatched_ns }
    }
}

/// Says for how long nobody watched.
pub(super) fn tell_unwatched(text: &mut String, missed: Missed) {
    let Missed { unwatched_ns, has_ended, .. } = missed;
    if has_ended {
        text.push_str("The node was started anew since then, and what came of it is not known. ");
    }
    if unwatched_ns > 0 {
        // The next second: what is short is still more than nothing.
        let secs = unwatched_ns.div_ceil(1_000_000_000);
        let _ = write!(text, "For {secs} s of that time no sensor ran, so there may be more. ");
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
    fn time_without_a_sensor_counts_as_far_as_a_chain_was_there() {
        let at = |boot_ns| Timestamp { boot_ns, unix_ns: boot_ns };
        let mut log = LossLog::default();
        log.note_gap(10, 20);
        log.note_gap(30, 30);
        log.note_gap(40, 50);
        let unwatched = |first, last, told| log.missed(at(first), at(last), at(told)).unwatched_ns;
        assert_eq!(unwatched(0, 5, 9), 0);
        assert_eq!(unwatched(0, 5, 60), 20, "what it did in that time was not seen");
        assert_eq!(unwatched(15, 45, 0), 10);
        assert_eq!(unwatched(20, 40, 40), 0);
        for gap in 0..3 * GAPS_MAX as u64 {
            log.note_gap(100 + 2 * gap, 101 + 2 * gap);
        }
        assert_eq!(log.gaps.len(), GAPS_MAX);
        let whole = log.missed(at(0), at(0), at(u64::MAX)).unwatched_ns;
        assert!(whole >= 20 + 3 * GAPS_MAX as u64, "no time is forgotten: {whole}");
    }

    #[test]
    fn nothing_that_was_lost_is_forgotten() {
        let mut log = LossLog::default();
        (0..3 * LOSSES_MAX as u64).for_each(|second| log.note(second, 1));
        assert_eq!(log.losses.len(), LOSSES_MAX);
        assert_eq!(log.between(0, u64::MAX), 3 * LOSSES_MAX as u64);
    }
}
