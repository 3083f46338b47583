//! Any request of an audit log.

use std::net::IpAddr;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use sensor_core::audit::{
    AuditRequest, Body, Bound, Credential, CredentialKind, Impersonated, Object, Principal, QueryShape,
    Source,
};
use sensor_core::fact::FactKind;
use sensor_core::risks::Risk;

fn text() -> impl Strategy<Value = Arc<str>> {
    super::text()
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), Just("fd00::7".parse().expect("an address"))]
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        Just(Body::Pod { risks: vec![Risk::Privileged] }),
        (text(), vec(text(), 0..3)).prop_map(|(role, subjects)| Body::Binding { role, subjects }),
        (text(), vec(text(), 0..3)).prop_map(|(signer, groups)| Body::Signing { signer, groups }),
        (text(), text()).prop_map(|(user, resource)| Body::Review { user, resource }),
        vec(text(), 0..3).prop_map(|urls| Body::Webhooks { urls }),
        vec(address(), 0..3).prop_map(|addresses| {
            let pods = vec!["10.244.1.0/24".parse().expect("a network")];
            Body::Node { addresses, pods }
        }),
    ]
}

fn credential() -> impl Strategy<Value = Credential> {
    let kinds = [
        CredentialKind::Token,
        CredentialKind::Certificate,
        CredentialKind::LegacyToken,
        CredentialKind::Other,
    ];
    (prop::sample::select(kinds.to_vec()), text()).prop_map(|(kind, id)| Credential { kind, id })
}

pub fn any_request() -> impl Strategy<Value = AuditRequest> {
    let who = (text(), vec(text(), 0..3), of(credential()), of((of(text()), of(text()), of(text()))));
    let object = of((text(), text(), of(text()), of(text()), of(text()), of(text())));
    let what = (text(), text(), any::<(bool, bool, bool)>(), vec(text(), 0..3), object);
    let how = (of(any::<u16>()), of(any::<bool>()), of(text()), of((text(), vec(text(), 0..3))), of(text()));
    (text(), who, (of(address()), vec(address(), 0..3)), what, how, (of(text()), of(body()))).prop_map(
        |(audit_id, who, (trusted, claimed), what, how, (violations, body))| {
            let (user, groups, credential, bound) = who;
            let (verb, path, (limited, versioned, selected), command, object) = what;
            let (code, allowed, user_agent, impersonated, issued) = how;
            AuditRequest {
                audit_id,
                at_ns: 0,
                principal: Principal::of_user(&user),
                user,
                groups,
                credential,
                bound: bound.map(|(pod, pod_uid, node)| Bound { pod, pod_uid, node }),
                source: Source { trusted, claimed },
                verb,
                path,
                query: QueryShape { limited, versioned, selected },
                command,
                object: object.map(|(group, resource, subresource, namespace, name, uid)| Object {
                    group,
                    resource,
                    subresource,
                    namespace,
                    name,
                    uid,
                }),
                code,
                allowed,
                user_agent,
                impersonated: impersonated.map(|(user, groups)| Impersonated { user, groups }),
                issued,
                violations,
                body,
                truncated: false,
            }
        },
    )
}

/// The request with what the envelope of its record says.
pub fn in_envelope(mut kind: FactKind, unix_ns: u64, truncated: bool) -> FactKind {
    if let FactKind::Audit(request) = &mut kind {
        request.at_ns = unix_ns;
        request.truncated = truncated;
    }
    kind
}
