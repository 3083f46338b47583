//! Correlation: facts and their verdicts in, signals and findings out.
//!
//! Owns what is remembered between facts. Knows no clock and no source: windows are of event time, and live capture and
//! replay hand in the same facts in the same order. What other inputs find out for themselves, as the audit log does, is
//! told in the same types.

mod an1007;
mod an1352;
mod an1547;
mod analytic;
mod audit;
mod audit_signals;
mod evidence;
mod finding;
mod loss_log;
mod restore;
mod signal;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

pub use an1007::An1007Limits;
use an1007::{An1007, Context};
use an1352::An1352;
pub use an1352::An1352Limits;
use an1547::An1547;
pub use an1547::An1547Limits;
pub use analytic::{AN1007, AN1352, AN1547, Analytic, BUILT_IN, Stage};
use audit::AuditChains;
use evidence::Evidence;

pub use finding::{Completeness, Confidence, Entities, Finding, FindingState, Link, Severity, StageSeen};
pub(crate) use restore::Clocks;
pub use signal::{Signal, SignalKey};

use loss_log::LossLog;

use crate::allow_list::Act;
use crate::audit as audit_log;
use crate::bounded::Bounded;
use crate::containers::id_of_key;
use crate::exposure::Inside;
use crate::fact::{Fact, FactKind, Node, Verdict};
use crate::ids::RecordId;
use crate::state::kept::{Keep, Kept};
use crate::state::{STATE_BYTES, Table};
use crate::time::Timestamp;

/// How much later than its time a fact may come and still be put where it belongs, nanoseconds: requests are told of when
/// they are answered, and containers when their files were read.
pub(crate) const REORDER_NS: u64 = 10_000_000_000;
/// Most nodes of one recording; the one heard of longest ago is forgotten first.
const NODES_MAX: usize = 256;
/// Most chains whose records are numbered.
const NUMBERED_MAX: usize = 65_536;

/// What tunes the analytics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of AN1007.
    pub an1007: An1007Limits,
    /// Of AN1352.
    pub an1352: An1352Limits,
    /// Of AN1547.
    pub an1547: An1547Limits,
    /// Bytes that what is remembered of a node may have.
    pub state_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            an1007: An1007Limits::default(),
            an1352: An1352Limits::default(),
            an1547: An1547Limits::default(),
            state_bytes: STATE_BYTES,
        }
    }
}

/// A chain is told of less often than this within the time of which a run may have left nothing.
const TOLD_MEANWHILE: u32 = 64;

/// The next number of a record that was certainly not used, when the last one that is known is this.
const fn after_doubt(number: u32) -> u32 {
    (number / TOLD_MEANWHILE + 1).saturating_mul(TOLD_MEANWHILE).saturating_add(1)
}

/// What came of a fact, without its place in the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Derived {
    pub(crate) id: RecordId,
    pub(crate) at: Timestamp,
    pub(crate) node: Arc<Node>,
    pub(crate) what: What,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Signal(Box<Signal>),
    Finding(Box<Finding>),
}

/// All analytics, on each node by itself: boot clocks of different nodes have nothing in common.
#[derive(Debug)]
pub(crate) struct Chains {
    limits: Limits,
    inside: Inside,
    narrowed: BTreeSet<Arc<str>>,
    /// By boot id.
    nodes: Bounded<Arc<str>, NodeChains>,
    /// Of audit logs, which are no node's.
    audit: AuditChains,
    sender: Sender,
    /// The boot of which changes are asked for.
    kept: Option<Arc<str>>,
    told: restore::Told,
}

/// What is remembered of one node.
#[derive(Debug, Default)]
struct NodeChains {
    an1007: An1007,
    an1352: An1352,
    an1547: An1547,
    losses: LossLog,
}

impl Default for Chains {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            inside: Inside::default(),
            narrowed: BTreeSet::new(),
            nodes: Bounded::new(NODES_MAX),
            audit: AuditChains::default(),
            sender: Sender::default(),
            kept: None,
            told: restore::Told::default(),
        }
    }
}

impl Chains {
    /// Takes other limits, for what is judged from now on. What is remembered stays.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.set_bytes(limits.state_bytes);
        self.audit.set_window(limits.an1547.window_ns);
        self.limits = limits;
    }

    /// Takes the names of the entries that expect peers by what they show, likewise.
    pub(crate) fn set_narrowed(&mut self, narrowed: BTreeSet<Arc<str>>) {
        self.narrowed = narrowed;
    }

    /// Takes what tells peers outside from others, likewise.
    pub(crate) fn set_inside(&mut self, inside: Inside) {
        self.inside = inside;
    }

    /// Takes a fact that has its id, with what the allow-list says of it.
    pub(crate) fn handle(&mut self, fact: &Fact, verdict: Option<&Verdict>) {
        self.sender.signals = 0;
        if matches!(fact.kind, FactKind::Audit(_)) {
            return self.audit.handle(fact, &mut self.sender);
        }
        self.on_node(&fact.node, |node, context| node.handle(fact, verdict, context));
        let verdict = verdict.filter(|_| !self.is_held_against(fact));
        self.on_an1352(&fact.node, |node, context| node.handle(fact, verdict, context));
        self.on_an1547(&fact.node, |node, context| node.handle(fact, verdict, context));
    }

    /// Whether a fact is of an act of a container that is part of a chain: what that does is expected of nobody, whatever
    /// it and its image are called by those who made it.
    fn is_held_against(&self, fact: &Fact) -> bool {
        let Some(container) = fact.container.as_ref().filter(|_| Act::of(&fact.kind).is_some()) else {
            return false;
        };
        self.nodes.peek(&*fact.node.boot_id).is_some_and(|node| node.an1007.holds(&container.key()))
    }

    /// Takes what the fact before signals, which is a request of an audit log.
    pub(crate) fn handle_audit(&mut self, signal: &audit_log::Signal) {
        self.audit.handle_signal(signal, &mut self.sender);
    }

    /// Takes note that it is this late on a node, boot clock, and that everything before has been told.
    pub(crate) fn pass(&mut self, node: &Node, boot_ns: u64) {
        self.on_node(node, |node, context| node.pass(boot_ns, context));
        self.on_an1352(node, |node, context| node.pass(boot_ns, context));
        self.on_an1547(node, |node, context| node.pass(boot_ns, context));
    }

    /// Takes note that management records of a node were lost, as was told at this time.
    pub(crate) fn note_loss(&mut self, node: &Node, boot_ns: u64, lost: u64) {
        if lost > 0 {
            self.enter(node).losses.note(boot_ns, lost);
        }
    }

    /// Takes note that lines of an audit log were lost about the time of its latest request.
    pub(crate) fn note_audit_loss(&mut self, lost: u64) {
        self.audit.note_loss(lost);
    }

    /// Takes the next result.
    pub(crate) fn next_derived(&mut self) -> Option<Derived> {
        self.sender.outputs.pop_front()
    }

    /// Chains of which something was seen.
    pub(crate) fn open(&self) -> usize {
        let of_nodes =
            self.nodes.iter().map(|(_, node)| node.an1007.open() + node.an1352.open() + node.an1547.open());
        of_nodes.sum::<usize>() + self.audit.open()
    }

    /// What was dropped from each table since the start.
    pub(crate) fn evicted(&self) -> [(&'static str, u64); 7] {
        let mut all = NodeChains::default().evicted();
        for (_, node) in self.nodes.iter() {
            for (sum, (_, evicted)) in all.iter_mut().zip(node.evicted()) {
                sum.1 += evicted;
            }
        }
        let [accesses, containers, chains, principals, entered] = all;
        let audit_chains = ("audit-chains", self.audit.evicted());
        let numbers = ("chain-numbers", self.sender.findings.evicted());
        [accesses, containers, chains, principals, entered, audit_chains, numbers]
    }

    fn on_node(&mut self, node: &Node, act: impl FnOnce(&mut An1007, &mut Context<'_>)) {
        self.enter(node);
        let Self { limits, narrowed, nodes, sender, .. } = self;
        if let Some(NodeChains { an1007, losses, .. }) = nodes.get_mut(&*node.boot_id) {
            act(an1007, &mut Context { limits: &limits.an1007, narrowed, losses, sender });
        }
    }

    fn on_an1352(&mut self, node: &Node, act: impl FnOnce(&mut An1352, &mut an1352::Context<'_>)) {
        let Self { limits, inside, nodes, sender, .. } = self;
        if let Some(NodeChains { an1352, losses, .. }) = nodes.get_mut(&*node.boot_id) {
            act(an1352, &mut an1352::Context { limits: &limits.an1352, inside, losses, sender });
        }
    }

    fn on_an1547(&mut self, node: &Node, act: impl FnOnce(&mut An1547, &mut an1547::Context<'_>)) {
        let Self { limits, nodes, sender, .. } = self;
        if let Some(NodeChains { an1547, losses, .. }) = nodes.get_mut(&*node.boot_id) {
            act(an1547, &mut an1547::Context { limits: &limits.an1547, losses, sender });
        }
    }

    fn enter(&mut self, node: &Node) -> &mut NodeChains {
        if !self.nodes.contains(&*node.boot_id) {
            let mut chains = NodeChains::default();
            chains.tables().for_each(|table| table.set_bytes(self.limits.state_bytes));
            if self.kept.as_deref() == Some(&node.boot_id) {
                chains.tables().for_each(Keep::keep);
            }
            self.nodes.insert(node.boot_id.clone(), chains);
        }
        self.nodes.get_mut(&*node.boot_id).expect("invariant: entered above")
    }
}

impl NodeChains {
    fn evicted(&self) -> [(&'static str, u64); 5] {
        let [accesses, containers, chains] = self.an1007.evicted();
        let principals = ("discovery-principals", self.an1352.evicted());
        [accesses, containers, chains, principals, ("entered-containers", self.an1547.evicted())]
    }
}

/// Results on their way out.
#[derive(Debug)]
struct Sender {
    /// Signals of the present fact.
    signals: u32,
    /// Records of chains so far, by analytic and first evidence.
    findings: Kept<String, u32>,
    /// What ids of this run begin with, where those of the run before may have been used already.
    own: Option<Box<str>>,
    outputs: VecDeque<Derived>,
}

impl Default for Sender {
    fn default() -> Self {
        Self {
            signals: 0,
            findings: Kept::new(Table::Numbers, NUMBERED_MAX, STATE_BYTES),
            own: None,
            outputs: VecDeque::new(),
        }
    }
}

/// Containers are told apart by their keys; told are their ids.
fn show_id(key: &mut Arc<str>) {
    let id = id_of_key(key);
    if id.len() < key.len() {
        *key = id.into();
    }
}

impl Sender {
    /// Tells what a fact is to an analytic.
    fn signal(&mut self, fact: &Fact, signal: Signal) {
        self.signal_of(&fact.id, fact.at, &fact.node, signal);
    }

    /// The same of a fact that has gone on.
    fn signal_of(&mut self, fact: &RecordId, at: Timestamp, node: &Arc<Node>, mut signal: Signal) {
        self.signals += 1;
        let id = RecordId(format!("signal-{}-{}", fact.0, self.signals).into());
        let keys = signal.keys.iter_mut().filter(|(name, _)| *name == SignalKey::Container);
        keys.for_each(|(_, key)| show_id(key));
        let what = What::Signal(Box::new(signal));
        self.outputs.push_back(Derived { id, at, node: node.clone(), what });
    }

    /// The id of the next record of a chain that begins with this evidence.
    fn finding_id(&mut self, analytic: &str, evidence: &str) -> RecordId {
        let key = format!("{analytic}-{evidence}");
        let number = match self.findings.get_mut(&key) {
            Some(number) => {
                *number = number.saturating_add(1);
                *number
            }
            None => {
                let is_old = self.own.as_ref().is_some_and(|own| !evidence.starts_with(&**own));
                let number = if is_old { after_doubt(0) } else { 1 };
                self.findings.insert(key.clone(), number);
                number
            }
        };
        self.findings.shrink();
        RecordId(format!("{key}-{number}").into())
    }

    /// Records of the run before may have been told of that are not known.
    fn doubt(&mut self, own: &str) {
        self.own = Some(own.into());
        let keys: Vec<String> = self.findings.iter().map(|(key, _)| key.clone()).collect();
        for key in keys {
            if let Some(number) = self.findings.get_mut(&key) {
                *number = after_doubt(*number) - 1;
            }
        }
    }

    /// Tells of a chain.
    fn finding(&mut self, id: RecordId, at: Timestamp, node: Arc<Node>, mut finding: Finding) {
        finding.entities.containers.iter_mut().for_each(show_id);
        self.outputs.push_back(Derived { id, at, node, what: What::Finding(Box::new(finding)) });
    }
}
