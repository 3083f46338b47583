//! AN1547: credentials out of place.
//!
//! Three kinds of proof, in this order: a token says the pod and node it belongs to; an issued credential is known by
//! its id where it is used; everything else has only its habits and the allow-list. Uses that are out of place are
//! never learned.

use std::net::IpAddr;
use std::sync::Arc;

use super::habits::Habits;
use super::judge::Verdict;
use super::places::{Place, Places, PodElsewhere, Relation};
use super::request::{AuditRequest, Bound, CredentialKind, Principal};
use super::signal::SignalName;
use crate::bounded::Bounded;
use crate::chains::{Confidence, Severity};

/// Issued credentials remembered: a pod's token is issued anew every 48 minutes or so.
const ISSUED_MAX: usize = 65_536;

/// Who had a credential issued, and from where.
#[derive(Clone, Debug)]
struct Issue {
    by: Arc<str>,
    principal: Principal,
    source: Option<IpAddr>,
}

/// Credentials by where they may be used.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    issued: Bounded<Arc<str>, Issue>,
}

/// What is known of a request's source.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    pub(super) ip: IpAddr,
    pub(super) place: &'a Place,
    /// An entry of the allow-list expects it.
    pub(super) listed: bool,
}

impl Credentials {
    pub(super) fn new() -> Self {
        Self { issued: Bounded::new(ISSUED_MAX) }
    }

    /// Remembers what a request's answer has issued.
    pub(super) fn note_issue(&mut self, request: &AuditRequest) {
        let Some(issued) = &request.issued else { return };
        let issue = Issue {
            by: request.user.clone(),
            principal: request.principal.clone(),
            source: request.source.trusted,
        };
        self.issued.insert(issued.clone(), issue);
    }

    /// Whether a token is one that the controller manager had issued for its own accounts, or may be.
    pub(super) fn is_controller(&self, request: &AuditRequest) -> bool {
        let Principal::ServiceAccount { namespace, .. } = &request.principal else { return false };
        let issue = request.credential.as_ref().and_then(|credential| self.issued.peek(&credential.id));
        &**namespace == "kube-system"
            && request.bound.is_none()
            && issue.is_none_or(|issue| matches!(issue.principal, Principal::Component))
    }

    /// Judges where a credential is used, and learns from uses that are in place.
    pub(super) fn judge(
        &self,
        request: &AuditRequest,
        at: At<'_>,
        places: &mut Places,
        habits: &mut Habits,
    ) -> Option<Verdict> {
        match (&request.principal, &request.bound) {
            (Principal::Refused, _) => None,
            (Principal::Anonymous, _) => anonymous(request),
            (Principal::Node(node), _) => kubelet(request, node, at.ip, places),
            (_, Some(bound)) => match self.node_of(request, bound, places) {
                Some(node) => bound_token(request, bound, &node, at.ip, places),
                None => self.unbound(request, at, habits),
            },
            (_, None) => self.unbound(request, at, habits),
        }
    }

    /// Entries that had to go.
    pub(super) fn evicted(&self) -> u64 {
        self.issued.evicted()
    }

    /// The node a token belongs to: as it says itself, else whose kubelet had it issued, else who reported the pod.
    fn node_of(&self, request: &AuditRequest, bound: &Bound, places: &Places) -> Option<Arc<str>> {
        let issuer = || match &self.issued.peek(request.credential_id())?.principal {
            Principal::Node(node) => Some(node.clone()),
            _ => None,
        };
        let reporter = || {
            let Principal::ServiceAccount { namespace, .. } = &request.principal else { return None };
            places.node_of_pod(&format!("{namespace}/{}", bound.pod.as_ref()?)).cloned()
        };
        bound.node.clone().or_else(issuer).or_else(reporter)
    }

    fn unbound(&self, request: &AuditRequest, at: At<'_>, habits: &mut Habits) -> Option<Verdict> {
        let id = request.credential_id();
        if let Some(verdict) = self.issued_elsewhere(request, at) {
            return Some(verdict);
        }
        let source = habits.source(id, at.ip);
        let expected = at.listed || source.usual || matches!(at.place, Place::Local | Place::Shared);
        if !expected && *at.place == Place::Outside {
            let how = if source.known { ", and was always used from elsewhere" } else { "" };
            let kind = what(request);
            let detail = format!("{kind} is used from {}, which is in no named network{how}", at.ip);
            return Some(found(SignalName::CredentialNewSource, Confidence::Inferred, detail));
        }
        if !expected && source.known {
            let detail = format!("{} is used from {}, where it never was before", what(request), at.ip);
            return Some(found(SignalName::CredentialNewSource, Confidence::Inferred, detail));
        }
        habits.used(id, at.ip);
        None
    }

    /// What programs have issued for themselves is used where they are.
    fn issued_elsewhere(&self, request: &AuditRequest, at: At<'_>) -> Option<Verdict> {
        let issue = self.issued.peek(request.credential_id())?;
        let elsewhere = issue.source.is_some_and(|source| source != at.ip && !source.is_loopback());
        if at.listed || !issue.principal.is_machine() || !elsewhere || at.ip.is_loopback() {
            return None;
        }
        let source = issue.source.map(|source| format!(" at {source}")).unwrap_or_default();
        let detail = format!("the token was issued to {}{source} and is used from {}", issue.by, at.ip);
        Some(found(SignalName::IssuedTokenElsewhere, Confidence::Proved, detail))
    }
}

fn found(name: SignalName, evidence: Confidence, detail: String) -> Verdict {
    let severity = match evidence {
        Confidence::Proved => Severity::High,
        Confidence::Inferred => Severity::Medium,
    };
    Verdict::found(name, evidence, severity, detail)
}

fn what(request: &AuditRequest) -> &'static str {
    match request.credential.as_ref().map(|credential| credential.kind) {
        Some(CredentialKind::Certificate) => "the client certificate",
        Some(CredentialKind::Token) => "the token",
        Some(CredentialKind::LegacyToken) => "the token without id",
        Some(CredentialKind::Other) | None => "the credential",
    }
}

fn anonymous(request: &AuditRequest) -> Option<Verdict> {
    let object = request.object.as_ref().filter(|_| request.succeeded())?;
    let public =
        object.namespace.as_deref() == Some("kube-public") && object.name.as_deref() == Some("cluster-info");
    if public || request.verb.is_empty() {
        return None;
    }
    let detail = format!("{} {} was answered without credentials", request.verb, object.resource);
    Some(found(SignalName::AnonymousAccess, Confidence::Proved, detail))
}

fn kubelet(request: &AuditRequest, node: &Arc<str>, ip: IpAddr, places: &mut Places) -> Option<Verdict> {
    let relation = places.relation(node, ip, false);
    let name = SignalName::NodeCredentialElsewhere;
    match relation {
        Relation::Own => {
            reported(request, node, places);
            None
        }
        Relation::Unknowable => None,
        Relation::New => {
            places.learn(node, ip);
            None
        }
        _ if registers(request, node) => {
            places.registered(node, ip);
            None
        }
        Relation::Other(owner) => {
            let detail =
                format!("the credential of node {node} is used from {ip}, an address of node {owner}");
            Some(found(name, Confidence::Proved, detail))
        }
        Relation::Elsewhere { sure } => {
            let evidence = if sure { Confidence::Proved } else { Confidence::Inferred };
            let detail =
                format!("the credential of node {node} is used from {ip}, which is none of its addresses");
            Some(found(name, evidence, detail))
        }
    }
}

/// A kubelet may make its node object only when there is none: the node is new, or comes back.
fn registers(request: &AuditRequest, node: &Arc<str>) -> bool {
    let object = request.object.as_ref();
    &*request.verb == "create"
        && request.resource() == ("nodes", "")
        && request.code == Some(201)
        && object.is_some_and(|object| object.name.as_ref().is_none_or(|name| name == node))
}

/// Learns from what a kubelet at its own place says.
fn reported(request: &AuditRequest, node: &Arc<str>, places: &mut Places) {
    if let Some(super::body::Body::Node { addresses, pods }) = &request.body
        && request.object.as_ref().and_then(|object| object.name.as_ref()) == Some(node)
    {
        places.told(node, addresses, pods);
    }
    if request.resource() == ("pods", "status")
        && request.succeeded()
        && let Some(object) = &request.object
        && let (Some(namespace), Some(name)) = (&object.namespace, &object.name)
    {
        places.pod_on(format!("{namespace}/{name}").into(), node);
    }
}

fn bound_token(
    request: &AuditRequest,
    bound: &Bound,
    node: &Arc<str>,
    ip: IpAddr,
    places: &mut Places,
) -> Option<Verdict> {
    let name = SignalName::BoundTokenElsewhere;
    let pod = bound.pod.as_deref().unwrap_or("an unnamed one");
    match places.relation(node, ip, true) {
        Relation::Own => {
            places.pod_request(node, ip, true);
            None
        }
        Relation::New => None,
        Relation::Unknowable => {
            let whose = match places.pod_elsewhere(bound.pod_uid.as_ref()?, node, ip, request.at_ns)? {
                PodElsewhere::Pod(uid) => format!("the address of the pod with uid {uid}"),
                PodElsewhere::Node(other) => format!("an address of the pods of node {other}"),
            };
            let detail = format!("the token of pod {pod} on node {node} is used from {ip}, {whose}");
            Some(found(name, Confidence::Inferred, detail))
        }
        Relation::Other(owner) => {
            let detail = format!(
                "the token of pod {pod} on node {node} is used from {ip}, an address of node {owner}"
            );
            Some(found(name, Confidence::Proved, detail))
        }
        // Where pods leave through another address than their node's, the first one seen is that address.
        Relation::Elsewhere { sure: false }
            if places.of(ip) != Place::Outside && places.pod_request(node, ip, false) =>
        {
            None
        }
        Relation::Elsewhere { sure } => {
            let evidence = if sure { Confidence::Proved } else { Confidence::Inferred };
            let detail = format!(
                "the token of pod {pod} on node {node} is used from {ip}, which is no address of that node"
            );
            Some(found(name, evidence, detail))
        }
    }
}
