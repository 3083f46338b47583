//! Execs, exits and containers made of cgroups.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use sensor_tests::process::run_unchecked;
use sensor_tests::sensor::Sensor;

use super::actor::Actor;
use super::kinds::Row;
use super::truth::Truth;
use crate::PROGRAM;
use crate::cgroups::Container;
use crate::report::Outcome;

pub const ROWS: &[Row] =
    &[("exec", exec), ("exec-runtime", exec_runtime), ("exit", exit), ("container", container)];

/// A program in a container, with its arguments and who started it.
pub fn exec(sensor: &Sensor) -> Result<Outcome> {
    let container = Container::create("e1")?;
    let long = "x".repeat(1500);
    let arguments = ["connect", "nowhere", "with\nan odd \"argument\"", "", &long];
    let actor = Actor::start_within(&container.id, &arguments)?;
    let pid = actor.id().to_string();
    ensure!(!actor.finish()?.success(), "nobody can connect to nowhere");
    let fields = [("container.id", container.id.as_str()), ("process.pid", &pid)];
    let record = sensor.wait_is("exec", &fields)?;
    let expected = [&[PROGRAM][..], &arguments].concat();
    ensure!(record.args() == expected, "not {expected:?}: {record}");
    let worker = std::process::id().to_string();
    let fields = [
        ("exec.role", "workload"),
        ("process.exe", PROGRAM),
        ("process.comm", "vm-guest"),
        ("process.uid", "0"),
        ("process.ppid", &worker),
        ("process.ancestors.0.pid", &worker),
        ("process.ancestors.1.pid", "1"),
        ("container.cgroup", &*container.path()),
    ];
    ensure!(record.is("exec", &fields), "not {fields:?}: {record}");
    Ok(Outcome::Seen)
}

/// A runtime called by a process of the host.
fn exec_runtime(sensor: &Sensor) -> Result<Outcome> {
    let output = run_unchecked(Command::new("/usr/sbin/runc").args(["--log-format", "json", "--version"]))?;
    ensure!(output.status.success(), "{}", output.stderr);
    let record = sensor.wait("the exec of runc", |record| {
        record.is("exec", &[("exec.role", "runtime"), ("process.exe", "/usr/sbin/runc")])
    })?;
    let expected = ["/usr/sbin/runc", "--log-format", "json", "--version"];
    ensure!(record.args() == expected, "not {expected:?}: {record}");
    ensure!(record.at("container").is_null(), "it is in no container: {record}");
    Ok(Outcome::Seen)
}

fn exit(sensor: &Sensor) -> Result<Outcome> {
    let container = Container::create("e2")?;
    for (script, field, expected) in [("exit 7", "exit.code", "7"), ("kill -9 $$", "exit.signal", "9")] {
        let mut command = Command::new(PROGRAM);
        command.args(["within", &container.id, "/bin/busybox", "sh", "-c", script]);
        let mut child = command.stdin(Stdio::null()).spawn()?;
        let pid = child.id().to_string();
        child.wait()?;
        let record = sensor.wait_is("exit", &[("container.id", &container.id), ("process.pid", &pid)])?;
        ensure!(record.is("exit", &[(field, expected)]), "{field} is not {expected}: {record}");
    }
    Ok(Outcome::Seen)
}

/// A container from its cgroup's beginning to its end.
pub fn container(sensor: &Sensor) -> Result<Outcome> {
    let mut container = Container::create("d1")?;
    let id = container.id.clone();
    let step = |action: &'static str| {
        sensor.wait(&format!("container {action}"), |record| record.is_container(action, &id))
    };
    let path = container.path();
    let fields = [("container.runtime", "docker"), ("container.cgroup", &*path)];
    let created = step("created")?;
    ensure!(created.is("container", &fields), "not {fields:?}: {created}");

    // Sleeps until it is told to end: its standard input is a pipe.
    let first = Actor::start(&["within", &id, "/bin/busybox", "cat"])?;
    let started = step("started")?;
    let truth = Truth::of(first.id())?;
    ensure!(started.is("container", &fields), "not {fields:?}: {started}");
    truth.check(&started)?;
    first.finish()?;
    let stopped = step("stopped")?;
    ensure!(
        stopped.number("boot_ns") > started.number("boot_ns"),
        "it ended before it began:\n{started}\n{stopped}"
    );
    container.remove().context("the container's cgroups are empty")?;
    Ok(Outcome::Seen)
}
