use sensor_common::record::{ConnectStage, Ring};

use super::*;
use crate::fact::{ConnectResult, Direction, Enrichment, ExecRole};
use crate::records::{Exec, cgroup, close, connect, ends, exit, fork, v2};

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

#[test]
fn connection_does_not_keep_the_arguments_of_its_process() {
    let id = long_id("ab");
    let mut sensor = with_container(&id);
    sensor.see(|now| Exec::new(now, CURL, v2(50), "/usr/bin/curl", &["curl", "-s"]).bytes());
    for conn in [1, 2] {
        sensor.see(|now| connect(now, conn, CURL, v2(50), ends(LOCAL, REMOTE), ConnectStage::Established, 0));
    }
    sensor.see(|now| exit(now, CURL, v2(50), 0));
    sensor.see(|now| close(now, 1, Some(CURL), v2(50), ends(LOCAL, REMOTE)));
    let facts = sensor.facts();
    let connected = facts.iter().find(|fact| result(fact).is_some()).expect("a connect");
    assert_eq!(facts.last().expect("a close").process, connected.process, "still known");
    drop(facts);
    for pid in 10_000..12_000 {
        sensor.see(|now| fork(now, INIT, P(pid, "systemd")));
        sensor.see(|now| exit(now, P(pid, "systemd"), v2(HOST), 0));
    }
    assert!(sensor.facts().is_empty());
    sensor.see(|now| close(now, 2, Some(CURL), v2(50), ends(LOCAL, REMOTE)));
    let facts = sensor.facts();
    let process = facts[0].process.as_ref().expect("a process");
    assert_eq!((process.pid, process.exe.as_deref(), process.uid), (CURL.0, Some("/usr/bin/curl"), Some(0)));
    assert_eq!((&process.args, container_id(&facts[0])), (&None, Some(&*id)));
}

#[test]
fn process_that_left_its_containers_cgroup_is_the_containers_still() {
    let id = long_id("ab");
    let mut sensor = with_container(&id);
    let (sh, nc) = (P(501, "sh"), P(502, "nc"));
    sensor.see(|now| Exec { mnt_ns: 2, ..Exec::new(now, sh, v2(50), "/bin/sh", &["sh"]) }.bytes());
    sensor.see(|now| connect(now, 1, sh, v2(HOST), ends(LOCAL, REMOTE), ConnectStage::Established, 0));
    sensor.see(|now| Exec { mnt_ns: 2, ..Exec::new(now, sh, v2(HOST), "/bin/ash", &["ash"]) }.bytes());
    // Nor does it help to have a child, or to bear the name of a runtime.
    sensor.see(|now| fork(now, sh, nc));
    sensor
        .see(|now| Exec { mnt_ns: 2, ..Exec::new(now, nc, v2(HOST), "/bin/nc", &["runc", "init"]) }.bytes());
    sensor.see(|now| connect(now, 2, nc, v2(HOST), ends(LOCAL, REMOTE), ConnectStage::Established, 0));
    sensor.see(|now| exit(now, nc, v2(HOST), 0));
    let facts = sensor.facts();
    let told: Vec<_> = facts
        .iter()
        .filter(|fact| !matches!(fact.kind, FactKind::Container { .. }))
        .map(|fact| (comm(fact), container_id(fact)))
        .collect();
    let own = Some(&*id);
    assert_eq!(
        told,
        [
            (Some("sh"), own),
            (Some("sh"), own),
            (Some("sh"), own),
            (Some("nc"), own),
            (Some("nc"), own),
            (Some("nc"), own)
        ]
    );
}

#[test]
fn runtime_that_goes_from_the_host_into_a_container_and_back_is_the_hosts() {
    let id = long_id("ab");
    let mut sensor = Sensor::ready();
    let (runc, child) = (P(600, "runc"), P(601, "runc"));
    let args = ["runc", "create", &*id];
    sensor.see(|now| Exec::new(now, runc, v2(HOST), "/usr/sbin/runc", &args).bytes());
    sensor.see(|now| cgroup(now, true, v2(50), runc, &format!("/docker/{id}")));
    sensor.see(|now| fork(now, runc, child));
    sensor.see(|now| Exec::new(now, child, v2(50), "/proc/self/exe", &["runc", "init"]).bytes());
    sensor.see(|now| Exec::new(now, child, v2(HOST), "/usr/sbin/runc", &["runc", "state", &id]).bytes());
    let facts = sensor.facts();
    let last = facts.last().expect("an exec");
    assert_eq!((last.kind.clone(), container_id(last)), (FactKind::Exec { role: ExecRole::Runtime }, None));
}
