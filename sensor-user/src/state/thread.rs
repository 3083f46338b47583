//! The thread that opens the file and writes to it. Nobody waits for it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use sensor_core::state::Change;
use tracing::info;

use super::{Found, RETRY, Store, StoreError};

/// How long the start waits for another process to let go of the file.
const IN_USE: Duration = Duration::from_secs(2);

/// What is to be written.
pub(super) struct Order {
    pub(super) changes: Vec<Change>,
    /// Nothing else is left.
    pub(super) anew: bool,
}

/// What became of it.
pub(super) enum Written {
    Whole,
    TooLarge,
    Failed(String),
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order").field("changes", &self.changes.len()).field("anew", &self.anew).finish()
    }
}

/// What the thread works with.
pub(super) struct Thread {
    pub(super) path: PathBuf,
    pub(super) max: u64,
    pub(super) found: SyncSender<Result<Found, StoreError>>,
    pub(super) to_write: Receiver<Order>,
    pub(super) written: SyncSender<Written>,
    pub(super) is_open: Arc<AtomicBool>,
}

impl Thread {
    pub(super) fn run(self) {
        let mut store = match self.open() {
            Ok((store, what)) => {
                self.is_open.store(true, Ordering::Relaxed);
                // Nobody may be waiting any more.
                let _ = self.found.send(Ok(what));
                store
            }
            Err(error) => {
                let _ = self.found.send(Err(error));
                let Some(store) = self.open_later() else { return };
                self.is_open.store(true, Ordering::Relaxed);
                store
            }
        };
        for order in &self.to_write {
            if self.written.send(write(&mut store, &order)).is_err() {
                break;
            }
        }
    }

    /// Whoever is started in place of another one may have to wait for its end.
    fn open(&self) -> Result<(Store, Found), StoreError> {
        let until = Instant::now() + IN_USE;
        loop {
            match Store::open(&self.path, self.max) {
                Err(StoreError::InUse(_)) if Instant::now() < until => thread::sleep(IN_USE / 20),
                opened => return opened,
            }
        }
    }

    /// Somebody may mend what is wrong with its place. What is found then is of no use any more: this run knows better.
    fn open_later(&self) -> Option<Store> {
        loop {
            match self.to_write.recv_timeout(RETRY) {
                Err(RecvTimeoutError::Timeout) => {}
                // Nothing is ordered before the file is open.
                Ok(_) | Err(RecvTimeoutError::Disconnected) => return None,
            }
            if let Ok((store, _)) = Store::open(&self.path, self.max) {
                info!(path = %self.path.display(), "open chains can be kept now");
                return Some(store);
            }
        }
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
