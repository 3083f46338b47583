//! Bodies of requests and answers, reduced to what is judged.
//!
//! Which bodies are looked at is decided by the resource: those of secrets, config maps, tokens and token reviews are
//! never parsed, so nothing of them can be stored or written. What a patch leaves unsaid is in the answer.

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use serde::Deserialize;

use super::json::{Few, Str, is_object};
use super::request::{NAME_MAX, TEXT_MAX};
use super::signing;
use crate::risks::{Namespace, Risk, of_asked_capability, of_asked_mount};

/// Containers, volumes, subjects and webhooks looked at in one body.
const LIST_MAX: usize = 64;
/// Capabilities looked at in one container.
const CAPABILITIES_MAX: usize = 64;
/// Risks kept of one body.
const RISKS_MAX: usize = 32;

/// What a body says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A pod, or an object with a template of one: what is abnormal about it.
    Pod {
        /// As in `container.risks[]`.
        risks: Vec<Risk>,
    },
    /// A role binding.
    Binding {
        /// The role.
        role: Arc<str>,
        /// Who is bound: users and groups by name, service accounts as `namespace/name`.
        subjects: Vec<Arc<str>>,
    },
    /// A certificate signing request.
    Signing {
        /// Who is to sign.
        signer: Arc<str>,
        /// Groups (organizations) that the certificate is to name.
        groups: Vec<Arc<str>>,
    },
    /// What a kubelet or an extension asks about somebody else's request.
    Review {
        /// The user asked about.
        user: Arc<str>,
        /// Resource with subresource.
        resource: Arc<str>,
    },
    /// Admission webhooks.
    Webhooks {
        /// Those called by URL instead of through a service of the cluster.
        urls: Vec<Arc<str>>,
    },
    /// A node's addresses and the range of its pods.
    Node {
        /// Internal and external addresses.
        addresses: Vec<IpAddr>,
        /// Pod ranges.
        pods: Vec<IpNetwork>,
    },
}

/// Which bodies there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyKind {
    Pod,
    Workload,
    CronJob,
    Binding,
    Signing,
    Review,
    Webhooks,
    Node,
}

impl BodyKind {
    /// The kind of body that a request about this resource has, if it is one that is looked at.
    pub(super) fn of(resource: &str, subresource: &str) -> Option<Self> {
        Some(match (resource, subresource) {
            ("pods", "" | "ephemeralcontainers") => Self::Pod,
            (
                "deployments"
                | "daemonsets"
                | "statefulsets"
                | "replicasets"
                | "replicationcontrollers"
                | "jobs",
                "",
            ) => Self::Workload,
            ("cronjobs", "") => Self::CronJob,
            ("rolebindings" | "clusterrolebindings", "") => Self::Binding,
            ("certificatesigningrequests", "") => Self::Signing,
            ("subjectaccessreviews", "") => Self::Review,
            ("mutatingwebhookconfigurations" | "validatingwebhookconfigurations", "") => Self::Webhooks,
            ("nodes", "" | "status") => Self::Node,
            _ => return None,
        })
    }

    /// Reads a body; `None` when it is not of the documented form, as the body of a patch need not be.
    pub(super) fn read(self, json: &str) -> Option<Body> {
        match self {
            Self::Pod => read::<Spec<PodSpec<'_>>>(json).map(|body| pod(&body.spec)),
            Self::Workload => read::<Spec<Templated<'_>>>(json).map(|body| pod(&body.spec.template.spec)),
            Self::CronJob => {
                read::<Spec<CronJob<'_>>>(json).map(|body| pod(&body.spec.job_template.spec.template.spec))
            }
            Self::Binding => read::<Binding<'_>>(json).map(binding),
            Self::Signing => read::<Spec<SigningSpec<'_>>>(json).map(|body| signing_request(&body.spec)),
            Self::Review => read::<Spec<ReviewSpec<'_>>>(json).map(|body| review(&body.spec)),
            Self::Webhooks => read::<Webhooks<'_>>(json).map(webhooks),
            Self::Node => read::<Node<'_>>(json).map(node),
        }
    }
}

fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Option<T> {
    is_object(json.as_bytes()).then(|| serde_json::from_str(json).ok())?
}

/// Shared text of at most so many bytes.
fn text(text: &str, max: usize) -> Arc<str> {
    text[..text.floor_char_boundary(max)].into()
}

fn name(of: Option<&Str<'_>>) -> Arc<str> {
    text(of.map_or("", |of| &of.0), NAME_MAX)
}

#[derive(Deserialize)]
struct Spec<T> {
    spec: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CronJob<'a> {
    #[serde(borrow)]
    job_template: Spec<Templated<'a>>,
}

#[derive(Deserialize)]
struct Templated<'a> {
    #[serde(borrow)]
    template: Spec<PodSpec<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec<'a> {
    #[serde(default)]
    host_network: bool,
    #[serde(default, rename = "hostPID")]
    host_pid: bool,
    #[serde(default, rename = "hostIPC")]
    host_ipc: bool,
    #[serde(borrow, default)]
    containers: Few<Container<'a>, LIST_MAX>,
    #[serde(borrow, default)]
    init_containers: Few<Container<'a>, LIST_MAX>,
    #[serde(borrow, default)]
    ephemeral_containers: Few<Container<'a>, LIST_MAX>,
    #[serde(borrow, default)]
    volumes: Few<Volume<'a>, LIST_MAX>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container<'a> {
    #[serde(borrow)]
    security_context: Option<SecurityContext<'a>>,
    #[serde(borrow, default)]
    volume_mounts: Few<VolumeMount<'a>, LIST_MAX>,
}

#[derive(Deserialize)]
struct SecurityContext<'a> {
    #[serde(default)]
    privileged: Option<bool>,
    #[serde(borrow)]
    capabilities: Option<AddedCapabilities<'a>>,
}

#[derive(Deserialize)]
struct AddedCapabilities<'a> {
    #[serde(borrow, default)]
    add: Few<Str<'a>, CAPABILITIES_MAX>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VolumeMount<'a> {
    #[serde(borrow)]
    name: Str<'a>,
    #[serde(default)]
    read_only: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume<'a> {
    #[serde(borrow)]
    name: Str<'a>,
    #[serde(borrow)]
    host_path: Option<HostPath<'a>>,
}

#[derive(Deserialize)]
struct HostPath<'a> {
    #[serde(borrow)]
    path: Str<'a>,
}

fn pod(spec: &PodSpec<'_>) -> Body {
    let containers = || {
        let all = [&spec.containers, &spec.init_containers, &spec.ephemeral_containers];
        all.into_iter().flat_map(|list| &list.items)
    };
    let mut risks = Vec::new();
    let mut add = |risk: Risk| {
        if risks.len() < RISKS_MAX && !risks.contains(&risk) {
            risks.push(risk);
        }
    };
    for context in containers().filter_map(|container| container.security_context.as_ref()) {
        if context.privileged == Some(true) {
            add(Risk::Privileged);
        }
        let added = context.capabilities.iter().flat_map(|capabilities| &capabilities.add.items);
        added.flat_map(|added| of_asked_capability(&added.0)).for_each(&mut add);
    }
    let namespaces = [
        (spec.host_pid, Namespace::Pid),
        (spec.host_network, Namespace::Net),
        (spec.host_ipc, Namespace::Ipc),
    ];
    namespaces.into_iter().filter(|(host, _)| *host).for_each(|(_, namespace)| {
        add(Risk::HostNamespace(namespace));
    });
    for volume in &spec.volumes.items {
        let Some(host) = &volume.host_path else { continue };
        let mut mounts = containers().flat_map(|container| &container.volume_mounts.items);
        let writable = mounts.any(|mount| mount.name.0 == volume.name.0 && !mount.read_only);
        of_asked_mount(&host.path.0, writable).into_iter().for_each(&mut add);
    }
    Body::Pod { risks }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Binding<'a> {
    #[serde(borrow)]
    role_ref: Reference<'a>,
    #[serde(borrow, default)]
    subjects: Few<Reference<'a>, LIST_MAX>,
}

#[derive(Deserialize)]
struct Reference<'a> {
    #[serde(borrow)]
    name: Option<Str<'a>>,
    #[serde(borrow)]
    namespace: Option<Str<'a>>,
}

fn binding(body: Binding<'_>) -> Body {
    let subject = |subject: &Reference<'_>| match &subject.namespace {
        Some(namespace) if !namespace.0.is_empty() => {
            text(&format!("{}/{}", namespace.0, name(subject.name.as_ref())), NAME_MAX)
        }
        _ => name(subject.name.as_ref()),
    };
    Body::Binding {
        role: name(body.role_ref.name.as_ref()),
        subjects: body.subjects.items.iter().map(subject).collect(),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SigningSpec<'a> {
    #[serde(borrow)]
    request: Option<Str<'a>>,
    #[serde(borrow)]
    signer_name: Option<Str<'a>>,
}

fn signing_request(spec: &SigningSpec<'_>) -> Body {
    let request = spec.request.as_ref().map_or("", |request| &request.0);
    Body::Signing { signer: name(spec.signer_name.as_ref()), groups: signing::organizations(request) }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReviewSpec<'a> {
    #[serde(borrow)]
    user: Option<Str<'a>>,
    #[serde(borrow)]
    resource_attributes: Option<Attributes<'a>>,
}

#[derive(Deserialize)]
struct Attributes<'a> {
    #[serde(borrow)]
    resource: Option<Str<'a>>,
    #[serde(borrow)]
    subresource: Option<Str<'a>>,
}

fn review(spec: &ReviewSpec<'_>) -> Body {
    let part = |part: Option<&Str<'_>>| part.map_or(String::new(), |part| part.0.clone().into_owned());
    let attributes = spec.resource_attributes.as_ref();
    let resource = part(attributes.and_then(|attributes| attributes.resource.as_ref()));
    let subresource = part(attributes.and_then(|attributes| attributes.subresource.as_ref()));
    let resource = if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") };
    Body::Review { user: name(spec.user.as_ref()), resource: text(&resource, NAME_MAX) }
}

#[derive(Deserialize)]
struct Webhooks<'a> {
    #[serde(borrow, default)]
    webhooks: Few<Webhook<'a>, LIST_MAX>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Webhook<'a> {
    #[serde(borrow)]
    client_config: Option<ClientConfig<'a>>,
}

#[derive(Deserialize)]
struct ClientConfig<'a> {
    #[serde(borrow)]
    url: Option<Str<'a>>,
}

fn webhooks(body: Webhooks<'_>) -> Body {
    let url = |webhook: Webhook<'_>| Some(text(&webhook.client_config?.url?.0, TEXT_MAX));
    Body::Webhooks { urls: body.webhooks.items.into_iter().filter_map(url).collect() }
}

#[derive(Deserialize)]
struct Node<'a> {
    #[serde(borrow)]
    spec: Option<NodeSpec<'a>>,
    #[serde(borrow)]
    status: Option<NodeStatus<'a>>,
}

#[derive(Deserialize)]
struct NodeSpec<'a> {
    #[serde(borrow, default, rename = "podCIDRs")]
    pods: Few<Str<'a>, 8>,
}

#[derive(Deserialize)]
struct NodeStatus<'a> {
    #[serde(borrow, default)]
    addresses: Few<Address<'a>, 16>,
}

#[derive(Deserialize)]
struct Address<'a> {
    #[serde(borrow)]
    address: Str<'a>,
}

fn node(body: Node<'_>) -> Body {
    let addresses = body.status.map_or_else(Vec::new, |status| status.addresses.items);
    let pods = body.spec.map_or_else(Vec::new, |spec| spec.pods.items);
    Body::Node {
        // Host names are addresses, too, by their list; only numbers tell where a request comes from.
        addresses: addresses.iter().filter_map(|entry| entry.address.0.parse().ok()).collect(),
        pods: pods.iter().filter_map(|range| range.0.parse().ok()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(kind: BodyKind, json: &str) -> Vec<String> {
        match kind.read(json) {
            Some(Body::Pod { risks }) => risks.iter().map(|risk| risk.name().into_owned()).collect(),
            other => panic!("no pod: {other:?}"),
        }
    }

    const POD: &str = r#"{"hostPID":true,"hostNetwork":true,
        "volumes":[{"name":"h","hostPath":{"path":"/"}},{"name":"l","hostPath":{"path":"/srv/app"}}],
        "initContainers":[{"securityContext":{"capabilities":{"add":["CAP_SYS_ADMIN","CHOWN"]}}}],
        "containers":[{"securityContext":{"privileged":true},"volumeMounts":[{"name":"h"}]}]}"#;

    #[test]
    fn risks_of_a_pod_are_found_wherever_its_spec_is() {
        let expected = ["privileged", "cap:SYS_ADMIN", "host-pid", "host-net", "mount:/:rw"];
        assert_eq!(names(BodyKind::Pod, &format!(r#"{{"spec":{POD}}}"#)), expected);
        let template = format!(r#"{{"template":{{"spec":{POD}}}}}"#);
        assert_eq!(names(BodyKind::Workload, &format!(r#"{{"spec":{template}}}"#)), expected);
        let job = format!(r#"{{"spec":{{"jobTemplate":{{"spec":{template}}}}}}}"#);
        assert_eq!(names(BodyKind::CronJob, &job), expected);
        assert_eq!(names(BodyKind::Pod, r#"{"spec":{"containers":[{}]}}"#), [""; 0]);
    }

    #[test]
    fn bodies_that_are_not_as_documented_say_nothing() {
        for json in ["{}", "[]", "null", r#"{"spec":1}"#, r#"[{"op":"add","path":"/spec"}]"#] {
            assert_eq!(BodyKind::Pod.read(json), None, "{json}");
        }
    }

    #[test]
    fn secrets_and_tokens_have_no_body_that_is_read() {
        for resource in ["secrets", "configmaps", "tokenreviews"] {
            assert_eq!(BodyKind::of(resource, ""), None);
        }
        assert_eq!(BodyKind::of("serviceaccounts", "token"), None);
    }

    #[test]
    fn subjects_carry_their_namespace() {
        let json = r#"{"roleRef":{"name":"cluster-admin"},"subjects":[{"kind":"User","name":"system:anonymous"},
            {"kind":"ServiceAccount","name":"x","namespace":"kube-system"}]}"#;
        let expected = Body::Binding {
            role: "cluster-admin".into(),
            subjects: vec!["system:anonymous".into(), "kube-system/x".into()],
        };
        assert_eq!(BodyKind::Binding.read(json), Some(expected));
    }

    #[test]
    fn addresses_and_pod_ranges_of_a_node_are_read() {
        let json = r#"{"spec":{"podCIDRs":["10.9.1.0/24"]},"status":{"addresses":[
            {"type":"InternalIP","address":"192.168.7.1"},{"type":"Hostname","address":"n1"}]}}"#;
        let expected = Body::Node {
            addresses: vec![IpAddr::from([192, 168, 7, 1])],
            pods: vec!["10.9.1.0/24".parse().expect("a network")],
        };
        assert_eq!(BodyKind::Node.read(json), Some(expected));
    }
}
