//! What is tried in a machine. One sensor watches most stages, the others run sensors of their own. They give verdicts on
//! rows of the matrix, whose names `xtask/src/vm_test/matrix.rs` knows.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use sensor_tests::sensor::Sensor;

use crate::report::{Outcome, Report};
use kinds::Row;

mod actor;
mod containerd;
mod coverage;
mod degrade;
mod docker;
mod engines;
mod flood;
mod hooks;
mod kinds;
mod loss;
mod podman;
mod processes;
mod requests;
mod runtimes;
mod sockets;
mod time;
mod truth;
mod verifier;

/// Addresses of the loopback interface, both ends of every connection. 198.18.0.0/15 is set aside for tests.
pub const ADDRESSES: &[&str] = &[
    "10.77.0.1/24",
    "10.77.0.2/24",
    "198.18.0.1/24",
    "198.18.0.2/24",
    "fd00:77::1/64",
    "fd00:77::2/64",
    "fd00:99::1/64",
    "fd00:99::2/64",
];

/// Configuration of the sensors: one expected network of each family, and the machine's own addresses are no exception.
pub const CONFIGURATION: &str = "\
implied_local: false
allow:
  - name: lab
    from: {cidr: [10.77.0.0/24, \"fd00:77::/64\"]}
    to: {services: [any]}
";
/// What the sensor has besides that watches most stages, because to start one takes longer than most of them: canaries
/// more often than usual, and a budget of accepts that one stage exhausts and no other.
const OF_THE_WATCHER: &str = "\
coverage: {interval: 2s}
flood: {burst: 32, per_second: 1}
";

type Stage = fn(&mut Report) -> Result<()>;

/// Stages that one sensor watches, with their rows.
const WATCHED: &[(&str, &[&[Row]])] = &[
    ("kinds", kinds::ROWS),
    ("runc", &[runtimes::RUNC]),
    ("crun", &[runtimes::CRUN]),
    ("scopes", &[runtimes::SCOPES]),
    ("docker", &[docker::SCOPE]),
    ("docker-cgroupfs", &[docker::CGROUPFS]),
    ("containerd", &[containerd::ROWS]),
    ("podman", &[podman::ROWS]),
    ("rootless", &[podman::ROOTLESS]),
    ("requests", &[requests::ROWS]),
    ("flood", &[flood::ROWS]),
    ("half-open", &[flood::HALF_OPEN]),
    ("coverage", &[coverage::ROWS]),
    ("time", &[time::ROWS]),
];
/// The start and the end of that sensor.
const SENSOR: &str = "sensor";
/// Stages with sensors of their own.
const STAGES: &[(&str, Stage)] = &[
    ("loss", loss::run),
    ("idle", requests::run_idle),
    ("doctor", coverage::run_doctor),
    ("rights", degrade::rights),
    ("no-btf", degrade::no_type_information),
    ("lockdown", degrade::lockdown),
    // Of the machine that prepares the disk.
    ("stores", engines::fill_stores),
];

/// Runs stages, in the order of the tables.
pub fn run(names: &[String], report: &mut Report) -> Result<()> {
    let known =
        || WATCHED.iter().map(|(name, _)| name).chain(STAGES.iter().map(|(name, _)| name)).chain([&SENSOR]);
    if let Some(unknown) = names.iter().find(|name| known().all(|known| known != name)) {
        bail!("unknown stage {unknown}");
    }
    let is_wanted = |stage: &str| names.iter().any(|name| name == stage);
    if is_wanted(SENSOR) {
        let _fixtures = is_wanted("kinds").then(kinds::Fixtures::create).transpose()?;
        watched(report, is_wanted)?;
    }
    for (name, stage) in STAGES.iter().filter(|(name, _)| is_wanted(name)) {
        timed(name, report, stage)?;
    }
    Ok(())
}

/// Runs the stages that one sensor watches.
fn watched(report: &mut Report, is_wanted: impl Fn(&str) -> bool) -> Result<()> {
    let mut started = None;
    report.row("start", || {
        let more = if is_wanted("coverage") { OF_THE_WATCHER } else { "" };
        started = Some(Sensor::start(&format!("{CONFIGURATION}{more}"))?);
        Ok(Outcome::Seen)
    })?;
    let sensor = started.context("the sensor did not start")?;
    verifier::report(&sensor, report)?;
    for (name, rows) in WATCHED.iter().filter(|(name, _)| is_wanted(name)) {
        timed(name, report, |report| {
            for (row, action) in rows.iter().copied().flatten() {
                report.row(row, || action(&sensor))?;
            }
            Ok(())
        })?;
    }
    report.row("stop", || {
        // The harness checks the exit code, the sequence of the records and the balance of every ring and kind.
        let recording = sensor.stop()?;
        coverage::check_canaries(&recording)?;
        Ok(Outcome::Seen)
    })?;
    Ok(())
}

/// Runs a stage and reports how long it took.
fn timed(name: &str, report: &mut Report, stage: impl FnOnce(&mut Report) -> Result<()>) -> Result<()> {
    let started = Instant::now();
    stage(report)?;
    report.line(&["stage", name, &started.elapsed().as_millis().to_string()])?;
    Ok(())
}
