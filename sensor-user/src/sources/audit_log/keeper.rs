//! Keeps positions, on a thread of its own: the pipeline waits for no disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use tracing::warn;

use super::position::{Position, Store, StoreError};
use crate::output::{OutputQueue, Written};

type Reached = BTreeMap<Arc<str>, Position>;

/// Positions on their way to the disk: reached, then covered by a mark in the output, then kept.
#[derive(Debug)]
pub struct Positions {
    /// Reached since the last mark.
    reached: Reached,
    /// Reached before this mark.
    marked: Option<(Written, Reached)>,
    /// `None` once it was waited for.
    jobs: Option<mpsc::SyncSender<Reached>>,
    thread: Option<thread::JoinHandle<()>>,
    problem: Arc<Mutex<Option<Arc<str>>>>,
}

impl Positions {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread for us.
    pub fn start(mut store: Store) -> io::Result<Self> {
        let (jobs, received) = mpsc::sync_channel::<Reached>(1);
        let problem = Arc::new(Mutex::new(None));
        let shared = Arc::clone(&problem);
        let thread = thread::Builder::new().name("positions".to_owned()).spawn(move || {
            for positions in received {
                let positions = positions.into_iter().map(|(log, position)| (log.to_string(), position));
                let reason = store.save(positions).err().map(|error| reason(&error));
                let mut problem = shared.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(reason) = reason.as_ref().filter(|_| problem.is_none()) {
                    warn!(%reason, "after a restart, audit events will be told again");
                }
                *problem = reason;
            }
        })?;
        let (reached, marked) = (Reached::new(), None);
        Ok(Self { reached, marked, jobs: Some(jobs), thread: Some(thread), problem })
    }

    /// This was reached, and what followed from it handed to the output.
    pub fn reach(&mut self, log: Arc<str>, position: Position) {
        self.reached.insert(log, position);
    }

    /// Why positions are not kept, if they are not.
    #[must_use]
    pub fn problem(&self) -> Option<Arc<str>> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what was reached before the output had written as much as it has; to be called now and then, when everything
    /// that was reached has been handed over to the output.
    pub fn keep(&mut self, output: &OutputQueue) {
        if let Some((mark, _)) = &self.marked
            && output.has_written(mark)
            && let (Some((mark, positions)), Some(jobs)) = (self.marked.take(), &self.jobs)
            && let Err(mpsc::TrySendError::Full(positions)) = jobs.try_send(positions)
        {
            self.marked = Some((mark, positions));
        }
        if self.marked.is_none() && !self.reached.is_empty() {
            self.marked = Some((output.written(), std::mem::take(&mut self.reached)));
        }
    }

    /// Keeps everything and waits for it; when all output has been written.
    pub fn finish(mut self) {
        let (_, mut positions) = self.marked.take().unwrap_or_default();
        positions.append(&mut self.reached);
        if let Some(jobs) = self.jobs.take()
            && !positions.is_empty()
        {
            // An error means that the thread has ended, of which it has told.
            let _ = jobs.send(positions);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn reason(error: &StoreError) -> Arc<str> {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("positions in audit logs are not kept: {error}{cause}").into()
}
