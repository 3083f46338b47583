//! The storage that podman and CRI-O share: `<storage>/<driver>-containers/containers.json` names the containers,
//! `<storage>/<driver>-containers/<id>/userdata/config.json` is the bundle.

use std::path::PathBuf;

use sensor_core::engine::ContainerQuery;
use sensor_core::fact::Runtime;
use serde::Deserialize;

use super::super::json::Find;
use super::super::{Roots, file};
use super::{Found, Search, managers, oci, owner, text, time};

/// Root's storage: podman's and CRI-O's default, and the run directory where CRI-O keeps a second copy of the bundle.
const STORAGES: &[&str] = &["/var/lib/containers/storage", "/run/containers/storage"];
/// Says where else it is.
const STORAGE_CONF: &str = "/etc/containers/storage.conf";
/// Storage drivers, each with a directory of its own.
const DRIVERS: &[&str] = &["overlay", "vfs", "btrfs", "zfs"];
/// Most bytes of the list of users.
const TEXT_MAX: u64 = 1 << 20;

/// One entry of `containers.json`.
#[derive(Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    metadata: String,
    #[serde(default)]
    created: String,
}

/// The JSON in [`Entry::metadata`].
#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default, rename = "image-name")]
    image_name: String,
}

/// Reads a container of podman or CRI-O.
pub(super) fn read(search: Search<'_>) -> Found {
    let Search { roots, query, .. } = search;
    let mut found = Found::default();
    for storage in storages(roots, query) {
        for driver in DRIVERS {
            let containers = storage.join(format!("{driver}-containers"));
            let directory = containers.join(&*query.id);
            if !directory.is_dir() {
                continue;
            }
            let mut here = oci::read(search, &directory.join("userdata"), search.query.made_unix_ns);
            here.state_directory = Some(directory);
            here.add(read_index(&containers.join("containers.json"), query));
            found.add(here);
        }
    }
    if found.state_directory.is_some() && found.runtime.is_none() {
        // CRI-O writes its annotations before it calls the runtime; without any it is podman's.
        found.runtime = Some(Runtime::Podman);
    }
    found
}

fn read_index(path: &std::path::Path, query: &ContainerQuery) -> Found {
    let find = Find::new(|entry: &Entry| *entry.id == *query.id);
    let Ok(Some(entry)) = file::read_json_with(path, owner(query), find) else { return Found::default() };
    let metadata: Metadata = serde_json::from_str(&entry.metadata).unwrap_or_default();
    Found {
        name: entry.names.first().and_then(|name| text(name)),
        image: text(&metadata.image_name),
        created: time(&entry.created),
        ..Found::default()
    }
}

fn storages(roots: &Roots, query: &ContainerQuery) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut add = |storage: PathBuf| {
        if !found.contains(&storage) {
            found.push(storage);
        }
    };
    if let Some(storage) = query.bundle.as_deref().and_then(oci::storage_of_bundle) {
        add(roots.host_path(storage));
    }
    match owner(query) {
        Some(uid) => {
            if let Some(home) = home(roots, uid) {
                add(home.join(".local/share/containers/storage"));
            }
        }
        None => {
            STORAGES.iter().for_each(|storage| add(roots.host_path(storage)));
            if let Some(storage) = configured(roots) {
                add(roots.host_path(storage));
            }
        }
    }
    found
}

/// `graphroot = "<path>"` in storage.conf.
fn configured(roots: &Roots) -> Option<String> {
    let found = managers::toml_strings(&roots.host_path(STORAGE_CONF), &["graphroot"]);
    found.into_iter().map(|(_, path)| path).find(|path| path.starts_with('/'))
}

/// The home directory of a user of the host.
pub(super) fn home(roots: &Roots, uid: u32) -> Option<PathBuf> {
    let content = file::read(&roots.host_path("/etc/passwd"), TEXT_MAX, None).ok()?;
    let content = String::from_utf8_lossy(&content);
    let uid = uid.to_string();
    content
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':').skip(2);
            (fields.next()? == uid).then(|| fields.nth(2).filter(|home| home.starts_with('/')))?
        })
        .map(|home| roots.host_path(home))
}
