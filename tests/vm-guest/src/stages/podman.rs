//! Podman with its state where it keeps it, of root and of another user.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Result, ensure};
use sensor_tests::dockerd::IMAGE;
use sensor_tests::process::run;
use sensor_tests::sensor::Sensor;

use super::engines::{Container, systemctl};
use super::kinds::Row;
use crate::report::Outcome;

pub const ROWS: &[Row] = &[
    ("podman-scope", |sensor| {
        let podman = Podman { of: Owner::Root, manager: "systemd", runtime: "crun" };
        podman.life_of_a_container(sensor, |id| format!("/machine.slice/libpod-{id}.scope"))
    }),
    ("podman-cgroupfs", |sensor| {
        let podman = Podman { of: Owner::Root, manager: "cgroupfs", runtime: "runc" };
        podman.life_of_a_container(sensor, |id| format!("/libpod_parent/libpod-{id}"))
    }),
];

/// Those of a user whose service manager runs without a login.
pub const ROOTLESS: &[Row] = &[
    ("rootless-scope", |sensor| {
        let podman = Podman { of: Owner::User, manager: "systemd", runtime: "crun" };
        podman.life_of_a_container(sensor, |id| format!("{USERS_CGROUP}/user.slice/libpod-{id}.scope"))
    }),
    ("rootless-cgroupfs", |sensor| {
        let podman = Podman { of: Owner::User, manager: "cgroupfs", runtime: "runc" };
        podman.life_of_a_container(sensor, |id| format!("{USERS_CGROUP}/user.slice/{id}"))
    }),
];

/// The user on the disk.
const USER: u32 = 1000;
const HOME: &str = "/home/guest";
const USERS_SERVICE_MANAGER: &str = "user@1000.service";
const USERS_CGROUP: &str = "/user.slice/user-1000.slice/user@1000.service";

/// Puts the image of an archive into the stores of both owners.
pub fn fill_stores(archive: &str) -> Result<()> {
    for of in [Owner::Root, Owner::User] {
        let podman = Podman { of, manager: "cgroupfs", runtime: "runc" };
        podman.prepare()?;
        podman.run(&["load", "--quiet", "--input", archive])?;
    }
    systemctl(&["stop", USERS_SERVICE_MANAGER])?;
    Ok(())
}

/// Whose containers they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Root,
    User,
}

/// Podman with a cgroup manager and a runtime.
struct Podman {
    of: Owner,
    manager: &'static str,
    runtime: &'static str,
}

impl Podman {
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("podman");
        if self.of == Owner::User {
            let runtime_directory = format!("/run/user/{USER}");
            command.uid(USER).gid(USER).current_dir(HOME).env("HOME", HOME);
            command.env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={runtime_directory}/bus"));
            command.env("XDG_RUNTIME_DIR", runtime_directory);
        }
        command.args(["--storage-driver=vfs", "--events-backend=file"]);
        command.args(["--cgroup-manager", self.manager, "--runtime", self.runtime]);
        run(command.args(arguments))
    }

    /// Starts the service manager of the containers' owner, if it is not the one of the system.
    fn prepare(&self) -> Result<()> {
        if self.of == Owner::User {
            systemctl(&["start", USERS_SERVICE_MANAGER])?;
        }
        Ok(())
    }

    fn life_of_a_container(&self, sensor: &Sensor, cgroup: impl Fn(&str) -> String) -> Result<Outcome> {
        self.prepare()?;
        let name = format!("by-{}-{}", self.manager, self.runtime);
        let mut arguments = vec!["run", "--detach", "--network=none", "--name", &name];
        arguments.extend([IMAGE, "/bin/sleep", "600"]);
        let id = self.run(&arguments)?;
        let cgroup = cgroup(&id);
        let container =
            Container { id: &id, runtime: "podman", name: Some(&name), image: None, cgroup: &cgroup };
        container.check(sensor, &["created", "started"])?;
        let call = sensor.wait("the exec of the runtime", |record| {
            record.is("exec", &[("exec.role", "runtime")])
                && record.args().contains(&"create")
                && record.args().contains(&id.as_str())
        })?;
        ensure!(call.program() == self.runtime, "not {}: {call}", self.runtime);
        ensure!(call.ancestors().contains(&"conmon"), "the runtime is not called by conmon: {call}");
        let first = sensor.wait_is("exec", &[("container.id", &id), ("exec.role", "workload")])?;
        ensure!(first.args() == ["/bin/sleep", "600"], "{first}");
        self.run(&["rm", "--force", "--time=0", &name])?;
        container.check(sensor, &["stopped", "removed"])?;
        Ok(Outcome::Seen)
    }
}
