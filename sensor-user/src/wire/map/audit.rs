//! Requests of audit logs.

use std::sync::Arc;

use sensor_core::audit;
use sensor_core::health;
use sensor_core::risks::Risk;

use super::super::record::{
    Audit, AuditBody, AuditBound, AuditCredential, AuditDecision, AuditImpersonated, AuditInput, AuditObject,
    AuditQuery, AuditTexts, Text,
};
use super::super::seq::List;
use super::super::time::UtcTime;
use super::{shared, text};

/// A text that the core keeps empty where there is none.
fn filled(text: &Arc<str>) -> Option<Text<'_>> {
    (!text.is_empty()).then(|| text.into())
}

fn emptied(text: Option<Text<'_>>) -> Arc<str> {
    text.map_or_else(|| Arc::from(""), Arc::from)
}

fn shared_all(texts: AuditTexts<'_>) -> Vec<Arc<str>> {
    texts.into_read().into_iter().map(Arc::from).collect()
}

impl<'a> From<&'a audit::AuditRequest> for Audit<'a> {
    fn from(request: &'a audit::AuditRequest) -> Self {
        Self {
            audit_id: (&request.audit_id).into(),
            user: filled(&request.user),
            groups: List::Core(&request.groups),
            credential: request.credential.as_ref().map(|credential| AuditCredential {
                kind: credential.kind.into(),
                id: (&credential.id).into(),
            }),
            bound: request.bound.as_ref().map(|bound| AuditBound {
                pod: text(&bound.pod),
                pod_uid: text(&bound.pod_uid),
                node: text(&bound.node),
            }),
            source: request.source.trusted,
            claimed: request.source.claimed.clone(),
            verb: (&request.verb).into(),
            path: (&request.path).into(),
            query: AuditQuery {
                limited: request.query.limited,
                versioned: request.query.versioned,
                selected: request.query.selected,
            },
            command: List::Core(&request.command),
            object: request.object.as_ref().map(AuditObject::from),
            code: request.code,
            decision: request
                .allowed
                .map(|allowed| if allowed { AuditDecision::Allow } else { AuditDecision::Forbid }),
            user_agent: text(&request.user_agent),
            impersonated: request.impersonated.as_ref().map(|other| AuditImpersonated {
                user: filled(&other.user),
                groups: List::Core(&other.groups),
            }),
            issued: text(&request.issued),
            violations: text(&request.violations),
            body: request.body.as_ref().map(AuditBody::from),
        }
    }
}

impl<'a> From<&'a audit::Object> for AuditObject<'a> {
    fn from(object: &'a audit::Object) -> Self {
        Self {
            group: filled(&object.group),
            resource: filled(&object.resource),
            subresource: text(&object.subresource),
            namespace: text(&object.namespace),
            name: text(&object.name),
            uid: text(&object.uid),
        }
    }
}

impl<'a> From<&'a audit::Body> for AuditBody<'a> {
    fn from(body: &'a audit::Body) -> Self {
        match body {
            audit::Body::Pod { risks } => Self::Pod { risks: List::Core(risks) },
            audit::Body::Binding { role, subjects } => {
                Self::Binding { role: role.into(), subjects: List::Core(subjects) }
            }
            audit::Body::Signing { signer, groups } => {
                Self::Signing { signer: signer.into(), groups: List::Core(groups) }
            }
            audit::Body::Review { user, resource } => {
                Self::Review { user: user.into(), resource: resource.into() }
            }
            audit::Body::Webhooks { urls } => Self::Webhooks { urls: List::Core(urls) },
            audit::Body::Node { addresses, pods } => {
                Self::Node { addresses: addresses.clone(), pods: pods.clone() }
            }
        }
    }
}

impl From<AuditBody<'_>> for audit::Body {
    fn from(body: AuditBody<'_>) -> Self {
        match body {
            AuditBody::Pod { risks } => {
                Self::Pod { risks: risks.into_read().into_iter().map(Risk::from).collect() }
            }
            AuditBody::Binding { role, subjects } => {
                Self::Binding { role: role.into(), subjects: shared_all(subjects) }
            }
            AuditBody::Signing { signer, groups } => {
                Self::Signing { signer: signer.into(), groups: shared_all(groups) }
            }
            AuditBody::Review { user, resource } => {
                Self::Review { user: user.into(), resource: resource.into() }
            }
            AuditBody::Webhooks { urls } => Self::Webhooks { urls: shared_all(urls) },
            AuditBody::Node { addresses, pods } => Self::Node { addresses, pods },
        }
    }
}

/// A request read back: when it came and whether it was cut is in the envelope.
pub(super) fn request(audit: Audit<'_>, at_ns: u64, truncated: bool) -> audit::AuditRequest {
    let user = emptied(audit.user);
    audit::AuditRequest {
        audit_id: audit.audit_id.into(),
        at_ns,
        principal: audit::Principal::of_user(&user),
        user,
        groups: shared_all(audit.groups),
        credential: audit
            .credential
            .map(|credential| audit::Credential { kind: credential.kind.into(), id: credential.id.into() }),
        bound: audit.bound.map(|bound| audit::Bound {
            pod: shared(bound.pod),
            pod_uid: shared(bound.pod_uid),
            node: shared(bound.node),
        }),
        source: audit::Source { trusted: audit.source, claimed: audit.claimed },
        verb: audit.verb.into(),
        path: audit.path.into(),
        query: audit::QueryShape {
            limited: audit.query.limited,
            versioned: audit.query.versioned,
            selected: audit.query.selected,
        },
        command: shared_all(audit.command),
        object: audit.object.map(|object| audit::Object {
            group: emptied(object.group),
            resource: emptied(object.resource),
            subresource: shared(object.subresource),
            namespace: shared(object.namespace),
            name: shared(object.name),
            uid: shared(object.uid),
        }),
        code: audit.code,
        allowed: audit.decision.map(|decision| decision == AuditDecision::Allow),
        user_agent: shared(audit.user_agent),
        impersonated: audit
            .impersonated
            .map(|other| audit::Impersonated { user: emptied(other.user), groups: shared_all(other.groups) }),
        issued: shared(audit.issued),
        violations: shared(audit.violations),
        body: audit.body.map(audit::Body::from),
        truncated,
    }
}

pub(super) fn input(input: &health::AuditInput) -> AuditInput<'_> {
    AuditInput {
        input: (&input.name).into(),
        events: input.events,
        bytes: input.bytes,
        invalid: input.invalid,
        oversize: input.oversize,
        gaps: input.gaps,
        behind_bytes: input.behind_bytes,
        latest: input.latest_unix_ns.map(UtcTime),
    }
}
