//! Cgroups that come and go: each finds its place, and the probes learn it.

use std::sync::Arc;

use sensor_common::settings::cgroup_class;

use super::subject::Whereabouts;
use crate::containers::Life;
use crate::engine::{Engine, Request};
use crate::event::CgroupEvent;
use crate::ids::CgroupKey;
use crate::inventory::{Attribution, Maker, Naming, Place};
use crate::runtime_args::RuntimeCall;
use crate::time::Timestamp;

impl Engine {
    pub(super) fn on_cgroup(&mut self, at: Timestamp, event: &CgroupEvent) {
        if !event.made {
            return self.on_cgroup_removed(at, event.cgroup);
        }
        let mut path = String::from_utf8_lossy(&event.path).into_owned();
        if event.truncated {
            // Its own name is not whole: only its parents say something.
            path.truncate(path.rfind('/').map_or(0, |slash| slash + 1));
            path.push('\u{2026}');
        }
        let call = match self.processes.peek(event.task.key).and_then(|entry| entry.image.call.as_deref()) {
            Some(RuntimeCall::Oci(call)) => Some(call),
            _ => None,
        };
        let maker = Maker {
            call,
            comm: &event.task.comm.text(),
            uid: Some(event.task.uid),
            contained: matches!(self.whereabouts_by_lineage(event.task.key), Whereabouts::Container(_)),
        };
        let attribution = self.inventory.attribute(event.cgroup, &path, maker, &self.calls, &self.containers);
        let path: Option<Arc<str>> = (!event.truncated).then(|| path.into());
        match attribution {
            Attribution::Own(naming) => {
                let maker = self.describe(&event.task);
                self.on_container_made(at, event.cgroup, path, naming, (maker, event.task.key));
            }
            other => self.place_cgroup(event.cgroup, path, other),
        }
    }

    /// Enters a cgroup that is no container's own.
    pub(super) fn place_cgroup(&mut self, key: CgroupKey, path: Option<Arc<str>>, attribution: Attribution) {
        match attribution {
            Attribution::Host => self.enter_cgroup(key, path, Place::Host),
            Attribution::Nested(id) => self.enter_cgroup(key, path, Place::Container(id)),
            Attribution::Inside(naming) => {
                let call = self.calls.get(&naming.id).cloned();
                self.enter_container(&naming.id, &naming, call.as_ref());
                self.enter_cgroup(key, path, Place::Container(naming.id));
            }
            Attribution::Own(naming) => {
                self.place_home(key, path, &naming);
            }
            Attribution::Candidate(id) => self.enter_cgroup(key, path, Place::Candidate(id)),
        }
    }

    /// Enters a container's own cgroup; returns the container's key.
    fn place_home(&mut self, key: CgroupKey, path: Option<Arc<str>>, naming: &Naming) -> Arc<str> {
        let call = self.calls.get(&naming.id).cloned();
        let container = self.key_of_made(key, path.as_deref(), &naming.id, call.as_ref());
        let id = container.unwrap_or_else(|| naming.id.clone());
        self.enter_container(&id, naming, call.as_ref());
        self.own_cgroup(&id, key);
        self.enter_cgroup(key, path, Place::Container(id.clone()));
        id
    }

    /// A container was found in a cgroup that nobody told of; `starting` with the first program it runs.
    pub(super) fn adopt_cgroup(&mut self, key: CgroupKey, naming: Naming, starting: bool) -> Whereabouts {
        let path = self.inventory.path(key).cloned().or_else(|| naming.path.clone());
        let id = self.place_home(key, path, &naming);
        if let Some(entry) = self.containers.get_mut(&id)
            && starting
            && entry.life == Life::Known
        {
            entry.life = Life::Created;
        }
        Whereabouts::Container(id)
    }

    /// The runtime's state names the cgroups of a container: those that passed for the host's are its own.
    pub(super) fn adopt_homes(&mut self, id: &Arc<str>) {
        let Some(entry) = self.containers.peek(id) else { return };
        for path in entry.homes.clone() {
            let passed_for_host: Vec<_> = self
                .inventory
                .at_path(&path)
                .iter()
                .filter(|key| !matches!(self.inventory.place(**key), Some(Place::Container(_))))
                .copied()
                .collect();
            for key in &passed_for_host {
                self.own_cgroup(id, *key);
                self.reclassify(*key, id);
            }
            if !passed_for_host.is_empty() {
                for key in self.inventory.host_cgroups_below(&path) {
                    self.reclassify(key, id);
                }
            }
        }
    }

    fn reclassify(&mut self, key: CgroupKey, id: &Arc<str>) {
        self.inventory.set_place(key, Place::Container(id.clone()));
        self.outbox.request(Request::ClassifyCgroup(key, cgroup_class::CONTAINER));
    }

    fn own_cgroup(&mut self, id: &str, key: CgroupKey) {
        if let Some(entry) = self.containers.get_mut(id)
            && !entry.cgroups.contains(&key)
        {
            entry.cgroups.push(key);
        }
    }

    pub(super) fn enter_cgroup(&mut self, key: CgroupKey, path: Option<Arc<str>>, place: Place) {
        let class = match place {
            Place::Host => Some(cgroup_class::HOST),
            Place::Container(_) => Some(cgroup_class::CONTAINER),
            Place::Candidate(_) => None,
        };
        if let Some(evicted) = self.inventory.insert(key, path, place) {
            self.outbox.request(Request::ForgetCgroup(evicted));
        }
        // To the probes, a cgroup that was turned away is one nobody told of, which is in a container.
        if let Some(class) = class
            && self.inventory.place(key).is_some()
        {
            self.outbox.request(Request::ClassifyCgroup(key, class));
        }
    }

    fn on_cgroup_removed(&mut self, at: Timestamp, key: CgroupKey) {
        let place = self.inventory.place(key).cloned();
        self.inventory.remove(key);
        self.outbox.request(Request::ForgetCgroup(key));
        let Some(Place::Container(id)) = place else { return };
        let Some(entry) = self.containers.get_mut(&id) else { return };
        if let Some(index) = entry.cgroups.iter().position(|own| *own == key) {
            entry.cgroups.remove(index);
            self.stop_container(at, &id, None);
        }
    }
}
