//! Processes that a runtime puts into a container that runs: `docker exec`, `runc exec`.
//!
//! What such a process may do is in the runtime's arguments, or in a file that the runtime is given and that is gone when
//! the process runs. Its record waits for that file within the same bounds as for a container's metadata; what comes later
//! amends it.

use std::sync::Arc;

use super::callers::Spontaneity;
use super::subject::{View, Whereabouts};
use crate::engine::{Engine, ProcessQuery, Request};
use crate::fact::{ContainerAction, Origin, Process};
use crate::holds::Entrant;
use crate::ids::ProcessKey;
use crate::risks::{self, Capability, Host, ProcessSpec, Risks};
use crate::runtime_args::{ExecSpec, OciCall};
use crate::time::Timestamp;

/// Most processes whose file may come late; the one used longest ago goes first.
pub(super) const LATE_MAX: usize = 1024;

impl Engine {
    /// Takes what tells of a process that is put into a container; `None` when its file cannot be used.
    pub fn handle_process_risks(&mut self, now: Timestamp, number: u64, risks: Option<Risks>) {
        let late = self.late_entrants.remove(&number);
        let entrant = risks.map_or(Entrant::Unknown, Entrant::Known);
        if let Some(late) = late {
            // Nobody is told of what is gone, nor that there is still nothing to tell.
            if self.containers.peek(&late.id).is_none() || !matches!(entrant, Entrant::Known(_)) {
                return;
            }
            let action = ContainerAction::Enriched;
            return self.send_container(now, &late.id, action, late.process, entrant, late.origin);
        }
        if let Some(id) = self.holds.answer(number, entrant)
            && self.containers.peek(&id).is_some_and(|entry| entry.enriched)
        {
            self.release_ready(&id);
        }
    }

    /// A runtime was called to put a process into the container of this key.
    pub(super) fn on_process_entering(
        &mut self,
        at: Timestamp,
        caller: ProcessKey,
        id: &Arc<str>,
        call: &OciCall,
        place: &Whereabouts,
    ) {
        let process = self.processes.snapshot(caller);
        let entrant = match &call.exec {
            Some(ExecSpec::Words { args, cwd, capabilities }) => {
                Entrant::Known(of_words(args, cwd.as_ref(), capabilities))
            }
            // The name of a file is one of the caller's mounts.
            Some(ExecSpec::File(file)) if !matches!(place, Whereabouts::Container(_)) => {
                self.process_queries += 1;
                let uid = process.as_ref().and_then(|process| process.uid);
                let query = ProcessQuery { number: self.process_queries, file: file.clone(), uid };
                self.outbox.request(Request::ReadProcess(query));
                Entrant::Awaited(self.process_queries)
            }
            Some(ExecSpec::File(_)) => Entrant::Unknown,
            None => Entrant::None,
        };
        let origin = call.exec_id.as_ref().map_or(Origin::none(), |exec| self.origins.of_made(exec));
        let origin = self.origin_or_inferred(at, id, process.as_deref(), Spontaneity::Possible, origin);
        self.tell_of_entrant(at, id, ContainerAction::Exec, process, entrant, origin);
    }
}

/// A process that a runtime put into a container, told of before its file was read.
#[derive(Debug)]
pub(super) struct LateEntrant {
    pub(super) id: Arc<str>,
    /// The runtime's.
    pub(super) process: Option<Arc<Process>>,
    pub(super) origin: Origin,
}

/// What the arguments of `exec` say beyond the container's own process: its confinement stays.
fn of_words(args: &[Arc<str>], cwd: Option<&Arc<str>>, capabilities: &[Arc<str>]) -> Risks {
    let process = ProcessSpec {
        args: args.to_vec(),
        cwd: cwd.cloned(),
        capabilities: capabilities.iter().filter_map(|name| Capability::from_name(name)).collect(),
        ..ProcessSpec::default()
    };
    risks::of_process(&process, &Host::default(), false)
}

impl View {
    /// Counts in what tells of a process that is put into the container.
    pub(super) fn admit(&mut self, entrant: Entrant) {
        match entrant {
            Entrant::None => {}
            Entrant::Awaited(_) | Entrant::Unknown => self.enriched = false,
            Entrant::Known(risks) => {
                let known = self.container.risks.clone().unwrap_or_default();
                let all = Risks { list: known, truncated: self.truncated }.and(&risks);
                self.truncated = all.truncated;
                if self.container.risks.as_ref() != Some(&all.list) {
                    Arc::make_mut(&mut self.container).risks = Some(all.list);
                }
            }
        }
    }
}
