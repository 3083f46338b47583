//! Names of cgroups to containers: what each runtime, driver and version calls the cgroup of a container.
//!
//! Pure text; no table, no state. Names that say nothing by themselves (plain runc, ctr outside the default namespace,
//! arbitrary parents) are resolved by the inventory from the runtime's own arguments.
//!
//! Sources: opencontainers/runc `libcontainer/cgroups`, containers/podman `libpod/container_internal_linux.go`,
//! cri-o `internal/config/cgmgr`, kubernetes `pkg/kubelet/cm/pod_container_manager_linux.go`,
//! moby/buildkit `executor/oci/spec_linux.go`.

use crate::fact::Runtime;
use crate::text::basename;

/// The container a cgroup path speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    /// Full id.
    pub id: &'a str,
    /// The runtime, [`Runtime::Unknown`] when the name does not tell.
    pub runtime: Runtime,
    /// containerd namespace, where the path names it.
    pub namespace: Option<&'a str>,
    /// Pod uid, where the path lies under a pod's cgroup.
    pub pod_uid: Option<String>,
    /// The path of the container's own cgroup: the whole path, or a prefix of it for a cgroup nested inside.
    pub path: &'a str,
}

/// Finds the innermost container in a path with a leading slash.
///
/// Shape: `docker-<id>.scope`, `/docker/<id>`, `cri-containerd-<id>.scope`, `crio-<id>.scope`, `libpod-<id>.scope`,
/// kubepods paths ending in a bare id, and cgroups nested in any of these; `None` for everything that names no
/// container, conmon's own scopes included.
#[must_use]
pub fn container_in_path(path: &str) -> Option<Identity<'_>> {
    let mut rest = path.trim_end_matches('/');
    while let Some((parent, name)) = rest.rsplit_once('/') {
        if let Some((runtime, id)) = container_name(parent, name) {
            let namespace = namespace_of(parent, runtime);
            return Some(Identity { id, runtime, namespace, pod_uid: pod_in_path(parent), path: rest });
        }
        rest = parent;
    }
    None
}

/// Finds the container in a cgroup's own name, without its path.
#[must_use]
pub fn container_in_name(name: &str) -> Option<(Runtime, &str)> {
    container_name("", name)
}

/// Whether an id has the form that Docker, podman, CRI-O and containerd's CRI give out.
#[must_use]
pub fn is_long_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// BuildKit's ids: 25 characters of base 36.
fn is_build_id(id: &str) -> bool {
    id.len() == 25 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z'))
}

/// Prefix, runtime, and the form of its ids.
type Prefix = (&'static str, Runtime, fn(&str) -> bool);

/// How a prefix of a cgroup's name tells the runtime.
const PREFIXES: [Prefix; 8] = [
    ("docker-", Runtime::Docker, |id| is_long_id(id) || is_build_id(id)),
    ("cri-containerd-", Runtime::Containerd, is_long_id),
    ("crio-", Runtime::Crio, is_long_id),
    ("libpod-", Runtime::Podman, is_long_id),
    ("nerdctl-", Runtime::Containerd, is_long_id),
    ("runc-", Runtime::Runc, |id| !id.is_empty()),
    ("crun-", Runtime::Runc, |id| !id.is_empty()),
    ("youki-", Runtime::Runc, |id| !id.is_empty()),
];

/// Judges one component of a path by its name and its parents.
fn container_name<'a>(parent: &str, name: &'a str) -> Option<(Runtime, &'a str)> {
    let unit = name.strip_suffix(".scope");
    for (prefix, runtime, is_id) in PREFIXES {
        let Some(id) = unit.unwrap_or(name).strip_prefix(prefix) else { continue };
        // Free-text ids are believed of systemd units only: `/runc-tests` is a directory like any other.
        return (is_id(id) && (unit.is_some() || is_long_id(id))).then_some((runtime, id));
    }
    if unit.is_some() || name.is_empty() {
        return None;
    }
    match basename(parent) {
        // A pod of podman, not a container; its containers are below it.
        "libpod_parent" => return None,
        "buildkit" if is_build_id(name) => {
            let by_docker = parent.ends_with("/docker/buildkit");
            return Some((if by_docker { Runtime::Docker } else { Runtime::Runc }, name));
        }
        // The namespace of containerd's own tools, and the CRI plugin without a parent.
        _ if matches!(parent, "/default" | "/k8s.io") => return Some((Runtime::Containerd, name)),
        _ => {}
    }
    if !is_long_id(name) {
        return None;
    }
    if is_pod(basename(parent)).is_some() {
        return Some((Runtime::Containerd, name));
    }
    Some((if basename(parent) == "docker" { Runtime::Docker } else { Runtime::Unknown }, name))
}

fn namespace_of(parent: &str, runtime: Runtime) -> Option<&str> {
    if runtime != Runtime::Containerd {
        return None;
    }
    match parent {
        "/default" | "/k8s.io" => Some(&parent[1..]),
        _ if pod_in_path(parent).is_some() => Some("k8s.io"),
        _ => None,
    }
}

/// The uid part of a pod's cgroup: `pod<uid>` (cgroupfs driver) or `…-pod<uid with _>.slice` (systemd driver).
fn is_pod(name: &str) -> Option<&str> {
    let uid = match name.strip_suffix(".slice") {
        Some(unit) if unit.contains("kubepods") => unit.rsplit_once("-pod")?.1,
        Some(_) => return None,
        None => name.strip_prefix("pod")?,
    };
    is_pod_uid(uid).then_some(uid)
}

/// Whether this has the form of a pod's uid, with dashes or, in the name of a systemd unit, underscores: an MD5 for
/// static pods, a UUID for all others.
pub(crate) fn is_pod_uid(uid: &str) -> bool {
    matches!(uid.len(), 32 | 36)
        && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b'_'))
}

/// The user below whose own slice a path lies.
pub(crate) fn user_of_slice(path: &str) -> Option<u32> {
    let (user, _) = path.strip_prefix("/user.slice/user-")?.split_once(".slice/")?;
    user.parse().ok()
}

/// The uid of the pod below whose cgroup this path lies: that of a cgroup, or `slice:prefix:name` as runtimes are asked for one.
pub(crate) fn pod_in_path(path: &str) -> Option<String> {
    path.rsplit(['/', ':']).find_map(is_pod).map(|uid| uid.replace('_', "-"))
}

#[cfg(test)]
mod tests;
