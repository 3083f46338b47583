//! The Docker API, reached from outside, and the containers that come out of it.

use anyhow::{Context as _, Result, ensure};
use sensor_tests::dockerd::{IMAGE, PORT, remote};
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::netns::{
    CLIENT_INSIDE, CLIENT_OUTSIDE, CLIENT_V6, CLIENT_V6_OUTSIDE, NODE_INSIDE, NODE_OUTSIDE, NODE_V6,
    NODE_V6_OUTSIDE,
};
use sensor_tests::record::Record;
use sensor_tests::sensor::Sensor;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("docker_run_from_an_unlisted_peer_is_seen_as_a_whole", run_from_unlisted_peer),
    ("docker_run_from_a_listed_peer_names_the_entry", run_from_listed_peer),
    ("docker_over_ipv6_is_judged_by_ipv6_networks", ipv6),
    ("docker_exec_is_an_exec_of_the_container", exec),
    ("a_container_that_an_entry_expects_bears_its_name_and_its_twin_does_not", listed_container),
    ("container_that_lives_under_50_ms_is_complete", short_life),
    ("containers_steps_come_in_order", steps_in_order),
];

/// The accept from this peer address.
fn accept_from(sensor: &Sensor, peer: &str) -> Result<Record> {
    sensor.wait_is("accept", &[("net.peer.ip", peer), ("net.local.port", &PORT.to_string())])
}

fn check_accept(lab: &Lab, accept: &Record, peer: &str, local: &str) -> Result<()> {
    let fields = [
        ("net.direction", "inbound"),
        ("net.proto", "tcp"),
        ("net.peer.ip", peer),
        ("net.local.ip", local),
        ("net.service", "docker"),
        ("process.comm", "dockerd"),
        ("process.pid", &lab.dockerd.id().to_string()),
        ("process.exe", "/usr/sbin/dockerd"),
    ];
    ensure!(accept.is("accept", &fields), "{accept}\nis not an accept with {fields:?}");
    ensure!(!accept.text("net.conn").is_empty(), "no connection id: {accept}");
    Ok(())
}

fn run_from_unlisted_peer(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let id = remote(
        &lab.network,
        NODE_OUTSIDE,
        &["run", "--detach", "--name", "unlisted", IMAGE, "/bin/sleep", "600"],
    )?;
    ensure!(id.len() == 64, "not a full id: {id}");

    let accept = accept_from(&sensor, CLIENT_OUTSIDE)?;
    check_accept(lab, &accept, CLIENT_OUTSIDE, NODE_OUTSIDE)?;
    ensure!(accept.is("accept", &[("verdict.listed", "false")]), "{accept}");
    ensure!(accept.at("verdict.entry").is_null(), "an unlisted peer has no entry: {accept}");

    check_runtime_chain(lab, &sensor, &id)?;
    for action in ["created", "started"] {
        check_container(&sensor, action, &id, "unlisted")?;
    }
    let first = sensor.wait("the container's first exec", |record| {
        record.is("exec", &[("container.id", &id), ("exec.role", "workload")])
    })?;
    ensure!(first.args() == ["/bin/sleep", "600"], "{first}");
    ensure!(first.is("exec", &[("process.exe", "/bin/sleep"), ("process.uid", "0")]), "{first}");

    let close = sensor.wait("the end of the connection", |record| {
        record.is("close", &[("net.conn", accept.text("net.conn"))])
    })?;
    let count = |path: &str| close.number(path).with_context(|| format!("no {path}: {close}"));
    ensure!(count("conn.bytes_in")? > 50 && count("conn.bytes_out")? > 50, "{close}");
    ensure!(
        count("conn.duration_ns")? == count("boot_ns")? - accept.number("boot_ns").context("no boot_ns")?,
        "the duration is not the distance of\n{accept}\n{close}"
    );

    remote(&lab.network, NODE_OUTSIDE, &["rm", "--force", "unlisted"])?;
    check_container(&sensor, "stopped", &id, "unlisted")?;
    check_container(&sensor, "removed", &id, "unlisted")?;
    sensor.stop().map(drop)
}

/// The shim and the runtime that made the container, each with where it came from.
pub fn check_runtime_chain(lab: &Lab, sensor: &Sensor, id: &str) -> Result<()> {
    let runtime = sensor.wait("exec of runc create", |record| {
        record.is("exec", &[("exec.role", "runtime")])
            && record.program() == "runc"
            && record.args().contains(&"create")
            && record.args().contains(&id)
    })?;
    ensure!(
        runtime.ancestors().first().is_some_and(|parent| parent.starts_with("containerd-shim")),
        "runc is not a child of the shim: {runtime}"
    );
    let shim = sensor.wait("exec of the shim", |record| {
        record.is("exec", &[("exec.role", "shim")])
            && record.program().starts_with("containerd-shim")
            && record.args().contains(&id)
    })?;
    let ancestors = shim.ancestors();
    ensure!(ancestors.contains(&"containerd"), "the shim has no containerd above it: {shim}");
    ensure!(ancestors.contains(&"dockerd"), "the shim has no dockerd above it: {shim}");
    let dockerd = shim
        .list("process.ancestors")
        .iter()
        .find(|ancestor| ancestor["comm"] == "dockerd")
        .and_then(|dockerd| dockerd["pid"].as_u64());
    ensure!(dockerd == Some(lab.dockerd.id().into()), "not our dockerd: {shim}");
    Ok(())
}

/// A container record says everything that Docker knows of the container.
pub fn check_container(sensor: &Sensor, action: &str, id: &str, name: &str) -> Result<()> {
    let record = sensor.wait_container(action, id)?;
    let fields = [("container.runtime", "docker"), ("container.name", name), ("container.image", IMAGE)];
    ensure!(record.is("container", &fields), "{record}\nhas not {fields:?}");
    ensure!(record.text("container.created").ends_with('Z'), "no creation time: {record}");
    ensure!(record.text("container.cgroup").ends_with(id), "no cgroup: {record}");
    Ok(())
}

/// The same image under two names, of which one is listed.
fn listed_container(lab: &Lab) -> Result<()> {
    const LISTED: &str = "quaywatch.test/monitor:1";
    const ENTRY: &str = "  - name: monitoring
    from: {image: [quaywatch.test/monitor]}
    to: {acts: [discovery]}
";
    lab.dockerd.docker(&["tag", IMAGE, LISTED])?;
    let sensor = Sensor::start(&format!("{CONFIGURATION}{ENTRY}"))?;
    for (image, entry) in [(LISTED, "monitoring"), (IMAGE, "")] {
        let id = lab.dockerd.docker(&["run", "--detach", "--network=none", image, "/bin/sleep", "600"])?;
        sensor.wait_container("started", &id)?;
        lab.dockerd.docker(&["exec", &id, "/bin/true"])?;
        let exec = sensor.wait("what is executed in it", |record| {
            record.is("exec", &[("container.id", &id), ("process.exe", "/bin/true")])
        })?;
        ensure!(exec.text("container.image") == image, "{exec}");
        ensure!(exec.text("verdict.entry") == entry, "not {entry:?}: {exec}");
        ensure!(exec.at("verdict").is_null() == entry.is_empty(), "nobody is told to be unlisted: {exec}");
    }
    sensor.stop().map(drop)
}

fn run_from_listed_peer(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    remote(&lab.network, NODE_INSIDE, &["run", "--rm", "--name", "listed", IMAGE, "/bin/echo", "x"])?;
    let accept = accept_from(&sensor, CLIENT_INSIDE)?;
    check_accept(lab, &accept, CLIENT_INSIDE, NODE_INSIDE)?;
    ensure!(
        accept.is("accept", &[("verdict.listed", "true"), ("verdict.entry", "lab-network")]),
        "the verdict does not name the entry: {accept}"
    );
    let recording = sensor.stop()?;
    let unlisted = recording
        .of_kind("accept")
        .find(|record| record.is("accept", &[("net.local.ip", NODE_INSIDE), ("verdict.listed", "false")]));
    ensure!(unlisted.is_none(), "a listed peer was judged unlisted: {unlisted:?}");
    Ok(())
}

fn ipv6(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    remote(&lab.network, NODE_V6, &["ps"])?;
    remote(&lab.network, NODE_V6_OUTSIDE, &["ps"])?;
    let listed = accept_from(&sensor, CLIENT_V6)?;
    check_accept(lab, &listed, CLIENT_V6, NODE_V6)?;
    ensure!(listed.is("accept", &[("verdict.listed", "true"), ("verdict.entry", "lab-network")]), "{listed}");
    let unlisted = accept_from(&sensor, CLIENT_V6_OUTSIDE)?;
    check_accept(lab, &unlisted, CLIENT_V6_OUTSIDE, NODE_V6_OUTSIDE)?;
    ensure!(unlisted.is("accept", &[("verdict.listed", "false")]), "{unlisted}");
    for accept in [&listed, &unlisted] {
        let close = sensor.wait_is("close", &[("net.conn", accept.text("net.conn"))])?;
        ensure!(close.text("net.peer.ip") == accept.text("net.peer.ip"), "another peer:\n{accept}\n{close}");
    }
    sensor.stop().map(drop)
}

fn exec(lab: &Lab) -> Result<()> {
    // The container is older than the sensor: what is known of it comes from the start-up walk.
    let id = lab.dockerd.docker(&["run", "--detach", "--name", "older", IMAGE, "/bin/sleep", "600"])?;
    let sensor = Sensor::start(CONFIGURATION)?;
    lab.dockerd.docker(&["exec", "older", "/bin/echo", "from-exec"])?;
    let inside = sensor.wait("the exec inside", |record| {
        record.is("exec", &[("container.id", &id)]) && record.args() == ["/bin/echo", "from-exec"]
    })?;
    ensure!(inside.is_about(&id, Some("older"), IMAGE), "{inside}");
    ensure!(inside.text("container.runtime") == "docker", "{inside}");
    // The parent is a stage of runc, which renames itself, below the runc that was called.
    let ancestors = inside.ancestors();
    ensure!(
        ancestors.first().is_some_and(|parent| parent.starts_with("runc")),
        "its parent is not runc: {inside}"
    );
    ensure!(ancestors.iter().any(|name| name.starts_with("containerd-shim")), "no shim above it: {inside}");
    check_container(&sensor, "exec", &id, "older")?;
    let runtime = sensor.wait("runc exec", |record| {
        record.is("exec", &[("exec.role", "runtime")])
            && record.args().contains(&"exec")
            && record.args().contains(&id.as_str())
    })?;
    ensure!(runtime.program() == "runc", "{runtime}");
    let recording = sensor.stop()?;
    let created = recording.records.iter().find(|record| record.is_container("created", &id));
    ensure!(created.is_none(), "a container that was there before was not created now: {created:?}");
    Ok(())
}

fn short_life(lab: &Lab) -> Result<()> {
    /// What the test is about, in nanoseconds.
    const SHORT: u64 = 50_000_000;
    let sensor = Sensor::start(CONFIGURATION)?;
    // How long it lives is up to the machine; one of a few will be quick enough.
    for attempt in 0..5 {
        let name = format!("short-{attempt}");
        let id = remote(&lab.network, NODE_INSIDE, &["create", "--name", &name, IMAGE, "/bin/true"])?;
        remote(&lab.network, NODE_INSIDE, &["start", "--attach", &name])?;
        for action in ["created", "started", "stopped"] {
            check_container(&sensor, action, &id, &name)?;
        }
        let exec = sensor.wait("its only exec", |record| {
            record.is("exec", &[("container.id", &id), ("exec.role", "workload")])
        })?;
        ensure!(exec.args() == ["/bin/true"], "{exec}");
        let exit = sensor.wait("its exit", |record| {
            record.is(
                "exit",
                &[
                    ("process.pid", &exec.at("process.pid").to_string()),
                    ("process.start_ns", &exec.at("process.start_ns").to_string()),
                ],
            )
        })?;
        ensure!(exit.is("exit", &[("exit.code", "0"), ("container.id", &id)]), "{exit}");
        let time = |record: &Record| record.number("boot_ns").context("no boot_ns");
        if time(&exit)? - time(&exec)? < SHORT {
            return sensor.stop().map(drop);
        }
    }
    anyhow::bail!("no container lived under 50 ms")
}

fn steps_in_order(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let id = lab.dockerd.docker(&["run", "--detach", "--name", "ordered", IMAGE, "/bin/sleep", "600"])?;
    sensor.wait("started", |record| record.is_container("started", &id))?;
    lab.dockerd.docker(&["kill", "ordered"])?;
    lab.dockerd.docker(&["start", "ordered"])?;
    let mark = sensor.mark();
    lab.dockerd.docker(&["rm", "--force", "ordered"])?;
    sensor.wait_after(mark, "removed", |record| record.is_container("removed", &id))?;
    let recording = sensor.stop()?;
    let mut steps: Vec<(u64, &str)> = recording
        .of_kind("container")
        .filter(|record| record.text("container.id") == id)
        .map(|record| (record.number("boot_ns").unwrap_or_default(), record.text("container.action")))
        .filter(|(_, action)| *action != "enriched")
        .collect();
    steps.sort_unstable();
    let steps: Vec<&str> = steps.into_iter().map(|(_, action)| action).collect();
    ensure!(
        steps == ["created", "started", "stopped", "created", "started", "stopped", "removed"],
        "the container's steps are {steps:?}"
    );
    Ok(())
}
