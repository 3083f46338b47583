//! Requests on the unix sockets of runtimes: who asks is known, when a connection ends is not.
//!
//! Nothing tells the end of a connection between two unix sockets. What was asked and not answered is told when the
//! process that asked has exited, or when nothing was said for a minute.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use sensor_common::record::UNKNOWN_BYTES;

use super::requests::{Credit, Line, Parties};
use super::subject::Subject;
use crate::engine::Engine;
use crate::event::SocketPayloadEvent;
use crate::fact::{Client, SocketUse};
use crate::http::Api;
use crate::http::conversation::{Conversation, Way};
use crate::http::reassembly::Piece;
use crate::ids::{FileKey, ProcessKey};
use crate::time::Timestamp;

/// How long an answer is waited for while nothing is said, nanoseconds: a container that is stopped is given ten seconds by
/// default.
const SILENCE_NS: u64 = 60_000_000_000;
/// Most requests of which it is still to be looked whether they were answered; with more than that nobody waits so long.
const DUE_MAX: usize = 65_536;

/// Who asks on a connection.
#[derive(Debug)]
pub(super) struct Caller {
    socket: FileKey,
    process: ProcessKey,
    /// When it began to, boot clock.
    asked_ns: u64,
    /// `None`: a runtime of the host, which is not told of.
    subject: Option<Subject>,
    /// For whom, if it passes on what that one says.
    client: Option<Box<Client>>,
}

/// The connections that are read.
#[derive(Debug, Default)]
pub(super) struct SocketRequests {
    by_process: BTreeSet<(ProcessKey, u64)>,
    /// Connections on which an answer is waited for, by when that is over; one that has ended since is still in it.
    due: VecDeque<(u64, u64)>,
}

impl SocketRequests {
    /// When it is to be looked whether an answer is still waited for.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.due.front().map(|(due_ns, _)| *due_ns)
    }

    /// A connection is not read any more.
    pub(super) fn forget(&mut self, conn: u64, caller: &Caller) {
        self.by_process.remove(&(caller.process, conn));
    }
}

impl Caller {
    pub(super) const fn asked_ns(&self) -> u64 {
        self.asked_ns
    }
}

impl Engine {
    pub(super) fn on_socket_payload(&mut self, at: Timestamp, event: &SocketPayloadEvent) {
        let SocketPayloadEvent { conn, offset, .. } = *event;
        if !event.to_peer && event.turn {
            self.note_socket_caller(at, event);
        }
        let way = if event.to_peer { Way::ToClient } else { Way::ToServer };
        // The kernel loses nothing on the way and turns nothing round.
        let piece = Piece { offset, settled: offset, bytes: &event.bytes, len: u64::from(event.len) };
        self.converse(at, conn, way, piece, event.turn);
    }

    /// Somebody begins to ask.
    fn note_socket_caller(&mut self, at: Timestamp, event: &SocketPayloadEvent) {
        let (conn, process) = (event.conn, event.task.key);
        let subject = self.acting_subject(&event.task, event.cgroup);
        // Who was behind it when it connected, whoever is by now.
        let client = match self.requests.line_mut(conn) {
            Some(Line::Socket(before)) if before.process == process => before.client.clone(),
            _ => self.behind_caller(process),
        };
        let caller = Caller { socket: event.socket, process, asked_ns: at.boot_ns, subject, client };
        let line = Line::Socket(Arc::new(caller));
        match self.requests.line_mut(conn) {
            Some(known) => {
                if let Line::Socket(before) = std::mem::replace(known, line) {
                    self.requests.sockets.forget(conn, &before);
                }
            }
            None => {
                let is_whole = event.offset < UNKNOWN_BYTES;
                let begin = if is_whole { Conversation::new } else { Conversation::resumed };
                self.open_conversation(at, conn, begin(Api::Docker), line);
            }
        }
        self.requests.sockets.by_process.insert((process, conn));
        self.requests.sockets.due.push_back((at.boot_ns + SILENCE_NS, conn));
    }

    /// Who asks, and on which socket.
    pub(super) fn parties_on_socket(&mut self, conn: u64, caller: &Caller) -> Option<Parties> {
        let subject = caller.subject.clone()?;
        let conn = self.outbox.conn_id(conn);
        let socket = self.files.socket(caller.socket);
        let used = SocketUse {
            path: socket.map(|socket| socket.path.clone()),
            inode: caller.socket.inode,
            service: socket.map(|socket| socket.service),
            conn,
        };
        // Whoever can put a file that is root's where the socket is looked for is root on the host.
        let is_roots = socket.is_some_and(|socket| socket.is_roots);
        let client = caller.client.clone();
        let credit = Some(if is_roots { Credit::Full } else { Credit::Some });
        Some(Parties { subject, net: None, socket: Some(Box::new(used)), client, credit })
    }

    /// A process has exited, and its connections with it: what they still wait for will not be read.
    pub(super) fn end_socket_requests_of(&mut self, at: Timestamp, process: ProcessKey) {
        let connections: Vec<u64> = self
            .requests
            .sockets
            .by_process
            .range((process, 0)..=(process, u64::MAX))
            .map(|(_, conn)| *conn)
            .collect();
        for conn in connections {
            self.end_conversation(at, conn);
        }
    }

    /// Tells what was asked on connections where nothing was asked since.
    pub(super) fn expire_socket_requests(&mut self, now: Timestamp) {
        while let Some(&(due_ns, conn)) = self.requests.sockets.due.front() {
            if due_ns > now.boot_ns && self.requests.sockets.due.len() <= DUE_MAX {
                break;
            }
            self.requests.sockets.due.pop_front();
            if self.requests.is_waiting(conn) && self.requests.was_asked(conn, due_ns - SILENCE_NS) {
                self.end_conversation(now, conn);
            }
        }
    }
}
