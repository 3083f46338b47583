//! Podman with storage of its own.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process::{Process, run, run_unchecked, wait_until};

/// How long its daemon may take to start.
const LISTENS_WITHIN: Duration = Duration::from_secs(20);

/// Limits within the present ones: raising them takes a capability that a test machine may lack.
pub const LIMITS: [&str; 2] = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];

/// Podman, rootful, with the cgroupfs manager.
pub struct Podman {
    directory: PathBuf,
}

impl Podman {
    /// Uses storage below `directory` and loads an image archive.
    ///
    /// # Errors
    /// When podman fails.
    pub fn new(directory: &Path, image: &Path) -> Result<Self> {
        let podman = Self { directory: directory.join("podman") };
        fs::create_dir_all(&podman.directory)?;
        podman.run(&["load", "--input", image.to_str().context("path is not text")?])?;
        Ok(podman)
    }

    /// Runs `podman`.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        run(self.command().args(arguments))
    }

    /// Creates and starts a container with a runtime, detached, and returns its id.
    ///
    /// # Errors
    /// When podman fails.
    pub fn run_detached(&self, runtime: &str, name: &str, image: &str, arguments: &[&str]) -> Result<String> {
        self.run_detached_with(runtime, name, &[], image, arguments)
    }

    /// As [`Podman::run_detached`], with further options.
    ///
    /// # Errors
    /// When podman fails.
    pub fn run_detached_with(
        &self,
        runtime: &str,
        name: &str,
        options: &[&str],
        image: &str,
        arguments: &[&str],
    ) -> Result<String> {
        run(self
            .command()
            .args(["--runtime", runtime, "run", "--detach", "--network=none", "--name", name])
            .args(LIMITS)
            .args(options)
            .arg(image)
            .args(arguments))
    }

    /// Serves the API on a unix socket, with a runtime for the containers that are asked for. Ends with the value.
    ///
    /// # Errors
    /// When podman cannot be started, or does not listen.
    pub fn serve(&self, runtime: &str) -> Result<Service> {
        let socket = self.directory.join("podman.sock");
        let url = format!("unix://{}", socket.display());
        let log = fs::File::create(self.directory.join("service.log"))?;
        let mut command = self.command();
        command.args(["--runtime", runtime, "system", "service", "--time=0", &url]).stderr(log);
        let service = Service { _process: Process::start(&mut command)?, socket };
        wait_until("podman to listen", LISTENS_WITHIN, || UnixStream::connect(&service.socket).ok())?;
        Ok(service)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command.arg("--root").arg(self.directory.join("root"));
        command.arg("--runroot").arg(self.directory.join("run"));
        command.arg("--tmpdir").arg(self.directory.join("tmp"));
        command.args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=file"]);
        command
    }
}

/// Podman's daemon.
pub struct Service {
    _process: Process,
    socket: PathBuf,
}

impl Service {
    /// The socket that it listens on.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks it as podman's client does.
    ///
    /// # Errors
    /// When podman fails.
    pub fn podman(&self, arguments: &[&str]) -> Result<String> {
        run(self.client().args(arguments))
    }

    /// Podman's client, without arguments of its own yet.
    #[must_use]
    pub fn client(&self) -> Command {
        let mut command = Command::new("podman");
        command.args(["--remote", "--url", &format!("unix://{}", self.socket.display())]);
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = run_unchecked(self.command().args(["rm", "--all", "--force", "--time=0"]));
    }
}
