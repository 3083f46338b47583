//! Counters the probes keep per CPU; the agent sums them.

use crate::record::{RecordKind, Ring};

/// What became of a record.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Handed to the ring.
    Submitted = 0,
    /// No room in the ring.
    Lost = 1,
    /// Withheld by flood control and summarised instead.
    Suppressed = 2,
}

impl Fate {
    /// Number of fates.
    pub const COUNT: usize = 3;
    /// Every fate, in index order.
    pub const ALL: [Self; Self::COUNT] = [Self::Submitted, Self::Lost, Self::Suppressed];
}

/// Counters that are not about one record.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection could not be entered in the connection table: its end will not be reported. Or flood control could not
    /// mark it: it was reported on the bulk ring.
    UntrackedConnection = 0,
    /// A connection on a watched port ended that was not reported before: it is older than the sensor.
    UnknownClose = 1,
    /// A kernel read failed and the field was left empty.
    ReadFailed = 2,
    /// A runtime process could not be entered in the table of runtime processes: records of its children may travel on
    /// the bulk ring and its connects may not be reported.
    UntrackedProcess = 3,
    /// An accept that was withheld, and counted as [`Fate::Suppressed`], was put on the ring after all. Counted apart,
    /// because it is another program's work: the agent moves it from the one fate to the other.
    Resumed = 4,
    /// Likewise, but there was no room on the ring.
    ResumedLost = 5,
    /// Like [`Event::Resumed`], but on the bulk ring: the budget for them was spent.
    ResumedOnBulk = 6,
    /// Likewise, but there was no room on the bulk ring.
    ResumedOnBulkLost = 7,
    /// A cgroup has as many outbound connections in the table as it may: another one of its was not entered, and neither its
    /// result nor its end will be reported.
    ConnectionShare = 8,
}

impl Event {
    /// Number of events.
    pub const COUNT: usize = 9;
    /// Every event, in index order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::UntrackedConnection,
        Self::UnknownClose,
        Self::ReadFailed,
        Self::UntrackedProcess,
        Self::Resumed,
        Self::ResumedLost,
        Self::ResumedOnBulk,
        Self::ResumedOnBulkLost,
        Self::ConnectionShare,
    ];
}

/// Numbers in the one value of the `COUNTERS` map, a per-CPU array of `[u64; COUNTERS_LEN]`: one lookup for the probes,
/// one system call for the agent.
pub const COUNTERS_LEN: usize = Ring::COUNT * RecordKind::COUNT * Fate::COUNT + Event::COUNT;

/// Returns the index of a record counter in the value of the `COUNTERS` map.
#[must_use]
#[inline(always)]
pub const fn record_index(ring: Ring, kind: RecordKind, fate: Fate) -> u32 {
    (ring as u32 * RecordKind::COUNT as u32 + kind as u32) * Fate::COUNT as u32 + fate as u32
}

/// Returns the index of an event counter in the value of the `COUNTERS` map.
#[must_use]
#[inline(always)]
pub const fn event_index(event: Event) -> u32 {
    (Ring::COUNT * RecordKind::COUNT * Fate::COUNT) as u32 + event as u32
}
