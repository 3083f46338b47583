//! Which parts of the host's tree are sensitive, and which mounts of them are none of the container's doing.

use std::sync::Arc;

use super::spec::Own;
use crate::cgroup_path::is_long_id;
use crate::text::basename;

/// Sensitive places with the weight of a writable and of a read-only mount; 0: read-only, it tells nothing.
///
/// A mount of a place, of anything below it and of any directory above it counts. Below, the longest entry decides; above,
/// the heaviest. Why each is here is in docs/detections/risks.md.
pub(super) const SENSITIVE: &[(&str, u8, u8)] = &[
    ("/", 10, 9),
    ("/bin", 9, 0),
    ("/boot", 8, 1),
    ("/dev", 9, 6),
    ("/dev/shm", 3, 1),
    ("/etc", 10, 5),
    ("/etc/kubernetes", 10, 8),
    ("/home", 7, 4),
    ("/lib", 9, 0),
    ("/lib64", 9, 0),
    ("/opt/cni", 9, 0),
    ("/proc", 10, 5),
    ("/root", 9, 7),
    ("/run", 6, 3),
    ("/run/containerd", 10, 6),
    ("/run/containers", 10, 6),
    ("/run/crio", 10, 6),
    ("/run/docker", 10, 6),
    ("/run/k3s", 10, 6),
    ("/run/podman", 10, 6),
    ("/sbin", 9, 0),
    ("/sys", 8, 2),
    ("/usr", 9, 0),
    ("/var/lib/containerd", 10, 6),
    ("/var/lib/containers", 10, 6),
    ("/var/lib/docker", 10, 6),
    ("/var/lib/etcd", 10, 9),
    ("/var/lib/k0s", 10, 8),
    ("/var/lib/kubelet", 10, 8),
    ("/var/lib/rancher", 10, 8),
    ("/var/log", 4, 1),
    ("/var/snap/microk8s", 10, 8),
    ("/var/spool/cron", 10, 3),
];

/// Files that everybody mounts and nobody learns anything from, as long as they are read-only.
const PUBLIC: &[&str] = &[
    "/etc/ca-certificates",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/localtime",
    "/etc/os-release",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/resolv.conf",
    "/etc/ssl/certs",
    "/etc/timezone",
    "/run/systemd/resolve",
];
/// Devices that every container has.
const DEVICES: &[&str] = &["/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"];
/// Weights of what a manager keeps elsewhere than by default, as of [`SENSITIVE`]'s `/var/lib/docker`.
const ELSEWHERE: (u8, u8) = (10, 6);
/// Where managers keep named volumes: `<directory>/volumes/<name>/_data`.
const WITH_VOLUMES: &[&str] = &["/var/lib/docker", "/var/lib/containers/storage"];
/// Names of runtimes' sockets, wherever they lie.
const SOCKETS: &[&str] = &[
    "buildkitd.sock",
    "containerd.sock",
    "cri-dockerd.sock",
    "crio.sock",
    "docker.sock",
    "dockershim.sock",
    "podman.sock",
];

/// The weight of a mount of this path of the host that tells: in no place of the table it is a manager's directory.
pub(super) fn weight(path: &str, writable: bool) -> u8 {
    listed_weight(path, writable).unwrap_or(if writable { ELSEWHERE.0 } else { ELSEWHERE.1 })
}

/// Whether a mount of this path of the host tells; `directories` are those that managers were told to use.
pub(super) fn is_sensitive(path: &str, writable: bool, directories: &[Arc<str>]) -> bool {
    let is_managers = |directory: &Arc<str>| is_within(path, directory) || is_within(directory, path);
    listed_weight(path, writable).is_some() || directories.iter().any(is_managers)
}

/// The weight by the table; `None` when a mount of this path tells nothing by it.
fn listed_weight(path: &str, writable: bool) -> Option<u8> {
    let of = |entry: &(&str, u8, u8)| if writable { entry.1 } else { entry.2 };
    let above = SENSITIVE.iter().filter(|(place, ..)| is_within(place, path)).map(of).max();
    // The root is above everything, and nothing is sensitive for being below it.
    let around = SENSITIVE
        .iter()
        .filter(|(place, ..)| *place != "/" && is_within(path, place))
        .max_by_key(|(place, ..)| place.len())
        .map(of);
    above.max(around).filter(|weight| *weight > 0)
}

/// Whether a mount of a sensitive path is what every container has, or its manager's doing.
pub(super) fn is_expected(path: &str, writable: bool, own: &Own, directories: &[Arc<str>]) -> bool {
    let is_public = || !writable && PUBLIC.iter().any(|public| is_within(path, public));
    DEVICES.contains(&path) || is_public() || is_volume(path, directories) || is_own(path, own)
}

/// Whether this is the socket of a runtime by its name.
pub(super) fn is_socket(path: &str) -> bool {
    SOCKETS.contains(&basename(path))
}

/// Whether `path` is `place` or lies below it.
pub(super) fn is_within(path: &str, place: &str) -> bool {
    match path.strip_prefix(place) {
        Some(rest) => rest.is_empty() || rest.starts_with('/') || place.ends_with('/'),
        None => false,
    }
}

fn is_volume(path: &str, directories: &[Arc<str>]) -> bool {
    let elsewhere = directories.iter().map(AsRef::as_ref);
    WITH_VOLUMES.iter().copied().chain(elsewhere).any(|directory| {
        let below = path.strip_prefix(directory).and_then(|rest| rest.strip_prefix("/volumes/"));
        let Some((name, rest)) = below.and_then(|rest| rest.split_once('/')) else {
            return false;
        };
        !name.is_empty() && is_within(rest, "_data")
    })
}

/// Whether a directory on the way bears the id of the container or its sandbox, or is the directory of its pod.
///
/// Ids that anybody can choose do not count: `containers` is the id of a container, too, if somebody wants it to be.
fn is_own(path: &str, own: &Own) -> bool {
    let mut before = "";
    path.split('/').any(|name| {
        let parent = std::mem::replace(&mut before, name);
        let is_id = || is_long_id(name) && own.ids.iter().any(|id| **id == *name);
        let is_pod = || parent == "pods" && own.pod_uid.as_deref() == Some(name);
        is_id() || is_pod()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4b6832429f73fdc1073278bf44f3f837ce2be1c5356e81c659af68152cc21f1c";
    const POD: &str = "6f1c2f0e-7d5a-4e0f-9b43-3f1d2a5b6c7d";

    #[test]
    fn places_count_with_what_is_below_and_above_them() {
        for (path, writable, read_only) in [
            ("/", Some(10), Some(9)),
            ("/etc", Some(10), Some(8)),
            ("/etc/kubernetes/pki", Some(10), Some(8)),
            ("/etc/passwd", Some(10), Some(5)),
            ("/var", Some(10), Some(9)),
            ("/var/lib", Some(10), Some(9)),
            ("/var/lib/kubelet/pki", Some(10), Some(8)),
            ("/usr/share/zoneinfo", Some(9), None),
            ("/lib/modules", Some(9), None),
            ("/run/udev", Some(6), Some(3)),
            ("/srv", None, None),
            ("/data/etc", None, None),
            ("/etcetera", None, None),
            ("/var/lib/dockerish", None, None),
        ] {
            assert_eq!(
                (listed_weight(path, true), listed_weight(path, false)),
                (writable, read_only),
                "{path}"
            );
        }
    }

    #[test]
    fn directories_of_managers_count_wherever_they_are() {
        let directories: &[Arc<str>] = &["/data/docker".into(), "/mnt/state".into()];
        for (path, tells) in [
            ("/data/docker", true),
            ("/data/docker/overlay2", true),
            ("/data", true),
            ("/mnt/state/x", true),
            ("/data/dockerish", false),
            ("/data/app", false),
        ] {
            assert_eq!(is_sensitive(path, false, directories), tells, "{path}");
            assert!(!is_sensitive(path, true, &[]), "{path}");
        }
        let default = "/var/lib/docker";
        assert_eq!(
            [true, false].map(|rw| weight("/data/docker", rw)),
            [true, false].map(|rw| weight(default, rw))
        );
        let is_expected = |path| is_expected(path, true, &Own::default(), directories);
        assert!(is_expected("/data/docker/volumes/v/_data") && !is_expected("/data/docker/volumes"));
    }

    #[test]
    fn what_managers_mount_is_expected() {
        let own = Own { ids: vec![ID.into()], pod_uid: Some(POD.into()) };
        for path in [
            format!("/var/lib/docker/containers/{ID}/resolv.conf"),
            format!("/run/containers/storage/overlay-containers/{ID}/userdata/shm"),
            format!("/var/lib/kubelet/pods/{POD}/volumes/kubernetes.io~projected/kube-api-access-x"),
            format!("/var/lib/kubelet/pods/{POD}/etc-hosts"),
            "/var/lib/docker/volumes/data/_data".to_owned(),
            "/var/lib/docker/volumes/data/_data/sub".to_owned(),
            "/dev/null".to_owned(),
        ] {
            assert!(is_expected(&path, true, &own, &[]), "{path}");
        }
        assert!(
            is_expected("/etc/localtime", false, &own, &[])
                && !is_expected("/etc/localtime", true, &own, &[])
        );
        assert!(is_expected("/etc/ssl/certs/ca.pem", false, &own, &[]));
    }

    #[test]
    fn what_is_somebody_elses_is_not() {
        let other = "0".repeat(64);
        let own = Own { ids: vec![ID.into(), "containers".into()], pod_uid: Some(POD.into()) };
        for path in [
            format!("/var/lib/docker/containers/{other}/hosts"),
            "/var/lib/docker/containers".to_owned(),
            "/var/lib/docker/volumes".to_owned(),
            "/var/lib/docker/volumes/data".to_owned(),
            "/var/lib/kubelet/pods".to_owned(),
            "/var/lib/kubelet/pods/0b1c/volumes/kubernetes.io~secret/x".to_owned(),
            "/dev/sda".to_owned(),
        ] {
            assert!(!is_expected(&path, true, &own, &[]), "{path}");
        }
        let nobody = Own::default();
        assert!(!is_expected(&format!("/var/lib/kubelet/pods/{POD}/etc-hosts"), false, &nobody, &[]));
    }

    #[test]
    fn sockets_are_known_by_name() {
        assert!(is_socket("/srv/docker.sock") && is_socket("/run/crio/crio.sock"));
        assert!(!is_socket("/run/docker") && !is_socket("/run/mydocker.sock"));
    }
}
