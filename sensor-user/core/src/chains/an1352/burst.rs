//! One burst: what was called in it, and how that is told.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Made;
use super::call::Principal;
use crate::chains::analytic::{AN1352, SignalName};
use crate::chains::loss_log::{Missed, tell_unwatched};
use crate::chains::{Confidence, Entities, Evidence, Finding, FindingState, Severity};
use crate::containers::short_id_of_key;
use crate::exposure::Inside;
use crate::fact::{Fact, Node};
use crate::state::kept::COUNT_MAX;
use crate::time::Timestamp;

/// Calls that are named, the first ones.
const CALLS_TOLD: usize = 6;

/// A burst.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Burst {
    /// Not kept: it is whoever puts the burst back.
    #[serde(skip, default = "Node::unknown")]
    pub(super) node: Arc<Node>,
    /// Name of the container whose it is.
    container: Option<Arc<str>>,
    evidence: Evidence,
    /// Different calls, as far as they are told apart.
    distinct: usize,
    /// Names of their signals.
    signals: BTreeSet<SignalName>,
    /// What was asked for, the first ones.
    texts: Vec<Arc<str>>,
    /// Management records that its own evidence says were lost around it.
    lost: u64,
    /// Something of it was forgotten.
    pub(super) cut: bool,
    /// How many calls, of how many kinds, were told of last.
    told: Option<(usize, usize)>,
    /// The id that it is told under, once it is.
    pub(super) id: Option<Arc<str>>,
    /// When it ends if nothing more happens, boot clock; 0: not known yet.
    pub(super) deadline_ns: u64,
}

impl Burst {
    /// A burst to which a fact belongs.
    pub(super) fn of(fact: &Fact) -> Self {
        Self {
            node: fact.node.clone(),
            container: fact.container.as_ref().and_then(|container| container.name.clone()),
            evidence: Evidence::default(),
            distinct: 0,
            signals: BTreeSet::new(),
            texts: Vec::new(),
            lost: 0,
            cut: false,
            told: None,
            id: None,
            deadline_ns: 0,
        }
    }

    /// Takes a call.
    pub(super) fn add(&mut self, made: &Made, is_new: bool) {
        self.evidence.add(&made.event, made.at);
        self.distinct += usize::from(is_new);
        self.signals.insert(made.signal);
        self.lost = self.lost.max(made.lost);
        if self.texts.len() < CALLS_TOLD && !self.texts.contains(&made.text) {
            self.texts.push(made.text.clone());
        }
    }

    /// When the last call was.
    pub(super) const fn last(&self) -> Timestamp {
        self.evidence.last
    }

    /// Whether it can be what was kept.
    pub(super) fn is_plausible(&self) -> bool {
        let counts = [self.distinct, self.told.map_or(0, |(distinct, _)| distinct)];
        self.evidence.is_plausible()
            && self.texts.len() <= CALLS_TOLD
            && counts.into_iter().all(|count| count as u64 <= COUNT_MAX)
            && self.deadline_ns < i64::MAX as u64
    }

    pub(super) fn first_evidence(&self) -> Option<&Arc<str>> {
        self.evidence.events.first().map(|id| &id.0)
    }

    /// The state to tell it in, if there is anything to tell: it is new, has calls of another kind, or twice as many.
    pub(super) fn news(&mut self) -> Option<FindingState> {
        let now = (self.distinct, self.signals.len());
        let state = match self.told {
            None => FindingState::Open,
            Some((distinct, kinds)) if now.0 >= distinct * 2 || now.1 > kinds => FindingState::Update,
            Some(_) => return None,
        };
        self.told = Some(now);
        Some(state)
    }

    /// The burst as it is told. `missed`: what was not seen in its time.
    pub(super) fn finding(
        &self,
        id: Arc<str>,
        state: FindingState,
        principal: &Principal,
        inside: &Inside,
        missed: impl Fn(Timestamp, Timestamp) -> Missed,
    ) -> Finding {
        let first = self.evidence.seen.unwrap_or_default();
        let last = self.last();
        let mut missed = missed(first, last);
        missed.lost = missed.lost.max(self.lost);
        let mut entities = Entities { nodes: vec![self.node.name.clone()], ..Entities::default() };
        match principal {
            Principal::Peer(ip) => entities.peers.push(*ip),
            Principal::Container(id) => entities.containers.push(id.clone()),
            Principal::Tree(..) => {}
        }
        Finding {
            id,
            analytic: AN1352.id.into(),
            strategy: AN1352.strategy.into(),
            techniques: AN1352.techniques.iter().map(|id| (*id).into()).collect(),
            title: AN1352.title.into(),
            severity: severity(principal, inside),
            state,
            confidence: Confidence::Proved,
            stages: vec![self.evidence.of_stage(AN1352.stages[0].name)],
            links: Vec::new(),
            entities,
            completeness: missed.completeness(self.cut),
            explanation: self.explanation(principal, missed),
            first,
            last,
        }
    }

    fn explanation(&self, principal: &Principal, missed: Missed) -> String {
        let lost = missed.lost;
        let mut text = match principal {
            Principal::Peer(ip) => format!("{ip}, which no entry of the allow-list expects,"),
            Principal::Container(id) => {
                let short = short_id_of_key(id);
                match &self.container {
                    Some(name) => format!("Container {name} ({short})"),
                    None => format!("Container {short}"),
                }
            }
            Principal::Tree(pid, name) => {
                format!(
                    "The program {name} (pid {pid}) has tools run under other names than their own and so"
                )
            }
        };
        let _ = write!(text, " looked around on node {}: {}", self.node.name, self.texts.join(", "));
        let calls = if self.distinct == 1 { "call" } else { "different calls" };
        let _ = write!(text, "; {} {calls} so far. ", self.distinct);
        if lost > 0 {
            let _ = write!(text, "{lost} management records were lost meanwhile, so there may be more. ");
        }
        tell_unwatched(&mut text, missed);
        text.push_str(match principal {
            Principal::Peer(_) => {
                "If this is somebody of yours, add an entry; else cut the peer off, and look at what else it asked for \
                 and at the service's listener."
            }
            Principal::Container(_) => {
                "If this is not what the container is for, keep it for evidence, and look at how it came to be, at \
                 the credentials within its reach and at what it did next."
            }
            Principal::Tree(..) => {
                "Tools of container management have no need of other names: look at the files, at who brought them, \
                 and at what was done next."
            }
        });
        text
    }
}

fn severity(principal: &Principal, inside: &Inside) -> Severity {
    match principal {
        Principal::Container(_) => Severity::High,
        Principal::Peer(ip) if inside.is_outside(*ip) => Severity::High,
        Principal::Peer(_) | Principal::Tree(..) => Severity::Medium,
    }
}
