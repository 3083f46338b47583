//! Real container runtimes, which pivot into a root file system of their own.

use std::path::Path;

use anyhow::{Result, ensure};
use sensor_tests::dockerd::IMAGE;
use sensor_tests::oci::Runtime;
use sensor_tests::sensor::Sensor;

use super::engines::{DIRECTORY, rootfs};
use super::kinds::Row;
use crate::report::Outcome;

pub const RUNC: &[Row] = &[("runc", |sensor| life_of_a_container(sensor, "runc", false))];
pub const CRUN: &[Row] = &[("crun", |sensor| life_of_a_container(sensor, "crun", false))];
pub const SCOPES: &[Row] = &[
    ("runc-scope", |sensor| life_of_a_container(sensor, "runc", true)),
    ("crun-scope", |sensor| life_of_a_container(sensor, "crun", true)),
];

/// A container in a cgroup that the runtime makes, or in a scope that it asks systemd for.
fn life_of_a_container(sensor: &Sensor, program: &str, in_scope: bool) -> Result<Outcome> {
    let directory = Path::new(DIRECTORY);
    let rootfs = rootfs()?;
    let id = format!("{}-{program}", if in_scope { "scoped" } else { "plain" });
    let mut runtime = Runtime::new(program, directory, &rootfs)?;
    if in_scope {
        runtime = runtime.with_scopes();
    }
    runtime.run(&id, &["/bin/echo", "one", "two"])?;
    for action in ["created", "started", "stopped"] {
        let step =
            sensor.wait(&format!("container {id} {action}"), |record| record.is_container(action, &id))?;
        ensure!(step.is_about(&id, None, IMAGE), "not of {IMAGE}: {step}");
        // Without systemd each runtime has a place of its own choice for it.
        let expected = if in_scope { Runtime::scope(&id) } else { format!("/{id}") };
        ensure!(step.text("container.cgroup").ends_with(&expected), "not in {expected}: {step}");
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
    Ok(Outcome::Seen)
}
