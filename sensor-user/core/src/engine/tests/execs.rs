use sensor_common::record::{Ring, exec_flags};

use super::*;
use crate::fact::{Enrichment, ExecRole};
use crate::records::{Exec, cgroup, exit, fork, v2};

fn role(fact: &Fact) -> Option<ExecRole> {
    match fact.kind {
        FactKind::Exec { role } => Some(role),
        _ => None,
    }
}

fn chain(fact: &Fact) -> Vec<(u32, &str, Option<&str>)> {
    let process = fact.process.as_ref().expect("a process");
    let ancestors = process.ancestors.iter();
    ancestors.map(|ancestor| (ancestor.pid, &*ancestor.comm, ancestor.exe.as_deref())).collect()
}

#[test]
fn runtime_exec_on_the_host_is_told_with_arguments_and_ancestors() {
    let mut sensor = Sensor::ready();
    let shim = "/usr/bin/containerd-shim-runc-v2";
    sensor.see(|now| fork(now, CONTAINERD, SHIM));
    sensor.see(|now| {
        Exec::new(now, SHIM, v2(HOST), shim, &["containerd-shim-runc-v2", "-namespace", "moby"]).bytes()
    });
    sensor.see(|now| fork(now, SHIM, RUNC));
    sensor.see(|now| Exec::new(now, RUNC, v2(HOST), "/usr/sbin/runc", &["runc", "--version"]).bytes());
    let facts = sensor.facts();
    assert_eq!(facts.iter().filter_map(role).collect::<Vec<_>>(), [ExecRole::Shim, ExecRole::Runtime]);
    let process = facts[1].process.as_ref().expect("a process");
    assert_eq!(process.args.as_deref().expect("arguments"), ["runc".into(), "--version".into()]);
    assert_eq!((process.ppid, process.uid, process.truncated), (Some(102), Some(0), false));
    assert_eq!(
        chain(&facts[1]),
        [
            (102, "containerd-shim", Some(shim)),
            (101, "containerd", Some("/usr/bin/containerd")),
            (1, "systemd", Some("/usr/lib/systemd/systemd"))
        ]
    );
    assert_eq!(facts[1].quality.enrichment, Enrichment::Ok);
}

#[test]
fn ordinary_programs_of_the_host_are_not_told() {
    let mut sensor = Sensor::ready();
    sensor.see(|now| Exec::new(now, CURL, v2(HOST), "/usr/bin/curl", &["curl"]).bytes());
    sensor.see(|now| exit(now, CURL, v2(HOST), 0));
    assert!(sensor.facts().is_empty());
}

#[test]
fn every_program_of_a_container_is_told() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("/docker/{id}")));
    sensor.metadata(&id, "web");
    sensor.see(|now| Exec::new(now, P(500, "sh"), v2(50), "/bin/sh", &["sh"]).bytes());
    sensor.see(|now| Exec::new(now, P(501, "kubectl"), v2(50), "/bin/kubectl", &["kubectl"]).bytes());
    let facts = sensor.facts();
    let told: Vec<_> = facts.iter().filter_map(|fact| Some((role(fact)?, container_id(fact)?))).collect();
    assert_eq!(told, [(ExecRole::Workload, &*id), (ExecRole::Client, &*id)]);
}

#[test]
fn exit_is_told_of_programs_that_were_told_only() {
    let mut sensor = Sensor::ready();
    let exec = |now, task| Exec::new(now, task, v2(HOST), "/usr/sbin/runc", &["runc", "state", "a"]).bytes();
    sensor.see(|now| exec(now, RUNC));
    sensor.see(|now| exit(now, RUNC, v2(HOST), 3 << 8));
    sensor.see(|now| exit(now, RUNC, v2(HOST), 3 << 8));
    sensor.see(|now| exec(now, P(201, "runc")));
    sensor.see(|now| exit(now, P(201, "runc"), v2(HOST), 9));
    let facts = sensor.facts();
    let exits: Vec<_> =
        facts.iter().filter(|fact| role(fact).is_none()).map(|fact| fact.kind.clone()).collect();
    assert_eq!(
        exits,
        [FactKind::Exit { code: Some(3), signal: None }, FactKind::Exit { code: None, signal: Some(9) }]
    );
}

#[test]
fn forked_process_keeps_its_true_forker_after_it_was_given_to_another() {
    let mut sensor = Sensor::ready();
    let ancestors = [INIT];
    sensor.see(|now| fork(now, DOCKERD, RUNC));
    sensor.see(|now| exit(now, DOCKERD, v2(HOST), 0));
    sensor.see(|now| {
        Exec { ancestors: &ancestors, ..Exec::new(now, RUNC, v2(HOST), "/usr/sbin/runc", &["runc"]) }.bytes()
    });
    let facts = sensor.facts();
    assert_eq!(chain(&facts[0])[0].0, DOCKERD.0);
    assert_eq!(facts[0].process.as_ref().expect("a process").ppid, Some(1));
}

#[test]
fn lost_forks_are_made_up_for_by_the_ancestors_in_the_exec() {
    let mut sensor = Sensor::ready();
    let ancestors = [SHIM, CONTAINERD];
    sensor.see(|now| {
        Exec { ancestors: &ancestors, ..Exec::new(now, RUNC, v2(HOST), "/usr/sbin/runc", &["runc"]) }.bytes()
    });
    let facts = sensor.facts();
    // The shim is known by the kernel's word alone, containerd from the table with its own parents.
    assert_eq!(
        chain(&facts[0]),
        [
            (102, "containerd-shim", None),
            (101, "containerd", Some("/usr/bin/containerd")),
            (1, "systemd", Some("/usr/lib/systemd/systemd"))
        ]
    );
}

#[test]
fn cut_arguments_are_said_to_be_cut() {
    let mut sensor = Sensor::ready();
    sensor.see(|now| {
        Exec { args_beyond: 1, ..Exec::new(now, RUNC, v2(HOST), "/usr/sbin/runc", &["runc"]) }.bytes()
    });
    assert!(sensor.facts()[0].quality.truncated);
}

#[test]
fn unreadable_arguments_are_absent_not_empty() {
    let mut sensor = Sensor::ready();
    let flags = exec_flags::ARGS_UNREADABLE;
    sensor.see(|now| Exec { flags, ..Exec::new(now, RUNC, v2(HOST), "/usr/sbin/runc", &[]) }.bytes());
    let facts = sensor.facts();
    assert_eq!(facts[0].process.as_ref().expect("a process").args, None);
    assert!(!facts[0].quality.truncated);
}

#[test]
fn records_of_both_rings_come_out_in_kernel_time_order() {
    let mut sensor = Sensor::ready();
    let base = sensor.now;
    let exec = |now, pid| Exec::new(now, P(pid, "runc"), v2(HOST), "/usr/sbin/runc", &["runc"]).bytes();
    for (ring, offset, pid) in [
        (Ring::Bulk, 40, 4),
        (Ring::Bulk, 20, 2),
        (Ring::Management, 30, 3),
        (Ring::Management, 10, 1),
        (Ring::Management, 20, 5),
    ] {
        sensor.record(ring, &exec(base + offset, 1000 + pid));
    }
    let pids: Vec<_> =
        sensor.facts().iter().map(|fact| fact.process.as_ref().expect("a process").pid - 1000).collect();
    assert_eq!(pids, [1, 5, 2, 3, 4]);
}

#[test]
fn exec_in_a_cgroup_whose_making_was_lost_finds_its_container_by_the_name_in_the_record() {
    let mut sensor = Sensor::ready();
    let id = long_id("cd");
    let name = format!("docker-{id}.scope");
    let task = P(500, "sh");
    sensor.see(|now| {
        Exec { cgroup_name: &name, ns_pid: 1, ..Exec::new(now, task, v2(77), "/bin/sh", &["sh"]) }.bytes()
    });
    sensor.metadata(&id, "web");
    let mut facts = sensor.facts();
    sensor.metadata(&id, "web");
    facts.extend(sensor.facts());
    assert_eq!((container_id(&facts[0]), runtime(&facts[0])), (Some(&*id), Some(Runtime::Docker)));
    assert_eq!(actions(&facts)[0], (ContainerAction::Started, &*id));
}

#[test]
fn exec_in_a_cgroup_nobody_knows_is_told_without_container() {
    let mut sensor = Sensor::ready();
    sensor.see(|now| {
        Exec { cgroup_name: "weird", ..Exec::new(now, P(500, "sh"), v2(77), "/bin/sh", &["sh"]) }.bytes()
    });
    let facts = sensor.facts();
    assert_eq!(role(&facts[0]), Some(ExecRole::Workload));
    assert_eq!((container_id(&facts[0]), facts[0].quality.enrichment), (None, Enrichment::None));
}

#[test]
fn exec_in_an_unknown_cgroup_below_an_ordinary_host_process_is_the_hosts() {
    let mut sensor = Sensor::ready();
    let ancestors = [INIT];
    sensor.see(|now| {
        let exec = Exec::new(now, P(500, "sshd"), v2(77), "/usr/sbin/sshd", &["sshd"]);
        Exec { ancestors: &ancestors, cgroup_name: "ssh.service", ..exec }.bytes()
    });
    assert!(sensor.facts().is_empty());
}

#[test]
fn exec_the_kernel_knows_to_be_on_the_host_is_believed() {
    let mut sensor = Sensor::ready();
    sensor.see(|now| Exec { flags: 0, ..Exec::new(now, CURL, v2(77), "/usr/bin/curl", &["curl"]) }.bytes());
    assert!(sensor.facts().is_empty());
}
