//! Single requests that stages of an intrusion are made of, and that only the audit log shows.
//!
//! Each rule asks what is done; whether it is remarkable for who does it is [`Case::is_remarkable`]'s business. Rules
//! that a body proves hold for everybody.

use std::net::IpAddr;

use super::body::Body;
use super::habits::proxied;
use super::judge::{Case, Verdict};
use super::request::{AuditRequest, Principal};
use super::signal::SignalName;
use crate::risks::Risk;

/// What monitoring asks of a kubelet.
const MONITORING: [&str; 4] = ["metrics", "stats", "healthz", ""];
/// Subresources of nodes that stand for monitoring in a kubelet's reviews.
const MONITORING_REVIEWS: [&str; 3] = ["nodes/metrics", "nodes/stats", "nodes/healthz"];
/// Groups everybody is in, with credentials or without, and the user without.
const EVERYBODY: [&str; 3] = ["system:anonymous", "system:unauthenticated", "system:authenticated"];

/// Everything that a request gives rise to.
pub(super) fn judge(case: &Case<'_>, out: &mut Vec<Verdict>) {
    let request = case.request;
    out.extend(impersonation(case));
    out.extend(kubelet(case));
    if !request.succeeded() {
        return;
    }
    out.extend(pods(case));
    out.extend(credentials(case));
    out.extend(cluster(case));
}

fn impersonation(case: &Case<'_>) -> Option<Verdict> {
    let impersonated = case.request.impersonated.as_ref()?;
    let new = case.displaced || !case.familiar.usual;
    let detail = || format!("as {} in groups {}", impersonated.user, impersonated.groups.join(", "));
    new.then(|| Verdict::noticed(SignalName::Impersonation, detail()))
}

fn kubelet(case: &Case<'_>) -> Option<Verdict> {
    let request = case.request;
    if request.resource() == ("nodes", "proxy") {
        let path = proxied(&request.path);
        let new = case.displaced || !case.familiar.usual;
        let more = !MONITORING.contains(&path);
        let node = request.object.as_ref().and_then(|object| object.name.as_deref()).unwrap_or_default();
        return (more && new).then(|| {
            Verdict::noticed(SignalName::KubeletProxy, format!("{} /{path} of node {node}", request.verb))
        });
    }
    let (Some(Body::Review { user, resource }), Principal::Node(_)) = (&request.body, &request.principal)
    else {
        return None;
    };
    // The API server asks kubelets for logs and exec by its own name.
    let own = Principal::of(user, |text| text.into());
    let known = matches!(own, Principal::Component | Principal::Node(_))
        || user.starts_with("kube-apiserver")
        || MONITORING_REVIEWS.contains(&&**resource)
        || !resource.starts_with("nodes/");
    (!known).then(|| Verdict::noticed(SignalName::KubeletReview, format!("{user} asks for {resource}")))
}

fn pods(case: &Case<'_>) -> Option<Verdict> {
    let request = case.request;
    let (resource, subresource) = request.resource();
    let subject = || place(request);
    match (&*request.verb, resource, subresource) {
        (_, "pods", "exec" | "attach" | "portforward") if case.is_remarkable() => {
            let command = request.command.join(" ");
            let detail = format!("{subresource} into {}: {command}", subject());
            Some(Verdict::noticed(SignalName::PodExec, detail.trim_end_matches([':', ' '])))
        }
        ("patch" | "update", "pods", "ephemeralcontainers") if case.is_remarkable() => {
            Some(Verdict::noticed(SignalName::EphemeralContainer, subject()))
        }
        (_, "services" | "pods", "proxy") if case.is_remarkable() => {
            Some(Verdict::noticed(SignalName::ServiceProxy, subject()))
        }
        ("create" | "update" | "patch", ..) if is_risky(request) && !case.controller => {
            Some(Verdict::noticed(SignalName::PrivilegedPod, format!("{}: {}", subject(), risks(request))))
        }
        ("create" | "update" | "patch", "cronjobs" | "daemonsets", "") if case.is_remarkable() => {
            Some(Verdict::noticed(SignalName::ImplantScheduled, format!("{resource} {}", subject())))
        }
        _ => None,
    }
}

/// Whether a pod asks for what is worth telling. Capabilities alone are common with network plugins and the like.
fn is_risky(request: &AuditRequest) -> bool {
    let risks = match &request.body {
        Some(Body::Pod { risks }) => risks.as_slice(),
        _ => &[],
    };
    request.violations.is_some()
        || risks.iter().any(|risk| {
            matches!(risk, Risk::Privileged | Risk::HostNamespace(_) | Risk::Mount { .. } | Risk::Socket(_))
        })
}

fn risks(request: &AuditRequest) -> String {
    match &request.body {
        Some(Body::Pod { risks }) if !risks.is_empty() => {
            risks.iter().map(Risk::name).collect::<Vec<_>>().join(", ")
        }
        _ => request.violations.as_deref().unwrap_or_default().to_owned(),
    }
}

fn credentials(case: &Case<'_>) -> Option<Verdict> {
    let request = case.request;
    let (resource, subresource) = request.resource();
    match (&*request.verb, resource, subresource) {
        ("create", "serviceaccounts", "token") => {
            let system = request.namespace() == Some("kube-system");
            let fixed = matches!(request.principal, Principal::Node(_) | Principal::Component);
            // Kubelets ask for the tokens of their pods, and the API server lets them ask for no others.
            let told = case.displaced || !fixed && (case.is_remarkable() || (system && !case.controller));
            told.then(|| Verdict::noticed(SignalName::TokenIssued, format!("of account {}", place(request))))
        }
        ("list", "secrets", "") if is_new_list(case) => {
            let of = request.namespace().unwrap_or("all namespaces");
            Some(Verdict::noticed(SignalName::SecretsRead, format!("list in {of}")))
        }
        ("create" | "update" | "patch", "certificatesigningrequests", "" | "approval") => {
            if let Some(Body::Signing { groups, .. }) = &request.body
                && let Some(group) = groups.iter().find(|group| is_admin_group(group))
                && !matches!(request.principal, Principal::Node(_))
                && !groups.iter().all(|group| &**group == "system:nodes")
            {
                return Some(Verdict::noticed(SignalName::CertificateForAdmin, format!("for group {group}")));
            }
            let kubelet = matches!(request.principal, Principal::Node(_));
            (case.is_remarkable() && !kubelet).then(|| {
                Verdict::noticed(
                    SignalName::CertificateApproved,
                    format!("{} {}", request.verb, place(request)),
                )
            })
        }
        _ => None,
    }
}

/// A list of secrets that is not a cache's: of the whole cluster by a program that never made it so, or of one
/// namespace by a program that is known and never did.
fn is_new_list(case: &Case<'_>) -> bool {
    let request = case.request;
    let whole = request.namespace().is_none();
    case.is_remarkable() && !request.query.versioned && (case.displaced || whole || case.familiar.known)
}

/// Groups that administrate: `system:masters`, and those that installers and people name so.
fn is_admin_group(group: &str) -> bool {
    group.starts_with("system:") || group.contains("admin") || group.contains("masters")
}

fn cluster(case: &Case<'_>) -> Option<Verdict> {
    let request = case.request;
    let (resource, subresource) = request.resource();
    if !matches!(&*request.verb, "create" | "update" | "patch") || !subresource.is_empty() {
        return None;
    }
    match (resource, &request.body) {
        ("rolebindings" | "clusterrolebindings", body) => {
            let component = matches!(request.principal, Principal::Component);
            if let (Some(Body::Binding { role, subjects }), false) = (body, component)
                && let Some(subject) = subjects.iter().find(|subject| EVERYBODY.contains(&&***subject))
            {
                return Some(Verdict::noticed(
                    SignalName::AnonymousBound,
                    format!("{subject} is bound to {role}"),
                ));
            }
            let detail = || match body {
                Some(Body::Binding { role, subjects }) => format!("{} to {role}", subjects.join(", ")),
                _ => format!("{resource} {}", place(request)),
            };
            case.is_remarkable().then(|| Verdict::noticed(SignalName::RoleBound, detail()))
        }
        ("mutatingwebhookconfigurations" | "validatingwebhookconfigurations", body) => {
            let outside = match body {
                Some(Body::Webhooks { urls }) => urls.iter().find(|url| !is_in_cluster(url)),
                _ => None,
            };
            let told = outside.is_some() || case.is_remarkable();
            let to = outside.map(|url| format!(" calls {url}")).unwrap_or_default();
            told.then(|| Verdict::noticed(SignalName::WebhookRegistered, format!("{}{to}", place(request))))
        }
        _ => None,
    }
}

/// Whether a webhook's URL names a service of the cluster, or the API server's own machine.
fn is_in_cluster(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(literal) => literal.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".svc") || host.ends_with(".svc.cluster.local"),
    }
}

/// `namespace/name` of the object.
fn place(request: &AuditRequest) -> String {
    let object = request.object.as_ref();
    let name = object.and_then(|object| object.name.as_deref()).unwrap_or("(generated)");
    request.namespace().map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}
