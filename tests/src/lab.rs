//! What all end-to-end tests share: the network, one dockerd, and a place for files.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::dockerd::Dockerd;
use crate::netns::Network;
use crate::process::run_unchecked;
use crate::{oci, require};

/// Configuration of the sensor in the tests: defaults, and the network of each family that is expected.
pub const CONFIGURATION: &str = "\
allow:
  - name: lab-network
    from: {cidr: [10.77.0.0/24, \"fd00:77::/64\"]}
    to: {services: [any]}
";

/// Cgroups that runtimes make and leave behind.
const CGROUPS: &[&str] = &["docker", "libpod_parent", "kubepods", crate::containerd::NAMESPACE];

/// The laboratory. Fields are dropped in order: daemons, then the network they use, then their files.
pub struct Lab {
    /// The one dockerd.
    pub dockerd: Dockerd,
    /// Node and client.
    pub network: Network,
    rootfs: PathBuf,
    _leftovers: Leftovers,
    directory: tempfile::TempDir,
}

/// What a daemon may leave in the kernel.
struct Leftovers {
    directory: PathBuf,
    cgroups: Vec<PathBuf>,
}

impl Lab {
    /// Builds the laboratory.
    ///
    /// # Errors
    /// When the machine lacks something, or something cannot be started.
    pub fn build() -> Result<Self> {
        require::everything()?;
        let directory = tempfile::Builder::new().prefix("quaywatch-e2e-").tempdir()?;
        let rootfs = directory.path().join("rootfs");
        oci::make_rootfs(&rootfs)?;
        let leftovers = Leftovers { directory: directory.path().into(), cgroups: missing_cgroups() };
        let network = Network::create(std::process::id())?;
        let dockerd = Dockerd::start(&network.node, directory.path(), &rootfs)?;
        Ok(Self { dockerd, network, rootfs, _leftovers: leftovers, directory })
    }

    /// A directory for files of a test; removed with the laboratory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The root file system of the image.
    #[must_use]
    pub fn rootfs(&self) -> &Path {
        &self.rootfs
    }

    /// The image as an archive for other tools.
    ///
    /// # Errors
    /// When docker fails.
    pub fn image_archive(&self) -> Result<PathBuf> {
        let archive = self.directory().join("image.tar");
        if !archive.exists() {
            self.dockerd.save_image(&archive)?;
        }
        Ok(archive)
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        // A daemon that had to be killed leaves its mounts; the files below them could not be removed.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for mount in below.filter(|mount| Path::new(mount).starts_with(&self.directory)) {
            let _ = run_unchecked(Command::new("umount").args(["--lazy", mount]));
        }
        for cgroup in &self.cgroups {
            remove_cgroup(cgroup);
        }
    }
}

/// Where cgroup file systems are mounted, with their types.
fn cgroup_mounts() -> Vec<(String, PathBuf)> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').skip(1));
    let of_cgroups = fields.filter_map(|mut fields| {
        let (mount_point, kind) = (fields.next()?, fields.next()?);
        matches!(kind, "cgroup" | "cgroup2").then(|| (kind.to_owned(), PathBuf::from(mount_point)))
    });
    of_cgroups.collect()
}

/// The directories of a cgroup, in every hierarchy that has it.
#[must_use]
pub fn cgroups(path: &str) -> Vec<PathBuf> {
    let below = path.trim_start_matches('/');
    let places = cgroup_mounts().into_iter().map(|(_, mount_point)| mount_point.join(below));
    places.filter(|cgroup| cgroup.is_dir()).collect()
}

/// Where the version 2 hierarchy is mounted.
///
/// # Errors
/// When it is not.
pub fn unified_cgroups() -> Result<PathBuf> {
    let mounts = cgroup_mounts().into_iter();
    mounts.rev().find_map(|(kind, path)| (kind == "cgroup2").then_some(path)).context("no cgroup2 is mounted")
}

/// Cgroups that are not there now, in every hierarchy.
fn missing_cgroups() -> Vec<PathBuf> {
    cgroup_mounts()
        .iter()
        .flat_map(|(_, mount_point)| CGROUPS.iter().map(move |name| mount_point.join(name)))
        .filter(|cgroup| !cgroup.exists())
        .collect()
}

/// Removes a cgroup and those below it, as far as they are empty.
fn remove_cgroup(cgroup: &Path) {
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(cgroup);
}
