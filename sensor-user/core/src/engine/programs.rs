//! Clients under other names: recognised by the contents of their files.

use std::sync::Arc;

use super::subject::Whereabouts;
use crate::engine::{Engine, ProgramAnswer, Request, Urgency};
use crate::event::ExecEvent;
use crate::fact::{ExecRole, FactKind};
use crate::ids::ProcessKey;
use crate::programs::Contents;
use crate::time::Timestamp;

impl Engine {
    /// Takes what a file turned out to be. Programs that run it and go by another name are told of, once more if they had
    /// been told of as something else.
    pub fn handle_program(&mut self, now: Timestamp, answer: ProgramAnswer) {
        let (contents, client) = match answer {
            ProgramAnswer::Read { contents, client } => (contents, client),
            ProgramAnswer::Loader { contents, process, client } => {
                return self.on_loader(now, contents, process, client.as_ref());
            }
            ProgramAnswer::Gone { contents } => return self.programs.give_up(&contents),
        };
        self.programs.learn(contents, client.clone());
        let Some(client) = client else { return };
        for key in self.processes.recognise(contents, &client) {
            self.tell_renamed(now, key);
        }
    }

    /// A dynamic loader is what it has loaded; each process of it may have loaded something else.
    fn on_loader(
        &mut self,
        now: Timestamp,
        contents: Contents,
        process: ProcessKey,
        client: Option<&Arc<str>>,
    ) {
        if self.programs.learn_loader(contents) {
            // Nobody was asked what these have loaded, while it was not known that they are loaders.
            for other in self.processes.running(contents) {
                if other != process {
                    self.ask_for_program(other, contents, &[], Urgency::Later);
                }
            }
        }
        if let Some(client) = client
            && self.processes.recognise_one(process, contents, client)
        {
            self.tell_renamed(now, process);
        }
    }

    fn tell_renamed(&mut self, now: Timestamp, key: ProcessKey) {
        let Some(entry) = self.processes.get_mut(key) else { return };
        entry.reported = true;
        let cgroup = entry.cgroup;
        let place: Whereabouts = self.whereabouts(cgroup, key);
        let process = self.processes.snapshot(key);
        let subject = self.subject(process, &place);
        self.send(now, subject, None, FactKind::Exec { role: ExecRole::Client }, None);
    }

    /// The client that an exec's file is known to be; asks for what is not known.
    pub(super) fn client_of(&mut self, event: &ExecEvent) -> Option<Arc<str>> {
        let contents: Contents = event.contents()?;
        self.ask_for_program(event.task.key, contents, event.filename(), Urgency::Now);
        self.programs.client(&contents)
    }

    /// Asks what a process executes, unless that is known or asked for. `path`: where from, if known.
    pub(super) fn ask_for_program(
        &mut self,
        process: ProcessKey,
        contents: Contents,
        path: &[u8],
        urgency: Urgency,
    ) {
        if self.programs.wants(contents) {
            // What was cut off or cannot be printed is no path any more.
            let path = std::str::from_utf8(path).ok().filter(|path| path.starts_with('/')).map(Arc::from);
            self.outbox.request(Request::ReadProgram { process, contents, path, urgency });
        }
    }
}
