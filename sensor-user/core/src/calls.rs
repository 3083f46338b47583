//! Recent `create` and `run` calls of OCI runtimes, by container id.
//!
//! With the systemd driver it is systemd that makes the cgroup, and a free-text id looks like nothing in particular:
//! the call that asked for it tells whose it is, where its bundle lies and which runtime stands behind it.

use std::sync::Arc;

use crate::bounded::Bounded;
use crate::fact::{Process, Runtime};
use crate::time::Timestamp;

/// Most calls remembered; the one used longest ago goes first.
pub(crate) const CALLS_MAX: usize = 1024;

/// Most calls for one id that are told apart, by the directory of the runtime's state; the oldest goes first.
const CALLS_OF_ONE: usize = 4;

/// One `create` or `run`.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// When it was executed: before it read the bundle.
    pub(crate) at: Timestamp,
    /// The OCI runtime's process.
    pub(crate) process: Arc<Process>,
    /// Its mount namespace: that of the host.
    pub(crate) mnt_ns: u32,
    pub(crate) runtime: Runtime,
    pub(crate) namespace: Option<Arc<str>>,
    pub(crate) bundle: Option<Arc<str>>,
    pub(crate) root: Option<Arc<str>>,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Calls {
    /// By id, the newest last.
    table: Bounded<Arc<str>, Vec<Call>>,
}

impl Calls {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { table: Bounded::new(capacity) }
    }

    pub(crate) fn insert(&mut self, id: Arc<str>, call: Call) {
        let Some(calls) = self.table.get_mut(&id) else {
            self.table.insert(id, vec![call]);
            return;
        };
        calls.retain(|known| known.root != call.root);
        if calls.len() == CALLS_OF_ONE {
            calls.remove(0);
        }
        calls.push(call);
    }

    /// The newest call for an id.
    pub(crate) fn get(&self, id: &str) -> Option<&Call> {
        self.table.peek(id)?.last()
    }

    /// The call for an id with this directory of state.
    pub(crate) fn get_of(&self, id: &str, root: Option<&str>) -> Option<&Call> {
        self.table.peek(id)?.iter().find(|call| call.root.as_deref() == root)
    }

    /// Drops the call of a container that is gone.
    pub(crate) fn remove(&mut self, id: &str, root: Option<&str>) {
        let Some(calls) = self.table.get_mut(id) else { return };
        calls.retain(|call| call.root.as_deref() != root);
        if calls.is_empty() {
            self.table.remove(id);
        }
    }

    /// The id itself, if there is a call for it.
    pub(crate) fn known_id(&self, id: &str) -> Option<Arc<str>> {
        self.table.contains(id).then(|| Arc::from(id))
    }

    /// The id in `<prefix>-<id>.scope`, if there is a call for it. Free-text ids contain dashes themselves, so every
    /// split is tried; the longest id wins.
    pub(crate) fn id_in_unit(&self, leaf: &str) -> Option<Arc<str>> {
        let unit = leaf.strip_suffix(".scope")?;
        unit.match_indices('-').find_map(|(dash, _)| self.known_id(&unit[dash + 1..]))
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.table.evicted()
    }
}
