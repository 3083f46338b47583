//! Tests of [`super`].

use super::*;
use crate::allow_list::{Access, AllowEntry, Schedule, Shown, Source, Target};
use crate::fact::{CredentialClass, ExecRole, Origin, Runtime, Service};

const CILIUM: &str = "quay.io/cilium/cilium";

fn texts(texts: &[&str]) -> Vec<Arc<str>> {
    texts.iter().map(|text| Arc::from(*text)).collect()
}

fn actor(images: &[&str], namespaces: &[&str], containers: &[&str], acts: &[Act]) -> Actor {
    Actor {
        images: texts(images),
        namespaces: texts(namespaces),
        containers: texts(containers),
        acts: acts.to_vec(),
    }
}

fn entry(name: &str, actor: Actor) -> AllowEntry {
    AllowEntry {
        name: name.into(),
        from: Source { actor, ..Source::default() },
        to: Target::default(),
        when: Schedule::default(),
        until_unix_ns: None,
    }
}

fn list(entries: Vec<AllowEntry>) -> AllowList {
    AllowList { entries, ..AllowList::default() }
}

fn container(runtime: Runtime, image: Option<&str>, name: &str) -> Container {
    Container {
        id: "c0ffee".into(),
        namesake: 0,
        runtime,
        name: Some(name.into()),
        image: image.map(Arc::from),
        created: None,
        risks: None,
        cgroup: None,
    }
}

fn pod(namespace: &str, container: &str) -> K8s {
    K8s { namespace: Some(namespace.into()), container: Some(container.into()), ..K8s::default() }
}

fn exec() -> FactKind {
    FactKind::Exec { role: ExecRole::Client }
}

fn start(action: ContainerAction) -> FactKind {
    FactKind::Container { action, origin: Origin::none() }
}

fn read() -> FactKind {
    FactKind::FileRead { path: None, class: CredentialClass::Kubeconfig }
}

fn judge(list: &AllowList, container: &Container, k8s: Option<&K8s>, kind: &FactKind) -> Option<String> {
    match list.judge_act(Timestamp::default(), Some(container), k8s, kind) {
        Some(Verdict::Listed(name)) => Some(name.to_string()),
        Some(Verdict::Unlisted) => panic!("an act is expected or not spoken of"),
        None => None,
    }
}

#[test]
fn image_and_namespace_and_name_must_all_agree() {
    let all = entry("cni", actor(&[CILIUM], &["kube-system"], &["cilium-agent"], &[]));
    let list = list(vec![all]);
    let agent = container(Runtime::Containerd, Some("quay.io/cilium/cilium:v1.16.1"), "cilium-agent");
    let own = pod("kube-system", "cilium-agent");
    assert_eq!(judge(&list, &agent, Some(&own), &exec()).as_deref(), Some("cni"));
    for (twin, k8s) in [
        (container(Runtime::Containerd, Some("docker.io/evil/cilium:v1"), "cilium-agent"), own.clone()),
        (container(Runtime::Containerd, None, "cilium-agent"), own.clone()),
        (agent.clone(), pod("default", "cilium-agent")),
        (agent.clone(), pod("kube-system", "debugger")),
        (agent.clone(), K8s::default()),
    ] {
        assert_eq!(judge(&list, &twin, Some(&k8s), &exec()), None, "{twin:?} {k8s:?}");
    }
    assert_eq!(judge(&list, &agent, None, &exec()), None, "of no pod");
    assert_eq!(list.judge_act(Timestamp::default(), None, Some(&own), &exec()), None, "of no container");
}

#[test]
fn entry_speaks_of_its_acts_only_and_of_a_start_by_namespace_only() {
    let agent = container(Runtime::Containerd, Some(CILIUM), "agent");
    let own = pod("kube-system", "agent");
    let kinds = [exec(), read(), start(ContainerAction::Created), start(ContainerAction::Enriched)];
    for (namespaces, acts, expected) in [
        (&["kube-system"][..], &[][..], [true, true, true, true]),
        (&["kube-system"], &[Act::Discovery], [true, false, false, false]),
        (&["kube-system"], &[Act::Credentials], [false, true, false, false]),
        (&["kube-system"], &[Act::Start, Act::Credentials], [false, true, true, true]),
        (&[], &[], [true, true, false, false]),
        (&[], &[Act::Start], [false, false, false, false]),
    ] {
        let list = list(vec![entry("a", actor(&[CILIUM], namespaces, &[], acts))]);
        let found = [0, 1, 2, 3].map(|kind| judge(&list, &agent, Some(&own), &kinds[kind]).is_some());
        assert_eq!(found, expected, "{namespaces:?} {acts:?}");
    }
    let all = list(vec![entry("a", actor(&[CILIUM], &[], &[], &[]))]);
    assert_eq!(judge(&all, &agent, None, &start(ContainerAction::Exec)), None, "who enters it is not it");
}

#[test]
fn a_reference_is_compared_as_far_as_it_goes() {
    const A: &str = "sha256:aa";
    for (wanted, image, agrees) in [
        ("quay.io/a/b", "quay.io/a/b:v1", true),
        ("quay.io/a/b", "quay.io/a/b@sha256:aa", true),
        ("quay.io/a/b", "quay.io/a/b", true),
        ("quay.io/a/b", "quay.io/a/bc:v1", false),
        ("quay.io/a/b", "quay.io/a/b/c:v1", false),
        ("a/b", "quay.io/a/b:v1", false),
        ("quay.io/a/b:v1", "quay.io/a/b:v1", true),
        ("quay.io/a/b:v1", "quay.io/a/b:v1@sha256:aa", true),
        ("quay.io/a/b:v1", "quay.io/a/b:v2", false),
        ("quay.io/a/b:v1", "quay.io/a/b", false),
        ("quay.io/a/b:v1@sha256:aa", "quay.io/a/b@sha256:aa", true),
        ("quay.io/a/b@sha256:aa", "quay.io/a/b:v9@sha256:aa", true),
        ("quay.io/a/b@sha256:aa", "quay.io/a/b:v9", false),
        ("quay.io/a/b@sha256:aa", "quay.io/a/b@sha256:bb", false),
        ("registry:5000/b", "registry:5000/b:v1", true),
        ("registry:5000/b", "registry:5001/b:v1", false),
        ("", A, false),
    ] {
        assert_eq!(is_of_reference(wanted, image), agrees, "{wanted} {image}");
    }
}

#[test]
fn a_condition_on_what_runs_there_never_agrees_with_a_peer() {
    let broad = Source {
        networks: vec!["0.0.0.0/0".parse().expect("a network")],
        nodes: true,
        local: true,
        actor: actor(&[CILIUM], &[], &[], &[]),
        ..Source::default()
    };
    let entries = vec![AllowEntry { from: broad, ..entry("a", Actor::default()) }];
    let list = list(entries);
    let at = Timestamp::default();
    for peer in ["198.18.0.9", "127.0.0.1"] {
        let access = Access {
            peer: peer.parse().expect("an address"),
            service: Service::Docker,
            port: 2375,
            at,
            shown: Shown::default(),
        };
        assert_eq!(list.judge(&access), Verdict::Unlisted, "{peer}");
    }
}

#[test]
fn an_entry_about_peers_speaks_of_no_container() {
    let everybody =
        Source { networks: vec!["0.0.0.0/0".parse().expect("a network")], local: true, ..Source::default() };
    let list = list(vec![AllowEntry { from: everybody, ..entry("all", Actor::default()) }]);
    let agent = container(Runtime::Containerd, Some(CILIUM), "agent");
    assert_eq!(judge(&list, &agent, Some(&pod("kube-system", "agent")), &exec()), None);
}

#[test]
fn an_entry_is_shadowed_by_one_that_speaks_of_all_its_containers_and_acts() {
    let narrow = actor(&["quay.io/cilium/cilium:v1"], &["kube-system"], &[], &[Act::Discovery]);
    for (earlier, is_shadowed) in [
        (narrow.clone(), true),
        (actor(&[CILIUM], &["kube-system"], &[], &[]), true),
        (actor(&[CILIUM], &[], &[], &[Act::Discovery]), true),
        (actor(&[], &["default", "kube-system"], &[], &[Act::Discovery, Act::Start]), true),
        (actor(&[CILIUM], &["kube-system"], &["agent"], &[]), false),
        (actor(&[CILIUM], &["default"], &[], &[]), false),
        (actor(&["quay.io/cilium/cilium:v2"], &[], &[], &[]), false),
        (actor(&[CILIUM], &[], &[], &[Act::Credentials]), false),
        (Actor::default(), false),
    ] {
        let entries = vec![entry("earlier", earlier.clone()), entry("later", narrow.clone())];
        let found: Vec<_> = list(entries).shadowed().into_iter().map(|shadowed| shadowed.entry).collect();
        let expected = if is_shadowed { vec![1] } else { Vec::new() };
        assert_eq!(found, expected, "{earlier:?}");
    }
    let start = actor(&[CILIUM], &["kube-system"], &[], &[Act::Start]);
    let entries = vec![entry("by-name", actor(&[CILIUM], &[], &[], &[])), entry("start", start)];
    assert_eq!(list(entries).shadowed(), [], "names alone excuse no start");
}
