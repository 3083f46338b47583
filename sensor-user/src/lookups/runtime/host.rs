//! What of this host decides whether something of a container tells: security modules, namespaces, sockets.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sensor_core::fact::Runtime;
use sensor_core::risks::Host;

use super::super::cgroupfs::Hierarchies;
use super::super::confinement::Confinement;
use super::super::{Roots, paths, runtime_sockets};

/// Least time between two looks at the sockets of runtimes.
const SOCKETS_INTERVAL: Duration = Duration::from_secs(1);
/// Names of an OCI spec for namespaces, and of procfs.
const NAMESPACES: [(&str, &str); 7] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("user", "user"),
    ("cgroup", "cgroup"),
    ("mount", "mnt"),
];

/// What is known of the host, looked at once or seldom.
#[derive(Debug)]
pub(super) struct HostFacts {
    roots: Roots,
    sockets_configured: Vec<(Arc<str>, Runtime)>,
    /// Namespaces of init by name in a spec; without the right to look at it, there are none.
    namespaces: Vec<(&'static str, (u64, u64))>,
    seen: Mutex<(Instant, Host)>,
}

impl HostFacts {
    pub(super) fn new(
        roots: &Roots,
        hierarchies: &Hierarchies,
        sockets_configured: Vec<(Arc<str>, Runtime)>,
    ) -> Self {
        let namespaces = NAMESPACES
            .iter()
            .filter_map(|(name, file)| {
                Some((*name, paths::identity(roots, &format!("/proc/1/ns/{file}"), true)?))
            })
            .collect();
        let Confinement { apparmor, selinux } = Confinement::find(roots);
        let host = Host {
            apparmor,
            selinux,
            unified_cgroups: hierarchies.unified.is_some() && hierarchies.pids.is_none(),
            sockets: find_sockets(roots, &sockets_configured),
            directories: Vec::new(),
        };
        let roots = roots.clone();
        Self { roots, sockets_configured, namespaces, seen: Mutex::new((Instant::now(), host)) }
    }

    pub(super) fn roots(&self) -> &Roots {
        &self.roots
    }

    /// The host as of now.
    pub(super) fn now(&self) -> Host {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0.elapsed() >= SOCKETS_INTERVAL {
            seen.1.sockets = find_sockets(&self.roots, &self.sockets_configured);
            seen.0 = Instant::now();
        }
        seen.1.clone()
    }

    /// Whether a path of the host leads to the host's own namespace of this kind, as a spec calls it.
    pub(super) fn is_host_namespace(&self, kind: &str, path: &str, may_wait: bool) -> bool {
        let of_host = self.namespaces.iter().find(|(name, _)| *name == kind).map(|(_, key)| *key);
        of_host.is_some() && paths::identity(&self.roots, path, may_wait) == of_host
    }
}

fn find_sockets(roots: &Roots, configured: &[(Arc<str>, Runtime)]) -> Vec<Arc<str>> {
    runtime_sockets::find(roots, configured).found.into_iter().map(|socket| socket.path).collect()
}
