//! Where credential files lie on this host: the file systems of pods' volumes, and directories.
//!
//! Directories and not files, because credentials are replaced by new files under the same names.

use std::fs;
use std::path::PathBuf;

use sensor_common::settings::CREDENTIAL_PLACES_MAX;
use sensor_core::credentials::{CredentialPlace, PlaceKind};
use sensor_core::ids::FileKey;

use super::Roots;
use super::file::FileError;
use super::mounts::{self, Mount, directory_key};

/// Directories, each with whether those below it count, too.
const DIRECTORIES: &[(&str, PlaceKind, bool)] = &[
    ("/etc/kubernetes", PlaceKind::Kubernetes, false),
    ("/etc/kubernetes/pki", PlaceKind::ClusterPki, true),
    ("/var/lib/kubelet", PlaceKind::Kubelet, false),
    ("/var/lib/kubelet/pki", PlaceKind::KubeletPki, false),
    ("/etc/docker/certs.d", PlaceKind::DockerCerts, true),
];
/// Directories in a home directory.
const IN_HOMES: &[(&str, PlaceKind)] = &[(".kube", PlaceKind::KubeHome), (".docker", PlaceKind::DockerHome)];
/// Where the home directories of users are.
const HOMES: &str = "/home";
/// Most entries of one directory that are looked at.
const ENTRIES_MAX: usize = 1000;
/// Levels below a directory that counts with those below it.
const DEPTH_MAX: u32 = 3;

/// A place and its path as this process sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The place.
    pub place: CredentialPlace,
    /// Its path.
    pub path: PathBuf,
}

/// Finds the places that are there now, at most [`CREDENTIAL_PLACES_MAX`].
///
/// # Errors
/// When the mounts of this process cannot be read.
pub fn find(roots: &Roots) -> Result<Vec<Found>, FileError> {
    let text = mounts::text(roots)?;
    let mounts: Vec<Mount<'_>> = text.lines().filter_map(Mount::parse).collect();
    let mut found: Vec<Found> = mounts.iter().filter_map(pod_volume).collect();
    let mut add = |path: PathBuf, kind, depth| add_directory(&mut found, &mounts, path, kind, depth);
    for (path, kind, with_those_below) in DIRECTORIES {
        add(roots.host_path(path), *kind, if *with_those_below { DEPTH_MAX } else { 0 });
    }
    let homes = fs::read_dir(roots.host_path(HOMES)).into_iter().flatten().flatten().take(ENTRIES_MAX);
    for home in homes.map(|home| home.path()).chain([roots.host_path("/root")]) {
        for (name, kind) in IN_HOMES {
            add(home.join(name), *kind, 0);
        }
    }
    found.sort_unstable();
    // A volume of a pod may be mounted at several places, a directory may be a link to another.
    found.dedup_by_key(|found| found.place.key);
    found.truncate(CREDENTIAL_PLACES_MAX as usize);
    Ok(found)
}

/// The file system that a pod's tokens and secrets are in: each volume has its own, in memory.
fn pod_volume(mount: &Mount<'_>) -> Option<Found> {
    const KUBELET: [&str; 2] = ["/kubernetes.io~projected/", "/kubernetes.io~secret/"];
    const IN_POD: &str = "/secrets/kubernetes.io/serviceaccount";
    let is_volume =
        KUBELET.iter().any(|part| mount.mount_point.contains(part)) || mount.mount_point.ends_with(IN_POD);
    if mount.kind != "tmpfs" || !is_volume {
        return None;
    }
    let place =
        CredentialPlace { key: FileKey { device: mount.device, inode: 0 }, kind: PlaceKind::PodVolume };
    Some(Found { place, path: PathBuf::from(&mount.mount_point) })
}

fn add_directory(found: &mut Vec<Found>, mounts: &[Mount<'_>], path: PathBuf, kind: PlaceKind, depth: u32) {
    let Some(key) = directory_key(&path, mounts) else { return };
    if depth > 0 {
        for entry in fs::read_dir(&path).into_iter().flatten().flatten().take(ENTRIES_MAX) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                add_directory(found, mounts, entry.path(), kind, depth - 1);
            }
        }
    }
    found.push(Found { place: CredentialPlace { key, kind }, path });
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn volumes_of_pods_are_known_by_their_mount_point() {
        let volume = |point: &str, kind: &str| {
            let line = format!("51 31 0:77 / {point} rw - {kind} none rw");
            pod_volume(&Mount::parse(&line).expect("a mount")).map(|found| found.place)
        };
        let place = CredentialPlace { key: FileKey { device: 77, inode: 0 }, kind: PlaceKind::PodVolume };
        let pod = "/var/lib/kubelet/pods/8c1/volumes";
        assert_eq!(volume(&format!("{pod}/kubernetes.io~projected/kube-api-access-x"), "tmpfs"), Some(place));
        assert_eq!(volume(&format!("{pod}/kubernetes.io~secret/s"), "tmpfs"), Some(place));
        assert_eq!(volume("/run/secrets/kubernetes.io/serviceaccount", "tmpfs"), Some(place));
        // Whoever mounts a disk there does not make it all credentials.
        assert_eq!(volume(&format!("{pod}/kubernetes.io~projected/x"), "ext4"), None);
        assert_eq!(volume(&format!("{pod}/kubernetes.io~empty-dir/x"), "tmpfs"), None);
    }

    #[test]
    fn directories_are_found_with_those_below() {
        let directory = tempfile::tempdir().expect("a directory");
        let host = directory.path();
        for path in ["etc/kubernetes/pki/etcd", "home/ann/.kube", "root/.docker", "var/lib"] {
            fs::create_dir_all(host.join(path)).expect("a directory");
        }
        fs::write(host.join("root/.kube"), "no directory").expect("a file");
        let roots = Roots { host: host.into(), ..Roots::default() };
        let found = find(&roots).expect("mounts");
        let of_test: Vec<_> = found.iter().filter(|found| found.path.starts_with(host)).collect();
        for (path, kind) in [
            ("etc/kubernetes", PlaceKind::Kubernetes),
            ("etc/kubernetes/pki", PlaceKind::ClusterPki),
            ("etc/kubernetes/pki/etcd", PlaceKind::ClusterPki),
            ("home/ann/.kube", PlaceKind::KubeHome),
            ("root/.docker", PlaceKind::DockerHome),
        ] {
            let path = host.join(path);
            let place = of_test.iter().find(|found| found.path == path).expect("found").place;
            let inode = fs::metadata(&path).expect("it is there").ino();
            assert_eq!((place.kind, place.key.inode), (kind, inode), "{}", path.display());
        }
        assert_eq!(of_test.len(), 5, "{of_test:?}");
    }
}
