//! Tests of [`super`].

use super::*;
use crate::allow_list::{Access, Actor, Schedule, Shows, Source, Target};
use crate::fact::{ApiRequest, Container, Direction, End, ExecRole, K8s, Net, Node, Quality, Runtime};
use crate::ids::{ConnId, RecordId};
use crate::time::Timestamp;

fn network(text: &str) -> IpNetwork {
    text.parse().expect("a network")
}

fn entry(name: &str, from: Source, to: Target) -> AllowEntry {
    AllowEntry { name: name.into(), from, to, when: Schedule::default(), until_unix_ns: None }
}

fn fact(kind: FactKind) -> Fact {
    Fact {
        id: RecordId("r-1".into()),
        at: Timestamp::default(),
        node: Arc::new(Node { name: "node-a".into(), boot_id: "boot".into(), cluster: None }),
        process: None,
        container: None,
        k8s: None,
        net: None,
        quality: Quality::default(),
        kind,
    }
}

fn asked_by(peer: &str) -> Fact {
    let end = |ip: &str, port| Some(End { ip: ip.parse().expect("an address"), port });
    let api = ApiRequest {
        user_agent: Some("Docker-Client/27 (linux)".into()),
        ..ApiRequest::of_class(ApiClass::Discovery)
    };
    let net = Net {
        direction: Some(Direction::Inbound),
        peer: end(peer, 40_000),
        local: end("10.0.0.11", 2375),
        service: Service::Docker,
        conn: Some(ConnId("c1".into())),
    };
    Fact { net: Some(net), ..fact(FactKind::ApiRequest(Box::new(api))) }
}

#[test]
fn of_each_kind_of_condition_the_one_that_agreed_is_told() {
    let shows =
        Shows { classes: vec![ApiClass::Discovery], tools: vec!["Docker-Client".into()], ..Shows::default() };
    let from = Source {
        networks: vec![network("10.20.0.0/16"), network("10.30.0.0/16")],
        nodes: true,
        local: true,
        shows,
        ..Source::default()
    };
    let to = Target { services: Vec::new(), ports: vec![2376, 2375] };
    let list = AllowList {
        entries: vec![entry("a", from, to)],
        nodes: vec![network("10.0.0.12/32")],
        local: vec!["10.0.0.11".parse().expect("an address")],
    };
    for (peer, who) in [
        ("10.30.1.1", Some(Reason::Network(network("10.30.0.0/16")))),
        ("10.0.0.12", Some(Reason::Node(network("10.0.0.12/32")))),
        ("10.0.0.11", Some(Reason::Local)),
        ("198.18.0.9", None),
    ] {
        let fact = asked_by(peer);
        let access = Access::of(fact.net.as_ref().expect("ends"), fact.at).expect("a peer");
        let verdict = list.judge(&Access { shown: Shown::by(&fact.kind), ..access });
        let rest =
            [Reason::Port(2375), Reason::Class(ApiClass::Discovery), Reason::Tool("Docker-Client".into())];
        let expected: Vec<Reason> =
            who.into_iter().flat_map(|who| [who].into_iter().chain(rest.clone())).collect();
        assert_eq!(list.reasons(&fact, &verdict), expected, "{peer}");
    }
}

#[test]
fn of_a_container_it_is_told_by_what_it_goes() {
    let actor = Actor {
        images: vec!["quay.io/a/b".into(), "quay.io/cilium/cilium".into()],
        namespaces: vec!["kube-system".into()],
        ..Actor::default()
    };
    let list = AllowList {
        entries: vec![entry("cni", Source { actor, ..Source::default() }, Target::default())],
        ..AllowList::default()
    };
    let container = Container {
        id: "c0ffee".into(),
        namesake: 0,
        runtime: Runtime::Containerd,
        name: Some("agent".into()),
        image: Some("quay.io/cilium/cilium:v1".into()),
        created: None,
        risks: None,
        cgroup: None,
    };
    let k8s = K8s { namespace: Some("kube-system".into()), ..K8s::default() };
    let fact = Fact {
        container: Some(Arc::new(container)),
        k8s: Some(Arc::new(k8s)),
        ..fact(FactKind::Exec { role: ExecRole::Client })
    };
    let verdict = list.judge_act(fact.at, fact.container.as_deref(), fact.k8s.as_deref(), &fact.kind);
    let expected = [
        Reason::Image("quay.io/cilium/cilium".into()),
        Reason::Namespace("kube-system".into()),
        Reason::Act(Act::Discovery),
    ];
    assert_eq!(list.reasons(&fact, &verdict.expect("it is listed")), expected);
}
