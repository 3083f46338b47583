//! Requests on plaintext ports and on the sockets of runtimes: each becomes a record, and the cause of what it makes.

use std::sync::Arc;

use super::socket_requests::{Caller, SocketRequests};
use super::subject::Subject;
use crate::allow_list::Shown;
use crate::bounded::Bounded;
use crate::engine::Engine;
use crate::event::{AcceptEvent, Ends, PayloadEvent};
use crate::fact::{ApiRequest, Client, End, FactKind, Net, Protocol, Service, SocketUse};
use crate::http::Api;
use crate::http::conversation::{Conversation, Exchange, Step, Way};
use crate::http::docker;
use crate::http::reassembly::Piece;
use crate::http::route::ApiClass;
use crate::ids::{CgroupKey, ConnId, RecordId};
use crate::origins::StartOutcome;
use crate::time::Timestamp;

/// Most connections whose requests are read at a time; the one that said something longest ago goes first, and what is known
/// of its requests is told then.
pub(super) const CONVERSATIONS_MAX: usize = 16_384;
/// Most bytes kept of all of them.
const BYTES_MAX: usize = 32 << 20;
/// Most connections whose first data came before they were accepted.
const EARLY_MAX: usize = 1024;
/// How long such data wait for their accept, nanoseconds: it is the same packet that brings both.
const EARLY_NS: u64 = 1_000_000_000;

/// Status of the answer to a request that has started a container; that it ran already is another.
const STARTED: u16 = 204;

/// How far it counts what a server says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Credit {
    /// It is root's, on the host: what it says proves.
    Full,
    /// It is another user's on the host, or nobody knows whose.
    Some,
}

/// What is being said.
#[derive(Debug)]
pub(super) struct Requests {
    open: Bounded<u64, Open>,
    /// Of all of them.
    bytes: usize,
    /// Times that what was asked on one of them could not be read.
    unread: u64,
    early: Bounded<(End, End, u32), (Timestamp, Box<PayloadEvent>)>,
    /// Those on sockets, whose end nothing tells.
    pub(super) sockets: SocketRequests,
}

/// A connection on which requests may come.
#[derive(Debug)]
struct Open {
    conversation: Conversation,
    line: Line,
}

/// Where a conversation takes place.
#[derive(Clone, Debug)]
pub(super) enum Line {
    /// On a port: cgroup of the server's socket, and its ends.
    Port(CgroupKey, Ends),
    /// On the socket of a runtime.
    Socket(Arc<Caller>),
}

/// Who takes part in a conversation, as its records tell.
pub(super) struct Parties {
    /// The server of a port, the caller on a socket.
    pub(super) subject: Subject,
    pub(super) net: Option<Net>,
    pub(super) socket: Option<Box<SocketUse>>,
    /// Who is behind the connection, if a program of the node passes it on.
    pub(super) client: Option<Box<Client>>,
    /// What the server says counts so far; not at all for `None`.
    pub(super) credit: Option<Credit>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            open: Bounded::new(CONVERSATIONS_MAX),
            bytes: 0,
            unread: 0,
            early: Bounded::new(EARLY_MAX),
            sockets: SocketRequests::default(),
        }
    }
}

impl Requests {
    /// Connections that were given up for others, and times that what was asked on one could not be read.
    pub(super) fn evicted(&self) -> u64 {
        self.open.evicted() + self.early.evicted() + self.unread
    }

    /// Whether something was asked on a connection and not answered.
    pub(super) fn is_waiting(&self, conn: u64) -> bool {
        self.open.peek(&conn).is_some_and(|open| open.conversation.is_waiting())
    }

    /// Whether nothing was asked on the connection to a socket since it was at this time.
    pub(super) fn was_asked(&self, conn: u64, boot_ns: u64) -> bool {
        let line = self.open.peek(&conn).map(|open| &open.line);
        matches!(line, Some(Line::Socket(caller)) if caller.asked_ns() <= boot_ns)
    }

    pub(super) fn line_mut(&mut self, conn: u64) -> Option<&mut Line> {
        self.open.get_mut(&conn).map(|open| &mut open.line)
    }
}

impl Engine {
    pub(super) fn on_payload(&mut self, at: Timestamp, event: Box<PayloadEvent>) {
        if event.conn == 0 {
            self.requests.early.insert(key_of(&event.ends), (at, event));
            return;
        }
        self.hear(at, event.conn, &event);
    }

    /// Takes what came with the packet that completed the connection.
    pub(super) fn begin_conversation(&mut self, at: Timestamp, accept: &AcceptEvent) {
        let early = self.requests.early.remove(&key_of(&accept.ends));
        if let Some((_, event)) = early.filter(|(then, _)| at.boot_ns.abs_diff(then.boot_ns) < EARLY_NS) {
            self.hear(at, accept.conn, &event);
        }
    }

    /// The connection ended: tells what was asked and not answered.
    pub(super) fn end_conversation(&mut self, at: Timestamp, conn: u64) {
        if let Some(open) = self.requests.open.remove(&conn) {
            self.requests.bytes -= open.conversation.heap_bytes();
            self.finish_conversation(at, conn, open);
        }
    }

    /// Tells of all that was asked, at the end of the run.
    pub(super) fn end_conversations(&mut self, at: Timestamp) {
        let open: Vec<u64> = self.requests.open.iter().map(|(conn, _)| *conn).collect();
        for conn in open {
            self.end_conversation(at, conn);
        }
    }

    fn hear(&mut self, at: Timestamp, conn: u64, event: &PayloadEvent) {
        if !self.requests.open.contains(&conn) {
            // A port that a daemon has opened may be another's in another network namespace.
            let Some(service) = self.service_at(&event.ends) else { return };
            let conversation = Conversation::new(api_of(service));
            self.open_conversation(at, conn, conversation, Line::Port(event.cgroup, event.ends));
        }
        let way = if event.to_peer { Way::ToClient } else { Way::ToServer };
        let PayloadEvent { offset, settled, bytes, len, .. } = event;
        let piece = Piece { offset: *offset, settled: *settled, bytes, len: u64::from(*len) };
        self.converse(at, conn, way, piece, event.turn);
    }

    pub(super) fn open_conversation(
        &mut self,
        at: Timestamp,
        conn: u64,
        conversation: Conversation,
        line: Line,
    ) {
        let open = Open { conversation, line };
        if let Some((evicted, open)) = self.requests.open.insert(conn, open) {
            self.requests.bytes -= open.conversation.heap_bytes();
            self.finish_conversation(at, evicted, open);
        }
    }

    /// Takes a piece of a conversation.
    pub(super) fn converse(&mut self, at: Timestamp, conn: u64, way: Way, piece: Piece<'_>, turn: bool) {
        let Some(open) = self.requests.open.get_mut(&conn) else { return };
        let line = open.line.clone();
        let (before, unread) = (open.conversation.heap_bytes(), open.conversation.unread());
        let mut steps = Vec::new();
        open.conversation.push(at, way, piece, turn, &mut steps);
        self.callers.note_heard(conn, open.conversation.is_read());
        self.requests.unread += open.conversation.unread() - unread;
        self.requests.bytes += open.conversation.heap_bytes();
        self.requests.bytes -= before;
        self.take_steps(at, conn, &line, steps);
        while self.requests.bytes > BYTES_MAX
            && let Some((evicted, open)) = self.requests.open.evict_oldest()
        {
            self.requests.bytes -= open.conversation.heap_bytes();
            self.finish_conversation(at, evicted, open);
        }
    }

    fn finish_conversation(&mut self, at: Timestamp, conn: u64, mut open: Open) {
        let mut steps = Vec::new();
        open.conversation.close(at, &mut steps);
        if let Line::Socket(caller) = &open.line {
            self.requests.sockets.forget(conn, caller);
        }
        self.take_steps(at, conn, &open.line, steps);
    }

    fn take_steps(&mut self, now: Timestamp, conn: u64, line: &Line, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Asked { at, endpoint, exact } => {
                    if endpoint.route == docker::START
                        && let Some(reference) = endpoint.reference
                        && let Some(Parties { credit: Some(credit), .. }) = self.parties(at, conn, line)
                    {
                        let conn = self.outbox.conn_id(conn);
                        self.origins.starts(at, reference, conn, exact && credit == Credit::Full);
                    }
                }
                Step::Answered(exchange) => self.tell_request(now, conn, line, *exchange),
                Step::Hello(at, hello) => match line {
                    Line::Port(cgroup, ends) => self.tell_hello(at, conn, *cgroup, ends, &hello),
                    Line::Socket(_) => self.tell_foreign(at, conn, line, Protocol::Unknown),
                },
                Step::Foreign(at, protocol) => self.tell_foreign(at, conn, line, protocol),
            }
        }
    }

    /// Who takes part; `None` when that is a runtime talking to a runtime.
    fn parties(&mut self, at: Timestamp, conn: u64, line: &Line) -> Option<Parties> {
        match line {
            Line::Port(cgroup, ends) => {
                let (subject, net) = self.served(at, conn, *cgroup, ends);
                let credit = self.credit_of(*cgroup, &subject);
                Some(Parties { subject, net: Some(net), socket: None, client: self.far_end_of(conn), credit })
            }
            Line::Socket(caller) => self.parties_on_socket(conn, caller),
        }
    }

    fn tell_request(&mut self, now: Timestamp, conn: u64, line: &Line, exchange: Exchange) {
        let Exchange { at, head, endpoint, create, status, created, exact } = exchange;
        let Some(parties) = self.parties(at, conn, line) else { return };
        let credit = parties.credit;
        let create = create.unwrap_or_default();
        let truncated = head.truncated || create.truncated;
        let api = ApiRequest {
            method: Some(head.method),
            path: Some(head.path),
            route: Some(endpoint.route.into()),
            version: endpoint.version,
            status,
            user_agent: head.user_agent,
            body_flags: create.risks,
            image: create.image,
            command: create.command.into(),
            ..ApiRequest::of_class(endpoint.class)
        };
        let request = self.send_api(at, parties, api, truncated);
        let conn: ConnId = self.outbox.conn_id(conn);
        if endpoint.route == docker::START
            && let Some(reference) = &endpoint.reference
        {
            // An answer that may be another request's says nothing of this one.
            let outcome = match status.filter(|_| exact) {
                Some(STARTED) => StartOutcome::Started,
                Some(_) => StartOutcome::Refused,
                None => StartOutcome::Unread,
            };
            self.origins.start_ended(now, reference, &conn, request.clone(), outcome);
        }
        if let (Some(id), Some(credit)) = (created, credit) {
            self.origins.made(id, conn, request, exact && credit == Credit::Full);
        }
    }

    /// How far it counts what a server says. Who answers on a management port may be anybody: in a container, to have
    /// others blamed for what was made elsewhere.
    fn credit_of(&self, cgroup: CgroupKey, server: &Subject) -> Option<Credit> {
        if !self.is_host_cgroup(cgroup) {
            return None;
        }
        let is_root = server.process.as_ref().is_some_and(|process| process.uid == Some(0));
        Some(if is_root { Credit::Full } else { Credit::Some })
    }

    fn tell_foreign(&mut self, at: Timestamp, conn: u64, line: &Line, protocol: Protocol) {
        let api = ApiRequest { protocol: Some(protocol), ..ApiRequest::of_class(ApiClass::Other) };
        if let Some(parties) = self.parties(at, conn, line) {
            let _ = self.send_api(at, parties, api, false);
        }
    }

    fn send_api(
        &mut self,
        at: Timestamp,
        parties: Parties,
        api: ApiRequest,
        truncated: bool,
    ) -> Option<RecordId> {
        let Parties { mut subject, net, socket, client, .. } = parties;
        subject.truncated |= truncated;
        let kind = FactKind::ApiRequest(Box::new(ApiRequest { socket, client: client.clone(), ..api }));
        let verdict = self.verdict_on(at, net.as_ref(), client.as_deref(), Shown::by(&kind));
        self.send_and_name(at, subject, net, kind, verdict)
    }
}

const fn api_of(service: Service) -> Api {
    match service {
        Service::Kubelet | Service::KubeletReadonly => Api::Kubelet,
        Service::KubeApiserver => Api::Kubernetes,
        Service::Docker | Service::DockerTls | Service::Other => Api::Docker,
    }
}

fn key_of(ends: &Ends) -> (End, End, u32) {
    (ends.peer, ends.local, ends.netns)
}
