//! What the end-to-end tests need of the machine. A missing part is a failure, never a silent skip.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Programs of the tests and the Debian packages they come from.
const PROGRAMS: &[(&str, &str)] = &[
    ("dockerd", "docker.io"),
    ("docker", "docker.io"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("crun", "crun"),
    ("podman", "podman"),
    ("busybox", "busybox-static"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("curl", "curl"),
    ("tar", "tar"),
    ("openssl", "openssl"),
    ("python3", "python3"),
    ("nmap", "nmap"),
    ("masscan", "masscan"),
    ("zmap", "zmap"),
    ("socat", "socat"),
    ("dropbear", "dropbear-bin"),
];

/// Demands root, a kernel that describes its types, and every program.
///
/// # Errors
/// Names all that is missing and how to get it.
pub fn everything() -> Result<()> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("root".to_owned());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        missing.push("a kernel with /sys/kernel/btf/vmlinux".to_owned());
    }
    for (program, package) in PROGRAMS {
        if find(program).is_none() {
            missing.push(format!("{program} (Debian package {package})"));
        }
    }
    if !missing.is_empty() {
        bail!(
            "the end-to-end tests need {}; `cargo xtask setup --tests` installs programs",
            missing.join(", ")
        );
    }
    Ok(())
}

/// Path of a program, also in the directories that only root has in PATH.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}
