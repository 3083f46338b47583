//! Scans that make whole connections: what one source did within a short time, as one record.
//!
//! Owns what has not been told yet. A burst ends when its source has been quiet for [`QUIET_NS`], and is told of in parts
//! when it lasts longer than [`LASTING_NS`] or reaches more than the table holds. Connections keep the records of their own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::subject::Subject;
use crate::bounded::Bounded;
use crate::engine::Engine;
use crate::event::{ConnectEvent, Ends};
use crate::fact::{Direction, End, FactKind, Net, ScanShape, Service};
use crate::ids::ProcessKey;
use crate::time::Timestamp;

/// A source that has been quiet for so long has finished.
const QUIET_NS: u64 = 2_000_000_000;
/// The longest that one record tells of.
const LASTING_NS: u64 = 60_000_000_000;
/// Endpoints of this node that a peer connects to within a burst before that is a scan.
const CONNECT_TARGETS_MIN: usize = 3;
/// Endpoints of others that a container connects to before that is one.
const SWEEP_TARGETS_MIN: usize = 4;
/// Most sources that are looked at; what the one that did something longest ago has done so far is told then.
const SOURCES_MAX: usize = 4096;
/// Most endpoints remembered for all of them.
const TARGETS_MAX: usize = 65_536;

/// Who is behind a burst.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Source {
    /// A peer that connects to this node.
    Peer(IpAddr),
    /// A container of this node that connects to others.
    Container(Arc<str>),
    /// A runtime's process that does.
    Process(ProcessKey),
}

/// What happened at one endpoint.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    connections: u64,
    /// Of these, ended without a byte from the peer.
    empty: u64,
}

/// What one source did since it began.
#[derive(Debug)]
struct Burst {
    began_ns: u64,
    last: Timestamp,
    /// By endpoint and network namespace.
    targets: BTreeMap<(End, u32), Tally>,
    /// Who sweeps. Of the others the table of processes knows more than would be kept here.
    subject: Option<Subject>,
}

impl Burst {
    const fn new(at: Timestamp) -> Self {
        Self { began_ns: at.boot_ns, last: at, targets: BTreeMap::new(), subject: None }
    }

    /// Returns whether the endpoint is a new one.
    fn note(&mut self, at: Timestamp, target: (End, u32), act: Act<'_>) -> bool {
        self.last = at;
        let is_known = self.targets.contains_key(&target);
        let tally = self.targets.entry(target).or_default();
        match act {
            Act::Accepted => tally.connections += 1,
            Act::Ended => tally.empty += 1,
            // The result of an attempt that was counted already.
            Act::Connected { is_attempt: false, .. } if is_known => {}
            Act::Connected { .. } => tally.connections += 1,
        }
        if let Act::Connected { subject, .. } = act
            && self.targets.len() >= SWEEP_TARGETS_MIN
        {
            self.subject.get_or_insert_with(|| subject.clone());
        }
        !is_known
    }
}

/// The bursts that are going on, the quietest first.
#[derive(Debug)]
pub(super) struct Bursts {
    open: Bounded<Source, Burst>,
    /// Of all of them.
    targets: usize,
}

impl Default for Bursts {
    fn default() -> Self {
        Self { open: Bounded::new(SOURCES_MAX), targets: 0 }
    }
}

impl Bursts {
    /// Bursts that were told of before they ended, to make room for others.
    pub(super) fn evicted(&self) -> u64 {
        self.open.evicted()
    }

    /// When the first of them ends if nothing more happens, boot clock.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.open.iter().next().map(|(_, burst)| burst.last.boot_ns.saturating_add(QUIET_NS))
    }

    /// What happened at an endpoint; returns what has to be told to make room for it.
    fn note(
        &mut self,
        at: Timestamp,
        source: Source,
        target: (End, u32),
        act: Act<'_>,
    ) -> Vec<(Source, Burst)> {
        let mut over = Vec::new();
        let is_lasting = |burst: &Burst| at.boot_ns.saturating_sub(burst.began_ns) > LASTING_NS;
        if self.open.peek(&source).is_some_and(is_lasting) {
            over.extend(self.take(&source));
        }
        if !self.open.contains(&source) {
            let evicted = self.open.insert(source.clone(), Burst::new(at));
            over.extend(evicted.inspect(|(_, burst)| self.targets -= burst.targets.len()));
        }
        if let Some(burst) = self.open.get_mut(&source) {
            self.targets += usize::from(burst.note(at, target, act));
        }
        while self.targets > TARGETS_MAX
            && let Some((source, burst)) = self.open.evict_oldest()
        {
            self.targets -= burst.targets.len();
            over.push((source, burst));
        }
        over
    }

    fn take(&mut self, source: &Source) -> Option<(Source, Burst)> {
        let burst = self.open.remove(source)?;
        self.targets -= burst.targets.len();
        Some((source.clone(), burst))
    }

    fn take_due(&mut self, now_ns: u64) -> Option<(Source, Burst)> {
        let is_due = self.next_due()? <= now_ns;
        let source = self.open.iter().next().filter(|_| is_due).map(|(source, _)| source.clone())?;
        self.take(&source)
    }
}

/// What somebody did at an endpoint.
#[derive(Clone, Copy, Debug)]
enum Act<'a> {
    /// A peer connected.
    Accepted,
    /// Its connection ended, and it had sent nothing.
    Ended,
    /// Somebody on this node connects, or it is known what became of that.
    Connected { subject: &'a Subject, is_attempt: bool },
}

impl Engine {
    pub(super) fn note_accept(&mut self, at: Timestamp, ends: &Ends) {
        self.note_act(at, Source::Peer(ends.peer.ip), (ends.local, ends.netns), Act::Accepted);
    }

    pub(super) fn note_close(&mut self, at: Timestamp, net: &Net, netns: u32, bytes_in: u64) {
        if let (Some(Direction::Inbound), Some(peer), Some(local), 0) =
            (net.direction, net.peer, net.local, bytes_in)
        {
            self.note_act(at, Source::Peer(peer.ip), (local, netns), Act::Ended);
        }
    }

    /// Takes a connect towards a management endpoint elsewhere.
    pub(super) fn note_connect(
        &mut self,
        at: Timestamp,
        event: &ConnectEvent,
        subject: &Subject,
        is_attempt: bool,
    ) {
        let source = match (&subject.container, &subject.process) {
            (Some(container), _) => Source::Container(container.id.clone()),
            (None, Some(process)) => {
                Source::Process(ProcessKey { pid: process.pid, start_ns: process.start_ns })
            }
            (None, None) => return,
        };
        let target = (event.ends.peer, event.ends.netns);
        self.note_act(at, source, target, Act::Connected { subject, is_attempt });
    }

    fn note_act(&mut self, at: Timestamp, source: Source, target: (End, u32), act: Act<'_>) {
        for (source, burst) in self.bursts.note(at, source, target, act) {
            self.tell_burst(&source, burst);
        }
    }

    /// Tells of the bursts that have ended.
    pub(super) fn expire_bursts(&mut self, now: Timestamp) {
        while let Some((source, burst)) = self.bursts.take_due(now.boot_ns) {
            self.tell_burst(&source, burst);
        }
    }

    fn tell_burst(&mut self, source: &Source, burst: Burst) {
        let Burst { began_ns, last, targets, subject } = burst;
        let connections: u64 = targets.values().map(|tally| tally.connections).sum();
        let empty: u64 = targets.values().map(|tally| tally.empty).sum();
        let (shape, count, direction, is_of_shape): (_, _, _, fn(&Tally) -> bool) = match source {
            Source::Peer(_) if empty < connections && targets.len() >= CONNECT_TARGETS_MIN => {
                (ScanShape::Connect, connections, Direction::Inbound, |tally| tally.connections > 0)
            }
            Source::Peer(_) if empty > 0 => {
                (ScanShape::NoData, empty, Direction::Inbound, |tally| tally.empty > 0)
            }
            Source::Container(_) | Source::Process(_) if targets.len() >= SWEEP_TARGETS_MIN => {
                (ScanShape::Sweep, connections, Direction::Outbound, |_| true)
            }
            _ => return,
        };
        let reached: Vec<(End, u32)> =
            targets.iter().filter(|(_, tally)| is_of_shape(tally)).map(|(target, _)| *target).collect();
        let service = one(reached.iter().map(|(end, _)| self.service_of(end.port))).unwrap_or(Service::Other);
        // Whatever is the same for all of them can be named; a port of 0 stands for several.
        let end = one(reached.iter().map(|(end, _)| end.ip))
            .map(|ip| End { ip, port: one(reached.iter().map(|(end, _)| end.port)).unwrap_or(0) });
        let (subject, peer, local) = match source {
            Source::Peer(ip) => {
                let peer = End { ip: *ip, port: 0 };
                let subject = one(reached.iter().copied()).and_then(|(local, netns)| {
                    let (_, listener) = self.listeners.find(&Ends { local, peer, netns })?;
                    let holder = crate::listeners::present_holder(listener, &self.processes).copied();
                    Some((listener.cgroup, holder))
                });
                let subject = match subject {
                    Some((cgroup, holder)) => self.socket_subject(cgroup, holder),
                    None => self.subject(None, &super::subject::Whereabouts::Unknown),
                };
                (subject, Some(peer), end)
            }
            Source::Container(_) | Source::Process(_) => (subject.unwrap_or_default(), end, None),
        };
        let net = Net { direction: Some(direction), peer, local, service, conn: None };
        let kind = FactKind::Scan {
            shape,
            targets: reached.len() as u64,
            peers: 1,
            count,
            suppressed: 0,
            resumed: 0,
            window_ns: last.boot_ns.saturating_sub(began_ns),
        };
        self.send(last, subject, Some(net), kind, None);
    }
}

/// What all of them are, if it is the same.
fn one<T: PartialEq>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}
