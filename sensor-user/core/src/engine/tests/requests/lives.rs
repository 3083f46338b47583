//! The cause of a container, from its making to its removal.

use super::super::{actions, at};
use super::*;
use crate::fact::ContainerAction::{Enriched, Removed, Started, Stopped};
use crate::records::P;

#[test]
fn the_cause_of_a_life_is_told_to_its_end() {
    let mut sensor = with_dockerd();
    let id = long_id("ab");
    let path = format!("/system.slice/docker-{id}.scope");
    let mut client = Client::new(&mut sensor, 7);
    client.ask(&mut sensor, "POST", "/containers/create", r#"{"Image":"x"}"#);
    client.answer(&mut sensor, "201 Created", &format!(r#"{{"Id":"{id}"}}"#));
    run_container(&mut sensor, &id, 100);
    let facts = later(&mut sensor);
    let request = facts.iter().find(|fact| matches!(fact.kind, FactKind::ApiRequest(_))).expect("a request");
    let (_, cause) = origins(&facts).remove(0);
    assert_eq!((cause.class, cause.request.as_ref()), (OriginClass::Proved, Some(&request.id)));

    let program = |now, cgroup| {
        let task = P(500, "sh");
        Exec { mnt_ns: 2, ns_pid: 1, ..Exec::new(now, task, v2(cgroup), "/bin/sh", &["sh"]) }.bytes()
    };
    sensor.see(|now| program(now, 100));
    sensor.see(|now| records::cgroup(now, false, v2(100), RUNC, &path));
    let mut facts = later(&mut sensor);
    sensor.metadata(&id, "web");
    sensor.engine.handle_container_removed(at(sensor.now), &id);
    facts.extend(sensor.read_facts());
    let told: Vec<_> = actions(&facts).into_iter().map(|(action, _)| action).collect();
    assert_eq!(told, [Started, Stopped, Enriched, Removed]);
    assert!(origins(&facts).into_iter().all(|(_, origin)| origin == cause), "{facts:?}");

    // The next life is another matter.
    run_container(&mut sensor, &id, 101);
    sensor.see(|now| program(now, 101));
    sensor.see(|now| records::cgroup(now, false, v2(101), RUNC, &path));
    let facts = later(&mut sensor);
    assert_eq!(actions(&facts).len(), 3);
    assert!(origins(&facts).into_iter().all(|(_, origin)| origin == Origin::none()), "{facts:?}");
}

#[test]
fn a_surer_cause_of_the_start_goes_before_that_of_the_making() {
    let mut sensor = with_dockerd();
    let id = long_id("ab");
    let path = format!("/system.slice/docker-{id}.scope");
    // Nobody knows of the container's making.
    run_container(&mut sensor, &id, 100);
    let facts = later(&mut sensor);
    assert_eq!(origins(&facts), [(id.clone(), Origin::none())]);
    let mut client = Client::new(&mut sensor, 7);
    client.ask(&mut sensor, "POST", &format!("/containers/{id}/start"), "");
    sensor.see(|now| {
        Exec { mnt_ns: 2, ns_pid: 1, ..Exec::new(now, P(500, "sh"), v2(100), "/bin/sh", &["sh"]) }.bytes()
    });
    sensor.see(|now| records::cgroup(now, false, v2(100), RUNC, &path));
    let facts = later(&mut sensor);
    let told = origins(&facts);
    assert_eq!((told.len(), told[0].1.class), (2, OriginClass::Proved));
    assert_eq!(told[0], told[1]);
}
