//! Containers from their cgroup's making to the removal of their state.
//!
//! Each step of a life is told once: created when its cgroup is made, started with its first program, stopped when
//! its first process exits or its cgroup goes, removed when the runtime drops its state.

use std::sync::Arc;

use super::callers::Spontaneity;
use super::entering::LateEntrant;
use super::subject::{Subject, View, Whereabouts};
use crate::calls::Call;
use crate::cgroup_path::is_long_id;
use crate::containers::Life;
use crate::engine::{ContainerMetadata, Engine, Request};
use crate::event::ExecEvent;
use crate::fact::{ContainerAction, Enrichment, FactKind, Origin, Process, Runtime};
use crate::holds::{Entrant, Held};
use crate::ids::{CgroupKey, ProcessKey};
use crate::inventory::{Naming, Place};
use crate::runtime_args::{OciCall, OciCommand, RuntimeCall};
use crate::time::Timestamp;

impl Engine {
    /// Takes what the runtime's state on disk says of a container. It may come in several answers, each with more than
    /// the one before.
    pub fn handle_container_metadata(&mut self, now: Timestamp, metadata: ContainerMetadata) {
        let id = match &metadata.key {
            Some(key) => key.clone(),
            None => self.key_of_seed(&metadata),
        };
        if self.containers.peek(&id).is_none() {
            // Found by looking at the runtimes' state at start-up; worth keeping if it says where the container lives.
            if metadata.cgroups.is_empty() {
                return;
            }
            let runtime = metadata.runtime.unwrap_or(Runtime::Unknown);
            let path = metadata.cgroups.first().cloned();
            let own = metadata.id.clone();
            let naming = Naming { id: own, runtime, namespace: None, path };
            let call = self.calls.get(&id).cloned();
            self.enter_container(&id, &naming, call.as_ref());
        }
        let Some(entry) = self.containers.get_mut(&id) else { return };
        let news = entry.enrich(&metadata);
        let (enriched, owed, origin) = (entry.enriched, entry.owes_metadata, entry.origin.clone());
        let is_over = entry.life == Life::Removed && (enriched || metadata.is_last);
        self.adopt_homes(&id);
        self.follow_published(now, &id);
        if !enriched {
            if is_over {
                self.containers.remove(&id);
            }
            return;
        }
        self.release_ready(&id);
        if owed && news {
            self.send_container(now, &id, ContainerAction::Enriched, None, Entrant::None, origin);
        }
        if is_over {
            self.containers.remove(&id);
        }
    }

    /// The runtime has dropped its state of the container of this key.
    pub fn handle_container_removed(&mut self, now: Timestamp, id: &str) {
        // A notice that crossed with the container's next start is out of date.
        if self.containers.peek(id).is_some_and(|entry| entry.watched) {
            self.remove_container(now, id);
        }
    }

    pub(super) fn on_container_made(
        &mut self,
        at: Timestamp,
        key: CgroupKey,
        path: Option<Arc<str>>,
        naming: Naming,
        maker: (Arc<Process>, ProcessKey),
    ) {
        let call = self.call_behind(&naming.id, maker.1);
        let found = self.key_of_made(key, path.as_deref(), &naming.id, call.as_ref());
        let has_namesake = found.is_none();
        let id = found.unwrap_or_else(|| naming.id.clone());
        let is_new = self.enter_container(&id, &naming, call.as_ref());
        let mnt_ns = match &call {
            Some(call) => call.mnt_ns,
            None => self.processes.peek(maker.1).map_or(0, |entry| entry.namespaces.mnt),
        };
        let creator = call.as_ref().map_or(maker.0, |call| call.process.clone());
        let entry = self.containers.get_mut(&id).expect("invariant: entered above");
        // One cgroup per hierarchy and life: a second one in the same hierarchy is the next life.
        let same_life = matches!(entry.life, Life::Created | Life::Running)
            && entry.cgroups.iter().all(|own| own.hierarchy != key.hierarchy)
            && !is_new;
        if same_life {
            entry.cgroups.push(key);
            return self.enter_cgroup(key, path, Place::Container(id));
        }
        entry.ran_before = entry.life == Life::Stopped;
        entry.life = Life::Created;
        entry.init = None;
        entry.namespaces = None;
        entry.cgroups = vec![key];
        entry.origin = Origin::none();
        entry.creator_mnt_ns = mnt_ns;
        if call.is_none() {
            // What is known is the time of an earlier life.
            entry.query.made_unix_ns = None;
        }
        let was_watched = std::mem::take(&mut entry.watched);
        if !is_new && !is_long_id(&id) {
            // A free-text id may be given to something else the next time.
            entry.begin_anew(path.clone());
            entry.ambiguous = has_namesake;
        }
        // Ports are published anew for each life.
        let had_ports = !std::mem::take(&mut entry.published).is_empty();
        let ask = !is_new && (!entry.enriched || had_ports);
        let query = entry.query.clone();
        if was_watched {
            self.outbox.request(Request::ForgetRemoval(id.clone()));
        }
        if ask {
            self.outbox.request(Request::ReadContainer(query));
        }
        self.enter_cgroup(key, path, Place::Container(id.clone()));
        let name = self.containers.peek(&id).and_then(|entry| entry.shared.name.clone());
        let origin = self.origins.of_container(at, &id, name.as_deref());
        let spontaneity = self.spontaneity_of_start(&id);
        let origin = self.origin_or_inferred(at, &id, Some(&creator), spontaneity, origin);
        self.note_origin(&id, &origin);
        self.tell_container(at, &id, ContainerAction::Created, Some(creator), origin);
    }

    /// Remembers the cause of a container's making or start, of which its later records speak until it is made anew.
    fn note_origin(&mut self, id: &str, origin: &Origin) {
        if let Some(entry) = self.containers.get_mut(id)
            && origin.class.is_surer_than(entry.origin.class)
        {
            entry.origin = origin.clone();
        }
    }

    /// What has ended may be started again by its daemon, without anybody asking.
    fn spontaneity_of_start(&self, id: &str) -> Spontaneity {
        let ran_before = self.containers.peek(id).is_some_and(|entry| entry.ran_before);
        if ran_before { Spontaneity::Possible } else { Spontaneity::Asked }
    }

    /// A program runs in a container; the first one starts it.
    pub(super) fn on_program_in_container(&mut self, at: Timestamp, id: &Arc<str>, event: &ExecEvent) {
        let Some(entry) = self.containers.get_mut(id) else { return };
        if entry.life != Life::Created {
            return;
        }
        entry.life = Life::Running;
        entry.init = Some(event.task.key);
        entry.namespaces = Some(event.namespaces);
        let name = entry.shared.name.clone();
        let process = self.processes.snapshot(event.task.key);
        let origin = self.origins.take_start(at, id, name.as_deref());
        let spontaneity = self.spontaneity_of_start(id);
        let origin = self.origin_or_inferred(at, id, process.as_deref(), spontaneity, origin);
        self.note_origin(id, &origin);
        self.tell_container(at, id, ContainerAction::Started, process, origin);
        self.follow_published(at, id);
    }

    /// A container's first process exited or its cgroup went, whichever comes first.
    pub(super) fn stop_container(&mut self, at: Timestamp, id: &Arc<str>, init: Option<ProcessKey>) {
        let Some(entry) = self.containers.get_mut(id) else { return };
        if matches!(entry.life, Life::Stopped | Life::Removed) {
            return;
        }
        entry.life = Life::Stopped;
        entry.watched = true;
        let (query, name, origin) = (entry.query.clone(), entry.shared.name.clone(), entry.origin.clone());
        let process = init.and_then(|key| self.processes.snapshot(key));
        self.origins.forget(id, name.as_deref());
        self.tell_container(at, id, ContainerAction::Stopped, process, origin);
        self.forget_published(at, id);
        self.outbox.request(Request::WatchRemoval(query));
    }

    /// `runc delete` came to its end: for a container without a manager that is its removal.
    pub(super) fn on_delete_done(&mut self, at: Timestamp, key: ProcessKey) {
        let Some(entry) = self.processes.peek(key) else { return };
        let Some(RuntimeCall::Oci(OciCall { command: OciCommand::Delete, id: Some(id), root, .. })) =
            entry.image.call.as_deref()
        else {
            return;
        };
        let id = self.key_called(id, root.as_deref());
        let place = self.whereabouts_by_lineage(key);
        let unmanaged = self
            .containers
            .peek(&id)
            .is_some_and(|entry| entry.shared.runtime == Runtime::Runc && entry.life == Life::Stopped);
        if unmanaged && !matches!(place, Whereabouts::Container(_)) {
            self.remove_container(at, &id);
        }
    }

    fn remove_container(&mut self, at: Timestamp, id: &str) {
        for held in self.holds.take_of(id) {
            self.release(held);
        }
        let origin = self.containers.peek(id).map_or_else(Origin::none, |entry| entry.origin.clone());
        self.send_container(at, &Arc::from(id), ContainerAction::Removed, None, Entrant::None, origin);
        let Some(entry) = self.containers.get_mut(id) else { return };
        self.calls.remove(&entry.query.id, entry.query.root.as_deref());
        if std::mem::take(&mut entry.watched) {
            self.outbox.request(Request::ForgetRemoval(id.into()));
        }
        // A container may be gone before its files were read; what its records lack is told all the same.
        if entry.owes_metadata && !entry.enriched {
            entry.life = Life::Removed;
        } else {
            self.containers.remove(id);
        }
    }

    /// Enters a container unless it is known, and asks for its metadata; `call` is what its runtime was called with.
    /// Returns whether it is new.
    pub(super) fn enter_container(&mut self, key: &Arc<str>, naming: &Naming, call: Option<&Call>) -> bool {
        let (is_new, evicted) = self.containers.enter(key, naming);
        if let Some(evicted) = evicted.filter(|entry| entry.watched) {
            self.outbox.request(Request::ForgetRemoval(evicted.query.key));
        }
        let entry = self.containers.get_mut(key).expect("invariant: entered above");
        if let Some(call) = call {
            entry.learn_call(call);
        }
        if is_new {
            self.outbox.request(Request::ReadContainer(entry.query.clone()));
        }
        is_new
    }

    /// Tells of a step in a container's life, now or when its metadata is there.
    pub(super) fn tell_container(
        &mut self,
        at: Timestamp,
        id: &Arc<str>,
        action: ContainerAction,
        process: Option<Arc<Process>>,
        origin: Origin,
    ) {
        self.tell_of_entrant(at, id, action, process, Entrant::None, origin);
    }

    /// As [`Self::tell_container`], for a process that a runtime puts into the container.
    pub(super) fn tell_of_entrant(
        &mut self,
        at: Timestamp,
        id: &Arc<str>,
        action: ContainerAction,
        process: Option<Arc<Process>>,
        entrant: Entrant,
        origin: Origin,
    ) {
        let Some(entry) = self.containers.get_mut(id) else { return };
        let (container, k8s) = (entry.shared.clone(), entry.k8s.clone());
        let is_complete = entry.enriched && !matches!(entrant, Entrant::Awaited(_));
        let held = Held { id: id.clone(), at, action, process, origin, container, k8s, entrant };
        if is_complete || self.hold_ns == 0 {
            self.release(held);
        } else if let Some(overflow) = self.holds.hold(at.boot_ns.saturating_add(self.hold_ns), held) {
            self.release(overflow);
        }
    }

    pub(super) fn send_container(
        &mut self,
        at: Timestamp,
        id: &Arc<str>,
        action: ContainerAction,
        process: Option<Arc<Process>>,
        entrant: Entrant,
        origin: Origin,
    ) {
        let mut view = self.view_container(id);
        view.admit(entrant);
        let View { container, k8s, enriched, truncated } = view;
        let enrichment = if enriched { Enrichment::Ok } else { Enrichment::Partial };
        let subject = Subject { process, container: Some(container), k8s, enrichment, truncated };
        self.send(at, subject, None, FactKind::Container { action, origin }, None);
    }

    /// Sends what waits for nothing but the metadata of a container, which is there.
    pub(super) fn release_ready(&mut self, id: &str) {
        for held in self.holds.take_ready_of(id) {
            self.release(held);
        }
    }

    fn release(&mut self, held: Held) {
        let Held { id, at, action, process, origin, container, k8s, entrant } = held;
        if let Entrant::Awaited(number) = entrant {
            let late = LateEntrant { id: id.clone(), process: process.clone(), origin: origin.clone() };
            self.late_entrants.insert(number, late);
        }
        if self.containers.peek(&id).is_some() {
            return self.send_container(at, &id, action, process, entrant, origin);
        }
        let enrichment = Enrichment::Partial;
        let subject = Subject { process, container: Some(container), k8s, enrichment, truncated: false };
        self.send(at, subject, None, FactKind::Container { action, origin }, None);
    }

    /// Sends the container records that have waited long enough.
    pub(super) fn expire_holds(&mut self, now: Timestamp) {
        while let Some(held) = self.holds.take_due(now.boot_ns) {
            self.release(held);
        }
    }
}
