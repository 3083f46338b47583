//! Which security modules of this host can confine a container by a profile or label of its own.

use std::fs;

use super::{Roots, file};

/// Says `Y` where AppArmor is on.
const APPARMOR: &str = "/sys/module/apparmor/parameters/enabled";
/// There where SELinux is on and its file system is mounted.
const SELINUX: &str = "/sys/fs/selinux/enforce";

/// What a container can be confined by, beside capabilities and system-call filters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// AppArmor is on.
    pub apparmor: bool,
    /// SELinux is on.
    pub selinux: bool,
}

impl Confinement {
    /// Looks at what the kernel says.
    #[must_use]
    pub fn find(roots: &Roots) -> Self {
        let enabled = file::read(&roots.host_path(APPARMOR), 64, None).unwrap_or_default();
        let selinux = fs::symlink_metadata(roots.host_path(SELINUX)).is_ok();
        Self { apparmor: enabled.starts_with(b"Y"), selinux }
    }
}
