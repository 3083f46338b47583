//! Connections that a program of this node passes on: who stands behind the local end of a hop.
//!
//! A forwarder accepts a connection and makes another one right away. While it has only one that it has not passed on yet, that
//! is whose it makes. While it has several nobody can tell, and nothing is told. Of programs of the host, of whose sockets
//! the probes report few, it is looked at what they have open when they connect to a watched port.

use crate::bounded::Bounded;
use crate::engine::Engine;
use crate::event::{ConnectEvent, Ends, HopEvent};
use crate::fact::{Client, ConnectResult, End, ExecRole, Process};
use crate::ids::{ConnId, ProcessKey};
use crate::time::Timestamp;

/// Most programs that have accepted something; the one used longest ago goes first.
const FORWARDERS_MAX: usize = 1024;
/// Most connections of one that were not passed on yet.
const WAITING_MAX: usize = 64;
/// Most connections that programs of the host have begun and that have no result yet.
const BEGUN_MAX: usize = 1024;
/// Most connections made by forwarders whose other end was not accepted yet; those that lead to another host never are.
const LEGS_MAX: usize = 4096;

/// How soon a forwarder makes its own connection, nanoseconds: one that comes later is something else's.
const PROMPT_NS: u64 = 1_000_000_000;

/// The tables.
#[derive(Debug)]
pub(super) struct Hops {
    forwarders: Bounded<ProcessKey, Forwarder>,
    /// Connections that programs of the host have begun, of which it is known whose they may pass on.
    begun: Bounded<u64, Client>,
    /// Programs of the host that have connected to the socket of a runtime, and whose connection they may pass on.
    callers: Bounded<ProcessKey, Client>,
    /// By the ends as the forwarder has them: its own, and the one it connects to.
    legs: Bounded<(End, End), Client>,
}

#[derive(Debug, Default)]
struct Forwarder {
    /// Accepted and not passed on, and when.
    waiting: Vec<(u64, Client)>,
    /// There were several at a time, and not all of them are settled.
    mixed: bool,
}

impl Default for Hops {
    fn default() -> Self {
        Self {
            forwarders: Bounded::new(FORWARDERS_MAX),
            begun: Bounded::new(BEGUN_MAX),
            callers: Bounded::new(FORWARDERS_MAX),
            legs: Bounded::new(LEGS_MAX),
        }
    }
}

impl Hops {
    /// Programs and connections that gave way to others. A leg that leads to another host is told of by nobody, so that
    /// forgetting it is no loss.
    pub(super) fn evicted(&self) -> u64 {
        self.forwarders.evicted() + self.begun.evicted() + self.callers.evicted()
    }

    /// A program has accepted a connection.
    fn accepted(&mut self, at: Timestamp, by: ProcessKey, client: Client) {
        if !self.forwarders.contains(&by) {
            self.forwarders.insert(by, Forwarder::default());
        }
        let Some(forwarder) = self.forwarders.get_mut(&by) else { return };
        forwarder.mixed |= !forwarder.waiting.is_empty();
        if forwarder.waiting.len() < WAITING_MAX {
            forwarder.waiting.push((at.boot_ns, client));
        }
    }

    /// A program has made a connection, or could not: one of those that it has accepted is settled.
    fn connected(&mut self, at: Timestamp, by: ProcessKey, leg: Option<(End, End)>) {
        let Some(forwarder) = self.forwarders.get_mut(&by) else { return };
        if forwarder.waiting.is_empty() {
            return;
        }
        let (accepted_ns, client) = forwarder.waiting.remove(0);
        let is_prompt = at.boot_ns.saturating_sub(accepted_ns) <= PROMPT_NS;
        if let Some(leg) = leg.filter(|_| is_prompt && !forwarder.mixed) {
            self.legs.insert(leg, client);
        }
        forwarder.mixed &= !forwarder.waiting.is_empty();
    }

    /// A connection has ended, passed on or not.
    fn ended(&mut self, by: ProcessKey, conn: &ConnId) {
        let Some(forwarder) = self.forwarders.get_mut(&by) else { return };
        forwarder.waiting.retain(|(_, client)| client.conn.as_ref() != Some(conn));
        forwarder.mixed &= !forwarder.waiting.is_empty();
    }
}

impl Engine {
    /// Who stands behind a connection that was accepted, when a program of this node has made it; notes it in case its
    /// holder passes it on itself.
    pub(super) fn behind_hop(
        &mut self,
        at: Timestamp,
        ends: &Ends,
        conn: &ConnId,
        holder: Option<&Process>,
    ) -> Option<Box<Client>> {
        let client = self.hops.legs.remove(&(canonical(ends.peer), canonical(ends.local)));
        if let Some(key) = holder.map(key_of).filter(|key| self.may_pass_on(*key)) {
            let own = Client { end: ends.peer, conn: Some(conn.clone()) };
            self.hops.accepted(at, key, client.clone().unwrap_or(own));
        }
        client.map(Box::new)
    }

    /// A program of the host that has a connection of somebody else begins to connect to a watched port, or has connected to
    /// the socket of a runtime.
    pub(super) fn on_hop(&mut self, event: &HopEvent) {
        let HopEvent { conn, task, behind } = event;
        self.processes.ensure(task);
        if !self.may_pass_on(task.key) {
            return;
        }
        let client = Client { end: canonical(behind.peer), conn: None };
        match conn {
            Some(conn) => _ = self.hops.begun.insert(*conn, client),
            None => _ = self.hops.callers.insert(task.key, client),
        }
    }

    /// A process has connected to the socket of a runtime: for whom, if for anybody, a record behind this one says.
    pub(super) fn forget_client(&mut self, process: ProcessKey) {
        self.hops.callers.remove(&process);
    }

    /// Who is behind what a process asks on the socket of a runtime.
    pub(super) fn behind_caller(&self, process: ProcessKey) -> Option<Box<Client>> {
        self.hops.callers.peek(&process).cloned().map(Box::new)
    }

    pub(super) fn note_leg(&mut self, at: Timestamp, event: &ConnectEvent, result: ConnectResult) {
        let ConnectEvent { conn, task, ends, .. } = event;
        let leg = (canonical(ends.local), canonical(ends.peer));
        if result == ConnectResult::Attempted {
            return;
        }
        match (result, self.hops.begun.remove(conn)) {
            (ConnectResult::Established, Some(client)) => _ = self.hops.legs.insert(leg, client),
            (ConnectResult::Established, None) => self.hops.connected(at, task.key, Some(leg)),
            _ => self.hops.connected(at, task.key, None),
        }
    }

    pub(super) fn end_hop(&mut self, holder: Option<&Process>, conn: Option<&ConnId>) {
        if let (Some(process), Some(conn)) = (holder, conn) {
            self.hops.ended(key_of(process), conn);
        }
    }

    /// Daemons answer themselves.
    fn may_pass_on(&self, key: ProcessKey) -> bool {
        let role = self.processes.peek(key).and_then(|entry| entry.image.role);
        !matches!(role, Some(ExecRole::Daemon | ExecRole::Runtime))
    }
}

fn key_of(process: &Process) -> ProcessKey {
    ProcessKey { pid: process.pid, start_ns: process.start_ns }
}

fn canonical(end: End) -> End {
    End { ip: end.ip.to_canonical(), ..end }
}
