//! Capabilities of the kernel, and which of them tell.
//!
//! A capability tells when no runtime gives it by default and it reaches beyond the container's own namespaces. Left out
//! on purpose: what docker, containerd, podman or CRI-O give to everybody (`CHOWN`, `DAC_OVERRIDE`, `FOWNER`, `FSETID`,
//! `KILL`, `SETGID`, `SETUID`, `SETPCAP`, `SETFCAP`, `NET_BIND_SERVICE`, `NET_RAW`, `SYS_CHROOT`, `MKNOD`, `AUDIT_WRITE`;
//! a node that `MKNOD` makes is of no use while the device cgroup refuses it), and what can only slow the host down or
//! is bound to what the container has anyway (`IPC_LOCK`, `IPC_OWNER`, `LEASE`, `LINUX_IMMUTABLE`, `NET_BROADCAST`,
//! `SYS_NICE`, `SYS_PACCT`, `SYS_RESOURCE`, `SYS_TTY_CONFIG`, `WAKE_ALARM`, `BLOCK_SUSPEND`, `AUDIT_READ`,
//! `CHECKPOINT_RESTORE`).
//!
//! Source: capabilities(7); include/uapi/linux/capability.h; the default lists of moby `oci/caps/defaults.go` and
//! containerd `pkg/oci/spec.go`.

/// Names by number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// One capability, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Capability(u8);

impl Capability {
    /// Makes a process root again that was started as another user.
    pub const SETUID: Self = Self(7);

    /// The name without `CAP_`.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }

    /// The capability of this name, with or without `CAP_`, in any case: runtimes differ.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let bare = match name.get(..4) {
            Some(prefix) if prefix.eq_ignore_ascii_case("CAP_") => &name[4..],
            _ => name,
        };
        let number = NAMES.iter().position(|known| known.eq_ignore_ascii_case(bare))?;
        u8::try_from(number).ok().map(Self)
    }

    /// The weight of the risk; 1 for those that are none.
    pub(super) fn weight(self) -> u8 {
        TELLING.iter().find(|(name, _)| *name == self.name()).map_or(1, |(_, weight)| *weight)
    }
}

/// The capabilities that tell, with their weights; why is in docs/detections/risks.md.
const TELLING: [(&str, u8); 14] = [
    ("SYS_ADMIN", 10),
    ("SYS_MODULE", 10),
    ("SYS_RAWIO", 9),
    ("DAC_READ_SEARCH", 9),
    ("BPF", 8),
    ("SYS_BOOT", 8),
    ("SYS_PTRACE", 7),
    ("PERFMON", 6),
    ("MAC_ADMIN", 6),
    ("MAC_OVERRIDE", 6),
    ("NET_ADMIN", 5),
    ("AUDIT_CONTROL", 5),
    ("SYS_TIME", 4),
    ("SYSLOG", 3),
];
/// Those that kernels before 5.8 do not have.
const LATE: [&str; 2] = ["BPF", "PERFMON"];

/// A set of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Every capability that this program knows.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);
    /// What docker and containerd give when nothing is said.
    pub const DEFAULT: Self = Self(0xa804_25fb);

    /// Adds a capability.
    pub fn insert(&mut self, capability: Capability) {
        self.0 |= 1 << capability.0;
    }

    /// Takes one out.
    pub fn remove(&mut self, capability: Capability) {
        self.0 &= !(1 << capability.0);
    }

    /// Whether it is in the set.
    #[must_use]
    pub fn contains(self, capability: Capability) -> bool {
        self.0 & (1 << capability.0) != 0
    }

    /// Those that tell.
    pub(super) fn telling(self) -> impl Iterator<Item = Capability> {
        TELLING
            .iter()
            .filter_map(|(name, _)| Capability::from_name(name))
            .filter(move |capability| self.contains(*capability))
    }

    /// Whether every one is there that tells and that any kernel has.
    pub(super) fn is_full(self) -> bool {
        self.telling().filter(|capability| !LATE.contains(&capability.name())).count()
            == TELLING.len() - LATE.len()
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(capabilities: I) -> Self {
        let mut set = Self::default();
        capabilities.into_iter().for_each(|capability| set.insert(capability));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_every_spelling() {
        for name in ["SYS_ADMIN", "CAP_SYS_ADMIN", "cap_sys_admin"] {
            assert_eq!(Capability::from_name(name).map(Capability::name), Some("SYS_ADMIN"), "{name}");
        }
        for name in ["", "CAP_", "ALL", "SYS_ADMIN "] {
            assert_eq!(Capability::from_name(name), None, "{name}");
        }
        // Numbers as in include/uapi/linux/capability.h.
        for (name, number) in [("CHOWN", 0), ("SYS_ADMIN", 21), ("SYSLOG", 34), ("CHECKPOINT_RESTORE", 40)] {
            assert_eq!(Capability::from_name(name), Some(Capability(number)), "{name}");
        }
    }

    #[test]
    fn the_default_set_tells_nothing_and_the_full_one_everything() {
        assert_eq!(Capabilities::DEFAULT.telling().count(), 0);
        assert!(Capabilities::DEFAULT.contains(Capability::SETUID));
        assert_eq!(Capabilities::ALL.telling().count(), TELLING.len());
        let mut set = Capabilities::ALL;
        for name in ["SYS_RESOURCE", "BPF", "PERFMON"] {
            set.remove(Capability::from_name(name).expect(name));
        }
        assert!(set.is_full(), "older kernels and sandboxes lack these");
        set.remove(Capability::from_name("SYS_ADMIN").expect("a name"));
        assert!(!set.is_full());
    }
}
