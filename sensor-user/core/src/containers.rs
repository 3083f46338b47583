//! The containers of the machine and where each is in its life.
//!
//! Owns identity, metadata and life state by container id; which cgroup belongs to which container is the inventory's.
//! Knows nothing of output: the engine asks whether a step is new and tells of it.

use std::sync::Arc;

use crate::bounded::{Bounded, Index};
use crate::calls::Call;
use crate::cgroup_path::user_of_slice;
use crate::engine::{ContainerMetadata, ContainerQuery};
use crate::fact::{Container, K8s, Origin, Published, Runtime};
use crate::ids::{CgroupKey, ProcessKey};
use crate::inventory::Naming;
use crate::namespaces::Namespaces;
use crate::pod_identity;

/// Most containers in the table; the one used longest ago goes first.
pub(crate) const CONTAINERS_MAX: usize = 16_384;
/// Most containers of one id that are told apart, beside the first.
const NAMESAKES_MAX: usize = 15;
/// Stands between the id and the number in the key of a namesake; neither arguments nor names of files have it.
const KEY_MARK: char = '\0';
/// Most cgroup paths of one container: one per hierarchy.
const HOMES_MAX: usize = 16;

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It was there before anything was seen of it.
    Known,
    /// Its cgroup was made.
    Created,
    /// Its first program was executed.
    Running,
    /// Its first process exited or its cgroup went.
    Stopped,
    /// Its runtime dropped it before its metadata was read, which is still to come.
    Removed,
}

/// One container.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) shared: Arc<Container>,
    /// Its pod, as far as that may be believed.
    pub(crate) k8s: Option<Arc<K8s>>,
    /// What annotations and labels say of its pod.
    told: Option<Arc<K8s>>,
    pub(crate) query: ContainerQuery,
    pub(crate) life: Life,
    /// This is not its first life that was seen.
    pub(crate) ran_before: bool,
    /// What caused its present life, as told when it was made, or when it was started if that is surer.
    pub(crate) origin: Origin,
    /// Its first process.
    pub(crate) init: Option<ProcessKey>,
    /// Where its first process was at its first exec, or at the start of the sensor.
    pub(crate) namespaces: Option<Namespaces>,
    /// Mount namespace of the OCI runtime that made it; 0 = not known.
    pub(crate) creator_mnt_ns: u32,
    /// Its own cgroups, one per hierarchy; cgroups nested inside are not here.
    pub(crate) cgroups: Vec<CgroupKey>,
    /// Paths of its cgroups according to the runtime's state on disk.
    pub(crate) homes: Vec<Arc<str>>,
    /// Ports of the host that lead into it.
    pub(crate) published: Vec<Published>,
    /// There was no room for all its risks, or for the whole of one.
    pub(crate) risks_truncated: bool,
    /// The runtime's state on disk has said who it is and what it may do.
    pub(crate) enriched: bool,
    /// Records went out while the output could not say all there is to say.
    pub(crate) owes_metadata: bool,
    /// More containers live under the same free-text id than are told apart: what is found under that id may be said of
    /// none of them.
    pub(crate) ambiguous: bool,
    /// The shell watches for the removal of its state.
    pub(crate) watched: bool,
}

impl Entry {
    fn new(key: Arc<str>, naming: Naming) -> Self {
        let Naming { id, runtime, namespace, path } = naming;
        let mut entry = Self {
            shared: Arc::new(Container {
                id: id.clone(),
                namesake: number_in_key(&key),
                runtime,
                name: None,
                image: None,
                created: None,
                risks: None,
                cgroup: path,
            }),
            k8s: None,
            told: None,
            query: ContainerQuery {
                key,
                id,
                runtime,
                namespace,
                bundle: None,
                root: None,
                uid: None,
                made_unix_ns: None,
            },
            life: Life::Known,
            ran_before: false,
            origin: Origin::none(),
            init: None,
            namespaces: None,
            creator_mnt_ns: 0,
            cgroups: Vec::with_capacity(1),
            homes: Vec::new(),
            published: Vec::new(),
            risks_truncated: false,
            enriched: false,
            owes_metadata: false,
            ambiguous: false,
            watched: false,
        };
        entry.settle_pod();
        entry
    }

    /// Takes over what a later record says beyond what is known.
    pub(crate) fn learn(&mut self, runtime: Runtime, namespace: Option<&Arc<str>>, path: Option<&Arc<str>>) {
        if self.shared.runtime == Runtime::Unknown && runtime != Runtime::Unknown {
            Arc::make_mut(&mut self.shared).runtime = runtime;
            self.query.runtime = runtime;
        }
        if self.shared.cgroup.is_none() && path.is_some() {
            Arc::make_mut(&mut self.shared).cgroup = path.cloned();
        }
        if self.query.namespace.is_none() {
            self.query.namespace = namespace.cloned();
        }
        self.settle_pod();
    }

    /// Judges anew of which pod it is.
    fn settle_pod(&mut self) {
        let namespace = self.query.namespace.as_deref();
        let is_of_kubelet = pod_identity::is_of_kubelet(self.shared.runtime, namespace, self.owner());
        let found = pod_identity::agreed(self.told.as_ref(), self.shared.cgroup.as_deref(), is_of_kubelet);
        if found != self.k8s {
            self.k8s = found;
        }
    }

    /// The user whose container it is: the one who called the runtime, else the one in whose slice it lives.
    pub(crate) fn owner(&self) -> u32 {
        self.query.uid.unwrap_or_else(|| self.shared.cgroup.as_deref().and_then(user_of_slice).unwrap_or(0))
    }

    /// Takes over what the runtime was called with.
    pub(crate) fn learn_call(&mut self, call: &Call) {
        self.learn(call.runtime, call.namespace.as_ref(), None);
        self.query.bundle.clone_from(&call.bundle);
        self.query.root.clone_from(&call.root);
        self.query.uid = call.process.uid;
        self.query.made_unix_ns = Some(call.at.unix_ns);
        self.settle_pod();
    }

    /// Drops the metadata: the id was given to another container, with a cgroup at this path.
    pub(crate) fn begin_anew(&mut self, path: Option<Arc<str>>) {
        self.enriched = false;
        self.owes_metadata = false;
        let container = Arc::make_mut(&mut self.shared);
        container.name = None;
        container.image = None;
        container.created = None;
        container.risks = None;
        container.cgroup = path;
        self.risks_truncated = false;
        self.homes.clear();
        self.told = None;
        self.settle_pod();
    }

    /// Takes over the runtime's state on disk. Returns whether the output can say more now than before.
    pub(crate) fn enrich(&mut self, metadata: &ContainerMetadata) -> bool {
        if self.ambiguous {
            return false;
        }
        let ContainerMetadata {
            key: _,
            id: _,
            root,
            runtime,
            name,
            image,
            created,
            cgroups,
            k8s,
            published,
            awaits_ports: _,
            risks,
            spec_refused: _,
            is_last: _,
        } = metadata;
        let before = (self.shared.clone(), self.k8s.clone());
        let container = Arc::make_mut(&mut self.shared);
        if let Some(runtime) = *runtime {
            container.runtime = runtime;
            self.query.runtime = runtime;
        }
        if self.query.root.is_none() {
            self.query.root.clone_from(root);
        }
        let fill = |field: &mut Option<Arc<str>>, found: &Option<Arc<str>>| {
            if found.is_some() {
                field.clone_from(found);
            }
        };
        fill(&mut container.name, name);
        fill(&mut container.image, image);
        fill(&mut container.created, created);
        if !published.is_empty() {
            self.published.clone_from(published);
        }
        if let Some(risks) = risks {
            container.risks = Some(risks.list.clone());
            self.risks_truncated = risks.truncated;
        }
        if container.cgroup.is_none() {
            container.cgroup = cgroups.first().cloned();
        }
        if !cgroups.is_empty() {
            self.homes = cgroups.iter().filter(|path| path.len() > 1).take(HOMES_MAX).cloned().collect();
        }
        if k8s.is_some() {
            self.told.clone_from(k8s);
        }
        // Whoever keeps one of these keeps them all in one place; some containers have neither name nor image.
        let kept = container.name.is_some() || container.image.is_some() || container.created.is_some();
        let known = kept || (container.runtime == Runtime::Runc && runtime.is_some());
        self.enriched |= known && container.risks.is_some();
        self.settle_pod();
        before != (self.shared.clone(), self.k8s.clone())
    }
}

/// The id of the container with this key.
pub(crate) fn id_of_key(key: &str) -> &str {
    key.split_once(KEY_MARK).map_or(key, |(id, _)| id)
}

/// What people call the container with this key if it has no name.
pub(crate) fn short_id_of_key(key: &str) -> &str {
    let id = id_of_key(key);
    id.get(..12).unwrap_or(id)
}

/// The key of another container of this id.
pub(crate) fn key_of_namesake(id: &str, number: u64) -> Arc<str> {
    format!("{id}{KEY_MARK}{number}").into()
}

/// Which of the containers of its id it is.
fn number_in_key(key: &str) -> u64 {
    key.split_once(KEY_MARK).and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
}

/// The table.
///
/// The key of a container is its id. Ids of 64 digits are anybody's only once; a free-text id may be given by several
/// namespaces or root directories of a runtime at a time: the keys of those that come later have a number, too.
#[derive(Debug)]
pub(crate) struct Containers {
    table: Bounded<Arc<str>, Entry>,
    /// Keys with a number, by id.
    namesakes: Index<Arc<str>, Vec<Arc<str>>>,
    /// Of the last namesake.
    number: u64,
}

impl Containers {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { table: Bounded::new(capacity), namesakes: Index::default(), number: 0 }
    }

    /// Enters a container unless it is known; returns whether it is new, and the one that had to go for it.
    pub(crate) fn enter(&mut self, key: &Arc<str>, naming: &Naming) -> (bool, Option<Entry>) {
        if let Some(entry) = self.table.get_mut(key) {
            entry.learn(naming.runtime, naming.namespace.as_ref(), naming.path.as_ref());
            return (false, None);
        }
        if *key != naming.id {
            let keys = self.namesakes.entry(naming.id.clone()).or_default();
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        let evicted = self.table.insert(key.clone(), Entry::new(key.clone(), naming.clone()));
        if let Some((key, _)) = &evicted {
            self.forget_namesake(key);
        }
        (true, evicted.map(|(_, entry)| entry))
    }

    /// A key for one more container of an id, if there is room for it.
    pub(crate) fn key_of_namesake(&mut self, id: &str) -> Option<Arc<str>> {
        if self.namesakes.get(id).is_some_and(|keys| keys.len() >= NAMESAKES_MAX) {
            return None;
        }
        self.number += 1;
        Some(key_of_namesake(id, self.number))
    }

    /// The keys of all containers of an id, in the order in which they came.
    pub(crate) fn keys_of(&self, id: &str) -> Vec<Arc<str>> {
        let first = self.table.contains(id).then(|| Arc::from(id));
        first.into_iter().chain(self.namesakes.get(id).into_iter().flatten().cloned()).collect()
    }

    /// A container, marked as used.
    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Entry> {
        self.table.get_mut(key)
    }

    /// A container, without counting as a use.
    pub(crate) fn peek(&self, key: &str) -> Option<&Entry> {
        self.table.peek(key)
    }

    /// Keys of all containers, the one used longest ago first.
    pub(crate) fn keys(&self) -> Vec<Arc<str>> {
        self.table.iter().map(|(key, _)| key.clone()).collect()
    }

    /// Takes a container out.
    pub(crate) fn remove(&mut self, key: &str) -> Option<Entry> {
        self.forget_namesake(key);
        self.table.remove(key)
    }

    fn forget_namesake(&mut self, key: &str) {
        let id = id_of_key(key);
        let Some(keys) = self.namesakes.get_mut(id).filter(|_| id != key) else { return };
        keys.retain(|known| **known != *key);
        if keys.is_empty() {
            self.namesakes.remove(id);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.table.evicted()
    }
}
