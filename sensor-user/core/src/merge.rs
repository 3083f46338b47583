//! Two rings to one order: records wait for earlier ones of the other ring, within a bound.
//!
//! Owns the queue between decode and enrich, ordered by (boot clock, ring, arrival). Knows nothing of what the events
//! mean. The heap holds small keys only; the events lie still in slots.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use sensor_common::record::Ring;

use crate::event::Event;

/// Most events that wait.
pub const MERGE_EVENTS_MAX: usize = 65_536;
/// Most bytes of event contents that wait.
pub const MERGE_BYTES_MAX: usize = 16 << 20;

/// Order of release; the slot only says where the event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    boot_ns: u64,
    ring: u32,
    arrival: u64,
    slot: u32,
}

/// The queue.
#[derive(Debug)]
pub struct Merge {
    heap: BinaryHeap<Reverse<Place>>,
    slots: Vec<Option<Event>>,
    free: Vec<u32>,
    arrivals: u64,
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
        Self {
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            arrivals: 0,
            bytes: 0,
            events_max: events_max.clamp(1, u32::MAX as usize),
            bytes_max,
        }
    }

    /// Adds an event. Afterwards the queue may be over its bounds, see [`Self::is_over_full`].
    pub fn push(&mut self, ring: Ring, boot_ns: u64, event: Event) {
        self.bytes += event.heap_bytes();
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(event);
                slot
            }
            None => {
                self.slots.push(Some(event));
                (self.slots.len() - 1) as u32
            }
        };
        self.heap.push(Reverse(Place { boot_ns, ring: ring as u32, arrival: self.arrivals, slot }));
        self.arrivals += 1;
    }

    /// Whether the oldest event must be released before its time.
    #[must_use]
    pub fn is_over_full(&self) -> bool {
        self.heap.len() > self.events_max || self.bytes > self.bytes_max
    }

    /// Time and event that are next.
    #[must_use]
    pub fn peek(&self) -> Option<(u64, &Event)> {
        let Reverse(place) = self.heap.peek()?;
        self.slots[place.slot as usize].as_ref().map(|event| (place.boot_ns, event))
    }

    /// Takes the next event.
    pub fn pop(&mut self) -> Option<(u64, Event)> {
        let Reverse(place) = self.heap.pop()?;
        let event = self.slots[place.slot as usize].take()?;
        self.free.push(place.slot);
        self.bytes -= event.heap_bytes();
        Some((place.boot_ns, event))
    }

    /// Events that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}
