use sensor_common::record::{ConnectStage, Ring};

use super::*;
use crate::fact::{ConnectResult, Direction, Enrichment};
use crate::records::{Exec, cgroup, close, connect, ends, fork, v2};

const LOCAL: (&str, u16) = ("172.17.0.2", 40_000);
const REMOTE: (&str, u16) = ("198.18.0.20", 10250);

fn with_container(id: &str) -> Sensor {
    let mut sensor = Sensor::ready();
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("/docker/{id}")));
    sensor.facts();
    sensor.metadata(id, "web");
    sensor.read_facts();
    sensor
}

fn result(fact: &Fact) -> Option<ConnectResult> {
    match fact.kind {
        FactKind::Connect { result } => Some(result),
        _ => None,
    }
}

#[test]
fn connect_of_a_container_is_told_with_its_result() {
    let id = long_id("ab");
    let mut sensor = with_container(&id);
    for (error, expected) in [
        (111, ConnectResult::Refused),
        (104, ConnectResult::Reset),
        (110, ConnectResult::Timeout),
        (0, ConnectResult::Timeout),
        (113, ConnectResult::Unreachable),
        (101, ConnectResult::Unreachable),
    ] {
        sensor.see(|now| connect(now, 1, CURL, v2(50), ends(LOCAL, REMOTE), ConnectStage::Failed, error));
        let facts = sensor.facts();
        assert_eq!(result(&facts[0]), Some(expected), "errno {error}");
        assert_eq!(container_id(&facts[0]), Some(&*id));
        let net = facts[0].net.as_ref().expect("a connection");
        assert_eq!((net.direction, net.service), (Some(Direction::Outbound), Service::Kubelet));
    }
}

#[test]
fn attempt_result_and_close_share_one_connection_id() {
    let mut sensor = with_container(&long_id("ab"));
    sensor.see(|now| connect(now, 5, CURL, v2(50), ends(("0.0.0.0", 0), REMOTE), ConnectStage::Attempted, 0));
    sensor.see(|now| connect(now, 5, CURL, v2(50), ends(LOCAL, REMOTE), ConnectStage::Established, 0));
    sensor.see(|now| close(now, 5, Some(CURL), v2(50), ends(LOCAL, REMOTE)));
    let facts = sensor.facts();
    let nets: Vec<_> = facts.iter().map(|fact| fact.net.as_ref().expect("a connection")).collect();
    assert_eq!(nets.len(), 3);
    assert!(nets.iter().all(|net| net.conn == nets[0].conn));
    assert_eq!(nets[0].local, None, "no local end before the route is chosen");
    assert_eq!((nets[1], &facts[1].process), (nets[2], &facts[2].process));
}

#[test]
fn connect_of_an_ordinary_host_process_is_none_of_our_business() {
    let mut sensor = Sensor::ready();
    sensor.see(|now| Exec::new(now, CURL, v2(HOST), "/usr/bin/curl", &["curl"]).bytes());
    sensor.see(|now| connect(now, 1, CURL, v2(HOST), ends(LOCAL, REMOTE), ConnectStage::Established, 0));
    sensor.see(|now| close(now, 1, Some(CURL), v2(HOST), ends(LOCAL, REMOTE)));
    assert!(sensor.facts().is_empty());
}

#[test]
fn connect_of_a_runtime_process_on_the_host_is_told_without_container() {
    let mut sensor = Sensor::ready();
    sensor.see(|now| connect(now, 1, DOCKERD, v2(HOST), ends(LOCAL, REMOTE), ConnectStage::Established, 0));
    let facts = sensor.facts();
    assert_eq!((comm(&facts[0]), container_id(&facts[0])), (Some("dockerd"), None));
    assert_eq!(facts[0].quality.enrichment, Enrichment::Ok);
}

#[test]
fn connect_from_a_cgroup_nobody_told_of_is_not_lost() {
    let mut sensor = Sensor::ready();
    sensor.see(|now| connect(now, 1, CURL, v2(99), ends(LOCAL, REMOTE), ConnectStage::Established, 0));
    let facts = sensor.facts();
    assert_eq!(result(&facts[0]), Some(ConnectResult::Established));
    assert_eq!((comm(&facts[0]), facts[0].quality.enrichment), (Some("curl"), Enrichment::None));
}

#[test]
fn process_in_an_unknown_cgroup_is_where_its_parent_is() {
    let id = long_id("ab");
    let mut sensor = with_container(&id);
    sensor.see(|now| Exec::new(now, P(500, "sh"), v2(50), "/bin/sh", &["sh"]).bytes());
    sensor.see(|now| fork(now, P(500, "sh"), CURL));
    sensor.facts();
    sensor.see(|now| connect(now, 1, CURL, v2(99), ends(LOCAL, REMOTE), ConnectStage::Established, 0));
    assert_eq!(container_id(&sensor.facts()[0]), Some(&*id));
}

#[test]
fn connect_seen_before_the_cgroup_record_of_the_other_ring_finds_its_container() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    let base = sensor.now;
    let attempt = connect(base + 200, 1, CURL, v2(50), ends(LOCAL, REMOTE), ConnectStage::Established, 0);
    sensor.record(Ring::Bulk, &attempt);
    sensor.record(Ring::Management, &cgroup(base + 100, true, v2(50), RUNC, &format!("/docker/{id}")));
    let facts = sensor.facts();
    let connect = facts.iter().find(|fact| result(fact).is_some()).expect("a connect");
    assert_eq!(container_id(connect), Some(&*id));
    assert_eq!(connect.quality.enrichment, Enrichment::Partial, "its metadata is still to come");
}
