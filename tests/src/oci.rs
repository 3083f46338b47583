//! Root file systems and bundles, and OCI runtimes called directly.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::process::{Process, run, run_unchecked};
use crate::require;

/// Programs of the root file system, all of them the one busybox.
const APPLETS: &[&str] = &["sh", "sleep", "true", "echo", "cat", "nc", "wget", "httpd", "touch"];

/// How the names of scopes begin.
const SCOPE_PREFIX: &str = "quay";
/// What the version 2 hierarchy of a hybrid host has.
const HYBRID_CONTROLLERS: &str = "/sys/fs/cgroup/unified/cgroup.controllers";
/// How long the kernel may take to give controllers back.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// Makes a root file system of a static busybox.
///
/// # Errors
/// When there is no busybox or the files cannot be made.
pub fn make_rootfs(directory: &Path) -> Result<()> {
    for name in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
        fs::create_dir_all(directory.join(name))?;
    }
    let busybox = require::find("busybox").context("busybox is missing")?;
    fs::copy(busybox, directory.join("bin/busybox"))?;
    for applet in APPLETS {
        symlink("busybox", directory.join("bin").join(applet))?;
    }
    Ok(())
}

/// An OCI runtime with a directory of containers and a bundle.
pub struct Runtime<'a> {
    program: &'a str,
    bundle: PathBuf,
    scopes: bool,
    /// Directory of its state and parent of its cgroups, if these are not the default ones.
    own: Option<(PathBuf, String)>,
    ids: Vec<String>,
}

impl<'a> Runtime<'a> {
    /// Uses a runtime with a bundle below `directory` made from a root file system.
    ///
    /// # Errors
    /// When the bundle cannot be made.
    pub fn new(program: &'a str, directory: &Path, rootfs: &Path) -> Result<Self> {
        let bundle = directory.join(format!("bundle-{program}"));
        fs::create_dir_all(&bundle)?;
        let linked = bundle.join("rootfs");
        if !linked.exists() {
            run(Command::new("cp").arg("-a").arg(rootfs).arg(&linked))?;
        }
        Ok(Self { program, bundle, scopes: false, own: None, ids: Vec::new() })
    }

    /// Keeps its state in a directory of its own (`--root`), and its cgroups below one of their own, so that another one may
    /// have containers of the same ids.
    #[must_use]
    pub fn with_root(mut self, root: PathBuf, cgroups: &str) -> Self {
        self.own = Some((root, cgroups.to_owned()));
        self
    }

    /// Has systemd make the cgroups, as scopes of its system slice.
    #[must_use]
    pub fn with_scopes(mut self) -> Self {
        self.scopes = true;
        self
    }

    /// Path of a container's cgroup made by systemd.
    #[must_use]
    pub fn scope(id: &str) -> String {
        format!("/system.slice/{SCOPE_PREFIX}-{id}.scope")
    }

    /// `<runtime> run <id>` with these arguments for the container's process, to its end.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&mut self, id: &str, arguments: &[&str]) -> Result<()> {
        self.run_config(id, &self.config_of(id, arguments))
    }

    /// As [`Runtime::run`], with this text for the bundle's `config.json`.
    ///
    /// # Errors
    /// When it fails.
    pub fn run_config(&mut self, id: &str, config: &str) -> Result<()> {
        fs::write(self.bundle.join("config.json"), config)?;
        self.ids.push(id.to_owned());
        run(self.command().arg("run").arg("--bundle").arg(&self.bundle).arg(id)).map(drop)
    }

    /// `<runtime> run --detach <id>`.
    ///
    /// # Errors
    /// When it fails.
    pub fn run_detached(&mut self, id: &str, arguments: &[&str]) -> Result<()> {
        fs::write(self.bundle.join("config.json"), self.config_of(id, arguments))?;
        self.ids.push(id.to_owned());
        // The container keeps the standard streams it is given; pipes would never end.
        let mut command = self.command();
        command.args(["run", "--detach", "--bundle"]).arg(&self.bundle).arg(id);
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let status = Process::start(&mut command)?.wait(crate::process::COMMAND_TIMEOUT)?;
        anyhow::ensure!(status.success(), "{} run {id}: {status}", self.program);
        Ok(())
    }

    /// `<runtime> exec <id>` with these arguments.
    ///
    /// # Errors
    /// When it fails.
    pub fn exec(&self, id: &str, arguments: &[&str]) -> Result<String> {
        run(self.command().arg("exec").arg(id).args(arguments))
    }

    /// `<runtime> delete --force <id>`.
    ///
    /// # Errors
    /// When it fails.
    pub fn delete(&self, id: &str) -> Result<()> {
        run(self.command().args(["delete", "--force", id])).map(drop)
    }

    /// The `config.json` of a container with these arguments for its process.
    #[must_use]
    pub fn config(arguments: &[&str]) -> String {
        Self::bundle_config(arguments).to_string()
    }

    fn config_of(&self, id: &str, arguments: &[&str]) -> String {
        let mut config = Self::bundle_config(arguments);
        if self.scopes {
            config["linux"]["cgroupsPath"] = format!("system.slice:{SCOPE_PREFIX}:{id}").into();
        }
        if let Some((_, cgroups)) = &self.own {
            config["linux"]["cgroupsPath"] = format!("{cgroups}/{id}").into();
        }
        config.to_string()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        if let Some((root, _)) = &self.own {
            command.arg("--root").arg(root);
        }
        if self.scopes {
            command.arg("--systemd-cgroup");
        }
        command
    }

    fn bundle_config(arguments: &[&str]) -> Value {
        let namespaces =
            ["pid", "mount", "ipc", "uts", "network", "cgroup"].map(|kind| json!({ "type": kind }));
        // No capabilities and no limits: neither needs a right that a test machine may lack.
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0}, "args": arguments, "env": ["PATH=/bin"], "cwd": "/",
                "noNewPrivileges": true
            },
            "root": {"path": "rootfs", "readonly": true},
            "hostname": "bundle",
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "annotations": {"org.opencontainers.image.ref.name": crate::dockerd::IMAGE},
            "linux": {"namespaces": namespaces}
        })
    }
}

impl Drop for Runtime<'_> {
    fn drop(&mut self) {
        for id in &self.ids {
            // Most are gone already.
            let _ = run_unchecked(self.command().args(["delete", "--force", id]));
        }
    }
}

/// Writes a runc that leaves out the one capability that a machine of tests may lack itself, so that it can make
/// privileged containers; returns its path.
///
/// # Errors
/// When it cannot be written.
pub fn write_tolerant_runc(directory: &Path) -> Result<PathBuf> {
    const SCRIPT: &str = r#"#!/bin/sh
previous=
for argument; do
    if [ "$previous" = --bundle ] && [ -f "$argument/config.json" ]; then
        sed -i 's/"CAP_SYS_RESOURCE",//g; s/,"CAP_SYS_RESOURCE"//g' "$argument/config.json"
    fi
    previous=$argument
done
exec runc "$@"
"#;
    let path = directory.join("tolerant-runc");
    fs::write(&path, SCRIPT)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Takes the controllers off the version 2 hierarchy of a hybrid host, which crun refuses otherwise; they return when
/// the value is dropped.
pub struct HybridControllers {
    mounts: Vec<tempfile::TempDir>,
    names: String,
}

impl HybridControllers {
    /// Mounts each of them as a version 1 hierarchy for now. Does nothing on a host that is not hybrid.
    ///
    /// # Errors
    /// When one cannot be mounted.
    pub fn park() -> Result<Self> {
        let names = fs::read_to_string(HYBRID_CONTROLLERS).unwrap_or_default();
        let mut parked = Self { mounts: Vec::new(), names: names.clone() };
        for controller in names.split_whitespace() {
            let directory = tempfile::Builder::new().prefix("quaywatch-cgroup-").tempdir()?;
            run(Command::new("mount")
                .args(["-t", "cgroup", "-o", controller, "none"])
                .arg(directory.path()))?;
            parked.mounts.push(directory);
        }
        Ok(parked)
    }
}

impl Drop for HybridControllers {
    fn drop(&mut self) {
        for mount in &self.mounts {
            if let Err(error) = run(Command::new("umount").arg(mount.path())) {
                eprintln!("{error:#}");
            }
        }
        // The kernel gives them back a moment later: whoever parks them next must find them there, or parks nothing and then
        // gets them back in the middle.
        let are_back =
            || fs::read_to_string(HYBRID_CONTROLLERS).is_ok_and(|names| names.trim() == self.names.trim());
        let deadline = Instant::now() + BACK_WITHIN;
        while !self.mounts.is_empty() && !are_back() {
            if Instant::now() > deadline {
                eprintln!("{HYBRID_CONTROLLERS} is not {} again", self.names.trim());
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
