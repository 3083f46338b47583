//! Who a fact is about: process, container and pod, and how much of that is known.

use std::sync::Arc;

use crate::containers;
use crate::engine::Engine;
use crate::event::Task;
use crate::fact::{Container, Enrichment, ExecRole, FactKind, K8s, Net, Process, Quality, Runtime, Verdict};
use crate::ids::{CgroupKey, ProcessKey, RecordId};
use crate::image::Image;
use crate::inventory::{Naming, Place};
use crate::outbox::Draft;
use crate::processes::Entry;
use crate::time::Timestamp;

/// Where a process or socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// On the host, outside of containers.
    Host,
    /// In this container.
    Container(Arc<str>),
    /// In a cgroup nobody told of.
    Unknown,
}

/// Who a fact is about.
#[derive(Clone, Debug, Default)]
pub(super) struct Subject {
    pub(super) process: Option<Arc<Process>>,
    pub(super) container: Option<Arc<Container>>,
    pub(super) k8s: Option<Arc<K8s>>,
    pub(super) enrichment: Enrichment,
    /// Something of the container was cut.
    pub(super) truncated: bool,
}

/// A container as printed, and how much of it that is.
pub(super) struct View {
    pub(super) container: Arc<Container>,
    pub(super) k8s: Option<Arc<K8s>>,
    /// Its metadata is there.
    pub(super) enriched: bool,
    /// Something of it was cut.
    pub(super) truncated: bool,
}

impl View {
    /// From now on metadata that is not there is owed.
    fn of(entry: &mut containers::Entry) -> Self {
        entry.owes_metadata |= !entry.enriched;
        Self {
            container: entry.shared.clone(),
            k8s: entry.k8s.clone(),
            enriched: entry.enriched,
            truncated: entry.risks_truncated,
        }
    }
}

impl Engine {
    /// Where a cgroup is, by its own key alone.
    pub(super) fn place(&self, cgroup: CgroupKey) -> Whereabouts {
        match self.inventory.place(cgroup) {
            Some(Place::Host) => Whereabouts::Host,
            Some(Place::Container(id)) => Whereabouts::Container(id.clone()),
            Some(Place::Candidate(_)) | None => Whereabouts::Unknown,
        }
    }

    /// Where a process is: by its cgroup, and by its ancestors where nobody told of that cgroup.
    pub(super) fn whereabouts(&self, cgroup: CgroupKey, process: ProcessKey) -> Whereabouts {
        match self.place(cgroup) {
            Whereabouts::Unknown => self.whereabouts_by_lineage(process),
            Whereabouts::Host => match self.processes.peek(process) {
                Some(entry) => self.place_on_host(entry.cgroup, entry),
                None => Whereabouts::Host,
            },
            container @ Whereabouts::Container(_) => container,
        }
    }

    /// Where a process in a cgroup of the host is that was in another cgroup before: one that went out of a container
    /// by a writable cgroup file system is the container's still.
    ///
    /// Runtimes go the other way, from the host into a container. What a runtime does in the container's cgroup before
    /// the container's first program takes place in the mount namespace of the runtime. Whoever was in the container can
    /// get there, too, and go by a runtime's name: that he was is remembered.
    pub(super) fn place_on_host(&self, before: CgroupKey, process: &Entry) -> Whereabouts {
        let Whereabouts::Container(id) = self.place(before) else { return Whereabouts::Host };
        let is_runtimes =
            !process.contained && self.is_on_runtimes_side(&id, &process.image, process.namespaces.mnt);
        if is_runtimes { Whereabouts::Host } else { Whereabouts::Container(id) }
    }

    /// Whether this may be the runtime of a container: by its name, and in the mount namespace it made the container from.
    pub(super) fn is_on_runtimes_side(&self, id: &str, image: &Image, mnt_ns: u32) -> bool {
        let creator_mnt_ns = self.containers.peek(id).map_or(0, |entry| entry.creator_mnt_ns);
        matches!(image.role, Some(ExecRole::Runtime | ExecRole::Shim))
            && creator_mnt_ns != 0
            && creator_mnt_ns == mnt_ns
    }

    /// Where the closest ancestor is whose cgroup is known. A child of a runtime may be the first process of a
    /// container, so it is nowhere in particular.
    pub(super) fn whereabouts_by_lineage(&self, process: ProcessKey) -> Whereabouts {
        for (_, entry) in self.processes.walk(process) {
            match self.place(entry.cgroup) {
                Whereabouts::Unknown => {}
                Whereabouts::Host if matches!(entry.image.role, Some(ExecRole::Runtime | ExecRole::Shim)) => {
                    return Whereabouts::Unknown;
                }
                known => return known,
            }
        }
        Whereabouts::Unknown
    }

    /// The subject of a process at a place.
    pub(super) fn subject(&mut self, process: Option<Arc<Process>>, place: &Whereabouts) -> Subject {
        let mut subject = Subject { process, ..Subject::default() };
        // A program that was never seen to start is known by its name only.
        let whole_process = subject.process.as_ref().is_some_and(|process| process.exe.is_some());
        subject.enrichment = match place {
            Whereabouts::Host if subject.process.is_none() => Enrichment::None,
            Whereabouts::Host if whole_process => Enrichment::Ok,
            Whereabouts::Host => Enrichment::Partial,
            Whereabouts::Unknown => Enrichment::None,
            Whereabouts::Container(id) => {
                let view = self.view_container(id);
                subject.container = Some(view.container);
                subject.k8s = view.k8s;
                subject.truncated = view.truncated;
                if view.enriched && whole_process { Enrichment::Ok } else { Enrichment::Partial }
            }
        };
        subject
    }

    /// A container as printed; metadata that is not there is owed from now on.
    pub(super) fn view_container(&mut self, id: &Arc<str>) -> View {
        if let Some(entry) = self.containers.get_mut(id) {
            return View::of(entry);
        }
        // It was evicted while its cgroup lives: start over with what is left.
        let own: Arc<str> = Arc::from(containers::id_of_key(id));
        let naming = Naming { id: own, runtime: Runtime::Unknown, namespace: None, path: None };
        let call = self.calls.get(id).cloned();
        self.enter_container(id, &naming, call.as_ref());
        View::of(self.containers.get_mut(id).expect("invariant: entered above"))
    }

    /// A task as printed.
    pub(super) fn describe(&mut self, task: &Task) -> Arc<Process> {
        self.processes.describe(task)
    }

    /// Sends a fact about a subject.
    pub(super) fn send(
        &mut self,
        at: Timestamp,
        subject: Subject,
        net: Option<Net>,
        kind: FactKind,
        verdict: Option<Verdict>,
    ) {
        let _ = self.send_and_name(at, subject, net, kind, verdict);
    }

    /// The same; returns the id of its record once there are ids.
    pub(super) fn send_and_name(
        &mut self,
        at: Timestamp,
        subject: Subject,
        net: Option<Net>,
        kind: FactKind,
        verdict: Option<Verdict>,
    ) -> Option<RecordId> {
        let Subject { process, container, k8s, enrichment, truncated } = subject;
        let truncated = truncated || process.as_ref().is_some_and(|process| process.truncated);
        let quality = Quality { enrichment, truncated, lost: self.loss.lost_around(at.boot_ns) };
        let of_actor = || self.allow.judge_act(at, container.as_deref(), k8s.as_deref(), &kind);
        let verdict = verdict.or_else(of_actor);
        self.outbox.send(Draft { at, process, container, k8s, net, quality, kind, verdict })
    }
}
