//! Podman with storage of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{run, run_unchecked};

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
        std::fs::create_dir_all(&podman.directory)?;
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
        // Limits within the present ones: raising them takes a capability that a test machine may lack.
        let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];
        run(self
            .command()
            .args(["--runtime", runtime, "run", "--detach", "--network=none", "--name", name])
            .args(limits)
            .args(options)
            .arg(image)
            .args(arguments))
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

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = run_unchecked(self.command().args(["rm", "--all", "--force", "--time=0"]));
    }
}
