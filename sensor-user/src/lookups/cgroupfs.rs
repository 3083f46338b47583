//! The cgroup hierarchies that matter, and the cgroups that were there before the sensor.
//!
//! Two hierarchies matter: version 2, which names the cgroup of every socket, and the one that names the cgroup of a
//! task, which on a version 1 or hybrid host is that of the pids controller, because every runtime uses it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sensor_core::engine::SeedCgroup;
use sensor_core::ids::CgroupKey;

use super::Roots;
use super::file::{self, FileError};
use super::mounts::{MOUNTINFO_MAX, Mount};

/// Most cgroups that one walk returns, over both hierarchies.
pub const CGROUPS_MAX: usize = 65_536;
/// Deepest level that is walked; the kernel's own limit is configurable and by default none.
const DEPTH_MAX: usize = 64;

/// A hierarchy as mounted here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// `cgroup_root.hierarchy_id`; 0 is version 2.
    pub id: u32,
    /// Where its root cgroup is mounted.
    pub mount_point: PathBuf,
}

/// The hierarchies of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// Version 2, if it is mounted.
    pub unified: Option<Hierarchy>,
    /// Version 1 with the pids controller, if there is one: then it names the cgroup of a task.
    pub pids: Option<Hierarchy>,
}

/// What a walk found.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// The cgroups, roots included.
    pub cgroups: Vec<SeedCgroup>,
    /// There were more than [`CGROUPS_MAX`], or deeper ones than are walked.
    pub truncated: bool,
}

impl Hierarchies {
    /// Finds the hierarchies through procfs.
    ///
    /// # Errors
    /// When the mounts of this process cannot be read.
    pub fn find(roots: &Roots) -> Result<Self, FileError> {
        let mounts = file::read(&roots.proc.join("self/mountinfo"), MOUNTINFO_MAX, None)?;
        // A kernel without version 1 has no such file.
        let controllers = file::read(&roots.proc.join("cgroups"), MOUNTINFO_MAX, None).unwrap_or_default();
        Ok(Self::parse(&String::from_utf8_lossy(&mounts), &String::from_utf8_lossy(&controllers)))
    }

    /// `mountinfo` and `cgroups` are the texts of those files.
    fn parse(mountinfo: &str, cgroups: &str) -> Self {
        let mut found = Self::default();
        let pids_id = cgroups.lines().find_map(|line| {
            let mut fields = line.split_whitespace();
            (fields.next()? == "pids").then(|| fields.next()?.parse::<u32>().ok())?
        });
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            // A mount of a part of a hierarchy would give paths that are not from its root.
            if mount.root != "/" {
                continue;
            }
            let mount_point = PathBuf::from(mount.mount_point);
            match mount.kind {
                "cgroup2" if found.unified.is_none() => {
                    found.unified = Some(Hierarchy { id: 0, mount_point });
                }
                "cgroup" if found.pids.is_none() && mount.options.split(',').any(|name| name == "pids") => {
                    found.pids = pids_id.filter(|id| *id != 0).map(|id| Hierarchy { id, mount_point });
                }
                _ => {}
            }
        }
        found
    }

    /// Lists the cgroups of both hierarchies; those that vanish meanwhile are left out.
    #[must_use]
    pub fn walk(&self) -> Walk {
        let mut walk = Walk::default();
        for hierarchy in self.unified.iter().chain(&self.pids) {
            walk.add(hierarchy, &hierarchy.mount_point, "/", 0);
        }
        walk
    }

    /// Cuts the mount point off the path of a cgroup directory, as runtimes note it in their state files.
    #[must_use]
    pub fn relative<'a>(&self, directory: &'a str) -> Option<&'a str> {
        self.unified.iter().chain(&self.pids).find_map(|hierarchy| {
            let path = directory.strip_prefix(hierarchy.mount_point.to_str()?)?;
            path.starts_with('/').then_some(path)
        })
    }
}

impl Walk {
    fn add(&mut self, hierarchy: &Hierarchy, directory: &Path, path: &str, depth: usize) {
        if self.cgroups.len() >= CGROUPS_MAX || depth > DEPTH_MAX {
            self.truncated = true;
            return;
        }
        let Ok(metadata) = fs::symlink_metadata(directory) else { return };
        // On a 64-bit kernel the id of a cgroup and the inode number of its directory are the same, in every
        // hierarchy (kernfs_id_ino in include/linux/kernfs.h, Linux 5.5).
        let key = CgroupKey { hierarchy: hierarchy.id, id: metadata.ino() };
        self.cgroups.push(SeedCgroup { key, path: Arc::from(path) });
        let Ok(entries) = fs::read_dir(directory) else { return };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name();
            let child = format!("{}/{}", path.trim_end_matches('/'), name.to_string_lossy());
            self.add(hierarchy, &entry.path(), &child, depth + 1);
        }
    }
}

/// Whether a directory is the root of a mounted version 2 hierarchy.
///
/// # Errors
/// When it cannot be looked at.
pub fn is_unified(directory: &Path) -> io::Result<bool> {
    Ok(rustix::fs::statfs(directory)?.f_type == libc::CGROUP2_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
";
    const CONTROLLERS: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\npids\t8\t1\t1\n";

    fn hierarchy(id: u32, mount_point: &str) -> Option<Hierarchy> {
        Some(Hierarchy { id, mount_point: mount_point.into() })
    }

    #[test]
    fn hybrid_host_has_both() {
        let found = Hierarchies::parse(HYBRID, CONTROLLERS);
        assert_eq!(found.unified, hierarchy(0, "/sys/fs/cgroup/unified"));
        assert_eq!(found.pids, hierarchy(8, "/sys/fs/cgroup/pids"));
        assert_eq!(found.relative("/sys/fs/cgroup/pids/docker/x"), Some("/docker/x"));
        assert_eq!(found.relative("/sys/fs/cgroup/pidsx/docker/x"), None);
        assert_eq!(found.relative("/sys/fs/cgroup/cpu/docker/x"), None);
    }

    #[test]
    fn version_2_host_has_one() {
        let mounts = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = Hierarchies::parse(mounts, "#subsys_name\thierarchy\npids\t0\t90\t1\n");
        assert_eq!((found.unified, found.pids), (hierarchy(0, "/sys/fs/cgroup"), None));
    }

    #[test]
    fn joined_version_1_controllers_are_found_and_partial_mounts_are_not() {
        let mounts = "\
50 31 0:36 /docker/x /mnt/part rw - cgroup cgroup rw,pids
51 31 0:36 / /sys/fs/cgroup/with\\040blank rw - cgroup none rw,cpu,pids
";
        let found = Hierarchies::parse(mounts, CONTROLLERS);
        assert_eq!((found.unified, found.pids), (None, hierarchy(8, "/sys/fs/cgroup/with blank")));
    }

    #[test]
    fn nonsense_is_no_hierarchy() {
        for text in ["", " - ", "1 2 3 / /x - cgroup2", "a b c d e f - cgroup cgroup", "\\04\\9 - "] {
            assert_eq!(Hierarchies::parse(text, text), Hierarchies::default(), "{text}");
        }
    }

    #[test]
    fn walk_gives_paths_from_the_root_and_inodes_as_ids() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("docker/abc")).unwrap();
        fs::write(directory.path().join("cgroup.procs"), "").unwrap();
        let hierarchies = Hierarchies {
            unified: Some(Hierarchy { id: 0, mount_point: directory.path().into() }),
            pids: Some(Hierarchy { id: 8, mount_point: directory.path().join("docker") }),
        };
        let walk = hierarchies.walk();
        let found: Vec<_> = walk.cgroups.iter().map(|cgroup| (cgroup.key.hierarchy, &*cgroup.path)).collect();
        assert_eq!(found, [(0, "/"), (0, "/docker"), (0, "/docker/abc"), (8, "/"), (8, "/abc")]);
        let inode = fs::metadata(directory.path().join("docker/abc")).unwrap().ino();
        assert_eq!((walk.cgroups[2].key.id, walk.cgroups[4].key.id), (inode, inode));
        assert!(!walk.truncated);
    }

    #[test]
    fn walk_stops_at_its_depth() {
        let directory = tempfile::tempdir().unwrap();
        let deep: PathBuf = std::iter::repeat_n("d", DEPTH_MAX + 5).collect();
        fs::create_dir_all(directory.path().join(deep)).unwrap();
        let unified = Some(Hierarchy { id: 0, mount_point: directory.path().into() });
        let walk = Hierarchies { unified, pids: None }.walk();
        assert_eq!((walk.cgroups.len(), walk.truncated), (DEPTH_MAX + 1, true));
    }
}
