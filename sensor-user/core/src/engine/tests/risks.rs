//! Risks of containers in records.

use ContainerAction::{Created, Enriched, Exec as ExecInto, Removed, Stopped};

use super::*;
use crate::fact::Enrichment;
use crate::records::{Exec, cgroup, v2};
use crate::risks::Risk;

#[test]
fn records_wait_for_the_risks_too() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("/docker/{id}")));
    sensor.facts();
    let name = Some("web".into());
    let metadata = ContainerMetadata { id: id.as_str().into(), name, ..Default::default() };
    sensor.engine.handle_container_metadata(at(sensor.now), metadata.clone());
    assert!(sensor.outputs().is_empty(), "what it may do is still to be read");
    let risks = Some(Risks::new([Risk::SeccompOff, Risk::Privileged]));
    sensor.engine.handle_container_metadata(at(sensor.now), ContainerMetadata { risks, ..metadata });
    let facts = sensor.read_facts();
    assert_eq!(actions(&facts), [(Created, &*id)]);
    let risks = facts[0].container.as_ref().and_then(|container| container.risks.as_deref());
    assert_eq!(risks, Some(&[Risk::Privileged, Risk::SeccompOff][..]));
}

#[test]
fn risks_that_found_no_room_make_a_record_truncated() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("/docker/{id}")));
    sensor.facts();
    let devices = (0..100).map(|index| Risk::Device(format!("/dev/x{index}").into()));
    let (name, risks) = (Some("web".into()), Some(Risks::new(devices)));
    let metadata = ContainerMetadata { id: id.as_str().into(), name, risks, ..Default::default() };
    sensor.engine.handle_container_metadata(at(sensor.now), metadata);
    let facts = sensor.read_facts();
    assert_eq!((actions(&facts), facts[0].quality.truncated), (vec![(Created, &*id)], true));
}

/// A container with no risk that runs, and a runtime that is called to put a process into it.
fn exec_into(sensor: &mut Sensor, args: &[&str]) -> String {
    let id = long_id("ab");
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("/docker/{id}")));
    sensor.facts();
    sensor.metadata(&id, "web");
    sensor.read_facts();
    sensor.requests();
    let args: Vec<&str> = args.iter().map(|arg| if *arg == "ID" { id.as_str() } else { arg }).collect();
    sensor.see(|now| Exec::new(now, P(700, "runc"), v2(HOST), "/usr/sbin/runc", &args).bytes());
    id
}

fn risk_names(fact: &Fact) -> Vec<String> {
    let risks = fact.container.as_ref().and_then(|container| container.risks.as_deref());
    risks.unwrap_or_default().iter().map(|risk| risk.name().into_owned()).collect()
}

#[test]
fn an_exec_is_told_with_what_its_process_may_do() {
    let mut sensor = Sensor::ready();
    let id = exec_into(&mut sensor, &["runc", "exec", "--process", "/tmp/p", "ID"]);
    assert_eq!(actions(&sensor.facts()), [], "it waits for the file");
    let query = sensor.requests().into_iter().find_map(|request| match request {
        Request::ReadProcess(query) => Some(query),
        _ => None,
    });
    let query = query.expect("the file is asked for");
    assert_eq!((&*query.file, query.uid), ("/tmp/p", Some(0)));
    sensor.engine.handle_process_risks(
        at(sensor.now),
        query.number + 1,
        Some(Risks::new([Risk::SeccompOff])),
    );
    assert!(sensor.outputs().is_empty(), "another one's answer");
    sensor.engine.handle_process_risks(at(sensor.now), query.number, Some(Risks::new([Risk::Privileged])));
    let facts = sensor.read_facts();
    assert_eq!((actions(&facts), risk_names(&facts[0])), (vec![(ExecInto, &*id)], vec!["privileged".into()]));

    // The container itself is what it was.
    sensor.see(|now| cgroup(now, false, v2(50), RUNC, &format!("/docker/{id}")));
    let facts = sensor.facts();
    assert_eq!((actions(&facts), risk_names(&facts[0])), (vec![(Stopped, &*id)], vec![]));
}

#[test]
fn an_exec_whose_process_is_never_read_is_partial() {
    for is_answered in [true, false] {
        let mut sensor = Sensor::ready();
        let id = exec_into(&mut sensor, &["runc", "exec", "--process", "/tmp/p", "ID"]);
        sensor.facts();
        if is_answered {
            sensor.engine.handle_process_risks(at(sensor.now), 1, None);
        } else {
            sensor.pass(HOLD_NS);
        }
        let facts = sensor.read_facts();
        assert_eq!(actions(&facts), [(ExecInto, &*id)], "answered: {is_answered}");
        assert_eq!(facts[0].quality.enrichment, Enrichment::Partial);
        // What comes later amends it, once.
        for expected in [&[ContainerAction::Enriched][..], &[]] {
            sensor.engine.handle_process_risks(at(sensor.now), 1, Some(Risks::new([Risk::Privileged])));
            let facts = sensor.read_facts();
            let told: Vec<_> = actions(&facts).into_iter().map(|(action, _)| action).collect();
            assert_eq!(told, if is_answered { &[] } else { expected }, "answered: {is_answered}");
            if let Some(fact) = facts.first() {
                assert_eq!((risk_names(fact), comm(fact)), (vec!["privileged".to_owned()], Some("runc")));
                assert_eq!(fact.quality.enrichment, Enrichment::Ok);
            }
        }
    }
}

#[test]
fn an_exec_by_arguments_alone_waits_for_nothing() {
    let mut sensor = Sensor::ready();
    let id = exec_into(&mut sensor, &["runc", "exec", "--cap", "CAP_SYS_ADMIN", "ID", "nsenter", "-t", "1"]);
    let facts = sensor.facts();
    let exec = facts.iter().find(|fact| matches!(fact.kind, FactKind::Container { .. })).expect("told");
    assert_eq!(actions(&facts), [(ExecInto, &*id)]);
    assert_eq!(risk_names(exec), ["cap:SYS_ADMIN", "entrypoint-escape"]);
}

#[test]
fn what_the_records_of_a_removed_container_lack_is_told_once() {
    for is_last in [false, true] {
        let mut sensor = Sensor::ready();
        let id = long_id("ab");
        let path = format!("/docker/{id}");
        sensor.see(|now| cgroup(now, true, v2(50), RUNC, &path));
        sensor.see(|now| cgroup(now, false, v2(50), RUNC, &path));
        sensor.facts();
        sensor.pass(HOLD_NS);
        sensor.engine.handle_container_removed(at(sensor.now), &id);
        let told = sensor.read_facts();
        assert_eq!(actions(&told), [(Created, &*id), (Stopped, &*id), (Removed, &*id)]);
        assert!(told.iter().all(|fact| fact.quality.enrichment == Enrichment::Partial));

        if is_last {
            let nothing = ContainerMetadata { id: id.as_str().into(), is_last, ..Default::default() };
            sensor.engine.handle_container_metadata(at(sensor.now), nothing);
        }
        sensor.metadata(&id, "web");
        sensor.metadata(&id, "web");
        let told = sensor.read_facts();
        let expected = if is_last { vec![] } else { vec![(Enriched, &*id)] };
        assert_eq!(actions(&told), expected, "nobody waits after the last answer");
        assert_eq!(sensor.engine.statistics().containers, 0, "it is forgotten then");
    }
}
