//! Pods: labels are free for whoever makes a container, cgroups less so.

use super::*;
use crate::allow_list::Actor;
use crate::fact::K8s;

const POD: &str = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0";

/// What is told of the pod of a container of Docker with labels of this pod, when its cgroup is made at this place.
fn pod_of_docker(parent: &str) -> Option<K8s> {
    of_docker(parent).0
}

/// The same, and whether an entry about its namespace expects it, live and in a replay of the record.
fn of_docker(parent: &str) -> (Option<K8s>, bool) {
    let mut sensor = Sensor::ready();
    let Policy { mut allow, .. } = settings().policy;
    let actor = Actor { namespaces: vec!["kube-system".into()], ..Actor::default() };
    allow.entries[0].from = Source { actor, ..Source::default() };
    sensor.engine.handle_policy(at(sensor.now), Policy { allow, ..settings().policy }, Vec::new());
    let id = long_id("ab");
    sensor.see(|now| docker_runc(now, RUNC, &["create", "--bundle", "/run/b", &id]));
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("{parent}/{id}")));
    sensor.see(|now| program(now, SH, 50));
    sensor.facts();
    let labels = K8s {
        namespace: Some("kube-system".into()),
        pod: Some("etcd-0".into()),
        pod_uid: Some(POD.into()),
        ..K8s::default()
    };
    let metadata = ContainerMetadata {
        id: id.as_str().into(),
        runtime: Some(Runtime::Docker),
        name: Some("web".into()),
        risks: Some(Risks::default()),
        k8s: Some(labels.into()),
        ..ContainerMetadata::default()
    };
    sensor.engine.handle_container_metadata(at(sensor.now), metadata);
    let started = |sensor: &mut Sensor| {
        let facts = sensor.outputs().into_iter().filter_map(|output| match output {
            Output::Fact { fact, verdict, .. } => Some((fact, verdict)),
            _ => None,
        });
        let mut started = facts.filter(|(fact, _)| actions(std::slice::from_ref(fact)) == [(Started, &*id)]);
        started.next().expect("a container")
    };
    let (fact, verdict) = started(&mut sensor);
    sensor.engine.handle_fact(fact.clone());
    assert_eq!(started(&mut sensor).1, verdict, "in a replay");
    assert_ne!(verdict, Some(Verdict::Unlisted), "an act that no entry speaks of has no verdict");
    (fact.k8s.as_deref().cloned(), verdict.is_some())
}

#[test]
fn a_label_is_nobodys_word_for_a_namespace_that_an_entry_speaks_of() {
    assert!(!of_docker("/docker").1);
    assert!(!of_docker(&format!("/kubepods/burstable/pod{}", POD.replace('0', "9"))).1);
    assert!(of_docker(&format!("/kubepods/burstable/pod{POD}")).1);
}

#[test]
fn a_container_that_is_labelled_as_one_of_a_pod_is_none_of_it() {
    assert_eq!(pod_of_docker("/docker"), None);
    assert_eq!(pod_of_docker("/system.slice"), None);
    let own = pod_of_docker(&format!("/kubepods/burstable/pod{POD}")).expect("where a kubelet puts it");
    assert_eq!((own.namespace.as_deref(), own.pod.as_deref()), (Some("kube-system"), Some("etcd-0")));
    let other = POD.replace('0', "9");
    let contradicted = pod_of_docker(&format!("/kubepods/burstable/pod{other}")).expect("the cgroup's");
    assert_eq!(contradicted, K8s { pod_uid: Some(other.as_str().into()), ..K8s::default() });
}
