//! What lies behind a volume: the drivers called `local` of docker and podman mount whatever a client asks them to, parts of
//! the host included, and the spec names the directory of the volume only.
//!
//! Docker keeps the options in a file. Podman has them in its database; but both mount a volume before they call the
//! runtime, and the list of mounts says what.
//!
//! **Source**: moby `volume/local/local.go`, `optsConfig`.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{major, minor};
use sensor_core::risks::{Mount, MountKind, normal};
use serde::Deserialize;

use super::super::mounts as host_mounts;
use super::super::{Roots, file, paths};
use super::mounts;

/// Adds what lies behind those mounts that are volumes with options, and the place of the host whose device is mounted.
pub(super) fn look_behind(found: &mut Vec<Mount>, roots: &Roots, owner: Option<u32>) {
    let place = |path: &str| paths::resolve(roots, path, owner.is_none());
    let binds = found.iter().filter(|mount| mount.kind == MountKind::Bind);
    let mut behind: Vec<Mount> = binds
        .filter_map(|mount| Some((mount, options(roots, &mount.source, owner)?)))
        .flat_map(|(mount, options)| {
            let Mount { destination, writable, .. } = mount;
            let found = options.read(destination, &place);
            found.into_iter().map(|found| Mount { writable: found.writable && *writable, ..found })
        })
        .collect();
    behind.extend(known_elsewhere(found.iter().chain(&behind), roots));
    found.extend(behind);
}

/// Mounts of the same by the name that the host has for it.
fn known_elsewhere<'a>(found: impl Iterator<Item = &'a Mount>, roots: &Roots) -> Vec<Mount> {
    let candidates: Vec<&Mount> =
        found.filter(|mount| mount.kind == MountKind::Block || directory(&mount.source).is_some()).collect();
    // Long on hosts with many containers, and most have no volume.
    if candidates.is_empty() {
        return Vec::new();
    }
    let Ok(text) = host_mounts::text(roots) else { return Vec::new() };
    let mounts = HostMounts::parse(&text, &roots.host);
    let elsewhere = |mount: &Mount| match mount.kind {
        MountKind::Bind => mounts.origin(&mount.source),
        MountKind::Block => {
            let device = fs::metadata(roots.host_path(&*mount.source)).ok()?.rdev();
            let device = host_mounts::device_number(major(device), minor(device));
            mounts.place_of(device, "/", None).map(|place| (place, true))
        }
        MountKind::Sysfs | MountKind::Cgroup => None,
    };
    let named = |mount: &&Mount| {
        let (place, writable) = elsewhere(mount)?;
        let writable = mount.writable && writable;
        Some(Mount { kind: MountKind::Bind, source: place.into(), writable, ..(*mount).clone() })
    };
    candidates.iter().filter_map(named).collect()
}

/// The list of the host's mounts.
struct HostMounts<'a>(Vec<HostMount<'a>>);

/// One of them.
struct HostMount<'a> {
    /// Where it is, on the host.
    point: String,
    /// Number of the device, and path within its file system.
    device: u32,
    root: &'a str,
    writable: bool,
}

impl<'a> HostMounts<'a> {
    /// Reads `mountinfo`; `host` is where this process has the host's root.
    fn parse(text: &'a str, host: &Path) -> Self {
        let read = |line: &'a str| {
            let mount = host_mounts::Mount::parse(line)?;
            let below = Path::new(&mount.mount_point).strip_prefix(host).ok()?;
            let point = normal(below.to_str()?);
            let options = line.split(' ').nth(5)?;
            let writable = !options.split(',').any(|option| option == "ro");
            Some(HostMount { point, device: mount.device, root: mount.root, writable })
        };
        Self(text.lines().filter_map(read).collect())
    }

    /// Where else the host has what is mounted on the volume that this path is in, and whether it can be written here.
    fn origin(&self, path: &str) -> Option<(String, bool)> {
        let volume = format!("{}/_data", directory(path)?);
        let covering = self
            .0
            .iter()
            .filter(|mount| below(&mount.point, &volume).is_some() && below(path, &mount.point).is_some());
        let mount = covering.max_by_key(|mount| mount.point.len())?;
        let inside = join(mount.root, below(path, &mount.point)?);
        Some((self.place_of(mount.device, &inside, Some(mount))?, mount.writable))
    }

    /// The shortest name that the host has for a path within a file system, but by this mount.
    fn place_of(&self, device: u32, path: &str, but: Option<&HostMount<'_>>) -> Option<String> {
        let others = self
            .0
            .iter()
            .filter(|mount| mount.device == device && but.is_none_or(|but| but.point != mount.point));
        others
            .filter_map(|mount| Some(join(&mount.point, below(path, mount.root)?)))
            .min_by(|one, other| (one.len(), one).cmp(&(other.len(), other)))
    }
}

/// What a path has below a directory; empty for the directory itself.
fn below<'p>(path: &'p str, directory: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(directory.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_start_matches('/'))
}

fn join(directory: &str, below: &str) -> String {
    normal(&format!("{directory}/{below}"))
}

/// `opts.json` beside the directory of a volume; volumes without options have none.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
struct VolumeOptions {
    /// Type of the file system; `none` of a bind mount.
    #[serde(default)]
    mount_type: String,
    /// As of `mount -o`.
    #[serde(default)]
    mount_opts: String,
    /// Device, or directory of the host.
    #[serde(default)]
    mount_device: String,
}

impl VolumeOptions {
    fn read(&self, destination: &str, place: &dyn Fn(&str) -> Arc<str>) -> Vec<Mount> {
        let options: Vec<&str> = self.mount_opts.split(',').collect();
        mounts::read(&self.mount_type, &self.mount_device, &options, destination, place)
    }
}

/// The options of the volume that a path of the host is in, if it is in one that has any.
fn options(roots: &Roots, path: &str, owner: Option<u32>) -> Option<VolumeOptions> {
    let options = Path::new(directory(path)?).join("opts.json");
    let options: VolumeOptions = file::read_json(&roots.host_path(options), owner).ok()?;
    (!options.mount_device.is_empty()).then_some(options)
}

/// The directory `…/volumes/<name>` of a path in `…/volumes/<name>/_data`.
fn directory(path: &str) -> Option<&str> {
    path.match_indices("/_data").find_map(|(at, data)| {
        let is_whole = matches!(path.as_bytes().get(at + data.len()), None | Some(b'/'));
        let directory = path.get(..at)?;
        let (volumes, _name) = directory.rsplit_once('/')?;
        (is_whole && volumes.ends_with("/volumes")).then_some(directory)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_found_in_any_data_directory() {
        for (path, expected) in [
            ("/var/lib/docker/volumes/evil/_data", Some("/var/lib/docker/volumes/evil")),
            ("/data/_data/volumes/a/_data/sub", Some("/data/_data/volumes/a")),
            ("/srv/volumes/a/_database", None),
            ("/srv/vol/a/_data", None),
            ("/_data", None),
            ("", None),
        ] {
            assert_eq!(directory(path), expected, "{path}");
        }
    }

    #[test]
    fn a_volume_shows_what_is_mounted_on_it() {
        let text = "\
            20 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
            21 20 254:2 / /data rw - xfs /dev/vdb rw\n\
            22 20 254:1 /etc /var/lib/containers/storage/volumes/evil/_data rw - ext4 /dev/vda1 rw\n\
            23 20 254:1 / /var/lib/containers/storage/volumes/disk/_data ro - ext4 /dev/vda1 rw\n\
            24 20 254:2 /sub /var/lib/docker/volumes/other/_data rw - xfs /dev/vdb rw\n\
            25 20 254:1 /var/lib/docker /var/lib/docker rw - ext4 /dev/vda1 rw\n\
            26 20 0:40 / /var/lib/docker/volumes/nfs/_data rw - nfs4 server:/x rw\n";
        let mounts = HostMounts::parse(text, Path::new("/"));
        let volumes = "/var/lib/containers/storage/volumes";
        for (path, expected) in [
            (format!("{volumes}/evil/_data"), Some(("/etc", true))),
            (format!("{volumes}/evil/_data/cron.d"), Some(("/etc/cron.d", true))),
            (format!("{volumes}/disk/_data"), Some(("/", false))),
            ("/var/lib/docker/volumes/other/_data/x".to_owned(), Some(("/data/sub/x", true))),
            // A volume of its own, one of a server, and no volume at all.
            ("/var/lib/docker/volumes/plain/_data".to_owned(), None),
            ("/var/lib/docker/volumes/nfs/_data".to_owned(), None),
            ("/data".to_owned(), None),
        ] {
            let found = mounts.origin(&path);
            assert_eq!(found.as_ref().map(|(place, writable)| (&**place, *writable)), expected, "{path}");
        }
        let root = host_mounts::device_number(254, 1);
        assert_eq!(mounts.place_of(root, "/", None).as_deref(), Some("/"));
        assert_eq!(mounts.place_of(root + 7, "/", None), None);
        let in_container =
            HostMounts::parse("9 1 254:1 / /host/srv rw - ext4 /dev/vda1 rw", Path::new("/host"));
        assert_eq!(in_container.place_of(root, "/", None).as_deref(), Some("/srv"));
    }

    #[test]
    fn options_are_read_and_a_volume_without_any_is_nothing_else() {
        let host = tempfile::tempdir().expect("a directory");
        let volume = host.path().join("var/lib/docker/volumes/evil");
        std::fs::create_dir_all(&volume).expect("made");
        let roots = Roots { host: host.path().into(), proc: "/proc".into() };
        let read = || options(&roots, "/var/lib/docker/volumes/evil/_data", None);
        assert_eq!(read(), None);
        let said = r#"{"MountType":"none","MountOpts":"bind","MountDevice":"/etc","Quota":{"Size":0}}"#;
        std::fs::write(volume.join("opts.json"), said).expect("written");
        let expected = VolumeOptions {
            mount_type: "none".to_owned(),
            mount_opts: "bind".to_owned(),
            mount_device: "/etc".to_owned(),
        };
        assert_eq!(read(), Some(expected));
        std::fs::write(volume.join("opts.json"), r#"{"MountType":"","MountDevice":""}"#).expect("written");
        assert_eq!(read(), None);
    }
}
