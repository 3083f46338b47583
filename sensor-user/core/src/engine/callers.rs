//! Connections on which requests may come that nobody can read: over TLS, or not captured in full.
//!
//! Where nothing proves who had a container made, one of them did, unless somebody on the node itself did. That is an
//! inference from time alone and never more: whatever is proved goes before it.

use std::collections::VecDeque;

use crate::bounded::Bounded;
use crate::engine::Engine;
use crate::fact::{ExecRole, Net, Origin, OriginClass, Process, Runtime, Service};
use crate::health::{Capability, CoverageState, Loss};
use crate::ids::{CgroupKey, ConnId};
use crate::origins::LINGER_NS;
use crate::time::Timestamp;

/// Most connections that are open; the one that said something longest ago goes first.
const OPEN_MAX: usize = 16_384;
/// Most connections that have ended and still count; the one that ended first goes first.
const ENDED_MAX: usize = 4096;
/// Most connections of which one is the cause that are named.
const CANDIDATES_MAX: usize = 16;
/// How old a connection may be to count for what daemons do by themselves as well, nanoseconds.
const FRESH_NS: u64 = LINGER_NS;

/// What a container's step may be without any request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spontaneity {
    /// Nothing: somebody has asked for it.
    Asked,
    /// The daemon's own: a health check, or the restart of what had ended.
    Possible,
}

/// The table.
#[derive(Debug)]
pub(super) struct Callers {
    open: Bounded<u64, Caller>,
    /// In order of their ends.
    ended: VecDeque<(u64, u64, Caller)>,
    forgotten: u64,
    /// When somebody on the node last used the socket of a daemon whose containers these are, by runtime; it counts for as
    /// long as a daemon may work on what was asked for.
    local: [Option<u64>; 2],
    /// When it was last told that something was not captured.
    uncaptured_ns: Option<u64>,
}

/// A connection to a daemon.
#[derive(Clone, Debug)]
struct Caller {
    conn: ConnId,
    opened_ns: u64,
    /// Process id of the daemon, where that itself holds the listener; a forwarder may lead to any.
    daemon: Option<u32>,
    /// Something of it was captured.
    heard: bool,
    /// What it says cannot be read, as far as that is known.
    unread: bool,
}

impl Default for Callers {
    fn default() -> Self {
        Self {
            open: Bounded::new(OPEN_MAX),
            ended: VecDeque::new(),
            forgotten: 0,
            local: [None; 2],
            uncaptured_ns: None,
        }
    }
}

impl Callers {
    /// Connections that were forgotten for others while they counted.
    pub(super) fn evicted(&self) -> u64 {
        self.open.evicted() + self.forgotten
    }

    /// Something was captured of a connection, which is read from end to end or not.
    pub(super) fn note_heard(&mut self, conn: u64, is_read: bool) {
        if let Some(caller) = self.open.get_mut(&conn) {
            caller.heard = true;
            caller.unread |= !is_read;
        }
    }

    pub(super) fn note_end(&mut self, at: Timestamp, conn: u64) {
        let Some(caller) = self.open.remove(&conn) else { return };
        while self.ended.front().is_some_and(|(ended_ns, ..)| has_passed(*ended_ns, at.boot_ns)) {
            self.ended.pop_front();
        }
        self.ended.push_back((at.boot_ns, conn, caller));
        if self.ended.len() > ENDED_MAX {
            self.ended.pop_front();
            self.forgotten += 1;
        }
    }

    /// Somebody on the node has connected to the socket of a runtime.
    pub(super) fn note_local(&mut self, at: Timestamp, runtime: Runtime) {
        if let Some(index) = index_of(runtime) {
            self.local[index] = Some(at.boot_ns);
        }
    }

    /// Notes that something was not captured, whosever it was.
    pub(super) fn note_losses(&mut self, now: Timestamp, losses: &[Loss]) {
        let is_capture = |loss: &Loss| loss.kind == "payload" && loss.lost + loss.suppressed > 0;
        if losses.iter().any(is_capture) {
            self.uncaptured_ns = Some(now.boot_ns);
        }
    }

    /// Connections on which it may have been asked for what this daemon does now, the oldest first.
    fn candidates(&self, at: Timestamp, daemon: Option<u32>, spontaneity: Spontaneity) -> Vec<ConnId> {
        let ended = self.ended.iter().filter(|(ended_ns, ..)| !has_passed(*ended_ns, at.boot_ns));
        let ended = ended.map(|(_, number, caller)| (*number, caller));
        let open = self.open.iter().map(|(number, caller)| (*number, caller));
        let mut candidates: Vec<(u64, &Caller)> = open
            .chain(ended)
            .filter(|(_, caller)| {
                let is_daemons = daemon.is_none() || caller.daemon.is_none() || caller.daemon == daemon;
                let age_ns = at.boot_ns.saturating_sub(caller.opened_ns);
                let is_fresh = spontaneity == Spontaneity::Asked || age_ns <= FRESH_NS;
                is_daemons && is_fresh && caller.opened_ns <= at.boot_ns && self.is_unread(caller)
            })
            .collect();
        candidates.sort_unstable_by_key(|(number, caller)| (caller.opened_ns, *number));
        let newest = candidates.len().saturating_sub(CANDIDATES_MAX);
        candidates[newest..].iter().map(|(_, caller)| caller.conn.clone()).collect()
    }

    /// Of a connection of which nothing was captured nobody knows whether it said anything, if captures were lost since.
    fn is_unread(&self, caller: &Caller) -> bool {
        let was_lost = self.uncaptured_ns.is_some_and(|lost_ns| lost_ns >= caller.opened_ns);
        caller.unread || (!caller.heard && was_lost)
    }

    fn has_local(&self, at: Timestamp, runtime: Runtime) -> bool {
        let used_ns = index_of(runtime).and_then(|index| self.local[index]);
        used_ns.is_some_and(|used_ns| !has_passed(used_ns, at.boot_ns))
    }
}

/// The runtimes whose daemons take requests for single containers from other hosts. What the kubelet is asked to run goes
/// through the API server, whose audit log tells it; and it runs probes all the time that nobody has asked for.
const fn index_of(runtime: Runtime) -> Option<usize> {
    match runtime {
        Runtime::Docker => Some(0),
        Runtime::Podman => Some(1),
        _ => None,
    }
}

const fn has_passed(then_ns: u64, now_ns: u64) -> bool {
    now_ns.saturating_sub(then_ns) > LINGER_NS
}

impl Engine {
    /// A connection to a management port was accepted.
    pub(super) fn note_caller(
        &mut self,
        at: Timestamp,
        number: u64,
        cgroup: CgroupKey,
        net: &Net,
        holder: Option<u32>,
    ) {
        // A daemon in a container makes none on the host.
        let is_dockers = matches!(net.service, Service::Docker | Service::DockerTls);
        let Some(conn) = net.conn.clone().filter(|_| is_dockers && self.is_host_cgroup(cgroup)) else {
            return;
        };
        let state = self.coverage.state_of(Capability::Requests);
        let unread = state.is_some_and(|state| state != CoverageState::Live);
        let caller = Caller { conn, opened_ns: at.boot_ns, daemon: holder, heard: false, unread };
        self.callers.open.insert(number, caller);
    }

    /// What caused a step of a container: what is known, else what may have; `process` is one that the daemon has started.
    pub(super) fn origin_or_inferred(
        &self,
        at: Timestamp,
        id: &str,
        process: Option<&Process>,
        spontaneity: Spontaneity,
        known: Origin,
    ) -> Origin {
        let Some(runtime) = self.containers.peek(id).map(|entry| entry.shared.runtime) else { return known };
        let is_known = known.class != OriginClass::None;
        // Whoever uses the daemon's socket at the time is the better explanation.
        if is_known || index_of(runtime).is_none() || self.callers.has_local(at, runtime) {
            return known;
        }
        let ancestors = process.map(|process| &*process.ancestors).unwrap_or_default();
        let name = if runtime == Runtime::Docker { "dockerd" } else { "podman" };
        let daemon = ancestors.iter().find(|ancestor| &*ancestor.comm == name).map(|ancestor| ancestor.pid);
        Origin::one_of(self.callers.candidates(at, daemon, spontaneity))
    }

    /// Process id of a daemon.
    pub(super) fn daemon_pid(&self, process: Option<&Process>) -> Option<u32> {
        let process = process?;
        let key = crate::ids::ProcessKey { pid: process.pid, start_ns: process.start_ns };
        let role = self.processes.peek(key).and_then(|entry| entry.image.role);
        (role == Some(ExecRole::Daemon)).then_some(process.pid)
    }
}
