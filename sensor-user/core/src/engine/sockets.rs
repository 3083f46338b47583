//! Accepts, connects and closes.
//!
//! An accept is an act of the kernel: its process is the present holder of the listening socket, its container that of
//! the socket. A close repeats the subject of the connection's first record.

use std::sync::{Arc, Weak};

use sensor_common::record::ConnectStage;

use super::subject::{Subject, Whereabouts};
use crate::allow_list::{Access, Shown};
use crate::engine::Engine;
use crate::event::{AcceptEvent, AcceptTaskEvent, CloseEvent, ConnectEvent, Ends, Task};
use crate::fact::{
    AcceptingTask, Client, ConnectResult, Direction, ExecRole, FactKind, Net, Process, Program, Service,
    Verdict,
};
use crate::ids::{CgroupKey, ConnId, ProcessKey};
use crate::listeners::{Holder, holder_at};
use crate::processes::Processes;
use crate::time::Timestamp;

/// Most connections whose end is still to come; the one used longest ago goes first.
pub(super) const CONNECTIONS_MAX: usize = 65_536;

/// Most connections that were taken by a task while their accept is still to be released.
pub(super) const TAKERS_MAX: usize = 4096;

/// The first record of a connection, for its end.
#[derive(Debug)]
pub(super) struct Connection {
    /// All but the process.
    subject: Subject,
    process: Option<Opener>,
    net: Net,
    /// Who is behind it, if a program of the node passes it on.
    client: Option<Box<Client>>,
    /// When it was established, boot clock, nanoseconds.
    opened_ns: u64,
}

/// The process of a connection. Its arguments may be large and connections are many and long, so they are not kept here:
/// the end repeats them as long as the table of processes has them.
#[derive(Debug)]
struct Opener {
    whole: Weak<Process>,
    key: ProcessKey,
    ppid: Option<u32>,
    comm: Arc<str>,
    exe: Option<Arc<str>>,
    uid: Option<u32>,
}

impl Connection {
    fn new(at: Timestamp, subject: &Subject, net: &Net) -> Self {
        let process = subject.process.as_ref().map(|process| Opener {
            whole: Arc::downgrade(process),
            key: ProcessKey { pid: process.pid, start_ns: process.start_ns },
            ppid: process.ppid,
            comm: process.comm.clone(),
            exe: process.exe.clone(),
            uid: process.uid,
        });
        let (container, k8s) = (subject.container.clone(), subject.k8s.clone());
        let Subject { enrichment, truncated, .. } = *subject;
        let subject = Subject { process: None, container, k8s, enrichment, truncated };
        Self { subject, process, net: net.clone(), client: None, opened_ns: at.boot_ns }
    }

    /// Whether somebody came to a listener.
    pub(super) fn is_inbound(&self) -> bool {
        self.net.direction == Some(Direction::Inbound)
    }

    /// The subject and the ends of the first record.
    fn recall(&self, processes: &mut Processes) -> (Subject, Net) {
        let process = self.process.as_ref().map(|process| process.recall(processes));
        (Subject { process, ..self.subject.clone() }, self.net.clone())
    }
}

impl Opener {
    fn recall(&self, processes: &mut Processes) -> Arc<Process> {
        if let Some(whole) = self.whole.upgrade() {
            return whole;
        }
        // What runs another program by now is not what opened the connection.
        let known = processes.snapshot(self.key).filter(|process| process.exe == self.exe);
        known.unwrap_or_else(|| {
            Arc::new(Process {
                pid: self.key.pid,
                ppid: self.ppid,
                start_ns: self.key.start_ns,
                comm: self.comm.clone(),
                exe: self.exe.clone(),
                args: None,
                uid: self.uid,
                program: Program::default(),
                ancestors: Arc::from([]),
                truncated: false,
            })
        })
    }
}

impl Engine {
    pub(super) fn on_accept(&mut self, at: Timestamp, event: &AcceptEvent) {
        let Some(service) = self.service_at(&event.ends) else { return };
        let holder = self.holder_of(&event.ends, at);
        let subject = self.socket_subject(event.cgroup, holder);
        let conn = self.outbox.conn_id(event.conn);
        let net = inbound(&event.ends, service, conn);
        let task = self.takers.remove(&event.conn).map(|taker| self.accepting_task(&taker));
        let conn = self.outbox.conn_id(event.conn);
        let client = self.behind_hop(at, &event.ends, &conn, subject.process.as_deref());
        let connection = Connection { client: client.clone(), ..Connection::new(at, &subject, &net) };
        self.connections.insert(event.conn, connection);
        let verdict = self.verdict_on(at, Some(&net), client.as_deref(), Shown::default());
        let daemon = self.daemon_pid(subject.process.as_deref());
        self.note_caller(at, event.conn, event.cgroup, &net, daemon);
        self.send(at, subject, Some(net), FactKind::Accept { task, client, late: event.late }, verdict);
        self.note_accept(at, &event.ends);
        self.begin_conversation(at, event);
        if let Some((sock, _)) = self.listeners.find(&event.ends) {
            self.note_reach(at, sock, event.ends.peer.ip);
        }
    }

    /// What the allow-list says of a connection that somebody opened here: of who is behind it, where that is known.
    /// On the socket of a runtime, which all speak Docker's API, nobody else is judged.
    pub(super) fn verdict_on(
        &self,
        at: Timestamp,
        net: Option<&Net>,
        client: Option<&Client>,
        shown: Shown<'_>,
    ) -> Option<Verdict> {
        let peer = client.map(|client| client.end.ip);
        let access = match (net, peer) {
            (Some(net), Some(peer)) => Access { peer, ..Access::of(net, at)? },
            (Some(net), None) => Access::of(net, at)?,
            (None, Some(peer)) => Access { peer, service: Service::Docker, port: 0, at, shown },
            (None, None) => return None,
        };
        Some(self.allow.judge(&Access { shown, ..access }))
    }

    /// Who is behind a connection that is there.
    pub(super) fn far_end_of(&self, conn: u64) -> Option<Box<Client>> {
        self.connections.peek(&conn)?.client.clone()
    }

    /// The service that a connection came to; `None` where neither the configuration nor a daemon has a port watched that
    /// others may use in namespaces of their own.
    pub(super) fn service_at(&self, ends: &Ends) -> Option<Service> {
        let of_listener = || self.listeners.find(ends).map(|(_, listener)| listener.traits.service);
        self.configured_service(ends.local.port).or_else(of_listener)
    }

    /// Keeps who took a connection for the record of its accept, which usually waits at that moment.
    pub(super) fn expect_taker(&mut self, event: &AcceptTaskEvent) {
        self.takers.insert(event.conn, *event);
    }

    /// Tells who took a connection whose accept has been told already.
    pub(super) fn on_accept_task(&mut self, at: Timestamp, event: &AcceptTaskEvent) {
        if self.takers.remove(&event.conn).is_none() {
            return;
        }
        // Nobody knows of a connection whose accept was lost or withheld.
        let Some(net) = self.connections.peek(&event.conn).map(|connection| connection.net.clone()) else {
            return;
        };
        self.processes.ensure(&event.task);
        let place = self.whereabouts(event.cgroup, event.task.key);
        let process = self.describe(&event.task);
        let subject = self.subject(Some(process), &place);
        self.send(at, subject, Some(net), FactKind::AcceptTask, None);
    }

    fn accepting_task(&mut self, event: &AcceptTaskEvent) -> Arc<AcceptingTask> {
        let process = self.describe(&event.task);
        Arc::new(AcceptingTask {
            pid: process.pid,
            start_ns: process.start_ns,
            comm: process.comm.clone(),
            exe: process.exe.clone(),
        })
    }

    pub(super) fn on_close(&mut self, at: Timestamp, event: &CloseEvent) {
        self.end_conversation(at, event.conn);
        self.callers.note_end(at, event.conn);
        let first = self.connections.remove(&event.conn);
        // The probes do not remember accepted connections where they need not.
        let opened_ns = event.opened_ns.or(first.as_ref().map(|first| first.opened_ns));
        let kind = FactKind::Close {
            duration_ns: opened_ns.map(|opened_ns| at.boot_ns.saturating_sub(opened_ns)),
            bytes_in: event.bytes_in,
            bytes_out: event.bytes_out,
        };
        let (subject, net) = match (first, &event.task) {
            (Some(first), _) => first.recall(&mut self.processes),
            // Its first record was lost or evicted; this one says the same once more.
            (None, Some(task)) => {
                let Some(subject) = self.connecting_subject(task, event.cgroup) else { return };
                let service = self.service_of(event.ends.peer.port);
                (subject, outbound(&event.ends, service, self.outbox.conn_id(event.conn)))
            }
            (None, None) => {
                let Some(service) = self.service_at(&event.ends) else { return };
                let holder = self.holder_of(&event.ends, at);
                let subject = self.socket_subject(event.cgroup, holder);
                (subject, inbound(&event.ends, service, self.outbox.conn_id(event.conn)))
            }
        };
        self.end_hop(subject.process.as_deref(), net.conn.as_ref());
        self.note_close(at, &net, event.ends.netns, event.bytes_in);
        self.send(at, subject, Some(net), kind, None);
    }

    pub(super) fn on_connect(&mut self, at: Timestamp, event: &ConnectEvent) {
        let result = connect_result(event);
        self.note_leg(at, event, result);
        let Some(subject) = self.connecting_subject(&event.task, event.cgroup) else { return };
        let service = self.service_of(event.ends.peer.port);
        let net = outbound(&event.ends, service, self.outbox.conn_id(event.conn));
        let is_attempt = result == ConnectResult::Attempted;
        if is_attempt || service != Service::Other {
            self.note_connect(at, event, &subject, is_attempt);
        }
        if result == ConnectResult::Established {
            self.connections.insert(event.conn, Connection::new(at, &subject, &net));
        }
        self.send(at, subject, Some(net), FactKind::Connect { result }, None);
    }

    /// The subject of an outbound connection; `None` for the host's ordinary programs, which the probes report only
    /// while they do not know the cgroup.
    fn connecting_subject(&mut self, task: &Task, cgroup: CgroupKey) -> Option<Subject> {
        self.processes.ensure(task);
        self.inventory.touch(cgroup);
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

    /// Who serves an accepted connection, and its ends; from what a later record says where the first one was lost.
    pub(super) fn served(
        &mut self,
        at: Timestamp,
        conn: u64,
        cgroup: CgroupKey,
        ends: &Ends,
    ) -> (Subject, Net) {
        if let Some(first) = self.connections.peek(&conn) {
            return first.recall(&mut self.processes);
        }
        let holder = self.holder_of(ends, at);
        let subject = self.socket_subject(cgroup, holder);
        let service = self.service_at(ends).unwrap_or(Service::Other);
        (subject, inbound(ends, service, self.outbox.conn_id(conn)))
    }

    fn holder_of(&self, ends: &Ends, at: Timestamp) -> Option<Holder> {
        holder_at(self.listeners.find(ends)?.1, at.boot_ns, &self.processes).copied()
    }

    /// The subject of a listening socket and its connections: the holder, in the container of the socket. A socket
    /// that was made on the host and passed into a container is in that of its holder.
    pub(super) fn socket_subject(&mut self, cgroup: CgroupKey, holder: Option<Holder>) -> Subject {
        self.inventory.touch(cgroup);
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
