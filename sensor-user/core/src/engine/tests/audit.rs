//! Audit logs that are read while they are written.

use super::*;
use crate::chains::Finding;
use crate::health::{AuditInput, KernelCounters, Loss};

/// A kubelet of node-a asks, from there or from elsewhere, this many seconds after the boot.
fn kubelet(seconds: u64, source: &str) -> String {
    format!(
        r#"{{"stage":"ResponseComplete","auditID":"id-{seconds}","requestURI":"/api/v1/nodes","verb":"get","user":{{"username":"system:node:node-a","groups":["system:nodes"]}},"sourceIPs":["{source}"],"requestReceivedTimestamp":"1970-01-01T00:{:02}:{:02}Z"}}"#,
        seconds / 60,
        seconds % 60,
    )
}

/// A sensor that was told where node-a is.
fn sensor() -> Sensor {
    let mut sensor = Sensor::ready();
    let mut policy = Policy::default();
    policy.cluster.nodes = vec![("node-a".into(), vec!["10.0.0.11/32".parse().expect("a network")])];
    sensor.engine.handle_policy(at(2000), policy, Vec::new());
    sensor.outputs();
    sensor
}

fn finding(outputs: Vec<Output>) -> Box<Finding> {
    // The end of another comes first.
    let found = outputs.into_iter().rev().find_map(|output| match output {
        Output::Finding { finding, .. } => Some(finding),
        _ => None,
    });
    found.expect("a finding")
}

fn input(invalid: u64, oversize: u64, gaps: u64) -> Vec<AuditInput> {
    vec![AuditInput { name: "audit.log".into(), invalid, oversize, gaps, ..AuditInput::default() }]
}

#[test]
fn a_request_that_is_read_live_is_of_this_node_and_on_its_clock() {
    let mut sensor = sensor();
    sensor.engine.handle_clock(ClockMap { offset_ns: 60_000_000_000 });
    let line = kubelet(100, "10.0.0.11");
    let told = sensor.engine.handle_live_audit_line(line.as_bytes());
    assert_eq!(told, Ok(Some(100_000_000_000)));
    let outputs = sensor.outputs();
    let [Output::Fact { fact, .. }] = &outputs[..] else { panic!("one fact: {outputs:?}") };
    assert_eq!(fact.at, Timestamp { boot_ns: 40_000_000_000, unix_ns: 100_000_000_000 });
    assert_eq!(&*fact.node.name, "node-a");
    assert!(fact.id.0.starts_with("000000000abc-"), "{fact:?}");
    assert_eq!(sensor.engine.handle_live_audit_line(line.as_bytes()), Ok(None), "it was told");
    let early = sensor.engine.handle_live_audit_line(kubelet(7, "10.0.0.11").as_bytes());
    assert_eq!(early, Ok(Some(7_000_000_000)));
    let outputs = sensor.outputs();
    let [Output::Fact { fact, .. }] = &outputs[..] else { panic!("one fact: {outputs:?}") };
    assert_eq!(fact.at.boot_ns, 0, "before the boot");
}

#[test]
fn lines_that_are_lost_are_told_and_make_findings_of_that_time_incomplete() {
    let mut sensor = sensor();
    sensor.engine.handle_audit_inputs(at(3000), input(0, 0, 0));
    sensor.engine.handle_live_audit_line(kubelet(1000, "10.0.0.11").as_bytes()).expect("an event");
    sensor.engine.handle_live_audit_line(b"{}").expect_err("no event");
    sensor.engine.handle_audit_inputs(at(4000), input(1, 2, 0));
    sensor.engine.handle_counters(at(4000), &KernelCounters::default());
    let told = healths(sensor.outputs());
    let lost = |kind, lost| Loss { ring: None, kind, lost, suppressed: 0, evicted: 0 };
    assert_eq!(told[0].loss, [lost("audit-invalid", 1), lost("audit-oversize", 2)]);
    assert_eq!((told[0].state, &told[0].audit), (HealthState::Degraded, &input(1, 2, 0)));

    sensor.engine.handle_live_audit_line(kubelet(1001, "198.18.0.9").as_bytes()).expect("an event");
    let found = finding(sensor.outputs());
    assert_eq!((found.completeness.complete, found.completeness.lost), (false, 3));
    // Hours later it is another matter.
    sensor.engine.handle_live_audit_line(kubelet(3500, "198.18.0.10").as_bytes()).expect("an event");
    let found = finding(sensor.outputs());
    assert_eq!((found.completeness.complete, found.completeness.lost), (true, 0));

    sensor.engine.handle_audit_inputs(at(5000), input(1, 2, 1));
    sensor.engine.finish(at(5000), &KernelCounters::default());
    let outputs = sensor.outputs();
    let Some(Output::Health { health, .. }) = outputs.last() else { panic!("health last: {outputs:?}") };
    assert_eq!(
        health.loss,
        [lost("audit-invalid", 1), lost("audit-oversize", 2), lost("audit-gaps", 1)],
        "of the whole run"
    );
    assert_eq!(health.audit, input(1, 2, 1));
}
