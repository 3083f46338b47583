//! What leaves the engine: numbered output and requests, in order.
//!
//! Owns sequence numbers and record ids. Before the ready record nothing is numbered, so that it is always the first.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::audit;
use crate::chains::{Chains, Clocks, Derived, Limits, What};
use crate::engine::{Output, Request};
use crate::exposure::Inside;
use crate::fact::{Container, Fact, FactKind, K8s, Net, Node, Process, Quality, Verdict};
use crate::health::Health;
use crate::ids::{ConnId, RecordId, RunId};
use crate::state::{Change, Entries};
use crate::text::push_hex;
use crate::time::Timestamp;

/// Most facts that wait for the ready record.
const EARLY_MAX: usize = 16_384;

/// A fact without its number.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) at: Timestamp,
    pub(crate) process: Option<Arc<Process>>,
    pub(crate) container: Option<Arc<Container>>,
    pub(crate) k8s: Option<Arc<K8s>>,
    pub(crate) net: Option<Net>,
    pub(crate) quality: Quality,
    pub(crate) kind: FactKind,
    pub(crate) verdict: Option<Verdict>,
}

/// The queue of output and the queue of requests.
#[derive(Debug)]
pub(crate) struct Outbox {
    node: Arc<Node>,
    run: String,
    seq: u64,
    healths: u64,
    /// Facts that wait for the ready record; `None` once it is out.
    early: Option<VecDeque<Draft>>,
    early_evicted: u64,
    outputs: VecDeque<Output>,
    requests: VecDeque<Request>,
    chains: Chains,
    id: String,
}

impl Outbox {
    pub(crate) fn new(run: RunId, node: Arc<Node>) -> Self {
        Self {
            node,
            run: run.to_string(),
            seq: 0,
            healths: 0,
            early: Some(VecDeque::new()),
            early_evicted: 0,
            outputs: VecDeque::new(),
            requests: VecDeque::new(),
            chains: Chains::default(),
            id: String::new(),
        }
    }

    /// Sends a fact and returns its id, or keeps it until the ready record is out.
    pub(crate) fn send(&mut self, draft: Draft) -> Option<RecordId> {
        let Some(early) = &mut self.early else { return Some(self.number(draft)) };
        if early.len() == EARLY_MAX {
            early.pop_front();
            self.early_evicted += 1;
        }
        early.push_back(draft);
        None
    }

    /// Sends the ready record and then what waited for it.
    pub(crate) fn open(&mut self, at: Timestamp, health: Health) {
        let early = self.early.take().unwrap_or_default();
        self.send_health(at, health);
        for draft in early {
            self.number(draft);
        }
    }

    /// Lets facts through without a ready record, as replay does.
    pub(crate) fn open_silently(&mut self) {
        let early = self.early.take().unwrap_or_default();
        for draft in early {
            self.number(draft);
        }
    }

    /// Whether the ready record is still to come.
    pub(crate) fn is_early(&self) -> bool {
        self.early.is_some()
    }

    /// Sends a fact that has its id already.
    pub(crate) fn send_recorded(&mut self, fact: Fact, verdict: Option<Verdict>) {
        let seq = self.next_seq();
        self.push_fact(seq, fact, verdict);
    }

    /// The id of the next fact of this run.
    pub(crate) fn next_id(&mut self) -> RecordId {
        RecordId(self.id_with("-", self.seq))
    }

    /// Sends what the last fact signals, a request of an audit log, and what follows from that.
    pub(crate) fn send_audit_signal(&mut self, signal: &audit::Signal) {
        self.chains.handle_audit(signal);
        self.push_derived();
    }

    /// Sends a health record of this run.
    pub(crate) fn send_health(&mut self, at: Timestamp, health: Health) {
        self.healths += 1;
        let id = RecordId(format!("health-{}-{:x}", self.run, self.healths).into());
        let node = self.node.clone();
        self.send_health_as(id, at, node, health);
    }

    /// Sends a health record under an id and for a node of the caller's choice.
    pub(crate) fn send_health_as(
        &mut self,
        id: RecordId,
        at: Timestamp,
        node: Arc<Node>,
        mut health: Health,
    ) {
        let seq = self.next_seq();
        if let Some(emitted) = &mut health.emitted {
            *emitted = seq + 1;
        } else {
            // What is lost in the balance of a run has been told before.
            self.chains.note_loss(&node, at.boot_ns, health.lost_management());
            self.chains.note_audit_loss(health.lost_audit());
        }
        self.outputs.push_back(Output::Health { seq, id, at, node, health });
    }

    /// Takes note that it is this late, boot clock, and that what was before has been sent.
    pub(crate) fn pass(&mut self, boot_ns: u64) {
        self.chains.pass(&self.node, boot_ns);
        self.push_derived();
    }

    /// Takes a health record of a recording: the time on its node, and management records that it says were lost.
    pub(crate) fn pass_recorded(&mut self, node: &Node, boot_ns: u64, lost: u64, lost_audit: u64) {
        self.chains.note_loss(node, boot_ns, lost);
        self.chains.note_audit_loss(lost_audit);
        self.chains.pass(node, boot_ns);
        self.push_derived();
    }

    /// The id of this run.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    /// The node that this run watches.
    pub(crate) const fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// From now on what changes in correlation is to be asked for.
    pub(crate) fn keep(&mut self) {
        self.chains.keep(&self.node);
    }

    /// Hands out what has changed in correlation.
    pub(crate) fn take_changes(&mut self, out: &mut Vec<Change>) {
        self.chains.take_changes(&self.node, out);
    }

    /// How late it is to correlation.
    pub(crate) fn clocks(&self) -> Clocks {
        self.chains.clocks(&self.node)
    }

    /// Takes what an earlier run has left. Returns how much of it could not be read.
    pub(crate) fn restore(&mut self, entries: &Entries<'_>, left_by: &Arc<Node>, clocks: Clocks) -> u64 {
        self.chains.restore(entries, left_by, clocks)
    }

    /// Gives up what is remembered of a boot. Returns how much that was.
    pub(crate) fn abandon(&mut self, node: &Node, at: Timestamp) -> u64 {
        self.chains.abandon(node, at)
    }

    /// Nobody watched a node in this time, boot clock.
    pub(crate) fn note_gap(&mut self, node: &Node, from_ns: u64, to_ns: u64) {
        self.chains.note_gap(node, from_ns, to_ns);
    }

    /// What the run before told of last may be unknown. `own`: what ids of this run begin with.
    pub(crate) fn doubt_numbers(&mut self, own: &str) {
        self.chains.doubt_numbers(own);
    }

    /// Takes note that lines of an audit log were lost.
    pub(crate) fn note_audit_loss(&mut self, lost: u64) {
        self.chains.note_audit_loss(lost);
    }

    /// Takes what tunes the analytics.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.chains.set_limits(limits);
    }

    /// Takes what tells peers outside from others.
    pub(crate) fn set_inside(&mut self, inside: Inside) {
        self.chains.set_inside(inside);
    }

    /// Takes the names of the entries that expect peers by what they show, likewise.
    pub(crate) fn set_narrowed(&mut self, narrowed: BTreeSet<Arc<str>>) {
        self.chains.set_narrowed(narrowed);
    }

    /// What correlation remembers.
    pub(crate) fn chains(&self) -> &Chains {
        &self.chains
    }

    /// The id printed for a connection.
    pub(crate) fn conn_id(&mut self, conn: u64) -> ConnId {
        ConnId(self.id_with("-c", conn))
    }

    pub(crate) fn request(&mut self, request: Request) {
        self.requests.push_back(request);
    }

    pub(crate) fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(crate) fn next_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// Facts dropped while they waited for the ready record.
    pub(crate) fn evicted(&self) -> u64 {
        self.early_evicted
    }

    fn next_seq(&mut self) -> u64 {
        let seq = self.seq;
        self.seq += 1;
        seq
    }

    fn number(&mut self, draft: Draft) -> RecordId {
        let seq = self.next_seq();
        let id = RecordId(self.id_with("-", seq));
        let Draft { at, process, container, k8s, net, quality, kind, verdict } = draft;
        let fact =
            Fact { id: id.clone(), at, node: self.node.clone(), process, container, k8s, net, quality, kind };
        self.push_fact(seq, fact, verdict);
        id
    }

    /// Every fact passes here once it has its id, live as well as in replay: what follows from it comes after it.
    fn push_fact(&mut self, seq: u64, fact: Fact, verdict: Option<Verdict>) {
        self.chains.handle(&fact, verdict.as_ref());
        self.outputs.push_back(Output::Fact { seq, fact, verdict });
        self.push_derived();
    }

    fn push_derived(&mut self) {
        while let Some(Derived { id, at, node, what }) = self.chains.next_derived() {
            let seq = self.next_seq();
            self.outputs.push_back(match what {
                What::Signal(signal) => Output::Signal { seq, id, at, node, signal },
                What::Finding(finding) => Output::Finding { seq, id, at, node, finding },
            });
        }
    }

    fn id_with(&mut self, separator: &str, number: u64) -> Arc<str> {
        self.id.clear();
        self.id.push_str(&self.run);
        self.id.push_str(separator);
        push_hex(&mut self.id, number);
        Arc::from(&*self.id)
    }
}
