//! One chain: who took what and where it went, and how that is told.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::act::{Act, Kind};
use super::{ACTS_MAX, Context};
use crate::chains::analytic::AN1547;
use crate::chains::loss_log::{Missed, tell_unwatched};
use crate::chains::{Confidence, Entities, Evidence, Finding, FindingState, Link, Severity};
use crate::containers::short_id_of_key;
use crate::fact::{Fact, Node};
use crate::state::kept::is_plausible_time;
use crate::time::Timestamp;

/// A chain.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Case {
    /// Not kept: it is whoever puts the chain back.
    #[serde(skip, default = "Node::unknown")]
    pub(super) node: Arc<Node>,
    /// The container's name, or its pod's.
    name: Option<Arc<str>>,
    access: Evidence,
    source: Evidence,
    /// Which programs read what, and which connected, the first ones.
    readers: Vec<Arc<str>>,
    users: Vec<Arc<str>>,
    targets: Vec<Arc<str>>,
    lost: u64,
    /// Something of it was forgotten.
    pub(super) cut: bool,
    /// How many targets were told of last.
    told: Option<usize>,
    id: Option<Arc<str>>,
    /// When it ends if nothing more happens, boot clock.
    pub(super) deadline_ns: u64,
}

impl Case {
    /// A chain in a fact's container.
    pub(super) fn of(fact: &Fact) -> Self {
        let pod = fact.k8s.as_ref().and_then(|k8s| {
            Some(Arc::from(format!(
                "{} of pod {}/{}",
                k8s.container.as_ref()?,
                k8s.namespace.as_ref()?,
                k8s.pod.as_ref()?
            )))
        });
        Self {
            node: fact.node.clone(),
            name: pod.or_else(|| fact.container.as_ref().and_then(|container| container.name.clone())),
            access: Evidence::default(),
            source: Evidence::default(),
            readers: Vec::new(),
            users: Vec::new(),
            targets: Vec::new(),
            lost: 0,
            cut: false,
            told: None,
            id: None,
            deadline_ns: 0,
        }
    }

    /// Takes one more act: a read, or what was used after one.
    pub(super) fn add(&mut self, kind: Kind, act: &Act) {
        match kind {
            Kind::Read => {
                self.access.add(&act.event, act.at);
                add(&mut self.readers, format!("{} read {}", act.program, act.object));
            }
            Kind::Use => {
                self.source.add(&act.event, act.at);
                add(&mut self.users, act.program.to_string());
                add(&mut self.targets, act.object.to_string());
            }
        }
        self.lost = self.lost.max(act.lost);
    }

    /// When the last thing of it happened.
    pub(super) fn last(&self) -> Timestamp {
        self.source.last.max(self.access.last)
    }

    /// The state to tell it in, if there is anything to tell: it is new, or goes to another place.
    pub(super) fn news(&self) -> Option<FindingState> {
        match self.told {
            None => Some(FindingState::Open),
            Some(told) if self.targets.len() > told => Some(FindingState::Update),
            Some(_) => None,
        }
    }

    /// Whether it can be what was kept.
    pub(super) fn is_plausible(&self) -> bool {
        let lists = [&self.readers, &self.users, &self.targets];
        self.access.is_plausible()
            && self.source.is_plausible()
            && lists.into_iter().all(|list| list.len() <= ACTS_MAX)
            && is_plausible_time(self.last())
            && self.deadline_ns < i64::MAX as u64
    }

    pub(super) fn tell(
        &mut self,
        container: &Arc<str>,
        state: FindingState,
        at: Timestamp,
        context: &mut Context<'_>,
    ) {
        let Some(evidence) = self.access.events.first().map(|event| event.0.clone()) else { return };
        self.told = Some(self.targets.len());
        let record = context.sender.finding_id("an1547", &evidence);
        let id = self.id.get_or_insert_with(|| record.0.clone()).clone();
        let first = self.access.seen.unwrap_or_default();
        let last = self.last();
        let mut missed = context.losses.missed(first, last, at);
        missed.lost = missed.lost.max(self.lost);
        let link = |(from, to): (&_, &_)| Link {
            from: Clone::clone(from),
            to: Clone::clone(to),
            class: Confidence::Inferred,
            how: "in this order in one container, and neither by what its first program started".into(),
        };
        let ends = self.access.events.first().zip(self.source.events.first());
        let finding = Finding {
            id,
            analytic: AN1547.id.into(),
            strategy: AN1547.strategy.into(),
            techniques: AN1547.techniques.iter().map(|id| (*id).into()).collect(),
            title: AN1547.title.into(),
            severity: Severity::Medium,
            state,
            confidence: Confidence::Inferred,
            stages: AN1547
                .stages
                .iter()
                .zip([&self.access, &self.source, &Evidence::default()])
                .map(|(stage, evidence)| evidence.of_stage(stage.name))
                .collect(),
            links: ends.map(link).into_iter().collect(),
            entities: Entities {
                containers: vec![container.clone()],
                nodes: vec![self.node.name.clone()],
                targets: self.targets.clone(),
                ..Entities::default()
            },
            completeness: missed.completeness(self.cut),
            explanation: self.explanation(container, missed),
            first,
            last,
        };
        context.sender.finding(record, at, self.node.clone(), finding);
    }

    fn explanation(&self, container: &str, missed: Missed) -> String {
        let short = short_id_of_key(container);
        let mut text = match &self.name {
            Some(name) => format!("In container {name} ({short})"),
            None => format!("In container {short}"),
        };
        let _ = write!(
            text,
            " on node {} {}; then {} connected to {}. None of these programs is the container's own: a runtime put \
             them there, as `kubectl exec` and `docker exec` do, or they are renamed tools. ",
            self.node.name,
            self.readers.join(", "),
            self.users.join(", "),
            self.targets.join(", "),
        );
        if missed.lost > 0 {
            let _ = write!(
                text,
                "{} management records were lost meanwhile, so there may be more. ",
                missed.lost
            );
        }
        tell_unwatched(&mut text, missed);
        text.push_str(
            "That it was the same credential, and what was done with it, is not seen here: look in the audit log for \
             this pod's account from now on. If nobody of yours was in this container, have the account's tokens \
             replaced by deleting the pod.",
        );
        text
    }
}

fn add(list: &mut Vec<Arc<str>>, text: String) {
    if list.len() < ACTS_MAX && !list.iter().any(|known| **known == *text) {
        list.push(text.into());
    }
}
