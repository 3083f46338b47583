//! One chain from its second stage on: what was seen of it, and how that is told.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::lateral::Lateral;
use super::step::{Cause, Step};
use crate::chains::analytic::AN1007;
use crate::chains::loss_log::{Missed, tell_unwatched};
use crate::chains::{Confidence, Entities, Evidence, Finding, FindingState, Link, Severity};
use crate::containers::short_id_of_key;
use crate::fact::{Node, Service};
use crate::ids::RecordId;
use crate::time::Timestamp;

/// Most containers that are named in one chain.
const CONTAINERS_MAX: usize = 16;
/// Most targets that are named in one chain.
const TARGETS_MAX: usize = 16;
/// Most links that are told of one chain.
const LINKS_MAX: usize = 32;
/// Risks that the explanation names.
const RISKS_TOLD: usize = 5;

/// What chains are told apart by: whom they are held against, and how sure that is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) class: Confidence,
    /// In order.
    pub(super) peers: Vec<IpAddr>,
}

/// A container of a chain.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Suspect {
    id: Arc<str>,
    name: Option<Arc<str>>,
    /// The names of its risks, the heaviest first; empty: none are known.
    risks: Vec<Arc<str>>,
    /// Time of its first step that counts, boot clock.
    since_ns: u64,
    has_moved: bool,
    has_escaped: bool,
}

/// What makes a chain worth being told of again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    severity: Severity,
    class: Confidence,
    peers: usize,
    containers: usize,
    has_moved: bool,
}

/// A chain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Case {
    pub(super) key: Key,
    /// Not kept: it is whoever puts the chain back.
    #[serde(skip, default = "Node::unknown")]
    pub(super) node: Arc<Node>,
    service: Service,
    suspects: Vec<Suspect>,
    access: Evidence,
    abnormal: Evidence,
    lateral: Evidence,
    links: Vec<Link>,
    targets: Vec<Arc<str>>,
    /// Something of it was forgotten.
    cut: bool,
    /// Management records that its own evidence says were lost around it.
    lost: u64,
    /// What was told last.
    told: Option<Told>,
    /// The id that it is told under, once it is.
    pub(super) id: Option<Arc<str>>,
    /// The chain that it goes on in.
    continued: Option<Arc<str>>,
    /// When it ends if nothing more happens, boot clock.
    pub(super) deadline_ns: Option<u64>,
}

impl Case {
    pub(super) fn new(key: Key, node: Arc<Node>, service: Service) -> Self {
        Self {
            key,
            node,
            service,
            suspects: Vec::new(),
            access: Evidence::default(),
            abnormal: Evidence::default(),
            lateral: Evidence::default(),
            links: Vec::new(),
            targets: Vec::new(),
            cut: false,
            lost: 0,
            told: None,
            id: None,
            continued: None,
            deadline_ns: None,
        }
    }

    /// Takes a step in the life of a container that is held against the peers of this chain.
    pub(super) fn add_step(&mut self, step: &Step, cause: &Cause) {
        for (access, link) in &cause.accesses {
            self.access.add(&access.event, access.at);
            self.link(link.clone());
        }
        if let Some((request, link)) = &cause.request {
            self.access.add(request, step.at);
            self.link(link.clone());
        }
        self.cut |= cause.more;
        self.lost = self.lost.max(step.lost);
        self.abnormal.add(&step.event, step.at);
        let is_full = self.suspects.len() == CONTAINERS_MAX;
        match self.suspects.iter_mut().find(|suspect| suspect.id == step.container) {
            Some(suspect) => {
                suspect.since_ns = suspect.since_ns.min(step.at.boot_ns);
                suspect.name = suspect.name.take().or_else(|| step.name.clone());
                if suspect.risks.is_empty() {
                    suspect.risks.clone_from(&step.risks);
                }
            }
            None if !is_full => self.suspects.push(Suspect {
                id: step.container.clone(),
                name: step.name.clone(),
                risks: step.risks.clone(),
                since_ns: step.at.boot_ns,
                has_moved: false,
                has_escaped: false,
            }),
            None => self.cut = true,
        }
    }

    /// Takes what a container of this chain did.
    pub(super) fn add_lateral(&mut self, container: &Arc<str>, lateral: &Lateral) {
        self.lateral.add(&lateral.event, lateral.at);
        self.lost = self.lost.max(lateral.lost);
        if let Some(suspect) = self.suspects.iter_mut().find(|suspect| suspect.id == *container) {
            suspect.has_moved = true;
        }
        self.aim_at(&lateral.target);
        if let Some(from) = self.abnormal.events.first().cloned() {
            let how = "the same container".into();
            self.link(Link { from, to: lateral.event.clone(), class: Confidence::Proved, how });
        }
    }

    /// A container of this chain has a program on the host's side.
    pub(super) fn add_escape(&mut self, container: &Arc<str>, event: &RecordId, at: Timestamp) {
        let Some(suspect) = self.suspects.iter_mut().find(|suspect| suspect.id == *container) else { return };
        suspect.has_escaped = true;
        self.abnormal.add(event, at);
    }

    /// Whether it is a better key: one container is held against the same peers and more, or proved.
    pub(super) fn may_become(&self, key: &Key) -> bool {
        let is_more =
            self.key.peers.iter().all(|peer| key.peers.contains(peer)) && key.peers.len() > self.peers();
        self.suspects.len() == 1 && (key.class > self.key.class || (key.class == self.key.class && is_more))
    }

    fn peers(&self) -> usize {
        self.key.peers.len()
    }

    /// Takes another key; what proves something takes the place of what was concluded.
    pub(super) fn become_of(&mut self, key: Key) {
        if key.class > self.key.class {
            self.links.retain(|link| link.class == Confidence::Proved);
            self.access = Evidence::default();
        }
        self.key = key;
    }

    /// Goes on in another chain, with its containers and what they did.
    pub(super) fn move_into(&mut self, other: &mut Self) {
        self.continued.clone_from(&other.id);
        for suspect in self.suspects.iter().cloned() {
            if other.suspects.len() < CONTAINERS_MAX {
                other.suspects.push(suspect);
            } else {
                other.cut = true;
            }
        }
        other.abnormal.take_from(&self.abnormal);
        other.lateral.take_from(&self.lateral);
        for link in self.links.iter().filter(|link| link.class == Confidence::Proved) {
            other.link(link.clone());
        }
        self.targets.iter().for_each(|target| other.aim_at(target));
        other.lost = other.lost.max(self.lost);
    }

    /// Something of it is forgotten.
    pub(super) fn forget(&mut self) {
        self.cut = true;
    }

    /// Whether a container is one of this chain.
    pub(super) fn has(&self, container: &str) -> bool {
        self.suspects.iter().any(|suspect| *suspect.id == *container)
    }

    /// Whether it can be what was kept.
    pub(super) fn is_plausible(&self) -> bool {
        let evidence = [&self.access, &self.abnormal, &self.lateral];
        self.suspects.len() <= CONTAINERS_MAX
            && self.links.len() <= LINKS_MAX
            && self.targets.len() <= TARGETS_MAX
            && evidence.into_iter().all(Evidence::is_plausible)
            && self.deadline_ns.is_some_and(|deadline_ns| deadline_ns < i64::MAX as u64)
    }

    /// When the first step of a container was.
    pub(super) fn since(&self, container: &str) -> u64 {
        let suspect = self.suspects.iter().find(|suspect| *suspect.id == *container);
        suspect.map_or(u64::MAX, |suspect| suspect.since_ns)
    }

    fn aim_at(&mut self, target: &Arc<str>) {
        if self.targets.contains(target) {
            return;
        }
        if self.targets.len() < TARGETS_MAX {
            self.targets.push(target.clone());
        } else {
            self.cut = true;
        }
    }

    fn link(&mut self, link: Link) {
        let is_known = self.links.iter().any(|known| known.from == link.from && known.to == link.to);
        if !is_known && self.links.len() < LINKS_MAX {
            self.links.push(link);
        }
    }

    /// When the last stage was seen.
    pub(super) fn last(&self) -> Timestamp {
        self.abnormal.last.max(self.lateral.last)
    }

    pub(super) fn containers(&self) -> impl Iterator<Item = &Arc<str>> {
        self.suspects.iter().map(|suspect| &suspect.id)
    }

    pub(super) fn first_evidence(&self) -> Option<&Arc<str>> {
        self.access.events.first().map(|id| &id.0)
    }

    /// The worst of its containers counts.
    fn severity(&self) -> Severity {
        let of = |suspect: &Suspect| {
            let all = if suspect.has_moved { Severity::Critical } else { Severity::High };
            let is_less = self.key.class == Confidence::Inferred || suspect.risks.is_empty();
            if is_less { all.lower() } else { all }
        };
        self.suspects.iter().map(of).max().unwrap_or(Severity::Medium)
    }

    /// The state to tell it in, if there is anything to tell that was not told.
    pub(super) fn news(&mut self) -> Option<FindingState> {
        let now = Told {
            severity: self.severity(),
            class: self.key.class,
            peers: self.key.peers.len(),
            containers: self.suspects.len(),
            has_moved: self.lateral.seen.is_some(),
        };
        let before = self.told.replace(now);
        match before {
            None => Some(FindingState::Open),
            Some(before) if before != now => Some(FindingState::Update),
            Some(_) => None,
        }
    }

    /// The chain as it is told. `missed`: what was not seen in its time.
    pub(super) fn finding(
        &self,
        id: Arc<str>,
        state: FindingState,
        missed: impl Fn(Timestamp, Timestamp) -> Missed,
    ) -> Finding {
        let first = self.access.seen.unwrap_or_default();
        let last = self.last();
        let mut missed = missed(first, last);
        missed.lost = missed.lost.max(self.lost);
        let evidence = [&self.access, &self.abnormal, &self.lateral];
        Finding {
            id,
            analytic: AN1007.id.into(),
            strategy: AN1007.strategy.into(),
            techniques: AN1007.techniques.iter().map(|id| (*id).into()).collect(),
            title: AN1007.title.into(),
            severity: self.severity(),
            state,
            confidence: self.key.class,
            stages: AN1007
                .stages
                .iter()
                .zip(evidence)
                .map(|(stage, seen)| seen.of_stage(stage.name))
                .collect(),
            links: self.links.clone(),
            entities: Entities {
                peers: self.key.peers.clone(),
                containers: self.containers().cloned().collect(),
                nodes: vec![self.node.name.clone()],
                targets: self.targets.clone(),
                ..Entities::default()
            },
            completeness: missed.completeness(self.cut),
            explanation: self.explanation(missed),
            first,
            last,
        }
    }

    fn explanation(&self, missed: Missed) -> String {
        let lost = missed.lost;
        let mut text = String::new();
        let peers: Vec<String> = self.key.peers.iter().map(ToString::to_string).collect();
        let who = match &*peers {
            [only] => format!("{only}, which no entry of the allow-list expects, has"),
            several => format!(
                "One of {} or several of them, none expected by the allow-list, have",
                several.join(", ")
            ),
        };
        let _ = write!(text, "{who} used the service {} of node {}. ", self.service.name(), self.node.name);
        text.push_str(match self.key.class {
            Confidence::Proved => "By its own requests it had ",
            Confidence::Inferred => {
                "Their requests cannot be read; in that time and with no better explanation came "
            }
        });
        let containers: Vec<String> = self.suspects.iter().map(Suspect::describe).collect();
        let _ = write!(text, "{}. ", containers.join("; "));
        if self.targets.is_empty() {
            text.push_str(
                "Nothing was seen yet of it reaching for other nodes: lateral-activity is missing. ",
            );
        } else {
            let _ = write!(text, "From there it reached for {}. ", self.targets.join(", "));
        }
        if lost > 0 {
            let _ = write!(text, "{lost} management records were lost meanwhile, so there may be more. ");
        }
        tell_unwatched(&mut text, missed);
        if let Some(other) = &self.continued {
            let _ = write!(text, "More is known now of who is behind it: it goes on in {other}. ");
        }
        text.push_str(
            "If nobody of yours did this, cut the peer off, keep the containers for evidence, and look at the targets \
             and at the service's listener.",
        );
        text
    }
}

impl Suspect {
    fn describe(&self) -> String {
        let short = short_id_of_key(&self.id);
        let mut text = match &self.name {
            Some(name) => format!("container {name} ({short})"),
            None => format!("container {short}"),
        };
        match &*self.risks {
            [] => text.push_str(" without known risks"),
            risks => {
                let told: Vec<&str> = risks.iter().take(RISKS_TOLD).map(|risk| &**risk).collect();
                let _ = write!(text, " with {}", told.join(", "));
                if risks.len() > RISKS_TOLD {
                    let _ = write!(text, " and {} more risks", risks.len() - RISKS_TOLD);
                }
            }
        }
        if self.has_escaped {
            text.push_str(", a program of which runs on the host's side");
        }
        text
    }
}
