//! The cgroups of the machine: which belong to the host and which to what container.
//!
//! Owns the mapping from kernel keys to places and the rules by which a new cgroup finds its place. Version 1 ids
//! collide between hierarchies, so the hierarchy is part of every key. Containers themselves are in
//! [`crate::containers`].

use std::collections::VecDeque;
use std::sync::Arc;

use crate::bounded::{Bounded, Index};
use crate::calls::Calls;
use crate::cgroup_path::{container_in_name, container_in_path, is_long_id, user_of_slice};
use crate::containers::{Containers, Life};
use crate::fact::Runtime;
use crate::ids::CgroupKey;
use crate::runtime_args::{OciCall, OciCommand, is_oci_runtime};

/// Most cgroups in the table; the one used longest ago goes first.
pub(crate) const CGROUPS_MAX: usize = 65_536;
/// Most removed cgroups that are still known: sockets and late records outlive their cgroup.
const REMOVED_MAX: usize = 1024;
/// Most live cgroups of one container.
const HELD_MAX: usize = 1024;
/// `kernfs_node.id` of the root of every hierarchy.
const ROOT_ID: u64 = 1;

/// Whose a cgroup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The host's.
    Host,
    /// This container's.
    Container(Arc<str>),
    /// An OCI runtime made it under a name that says nothing; the first program that starts in it decides.
    Candidate(Option<Arc<str>>),
}

/// One cgroup.
#[derive(Debug)]
struct Cgroup {
    path: Option<Arc<str>>,
    place: Place,
    removed: bool,
}

/// What the path and the maker of a cgroup say of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Attribution {
    /// The host's.
    Host,
    /// A container's own cgroup.
    Own(Naming),
    /// Inside the cgroup of a container that is known.
    Nested(Arc<str>),
    /// Inside the cgroup of a container that the path alone tells of.
    Inside(Naming),
    /// See [`Place::Candidate`].
    Candidate(Option<Arc<str>>),
}

/// What a cgroup's name says of its container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Naming {
    pub(crate) id: Arc<str>,
    pub(crate) runtime: Runtime,
    pub(crate) namespace: Option<Arc<str>>,
    /// Path of the container's own cgroup.
    pub(crate) path: Option<Arc<str>>,
}

/// Who made a cgroup.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Maker<'a> {
    /// Its call, when it is an OCI runtime.
    pub(crate) call: Option<&'a OciCall>,
    /// Its name.
    pub(crate) comm: &'a str,
    /// Its user; `None` when that was not seen.
    pub(crate) uid: Option<u32>,
    /// It is in a container.
    pub(crate) contained: bool,
}

impl Maker<'_> {
    /// A cgroup that was there before the sensor.
    pub(crate) const UNKNOWN: Self = Maker { call: None, comm: "", uid: None, contained: false };

    /// The container it is making, if that is what it is doing.
    fn making(&self) -> Option<&Arc<str>> {
        let call = self.call?;
        matches!(call.command, OciCommand::Create | OciCommand::Run).then_some(call.id.as_ref()).flatten()
    }
}

/// A name given to a cgroup.
struct Claim<'a> {
    key: CgroupKey,
    maker: Maker<'a>,
    /// The cgroup or its maker is in a container.
    contained: bool,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Inventory {
    cgroups: Bounded<CgroupKey, Cgroup>,
    /// Live cgroups of each container.
    held: Index<Arc<str>, usize>,
    /// Cgroups not entered because their container has too many.
    turned_away: u64,
    paths: Index<Arc<str>, Vec<CgroupKey>>,
    removed: VecDeque<CgroupKey>,
}

impl Inventory {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            cgroups: Bounded::new(capacity),
            held: Index::default(),
            turned_away: 0,
            paths: Index::default(),
            removed: VecDeque::new(),
        }
    }

    /// Whose a cgroup is, without counting as a use, see [`Self::touch`]; `None` when it was never seen.
    pub(crate) fn place(&self, key: CgroupKey) -> Option<&Place> {
        match self.cgroups.peek(&key) {
            Some(cgroup) => Some(&cgroup.place),
            None if key.id == ROOT_ID => Some(&Place::Host),
            None => None,
        }
    }

    /// The path of a cgroup.
    pub(crate) fn path(&self, key: CgroupKey) -> Option<&Arc<str>> {
        self.cgroups.peek(&key)?.path.as_ref()
    }

    /// Cgroups with this path, at most one per hierarchy.
    pub(crate) fn at_path(&self, path: &str) -> &[CgroupKey] {
        self.paths.get(path).map_or(&[], |keys| keys)
    }

    /// Live cgroups of the host below this path, in order of use.
    pub(crate) fn host_cgroups_below(&self, path: &str) -> Vec<CgroupKey> {
        let below = |candidate: &str| candidate.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        self.cgroups
            .iter()
            .filter(|(_, cgroup)| cgroup.place == Place::Host && cgroup.path.as_deref().is_some_and(below))
            .map(|(key, _)| *key)
            .collect()
    }

    /// Enters a cgroup; returns the key of the one that had to go for it.
    ///
    /// A container has at most [`HELD_MAX`] cgroups, so that it cannot push out those of others. What is beyond stays
    /// unknown: its paths lead to the closest parent that is known, its processes to their ancestors.
    pub(crate) fn insert(
        &mut self,
        key: CgroupKey,
        path: Option<Arc<str>>,
        place: Place,
    ) -> Option<CgroupKey> {
        self.forget(key);
        if let Place::Container(id) = &place {
            let held = self.held.entry(id.clone()).or_default();
            if *held >= HELD_MAX {
                self.turned_away += 1;
                return None;
            }
            *held += 1;
        }
        if let Some(path) = &path {
            // One is enough where there are version 2 cgroups only.
            let keys = self.paths.entry(path.clone()).or_insert_with(|| Vec::with_capacity(1));
            // A path has one cgroup per hierarchy: an older one is gone, its removal was lost.
            keys.retain(|known| known.hierarchy != key.hierarchy);
            keys.push(key);
        }
        let (evicted, cgroup) = self.cgroups.insert(key, Cgroup { path, place, removed: false })?;
        self.forget_path(evicted, &cgroup);
        Some(evicted)
    }

    /// Changes whose a cgroup is.
    pub(crate) fn set_place(&mut self, key: CgroupKey, place: Place) {
        let Some(cgroup) = self.cgroups.get_mut(&key) else { return };
        let before = std::mem::replace(&mut cgroup.place, place.clone());
        if cgroup.removed {
            return;
        }
        if let Place::Container(id) = place {
            *self.held.entry(id).or_default() += 1;
        }
        self.let_go(&before);
    }

    /// A cgroup is gone. It stays known for a while, see [`REMOVED_MAX`].
    pub(crate) fn remove(&mut self, key: CgroupKey) {
        let Some(cgroup) = self.cgroups.get_mut(&key) else { return };
        if std::mem::replace(&mut cgroup.removed, true) {
            return;
        }
        let (path, place) = (cgroup.path.clone(), cgroup.place.clone());
        self.forget_key_of(path.as_ref(), key);
        self.let_go(&place);
        self.removed.push_back(key);
        if self.removed.len() > REMOVED_MAX
            && let Some(oldest) = self.removed.pop_front()
            && self.cgroups.peek(&oldest).is_some_and(|cgroup| cgroup.removed)
        {
            self.cgroups.remove(&oldest);
        }
    }

    fn forget(&mut self, key: CgroupKey) {
        if let Some(cgroup) = self.cgroups.remove(&key) {
            self.forget_path(key, &cgroup);
        }
    }

    fn forget_path(&mut self, key: CgroupKey, cgroup: &Cgroup) {
        if !cgroup.removed {
            self.forget_key_of(cgroup.path.as_ref(), key);
            self.let_go(&cgroup.place);
        }
    }

    /// A live cgroup of a place is gone.
    fn let_go(&mut self, place: &Place) {
        if let Place::Container(id) = place
            && let Some(held) = self.held.get_mut(id)
        {
            *held -= 1;
            if *held == 0 {
                self.held.remove(id);
            }
        }
    }

    fn forget_key_of(&mut self, path: Option<&Arc<str>>, key: CgroupKey) {
        if let Some(path) = path
            && let Some(keys) = self.paths.get_mut(path)
        {
            keys.retain(|known| *known != key);
            if keys.is_empty() {
                self.paths.remove(path);
            }
        }
    }

    /// Finds the place of a cgroup from its path and its maker.
    ///
    /// A name that its maker may not give (see [`Self::may_name`]) says nothing: the outer place holds.
    pub(crate) fn attribute(
        &mut self,
        key: CgroupKey,
        path: &str,
        maker: Maker<'_>,
        calls: &Calls,
        containers: &Containers,
    ) -> Attribution {
        let outer = match self.nearest_place(key.hierarchy, path) {
            Some(Place::Container(outer)) => Some(outer.clone()),
            Some(Place::Host | Place::Candidate(_)) | None => None,
        };
        let claim = Claim { key, maker, contained: maker.contained || outer.is_some() };
        if let Some(naming) = named_by_leaf(path, maker, calls)
            && outer.as_ref() != Some(&naming.id)
        {
            if self.may_name(&naming.id, path, &claim, calls, containers) {
                return Attribution::Own(naming);
            }
            return outer.map_or(Attribution::Host, Attribution::Nested);
        }
        if let Some(outer) = outer {
            return Attribution::Nested(outer);
        }
        if let Some(naming) = container_in_path(path).map(Naming::from)
            && let Some(own) = naming.path.as_deref().filter(|own| *own != path)
        {
            // If that cgroup is known, its name was found to say nothing.
            let is_known = self.at_path(own).iter().any(|known| known.hierarchy == key.hierarchy);
            return if !is_known && self.may_name(&naming.id, own, &claim, calls, containers) {
                Attribution::Inside(naming)
            } else {
                Attribution::Host
            };
        }
        match maker.making() {
            Some(id) if self.may_name(id, path, &claim, calls, containers) => {
                Attribution::Candidate(Some(id.clone()))
            }
            // Its name is to tell whose it is, which takes a maker whose word counts.
            None if is_oci_runtime(maker.comm) && maker.uid.unwrap_or(0) == 0 => Attribution::Candidate(None),
            _ => Attribution::Host,
        }
    }

    /// Whether a cgroup may pass for the container its name speaks of: anybody who can make a cgroup can name it.
    ///
    /// In a container nobody speaks of one that has another home, be it stopped. On the host a user speaks of his own
    /// containers only: those he called a runtime for, and those in his slice. A container that lives is where it is.
    fn may_name(
        &self,
        id: &str,
        path: &str,
        claim: &Claim<'_>,
        calls: &Calls,
        containers: &Containers,
    ) -> bool {
        let keys = containers.keys_of(id);
        let mut known = keys.iter().filter_map(|key| containers.peek(key));
        if claim.contained {
            return known.all(|entry| entry.shared.cgroup.as_deref() == Some(path));
        }
        let slice = user_of_slice(path);
        let uid = claim.maker.uid.or(slice).unwrap_or(0);
        let lives_elsewhere =
            || keys.iter().any(|key| self.lives_elsewhere(key, claim.key, Some(path), containers));
        // Free-text ids are unique within a namespace of the runtime only, and root names them at will.
        if uid == 0 {
            return !is_long_id(id) || !lives_elsewhere();
        }
        let is_called = || {
            claim.maker.making().is_some_and(|made| **made == *id)
                || calls.get(id).is_some_and(|call| call.process.uid == Some(uid))
        };
        if lives_elsewhere() && (is_long_id(id) || !is_called()) {
            return false;
        }
        known.all(|entry| entry.owner() == uid) && (slice == Some(uid) || is_called())
    }

    /// Whether the container of this key lives and has a cgroup of its own in the hierarchy of this one, and it is another
    /// one.
    pub(crate) fn lives_elsewhere(
        &self,
        container: &str,
        key: CgroupKey,
        path: Option<&str>,
        containers: &Containers,
    ) -> bool {
        let Some(entry) = containers.peek(container).filter(|entry| entry.life != Life::Stopped) else {
            return false;
        };
        entry.cgroups.iter().filter(|own| own.hierarchy == key.hierarchy && **own != key).any(|own| {
            match self.cgroups.peek(own) {
                Some(cgroup) => !cgroup.removed && (path.is_none() || cgroup.path.as_deref() != path),
                // Evicted: it lives where it lived.
                None => path.is_none() || entry.shared.cgroup.as_deref() != path,
            }
        })
    }

    /// The place of the closest parent that is known.
    fn nearest_place(&mut self, hierarchy: u32, path: &str) -> Option<&Place> {
        let mut rest = path;
        while let Some((parent, _)) = rest.rsplit_once('/') {
            let key = self.at_path(parent).iter().find(|key| key.hierarchy == hierarchy).copied();
            if let Some(key) = key
                && self.cgroups.contains(&key)
            {
                return self.cgroups.get_mut(&key).map(|cgroup| &cgroup.place);
            }
            rest = parent;
        }
        None
    }

    /// Whose a cgroup is; marks it as used.
    pub(crate) fn visit(&mut self, key: CgroupKey) -> Option<&Place> {
        match self.cgroups.get_mut(&key) {
            Some(cgroup) => Some(&cgroup.place),
            None if key.id == ROOT_ID => Some(&Place::Host),
            None => None,
        }
    }

    /// Marks a cgroup as used: something happened in it.
    pub(crate) fn touch(&mut self, key: CgroupKey) {
        self.cgroups.get_mut(&key);
    }

    /// Number of cgroups.
    pub(crate) fn len(&self) -> usize {
        self.cgroups.len()
    }

    /// Cgroups evicted or turned away since the start.
    pub(crate) fn evicted(&self) -> u64 {
        self.cgroups.evicted() + self.turned_away
    }
}

impl From<crate::cgroup_path::Identity<'_>> for Naming {
    fn from(identity: crate::cgroup_path::Identity<'_>) -> Self {
        Self {
            id: identity.id.into(),
            runtime: identity.runtime,
            namespace: identity.namespace.map(Arc::from),
            path: Some(identity.path.into()),
        }
    }
}

/// What the last component of a path says: by its form, by the arguments of the runtime that makes it, or by those of
/// a runtime that asked systemd to make it.
fn named_by_leaf(path: &str, maker: Maker<'_>, calls: &Calls) -> Option<Naming> {
    let (_, leaf) = path.rsplit_once('/')?;
    if let Some(identity) = container_in_path(path).filter(|identity| identity.path == path) {
        return Some(identity.into());
    }
    let by_maker = maker.making().filter(|id| is_named_for(leaf, id));
    let by_call = || calls.id_in_unit(leaf);
    by_maker.cloned().or_else(by_call).map(|id| Naming {
        id,
        runtime: Runtime::Unknown,
        namespace: None,

        path: Some(path.into()),
    })
}

/// Whether a name is an id, with or without a prefix and a unit's suffix. Runtimes make the parents of a container's
/// cgroup too, so an id somewhere in the name is not enough.
fn is_named_for(leaf: &str, id: &str) -> bool {
    let prefix = leaf.strip_suffix(".scope").unwrap_or(leaf).strip_suffix(id);
    leaf == id || prefix.is_some_and(|prefix| prefix.is_empty() || prefix.ends_with(['-', '_', ':']))
}

/// What the own name of a cgroup says whose making was not seen.
pub(crate) fn named_by_itself(name: &str, calls: &Calls) -> Option<Naming> {
    let (runtime, id) = match container_in_name(name) {
        Some((runtime, id)) => (runtime, Arc::from(id)),
        None => (Runtime::Unknown, calls.known_id(name).or_else(|| calls.id_in_unit(name))?),
    };
    Some(Naming { id, runtime, namespace: None, path: None })
}

#[cfg(test)]
mod tests;
