//! The sensor's own start and end.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::process::run_unchecked;
use sensor_tests::sensor::{self, Sensor};

use crate::Test;

pub const TESTS: &[Test] = &[
    ("ready_names_hooks_coverage_and_addresses", ready),
    ("sigterm_and_sigint_end_it_with_totals", signals),
    ("without_rights_it_says_so_and_ends_with_3", without_rights),
];

fn ready(_: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let ready = sensor.wait("ready", |_| true)?;
    let hooks = ready.list("health.hooks");
    ensure!(!hooks.is_empty(), "no hooks: {ready}");
    for hook in [
        "inet_sock_set_state",
        "sched_process_exec",
        "sched_process_fork",
        "sched_process_exit",
        "cgroup_mkdir",
        "cgroup_rmdir",
    ] {
        let attached = hooks.iter().any(|entry| {
            entry["state"] == "attached" && entry["name"].as_str().is_some_and(|name| name.ends_with(hook))
        });
        ensure!(attached, "{hook} is not attached: {ready}");
    }
    for capability in ["listeners", "accepts", "connects", "execs", "containers"] {
        let state = ready.text(&format!("health.coverage.{capability}.state"));
        ensure!(state == "live", "{capability} is {state:?}: {ready}");
        // Proved, not taken at its word.
        ensure!(ready.at(&format!("health.coverage.{capability}.reason")).is_null(), "{capability}: {ready}");
    }
    ensure!(ready.list("health.addresses").iter().any(|address| address == "127.0.0.1"), "{ready}");
    ensure!(ready.text("node.boot_id").len() == 36, "{ready}");
    // The proof: what the first round was for came back, every sign of it.
    let recording = sensor.stop()?;
    let last = recording.last();
    for kind in [
        "listener-opened",
        "listener-closed",
        "accept",
        "close",
        "connect",
        "fork",
        "exec",
        "exit",
        "cgroup-mkdir",
        "cgroup-rmdir",
    ] {
        let of_kind = last.list("health.balance").iter().filter(|entry| entry["kind"] == kind);
        let canaries: u64 = of_kind.filter_map(|entry| entry["canaries"].as_u64()).sum();
        ensure!(canaries > 0, "no canary came back as {kind}: {last}");
    }
    Ok(())
}

fn signals(_: &Lab) -> Result<()> {
    for signal in [Signal::TERM, Signal::INT] {
        let sensor = Sensor::start(CONFIGURATION)?;
        let asked = Instant::now();
        // What a clean end is, the harness checks.
        let recording = sensor.stop_with(signal)?;
        ensure!(asked.elapsed() < Duration::from_secs(5), "the end took {:?}", asked.elapsed());
        ensure!(recording.records.len() >= 2, "{:?}", recording.records);
    }
    Ok(())
}

fn without_rights(_: &Lab) -> Result<()> {
    // A copy that the other user can execute, wherever the build directory is.
    let directory = tempfile::Builder::new().prefix("quaywatch-user-").tempdir()?;
    let binary = directory.path().join("quaywatch");
    std::fs::copy(sensor::binary()?, &binary)?;
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&binary).arg("run");
    let output = run_unchecked(&mut command)?;
    ensure!(output.status.code() == Some(3), "{}: {}", output.status, output.stderr);
    ensure!(output.stdout.is_empty(), "records without a sensor: {}", output.stdout);
    let lines: Vec<&str> = output.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    ensure!(lines.len() == 1, "not one sentence: {lines:#?}");
    Ok(())
}
