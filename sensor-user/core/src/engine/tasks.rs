//! Execs and exits: what runs where, and what the runtimes' own programs are about to do.

use std::sync::Arc;

use super::subject::Whereabouts;
use crate::calls::Call;
use crate::engine::{ContainerQuery, Engine, Request};
use crate::event::{ExecEvent, ExitEvent};
use crate::fact::{ExecRole, FactKind, Runtime};
use crate::ids::{CgroupKey, ProcessKey};
use crate::image::Image;
use crate::inventory::{Naming, Place, named_by_itself};
use crate::processes::Entry;
use crate::runtime_args::{OciCall, OciCommand, RuntimeCall};
use crate::text;
use crate::time::Timestamp;

/// Name by which containerd knows Docker's containers.
const DOCKER_NAMESPACE: &str = "moby";
/// Key of containers that are not made yet.
const AHEAD: &str = "\0";

impl Engine {
    pub(super) fn on_exec(&mut self, at: Timestamp, event: &ExecEvent) {
        let key = event.task.key;
        let client = self.client_of(event);
        let (entry, before) = self.processes.exec(event, client.as_ref());
        let image = entry.image.clone();
        let place = match self.place_exec(event, &image, before.cgroup) {
            // The runtime is the host's until it becomes the container's program, in whichever cgroup it waits for that.
            Whereabouts::Container(id) if self.is_set_up(&id, event, &image) => Whereabouts::Host,
            place => place,
        };
        if let Whereabouts::Container(id) = &place
            && !self.is_on_runtimes_side(id, &image, event.namespaces.mnt)
            && let Some(entry) = self.processes.get_mut(key)
        {
            entry.contained = true;
        }
        if matches!(place, Whereabouts::Container(_))
            && self.inventory.place(event.cgroup) == Some(&Place::Host)
        {
            // It left the container's cgroup and is the container's still, and so is what it forks.
            if let Some(entry) = self.processes.get_mut(key) {
                entry.cgroup = before.cgroup;
            }
        }
        let role = match place {
            Whereabouts::Host => image.role,
            Whereabouts::Container(_) | Whereabouts::Unknown => {
                Some(image.role.unwrap_or(ExecRole::Workload))
            }
        };
        if let Some(role) = role {
            let process = self.processes.report(key);
            let subject = self.subject(process, &place);
            self.send(at, subject, None, FactKind::Exec { role }, None);
        }
        if let Whereabouts::Container(id) = &place {
            self.on_program_in_container(at, id, event);
            self.on_exec_in_container(at, id, event, &before);
        }
        if let Some(RuntimeCall::Oci(call)) = image.call.as_deref() {
            self.on_oci_call(at, key, call, &before.image, &place);
        }
        if image.role == Some(ExecRole::Daemon) {
            self.expect_daemon(key);
        }
        if image.role == Some(ExecRole::Daemon) || self.listeners.is_holder(key) {
            self.ask_for_holders(at.boot_ns);
        }
    }

    pub(super) fn on_exit(&mut self, at: Timestamp, event: &ExitEvent) {
        let key = event.task.key;
        let reported = self.processes.get_mut(key).is_some_and(|entry| std::mem::take(&mut entry.reported));
        let place = self.whereabouts(event.cgroup, key);
        if reported {
            let process = self.describe(&event.task);
            let subject = self.subject(Some(process), &place);
            self.send(at, subject, None, exit_of_status(event.status), None);
        }
        if let Whereabouts::Container(id) = &place
            && self.containers.peek(id).is_some_and(|entry| entry.init == Some(key))
        {
            self.stop_container(at, id, Some(key));
        }
        if event.status == 0 {
            self.on_delete_done(at, key);
        }
        if self.listeners.is_holder(key) {
            self.listeners.drop_holder(key);
            self.ask_for_holders(at.boot_ns);
        }
        self.daemon_options.remove(&key);
        self.end_socket_requests_of(at, key);
        self.processes.exit(key);
    }

    /// Where a program was executed; here a cgroup that nobody told of may find its container.
    fn place_exec(&mut self, event: &ExecEvent, image: &Image, before: CgroupKey) -> Whereabouts {
        match self.inventory.visit(event.cgroup) {
            Some(Place::Host) => return self.place_in_host_cgroup(event, before),
            Some(Place::Container(id)) => return Whereabouts::Container(id.clone()),
            // The runtime's own helpers pass through the cgroup before the container's program does.
            Some(Place::Candidate(_)) if image.role == Some(ExecRole::Runtime) => return Whereabouts::Host,
            Some(Place::Candidate(id)) => {
                let id = id.clone();
                return self.settle_candidate(event, id);
            }
            None => {}
        }
        if !event.not_host_cgroup {
            return self.place_in_host_cgroup(event, before);
        }
        let by_lineage = self.whereabouts_by_lineage(event.task.key);
        if by_lineage != Whereabouts::Unknown {
            return by_lineage;
        }
        let name = text::shared(event.cgroup_name());
        let Some(naming) = named_by_itself(&name, &self.calls) else { return Whereabouts::Unknown };
        if self.inventory.lives_elsewhere(&naming.id, event.cgroup, None, &self.containers) {
            return Whereabouts::Unknown;
        }
        self.adopt_cgroup(event.cgroup, naming, event.ns_pid == 1)
    }

    /// A cgroup that a runtime made under a name of its own belongs to the container it was making.
    fn settle_candidate(&mut self, event: &ExecEvent, id: Option<Arc<str>>) -> Whereabouts {
        let path = self.inventory.path(event.cgroup).cloned();
        let by_path = || path.as_deref().map(text::basename).filter(|leaf| !leaf.is_empty()).map(Arc::from);
        let Some(id) = id.or_else(by_path) else { return Whereabouts::Unknown };
        let runtime = self.calls.get(&id).map_or(Runtime::Unknown, |call| call.runtime);
        let naming = Naming { id, runtime, namespace: None, path };
        self.adopt_cgroup(event.cgroup, naming, true)
    }

    /// Where a program was executed in a cgroup of the host.
    fn place_in_host_cgroup(&self, event: &ExecEvent, before: CgroupKey) -> Whereabouts {
        let process = self.processes.peek(event.task.key);
        process.map_or(Whereabouts::Host, |process| self.place_on_host(before, process))
    }

    /// Whether an exec in a container's cgroup is still the runtime on its way into it: `runc init` executes itself
    /// anew from a sealed copy, at times after it was moved into the cgroup but always in the runtime's own mount
    /// namespace. Anybody can name a program `runc init`; only the runtime runs it outside the container.
    fn is_set_up(&self, id: &str, event: &ExecEvent, image: &Image) -> bool {
        let Some(RuntimeCall::Oci(OciCall { command: OciCommand::Init, .. })) = image.call.as_deref() else {
            return false;
        };
        if self.processes.peek(event.task.key).is_none_or(|entry| entry.contained) {
            return false;
        }
        match self.containers.peek(id).map_or(0, |entry| entry.creator_mnt_ns) {
            0 => event.ns_pid == event.task.key.pid,
            creator => event.namespaces.mnt == creator,
        }
    }

    fn on_oci_call(
        &mut self,
        at: Timestamp,
        key: ProcessKey,
        call: &OciCall,
        before: &Image,
        place: &Whereabouts,
    ) {
        let Some(id) = &call.id else { return };
        let container = self.key_called(id, call.root.as_deref());
        match call.command {
            // What a container's own processes claim to make is believed of cgroups inside it only, which their
            // process entry is enough for.
            _ if !matches!(place, Whereabouts::Container(_)) && !self.is_callers(key, &container) => {}
            OciCommand::Create | OciCommand::Run if !matches!(place, Whereabouts::Container(_)) => {
                let (runtime, namespace) = self.runtime_behind(key, call);
                let Some(process) = self.processes.snapshot(key) else { return };
                let mnt_ns = self.processes.peek(key).map_or(0, |entry| entry.namespaces.mnt);
                let (bundle, root) = (call.bundle.clone(), call.root.clone());
                let call = Call { at, process, mnt_ns, runtime, namespace, bundle, root };
                self.outbox.request(Request::ReadAhead(ContainerQuery {
                    key: AHEAD.into(),
                    id: id.clone(),
                    runtime: call.runtime,
                    namespace: call.namespace.clone(),
                    bundle: call.bundle.clone(),
                    root: call.root.clone(),
                    uid: call.process.uid,
                    made_unix_ns: Some(call.at.unix_ns),
                }));
                self.calls.insert(id.clone(), call);
            }
            OciCommand::Exec => {
                // crun executes itself anew with the same arguments: one call, not two.
                let again =
                    matches!(before.call.as_deref(), Some(RuntimeCall::Oci(earlier)) if earlier == call);
                if !again && self.may_speak_of(place, &container) {
                    let (runtime, namespace) = self.runtime_behind(key, call);
                    let naming = Naming { id: id.clone(), runtime, namespace, path: None };
                    let made = self.calls.get_of(id, call.root.as_deref()).cloned();
                    self.enter_container(&container, &naming, made.as_ref());
                    self.on_process_entering(at, key, &container, call, place);
                }
            }
            _ => {}
        }
    }

    /// Whether a call may be about this container: a user's runtime has no access to those of others.
    fn is_callers(&self, caller: ProcessKey, id: &str) -> bool {
        let uid = self.processes.peek(caller).map_or(0, Entry::uid);
        uid == 0 || self.containers.peek(id).is_none_or(|entry| entry.owner() == uid)
    }

    /// A runtime inside a container manages the containers below it and no others.
    fn may_speak_of(&self, caller: &Whereabouts, id: &str) -> bool {
        let Whereabouts::Container(caller) = caller else { return true };
        let path = |id: &str| self.containers.peek(id).and_then(|entry| entry.shared.cgroup.as_deref());
        match (path(caller), path(id)) {
            (Some(outer), Some(inner)) => inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/')),
            _ => false,
        }
    }

    /// The manager behind an OCI runtime: from the shim, monitor or daemon that called it, else from its `--root`.
    fn runtime_behind(&self, key: ProcessKey, call: &OciCall) -> (Runtime, Option<Arc<str>>) {
        let by_namespace = |namespace: &Arc<str>| match &**namespace {
            DOCKER_NAMESPACE => (Runtime::Docker, Some(namespace.clone())),
            _ => (Runtime::Containerd, Some(namespace.clone())),
        };
        let mut seen_unnamed = false;
        for (_, entry) in self.processes.walk(key).skip(1) {
            match entry.image.call.as_deref() {
                Some(RuntimeCall::Shim(shim)) if shim.namespace.is_some() => {
                    return shim.namespace.as_ref().map(by_namespace).expect("invariant: just tested");
                }
                Some(RuntimeCall::Conmon(conmon)) => {
                    return (if conmon.crio { Runtime::Crio } else { Runtime::Podman }, None);
                }
                Some(RuntimeCall::Shim(_)) => seen_unnamed = true,
                _ => {}
            }
            let exe = entry.image.exe.as_deref().map(text::basename);
            match exe {
                Some("dockerd") => return (Runtime::Docker, None),
                Some("containerd") => return (Runtime::Containerd, None),
                Some("podman") => return (Runtime::Podman, None),
                Some("crio") => return (Runtime::Crio, None),
                _ => seen_unnamed |= entry.image.role == Some(ExecRole::Shim),
            }
        }
        let root = call.root.as_deref().unwrap_or_default();
        if root.contains("/docker/") {
            return (Runtime::Docker, Some(DOCKER_NAMESPACE.into()));
        }
        if let Some((_, namespace)) = root.split_once("/containerd/runc/") {
            return by_namespace(&namespace.into());
        }
        (if seen_unnamed { Runtime::Unknown } else { Runtime::Runc }, None)
    }
}

fn exit_of_status(status: u32) -> FactKind {
    let signal = (status & 0x7f) as u8;
    if signal == 0 {
        FactKind::Exit { code: Some((status >> 8) as u8), signal: None }
    } else {
        FactKind::Exit { code: None, signal: Some(signal) }
    }
}
