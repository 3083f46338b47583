//! What a runtime was asked for, as far as it can tell: a typed view that every manager's files are read into.
//!
//! Values only. Paths are those of the host with links resolved; whose namespace a path leads to has been compared.
//!
//! Source: opencontainers/runtime-spec `config.md` and `config-linux.md`.

use std::sync::Arc;

use super::Capabilities;

/// A kind of namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// Processes.
    Pid,
    /// Network.
    Net,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host name.
    Uts,
    /// Users.
    User,
    /// Cgroups.
    Cgroup,
}

impl Namespace {
    /// Every namespace with a risk of its own.
    pub const ALL: [Self; 6] = [Self::Pid, Self::Net, Self::Ipc, Self::Uts, Self::User, Self::Cgroup];

    pub(super) const fn risk_name(self) -> &'static str {
        match self {
            Self::Pid => "host-pid",
            Self::Net => "host-net",
            Self::Ipc => "host-ipc",
            Self::Uts => "host-uts",
            Self::User => "host-user",
            Self::Cgroup => "host-cgroup",
        }
    }

    pub(super) const fn weight(self) -> u8 {
        match self {
            Self::Pid => 6,
            Self::User => 5,
            Self::Net => 4,
            Self::Ipc => 3,
            Self::Cgroup => 2,
            Self::Uts => 1,
        }
    }
}

/// Whose namespace a container is put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// A new one.
    Own,
    /// One that is there already and is not the host's, or not known to be.
    Other,
    /// The host's, and this was said.
    Host,
}

/// One namespace that a spec speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceSpec {
    /// Which; `None` is the mount namespace.
    pub namespace: Option<Namespace>,
    /// Whose.
    pub sharing: Sharing,
}

/// What kind of file system a mount is, of those that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A part of the host's tree.
    Bind,
    /// A file system on a device of the host.
    Block,
    /// sysfs.
    Sysfs,
    /// A cgroup hierarchy.
    Cgroup,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What it is.
    pub kind: MountKind,
    /// Where it comes from, on the host: a directory or file, or a device; empty for the others.
    pub source: Arc<str>,
    /// Where it is in the container.
    pub destination: Arc<str>,
    /// It can be written.
    pub writable: bool,
}

/// One device node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Path in the container, or on the host where that is known.
    pub path: Arc<str>,
    /// A block device.
    pub block: bool,
    /// Numbers; `None` where only the path is known.
    pub number: Option<(i64, i64)>,
}

/// One rule of the device cgroup. Later rules override earlier ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Allowed, else denied.
    pub allow: bool,
    /// Block devices (`Some(true)`), character devices (`Some(false)`), or all.
    pub block: Option<bool>,
    /// Major number, or all.
    pub major: Option<i64>,
    /// Minor number, or all.
    pub minor: Option<i64>,
    /// It speaks of reading or writing, not only of making nodes.
    pub opens: bool,
}

/// A process to be put into a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessSpec {
    /// Arguments, the program's own name first.
    pub args: Vec<Arc<str>>,
    /// Working directory, where one is given.
    pub cwd: Option<Arc<str>>,
    /// User id in the container.
    pub uid: u32,
    /// Every capability that it has or can get: all sets together.
    pub capabilities: Capabilities,
    /// The kernel never gives it more than it starts with.
    pub no_new_privileges: bool,
    /// AppArmor profile.
    pub apparmor: Option<Arc<str>>,
    /// SELinux label.
    pub selinux: Option<Arc<str>>,
}

/// A container to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// Its first process.
    pub process: ProcessSpec,
    /// Namespaces that are spoken of; any other is that of the runtime.
    pub namespaces: Vec<NamespaceSpec>,
    /// Mounts of the kinds that matter.
    pub mounts: Vec<Mount>,
    /// Device nodes.
    pub devices: Vec<Device>,
    /// Rules of the device cgroup, in order.
    pub device_rules: Vec<DeviceRule>,
    /// A filter of system calls that refuses any.
    pub seccomp: bool,
    /// Parts of /proc and /sys are hidden or read-only.
    pub masked: bool,
    /// Its manager says that it is privileged.
    pub privileged: bool,
    /// It was exempted, in so many words, from `no_new_privileges`.
    pub new_privileges_wanted: bool,
    /// Its user namespace, if it has one of its own, has the host's root in it: that user is root of every file it reaches.
    pub maps_host_root: bool,
    /// It was made by a user's runtime, which is in a user namespace itself.
    pub rootless: bool,
    /// Where its cgroup is to be, or below what: a path, or `slice:prefix:name`.
    pub cgroup: Option<Arc<str>>,
}

/// What a container belongs to: files that its manager keeps for it are no files of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Its own id and that of its sandbox.
    pub ids: Vec<Arc<str>>,
    /// Its pod.
    pub pod_uid: Option<Arc<str>>,
}

/// What of the host decides whether something tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// AppArmor is on.
    pub apparmor: bool,
    /// SELinux is on.
    pub selinux: bool,
    /// There is the version 2 hierarchy only: managers give every container a cgroup namespace of its own.
    pub unified_cgroups: bool,
    /// Sockets of runtimes that are there now.
    pub sockets: Vec<Arc<str>>,
    /// Directories in which managers keep their things because they were told to.
    pub directories: Vec<Arc<str>>,
}
