//! Two rings to one order: records wait for earlier ones of the other ring, within a bound.
//!
//! Owns the queue between decode and enrich, ordered by (boot clock, ring, arrival). Knows nothing of what the events
//! mean. A ring's records come nearly in order, so each ring has a queue that is sorted by putting the few that are late
//! where they belong.

use std::collections::VecDeque;

use sensor_common::record::Ring;

use crate::event::Event;

/// Most events that wait.
pub const MERGE_EVENTS_MAX: usize = 65_536;
/// Most bytes of event contents that wait.
pub const MERGE_BYTES_MAX: usize = 16 << 20;

/// The queue.
#[derive(Debug)]
pub struct Merge {
    /// By ring, each in order of release.
    rings: [VecDeque<(u64, Event)>; Ring::COUNT],
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
}

impl Default for Merge {
    fn default() -> Self {
        Self::new(MERGE_EVENTS_MAX, MERGE_BYTES_MAX)
    }
}

impl Merge {
    /// An empty queue with these bounds.
    #[must_use]
    pub fn new(events_max: usize, bytes_max: usize) -> Self {
        Self { rings: Default::default(), bytes: 0, events_max: events_max.max(1), bytes_max }
    }

    /// Adds an event. Afterwards the queue may be over its bounds, see [`Self::is_over_full`].
    pub fn push(&mut self, ring: Ring, boot_ns: u64, event: Event) {
        self.bytes += event.heap_bytes();
        let queue = &mut self.rings[ring as usize];
        if queue.back().is_none_or(|(last_ns, _)| *last_ns <= boot_ns) {
            queue.push_back((boot_ns, event));
        } else {
            let place = queue.partition_point(|(waiting_ns, _)| *waiting_ns <= boot_ns);
            queue.insert(place, (boot_ns, event));
        }
    }

    /// Whether the oldest event must be released before its time.
    #[must_use]
    pub fn is_over_full(&self) -> bool {
        self.len() > self.events_max || self.bytes > self.bytes_max
    }

    /// Time and event that are next.
    #[must_use]
    pub fn peek(&self) -> Option<(u64, &Event)> {
        let (boot_ns, event) = self.rings[self.next_ring()?].front()?;
        Some((*boot_ns, event))
    }

    /// Takes the next event.
    pub fn pop(&mut self) -> Option<(u64, Event)> {
        let next = self.next_ring()?;
        let (boot_ns, event) = self.rings[next].pop_front()?;
        self.bytes -= event.heap_bytes();
        Some((boot_ns, event))
    }

    /// The ring whose first event is the earliest; of several, the first ring.
    fn next_ring(&self) -> Option<usize> {
        let firsts = self.rings.iter().enumerate();
        let (_, next) = firsts.filter_map(|(ring, queue)| Some((queue.front()?.0, ring))).min()?;
        Some(next)
    }

    /// Events that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rings.iter().map(VecDeque::len).sum()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rings.iter().all(VecDeque::is_empty)
    }
}
