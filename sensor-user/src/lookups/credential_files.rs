//! Where credential files lie on this host: the file systems of pods' volumes, and directories.
//!
//! Directories and not files, because credentials are replaced by new files under the same names.

use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};

use sensor_common::settings::CREDENTIAL_PLACES_MAX;
use sensor_core::credentials::{CredentialPlace, PlaceKind};
use sensor_core::ids::FileKey;

use super::Roots;
use super::file::FileError;
use super::mounts::{self, Mount, directory_key, is_absence};

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

/// The places that are there, at most [`CREDENTIAL_PLACES_MAX`].
#[derive(Debug, Default)]
pub struct Places {
    /// The places.
    pub found: Vec<Found>,
    /// There are more: directories with too many entries or levels were not looked through, or the places are too many.
    pub cut: bool,
    /// What is in some of them, or whether they are there, is not known: no right to look, or an error of the file system.
    pub unreadable: bool,
}

/// Finds the places that are there now.
///
/// # Errors
/// When the mounts of this process cannot be read.
pub fn find(roots: &Roots) -> Result<Places, FileError> {
    let text = mounts::text(roots)?;
    let mounts: Vec<Mount<'_>> = text.lines().filter_map(Mount::parse).collect();
    let mut places = Places { found: mounts.iter().filter_map(pod_volume).collect(), ..Places::default() };
    for (path, kind, with_those_below) in DIRECTORIES {
        let levels = with_those_below.then_some(DEPTH_MAX);
        places.add(&mounts, roots.host_path(path), *kind, levels);
    }
    let homes = places.entries(&roots.host_path(HOMES));
    for home in homes.into_iter().map(|home| home.path()).chain([roots.host_path("/root")]) {
        for (name, kind) in IN_HOMES {
            places.add(&mounts, home.join(name), *kind, None);
        }
    }
    places.found.sort_unstable();
    // A volume of a pod may be mounted at several places, a directory may be a link to another.
    places.found.dedup_by_key(|found| found.place.key);
    places.cut |= places.found.len() > CREDENTIAL_PLACES_MAX as usize;
    places.found.truncate(CREDENTIAL_PLACES_MAX as usize);
    Ok(places)
}

impl Places {
    /// The entries of a directory, as far as it may be looked through.
    fn entries(&mut self, path: &Path) -> Vec<DirEntry> {
        let mut all = match fs::read_dir(path) {
            Ok(all) => all,
            Err(error) => {
                self.unreadable |= !is_absence(&error);
                return Vec::new();
            }
        };
        let mut entries = Vec::new();
        for entry in all.by_ref().take(ENTRIES_MAX) {
            match entry {
                Ok(entry) => entries.push(entry),
                Err(_) => self.unreadable = true,
            }
        }
        self.cut |= all.next().is_some();
        entries
    }

    /// Adds a directory, with those so many levels below it.
    fn add(&mut self, mounts: &[Mount<'_>], path: PathBuf, kind: PlaceKind, levels: Option<u32>) {
        let key = match directory_key(&path, mounts) {
            Ok(Some(key)) => key,
            Ok(None) => return,
            Err(_) => {
                self.unreadable = true;
                return;
            }
        };
        if let Some(levels) = levels {
            let is_directory = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
            for entry in self.entries(&path).into_iter().filter(is_directory) {
                match levels.checked_sub(1) {
                    Some(below) => self.add(mounts, entry.path(), kind, Some(below)),
                    None => self.cut = true,
                }
            }
        }
        self.found.push(Found { place: CredentialPlace { key, kind }, path });
    }
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
        let places = find(&roots).expect("mounts");
        let of_test: Vec<_> = places.found.iter().filter(|found| found.path.starts_with(host)).collect();
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
        assert!(!places.cut);

        // One level more than is looked at, and nothing is silent about it.
        fs::create_dir_all(host.join("etc/kubernetes/pki/a/b/c")).expect("directories");
        assert!(!find(&roots).expect("mounts").cut);
        fs::create_dir(host.join("etc/kubernetes/pki/a/b/c/d")).expect("a directory");
        assert!(find(&roots).expect("mounts").cut);
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_taken_for_absent() {
        let directory = tempfile::tempdir().expect("a directory");
        let roots = Roots { host: directory.path().into(), ..Roots::default() };
        fs::create_dir_all(directory.path().join("home/ann")).expect("a directory");
        fs::write(directory.path().join("etc"), "no directory").expect("a file");
        assert!(!find(&roots).expect("mounts").unreadable, "nothing is there");
        // Links to themselves: an error for everybody, whatever his rights.
        std::os::unix::fs::symlink(".kube", directory.path().join("home/ann/.kube")).expect("a link");
        assert!(find(&roots).expect("mounts").unreadable);
        fs::remove_dir_all(directory.path().join("home")).expect("removed");
        std::os::unix::fs::symlink("home", directory.path().join("home")).expect("a link");
        assert!(find(&roots).expect("mounts").unreadable);
    }

    #[test]
    fn more_homes_than_are_looked_at_are_said() {
        let directory = tempfile::tempdir().expect("a directory");
        let roots = Roots { host: directory.path().into(), ..Roots::default() };
        for number in 0..ENTRIES_MAX {
            fs::create_dir_all(directory.path().join(format!("home/{number}"))).expect("a directory");
        }
        assert!(!find(&roots).expect("mounts").cut);
        fs::create_dir(directory.path().join("home/one-more")).expect("a directory");
        assert!(find(&roots).expect("mounts").cut);
    }
}
