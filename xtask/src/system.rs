//! What has to be true of this system and this user.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::exit::unsupported;

/// Demands root.
///
/// # Errors
/// A sentence for exit code 3.
pub fn require_root(what: &str) -> Result<()> {
    if effective_uid() == Some(0) {
        return Ok(());
    }
    Err(unsupported(format!(
        "{what} needs root: it loads programs into the kernel; run it with sudo -E or as root"
    )))
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    effective_uid() == Some(0)
}

/// Demands a Linux whose kernel describes its own types.
///
/// # Errors
/// A sentence for exit code 3.
pub fn require_kernel() -> Result<()> {
    if !cfg!(target_os = "linux") {
        return Err(unsupported("quaywatch watches a Linux kernel; this system is not Linux"));
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err(unsupported(
            "this kernel has no /sys/kernel/btf/vmlinux; quaywatch needs Linux 5.10 or newer built with CONFIG_DEBUG_INFO_BTF",
        ));
    }
    Ok(())
}

/// Demands Debian's package tools.
///
/// # Errors
/// A sentence for exit code 3.
pub fn require_apt(wanted: &str) -> Result<()> {
    if find_program("apt-get").is_some() && find_program("dpkg-query").is_some() {
        return Ok(());
    }
    Err(unsupported(format!(
        "{wanted} is missing and there is no apt-get to install it: see README.md for other systems"
    )))
}

/// Path of a program in PATH or in the directories of system programs.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

fn effective_uid() -> Option<u32> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("Uid:"))?;
    line.split_whitespace().nth(2)?.parse().ok()
}
