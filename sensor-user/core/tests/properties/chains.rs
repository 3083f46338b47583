//! Chains against a model that knows all facts at once, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use sensor_core::chains::{Confidence, Finding, FindingState, Severity};
use sensor_core::engine::{Engine, Output, Policy, Settings};
use sensor_core::fact::{
    ConnectResult, Container, ContainerAction, Direction, End, Fact, FactKind, K8s, Net, Node, Origin,
    OriginClass, Quality, Runtime, Service,
};
use sensor_core::ids::{ConnId, RecordId, RunId};
use sensor_core::risks::Risk;

use crate::at;

const SECOND: u64 = 1_000_000_000;
const ACCESS_WINDOW: u64 = 600 * SECOND;
/// Facts may be told so much later than they were, and still count as if they had not.
const REORDER: u64 = 10 * SECOND;
/// Connections: who is behind them, and whether their requests can be read.
const CONNS: [(&str, Service); 5] = [
    ("198.18.0.1", Service::Docker),
    ("198.18.0.2", Service::Docker),
    ("198.18.0.2", Service::KubeApiserver),
    ("198.18.0.3", Service::KubeApiserver),
    ("198.18.0.4", Service::KubeApiserver),
];

#[derive(Clone, Debug)]
pub enum Act {
    Access {
        conn: usize,
    },
    Create {
        risky: bool,
        by: Option<usize>,
    },
    /// By one of the containers so far.
    Connect {
        container: usize,
    },
}

/// An act, the time since the one before, and how much later it is told.
pub type Step = (Act, u64, u64);

pub fn step() -> impl Strategy<Value = Step> {
    let by = proptest::option::of(0..CONNS.len());
    let act = prop_oneof![
        3 => (0..CONNS.len()).prop_map(|conn| Act::Access { conn }),
        2 => (any::<bool>(), by).prop_map(|(risky, by)| Act::Create { risky, by }),
        2 => (0_usize..6).prop_map(|container| Act::Connect { container }),
    ];
    let pause = prop_oneof![3 => 1..4 * SECOND, 1 => 100 * SECOND..400 * SECOND];
    (act, pause, 0..REORDER - SECOND)
}

fn fact(number: usize, boot_ns: u64, act: &Act, containers: usize) -> Fact {
    let end = |ip: &str, port| End { ip: ip.parse().expect("an address"), port };
    let conn = |conn: usize| ConnId(format!("c{conn}").into());
    let container = |number: usize, risks: Option<Arc<[Risk]>>| {
        Arc::new(Container {
            id: format!("x{number}").into(),
            namesake: 0,
            runtime: Runtime::Docker,
            name: None,
            image: None,
            created: None,
            risks,
            cgroup: None,
        })
    };
    let (kind, container, net) = match *act {
        Act::Access { conn: index } => {
            let (peer, service) = CONNS[index];
            let net = Net {
                direction: Some(Direction::Inbound),
                peer: Some(end(peer, 40_000)),
                local: Some(end("10.0.0.1", 2375)),
                service,
                conn: Some(conn(index)),
            };
            (FactKind::Accept { task: None, client: None, late: false }, None, Some(net))
        }
        Act::Create { risky, by } => {
            let origin =
                by.map_or_else(Origin::none, |by| Origin::of_conn(OriginClass::Proved, conn(by), None));
            let risks: &[Risk] = if risky { &[Risk::Privileged] } else { &[] };
            let kind = FactKind::Container { action: ContainerAction::Created, origin };
            (kind, Some(container(containers, Some(risks.into()))), None)
        }
        Act::Connect { container: index } => {
            let net = Net {
                direction: Some(Direction::Outbound),
                peer: Some(end("10.0.0.2", 22)),
                local: None,
                service: Service::Other,
                conn: Some(ConnId("out".into())),
            };
            let kind = FactKind::Connect { result: ConnectResult::Established };
            (kind, Some(container(index, None)), Some(net))
        }
    };
    let container_is_there = container.is_some();
    Fact {
        id: RecordId(format!("r-{number}").into()),
        at: at(boot_ns),
        node: Arc::new(Node { name: "node-a".into(), boot_id: "boot".into(), cluster: None }),
        process: None,
        container,
        k8s: container_is_there.then(|| Arc::new(K8s::default())),
        net,
        quality: Quality::default(),
        kind,
    }
}

/// Whom a finding is held against, which containers are in it, how severe it is, and whether they moved.
type Expected = BTreeMap<(Confidence, Vec<String>), (BTreeSet<String>, Severity, bool)>;

/// Acts with their times, in order of these.
fn timed(steps: &[Step]) -> Vec<(u64, &Act)> {
    let mut now = SECOND;
    let times = steps.iter().map(|(act, pause, _)| {
        now += pause;
        (now, act)
    });
    times.collect()
}

/// What there is to find, from all acts at once.
fn model(acts: &[(u64, &Act)]) -> Expected {
    let mut expected = Expected::new();
    let created = acts.iter().filter(|(_, act)| matches!(act, Act::Create { .. }));
    for (number, (created_ns, act)) in created.enumerate() {
        let Act::Create { risky, by } = act else { unreachable!("filtered") };
        let came = |conn: usize| {
            acts.iter().any(|(at, act)| {
                matches!(act, Act::Access { conn: other } if *other == conn)
                    && at <= created_ns
                    && created_ns - at <= ACCESS_WINDOW
            })
        };
        let (class, peers): (_, BTreeSet<&str>) = match by {
            Some(by) => (Confidence::Proved, came(*by).then_some(CONNS[*by].0).into_iter().collect()),
            None => {
                let veiled =
                    (0..CONNS.len()).filter(|conn| CONNS[*conn].1 == Service::KubeApiserver && came(*conn));
                (Confidence::Inferred, veiled.map(|conn| CONNS[conn].0).filter(|_| *risky).collect())
            }
        };
        if peers.is_empty() {
            continue;
        }
        let moved = acts.iter().any(|(at, act)| {
            matches!(act, Act::Connect { container } if *container == number) && at >= created_ns
        });
        let all = if moved { Severity::Critical } else { Severity::High };
        let severity = if class == Confidence::Inferred || !risky { all.lower() } else { all };
        let peers = peers.into_iter().map(str::to_owned).collect();
        let entry = expected.entry((class, peers)).or_insert((BTreeSet::new(), Severity::Low, false));
        entry.0.insert(format!("x{number}"));
        entry.1 = entry.1.max(severity);
        entry.2 |= moved;
    }
    expected
}

/// What is found when the facts are told in this order.
fn found(facts: &[Fact]) -> Expected {
    let mut engine = Engine::new(Settings {
        run: RunId(1),
        node: facts.first().map_or_else(
            || Arc::new(Node { name: "n".into(), boot_id: "b".into(), cluster: None }),
            |fact| fact.node.clone(),
        ),
        policy: Policy::default(),
        merge_window_ns: 0,
        hold_ns: 0,
        canary_interval_ns: None,
        packets_rest_ns: 0,
    });
    facts.iter().for_each(|fact| engine.handle_fact(fact.clone()));
    let mut last: BTreeMap<String, Finding> = BTreeMap::new();
    while let Some(output) = engine.next_output() {
        if let Output::Finding { finding, .. } = output {
            last.insert(finding.id.to_string(), *finding);
        }
    }
    // What has ended goes on in another one.
    let open = last.into_values().filter(|finding| finding.state != FindingState::Closed);
    let told = open.map(|finding| {
        let peers = finding.entities.peers.iter().map(ToString::to_string).collect();
        let containers = finding.entities.containers.iter().map(ToString::to_string).collect();
        let moved = finding.stages[2].seen.is_some();
        ((finding.confidence, peers), (containers, finding.severity, moved))
    });
    told.collect()
}

/// The facts in the order in which they are told.
pub fn facts(steps: &[Step], late: bool) -> Vec<Fact> {
    let mut containers = 0;
    let mut told: Vec<(u64, Fact)> = Vec::new();
    for (number, ((boot_ns, act), (.., delay))) in timed(steps).into_iter().zip(steps).enumerate() {
        told.push((boot_ns + if late { *delay } else { 0 }, fact(number, boot_ns, act, containers)));
        containers += usize::from(matches!(act, Act::Create { .. }));
    }
    told.sort_by_key(|(told_ns, _)| *told_ns);
    told.into_iter().map(|(_, fact)| fact).collect()
}

/// How sure it is that each container is held against anybody. A candidate that is told of late is not added to a chain of
/// several containers.
fn classes(expected: Expected) -> BTreeMap<String, Confidence> {
    let containers = expected.into_iter().flat_map(|((class, _), (containers, ..))| {
        containers.into_iter().map(move |container| (container, class))
    });
    containers.collect()
}

/// Chains do not last longer than this, so that none of them ends before all is told.
fn is_within_one_window(steps: &[Step]) -> bool {
    timed(steps).last().is_none_or(|(at, _)| *at < 3500 * SECOND)
}

proptest! {
    #[test]
    fn what_is_found_is_what_the_model_says(steps in proptest::collection::vec(step(), 0..30)) {
        prop_assume!(is_within_one_window(&steps));
        prop_assert_eq!(found(&facts(&steps, false)), model(&timed(&steps)));
    }

    #[test]
    fn what_is_told_late_is_found_all_the_same(steps in proptest::collection::vec(step(), 0..30)) {
        prop_assume!(is_within_one_window(&steps));
        prop_assert_eq!(classes(found(&facts(&steps, true))), classes(model(&timed(&steps))));
    }
}
