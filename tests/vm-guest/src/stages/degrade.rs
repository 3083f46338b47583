//! A sensor that lacks something: it says precisely what, and runs with what is left.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Resource, Rlimit, setrlimit};
use sensor_tests::process::{Output, run_unchecked};
use sensor_tests::record::Record;
use sensor_tests::sensor::{Sensor, binary, command};

use super::CONFIGURATION;
use super::kinds::ESSENTIAL;
use crate::PROGRAM;
use crate::report::{Outcome, Report};

/// Exit code of a sensor that this system cannot run.
const UNSUPPORTED: i32 = 3;
/// All that the sensor's hooks need.
const RIGHTS: &str = "BPF,PERFMON,NET_ADMIN";

/// Demands that the sensor of a command refuses to start, with exit code 3 and one line that has these words.
fn check_refusal(mut command: Command, words: &[&str]) -> Result<Outcome> {
    let Output { status, stdout, stderr } = run_unchecked(command.arg("run"))?;
    ensure!(status.code() == Some(UNSUPPORTED), "{status}, not exit code {UNSUPPORTED}: {stderr}");
    ensure!(stdout.is_empty(), "records of a sensor that did not start: {stdout}");
    let lines: Vec<&str> = stderr.lines().collect();
    let [line] = lines[..] else { anyhow::bail!("not one line: {stderr}") };
    for word in words {
        ensure!(line.contains(word), "nothing of `{word}`: {line}");
    }
    Ok(Outcome::Seen)
}

/// Demands that a sensor does the essentials.
fn check_work(sensor: Sensor) -> Result<Outcome> {
    for (name, row) in ESSENTIAL {
        row(&sensor).with_context(|| format!("{name} failed"))?;
    }
    sensor.stop()?;
    Ok(Outcome::Seen)
}

/// A command of the sensor as a user other than root, with these capabilities only.
pub fn as_nobody(capabilities: &str) -> Result<Command> {
    let mut command = Command::new(PROGRAM);
    command.args(["as-nobody", capabilities]).arg(binary()?);
    Ok(command)
}

/// Users other than root, with and without the capabilities that the sensor asks for.
pub fn rights(report: &mut Report) -> Result<()> {
    // What `LimitMEMLOCK=infinity` does in a unit: kernels before 5.11 count maps as locked memory.
    let unlimited = Rlimit { current: None, maximum: None };
    setrlimit(Resource::Memlock, unlimited)?;
    report.row("capabilities", || check_work(Sensor::start_by(as_nobody(RIGHTS)?, CONFIGURATION)?))?;
    for (row, capabilities) in
        [("no-capabilities", ""), ("no-perfmon", "BPF,NET_ADMIN"), ("no-bpf", "PERFMON")]
    {
        report.row(row, || check_refusal(as_nobody(capabilities)?, &["no permission", "BPF, PERFMON"]))?;
    }
    Ok(())
}

/// A kernel without a description of its types.
pub fn no_type_information(report: &mut Report) -> Result<()> {
    const PLACE: &str = "/sys/kernel/btf";
    mount("tmpfs", PLACE, "tmpfs", MountFlags::empty(), None).context("hiding the type information")?;
    report.row("no-btf", || check_refusal(command()?, &["CONFIG_DEBUG_INFO_BTF"]))?;
    unmount(PLACE, UnmountFlags::empty())?;
    Ok(())
}

/// Kernel lockdown. It cannot be lifted again: this is the last stage.
pub fn lockdown(report: &mut Report) -> Result<()> {
    const PLACE: &str = "/sys/kernel/security/lockdown";
    fs::write(PLACE, "integrity").context("locking the kernel down")?;
    report.row("lockdown-integrity", || check_work(Sensor::start(CONFIGURATION)?))?;
    fs::write(PLACE, "confidentiality").context("locking the kernel down further")?;
    report.row("lockdown-confidentiality", locked_down)?;
    unmount("/sys/kernel/security", UnmountFlags::empty()).context("hiding the level of lockdown")?;
    report.row("lockdown-unknown", locked_down_unknown)?;
    Ok(())
}

/// At the highest level no string of the kernel can be read. Where the program for sockets needs none, that is left.
fn locked_down() -> Result<Outcome> {
    const SAID: &str = "locked down (confidentiality)";
    match Sensor::start(CONFIGURATION) {
        Ok(sensor) => check_sockets_only(sensor, &[SAID]),
        Err(_) => {
            // The kernel's own words are the reason, not the figures behind them.
            check_refusal(command()?, &[SAID, "lockdown=integrity", "unknown func bpf_probe_read"])?;
            Ok(Outcome::SeenBy("refusal".to_owned()))
        }
    }
}

/// The same where nobody can read the level: what is left works, and both causes are named.
fn locked_down_unknown() -> Result<Outcome> {
    const SAID: &[&str] =
        &["refused the program", "perhaps it is locked down (confidentiality)", "securityfs"];
    match Sensor::start(CONFIGURATION) {
        Ok(sensor) => check_sockets_only(sensor, SAID),
        Err(_) => {
            check_refusal(command()?, SAID)?;
            Ok(Outcome::SeenBy("refusal".to_owned()))
        }
    }
}

/// Demands that a sensor sees connections, and says in these words why it is blind for execs.
fn check_sockets_only(sensor: Sensor, words: &[&str]) -> Result<Outcome> {
    let ready = sensor.wait_is("health", &[("health.state", "ready")])?;
    ensure!(ready.is("health", &[("health.coverage.execs.state", "blind")]), "execs cannot be seen: {ready}");
    let exec = ready.list("health.hooks").iter().find(|hook| hook["program"] == "sched_process_exec");
    let reason = exec.and_then(|hook| hook["reason"].as_str()).unwrap_or_default();
    for word in words {
        ensure!(reason.contains(word), "nothing of `{word}`: {ready}");
    }
    // Who holds a socket now is told by an iterator that has to read such memory; who opened it is known all the same.
    ensure!(ready.is("health", &[("health.coverage.accepts.state", "degraded")]), "{ready}");
    super::sockets::accept(&sensor)?;
    let recording = sensor.stop()?;
    // Owed by every host, so that blindness is told even where it lasts from beginning to end.
    let is_end = |record: &&Record| record.is("health", &[("health.blind.capability", "execs")]);
    ensure!(recording.of_kind("health").any(|record| is_end(&record)), "no end of the blindness for execs");
    Ok(Outcome::SeenBy("sockets".to_owned()))
}
