//! What makes a container one that can leave, or take others with it.
//!
//! Owns the closed list of risks, their names and their weights, and derives them from what a runtime was asked for.
//! Knows nothing of files: whoever reads a spec hands it in as a [`Spec`] with every path resolved. Each risk is true by
//! itself: `privileged` does not stand for the capabilities that come with it.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

mod capabilities;
mod entrypoint;
mod judge;
mod mounts;
mod path;
mod spec;
mod wrappers;

pub use capabilities::{Capabilities, Capability};
pub use judge::{of_asked_capability, of_asked_device, of_asked_mount, of_container, of_process};
pub use path::normal;
pub use spec::{
    Device, DeviceRule, Host, Mount, MountKind, Namespace, NamespaceSpec, Own, ProcessSpec, Sharing, Spec,
};

/// Most risks of one container: heavier ones push out lighter ones, and the record says that it was cut.
pub const RISKS_MAX: usize = 64;
/// Most bytes of a path in a risk.
pub const PATH_MAX: usize = 256;

/// One abnormality of a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Risk {
    /// It was asked for as privileged, or has all that makes one so.
    Privileged,
    /// It holds a capability that no runtime gives by default and that reaches beyond the container.
    Capability(Capability),
    /// It is in a namespace of the host.
    HostNamespace(Namespace),
    /// A sensitive directory or file of the host is mounted.
    Mount {
        /// On the host, links resolved.
        path: Arc<str>,
        /// It can be written.
        writable: bool,
    },
    /// The socket of a runtime is mounted, or a directory with it; its path on the host.
    Socket(Arc<str>),
    /// A device beyond the harmless ones every container has.
    Device(Arc<str>),
    /// No system call is refused.
    SeccompOff,
    /// No AppArmor profile, on a host that has AppArmor.
    ApparmorOff,
    /// No confining SELinux type, on a host that has SELinux.
    SelinuxOff,
    /// It does not start as root, and a setuid program makes it root with more than a container's capabilities.
    NewPrivileges,
    /// It can write the cgroup file system outside of its own cgroup namespace.
    WritableCgroup,
    /// What it runs is a known way out.
    EntrypointEscape,
    /// Its image is in no entry of the allow-list. The name is reserved: entries cannot speak of images yet.
    ImageUnlisted,
}

/// Risks without a value of their own, with names and weights.
const PLAIN: [(Risk, &str, u8); 8] = [
    (Risk::Privileged, "privileged", 10),
    (Risk::EntrypointEscape, "entrypoint-escape", 10),
    (Risk::WritableCgroup, "writable-cgroup", 6),
    (Risk::ImageUnlisted, "image-unlisted", 4),
    (Risk::NewPrivileges, "new-privileges", 3),
    (Risk::SelinuxOff, "selinux-off", 3),
    (Risk::SeccompOff, "seccomp-off", 2),
    (Risk::ApparmorOff, "apparmor-off", 2),
];
/// Weight of the socket of a runtime: whoever can talk to it can have any container made.
const SOCKET_WEIGHT: u8 = 10;
/// Weight of a device: disks and memory are worth more, and their names do not tell.
const DEVICE_WEIGHT: u8 = 6;

const CAPABILITY: &str = "cap:";
const MOUNT: &str = "mount:";
const WRITABLE: &str = ":rw";
const SOCKET: &str = "socket:";
const DEVICE: &str = "device:";

impl Risk {
    /// Every name without a value.
    pub fn plain_names() -> impl Iterator<Item = &'static str> {
        let namespaces = Namespace::ALL.into_iter().map(Namespace::risk_name);
        PLAIN.iter().map(|(_, name, _)| *name).chain(namespaces)
    }

    /// The name in the output.
    ///
    /// Shape: a plain name, or a prefix and a value. A path that ends in `:rw` by itself and cannot be written gets a
    /// slash at its end, so that the two are never mixed up.
    #[must_use]
    pub fn name(&self) -> Cow<'static, str> {
        let owned = match self {
            Self::Capability(capability) => format!("{CAPABILITY}{}", capability.name()),
            Self::HostNamespace(namespace) => return namespace.risk_name().into(),
            Self::Mount { path, writable: true } => format!("{MOUNT}{path}{WRITABLE}"),
            Self::Mount { path, writable: false } if path.ends_with(WRITABLE) => format!("{MOUNT}{path}/"),
            Self::Mount { path, writable: false } => format!("{MOUNT}{path}"),
            Self::Socket(path) => format!("{SOCKET}{path}"),
            Self::Device(path) => format!("{DEVICE}{path}"),
            plain => return plain.entry().1.into(),
        };
        owned.into()
    }

    /// The risk of this name; `None` for what is on no list.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let plain = PLAIN.iter().find(|(_, known, _)| *known == name).map(|(risk, ..)| risk.clone());
        let namespace = || Namespace::ALL.into_iter().find(|namespace| namespace.risk_name() == name);
        if let Some(risk) = plain.or_else(|| namespace().map(Self::HostNamespace)) {
            return Some(risk);
        }
        if let Some(capability) = name.strip_prefix(CAPABILITY) {
            return Capability::from_name(capability).map(Self::Capability);
        }
        let absolute = |path: &str| path.starts_with('/').then(|| Arc::from(path));
        if let Some(path) = name.strip_prefix(MOUNT) {
            return match path.strip_suffix(WRITABLE) {
                Some(path) => Some(Self::Mount { path: absolute(path)?, writable: true }),
                None => {
                    let marked = path.strip_suffix('/').filter(|path| path.ends_with(WRITABLE));
                    Some(Self::Mount { path: absolute(marked.unwrap_or(path))?, writable: false })
                }
            };
        }
        let socket = name.strip_prefix(SOCKET).map(|path| absolute(path).map(Self::Socket));
        socket.or_else(|| name.strip_prefix(DEVICE).map(|path| absolute(path).map(Self::Device)))?
    }

    /// How much it tells, from 1 (many honest containers have it) to 10 (the host is as good as taken).
    #[must_use]
    pub fn weight(&self) -> u8 {
        match self {
            Self::Capability(capability) => capability.weight(),
            Self::HostNamespace(namespace) => namespace.weight(),
            Self::Mount { path, writable } => mounts::weight(path, *writable),
            Self::Socket(_) => SOCKET_WEIGHT,
            Self::Device(_) => DEVICE_WEIGHT,
            plain => plain.entry().2,
        }
    }

    fn entry(&self) -> &'static (Self, &'static str, u8) {
        PLAIN.iter().find(|(risk, ..)| risk == self).expect("invariant: every risk without a value is listed")
    }
}

/// The risks of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Risks {
    /// The heaviest first, equal ones by name; each once; at most [`RISKS_MAX`].
    pub list: Arc<[Risk]>,
    /// There were more, or a path was cut.
    pub truncated: bool,
}

impl Risks {
    /// Puts risks in order and within their bounds.
    #[must_use]
    pub fn new(found: impl IntoIterator<Item = Risk>) -> Self {
        let mut truncated = false;
        let mut keyed: Vec<_> = found
            .into_iter()
            .map(|mut risk| {
                truncated |= risk.cut_path();
                (Reverse(risk.weight()), risk.name(), risk)
            })
            .collect();
        keyed.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        keyed.dedup_by(|one, other| one.1 == other.1);
        truncated |= keyed.len() > RISKS_MAX;
        keyed.truncate(RISKS_MAX);
        Self { list: keyed.into_iter().map(|(.., risk)| risk).collect(), truncated }
    }

    /// Those of both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut all = Self::new(self.list.iter().chain(&*other.list).cloned());
        all.truncated |= self.truncated || other.truncated;
        all
    }
}

impl Risk {
    /// Cuts a path to [`PATH_MAX`], and says whether it had to.
    fn cut_path(&mut self) -> bool {
        let (Self::Mount { path, .. } | Self::Socket(path) | Self::Device(path)) = self else { return false };
        if path.len() <= PATH_MAX {
            return false;
        }
        let end = path.floor_char_boundary(PATH_MAX);
        *path = Arc::from(path[..end].trim_end_matches('/'));
        true
    }
}

#[cfg(test)]
mod tests;
