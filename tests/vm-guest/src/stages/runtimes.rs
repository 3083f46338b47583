//! Real container runtimes, which pivot into a root file system of their own.

use std::path::Path;

use anyhow::{Result, ensure};
use sensor_tests::dockerd::IMAGE;
use sensor_tests::oci::{Runtime, make_rootfs};
use sensor_tests::sensor::Sensor;

use super::CONFIGURATION;
use crate::report::{Outcome, Report};

/// A container of runc.
pub fn runc(report: &mut Report) -> Result<()> {
    Ok(report.row("runc", || life_of_a_container("runc"))?)
}

/// A container of crun.
pub fn crun(report: &mut Report) -> Result<()> {
    Ok(report.row("crun", || life_of_a_container("crun"))?)
}

fn life_of_a_container(program: &str) -> Result<Outcome> {
    let directory = Path::new("/run/test");
    let rootfs = directory.join("rootfs");
    if !rootfs.exists() {
        make_rootfs(&rootfs)?;
    }
    let sensor = Sensor::start(CONFIGURATION)?;
    let id = format!("plain-{program}");
    let mut runtime = Runtime::new(program, directory, &rootfs)?;
    runtime.run(&id, &["/bin/echo", "one", "two"])?;
    for action in ["created", "started", "stopped"] {
        let step =
            sensor.wait(&format!("container {id} {action}"), |record| record.is_container(action, &id))?;
        ensure!(step.is_about(&id, None, IMAGE), "not of {IMAGE}: {step}");
    }
    let exec = sensor.wait_is("exec", &[("container.id", &id), ("exec.role", "workload")])?;
    ensure!(exec.args() == ["/bin/echo", "one", "two"], "{exec}");
    let call = sensor.wait("the call of the runtime", |record| {
        record.is("exec", &[("exec.role", "runtime")])
            && record.program() == program
            && record.args().contains(&"run")
            && record.args().contains(&id.as_str())
    })?;
    ensure!(call.number("seq") < exec.number("seq"), "the container ran before it was made:\n{call}\n{exec}");
    sensor.stop()?;
    Ok(Outcome::Seen)
}
