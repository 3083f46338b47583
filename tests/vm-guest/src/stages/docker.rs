//! Docker as Debian installs it: units of systemd, with a containerd that is not Docker's own.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use sensor_tests::dockerd::{IMAGE, PORT};
use sensor_tests::process::run;
use sensor_tests::sensor::Sensor;

use super::engines::{Container, systemctl};
use super::kinds::Row;
use super::sockets::{LISTED, UNLISTED};
use crate::report::Outcome;

pub const SCOPE: &[Row] = &[("docker-scope", scope)];
pub const CGROUPFS: &[Row] = &[("docker-cgroupfs", cgroupfs)];

/// What the unit adds to the arguments of dockerd.
const OPTIONS: &str = "/etc/default/docker";
const UNIT: &str = "docker.service";

/// Puts the image of an archive into Docker's store.
pub fn fill_store(archive: &str) -> Result<()> {
    Docker::start("systemd", UNLISTED[0])?.run(&["load", "--quiet", "--input", archive])?;
    systemctl(&["stop", UNIT, "docker.socket"])?;
    Ok(())
}

/// From a peer in no list, with the cgroups that systemd makes.
fn scope(sensor: &Sensor) -> Result<Outcome> {
    let docker = Docker::start("systemd", UNLISTED[0])?;
    let verdict = [("verdict.listed", "false")];
    docker.life_of_a_container(sensor, &verdict, |id| format!("/system.slice/docker-{id}.scope"))
}

/// From a peer in the list, with cgroups that the runtime makes.
fn cgroupfs(sensor: &Sensor) -> Result<Outcome> {
    let docker = Docker::start("cgroupfs", LISTED[0])?;
    let verdict = [("verdict.listed", "true"), ("verdict.entry", "lab")];
    docker.life_of_a_container(sensor, &verdict, |id| format!("/docker/{id}"))
}

/// A running dockerd.
struct Docker {
    /// Name of its cgroup driver.
    driver: &'static str,
    /// Its address; the client has the same one.
    address: &'static str,
}

impl Docker {
    fn start(driver: &'static str, address: &'static str) -> Result<Self> {
        // No packet filters and no bridge: the kernel's modules for them are not on the disk.
        let options = [
            &format!("--host=tcp://{address}:{PORT}"),
            &format!("--exec-opt=native.cgroupdriver={driver}"),
            "--tls=false --bridge=none --iptables=false --ip6tables=false --storage-driver=vfs",
        ];
        fs::write(OPTIONS, format!("DOCKER_OPTS=\"{}\"\n", options.join(" ")))?;
        systemctl(&["restart", UNIT])?;
        Ok(Self { driver, address })
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let host = format!("tcp://{}:{PORT}", self.address);
        run(Command::new("docker").args(["--host", &host]).args(arguments))
    }

    fn life_of_a_container(
        &self,
        sensor: &Sensor,
        verdict: &[(&str, &str)],
        cgroup: impl Fn(&str) -> String,
    ) -> Result<Outcome> {
        let mark = sensor.mark();
        let name = format!("by-{}", self.driver);
        let mut arguments = vec!["run", "--detach", "--network", "none", "--name", &name];
        arguments.extend([IMAGE, "/bin/sleep", "600"]);
        let id = self.run(&arguments)?;
        let cgroup = cgroup(&id);
        let container =
            Container { id: &id, runtime: "docker", name: Some(&name), image: None, cgroup: &cgroup };

        let dockerd = systemctl(&["show", "--property=MainPID", "--value", UNIT])?;
        let port = PORT.to_string();
        let accept = sensor.wait_after(mark, "the accept of dockerd", |record| {
            record.is("accept", &[("net.peer.ip", self.address), ("net.local.port", &port)])
        })?;
        let fields = [
            ("net.local.ip", self.address),
            ("net.service", "docker"),
            ("process.pid", &*dockerd),
            ("process.comm", "dockerd"),
            ("process.exe", "/usr/sbin/dockerd"),
        ];
        ensure!(accept.is("accept", &fields), "not {fields:?}: {accept}");
        ensure!(accept.is("accept", verdict), "not {verdict:?}: {accept}");

        let called = |role: &str, with: &[&str]| {
            sensor.wait(&format!("the exec of the {role} with {with:?}"), |record| {
                record.is("exec", &[("exec.role", role)])
                    && with.iter().all(|argument| record.args().contains(argument))
            })
        };
        let shim = called("shim", &[&id, "start"])?;
        ensure!(shim.ancestors().contains(&"containerd"), "no containerd above it: {shim}");
        let runtime = called("runtime", &[&id, "create"])?;
        ensure!(runtime.program() == "runc", "not runc: {runtime}");
        ensure!(
            runtime.ancestors().first().is_some_and(|parent| parent.starts_with("containerd-shim")),
            "runc is not a child of the shim: {runtime}"
        );
        container.check(sensor, &["created", "started"])?;
        let first = sensor.wait_is("exec", &[("container.id", &id), ("exec.role", "workload")])?;
        ensure!(first.args() == ["/bin/sleep", "600"], "{first}");
        self.run(&["rm", "--force", &name])?;
        container.check(sensor, &["stopped", "removed"])?;
        Ok(Outcome::Seen)
    }
}
