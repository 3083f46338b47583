//! Which of several containers of one id is meant.
//!
//! Ids given to `ctr` and to plain OCI runtimes are anybody's choice, and unique within a namespace or a root directory of the
//! runtime only. A cgroup is one container's; what names a container by its id is told apart by that directory.

use std::sync::Arc;

use crate::calls::Call;
use crate::cgroup_path::is_long_id;
use crate::containers::{Entry, Life};
use crate::engine::{ContainerMetadata, Engine};
use crate::ids::{CgroupKey, ProcessKey};
use crate::runtime_args::{OciCall, OciCommand, RuntimeCall};

/// Directories that the runtimes keep their state in if they are told nothing else.
const DEFAULT_ROOTS: [&str; 3] = ["/run/runc", "/run/crun", "/run/youki"];

impl Engine {
    /// The call that has a cgroup made: that of its maker, if that is the runtime, else the newest for the id.
    pub(super) fn call_behind(&self, id: &str, maker: ProcessKey) -> Option<Call> {
        let call = match self.processes.peek(maker).and_then(|entry| entry.image.call.as_deref()) {
            Some(RuntimeCall::Oci(OciCall {
                command: OciCommand::Create | OciCommand::Run,
                id: Some(made),
                root,
                ..
            })) if **made == *id => self.calls.get_of(id, root.as_deref()),
            _ => None,
        };
        call.or_else(|| self.calls.get(id)).cloned()
    }

    /// The key of the container of which this is a home of its own; `None` when there are too many of its id.
    pub(super) fn key_of_made(
        &mut self,
        home: CgroupKey,
        path: Option<&str>,
        id: &Arc<str>,
        call: Option<&Call>,
    ) -> Option<Arc<str>> {
        if is_long_id(id) {
            return Some(id.clone());
        }
        let keys = self.containers.keys_of(id);
        let is_at_home = |entry: &Entry| {
            let lives = matches!(entry.life, Life::Created | Life::Running);
            lives && path.is_some() && entry.shared.cgroup.as_deref() == path
        };
        let has_its_root = |entry: &Entry| {
            let (own, told) = (entry.query.root.as_deref(), call.and_then(|call| call.root.as_deref()));
            told.is_some() && own == told
        };
        // Of a call without a directory nobody knows which of several programs' default directories it means.
        let may_be = |entry: &Entry| {
            let told = call.map(|call| call.root.as_deref());
            told.is_none_or(|told| {
                entry.query.root.is_none() || is_same_root(entry.query.root.as_deref(), told)
            })
        };
        let find = |is_it: &dyn Fn(&Arc<str>, &Entry) -> bool| {
            let known = keys.iter().filter_map(|key| Some((key, self.containers.peek(key)?)));
            known.into_iter().find(|(key, entry)| is_it(key, entry)).map(|(key, _)| key.clone())
        };
        let is_free = |key: &Arc<str>| !self.inventory.lives_elsewhere(key, home, path, &self.containers);
        let found = find(&|_, entry| is_at_home(entry) && may_be(entry))
            .or_else(|| find(&|_, entry| has_its_root(entry)))
            .or_else(|| find(&|key, entry| may_be(entry) && is_free(key)));
        match found {
            Some(key) => Some(key),
            None if !keys.contains(id) => Some(id.clone()),
            None => self.containers.key_of_namesake(id),
        }
    }

    /// The key of the container that a runtime was called about.
    pub(super) fn key_called(&self, id: &Arc<str>, root: Option<&str>) -> Arc<str> {
        let keys = self.containers.keys_of(id);
        let has_root = |key: &&Arc<str>| {
            self.containers.peek(key).is_some_and(|entry| is_same_root(entry.query.root.as_deref(), root))
        };
        keys.iter().find(has_root).or(keys.first()).unwrap_or(id).clone()
    }

    /// The key of a container that was found in a runtime's state.
    pub(super) fn key_of_seed(&mut self, metadata: &ContainerMetadata) -> Arc<str> {
        let id = &metadata.id;
        let keys = self.containers.keys_of(id);
        if is_long_id(id) || metadata.cgroups.is_empty() {
            return id.clone();
        }
        let is_it = |key: &&Arc<str>| {
            self.containers.peek(key).is_some_and(|entry| {
                let mut known = entry.homes.iter().chain(&entry.shared.cgroup).peekable();
                known.peek().is_none() || known.any(|home| metadata.cgroups.contains(home))
            })
        };
        match keys.iter().find(is_it) {
            Some(key) => key.clone(),
            None if !keys.contains(id) => id.clone(),
            None => self.containers.key_of_namesake(id).unwrap_or_else(|| id.clone()),
        }
    }
}

/// Whether two directories of state are one, or both a default one.
fn is_same_root(one: Option<&str>, other: Option<&str>) -> bool {
    let told = |root: Option<&str>| -> Option<String> {
        let root = root?.trim_end_matches('/').replacen("/var/run/", "/run/", 1);
        (!DEFAULT_ROOTS.contains(&&*root)).then_some(root)
    };
    told(one) == told(other)
}
