//! Who leaves a container, and who only sets one up.

use super::*;
use crate::ids::FileKey;
use crate::namespaces::{HostSide, Namespaces};
use crate::records::{Exec, P, cgroup, fork, v2};

const HOST_MNT: u32 = 1;
const HOST_PID: u32 = 2;
const HOST_ROOT: u64 = 3;
const SHELL: P = P(500, "sh");

/// Where the processes of the container are.
const OWN: (u32, u32, u64) = (11, 12, 13);
/// Where those of the host are.
const HOSTS: (u32, u32, u64) = (HOST_MNT, HOST_PID, HOST_ROOT);

fn escapes(facts: &[Fact]) -> Vec<(HostSide, u32, &str)> {
    let escapes = facts.iter().filter_map(|fact| match fact.kind {
        FactKind::Escape(side) => Some((side, fact.process.as_ref()?.pid, container_id(fact)?)),
        _ => None,
    });
    escapes.collect()
}

const fn side(mnt: bool, pid: bool, root: bool) -> HostSide {
    HostSide { mnt, pid, root }
}

/// A sensor that knows the host's namespaces.
fn sensor() -> Sensor {
    let mut sensor = Sensor::ready();
    let root = FileKey { device: 1, inode: HOST_ROOT };
    sensor.engine.handle_host_namespaces(Namespaces { mnt: HOST_MNT, pid: HOST_PID, root });
    sensor
}

fn run(sensor: &mut Sensor, task: P, group: u64, args: &[&str], place: (u32, u32, u64)) {
    sensor.see(|now| {
        let mut exec = Exec::new(now, task, v2(group), args[0], args);
        (exec.mnt_ns, exec.pid_ns, exec.root) = place;
        exec.bytes()
    });
}

/// A container as a runtime makes it, up to its first program.
fn container(sensor: &mut Sensor, place: (u32, u32, u64)) -> String {
    let id = long_id("ab");
    run(sensor, SHIM, HOST, &["containerd-shim-runc-v2", "-id", &id], HOSTS);
    sensor.see(|now| fork(now, SHIM, RUNC));
    run(sensor, RUNC, HOST, &["runc", "create", &id], HOSTS);
    sensor.see(|now| fork(now, RUNC, P(201, "runc")));
    run(sensor, P(201, "runc"), HOST, &["runc", "init"], HOSTS);
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("/docker/{id}")));
    sensor.metadata(&id, "web");
    // The sealed copy is executed in the cgroup already, and its first stage forks the others.
    run(sensor, P(201, "runc"), 50, &["runc", "init"], HOSTS);
    sensor.see(|now| fork(now, P(201, "runc"), SHELL));
    run(sensor, SHELL, 50, &["sh"], place);
    id
}

#[test]
fn setting_up_a_container_is_no_escape() {
    let mut sensor = sensor();
    let id = container(&mut sensor, OWN);
    // `docker exec`, the same way once more, with a hook in the host's root directory on the way.
    let (exec, stage, hook) = (P(600, "runc"), P(601, "runc"), P(602, "hook"));
    sensor.see(|now| fork(now, SHIM, exec));
    run(&mut sensor, exec, HOST, &["runc", "exec", &id], HOSTS);
    sensor.see(|now| fork(now, exec, stage));
    run(&mut sensor, stage, 50, &["runc", "init"], HOSTS);
    run(&mut sensor, stage, 50, &["runc", "init"], HOSTS);
    sensor.see(|now| fork(now, stage, hook));
    run(&mut sensor, hook, 50, &["/usr/bin/nvidia-ctk", "hook"], (21, 12, HOST_ROOT));
    run(&mut sensor, stage, 50, &["ls"], OWN);
    assert_eq!(escapes(&sensor.facts()), []);
}

#[test]
fn nsenter_into_the_host_is_an_escape_told_once() {
    let mut sensor = sensor();
    let id = container(&mut sensor, OWN);
    let (nsenter, child) = (P(510, "nsenter"), P(511, "cat"));
    sensor.see(|now| fork(now, SHELL, nsenter));
    run(&mut sensor, nsenter, 50, &["nsenter", "-t", "1", "-m"], OWN);
    run(&mut sensor, nsenter, 50, &["bash"], (HOST_MNT, 12, HOST_ROOT));
    sensor.see(|now| fork(now, nsenter, child));
    run(&mut sensor, child, 50, &["cat", "/etc/shadow"], (HOST_MNT, 12, HOST_ROOT));
    let facts = sensor.facts();
    assert_eq!(escapes(&facts), [(side(true, false, true), 510, &*id)]);
    // What it does later is still the container's.
    assert_eq!(container_id(facts.last().expect("an exec")), Some(&*id));
}

#[test]
fn a_name_of_the_runtimes_hides_no_escape() {
    for args in [&["runc", "init"][..], &["runc", "exec", "x"], &["containerd-shim"], &["crun", "run", "y"]] {
        let mut sensor = sensor();
        let id = container(&mut sensor, OWN);
        let child = P(510, "runc");
        sensor.see(|now| fork(now, SHELL, child));
        run(&mut sensor, child, 50, args, (HOST_MNT, HOST_PID, HOST_ROOT));
        assert_eq!(escapes(&sensor.facts()), [(side(true, true, true), 510, &*id)], "{args:?}");
    }
}

#[test]
fn entrypoint_that_enters_the_host_is_an_escape() {
    let mut sensor = sensor();
    let id = container(&mut sensor, (11, HOST_PID, 13));
    // The container was given the host's pid namespace: that alone is none.
    assert_eq!(escapes(&sensor.facts()), []);
    run(&mut sensor, SHELL, 50, &["bash"], HOSTS);
    assert_eq!(escapes(&sensor.facts()), [(side(true, false, true), 500, &*id)]);
}

#[test]
fn the_hosts_root_directory_in_a_mount_of_the_container_is_an_escape() {
    let mut sensor = sensor();
    let id = container(&mut sensor, OWN);
    sensor.see(|now| fork(now, SHELL, P(510, "chroot")));
    run(&mut sensor, P(510, "chroot"), 50, &["chroot", "/host"], OWN);
    run(&mut sensor, P(510, "chroot"), 50, &["/bin/sh"], (OWN.0, OWN.1, HOST_ROOT));
    assert_eq!(escapes(&sensor.facts()), [(side(false, false, true), 510, &*id)]);
}

#[test]
fn leaving_the_cgroup_first_hides_nothing() {
    let mut sensor = sensor();
    let id = container(&mut sensor, OWN);
    let child = P(510, "sh");
    sensor.see(|now| fork(now, SHELL, child));
    run(&mut sensor, child, HOST, &["bash"], HOSTS);
    assert_eq!(escapes(&sensor.facts()), [(side(true, true, true), 510, &*id)]);
}

#[test]
fn a_runtimes_name_does_not_hide_who_left_the_cgroup_first() {
    for args in [&["runc", "-c", "id"][..], &["containerd-shim-runc-v2"]] {
        let mut sensor = sensor();
        let id = container(&mut sensor, OWN);
        let (nsenter, child) = (P(510, "nsenter"), P(511, "date"));
        sensor.see(|now| fork(now, SHELL, nsenter));
        run(&mut sensor, nsenter, HOST, &["nsenter", "-t", "1", "-m", "runc"], OWN);
        run(&mut sensor, nsenter, HOST, args, HOSTS);
        sensor.see(|now| fork(now, nsenter, child));
        run(&mut sensor, child, HOST, &["date"], HOSTS);
        let facts = sensor.facts();
        assert_eq!(escapes(&facts), [(side(true, true, true), 510, &*id)], "{args:?}");
        let last = facts.last().expect("an exec");
        assert_eq!((last.process.as_ref().map(|it| it.pid), container_id(last)), (Some(511), Some(&*id)));
    }
}

#[test]
fn without_knowing_the_host_nothing_is_claimed() {
    let mut sensor = Sensor::ready();
    container(&mut sensor, OWN);
    run(&mut sensor, SHELL, 50, &["bash"], HOSTS);
    assert_eq!(escapes(&sensor.facts()), []);
}
