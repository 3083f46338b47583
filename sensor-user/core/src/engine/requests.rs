//! Requests on plaintext ports: each becomes a record, and the cause of what it makes.

use std::sync::Arc;

use super::subject::Subject;
use crate::bounded::Bounded;
use crate::engine::Engine;
use crate::event::{AcceptEvent, Ends, PayloadEvent};
use crate::fact::{ApiRequest, End, FactKind, Net, Protocol, Service};
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
enum Credit {
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
}

/// A connection on which requests may come.
#[derive(Debug)]
struct Open {
    conversation: Conversation,
    cgroup: CgroupKey,
    ends: Ends,
}

impl Default for Requests {
    fn default() -> Self {
        Self { open: Bounded::new(CONVERSATIONS_MAX), bytes: 0, unread: 0, early: Bounded::new(EARLY_MAX) }
    }
}

impl Requests {
    /// Connections that were given up for others, and times that what was asked on one could not be read.
    pub(super) fn evicted(&self) -> u64 {
        self.open.evicted() + self.early.evicted() + self.unread
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
            let open = Open { conversation, cgroup: event.cgroup, ends: event.ends };
            if let Some((evicted, open)) = self.requests.open.insert(conn, open) {
                self.requests.bytes -= open.conversation.heap_bytes();
                self.finish_conversation(at, evicted, open);
            }
        }
        let Some(open) = self.requests.open.get_mut(&conn) else { return };
        let (cgroup, ends) = (open.cgroup, open.ends);
        let (before, unread) = (open.conversation.heap_bytes(), open.conversation.unread());
        let way = if event.to_peer { Way::ToClient } else { Way::ToServer };
        let PayloadEvent { offset, settled, bytes, len, .. } = event;
        let piece = Piece { offset: *offset, settled: *settled, bytes, len: u64::from(*len) };
        let mut steps = Vec::new();
        open.conversation.push(at, way, piece, event.turn, &mut steps);
        self.callers.note_heard(conn, open.conversation.is_read());
        self.requests.unread += open.conversation.unread() - unread;
        self.requests.bytes += open.conversation.heap_bytes();
        self.requests.bytes -= before;
        self.take_steps(at, conn, cgroup, &ends, steps);
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
        self.take_steps(at, conn, open.cgroup, &open.ends, steps);
    }

    fn take_steps(&mut self, now: Timestamp, conn: u64, cgroup: CgroupKey, ends: &Ends, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Asked { at, endpoint, exact } => {
                    if endpoint.route == docker::START
                        && let Some(reference) = endpoint.reference
                    {
                        let (server, net) = self.served(at, conn, cgroup, ends);
                        let Some((conn, credit)) = net.conn.zip(self.credit_of(cgroup, &server)) else {
                            continue;
                        };
                        self.origins.starts(at, reference, conn, exact && credit == Credit::Full);
                    }
                }
                Step::Answered(exchange) => self.tell_request(now, conn, cgroup, ends, *exchange),
                Step::Hello(at, hello) => self.tell_hello(at, conn, cgroup, ends, &hello),
                Step::Foreign(at, protocol) => self.tell_foreign(at, conn, cgroup, ends, protocol),
            }
        }
    }

    fn tell_request(
        &mut self,
        now: Timestamp,
        conn: u64,
        cgroup: CgroupKey,
        ends: &Ends,
        exchange: Exchange,
    ) {
        let Exchange { at, head, endpoint, create, status, created, exact } = exchange;
        let create = create.unwrap_or_default();
        let truncated = head.truncated || create.truncated;
        let api = ApiRequest {
            method: Some(head.method),
            path: Some(head.path),
            route: Some(endpoint.route.into()),
            class: endpoint.class,
            version: endpoint.version,
            status,
            user_agent: head.user_agent,
            body_flags: create.risks,
            image: create.image,
            command: create.command.into(),
            protocol: None,
        };
        let (server, net) = self.served(at, conn, cgroup, ends);
        let credit = self.credit_of(cgroup, &server);
        let request = self.send_api(at, server, net, api, truncated);
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

    fn tell_foreign(&mut self, at: Timestamp, conn: u64, cgroup: CgroupKey, ends: &Ends, protocol: Protocol) {
        let api = ApiRequest {
            method: None,
            path: None,
            route: None,
            class: ApiClass::Other,
            version: None,
            status: None,
            user_agent: None,
            body_flags: Arc::from([]),
            image: None,
            command: Arc::from([]),
            protocol: Some(protocol),
        };
        let (server, net) = self.served(at, conn, cgroup, ends);
        let _ = self.send_api(at, server, net, api, false);
    }

    fn send_api(
        &mut self,
        at: Timestamp,
        mut server: Subject,
        net: Net,
        api: ApiRequest,
        truncated: bool,
    ) -> Option<RecordId> {
        let verdict = self.verdict_on(at, &net);
        server.truncated |= truncated;
        self.send_and_name(at, server, Some(net), FactKind::ApiRequest(Box::new(api)), verdict)
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
