//! A containerd of its own, used through `ctr`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::dockerd::IMAGE;
use crate::process::{Process, read_log, run, run_unchecked, wait_until};

/// The containerd namespace of most tests.
pub const NAMESPACE: &str = "quaywatch-test";
/// The namespace that the kubelet's containers are in.
pub const KUBERNETES: &str = "k8s.io";

/// A running containerd.
pub struct Containerd {
    process: Process,
    socket: PathBuf,
}

impl Containerd {
    /// Starts containerd with its state below `directory` and imports an image archive.
    ///
    /// # Errors
    /// When it does not answer in time; with its log.
    pub fn start(directory: &Path, image: &Path) -> Result<Self> {
        let directory = directory.join("containerd");
        std::fs::create_dir_all(&directory)?;
        let (log, socket) = (directory.join("log"), directory.join("containerd.sock"));
        let config = directory.join("config.toml");
        // The Kubernetes plug-in would look for a network configuration and a sandbox image.
        std::fs::write(&config, "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n")?;
        let mut command = Command::new("containerd");
        command.arg("--config").arg(&config).arg("--address").arg(&socket);
        command.arg("--root").arg(directory.join("root")).arg("--state").arg(directory.join("state"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let containerd = Self { process: Process::start(&mut command)?, socket };
        wait_until("containerd answers", Duration::from_secs(30), || containerd.ctr(&["version"]).ok())
            .with_context(|| format!("log of containerd:\n{}", read_log(&log)))?;
        for namespace in [NAMESPACE, KUBERNETES] {
            containerd
                .ctr_in(namespace, &["images", "import", image.to_str().context("path is not text")?])?;
        }
        Ok(containerd)
    }

    /// Name of the imported image, as containerd completes it.
    #[must_use]
    pub fn image(&self) -> &'static str {
        IMAGE
    }

    /// Runs `ctr` in the tests' own namespace.
    ///
    /// # Errors
    /// When it fails.
    pub fn ctr(&self, arguments: &[&str]) -> Result<String> {
        self.ctr_in(NAMESPACE, arguments)
    }

    /// Runs `ctr` in a namespace.
    ///
    /// # Errors
    /// When it fails.
    pub fn ctr_in(&self, namespace: &str, arguments: &[&str]) -> Result<String> {
        run(self.command(namespace).args(arguments))
    }

    fn command(&self, namespace: &str) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket).args(["--namespace", namespace]);
        command
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for namespace in [NAMESPACE, KUBERNETES] {
            let tasks = self.ctr_in(namespace, &["tasks", "list", "--quiet"]).unwrap_or_default();
            for id in tasks.split_whitespace() {
                let _ = run_unchecked(self.command(namespace).args(["tasks", "delete", "--force", id]));
            }
        }
        self.process.stop(Duration::from_secs(15));
    }
}
