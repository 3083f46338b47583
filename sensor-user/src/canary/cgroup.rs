//! A cgroup below our own, where we may write if anywhere.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::lookups::cgroupfs::{Hierarchies, Hierarchy};
use crate::lookups::{Roots, file};

/// Most bytes of `/proc/self/cgroup`.
const FILE_MAX: u64 = 64 << 10;

/// The directory of the sensor's own cgroup, in the hierarchy that names the cgroup of a task.
pub(super) fn own(roots: &Roots, hierarchies: &Hierarchies) -> Option<PathBuf> {
    let hierarchy = hierarchies.pids.as_ref().or(hierarchies.unified.as_ref())?;
    let content = file::read(&roots.proc.join("self/cgroup"), FILE_MAX, None).ok()?;
    own_in(hierarchy, &String::from_utf8_lossy(&content))
}

/// `memberships` has a line `hierarchy:controllers:path` for each hierarchy.
fn own_in(hierarchy: &Hierarchy, memberships: &str) -> Option<PathBuf> {
    let path = memberships.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let id: u32 = fields.next()?.parse().ok()?;
        (id == hierarchy.id).then(|| fields.nth(1))?
    })?;
    // A path that climbs leads out of our cgroup namespace, to where nothing is mounted.
    let below = path.strip_prefix('/').filter(|path| !path.split('/').any(|part| part == ".."))?;
    Some(hierarchy.mount_point.join(below))
}

/// Makes a cgroup and removes it again.
pub(super) fn make_and_remove(parent: &Path, name: &str) -> io::Result<()> {
    let directory = parent.join(name);
    fs::create_dir(&directory)?;
    fs::remove_dir(&directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cgroup_is_found_in_the_hierarchy_of_tasks() {
        let hierarchy = |id| Hierarchy { id, mount_point: "/m".into() };
        let memberships = "9:pids:/system.slice/quaywatch.service\n1:name=systemd:/a:b\n0::/\n";
        let found = |id| own_in(&hierarchy(id), memberships);
        assert_eq!(found(9).as_deref(), Some(Path::new("/m/system.slice/quaywatch.service")));
        assert_eq!(found(1).as_deref(), Some(Path::new("/m/a:b")));
        assert_eq!(found(0).as_deref(), Some(Path::new("/m/")));
        assert_eq!(found(3), None);
        for text in ["0::/../../x", "0:", "", "x", "0::relative"] {
            assert_eq!(own_in(&hierarchy(0), text), None, "{text}");
        }
    }

    #[test]
    fn what_was_made_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        make_and_remove(parent.path(), "canary").unwrap();
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        assert!(make_and_remove(&parent.path().join("absent"), "canary").is_err());
    }
}
