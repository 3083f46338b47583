//! Processes that turn out to be clients, by the contents of their files.

use std::sync::Arc;

use super::{Entry, Processes};
use crate::ids::ProcessKey;
use crate::programs::Contents;

impl Processes {
    /// Processes that run this file, in order of their start.
    pub(crate) fn running(&self, contents: Contents) -> Vec<ProcessKey> {
        let is_it = |entry: &Entry| entry.image.contents == contents && !entry.exited;
        let mut found: Vec<_> =
            self.table.iter().filter(|(_, entry)| is_it(entry)).map(|(key, _)| *key).collect();
        found.sort_unstable_by_key(|key| (key.start_ns, key.pid));
        found
    }

    /// A process that still runs this file is a client; returns whether that is news.
    pub(crate) fn recognise_one(&mut self, key: ProcessKey, contents: Contents, client: &Arc<str>) -> bool {
        let Some(entry) = self.table.get_mut(&key) else { return false };
        let is_it = entry.image.contents == contents && entry.image.program.tool.as_ref() != Some(client);
        if !is_it || entry.exited {
            return false;
        }
        let copied = if Arc::strong_count(&entry.image) > 1 { entry.image.bytes } else { 0 };
        Arc::make_mut(&mut entry.image).recognise(client);
        entry.snapshot = None;
        self.image_bytes += copied;
        true
    }

    /// The contents of a file are a client's: those that run it and go by another name, in the order of their start.
    pub(crate) fn recognise(&mut self, contents: Contents, client: &Arc<str>) -> Vec<ProcessKey> {
        let mut found = Vec::new();
        let mut copied = 0;
        for (key, entry) in self.table.iter_mut() {
            let is_it = entry.image.contents == contents && !entry.image.program.flags.script;
            if !is_it || entry.image.program.tool.as_ref() == Some(client) {
                continue;
            }
            // Forks share the image: each makes it anew for itself, but for the last one.
            copied += if Arc::strong_count(&entry.image) > 1 { entry.image.bytes } else { 0 };
            Arc::make_mut(&mut entry.image).recognise(client);
            entry.snapshot = None;
            if !entry.exited {
                found.push(*key);
            }
        }
        self.image_bytes += copied;
        found.sort_unstable_by_key(|key| (key.start_ns, key.pid));
        found
    }
}
