//! What is new in counts that only grow, and what of a port's has been told.

use sensor_common::flood::Counts;

use crate::fact::ScanShape;

/// Readings after which an attempt that was not completed counts as one that never will be. The agent reads once a second,
/// and a peer that has lost a packet repeats it after one.
pub(super) const SETTLE_READINGS: usize = 3;

/// What is summarised: of one window, or since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Connections, or attempts that were not completed.
    pub(crate) count: u64,
    /// Withheld of them.
    pub(crate) suppressed: u64,
    /// Withheld in this window or an earlier one, and reported after all.
    pub(crate) resumed: u64,
}

/// Attempts of a peer or a port, some of which are still waited for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attempts {
    /// Their number at the last readings, the oldest first.
    recent: [u64; SETTLE_READINGS],
    /// Completed connections whose attempt was not seen.
    unseen: u64,
}

/// What summaries have told of a port, or of a peer, in one shape. Nothing is told twice.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ledger {
    told: Tally,
}

impl Tally {
    /// The connections in these counts.
    pub(super) const fn of(counts: &Counts) -> Self {
        Self { count: counts.accepts, suppressed: counts.withheld, resumed: counts.resumed }
    }

    /// That many attempts.
    pub(super) const fn attempts(count: u64) -> Self {
        Self { count, suppressed: 0, resumed: 0 }
    }

    /// Whether there is anything to summarise: connections that were all reported are none.
    pub(super) const fn is_news(&self, shape: ScanShape) -> bool {
        match shape {
            ScanShape::Flood => self.suppressed > 0 || self.resumed > 0,
            _ => self.count > 0,
        }
    }

    /// What orders peers: who has more withheld, or more that is not completed.
    pub(super) fn weight(&self, shape: ScanShape) -> u64 {
        match shape {
            ScanShape::Flood => self.suppressed,
            _ => self.count,
        }
    }

    pub(super) fn more(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            suppressed: self.suppressed + other.suppressed,
            resumed: self.resumed + other.resumed,
        }
    }

    fn less(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_sub(other.count),
            suppressed: self.suppressed.saturating_sub(other.suppressed),
            resumed: self.resumed.saturating_sub(other.resumed),
        }
    }

    fn at_most(self, other: Self) -> Self {
        Self {
            count: self.count.min(other.count),
            suppressed: self.suppressed.min(other.suppressed),
            resumed: self.resumed.min(other.resumed),
        }
    }
}

impl Attempts {
    /// Takes a reading; returns how many attempts so far were never completed, as far as that is certain. In the last
    /// reading none is waited for.
    pub(super) fn take(&mut self, counts: &Counts, is_last: bool) -> Tally {
        let settled = if is_last { counts.attempts } else { self.recent[0] };
        self.recent.rotate_left(1);
        self.recent[SETTLE_READINGS - 1] = counts.attempts;
        self.unseen = self.unseen.max(counts.accepts.saturating_sub(counts.attempts));
        Tally::attempts((settled + self.unseen).saturating_sub(counts.accepts))
    }

    /// How many of a reading were not completed yet.
    pub(super) fn open(&self, counts: &Counts) -> Tally {
        Tally::attempts((counts.attempts + self.unseen).saturating_sub(counts.accepts))
    }
}

impl Ledger {
    /// Enters what a part has, at most what there is in all; returns what was entered.
    pub(super) fn tell(&mut self, part: Tally, all: Tally) -> Tally {
        let told = part.at_most(all.less(self.told));
        self.told = self.told.more(told);
        told
    }

    /// Enters all that is not entered yet; returns it.
    pub(super) fn tell_all(&mut self, all: Tally) -> Tally {
        self.tell(all.less(self.told), all)
    }

    /// Whether all of this was told.
    pub(super) fn has_told(&self, all: Tally) -> bool {
        all.less(self.told) == Tally::default()
    }
}
