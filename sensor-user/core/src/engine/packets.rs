//! When the programs on packets are needed: they run for every packet of the node, and see something only where a
//! management listener is.
//!
//! They are in place from the start. They rest when it is known that no such listener is open and none was for a while, and
//! are wanted again with the first record of one, before that record waits for its turn. What came to it in between is told
//! as a time of blindness.

use sensor_common::counters::Fate;
use sensor_common::record::{RecordKind, Ring};

use super::proving::inbound_ends;
use crate::engine::{Engine, Request};
use crate::event::Event;
use crate::fact::Service;
use crate::health::{Blind, Capability, KernelCounters};
use crate::listeners::Listener;
use crate::time::Timestamp;

/// The programs, in the order of attachment.
const PROGRAMS: [&str; 2] = ["packets_in", "packets_out"];

/// What is known of the need for them.
#[derive(Debug)]
pub(super) struct Packets {
    /// How long they outlast the last reason for them.
    rest_ns: u64,
    /// When there was a reason for them last.
    wanted_ns: u64,
    /// They were told to rest, or do.
    is_resting: bool,
    /// The first reason for them since then; they have been asked for.
    missed: Option<Timestamp>,
    /// Records of listeners that were lost, as of the last look.
    lost: u64,
}

impl Packets {
    pub(super) const fn new(rest_ns: u64) -> Self {
        Self { rest_ns, wanted_ns: 0, is_resting: false, missed: None, lost: 0 }
    }
}

impl Engine {
    /// Takes a record that is a reason for them: of a listener that they serve, or of what came to it.
    pub(super) fn note_packets_wanted(&mut self, boot_ns: u64, event: &Event) {
        let is_closed = matches!(event, Event::Listener(event) if !event.opened);
        let port = inbound_ends(event).map(|ends| ends.local.port);
        if !is_closed && port.is_some_and(|port| self.has_accepts(port)) {
            self.want_packets(self.clock.at(boot_ns));
        }
    }

    /// There is a reason for them, or nobody knows that there is none.
    pub(super) fn want_packets(&mut self, at: Timestamp) {
        self.packets.wanted_ns = self.packets.wanted_ns.max(at.boot_ns);
        if self.packets.is_resting && self.packets.missed.is_none() {
            self.packets.missed = Some(at);
            self.outbox.request(Request::WatchPackets(true));
        }
    }

    /// Looks, with the latest counters, whether there is still a reason for them.
    pub(super) fn judge_packets(&mut self, now: Timestamp, counters: &KernelCounters) {
        let of_listeners =
            Ring::ALL.map(|ring| counters.records[ring as usize][RecordKind::ListenerOpened as usize]);
        let lost = of_listeners.iter().map(|fates| fates[Fate::Lost as usize]).sum();
        if lost > std::mem::replace(&mut self.packets.lost, lost) {
            // Somebody listens, and only the iterator can tell where.
            self.ask_for_holders(now.boot_ns);
            self.want_packets(now);
        }
        if self.packets.is_resting {
            return;
        }
        let is_over = now.boot_ns >= self.packets.wanted_ns.saturating_add(self.packets.rest_ns);
        if self.may_packets_serve() {
            self.packets.wanted_ns = now.boot_ns;
        } else if is_over && PROGRAMS.iter().any(|program| self.coverage.is_attached(program)) {
            self.packets.is_resting = true;
            self.outbox.request(Request::WatchPackets(false));
        }
    }

    /// Whether a listener that they serve may be open, or a connection to one.
    fn may_packets_serve(&self) -> bool {
        !self.knows_listeners()
            || self.listeners.evicted() > 0
            || self.listeners.iter().any(|listener| self.is_served_by_packets(listener))
            || self.connections.iter().any(|(_, connection)| connection.is_inbound())
    }

    /// Whether what comes to a listener is looked at.
    pub(super) fn is_served_by_packets(&self, listener: &Listener) -> bool {
        listener.traits.service != Service::Other || self.has_accepts(listener.local.port)
    }

    fn has_accepts(&self, port: u16) -> bool {
        self.configured_service(port).is_some() || self.learned.has_accepts(port)
    }

    /// Whether they rest, as far as was told.
    pub(super) fn do_packets_rest(&self) -> bool {
        PROGRAMS.iter().any(|program| self.coverage.rests(program))
    }

    /// Follows what was told of the hooks; returns the time in which there was something to see and they were not in place.
    pub(super) fn follow_packets(&mut self, now: Timestamp, rested: bool) -> Option<Blind> {
        let rests = self.do_packets_rest();
        if rests {
            PROGRAMS.iter().for_each(|program| self.canaries.rest(program));
        }
        if rests || !rested {
            return None;
        }
        PROGRAMS.iter().for_each(|program| self.canaries.wake(program));
        self.packets.is_resting = false;
        let from = self.packets.missed.take()?;
        // Of one that could not be attached, the coverage tells.
        let is_attached = PROGRAMS.iter().all(|program| self.coverage.is_attached(program));
        is_attached.then_some(Blind { capability: Capability::Requests, from, to: now })
    }
}
