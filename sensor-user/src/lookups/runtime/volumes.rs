//! What lies behind a volume of Docker's driver `local`: that driver mounts whatever a client asks it to, parts of the host
//! included, and the spec names the directory of the volume only.
//!
//! **Source**: moby `volume/local/local.go`, `optsConfig`.

use std::path::Path;
use std::sync::Arc;

use sensor_core::risks::{Mount, MountKind};
use serde::Deserialize;

use super::super::{Roots, file, paths};
use super::mounts;

/// Adds what lies behind those mounts that are volumes with options.
pub(super) fn look_behind(found: &mut Vec<Mount>, roots: &Roots, owner: Option<u32>) {
    let place = |path: &str| paths::resolve(roots, path, owner.is_none());
    let binds = found.iter().filter(|mount| mount.kind == MountKind::Bind);
    let behind: Vec<Mount> = binds
        .filter_map(|mount| Some((mount, options(roots, &mount.source, owner)?)))
        .flat_map(|(mount, options)| {
            let Mount { destination, writable, .. } = mount;
            let found = options.read(destination, &place);
            found.into_iter().map(|found| Mount { writable: found.writable && *writable, ..found })
        })
        .collect();
    found.extend(behind);
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
