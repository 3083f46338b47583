//! Connects to the sockets of runtimes and opens of credential files.
//!
//! Runtimes talk to each other and refresh credentials all day: what a daemon, shim or runtime of the host does is left
//! out. What anybody else does on the host is told, and of containers everything.

use sensor_common::record::Ring;

use super::subject::{Subject, Whereabouts};
use crate::credentials::{CredentialPlace, RuntimeSocket};
use crate::engine::Engine;
use crate::event::{Actor, Event, FileOpenEvent, FilePlace, PROC_TICK_NS, SocketConnectEvent, Task};
use crate::fact::{Enrichment, ExecRole, FactKind};
use crate::ids::{CgroupKey, FileKey, ProcessKey};
use crate::text;
use crate::time::Timestamp;

/// The files that connects and opens are known by.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Sorted by key.
    sockets: Vec<RuntimeSocket>,
    /// Sorted by key.
    places: Vec<CredentialPlace>,
}

impl Files {
    pub(super) fn socket(&self, key: FileKey) -> Option<&RuntimeSocket> {
        let index = self.sockets.binary_search_by_key(&key, |socket| socket.key).ok()?;
        self.sockets.get(index)
    }

    fn place(&self, key: FileKey) -> Option<&CredentialPlace> {
        let index = self.places.binary_search_by_key(&key, |place| place.key).ok()?;
        self.places.get(index)
    }
}

impl Engine {
    /// Replaces the sockets of runtimes.
    pub fn handle_runtime_sockets(&mut self, mut sockets: Vec<RuntimeSocket>) {
        sockets.sort_by_key(|socket| socket.key);
        self.files.sockets = sockets;
    }

    /// Replaces the places of credential files.
    pub fn handle_credential_places(&mut self, mut places: Vec<CredentialPlace>) {
        places.sort_unstable();
        self.files.places = places;
    }

    /// Takes an open of a credential file that another source than the probes has seen.
    pub fn handle_file_open(&mut self, boot_ns: u64, event: FileOpenEvent) {
        let event = Event::FileOpen(Box::new(event));
        if !self.is_canary(boot_ns, &event) {
            self.merge.push(Ring::Bulk, boot_ns, event);
            self.shrink_merge();
        }
    }

    pub(super) fn on_socket_connect(&mut self, at: Timestamp, event: &SocketConnectEvent) {
        self.forget_client(event.task.key);
        let Some(subject) = self.acting_subject(&event.task, event.cgroup) else { return };
        let socket = self.files.socket(event.socket);
        if let Some(socket) = socket {
            self.callers.note_local(at, socket.service);
        }
        let kind = FactKind::SocketConnect {
            path: socket.map(|socket| socket.path.clone()),
            inode: event.socket.inode,
            service: socket.map(|socket| socket.service),
        };
        self.send(at, subject, None, kind, None);
    }

    pub(super) fn on_file_open(&mut self, at: Timestamp, event: &FileOpenEvent) {
        let path = (!event.path.is_empty()).then(|| text::shared(&event.path));
        let kind = match event.place {
            FilePlace::Kind(kind) => kind,
            // A place that is gone since: nobody knows any more what was kept there.
            FilePlace::Key(key) => match self.files.place(key) {
                Some(place) => place.kind,
                None => return,
            },
            FilePlace::Own(_) => return,
        };
        let Some(class) = kind.class_of(path.as_deref()) else { return };
        let subject = match event.actor {
            Actor::Task(task, cgroup) => self.acting_subject(&task, cgroup),
            Actor::Pid { pid, started } => self.subject_of_pid(pid, started),
        };
        let Some(subject) = subject else { return };
        self.send(at, subject, None, FactKind::FileRead { path, class }, None);
    }

    /// Who did something; `None` for the runtimes of the host.
    pub(super) fn acting_subject(&mut self, task: &Task, cgroup: CgroupKey) -> Option<Subject> {
        self.processes.ensure(task);
        self.inventory.touch(cgroup);
        let place = self.whereabouts(cgroup, task.key);
        if place == Whereabouts::Host && self.is_part_of_a_runtime(task.key) {
            return None;
        }
        let process = self.describe(task);
        Some(self.subject(Some(process), &place))
    }

    /// Who has a process id: the latest process with it, if that was started when procfs says.
    fn subject_of_pid(&mut self, pid: u32, started: Option<u64>) -> Option<Subject> {
        let key = self.processes.latest(pid);
        let key = key.filter(|key| started.is_none_or(|started| key.start_ns / PROC_TICK_NS == started));
        let Some(key) = key else {
            return Some(Subject { enrichment: Enrichment::None, ..Subject::default() });
        };
        let cgroup = self.processes.peek(key)?.cgroup;
        self.inventory.touch(cgroup);
        let place = self.whereabouts(cgroup, key);
        if place == Whereabouts::Host && self.is_part_of_a_runtime(key) {
            return None;
        }
        let process = self.processes.snapshot(key);
        let mut subject = self.subject(process, &place);
        if started.is_none() && subject.enrichment == Enrichment::Ok {
            // It was gone when it was looked for; its number may have been another's before.
            subject.enrichment = Enrichment::Partial;
        }
        Some(subject)
    }

    fn is_part_of_a_runtime(&self, key: ProcessKey) -> bool {
        let role = self.processes.peek(key).and_then(|entry| entry.image.role);
        matches!(role, Some(ExecRole::Daemon | ExecRole::Shim | ExecRole::Runtime))
    }
}
