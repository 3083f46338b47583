//! The root of the version 2 cgroups, where programs on packets are attached: as it is mounted, or, on a host that has it
//! mounted nowhere, through a mount that nobody else sees.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Inode of the root cgroup. Whoever is in a cgroup namespace of his own is shown another one as the root.
const ROOT_INODE: u64 = 1;

/// Where the root is.
#[derive(Debug)]
pub(super) enum CgroupRoot {
    /// Mounted there.
    Mounted(PathBuf),
    /// In a mount of ours, which is in no mount namespace.
    Private(OwnedFd),
    /// Nowhere, and why not in a mount of ours.
    Nowhere(String),
}

impl CgroupRoot {
    /// Makes a mount of its own. It shows the root of the hierarchy, which the kernel has whether or not somebody mounts it.
    pub(super) fn private() -> Self {
        match mount_privately() {
            Ok(root) => Self::Private(root),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Self::Nowhere("mounting it out of sight takes the capability SYS_ADMIN".to_owned())
            }
            Err(error) => Self::Nowhere(format!("it cannot be mounted out of sight either: {error}")),
        }
    }

    /// Opens it.
    ///
    /// # Errors
    /// When it is mounted and cannot be opened.
    pub(super) fn open(&self) -> Result<OwnedFd, Absence> {
        match self {
            Self::Mounted(path) => {
                let opened = File::open(path);
                opened.map(OwnedFd::from).map_err(|source| Absence::Unreadable(path.clone(), source))
            }
            Self::Private(root) => {
                root.try_clone().map_err(|source| Absence::Unreadable("a descriptor".into(), source))
            }
            Self::Nowhere(reason) => Err(Absence::Nowhere(reason.clone())),
        }
    }
}

/// Why there is no root to attach to.
#[derive(Debug)]
pub(super) enum Absence {
    /// It is mounted there and cannot be opened.
    Unreadable(PathBuf, io::Error),
    /// It is mounted nowhere, and why we have not mounted it.
    Nowhere(String),
}

fn mount_privately() -> io::Result<OwnedFd> {
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let root = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    let inode = rustix::fs::fstat(&root)?.st_ino;
    if inode != ROOT_INODE {
        return Err(io::Error::other("this is a cgroup namespace, whose root is not that of the host"));
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_is_not_there_says_why() {
        let Err(Absence::Nowhere(reason)) = CgroupRoot::Nowhere("no right".to_owned()).open() else {
            panic!("there is none");
        };
        assert_eq!(reason, "no right");
        let missing = CgroupRoot::Mounted("/nonexistent".into());
        assert!(
            matches!(missing.open(), Err(Absence::Unreadable(path, _)) if path.as_os_str() == "/nonexistent")
        );
    }

    #[test]
    fn a_private_mount_is_the_root_and_in_nobodys_sight_or_takes_a_right() {
        let mounts = || std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let before = mounts();
        match CgroupRoot::private() {
            CgroupRoot::Private(root) => {
                assert_eq!(rustix::fs::fstat(&root).expect("its status").st_ino, ROOT_INODE);
            }
            CgroupRoot::Nowhere(reason) => assert!(!reason.is_empty()),
            CgroupRoot::Mounted(path) => panic!("{path:?}"),
        }
        assert_eq!(mounts(), before);
    }
}
