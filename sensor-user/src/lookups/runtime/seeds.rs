//! State of the OCI runtimes themselves: `<root>/<id>/state.json` of runc, `<root>/<id>/status` of crun.
//!
//! It is the only trace of a container that was started without a manager, and it names the cgroups of all.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sensor_core::engine::ContainerQuery;
use sensor_core::fact::Runtime;
use serde::de::DeserializeSeed as _;
use serde::{Deserialize, Deserializer};

use super::super::Roots;
use super::super::cgroupfs::Hierarchies;
use super::super::file::{self, is_component, subdirectories};
use super::super::json::Find;
use super::{Found, Search, oci, owner, text, time};

/// Directories of containers.
const STATE_ROOTS: &[&str] = &["/run/runc", "/run/crun", "/run/youki"];
/// Directories of one such directory per containerd namespace.
const NAMESPACED_ROOTS: &[&str] =
    &["/run/containerd/runc", "/run/docker/runtime-runc", "/run/k3s/containerd/runc"];
/// What a label with the path of the bundle begins with.
const BUNDLE_LABEL: &str = "bundle=";
/// Exists where systemd runs the host.
const SYSTEMD: &str = "/run/systemd/system";
/// Most containers that are listed per directory.
const CONTAINERS_MAX: usize = 4096;
/// Most namespaces, and most users, that are looked at.
const NAMESPACES_MAX: usize = 64;

/// What a runtime noted of a container.
#[derive(Debug)]
pub(super) struct State {
    id: Arc<str>,
    directory: PathBuf,
    /// The directory of all containers, as the runtime names it.
    root: Arc<str>,
    /// Subdirectory of a directory per namespace.
    namespace: Option<Arc<str>>,
    bundle: Option<Arc<str>>,
    created: Option<Arc<str>>,
    cgroups: Cgroups,
    uid: Option<u32>,
}

#[derive(Debug)]
enum Cgroups {
    /// One directory per hierarchy, mount point included (runc).
    Directories(Vec<String>),
    /// The path from the root, the same in all hierarchies (crun).
    Path(String),
}

/// The part of runc's `state.json` that is read.
#[derive(Deserialize)]
struct RuncState {
    #[serde(default)]
    created: String,
    #[serde(default)]
    cgroup_paths: CgroupPaths,
    config: Option<RuncConfig>,
}

/// Directories of the hierarchies that matter.
#[derive(Default, Deserialize)]
struct CgroupPaths {
    #[serde(rename = "")]
    unified: Option<String>,
    pids: Option<String>,
}

#[derive(Deserialize)]
struct RuncConfig {
    #[serde(default, rename = "labels", deserialize_with = "bundle_label")]
    bundle: Option<String>,
}

/// The label that runc keeps the bundle's path in.
fn bundle_label<'de, D: Deserializer<'de>>(labels: D) -> Result<Option<String>, D::Error> {
    let label = Find::new(|label: &String| label.starts_with(BUNDLE_LABEL)).deserialize(labels)?;
    Ok(label.map(|label| label[BUNDLE_LABEL.len()..].to_owned()))
}

/// The part of crun's `status` that is read.
#[derive(Deserialize)]
struct CrunStatus {
    #[serde(default)]
    created: String,
    #[serde(default, rename = "cgroup-path")]
    cgroup_path: String,
    #[serde(default)]
    bundle: String,
}

impl State {
    /// Where to look for more.
    pub(super) fn query(&self) -> ContainerQuery {
        let runtime = self.bundle.as_deref().and_then(oci::runtime_of_bundle).unwrap_or(Runtime::Unknown);
        ContainerQuery {
            // Two of one id differ in that directory.
            key: self.directory.to_string_lossy().into(),
            id: Arc::clone(&self.id),
            runtime,
            namespace: self.namespace.clone(),
            bundle: self.bundle.clone(),
            root: Some(Arc::clone(&self.root)),
            uid: self.uid,
            made_unix_ns: self.made_unix_ns(),
        }
    }

    /// The directory of all containers, unless it is one of those that the runtimes use by themselves.
    pub(super) fn root(&self) -> Option<Arc<str>> {
        let is_default = STATE_ROOTS.contains(&&*self.root) || self.uid.is_some();
        (!is_default).then(|| Arc::clone(&self.root))
    }

    fn made_unix_ns(&self) -> Option<u64> {
        let made: jiff::Timestamp = self.created.as_deref()?.parse().ok()?;
        u64::try_from(made.as_nanosecond()).ok()
    }

    /// The user who wrote it, unless that is root.
    pub(super) fn user(&self) -> Option<u32> {
        self.uid.filter(|uid| *uid != 0)
    }

    /// Its container's full id.
    pub(super) fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Paths of its cgroups from the roots of the hierarchies that matter, each once.
    ///
    /// What a user's file says of cgroups that are not that user's is left out: it would turn the host's services into
    /// a container.
    pub(super) fn cgroups(&self, roots: &Roots, hierarchies: &Hierarchies) -> Vec<Arc<str>> {
        let paths: Vec<&str> = match &self.cgroups {
            Cgroups::Directories(directories) => {
                directories.iter().filter_map(|directory| hierarchies.relative(directory)).collect()
            }
            Cgroups::Path(path) => vec![path],
        };
        let mut unique: Vec<Arc<str>> = Vec::new();
        for path in paths.into_iter().filter_map(text) {
            let is_path = path.len() > 1 && path.starts_with('/') && !unique.contains(&path);
            if is_path && self.user().is_none_or(|uid| is_users_cgroup(roots, hierarchies, &path, uid)) {
                unique.push(path);
            }
        }
        unique
    }

    /// What it says of a container that no manager keeps.
    fn found(self, search: Search<'_>) -> Found {
        let bundle = self.bundle.as_deref().filter(|bundle| bundle.starts_with('/'));
        // The runtime notes the time when the container is ready, later than it was called.
        let made = search.query.made_unix_ns.or_else(|| self.made_unix_ns());
        let mut found =
            bundle.map(|bundle| oci::read(search, &search.roots.host_path(bundle), made)).unwrap_or_default();
        found.runtime = found.runtime.or(Some(Runtime::Runc));
        found.created = self.created.or(found.created);
        found.state_directory = Some(self.directory);
        found
    }
}

/// What an OCI runtime has on one container. Its directory is there before its state file is.
pub(super) fn find(search: Search<'_>) -> Found {
    let Search { roots, query, .. } = search;
    let named = query.root.as_deref().filter(|root| root.starts_with('/'));
    let mut directories: Vec<String> = Vec::new();
    if let Some(root) = named {
        // What lies elsewhere under the same id is another container.
        directories.push(root.to_owned());
    } else {
        if let Some(uid) = owner(query) {
            directories.extend(["runc", "crun"].map(|name| format!("/run/user/{uid}/{name}")));
        }
        directories.extend(STATE_ROOTS.iter().map(|root| (*root).to_owned()));
    }
    let Some(root) = directories.iter().find(|root| roots.host_path(root).join(&*query.id).is_dir()) else {
        return Found::default();
    };
    match read(roots, root, &query.id, None, owner(query)) {
        Some(state) => state.found(search),
        None => Found { state_directory: Some(roots.host_path(root).join(&*query.id)), ..Found::default() },
    }
}

/// Whether a cgroup can be that of a container that this user started.
fn is_users_cgroup(roots: &Roots, hierarchies: &Hierarchies, path: &str, uid: u32) -> bool {
    let Some(relative) = path.strip_prefix('/') else { return false };
    if !relative.split('/').all(is_component) {
        return false;
    }
    if roots.host_path(SYSTEMD).is_dir() {
        // What lies directly in the slice is the user's manager and the login sessions, which are no containers.
        return relative
            .strip_prefix(&format!("user.slice/user-{uid}.slice/"))
            .is_some_and(|below| below.contains('/'));
    }
    // Without systemd, a cgroup that was handed over to a user belongs to that user, wherever it exists.
    let mut owners = hierarchies
        .unified
        .iter()
        .chain(&hierarchies.pids)
        .filter_map(|hierarchy| fs::symlink_metadata(hierarchy.mount_point.join(relative)).ok())
        .map(|metadata| metadata.uid())
        .peekable();
    owners.peek().is_some() && owners.all(|owner| owner == uid)
}

/// The state of every container that an OCI runtime has now; that of root comes first.
pub(super) fn states(roots: &Roots) -> Vec<State> {
    let mut directories: Vec<(String, Option<Arc<str>>, Option<u32>)> =
        STATE_ROOTS.iter().map(|root| ((*root).to_owned(), None, None)).collect();
    for root in NAMESPACED_ROOTS {
        directories.extend(
            subdirectories(&roots.host_path(root), NAMESPACES_MAX)
                .into_iter()
                .map(|namespace| (format!("{root}/{namespace}"), Some(namespace.into()), None)),
        );
    }
    let users = roots.host_path("/run/user");
    let root = [String::from("0")].into_iter();
    for user in root.chain(subdirectories(&users, NAMESPACES_MAX).into_iter().filter(|user| user != "0")) {
        let Ok(uid) = user.parse() else { continue };
        directories
            .extend(["runc", "crun"].map(|name| (format!("/run/user/{user}/{name}"), None, Some(uid))));
    }
    directories
        .iter()
        .flat_map(|(directory, namespace, uid)| {
            subdirectories(&roots.host_path(directory), CONTAINERS_MAX)
                .into_iter()
                .filter_map(|id| read(roots, directory, &id, namespace.clone(), *uid))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn read(roots: &Roots, root: &str, id: &str, namespace: Option<Arc<str>>, uid: Option<u32>) -> Option<State> {
    if !is_component(id) {
        return None;
    }
    let directory = roots.host_path(root).join(id);
    let (created, bundle, cgroups) = read_runc(&directory, uid).or_else(|| read_crun(&directory, uid))?;
    Some(State {
        id: id.into(),
        directory,
        root: root.into(),
        namespace,
        bundle: text(&bundle),
        created: time(&created),
        cgroups,
        uid,
    })
}

fn read_runc(directory: &Path, owner: Option<u32>) -> Option<(String, String, Cgroups)> {
    let state: RuncState = file::read_json(&directory.join("state.json"), owner).ok()?;
    let bundle = state.config.and_then(|config| config.bundle).unwrap_or_default();
    let CgroupPaths { unified, pids } = state.cgroup_paths;
    Some((state.created, bundle, Cgroups::Directories(unified.into_iter().chain(pids).collect())))
}

fn read_crun(directory: &Path, owner: Option<u32>) -> Option<(String, String, Cgroups)> {
    let status: CrunStatus = file::read_json(&directory.join("status"), owner).ok()?;
    Some((status.created, status.bundle, Cgroups::Path(status.cgroup_path)))
}
