use ContainerAction::{Created, Enriched, Exec as ExecInto, Removed, Started, Stopped};

use super::*;
use crate::fact::Enrichment;
use crate::records::{Exec, cgroup, exit, fork, v1, v2};
use crate::risks::Risks;
use sensor_common::record::{CgroupRecord, ExecRecord, TaskId};
use sensor_common::settings::cgroup_class;
use std::mem::offset_of;

mod plain;
mod pods;

const SH: P = P(500, "sh");

fn docker_runc(now: u64, task: P, args: &[&str]) -> Vec<u8> {
    let args = [&["runc", "--root", "/var/run/docker/runtime-runc/moby"], args].concat();
    Exec::new(now, task, v2(HOST), "/usr/sbin/runc", &args).bytes()
}

fn plain_runc(now: u64, task: P, args: &[&str]) -> Vec<u8> {
    Exec::new(now, task, v2(HOST), "/usr/sbin/runc", &[&["runc"], args].concat()).bytes()
}

/// The program of a container: in its own mount namespace, first in its pid namespace.
fn program(now: u64, task: P, cgroup: u64) -> Vec<u8> {
    Exec { mnt_ns: 2, ns_pid: 1, ..Exec::new(now, task, v2(cgroup), "/bin/sh", &["sh"]) }.bytes()
}

fn queries(requests: &[Request]) -> Vec<&crate::engine::ContainerQuery> {
    let queries = requests.iter().filter_map(|request| match request {
        Request::ReadContainer(query) => Some(query),
        _ => None,
    });
    queries.collect()
}

#[test]
fn docker_container_lives_from_created_to_removed() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    let path = format!("/docker/{id}");
    sensor.see(|now| docker_runc(now, RUNC, &["create", "--bundle", "/run/b", &id]));
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &path));
    sensor.see(|now| program(now, SH, 50));
    let facts = sensor.facts();
    assert!(actions(&facts).is_empty(), "held for the metadata");
    let requests = sensor.requests();
    assert!(
        requests
            .contains(&Request::ClassifyCgroup(CgroupKey { hierarchy: 0, id: 50 }, cgroup_class::CONTAINER))
    );
    let query = queries(&requests)[0];
    assert_eq!((&*query.id, query.runtime), (&*id, Runtime::Docker));
    assert_eq!((query.namespace.as_deref(), query.bundle.as_deref()), (Some("moby"), Some("/run/b")));
    assert_eq!((query.root.as_deref(), query.uid), (Some("/var/run/docker/runtime-runc/moby"), Some(0)));

    sensor.metadata(&id, "web");
    let facts = sensor.read_facts();
    assert_eq!(actions(&facts), [(Created, &*id), (Started, &*id), (Enriched, &*id)]);
    assert_eq!((comm(&facts[0]), comm(&facts[1])), (Some("runc"), Some("sh")));
    let container = facts[0].container.as_ref().expect("a container");
    assert_eq!((container.name.as_deref(), container.image.as_deref()), (Some("web"), Some("busybox")));
    assert_eq!(container.cgroup.as_deref(), Some(&*path));
    assert_eq!(facts[0].quality.enrichment, Enrichment::Ok);

    sensor.see(|now| exit(now, SH, v2(50), 0));
    sensor.see(|now| cgroup(now, false, v2(50), RUNC, &path));
    let facts = sensor.facts();
    assert_eq!(actions(&facts), [(Stopped, &*id)]);
    assert_eq!(comm(facts.last().expect("stopped")), Some("sh"));
    let requests = sensor.requests();
    assert!(
        requests.iter().any(|request| matches!(request, Request::WatchRemoval(query) if *query.id == *id))
    );
    assert!(requests.contains(&Request::ForgetCgroup(CgroupKey { hierarchy: 0, id: 50 })));

    sensor.engine.handle_container_removed(at(sensor.now), &id);
    assert_eq!(actions(&sensor.read_facts()), [(Removed, &*id)]);
    assert_eq!(sensor.requests(), [Request::ForgetRemoval(id.as_str().into())]);
    sensor.engine.handle_container_removed(at(sensor.now), &id);
    assert!(sensor.outputs().is_empty(), "removed once");
}

#[test]
fn steps_go_out_without_metadata_when_the_hold_ends() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("/docker/{id}")));
    assert!(sensor.facts().is_empty());
    sensor.pass(HOLD_NS);
    let facts = sensor.read_facts();
    assert_eq!(actions(&facts), [(Created, &*id)]);
    assert_eq!(facts[0].quality.enrichment, Enrichment::Partial);
    sensor.metadata(&id, "web");
    sensor.metadata(&id, "web");
    let facts = sensor.read_facts();
    assert_eq!(actions(&facts), [(Enriched, &*id)], "once");
    assert_eq!(facts[0].quality.enrichment, Enrichment::Ok);
}

#[test]
fn answers_that_do_not_say_who_it_is_keep_the_records_waiting() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("/docker/{id}")));
    sensor.facts();
    let nothing = ContainerMetadata { id: id.as_str().into(), ..ContainerMetadata::default() };
    let bundle = ContainerMetadata { runtime: Some(Runtime::Docker), ..nothing.clone() };
    sensor.engine.handle_container_metadata(at(sensor.now), nothing);
    sensor.engine.handle_container_metadata(at(sensor.now), bundle);
    assert!(sensor.outputs().is_empty());
    sensor.metadata(&id, "web");
    assert_eq!(actions(&sensor.read_facts()), [(Created, &*id)]);
}

#[test]
fn state_of_a_bare_runtime_is_all_there_is() {
    let mut sensor = Sensor::ready();
    sensor.see(|now| plain_runc(now, RUNC, &["create", "my-box"]));
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, "/my-box"));
    sensor.facts();
    let created = Some("2026-01-01T00:00:00.000000000Z".into());
    let risks = Some(Risks::default());
    let state = ContainerMetadata { id: "my-box".into(), created, risks, ..ContainerMetadata::default() };
    sensor.engine.handle_container_metadata(at(sensor.now), state);
    let facts = sensor.read_facts();
    assert_eq!(actions(&facts), [(Created, "my-box")]);
    assert_eq!(facts[0].quality.enrichment, Enrichment::Ok);
}

#[test]
fn container_of_two_hierarchies_is_created_and_stopped_once() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    let path = format!("/docker/{id}");
    sensor.see(|now| cgroup(now, true, v1(7), RUNC, &path));
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &path));
    sensor.see(|now| cgroup(now, false, v1(7), RUNC, &path));
    sensor.see(|now| cgroup(now, false, v2(50), RUNC, &path));
    sensor.facts();
    sensor.metadata(&id, "web");
    assert_eq!(actions(&sensor.read_facts()), [(Created, &*id), (Stopped, &*id)]);
}

#[test]
fn container_that_is_gone_at_once_has_its_full_id_in_every_record() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    let path = format!("/docker/{id}");
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &path));
    sensor.see(|now| program(now, SH, 50));
    sensor.see(|now| exit(now, SH, v2(50), 0));
    sensor.see(|now| cgroup(now, false, v2(50), RUNC, &path));
    let mut facts = sensor.facts();
    sensor.pass(HOLD_NS);
    facts.extend(sensor.read_facts());
    assert_eq!(actions(&facts), [(Created, &*id), (Started, &*id), (Stopped, &*id)]);
    assert!(facts.iter().all(|fact| container_id(fact) == Some(&id)), "{facts:?}");
}

#[test]
fn restarted_container_is_created_again_and_no_longer_watched() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    let path = format!("/docker/{id}");
    for key in [50, 51] {
        sensor.see(|now| cgroup(now, true, v2(key), RUNC, &path));
        sensor.metadata(&id, "web");
        sensor.see(|now| program(now, P(key as u32, "sh"), key));
        sensor.see(|now| cgroup(now, false, v2(key), RUNC, &path));
    }
    let facts = sensor.facts();
    sensor.metadata(&id, "web");
    let mut all: Vec<_> = actions(&facts).into_iter().map(|(action, _)| action).collect();
    let late = sensor.read_facts();
    all.extend(actions(&late).into_iter().map(|(action, _)| action));
    all.retain(|action| *action != Enriched);
    assert_eq!(all, [Created, Started, Stopped, Created, Started, Stopped]);
    let forgotten = |request: &Request| matches!(request, Request::ForgetRemoval(_));
    assert_eq!(sensor.requests().iter().filter(|request| forgotten(request)).count(), 1);
}

#[test]
fn removal_notice_that_crossed_with_a_restart_is_ignored() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("/docker/{id}")));
    sensor.facts();
    sensor.engine.handle_container_removed(at(sensor.now), &id);
    assert!(sensor.outputs().is_empty());
}

#[test]
fn exec_into_a_container_is_told_once_per_call() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("/docker/{id}")));
    sensor.see(|now| program(now, SH, 50));
    sensor.facts();
    sensor.metadata(&id, "web");
    sensor.read_facts();
    let call = ["exec", "--process", "/tmp/p", "--detach", "--pid-file", "/tmp/f", &id];
    sensor.see(|now| docker_runc(now, P(210, "runc"), &call));
    // crun executes itself anew.
    sensor.see(|now| docker_runc(now, P(210, "runc"), &call));
    sensor.see(|now| docker_runc(now, P(211, "runc"), &call));
    sensor.facts();
    sensor.pass(HOLD_NS);
    let facts = sensor.read_facts();
    assert_eq!(actions(&facts), [(ExecInto, &*id), (ExecInto, &*id)]);
}

#[test]
fn runtime_helper_passing_through_the_cgroup_does_not_start_the_container() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    sensor.see(|now| docker_runc(now, RUNC, &["create", &id]));
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("/docker/{id}")));
    // Still in the mount namespace of the runtime that made the container.
    sensor.see(|now| Exec::new(now, P(201, "runc"), v2(50), "/dev/fd/5", &["runc", "init"]).bytes());
    sensor.facts();
    sensor.metadata(&id, "web");
    assert!(!actions(&sensor.read_facts()).contains(&(Started, &*id)));
    // The same words from inside start it: the name proves nothing.
    sensor.see(|now| {
        Exec { mnt_ns: 2, ..Exec::new(now, P(202, "runc"), v2(50), "/runc", &["runc", "init"]) }.bytes()
    });
    assert!(actions(&sensor.facts()).contains(&(Started, &*id)));
}

#[test]
fn delete_of_a_managed_container_is_not_its_removal() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    let delete = P(220, "runc");
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("/docker/{id}")));
    sensor.see(|now| cgroup(now, false, v2(50), RUNC, &format!("/docker/{id}")));
    sensor.see(|now| docker_runc(now, delete, &["delete", &id]));
    sensor.see(|now| exit(now, delete, v2(HOST), 0));
    sensor.facts();
    sensor.metadata(&id, "web");
    assert_eq!(actions(&sensor.read_facts()), [(Created, &*id), (Stopped, &*id)]);
}

#[test]
fn systemd_makes_the_cgroup_but_the_runtime_is_the_creator() {
    let mut sensor = Sensor::ready();
    sensor.see(|now| plain_runc(now, RUNC, &["--systemd-cgroup", "create", "my-box"]));
    sensor.see(|now| cgroup(now, true, v2(50), INIT, "/system.slice/box-my-box.scope"));
    sensor.facts();
    sensor.metadata("my-box", "x");
    let facts = sensor.read_facts();
    assert_eq!(actions(&facts), [(Created, "my-box")]);
    assert_eq!(comm(&facts[0]), Some("runc"));
}

#[test]
fn ctr_container_is_known_with_its_namespace_from_the_shim() {
    let mut sensor = Sensor::ready();
    let shim = ["containerd-shim-runc-v2", "-namespace", "lab", "-id", "t1", "start"];
    let root = "/run/containerd/runc/lab";
    sensor.see(|now| fork(now, CONTAINERD, SHIM));
    sensor.see(|now| Exec::new(now, SHIM, v2(HOST), "/usr/bin/containerd-shim-runc-v2", &shim).bytes());
    sensor.see(|now| fork(now, SHIM, RUNC));
    sensor.see(|now| plain_runc(now, RUNC, &["--root", root, "create", "--bundle", "/b", "t1"]));
    sensor.see(|now| cgroup(now, true, v2(48), RUNC, "/lab"));
    sensor.see(|now| cgroup(now, true, v2(49), RUNC, "/lab/t1"));
    sensor.facts();
    let requests = sensor.requests();
    let queries = queries(&requests);
    assert_eq!(queries.len(), 1, "the namespace's own cgroup is no container");
    assert_eq!((&*queries[0].id, queries[0].runtime), ("t1", Runtime::Containerd));
    assert_eq!(queries[0].namespace.as_deref(), Some("lab"));
}

#[test]
fn cgroup_of_an_arbitrary_name_becomes_the_containers_with_its_first_program() {
    let mut sensor = Sensor::ready();
    sensor.see(|now| plain_runc(now, RUNC, &["create", "my-box"]));
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, "/custom/place"));
    sensor.facts();
    assert!(queries(&sensor.requests()).is_empty());
    sensor.see(|now| program(now, SH, 50));
    let mut facts = sensor.facts();
    sensor.metadata("my-box", "x");
    facts.extend(sensor.read_facts());
    assert_eq!(container_id(&facts[0]), Some("my-box"));
    assert!(actions(&facts).contains(&(Started, "my-box")));
    sensor.see(|now| cgroup(now, false, v2(50), RUNC, "/custom/place"));
    assert_eq!(actions(&sensor.facts()), [(Stopped, "my-box")]);
}

#[test]
fn state_file_names_the_cgroup_of_a_container_that_was_there_before() {
    let mut sensor = Sensor::seeded();
    let seed = |id, path: &str| SeedCgroup { key: CgroupKey { hierarchy: 0, id }, path: path.into() };
    sensor.engine.handle_cgroups(vec![seed(60, "/strange"), seed(61, "/strange/inner")]);
    sensor.engine.handle_process(seed_process(task_item(SH, Some(INIT), v2(61)), "/bin/sh", None));
    sensor.engine.handle_container_metadata(
        at(900),
        ContainerMetadata {
            id: "old-box".into(),
            runtime: Some(Runtime::Runc),
            cgroups: vec!["/strange".into()],
            risks: Some(Risks::default()),
            ..ContainerMetadata::default()
        },
    );
    sensor.engine.handle_ready(at(1000));
    sensor.facts();
    let classes: Vec<_> = sensor
        .requests()
        .into_iter()
        .filter(|request| matches!(request, Request::ClassifyCgroup(_, cgroup_class::CONTAINER)))
        .collect();
    assert_eq!(classes.len(), 2, "the cgroup and the one nested in it");
    sensor.see(|now| exit(now, SH, v2(61), 0));
    assert_eq!(
        actions(&sensor.facts()),
        [(Stopped, "old-box")],
        "its first process was found among the seeds"
    );
}

#[test]
fn containers_that_were_there_before_are_asked_for_and_not_told_as_created() {
    let mut sensor = Sensor::seeded();
    let id = long_id("ab");
    let key = CgroupKey { hierarchy: 0, id: 50 };
    sensor.engine.handle_cgroups(vec![SeedCgroup { key, path: format!("/docker/{id}").into() }]);
    sensor.engine.handle_ready(at(1000));
    let requests = sensor.requests();
    assert_eq!(queries(&requests).len(), 1);
    assert!(requests.contains(&Request::ClassifyCgroup(key, cgroup_class::CONTAINER)));
    sensor.see(|now| program(now, SH, 50));
    let facts = sensor.facts();
    assert!(actions(&facts).is_empty());
    assert_eq!(container_id(&facts[0]), Some(&*id));
}

#[test]
fn cgroups_inside_a_container_belong_to_it_and_end_nothing() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    let path = format!("/docker/{id}");
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &path));
    sensor.see(|now| cgroup(now, true, v2(51), SH, &format!("{path}/init")));
    sensor.see(|now| program(now, SH, 51));
    sensor.see(|now| cgroup(now, false, v2(51), SH, &format!("{path}/init")));
    sensor.facts();
    sensor.metadata(&id, "web");
    assert_eq!(actions(&sensor.read_facts())[..2], [(Created, &*id), (Started, &*id)]);
}

#[test]
fn cgroup_named_after_another_container_inside_a_container_stays_its_own() {
    let mut sensor = Sensor::ready();
    let (victim, attacker) = (long_id("aa"), long_id("bb"));
    for (key, id) in [(50, &victim), (51, &attacker)] {
        sensor.see(|now| cgroup(now, true, v2(key), RUNC, &format!("/docker/{id}")));
        sensor.metadata(id, "x");
    }
    let inside = format!("/docker/{attacker}/docker/{victim}");
    sensor.see(|now| cgroup(now, true, v2(52), SH, &inside));
    sensor.see(|now| program(now, P(600, "evil"), 52));
    let facts = sensor.facts();
    let exec = facts.iter().find(|fact| matches!(fact.kind, FactKind::Exec { .. })).expect("an exec");
    assert_eq!(container_id(exec), Some(&*attacker));
}

#[test]
fn runtime_call_inside_a_container_says_nothing_of_containers_outside() {
    let mut sensor = Sensor::ready();
    let (victim, attacker) = (long_id("aa"), long_id("bb"));
    for (key, id) in [(50, &victim), (51, &attacker)] {
        sensor.see(|now| cgroup(now, true, v2(key), RUNC, &format!("/docker/{id}")));
    }
    sensor.facts();
    sensor.metadata(&victim, "v");
    sensor.metadata(&attacker, "a");
    sensor.read_facts();
    sensor.see(|now| Exec::new(now, P(600, "runc"), v2(51), "/runc", &["runc", "exec", &victim]).bytes());
    let facts = sensor.facts();
    assert!(!actions(&facts).iter().any(|(action, _)| *action == ExecInto));
}

#[test]
fn container_inside_a_container_is_one_of_its_own() {
    let mut sensor = Sensor::ready();
    let (outer, inner) = (long_id("aa"), long_id("bb"));
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("/docker/{outer}")));
    sensor.see(|now| cgroup(now, true, v2(51), P(600, "runc"), &format!("/docker/{outer}/docker/{inner}")));
    sensor.facts();
    sensor.metadata(&inner, "in");
    assert_eq!(actions(&sensor.read_facts()), [(Created, &*inner)]);
}

#[test]
fn host_cgroups_are_classified_and_forgotten() {
    let mut sensor = Sensor::ready();
    let key = CgroupKey { hierarchy: 0, id: 70 };
    sensor.see(|now| cgroup(now, true, v2(70), INIT, "/system.slice/cron.service"));
    sensor.see(|now| cgroup(now, false, v2(70), INIT, "/system.slice/cron.service"));
    sensor.facts();
    assert_eq!(
        sensor.requests(),
        [Request::ClassifyCgroup(key, cgroup_class::HOST), Request::ForgetCgroup(key)]
    );
}

#[test]
fn users_runtime_speaks_of_no_container_of_root() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    sensor.see(|now| docker_runc(now, RUNC, &["create", &id]));
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("/docker/{id}")));
    sensor.facts();
    sensor.metadata(&id, "web");
    sensor.read_facts();
    let by_user = |mut record: Vec<u8>, task: usize| {
        let uid = task + offset_of!(TaskId, uid);
        record[uid..uid + 4].copy_from_slice(&1000_u32.to_ne_bytes());
        record
    };
    for command in ["create", "exec"] {
        let task = offset_of!(ExecRecord, task);
        sensor.see(|now| by_user(plain_runc(now, P(700, "runc"), &[command, &id]), task));
    }
    assert!(actions(&sensor.facts()).is_empty());
    sensor.see(|now| cgroup(now, false, v2(50), RUNC, &format!("/docker/{id}")));
    let fake = format!("/user.slice/user-1000.slice/docker-{id}.scope");
    let maker = P(701, "mkdir");
    sensor.see(|now| by_user(cgroup(now, true, v2(51), maker, &fake), offset_of!(CgroupRecord, task)));
    assert_eq!(actions(&sensor.facts()), [(Stopped, &*id)], "not created anew");
    assert_eq!(sensor.engine.containers.peek(&id).map(crate::containers::Entry::owner), Some(0));
}

#[test]
fn name_in_an_exec_does_not_move_a_container_that_lives() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("/docker/{id}")));
    sensor.facts();
    let name = format!("docker-{id}.scope");
    let task = P(500, "sh");
    sensor.see(|now| Exec { cgroup_name: &name, ..Exec::new(now, task, v2(77), "/bin/sh", &["sh"]) }.bytes());
    assert_eq!(container_id(&sensor.facts()[0]), None);
}

#[test]
fn only_a_cgroup_that_was_told_to_be_the_hosts_is_the_hosts() {
    let mut sensor = Sensor::seeded();
    let key = |id| CgroupKey { hierarchy: 0, id };
    let path = format!("/docker/{}", "a".repeat(64)).into();
    sensor.engine.handle_cgroups(vec![SeedCgroup { key: key(77), path }]);
    let answers = [HOST, 77, 78].map(|id| sensor.engine.is_host_cgroup(key(id)));
    assert_eq!(answers, [true, false, false]);
}
