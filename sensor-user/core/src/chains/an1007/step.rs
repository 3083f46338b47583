//! Steps in the lives of containers: the second stage, and whom it is held against.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::access::{Access, Accesses};
use crate::chains::{Confidence, Link};
use crate::fact::{Container, ContainerAction, Fact, Origin, OriginClass, Service};
use crate::ids::RecordId;
use crate::time::Timestamp;

/// Risks that are kept of one container.
const RISKS_MAX: usize = 16;

/// A step in the life of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Step {
    pub(super) container: Arc<str>,
    pub(super) name: Option<Arc<str>>,
    pub(super) event: RecordId,
    pub(super) at: Timestamp,
    /// The names of its risks; empty: none, or they are not known.
    pub(super) risks: Vec<Arc<str>>,
    pub(super) lost: u64,
    action: ContainerAction,
    is_of_pod: bool,
    origin: Origin,
}

/// Whom a step is held against.
#[derive(Clone, Debug)]
pub(super) struct Cause {
    pub(super) class: Confidence,
    pub(super) service: Service,
    pub(super) peers: Vec<IpAddr>,
    pub(super) accesses: Vec<(Access, Link)>,
    /// The request, when its record is known.
    pub(super) request: Option<(RecordId, Link)>,
    /// There were more candidates than are named.
    pub(super) more: bool,
}

/// What a step is to the analytic.
#[derive(Clone, Debug)]
pub(super) enum Judgement {
    /// The second stage.
    Seen(Cause),
    /// An ordinary container while somebody's requests could not be read.
    Ordinary(Vec<IpAddr>),
    /// Nobody can be blamed.
    Unexplained,
}

impl Step {
    /// The step that a fact tells of, if it is one that somebody may have asked for.
    pub(super) fn of(
        fact: &Fact,
        container: &Container,
        action: ContainerAction,
        origin: &Origin,
    ) -> Option<Self> {
        use ContainerAction::{Created, Exec, Started};
        if !matches!(action, Created | Started | Exec) {
            return None;
        }
        Some(Self {
            container: container.key(),
            name: container.name.clone(),
            event: fact.id.clone(),
            at: fact.at,
            risks: risk_names(container),
            lost: fact.quality.lost,
            action,
            is_of_pod: fact.k8s.is_some(),
            origin: origin.clone(),
        })
    }

    /// Whether an access at this time, told after the step, can change how it is judged.
    pub(super) fn may_change_by(&self, conn: &str, is_veiled: bool, boot_ns: u64) -> bool {
        let may = self.origin.conn.as_ref().map_or(is_veiled, |own| &*own.0 == conn);
        may && boot_ns <= self.at.boot_ns
    }

    /// Whether connections are known that it comes of, or may.
    pub(super) fn has_origin(&self) -> bool {
        self.origin.conn.is_some() || !self.origin.candidates.is_empty()
    }

    /// Judges by the truth table in docs/detections/an1007.md.
    pub(super) fn judge(&self, accesses: &Accesses, window_ns: u64) -> Judgement {
        match &self.origin.conn {
            Some(conn) => match accesses.behind(&conn.0, self.at.boot_ns, window_ns) {
                Some(access) => self.by_origin(access),
                // Whoever asked for it is expected, or asked too long ago.
                None => Judgement::Unexplained,
            },
            None => self.by_time(accesses, window_ns),
        }
    }

    fn by_origin(&self, access: &Access) -> Judgement {
        let class = match self.origin.class {
            OriginClass::Proved => Confidence::Proved,
            OriginClass::Inferred | OriginClass::None => Confidence::Inferred,
        };
        if class == Confidence::Inferred && self.risks.is_empty() {
            return Judgement::Ordinary(vec![access.peer]);
        }
        let how = match (self.action, class) {
            (ContainerAction::Started, Confidence::Proved) => "asked for by a request on this connection",
            (_, Confidence::Proved) => "its id was in the answer to a request on this connection",
            (_, Confidence::Inferred) => "asked for on this connection, as far as turns and times tell",
        };
        let link = |from: &RecordId, to: &RecordId, class, how: &'static str| Link {
            from: from.clone(),
            to: to.clone(),
            class,
            how: how.into(),
        };
        let (first, request) = match &self.origin.request {
            Some(request) if *request != access.event => (
                link(&access.event, request, Confidence::Proved, "the same connection"),
                Some((request.clone(), link(request, &self.event, class, how))),
            ),
            _ => (link(&access.event, &self.event, class, how), None),
        };
        Judgement::Seen(Cause {
            class,
            service: access.service,
            peers: vec![access.peer],
            accesses: vec![(access.clone(), first)],
            request,
            more: false,
        })
    }

    /// No request was read that had it made, so it may have been one that cannot be.
    fn by_time(&self, accesses: &Accesses, window_ns: u64) -> Judgement {
        // Health checks enter containers all day.
        if self.action == ContainerAction::Exec {
            return Judgement::Unexplained;
        }
        let (found, more) = match &*self.origin.candidates {
            [] => accesses.candidates(self.at.boot_ns, window_ns, |service| self.may_come_of(service)),
            conns => accesses.among(conns, self.at.boot_ns, window_ns),
        };
        let peers: Vec<IpAddr> = found.iter().map(|access| access.peer).collect();
        let Some(service) = found.first().map(|access| access.service) else { return Judgement::Unexplained };
        if self.risks.is_empty() {
            return Judgement::Ordinary(peers);
        }
        let how = if peers.len() == 1 && !more {
            "nobody else used the service unexpectedly before that, and what was asked for cannot be read"
        } else {
            "one of several who used the service unexpectedly before that, and what was asked for cannot be read"
        };
        let link = |access: &Access| Link {
            from: access.event.clone(),
            to: self.event.clone(),
            class: Confidence::Inferred,
            how: how.into(),
        };
        let accesses = found.iter().map(|access| ((*access).clone(), link(access))).collect();
        Judgement::Seen(Cause { class: Confidence::Inferred, service, peers, accesses, request: None, more })
    }

    /// Whether containers like this one come of requests to a service of which their origin tells nothing. That of Docker's
    /// containers tells of time, too, and of better explanations.
    fn may_come_of(&self, service: Service) -> bool {
        service == Service::KubeApiserver && self.is_of_pod
    }
}

/// The names of a container's risks, the heaviest first.
pub(super) fn risk_names(container: &Container) -> Vec<Arc<str>> {
    let risks = container.risks.iter().flat_map(|risks| risks.iter());
    risks.take(RISKS_MAX).map(|risk| Arc::from(&*risk.name())).collect()
}
