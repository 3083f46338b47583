//! Programs of containers that run on the host's side.
//!
//! What a program does between two execs is not seen, so an escape shows with the next exec: `nsenter` joins the host's
//! namespaces and executes a shell there.

use std::sync::Arc;

use super::subject::{Subject, Whereabouts};
use crate::engine::Engine;
use crate::event::ExecEvent;
use crate::fact::FactKind;
use crate::namespaces::{HostSide, Namespaces};
use crate::processes::Before;
use crate::time::Timestamp;

impl Engine {
    /// Takes the namespaces and the root directory of the host, before its processes.
    pub fn handle_host_namespaces(&mut self, host: Namespaces) {
        self.host = host;
    }

    /// Tells of an exec in a container that is an escape from it. What it executes or forks later is the same escape.
    pub(super) fn on_exec_in_container(
        &mut self,
        at: Timestamp,
        id: &Arc<str>,
        event: &ExecEvent,
        before: &Before,
    ) {
        if !event.namespaces.may_share(&self.host) {
            return;
        }
        let key = event.task.key;
        let container = self.containers.peek(id).and_then(|entry| entry.namespaces);
        let side = HostSide::of(&event.namespaces, container.as_ref(), &self.host);
        let escaped = self.processes.peek(key).is_none_or(|entry| entry.escaped);
        if !side.is_any() || escaped || !self.was_inside(id, event, before) {
            return;
        }
        if let Some(entry) = self.processes.get_mut(key) {
            entry.escaped = true;
        }
        let process = self.processes.snapshot(key);
        let subject: Subject = self.subject(process, &Whereabouts::Container(id.clone()));
        self.send(at, subject, None, FactKind::Escape(side), None);
    }

    /// Whether a process, or the one that forked it, has run in this container with namespaces of its own.
    ///
    /// A runtime is on the host's side while it sets a container up, at times with its process in the container's cgroup
    /// already: it comes from the host, whatever name it goes by.
    fn was_inside(&self, id: &Arc<str>, event: &ExecEvent, before: &Before) -> bool {
        let is_inside = |cgroup, namespaces: Namespaces| {
            let away_from_host = namespaces.mnt != 0 && namespaces.mnt != self.host.mnt;
            away_from_host && self.place(cgroup) == Whereabouts::Container(id.clone())
        };
        if is_inside(before.cgroup, before.namespaces) {
            return true;
        }
        let parent = self.processes.peek(event.task.key).and_then(|entry| entry.parent);
        let parent = parent.and_then(|parent| self.processes.peek(parent));
        parent.is_some_and(|parent| is_inside(parent.cgroup, parent.namespaces))
    }
}
