//! Listeners, accepts, connects and closes.
//!
//! An accept is an act of the kernel: its process is the present holder of the listening socket, its container that of
//! the socket. A close repeats the subject of the connection's first record.

use sensor_common::record::{ConnectStage, ListenerItem};

use super::subject::{Subject, Whereabouts};
use crate::decode::{AcceptEvent, CloseEvent, ConnectEvent, Ends, ListenerEvent, Task};
use crate::engine::{Engine, Request};
use crate::fact::{ConnectResult, Direction, End, ExecRole, FactKind, ListenerState, Net, Service, Tls};
use crate::ids::{CgroupKey, ConnId, ProcessKey};
use crate::listeners::{Holder, Listener, present_holder, scope_of};
use crate::time::Timestamp;

/// Most connections whose end is still to come; the one used longest ago goes first.
pub(super) const CONNECTIONS_MAX: usize = 65_536;
/// Most holders of one listening socket that are told apart.
const HOLDERS_MAX: usize = 256;
/// An accept this long after the last look at the holders wants a new one.
const STALE_NS: u64 = 250_000_000;
/// A listener the iterator found has this long for its own record to arrive.
const ANNOUNCE_NS: u64 = 100_000_000;

/// The first record of a connection, for its end.
#[derive(Debug)]
pub(super) struct Connection {
    subject: Subject,
    net: Net,
}

/// When the holders of the listening sockets were looked at.
#[derive(Debug, Default)]
pub(super) struct Refresh {
    answered_ns: Option<u64>,
    asked_ns: Option<u64>,
    /// An accept has been kept back for one poll.
    waiting: bool,
}

impl Engine {
    /// Takes the result of the listener iterator: the first one tells of the listeners that were there before, later
    /// ones say who holds them now.
    pub fn handle_listeners(&mut self, now: Timestamp, items: &[ListenerItem]) {
        let is_first = self.refresh.answered_ns.is_none();
        self.refresh = Refresh { answered_ns: Some(now.boot_ns), asked_ns: None, waiting: false };
        let mut found: Vec<(u64, Listener)> = Vec::new();
        let mut index = std::collections::HashMap::new();
        for item in items {
            let holder = Holder { task: item.task.into(), cgroup: item.task_cgroup.into() };
            self.processes.ensure(&holder.task);
            let position = *index.entry(item.sock).or_insert_with(|| {
                found.push((item.sock, listener_of(item, now)));
                found.len() - 1
            });
            let holders = &mut found[position].1.holders;
            // Threads share their process's files: one holder each.
            if holders.len() < HOLDERS_MAX && !holders.iter().any(|known| known.task.key == holder.task.key) {
                holders.push(holder);
            }
        }
        for sock in self.listeners.socks() {
            if !index.contains_key(&sock) {
                self.listeners.set_holders(sock, Vec::new());
            }
        }
        for (sock, listener) in found {
            if self.listeners.peek(sock).is_some() {
                self.listeners.set_holders(sock, listener.holders);
            } else {
                self.listeners.insert(sock, listener);
            }
            self.announce_if_changed(now, sock, is_first);
        }
    }

    /// Tells of a listener that was found, or whose holder is another one than the output named last.
    fn announce_if_changed(&mut self, now: Timestamp, sock: u64, is_first: bool) {
        let Some(listener) = self.listeners.peek(sock) else { return };
        let holder = present_holder(listener, &self.processes).map(|holder| holder.task.key);
        let state = match listener.announced {
            None if is_first => ListenerState::Snapshot,
            // Its own record is most likely on its way.
            None if listener.known_ns.saturating_add(ANNOUNCE_NS) > now.boot_ns => return,
            Some(announced) if holder.is_none() || holder == announced => return,
            _ => ListenerState::Changed,
        };
        self.send_listener(now, sock, state);
    }

    pub(super) fn on_listener(&mut self, at: Timestamp, event: &ListenerEvent) {
        if event.opened { self.on_listener_opened(at, event) } else { self.on_listener_closed(at, event) }
    }

    fn on_listener_opened(&mut self, at: Timestamp, event: &ListenerEvent) {
        self.processes.ensure(&event.task);
        let opener = event.task.key;
        match self.listeners.get_mut(event.sock) {
            // The iterator was faster than this record.
            Some(known) if known.known_ns >= at.boot_ns => {
                known.opener = Some(opener);
                if known.announced.is_some() {
                    return;
                }
            }
            _ => {
                let holder = Holder { task: event.task, cgroup: event.task_cgroup };
                let listener = Listener {
                    local: event.ends.local,
                    netns: event.ends.netns,
                    cgroup: event.cgroup,
                    opener: Some(opener),
                    holders: vec![holder],
                    announced: None,
                    known_ns: at.boot_ns,
                };
                self.listeners.insert(event.sock, listener);
            }
        }
        self.send_listener(at, event.sock, ListenerState::Opened);
        self.ask_for_holders(at.boot_ns);
    }

    fn on_listener_closed(&mut self, at: Timestamp, event: &ListenerEvent) {
        let known = self.listeners.remove(event.sock);
        let holder = known
            .as_ref()
            .and_then(|listener| present_holder(listener, &self.processes).copied())
            .unwrap_or(Holder { task: event.task, cgroup: event.task_cgroup });
        let (cgroup, local) =
            known.map_or((event.cgroup, event.ends.local), |known| (known.cgroup, known.local));
        let subject = self.socket_subject(cgroup, Some(holder));
        let kind = FactKind::Listener {
            state: ListenerState::Closed,
            scope: scope_of(local),
            tls: Tls::Unknown,
            netns: event.ends.netns,
        };
        let net = self.listener_net(local);
        self.send(at, subject, Some(net), kind, None);
    }

    fn send_listener(&mut self, at: Timestamp, sock: u64, state: ListenerState) {
        let Some(listener) = self.listeners.get_mut(sock) else { return };
        let holder = present_holder(listener, &self.processes).copied();
        listener.announced = Some(holder.map(|holder| holder.task.key));
        let (local, netns, cgroup) = (listener.local, listener.netns, listener.cgroup);
        let subject = self.socket_subject(cgroup, holder);
        let kind = FactKind::Listener { state, scope: scope_of(local), tls: Tls::Unknown, netns };
        let net = self.listener_net(local);
        self.send(at, subject, Some(net), kind, None);
    }

    fn listener_net(&self, local: End) -> Net {
        let service = self.service_of(local.port);
        Net { direction: None, peer: None, local: Some(local), service, conn: None }
    }

    pub(super) fn on_accept(&mut self, at: Timestamp, event: &AcceptEvent) {
        let holder = self.holder_of(&event.ends);
        let subject = self.socket_subject(event.cgroup, holder);
        let service = self.service_of(event.ends.local.port);
        let verdict = self.allow.judge(event.ends.peer.ip, service, event.ends.local.port);
        let conn = self.outbox.conn_id(event.conn);
        let net = inbound(&event.ends, service, conn);
        let connection = Connection { subject: subject.clone(), net: net.clone() };
        self.connections.insert(event.conn, connection);
        self.send(at, subject, Some(net), FactKind::Accept, Some(verdict));
    }

    pub(super) fn on_close(&mut self, at: Timestamp, event: &CloseEvent) {
        let kind = FactKind::Close {
            duration_ns: at.boot_ns.saturating_sub(event.opened_ns),
            bytes_in: event.bytes_in,
            bytes_out: event.bytes_out,
        };
        let (subject, net) = match (self.connections.remove(&event.conn), &event.task) {
            (Some(connection), _) => (connection.subject, connection.net),
            // Its first record was lost or evicted; this one says the same once more.
            (None, Some(task)) => {
                let Some(subject) = self.connecting_subject(task, event.cgroup) else { return };
                let service = self.service_of(event.ends.peer.port);
                (subject, outbound(&event.ends, service, self.outbox.conn_id(event.conn)))
            }
            (None, None) => {
                let holder = self.holder_of(&event.ends);
                let subject = self.socket_subject(event.cgroup, holder);
                let service = self.service_of(event.ends.local.port);
                (subject, inbound(&event.ends, service, self.outbox.conn_id(event.conn)))
            }
        };
        self.send(at, subject, Some(net), kind, None);
    }

    pub(super) fn on_connect(&mut self, at: Timestamp, event: &ConnectEvent) {
        let Some(subject) = self.connecting_subject(&event.task, event.cgroup) else { return };
        let service = self.service_of(event.ends.peer.port);
        let net = outbound(&event.ends, service, self.outbox.conn_id(event.conn));
        let result = connect_result(event);
        if result == ConnectResult::Established {
            let connection = Connection { subject: subject.clone(), net: net.clone() };
            self.connections.insert(event.conn, connection);
        }
        self.send(at, subject, Some(net), FactKind::Connect { result }, None);
    }

    /// The subject of an outbound connection; `None` for the host's ordinary programs, which the probes report only
    /// while they do not know the cgroup.
    fn connecting_subject(&mut self, task: &Task, cgroup: CgroupKey) -> Option<Subject> {
        self.processes.ensure(task);
        let place = self.whereabouts(cgroup, task.key);
        if place == Whereabouts::Host && !self.is_runtime_process(task.key) {
            return None;
        }
        let process = self.describe(task);
        Some(self.subject(Some(process), &place))
    }

    fn is_runtime_process(&self, key: ProcessKey) -> bool {
        let role = self.processes.peek(key).and_then(|entry| entry.image.role);
        role.is_some_and(|role| role != ExecRole::Workload)
    }

    fn holder_of(&self, ends: &Ends) -> Option<Holder> {
        present_holder(self.listeners.find(ends)?, &self.processes).copied()
    }

    /// The subject of a listening socket and its connections: the holder, in the container of the socket. A socket
    /// that was made on the host and passed into a container is in that of its holder.
    fn socket_subject(&mut self, cgroup: CgroupKey, holder: Option<Holder>) -> Subject {
        let process = holder.map(|holder| self.describe(&holder.task));
        let place = match self.place(cgroup) {
            Whereabouts::Container(id) => Whereabouts::Container(id),
            by_socket => match holder.map(|holder| self.whereabouts(holder.cgroup, holder.task.key)) {
                Some(Whereabouts::Container(id)) => Whereabouts::Container(id),
                Some(by_holder) if by_socket == Whereabouts::Unknown => by_holder,
                _ => by_socket,
            },
        };
        self.subject(process, &place)
    }

    /// Asks for a new look at the holders, unless one was asked for a moment ago or none can be had.
    pub(super) fn ask_for_holders(&mut self, now_ns: u64) {
        let asked = self.refresh.asked_ns.is_some_and(|asked| now_ns < asked.saturating_add(STALE_NS));
        if self.refresh.answered_ns.is_some() && !asked {
            self.refresh.asked_ns = Some(now_ns);
            self.outbox.request(Request::RefreshListeners);
        }
    }

    /// Whether an accept should wait for one poll because the holders were looked at too long ago.
    pub(super) fn wait_for_holders(&mut self, accepted_ns: u64, now: Timestamp) -> bool {
        if std::mem::take(&mut self.refresh.waiting) {
            return false;
        }
        let Some(answered) = self.refresh.answered_ns else { return false };
        let asked_lately =
            self.refresh.asked_ns.is_some_and(|asked| now.boot_ns < asked.saturating_add(STALE_NS));
        if accepted_ns <= answered.saturating_add(STALE_NS) || asked_lately {
            return false;
        }
        self.ask_for_holders(now.boot_ns);
        self.refresh.waiting = true;
        true
    }
}

fn listener_of(item: &ListenerItem, now: Timestamp) -> Listener {
    let ends = Ends::from(item.ends);
    Listener {
        local: ends.local,
        netns: ends.netns,
        cgroup: item.cgroup.into(),
        opener: None,
        holders: Vec::new(),
        announced: None,
        known_ns: now.boot_ns,
    }
}

fn inbound(ends: &Ends, service: Service, conn: ConnId) -> Net {
    let (peer, local) = (Some(ends.peer), Some(ends.local));
    Net { direction: Some(Direction::Inbound), peer, local, service, conn: Some(conn) }
}

fn outbound(ends: &Ends, service: Service, conn: ConnId) -> Net {
    // Before the kernel has chosen a route there is no local end to speak of.
    let local = (!ends.local.ip.is_unspecified()).then_some(ends.local);
    Net { direction: Some(Direction::Outbound), peer: Some(ends.peer), local, service, conn: Some(conn) }
}

/// What became of a connect; errno values of Linux, the same on every architecture the sensor runs on.
fn connect_result(event: &ConnectEvent) -> ConnectResult {
    const ENONET: u32 = 64;
    const ENOPROTOOPT: u32 = 92;
    const ENETDOWN: u32 = 100;
    const ENETUNREACH: u32 = 101;
    const ECONNABORTED: u32 = 103;
    const ECONNRESET: u32 = 104;
    const ECONNREFUSED: u32 = 111;
    const EHOSTDOWN: u32 = 112;
    const EHOSTUNREACH: u32 = 113;
    // ICMP's "administratively prohibited" and "protocol unreachable".
    const EACCES: u32 = 13;
    const EPROTO: u32 = 71;
    match event.stage {
        ConnectStage::Attempted => ConnectResult::Attempted,
        ConnectStage::Established => ConnectResult::Established,
        ConnectStage::Failed => match event.error {
            ECONNREFUSED => ConnectResult::Refused,
            ECONNRESET | ECONNABORTED => ConnectResult::Reset,
            EACCES | ENONET | EPROTO | ENOPROTOOPT | ENETDOWN | ENETUNREACH | EHOSTDOWN | EHOSTUNREACH => {
                ConnectResult::Unreachable
            }
            // ETIMEDOUT, and 0: the program closed its socket before an answer came.
            _ => ConnectResult::Timeout,
        },
    }
}
