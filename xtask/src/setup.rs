//! `cargo xtask setup`: installs and mounts what building and running take.

use std::fs;
use std::path::Path;

use anyhow::Result;
use clap::Args;

use crate::command::{self, say};
use crate::{packages, system, toolchain, vm_test};

/// Installs what building and running the sensor takes, and nothing that is already there.
#[derive(Args)]
pub struct Options {
    /// Also install what the tests take: Docker, containerd, Podman, runc, crun, QEMU and small tools.
    #[arg(long)]
    pub tests: bool,
}

/// Packages of the host build.
const BUILD_PACKAGES: &[&str] = &["gcc", "libc6-dev", "pkg-config", "ca-certificates"];

/// Packages of the tests: real runtimes, a static root file system, network namespaces, a client.
const TEST_PACKAGES: &[&str] = &[
    "docker.io",
    "containerd",
    "runc",
    "crun",
    "podman",
    "conmon",
    "busybox-static",
    "iproute2",
    "iptables",
    "util-linux",
    "curl",
    "procps",
    "openssl",
    "python3",
    "nmap",
    "masscan",
    "zmap",
    "socat",
    // Of the SSH servers the one whose package starts nothing.
    "dropbear-bin",
];

/// What a file system of the kernel is needed for; it may be mounted elsewhere, or not be allowed in a container.
const MOUNTS: &[(&str, &str)] = &[("tracefs", "/sys/kernel/tracing"), ("bpf", "/sys/fs/bpf")];

/// Runs the subcommand.
pub fn run(options: &Options) -> Result<()> {
    system::require_kernel()?;
    // rustup's cargo links through a C compiler, which a new machine may lack; Debian's compiler brings its own.
    packages::ensure(BUILD_PACKAGES)?;
    toolchain::ensure().map(drop)?;
    if options.tests {
        packages::ensure(TEST_PACKAGES)?;
        packages::ensure(vm_test::PACKAGES)?;
    }
    mount_kernel_file_systems();
    Ok(())
}

/// Mounts what is not mounted. A refusal is said, not fatal: the sensor's main hooks need neither.
fn mount_kernel_file_systems() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for (kind, target) in MOUNTS {
        let mounted = mounts
            .lines()
            .any(|line| line.split(' ').nth(1).is_some_and(|mount_point| mount_point == *target));
        if mounted || !Path::new(target).is_dir() || !system::is_root() {
            continue;
        }
        if let Err(error) = command::check(command::program("mount").args(["-t", kind, kind, target])) {
            say(format!("going on without {kind} at {target}: {error:#}"));
        }
    }
}
