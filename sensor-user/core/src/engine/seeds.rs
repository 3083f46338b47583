//! What was there before the sensor: processes, cgroups and, through them, containers.
//!
//! Handed in before the ready record, so that from then on no event finds its subject unknown.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::subject::Whereabouts;
use crate::containers::Life;
use crate::engine::{Engine, SeedCgroup, SeedProcess, Urgency};
use crate::ids::{CgroupKey, ProcessKey};
use crate::inventory::{Maker, Place};

impl Engine {
    /// Takes a process that was there before the sensor.
    pub fn handle_process(&mut self, seed: SeedProcess) {
        let key = ProcessKey { pid: seed.item.task.pid, start_ns: seed.item.task.start_ns };
        let contents = seed.contents;
        self.processes.seed(seed);
        self.expect_ports(key);
        if let Some(contents) = contents {
            self.ask_for_program(key, contents, &[], Urgency::Later);
        }
    }

    /// Whether a cgroup is known to be the host's. For processes that were there before the sensor once
    /// [`Engine::handle_cgroups`] has told of the cgroups.
    #[must_use]
    pub fn is_host_cgroup(&self, cgroup: CgroupKey) -> bool {
        self.place(cgroup) == Whereabouts::Host
    }

    /// Takes the cgroups that were there before the sensor; asks to classify each and for every container's metadata.
    pub fn handle_cgroups(&mut self, mut cgroups: Vec<SeedCgroup>) {
        // Parents before children, whatever order they were read in.
        cgroups.sort_unstable_by(|one, other| (&one.path, one.key).cmp(&(&other.path, other.key)));
        for SeedCgroup { key, path } in cgroups {
            if self.inventory.place(key).is_some() && self.inventory.path(key).is_some() {
                // Its own record was faster.
                continue;
            }
            let attribution =
                self.inventory.attribute(key, &path, Maker::UNKNOWN, &self.calls, &self.containers);
            self.place_cgroup(key, Some(path), attribution);
        }
        for id in self.containers.keys() {
            self.adopt_homes(&id);
        }
    }

    /// Completes the seeds once all are there: ancestry, and the first process of each container.
    pub(super) fn settle_seeds(&mut self) {
        self.processes.settle_seeds();
        // The first process of a container is the oldest whose parent is outside of it.
        let mut oldest: BTreeMap<Arc<str>, ProcessKey> = BTreeMap::new();
        for (key, entry) in self.processes.iter() {
            let Some(Place::Container(id)) = self.inventory.place(entry.cgroup) else { continue };
            let parent = entry.parent.and_then(|parent| self.processes.peek(parent));
            if parent.is_some_and(|parent| self.place(parent.cgroup) == Whereabouts::Container(id.clone())) {
                continue;
            }
            let known = oldest.entry(id.clone()).or_insert(*key);
            if (key.start_ns, key.pid) < (known.start_ns, known.pid) {
                *known = *key;
            }
        }
        for (id, init) in oldest {
            let namespaces = self.processes.peek(init).map(|entry| entry.namespaces);
            if let Some(entry) = self.containers.get_mut(&id)
                && entry.life == Life::Known
            {
                entry.init = Some(init);
                entry.namespaces = namespaces.filter(|known| known.mnt != 0);
            }
        }
    }
}
