//! containerd: `<state>/io.containerd.runtime.v2.task/<namespace>/<id>/config.json` as long as a container has a task,
//! and the metadata database below `<root>` for what only the daemon knows.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sensor_core::engine::ContainerQuery;
use sensor_core::fact::Runtime;

use super::super::Roots;
use super::super::file::{self, is_component, subdirectories};
use super::{Found, Search, bolt, oci, owner, text};

/// Directories of running tasks: containerd's own, and those of distributions that bring their own containerd.
const TASKS: &[&str] = &[
    "/run/containerd/io.containerd.runtime.v2.task",
    "/run/k3s/containerd/io.containerd.runtime.v2.task",
    "/var/snap/microk8s/common/run/containerd/io.containerd.runtime.v2.task",
];
/// The database below containerd's root.
const DATABASE: &str = "io.containerd.metadata.v1.bolt/meta.db";
/// Namespaces that are searched when the query names none.
const NAMESPACES_MAX: usize = 64;

/// Reads a container that has a task.
pub(super) fn read(search: Search<'_>) -> Found {
    let Search { roots, query, .. } = search;
    let Some(bundle) = find_bundle(roots, query) else { return Found::default() };
    let mut found = oci::read(search, &bundle, search.query.made_unix_ns);
    found.runtime = Some(Runtime::Containerd);
    found.namespace = bundle.to_str().and_then(oci::namespace_of_bundle).map(Arc::from);
    if (found.image.is_none() || found.created.is_none())
        && let Some(database) = read_database(roots, &bundle, query)
    {
        found.add(database);
    }
    found.state_directory = Some(bundle);
    found
}

fn find_bundle(roots: &Roots, query: &ContainerQuery) -> Option<PathBuf> {
    let named = query
        .bundle
        .as_deref()
        .filter(|bundle| oci::runtime_of_bundle(bundle) == Some(Runtime::Containerd))
        .map(|bundle| roots.host_path(bundle));
    let listed = TASKS.iter().map(|tasks| roots.host_path(tasks)).flat_map(|tasks| {
        let namespaces = match query.namespace.as_deref() {
            Some(namespace) if is_component(namespace) => vec![namespace.to_owned()],
            _ => subdirectories(&tasks, NAMESPACES_MAX),
        };
        // Docker keeps the names of its containers elsewhere.
        let namespaces = namespaces.into_iter().filter(|namespace| namespace != "moby");
        namespaces.map(|namespace| tasks.join(namespace).join(&*query.id)).collect::<Vec<_>>()
    });
    named.into_iter().chain(listed).find(|bundle| bundle.join("config.json").is_file())
}

/// Image, name and creation time from the database, which the task's link to its working directory leads to.
fn read_database(roots: &Roots, bundle: &Path, query: &ContainerQuery) -> Option<Found> {
    let namespace = bundle.parent()?.file_name()?.to_str()?;
    // <root>/io.containerd.runtime.v2.task/<namespace>/<id>
    let work = fs::read_link(bundle.join("work")).ok()?;
    let root = work.ancestors().nth(3)?;
    let database = file::open_regular(&roots.host_path(root.join(DATABASE)), owner(query)).ok()?;
    let keys: &[&[&str]] = &[&["image"], &["createdat"], &["labels", "nerdctl/name"]];
    let values = bolt::values(&database, &["v1", namespace, "containers", &query.id], keys)?;
    let [image, created, name] = values.try_into().ok()?;
    let string = |value: Option<Vec<u8>>| text(str::from_utf8(&value?).ok()?);
    Some(Found { image: string(image), created: go_time(&created?), name: string(name), ..Found::default() })
}

/// Reads a time in the binary form of Go: version, seconds since the year 1, nanoseconds, zone; big endian.
fn go_time(value: &[u8]) -> Option<Arc<str>> {
    /// Seconds from the year 1 to 1970.
    const TO_UNIX: i64 = 62_135_596_800;
    let seconds = i64::from_be_bytes(value.get(1..9)?.try_into().ok()?).checked_sub(TO_UNIX)?;
    let nanoseconds = i32::from_be_bytes(value.get(9..13)?.try_into().ok()?);
    let time = jiff::Timestamp::new(seconds, nanoseconds).ok()?;
    super::time(&time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_go_are_understood() {
        // 2026-11-22T10:49:58.5Z with the zone "UTC".
        let mut value = vec![1];
        value.extend((1_795_344_598_i64 + 62_135_596_800).to_be_bytes());
        value.extend(500_000_000_i32.to_be_bytes());
        value.extend([0xff, 0xff]);
        assert_eq!(go_time(&value).as_deref(), Some("2026-11-22T10:49:58.500000000Z"));
        assert_eq!(go_time(&value[..12]), None);
        assert_eq!(go_time(&[0; 15]), None);
        assert_eq!(go_time(&[0xff; 15]), None);
    }
}
