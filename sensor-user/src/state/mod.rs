//! Open chains on disk: what the core remembers, written behind it by a thread of its own.
//!
//! Invariant: nobody waits for the disk but that thread. At most one write is under way; what changes meanwhile is
//! collected by the core, where it is bounded. After a write that has failed everything is written anew.

mod store;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use std::{fmt, io};

use sensor_core::state::Change;
pub use store::{Found, Left, Store, StoreError};
use tracing::{error, info, warn};

/// Longest time between a change and the end of its write that is in order.
const IN_TIME: Duration = Duration::from_secs(1);
/// Pause after a write that has failed.
const RETRY: Duration = Duration::from_secs(10);
/// How often the file says that the sensor still watches.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// Why a restart may forget open chains, or some of what is known of them.
const NO_FILE: &str = "the state file cannot be used: a restart forgets open chains";
const NOT_WRITTEN: &str =
    "the state file could not be written: a restart forgets the latest changes of open chains";
const SLOW: &str =
    "the state file is written later than a second: a kill forgets that much more of open chains";
const TOO_LARGE: &str = "the state file is larger than state.max";
/// Nothing is kept.
pub(crate) const TURNED_OFF: &str = "state.path is null: a restart forgets open chains";
/// Nothing is kept of a brief look.
pub(crate) const BRIEF: &str = "this look keeps nothing";
/// What the run before has left is lost.
pub(crate) const PUT_ASIDE: &str =
    "the state file of an earlier run could not be used: what was open then is forgotten";

/// What is to be written.
struct Order {
    changes: Vec<Change>,
    /// Nothing else is left.
    anew: bool,
}

/// What became of it.
enum Written {
    Whole,
    TooLarge,
    Failed(String),
}

/// The thread, seen from the pipeline.
#[derive(Debug)]
pub struct Keeper {
    orders: Option<SyncSender<Order>>,
    written: Receiver<Written>,
    found: Receiver<Result<Found, StoreError>>,
    path: PathBuf,
    /// When the write that is under way was ordered.
    since: Option<Instant>,
    /// The next write replaces everything.
    anew: bool,
    not_before: Option<Instant>,
    /// When the file last said that the sensor watches.
    told: Option<Instant>,
    problem: Option<&'static str>,
    failures: u64,
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order").field("changes", &self.changes.len()).field("anew", &self.anew).finish()
    }
}

/// Why the core is to be asked for changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// All that it knows, changed or not.
    pub anew: bool,
    /// Even if nothing has changed.
    pub sign_of_life: bool,
}

impl Keeper {
    /// Begins to open the file. `max`: bytes that it may have.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(path: PathBuf, max: u64) -> io::Result<Self> {
        let (orders, to_write) = sync_channel::<Order>(1);
        let (tell_written, written) = sync_channel(1);
        let (tell_found, found) = sync_channel(1);
        let place = path.clone();
        thread::Builder::new().name("state".to_owned()).spawn(move || match Store::open(&place, max) {
            Ok((mut store, what)) => {
                // Nobody may be waiting any more.
                let _ = tell_found.send(Ok(what));
                for order in to_write {
                    if tell_written.send(write(&mut store, &order)).is_err() {
                        break;
                    }
                }
            }
            Err(error) => drop(tell_found.send(Err(error))),
        })?;
        Ok(Self {
            orders: Some(orders),
            written,
            found,
            path,
            since: None,
            anew: true,
            not_before: None,
            told: None,
            problem: None,
            failures: 0,
        })
    }

    /// What an earlier run has left, if that is there within this time, and whether something was there that is lost.
    pub fn found(&mut self, limit: Duration) -> (Vec<Left>, bool) {
        match self.found.recv_timeout(limit) {
            Ok(Ok(Found { left, put_aside: None })) => return (left, false),
            Ok(Ok(Found { put_aside: Some(reason), .. })) => {
                warn!(
                    path = %self.path.display(),
                    reason,
                    "the state of an earlier run cannot be used; what was open then is forgotten"
                );
                return (Vec::new(), true);
            }
            Ok(Err(error)) => {
                let error = anyhow::Error::new(error);
                warn!(error = format!("{error:#}"), "open chains cannot be kept; a restart forgets them");
            }
            Err(RecvTimeoutError::Timeout) => {
                warn!(
                    path = %self.path.display(),
                    "the state file takes longer to open than a start may; what was open before is forgotten"
                );
                self.problem = Some(SLOW);
                return (Vec::new(), true);
            }
            Err(RecvTimeoutError::Disconnected) => error!("the thread that keeps open chains has ended"),
        }
        self.orders = None;
        self.problem = Some(NO_FILE);
        (Vec::new(), false)
    }

    /// Whether the core is to be asked for changes now, which are to be handed to [`Self::write`] then.
    pub fn wish(&mut self) -> Option<Wish> {
        self.hear();
        let is_free = self.orders.is_some() && self.since.is_none();
        if !is_free || self.not_before.is_some_and(|not_before| Instant::now() < not_before) {
            return None;
        }
        let sign_of_life = self.told.is_none_or(|told| told.elapsed() >= SIGN_OF_LIFE);
        Some(Wish { anew: self.anew, sign_of_life })
    }

    /// Orders that changes are written; none are no order.
    pub fn write(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let Some(orders) = &self.orders else { return };
        let now = Instant::now();
        match orders.try_send(Order { changes, anew: self.anew }) {
            Ok(()) => {
                self.since = Some(now);
                self.told = Some(now);
                self.anew = false;
            }
            Err(_) => self.fail(now, "the thread that keeps open chains has ended"),
        }
    }

    /// Why a restart may forget something; `None`: it does not.
    pub fn problem(&mut self) -> Option<&'static str> {
        self.hear();
        let is_late = self.since.is_some_and(|since| since.elapsed() > IN_TIME);
        if is_late { self.problem.or(Some(SLOW)) } else { self.problem }
    }

    /// Writes that have failed.
    #[must_use]
    pub const fn failures(&self) -> u64 {
        self.failures
    }

    /// Waits until nothing is under way any more, for this long at most. Returns whether that is so.
    pub fn settle(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.since.is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.written.recv_timeout(left) {
                Ok(written) => self.note(written),
                Err(_) => {
                    error!(
                        "the state file is not written in time; the next run may know less of open chains"
                    );
                    return false;
                }
            }
        }
        self.problem != Some(NOT_WRITTEN)
    }

    fn hear(&mut self) {
        match self.written.try_recv() {
            Ok(written) => self.note(written),
            Err(TryRecvError::Disconnected) if self.since.is_some() => {
                self.fail(Instant::now(), "the thread that keeps open chains has ended");
                self.orders = None;
            }
            Err(_) => {}
        }
    }

    fn note(&mut self, written: Written) {
        let took = self.since.take().map(|since| since.elapsed()).unwrap_or_default();
        match written {
            Written::Failed(error) => return self.fail(Instant::now(), &error),
            Written::TooLarge => self.problem = Some(TOO_LARGE),
            Written::Whole => {
                if self.problem.take() == Some(NOT_WRITTEN) {
                    info!("the state file is written again");
                }
                if took > IN_TIME {
                    self.problem = Some(SLOW);
                }
            }
        }
        self.not_before = None;
    }

    fn fail(&mut self, now: Instant, error: &str) {
        self.since = None;
        self.failures += 1;
        if self.problem != Some(NOT_WRITTEN) {
            error!(error, path = %self.path.display(), "the state file cannot be written; it is tried again");
        }
        self.problem = Some(NOT_WRITTEN);
        self.anew = true;
        self.not_before = Some(now + RETRY);
    }
}

fn write(store: &mut Store, order: &Order) -> Written {
    let written = store.write(&order.changes, order.anew).and_then(|()| store.shrink());
    match written {
        Ok(true) => Written::Whole,
        Ok(false) => Written::TooLarge,
        Err(error) => Written::Failed(format!("{:#}", anyhow::Error::new(error))),
    }
}

#[cfg(test)]
mod tests;
