//! The namespaces and the root directory that tell the host's processes from those of containers.

use crate::ids::FileKey;

/// Where a process is. What is not known is zero, which nothing has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Inode of the mount namespace.
    pub mnt: u32,
    /// Inode of the pid namespace.
    pub pid: u32,
    /// Root directory.
    pub root: FileKey,
}

impl Namespaces {
    /// Whether any of them may be that of another place.
    pub(crate) fn may_share(&self, other: &Self) -> bool {
        self.mnt == other.mnt || self.pid == other.pid || self.root == other.root
    }
}

/// What of the host a process of a container is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostSide {
    /// The host's mount namespace.
    pub mnt: bool,
    /// The host's pid namespace.
    pub pid: bool,
    /// The host's root directory is its root.
    pub root: bool,
}

impl HostSide {
    /// What of the host a process has that its container has not.
    ///
    /// A container that was given the host's pid namespace has it already, and one of which the namespaces are not known
    /// may have. Nobody gives a container the host's mount namespace; if one has it, its own say so.
    pub(crate) fn of(process: &Namespaces, container: Option<&Namespaces>, host: &Namespaces) -> Self {
        let mnt = host.mnt != 0 && process.mnt == host.mnt && container.is_none_or(|own| own.mnt != host.mnt);
        let own = container.copied().unwrap_or_default();
        let pid = host.pid != 0 && process.pid == host.pid && own.pid != 0 && own.pid != host.pid;
        let is_known = |root: FileKey| root != FileKey::default();
        let root = is_known(host.root)
            && process.root == host.root
            && (mnt || (is_known(own.root) && own.root != host.root));
        Self { mnt, pid, root }
    }

    /// Whether it is in anything of the host's.
    #[must_use]
    pub const fn is_any(self) -> bool {
        self.mnt || self.pid || self.root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(mnt: u32, pid: u32, inode: u64) -> Namespaces {
        Namespaces { mnt, pid, root: FileKey { device: 1, inode } }
    }

    const HOST: Namespaces = at(1, 2, 3);
    const OWN: Namespaces = at(11, 12, 13);

    fn check(process: Namespaces, container: Option<Namespaces>, expected: (bool, bool, bool)) {
        let HostSide { mnt, pid, root } = HostSide::of(&process, container.as_ref(), &HOST);
        assert_eq!((mnt, pid, root), expected, "{process:?} of {container:?}");
    }

    #[test]
    fn what_the_container_has_not_and_the_host_has_is_the_hosts() {
        check(OWN, Some(OWN), (false, false, false));
        check(at(1, 12, 3), Some(OWN), (true, false, true));
        check(at(1, 2, 3), Some(OWN), (true, true, true));
        check(at(11, 2, 13), Some(OWN), (false, true, false));
        check(at(11, 12, 3), Some(OWN), (false, false, true));
        // In the host's mount namespace, below a root of its own.
        check(at(1, 12, 99), Some(OWN), (true, false, false));
        // Namespaces of a third kind.
        check(at(21, 22, 23), Some(OWN), (false, false, false));
    }

    #[test]
    fn what_a_container_was_given_is_no_escape() {
        check(at(11, 2, 13), Some(at(11, 2, 13)), (false, false, false));
        check(at(1, 12, 13), Some(at(1, 12, 13)), (false, false, false));
        check(at(11, 12, 3), Some(at(11, 12, 3)), (false, false, false));
        check(at(1, 2, 3), Some(at(11, 2, 13)), (true, false, true));
    }

    #[test]
    fn what_is_not_known_is_not_claimed() {
        check(at(11, 2, 3), None, (false, false, false));
        check(at(1, 2, 3), None, (true, false, true));
        let nothing = Namespaces::default();
        assert!(!HostSide::of(&nothing, Some(&OWN), &nothing).is_any());
        assert!(!HostSide::of(&HOST, Some(&OWN), &nothing).is_any());
    }
}
