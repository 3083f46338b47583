//! Cgroup hierarchies as hosts have them, and a container's place in them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, mount};

const ROOT: &str = "/sys/fs/cgroup";
/// Mounts the hierarchies as a layout has them: `v2`, `v1`, or `hybrid`, which is `v1` with an empty version 2 hierarchy
/// beside it.
pub fn mount_layout(layout: &str) -> Result<()> {
    match layout {
        "v2" => mount_at(Path::new(ROOT), "cgroup2", ""),
        "v1" => mount_v1(),
        "hybrid" => {
            mount_v1()?;
            mount_at(&Path::new(ROOT).join("unified"), "cgroup2", "")
        }
        other => bail!("unknown cgroup layout {other}"),
    }
}

/// Mounts a hierarchy for each controller, and one for a service manager. On a hybrid host none is left for version 2.
fn mount_v1() -> Result<()> {
    mount_at(Path::new(ROOT), "tmpfs", "mode=755")?;
    let controllers = fs::read_to_string("/proc/cgroups")?;
    for line in controllers.lines().filter(|line| !line.starts_with('#') && line.ends_with("\t1")) {
        let name = line.split('\t').next().context("a controller without a name")?;
        let at = Path::new(ROOT).join(name);
        mount_at(&at, "cgroup", name)?;
        if name == "cpuset" {
            // Otherwise a new cgroup has no CPU until it is given one.
            fs::write(at.join("cgroup.clone_children"), "1")?;
        }
    }
    mount_at(&Path::new(ROOT).join("systemd"), "cgroup", "none,name=systemd")
}

fn mount_at(at: &Path, kind: &str, data: &str) -> Result<()> {
    fs::create_dir_all(at)?;
    let data = std::ffi::CString::new(data)?;
    mount(kind, at, kind, MountFlags::empty(), data.as_c_str())
        .with_context(|| format!("cannot mount {kind} at {}", at.display()))
}

/// Mount points of all hierarchies.
pub fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let of_cgroups = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (at, kind) = (fields.next()?, fields.next()?);
        matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(at))
    };
    Ok(mounts.lines().filter_map(of_cgroups).collect())
}

/// A container as far as the kernel knows: a cgroup of Docker's name in every hierarchy. Removed when dropped.
pub struct Container {
    /// Its full id.
    pub id: String,
    directories: Vec<PathBuf>,
}

impl Container {
    /// Makes the cgroups of a container whose id is these two hex digits over and over.
    pub fn create(digits: &str) -> Result<Self> {
        let mut container = Self { id: digits.repeat(32), directories: Vec::new() };
        for hierarchy in hierarchies()? {
            let directory = hierarchy.join("docker").join(&container.id);
            fs::create_dir_all(&directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
            container.directories.push(directory);
        }
        Ok(container)
    }

    /// Its path in each hierarchy, from the root of that.
    pub fn path(&self) -> String {
        format!("/docker/{}", self.id)
    }

    /// Removes its cgroups.
    pub fn remove(&mut self) -> Result<()> {
        for directory in self.directories.drain(..) {
            fs::remove_dir(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
        }
        Ok(())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("{error:#}");
        }
    }
}

/// Moves this process into the cgroups of a container.
pub fn join(id: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let file = hierarchy.join("docker").join(id).join("cgroup.procs");
        fs::write(&file, "0").with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
