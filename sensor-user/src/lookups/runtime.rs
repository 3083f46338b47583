//! Containers by their state on disk: name, image, creation time, pod.
//!
//! Owns the knowledge of where which manager keeps what; never talks to a manager. A container is looked for where its
//! runtime keeps its state, or, when the runtime is not known, in all those places. What is not there stays absent: the
//! caller decides whether to ask again.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hashlink::LinkedHashMap;
use sensor_core::engine::{ContainerMetadata, ContainerQuery, DaemonOptions, DaemonQuery, ProcessQuery};
use sensor_core::fact::{K8s, Published, Runtime};
use sensor_core::risks::{self, Own, Risks, Sharing, Spec};
use sensor_core::{pod_identity, pod_volume};

use super::Roots;
use super::cgroupfs::Hierarchies;
use super::file::{self, is_component};
use host::HostFacts;
use managers::Managers;
use spec::OciProcess;

mod bolt;
mod containerd;
mod docker;
mod docker_daemon;
mod docker_options;
mod docker_ports;
mod host;
mod managers;
mod mounts;
mod oci;
mod seeds;
mod spec;
mod storage;
mod volumes;

/// Containers whose state directory is remembered; the one looked at longest ago gives way.
const KNOWN_MAX: usize = 16_384;
/// Most bytes of one string taken from a state file.
const STRING_MAX: usize = 1024;

/// The containers of this host.
#[derive(Debug)]
pub struct Containers {
    roots: Roots,
    hierarchies: Hierarchies,
    host: HostFacts,
    managers: Managers,
    /// Where a container's state was found, by its key: its absence later means that the runtime has dropped it.
    known: Mutex<LinkedHashMap<Arc<str>, PathBuf>>,
}

/// What the file of a process to be put into a container says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessFile {
    /// What tells of it.
    Read(Risks),
    /// It is not there any more.
    Absent,
    /// It is there and cannot be used.
    Refused,
}

impl ProcessFile {
    /// What tells of the process, where that is known.
    #[must_use]
    pub fn into_risks(self) -> Option<Risks> {
        match self {
            Self::Read(risks) => Some(risks),
            Self::Absent | Self::Refused => None,
        }
    }
}

/// One search: where, and for what.
#[derive(Clone, Copy)]
struct Search<'a> {
    roots: &'a Roots,
    host: &'a HostFacts,
    query: &'a ContainerQuery,
}

/// What one place has on a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    runtime: Option<Runtime>,
    name: Option<Arc<str>>,
    image: Option<Arc<str>>,
    created: Option<Arc<str>>,
    cgroups: Vec<Arc<str>>,
    k8s: Option<K8s>,
    /// containerd's namespace.
    namespace: Option<Arc<str>>,
    /// Its sandbox, where it has one beside itself.
    sandbox: Option<Arc<str>>,
    /// TCP ports that are published for it.
    published: Vec<Published>,
    /// There are to be some.
    awaits_ports: bool,
    /// What the OCI runtime was asked for.
    spec: Option<Spec>,
    /// What its manager was asked for.
    manager_spec: Option<Spec>,
    /// A file that says what was asked for is there and cannot be used.
    refused: bool,
    /// Exists as long as the manager knows the container.
    state_directory: Option<PathBuf>,
}

impl Containers {
    /// Looks for containers below these roots; `hierarchies` turn a runtime's cgroup directories into cgroup paths, and
    /// `sockets` are those of runtimes beside the built-in ones.
    #[must_use]
    pub fn new(roots: Roots, hierarchies: Hierarchies, sockets: Vec<(Arc<str>, Runtime)>) -> Self {
        let managers = Managers::new(&roots);
        let host = HostFacts::new(&roots, &hierarchies, sockets);
        Self { roots, hierarchies, host, managers, known: Mutex::default() }
    }

    /// Reads what the state files say of a container now; fields that no file has stay absent.
    #[must_use]
    pub fn read(&self, query: &ContainerQuery) -> ContainerMetadata {
        let mut found = self.find(query);
        if let Some(directory) = found.state_directory.take() {
            self.remember(&query.key, directory);
        }
        let host = risks::Host { directories: self.managers.directories(), ..self.host.now() };
        found.into_metadata(query, &host)
    }

    /// Reads what tells of a process that a runtime is about to put into a container.
    #[must_use]
    pub fn read_process(&self, query: &ProcessQuery) -> ProcessFile {
        let rootless = query.uid.filter(|uid| *uid != 0);
        if !query.file.starts_with('/') {
            // Relative to the runtime's working directory, which is not known.
            return ProcessFile::Absent;
        }
        match file::read_json::<OciProcess>(&self.roots.host_path(&*query.file), rootless) {
            Ok(process) => {
                let risks = risks::of_process(&process.into(), &self.host.now(), rootless.is_some());
                ProcessFile::Read(risks)
            }
            Err(error) if error.is_absent() => ProcessFile::Absent,
            Err(_) => ProcessFile::Refused,
        }
    }

    /// Reads what a dockerd was told elsewhere than in its arguments; nothing when that cannot be found out.
    #[must_use]
    pub fn read_daemon(&self, query: &DaemonQuery) -> Option<DaemonOptions> {
        docker_daemon::read(&self.roots, query)
    }

    /// Whether the runtime still keeps the state of a container that was created.
    ///
    /// Its state is looked for where it was found before or, if it was too short-lived for that, where it must have
    /// been. A container for which neither is known counts as kept: nothing is known of its removal either.
    #[must_use]
    pub fn exists(&self, query: &ContainerQuery) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&query.key).cloned();
        if let Some(directory) = known.or_else(|| self.named_directory(query)) {
            return is_there(&directory);
        }
        let found = self.find(query);
        let runtime = found.runtime.unwrap_or(query.runtime);
        if let Some(directory) = found.state_directory {
            self.remember(&query.key, directory);
            return true;
        }
        // An OCI runtime makes its directory before the cgroup, and there are few places for it.
        runtime != Runtime::Runc || !is_component(&query.id)
    }

    /// Containers that the OCI runtimes have state of now, with their cgroups; for those that were there before the
    /// sensor.
    #[must_use]
    pub fn existing(&self) -> Vec<ContainerMetadata> {
        let mut given: HashSet<Arc<str>> = HashSet::new();
        seeds::states(&self.roots)
            .into_iter()
            .filter_map(|state| {
                let cgroups = state.cgroups(&self.roots, &self.hierarchies);
                // Whoever was first keeps the id, and root is first: a user's file may name any container.
                let is_refused = || {
                    cgroups.is_empty()
                        || given.contains(state.id())
                        || self.find_of_root(state.id()).is_some()
                };
                if state.user().is_some() && is_refused() {
                    return None;
                }
                given.insert(Arc::clone(state.id()));
                let root = state.root();
                Some(ContainerMetadata { cgroups, root, ..self.read(&state.query()) })
            })
            .collect()
    }

    fn remember(&self, key: &Arc<str>, directory: PathBuf) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(key);
        if known.len() >= KNOWN_MAX {
            known.pop_front();
        }
        known.insert(Arc::clone(key), directory);
    }

    /// The state directory of managers whose bundles lie in it.
    fn named_directory(&self, query: &ContainerQuery) -> Option<PathBuf> {
        let bundle = query.bundle.as_deref()?;
        // The end of a directory that a user named is not the end of root's container of that id.
        if owner(query).is_some() && self.find_of_root(&query.id).is_some() {
            return None;
        }
        let directory = match oci::runtime_of_bundle(bundle) {
            Some(Runtime::Containerd) => bundle,
            Some(_) => return None,
            None => oci::storage_of_bundle(bundle)
                .and_then(|_| bundle.trim_end_matches('/').strip_suffix("/userdata"))?,
        };
        Some(self.roots.host_path(directory))
    }

    fn find(&self, query: &ContainerQuery) -> Found {
        // The id becomes part of paths, and it is free text of whoever called the runtime.
        if !is_component(&query.id) {
            return Found::default();
        }
        // Where the id is one of root's, a user's files have no say.
        let of_root = owner(query).and_then(|_| self.find_of_root(&query.id));
        of_root.unwrap_or_else(|| self.find_in_places(query))
    }

    /// What the places that only root can write to have on an id, if anything.
    fn find_of_root(&self, id: &Arc<str>) -> Option<Found> {
        let found = self.find_in_places(&ContainerQuery {
            key: Arc::clone(id),
            id: Arc::clone(id),
            runtime: Runtime::Unknown,
            namespace: None,
            bundle: None,
            root: None,
            uid: None,
            made_unix_ns: None,
        });
        (found != Found::default()).then_some(found)
    }

    fn find_in_places(&self, query: &ContainerQuery) -> Found {
        let search = Search { roots: &self.roots, host: &self.host, query };
        let mut found = Found::default();
        // The bundle is the first thing that exists; what it has beside annotations differs by manager.
        if let Some(bundle) = query.bundle.as_deref().filter(|bundle| bundle.starts_with('/')) {
            found.add(oci::read(search, &self.roots.host_path(bundle), query.made_unix_ns));
            found.runtime = oci::runtime_of_bundle(bundle).or(found.runtime);
            found.namespace = oci::namespace_of_bundle(bundle).map(Arc::from);
        }
        let runtime = found.runtime.unwrap_or(query.runtime);
        let any = runtime == Runtime::Unknown;
        if any || runtime == Runtime::Docker {
            found.add(docker::read(search, &self.managers));
        }
        if any || runtime == Runtime::Containerd {
            found.add(containerd::read(search));
        }
        if any || matches!(runtime, Runtime::Podman | Runtime::Crio) {
            found.add(storage::read(search));
        }
        if found.state_directory.is_none() && (any || runtime == Runtime::Runc) {
            found.add(seeds::find(search));
        }
        found
    }
}

impl Found {
    /// Takes over what `other` has and this has not.
    fn add(&mut self, other: Self) {
        fn fill<T>(mine: &mut Option<T>, theirs: Option<T>) {
            if mine.is_none() {
                *mine = theirs;
            }
        }
        fill(&mut self.runtime, other.runtime);
        fill(&mut self.name, other.name);
        fill(&mut self.image, other.image);
        fill(&mut self.created, other.created);
        fill(&mut self.k8s, other.k8s);
        fill(&mut self.namespace, other.namespace);
        fill(&mut self.sandbox, other.sandbox);
        fill(&mut self.spec, other.spec);
        fill(&mut self.manager_spec, other.manager_spec);
        fill(&mut self.state_directory, other.state_directory);
        self.refused |= other.refused;
        self.awaits_ports |= other.awaits_ports;
        if self.published.is_empty() {
            self.published = other.published;
        }
        if self.cgroups.is_empty() {
            self.cgroups = other.cgroups;
        }
    }

    fn into_metadata(mut self, query: &ContainerQuery, host: &risks::Host) -> ContainerMetadata {
        let spec = self.take_spec();
        if let Some(spec) = &spec {
            self.learn_volumes(spec);
        }
        let k8s = self.k8s.take().map(Arc::new);
        let own = self.own(query, k8s.as_ref(), spec.as_ref());
        ContainerMetadata {
            key: None,
            id: Arc::clone(&query.id),
            root: None,
            runtime: self.runtime,
            name: self.name,
            image: self.image,
            created: self.created,
            cgroups: self.cgroups,
            k8s,
            published: self.published,
            awaits_ports: self.awaits_ports,
            spec_refused: self.refused && spec.is_none(),
            is_last: false,
            risks: spec.map(|spec| risks::of_container(&spec, host, &own)),
        }
    }

    /// What it belongs to. That of others is said to be its own by whoever makes it, so that it counts only where its pod does.
    fn own(&self, query: &ContainerQuery, told: Option<&Arc<K8s>>, spec: Option<&Spec>) -> Own {
        let runtime = self.runtime.unwrap_or(query.runtime);
        let namespace = self.namespace.as_deref().or(query.namespace.as_deref());
        let user = owner(query).unwrap_or_default();
        let is_of_kubelet = pod_identity::is_of_kubelet(runtime, namespace, user);
        let cgroup = spec.and_then(|spec| spec.cgroup.as_deref());
        let Some(pod) = pod_identity::agreed(told, cgroup, is_of_kubelet) else {
            return Own { ids: vec![Arc::clone(&query.id)], pod_uid: None };
        };
        let ids = self.sandbox.iter().chain([&query.id]).cloned().collect();
        Own { ids, pod_uid: pod.pod_uid.clone() }
    }

    /// The OCI spec with what only the manager says, or all that the manager says.
    fn take_spec(&mut self) -> Option<Spec> {
        let Some(mut spec) = self.spec.take() else { return self.manager_spec.take() };
        if let Some(said) = self.manager_spec.take() {
            spec.privileged |= said.privileged;
            spec.new_privileges_wanted |= said.new_privileges_wanted;
            let of_host = said.namespaces.into_iter().filter(|entry| entry.sharing == Sharing::Host);
            spec.namespaces.extend(of_host);
        }
        Some(spec)
    }

    /// The kubelet's directory of a pod has its uid, and an older one the name of the service account.
    fn learn_volumes(&mut self, spec: &Spec) {
        let sources = spec.mounts.iter().map(|mount| (&*mount.source, &*mount.destination));
        let Some(volume) = pod_volume::find(sources) else { return };
        let k8s = self.k8s.get_or_insert_default();
        // A mount may be another pod's: where the runtime says which pod it is, that counts.
        if k8s.pod_uid.as_deref().is_none_or(|uid| uid == volume.pod_uid) {
            k8s.pod_uid = Some(volume.pod_uid.into());
            k8s.service_account = volume.service_account.map(Arc::from);
        }
    }
}

impl Search<'_> {
    /// The user whose files these must be.
    fn owner(&self) -> Option<u32> {
        owner(self.query)
    }
}

/// The user whose files a rootless runtime's state must be; root may keep it wherever it likes.
fn owner(query: &ContainerQuery) -> Option<u32> {
    query.uid.filter(|uid| *uid != 0)
}

fn is_there(directory: &Path) -> bool {
    // Anything but a clear "no such file" leaves it standing: a removal is a fact, a failed look is none.
    !matches!(fs::symlink_metadata(directory), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
}

/// A string of a state file: not empty and bounded, cut at a character.
fn text(value: &str) -> Option<Arc<str>> {
    let end = (0..=value.len().min(STRING_MAX)).rev().find(|end| value.is_char_boundary(*end))?;
    (end > 0).then(|| value[..end].into())
}

/// A time of a state file in the form of the output; the zero time of Go means that there is none.
fn time(value: &str) -> Option<Arc<str>> {
    let time: jiff::Timestamp = value.parse().ok()?;
    (time > jiff::Timestamp::UNIX_EPOCH).then(|| format!("{time:.9}").into())
}

#[cfg(test)]
mod tests;
