//! containerd: `<state>/io.containerd.runtime.v2.task/<namespace>/<id>/config.json`.

use std::path::PathBuf;

use sensor_core::engine::ContainerQuery;
use sensor_core::fact::Runtime;

use super::super::Roots;
use super::super::file::{is_component, subdirectories};
use super::{Found, oci, owner};

/// Directories of running tasks: containerd's own, and those of distributions that bring their own containerd.
const TASKS: &[&str] = &[
    "/run/containerd/io.containerd.runtime.v2.task",
    "/run/k3s/containerd/io.containerd.runtime.v2.task",
    "/var/snap/microk8s/common/run/containerd/io.containerd.runtime.v2.task",
];
/// Namespaces that are searched when the query names none.
const NAMESPACES_MAX: usize = 64;

/// Reads a container that has a task.
pub(super) fn read(roots: &Roots, query: &ContainerQuery) -> Found {
    let Some(bundle) = find_bundle(roots, query) else { return Found::default() };
    let mut found = oci::read(&bundle, owner(query));
    found.runtime = Some(Runtime::Containerd);
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
