//! Coverage that proves itself, and what `doctor` says of the same machine.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use sensor_tests::bpf::{self, SharedArray};
use sensor_tests::process::run_unchecked;
use sensor_tests::record::Record;
use sensor_tests::sensor::{Recording, Sensor, command};

use super::degrade::as_nobody;
use super::kinds::Row;
use crate::report::{Outcome, Report};

pub const ROWS: &[Row] = &[("coverage", coverage), ("silenced-functions", silence_trampolines)];

/// What every kernel owes.
const CORE: &[&str] = &["listeners", "accepts", "connects", "execs", "containers"];
/// What depends on the kernel.
const OPTIONAL: &[&str] =
    &["scans", "requests", "runtime-sockets", "credential-files", "accept-tasks", "socket-requests"];
/// What depends on the kernel and is proved by canaries wherever it is there, with the records they make.
const PROVED: &[(&str, &str)] = &[
    // What tells of half-open attempts is a count.
    ("scans", "accept"),
    ("runtime-sockets", "socket-connect"),
    ("credential-files", "file-open"),
    ("accept-tasks", "accept-task"),
    ("socket-requests", "socket-payload"),
];
/// Whether the kernel calls the functions that are put before its own: hooks of security modules, and of functions.
const TRAMPOLINES: &str = "/proc/sys/kernel/ftrace_enabled";
/// What the canaries make.
const KINDS: &[&str] = &[
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
];

/// What is told before anything is installed.
pub fn run_doctor(report: &mut Report) -> Result<()> {
    report.row("doctor", doctor)?;
    Ok(())
}

/// Every core capability is proved by canaries; a hook that is silenced is found out by them, and so is its
/// return; a table that is changed is found out and written again.
fn coverage(sensor: &Sensor) -> Result<Outcome> {
    // At the start, unless the machine is too slow for that: then it is said to be in doubt, and proved by a later round.
    let proved = sensor.wait("a proof of every core capability", |record| {
        let is_proved = |name: &&str| {
            let entry = record.at(&format!("health.coverage.{name}"));
            entry["state"] == "live" && entry["reason"].is_null()
        };
        let is_judged = |name: &&(&str, &str)| {
            let entry = record.at(&format!("health.coverage.{}", name.0));
            match entry["state"].as_str() {
                Some("live") => entry["reason"].is_null(),
                _ => entry["reason"].as_str().is_some_and(|reason| !reason.contains("not proved yet")),
            }
        };
        record.is("health", &[]) && CORE.iter().all(is_proved) && PROVED.iter().all(|name| is_judged(&name))
    })?;
    let entry = |name: &str| proved.at(&format!("health.coverage.{name}")).clone();
    let lacks: Vec<&str> = OPTIONAL.iter().copied().filter(|name| entry(name)["state"] != "live").collect();

    change_ports(sensor)?;
    if entry("requests")["state"] == "live" {
        silence_packets(sensor)?;
    }
    Ok(lacking(&lacks))
}

/// The kernel is told to call none of the functions that are put before its own: every link stays in its place, and nothing is
/// reported any more, until it is told otherwise.
fn silence_trampolines(sensor: &Sensor) -> Result<Outcome> {
    let ready = sensor.records()[0].clone();
    let attached = |program: &&str| {
        let mut hooks = ready.list("health.hooks").iter();
        hooks.any(|hook| hook["program"] == **program && hook["state"] == "attached")
    };
    let of = |names: &[&str]| names.iter().any(attached);
    let silenced: Vec<&str> = [
        ("runtime-sockets", of(&["lsm_unix_connect", "fentry_unix_connect"])),
        ("credential-files", of(&["lsm_file_open", "fentry_file_open"])),
        ("accept-tasks", of(&["accept_task", "accept_task_of_four"])),
    ]
    .into_iter()
    .filter_map(|(name, is_behind)| is_behind.then_some(name))
    .collect();
    ensure!(silenced.len() == 3, "hooks of functions are behind {silenced:?} only: {ready}");
    let before = sensor.mark();
    match fs::write(TRAMPOLINES, "0") {
        // Some kernels before 6.1 do not while such programs are in place, and some after 6.18 never.
        Err(error) if error.kind() == ErrorKind::ResourceBusy => return refused("busy"),
        Err(error) if error.kind() == ErrorKind::Unsupported => return refused("unsupported"),
        result => result.context("telling the kernel to call no function before its own")?,
    }
    let blind = silenced
        .iter()
        .map(|name| {
            sensor.wait_after(before, &format!("blind {name}"), |record| {
                record.text(&format!("health.coverage.{name}.state")) == "blind"
            })
        })
        .collect::<Result<Vec<_>>>();
    // Whatever came of it.
    fs::write(TRAMPOLINES, "1").context("telling the kernel to call them again")?;
    for (name, blind) in silenced.iter().zip(blind?) {
        let reason = blind.text(&format!("health.coverage.{name}.reason"));
        ensure!(reason.contains("does not report the sensor's own canary"), "{name}: {blind}");
        ensure!(blind.text("health.state") == "degraded", "{name}: {blind}");
        see_the_end(sensor, before, name, &blind)?;
    }
    Ok(Outcome::SeenBy("silenced".to_owned()))
}

/// The way of a row that the kernel does not let happen, which the matrix has to allow by that name.
fn refused(reason: &str) -> Result<Outcome> {
    Ok(Outcome::SeenBy(format!("refused: {reason}")))
}

/// The table of watched ports is changed: that is found out, and it is written again.
fn change_ports(sensor: &Sensor) -> Result<()> {
    let before = sensor.mark();
    let ports = SharedArray::find("PORTS")?;
    let watched = ports.read()?;
    ports.write(&vec![0; watched.len()])?;
    let blind = sensor.wait_after(before, "blind accepts", |record| {
        record.is("health", &[("health.state", "degraded"), ("health.coverage.accepts.state", "blind")])
    })?;
    let reason = blind.text("health.coverage.accepts.reason");
    ensure!(reason.contains("the table of watched ports was changed by another program"), "{blind}");
    see_the_end(sensor, before, "accepts", &blind)?;
    ensure!(ports.read()? == watched, "the table is not as it was");
    Ok(())
}

/// A hook stays in its place and reports nothing: its canaries find that out, and it is attached again.
fn silence_packets(sensor: &Sensor) -> Result<()> {
    // While this is open the hooks on packets do not rest.
    let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 2375))?;
    sensor.wait_for_packets(false)?;
    let before = sensor.mark();
    bpf::silence("packets_in")?;
    let blind = sensor.wait_after(before, "blind requests", |record| {
        record.is("health", &[("health.state", "degraded"), ("health.coverage.requests.state", "blind")])
    })?;
    let reason = blind.text("health.coverage.requests.reason");
    ensure!(reason.contains("does not report the sensor's own canary"), "{blind}");
    see_the_end(sensor, before, "requests", &blind)
}

/// Waits until a capability is no longer blind as that record says.
fn see_the_end(sensor: &Sensor, before: usize, capability: &str, blind: &Record) -> Result<()> {
    let over = sensor.wait_after(before, "the end of the blindness", |record| {
        record.is("health", &[("health.blind.capability", capability)])
    })?;
    let since = blind.text(&format!("health.coverage.{capability}.since"));
    ensure!(over.text("health.blind.from") == since && since < blind.text("ts"), "{blind}\n{over}");
    let state = format!("health.coverage.{capability}.state");
    let fields = [("health.state", "running"), (&*state, "live")];
    sensor.wait_after(before, "everything as it was", |record| record.is("health", &fields)).map(drop)
}

/// Demands of a run that more than one round of canaries came back whole.
pub fn check_canaries(recording: &Recording) -> Result<()> {
    let [ready, last] = [&recording.records[0], recording.last()];
    let has = |name: &str| ready.text(&format!("health.coverage.{name}.state")) != "blind";
    let of_proved = PROVED.iter().filter(|(name, _)| has(name)).map(|(_, kind)| kind);
    for kind in KINDS.iter().chain(has("requests").then_some(&"payload")).chain(of_proved) {
        ensure!(canaries(last, kind) > 1, "no second canary came back as {kind}: {last}");
    }
    Ok(())
}

/// Canaries of a kind of record that came back in a run, from its last record.
fn canaries(last: &Record, kind: &str) -> u64 {
    let of_kind = last.list("health.balance").iter().filter(|entry| entry["kind"] == kind);
    of_kind.filter_map(|entry| entry["canaries"].as_u64()).sum()
}

/// The way of a row that says what is seen of all capabilities.
fn lacking(lacks: &[&str]) -> Outcome {
    Outcome::SeenBy(if lacks.is_empty() { "all".to_owned() } else { format!("all but {}", lacks.join(", ")) })
}

/// The same machine before anything is installed, as root and as nobody.
fn doctor() -> Result<Outcome> {
    let report = diagnose(command()?, 0)?;
    ensure!(report.text("verdict") == "ready", "{report}");
    let state = |name: &str| report.text(&format!("coverage.{name}.state")).to_owned();
    for name in CORE {
        ensure!(state(name) == "live", "{name}: {report}");
    }
    let lacks: Vec<&str> = OPTIONAL.iter().copied().filter(|name| state(name) != "live").collect();
    for name in &lacks {
        let remedy = report.text(&format!("coverage.{name}.remedy"));
        ensure!(!remedy.is_empty(), "nothing to do about {name}: {report}");
    }

    let refused = diagnose(as_nobody("")?, 3)?;
    ensure!(refused.text("verdict") == "cannot-run", "{refused}");
    ensure!(refused.text("problem").contains("no permission"), "{refused}");
    Ok(lacking(&lacks))
}

/// What `doctor --json` says, given its exit code.
fn diagnose(mut command: Command, code: i32) -> Result<Record> {
    let output = run_unchecked(command.args(["doctor", "--json"]))?;
    ensure!(output.status.code() == Some(code), "{}, not {code}: {}", output.status, output.stdout);
    Record::parse(output.stdout.trim_end())
        .map_err(anyhow::Error::msg)
        .context("reading the report of doctor")
}
