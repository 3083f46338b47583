use super::*;
use crate::fact::{Direction, End, Net, Quality, TlsHello};
use crate::ids::{ConnId, RecordId};

fn recorded(id: &str, peer: &str, kind: FactKind) -> Fact {
    let end = |ip: &str, port| Some(End { ip: ip.parse().expect("address"), port });
    Fact {
        id: RecordId(id.into()),
        at: at(5000),
        node: Arc::new(Node { name: "elsewhere".into(), boot_id: "other".into(), cluster: None }),
        process: None,
        container: None,
        k8s: None,
        net: Some(Net {
            direction: Some(Direction::Inbound),
            peer: end(peer, 40_000),
            local: end("10.0.0.1", 2375),
            service: Service::Docker,
            conn: Some(ConnId("dead-c1".into())),
        }),
        quality: Quality::default(),
        kind,
    }
}

#[test]
fn replayed_fact_keeps_its_id_and_gets_a_fresh_verdict() {
    let mut engine = Engine::new(settings());
    engine.handle_replayed_addresses(vec!["198.18.0.7".parse().expect("address")]);
    let facts = ["198.18.0.7", "198.18.1.1", "198.18.2.2"]
        .map(|peer| recorded("dead-1f", peer, FactKind::Accept { task: None, client: None, late: false }));
    facts.into_iter().for_each(|fact| engine.handle_fact(fact));
    let outputs: Vec<_> = std::iter::from_fn(|| engine.next_output()).collect();
    let verdicts: Vec<_> = outputs
        .iter()
        .enumerate()
        .filter_map(|(index, output)| match output {
            Output::Fact { seq, fact, verdict } => {
                assert_eq!((*seq, &*fact.id.0, &*fact.node.name), (index as u64, "dead-1f", "elsewhere"));
                Some(verdict.clone().expect("accepts are judged"))
            }
            Output::Signal { seq, id, node, .. } => {
                assert_eq!((*seq, &*id.0, &*node.name), (index as u64, "signal-dead-1f-1", "elsewhere"));
                None
            }
            other => panic!("no {other:?} yet"),
        })
        .collect();
    assert_eq!(
        verdicts,
        [Verdict::Listed(IMPLIED_LOCAL.into()), Verdict::Listed("vpn".into()), Verdict::Unlisted]
    );
}

#[test]
fn whatever_is_said_on_a_connection_is_judged_again() {
    let hello = FactKind::TlsHello(Arc::new(TlsHello::default()));
    let mut engine = Engine::new(settings());
    engine.handle_fact(recorded("dead-2", "198.18.1.1", hello));
    let Some(Output::Fact { verdict, .. }) = engine.next_output() else { panic!("the fact") };
    assert_eq!(verdict, Some(Verdict::Listed("vpn".into())));
}

#[test]
fn other_facts_are_not_judged() {
    let mut engine = Engine::new(settings());
    engine.handle_fact(recorded("dead-2", "198.18.1.1", FactKind::Exit { code: Some(0), signal: None }));
    assert!(matches!(engine.next_output(), Some(Output::Fact { verdict: None, .. })));
}

#[test]
fn replay_ends_at_the_time_of_its_last_fact_and_is_the_same_every_time() {
    let replay = || {
        let mut engine = Engine::new(settings());
        engine.handle_fact(recorded(
            "dead-3",
            "198.18.1.1",
            FactKind::Accept { task: None, client: None, late: false },
        ));
        engine.finish_replay();
        std::iter::from_fn(|| engine.next_output()).collect::<Vec<_>>()
    };
    let outputs = replay();
    let Some(Output::Health { seq: 1, id, at: end, health, node }) = outputs.last() else {
        panic!("health last: {outputs:?}")
    };
    assert_eq!((&*id.0, *end, &*node.name), ("health-dead-3-1", at(5000), "elsewhere"));
    assert_eq!((health.state, health.emitted), (HealthState::Stopping, Some(2)));
    assert_eq!(outputs, replay());
}
