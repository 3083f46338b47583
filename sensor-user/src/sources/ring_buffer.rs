//! Takes records off the kernel's rings and hands them to the pipeline, many at a time.
//!
//! A thread of its own, because the rings must be emptied whatever the pipeline is busy with. It polls: the probes never
//! wake it, since a wakeup costs the watched program more than the record itself. Records are copied into one arena per
//! batch, so that ring space is free again at once. Knows nothing of what the bytes mean.
//!
//! Invariant: every record that the kernel has committed before [`RingSource::stop`] is called is handed over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, mem};

use aya::maps::{MapData, RingBuf};
use bytes::{Bytes, BytesMut};
use rustix::time::{ClockId, clock_gettime};
use sensor_common::record::Ring;
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::kernel::Rings;

/// Bytes of one ring after which the other one has its turn and the batch is handed over.
const BATCH_BYTES: usize = 128 << 10;
/// Batches on their way to the pipeline; when they are that many, the rings fill, and the kernel counts what is lost.
const BATCHES_MAX: usize = 16;
/// Bytes allocated at a time, room for several batches; used again as soon as these batches are gone.
const ARENA_BYTES: usize = 512 << 10;

/// Some records in the order in which each ring had them.
#[derive(Clone, Debug)]
pub struct Batch {
    data: Bytes,
    index: Vec<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    ring: Ring,
    at: u32,
    len: u32,
}

impl Batch {
    /// The records: those of the management ring first.
    pub fn records(&self) -> impl ExactSizeIterator<Item = (Ring, &[u8])> {
        self.index.iter().map(|place| (place.ring, &self.data[place.at as usize..][..place.len as usize]))
    }
}

/// The receiving end, and the thread behind it.
#[derive(Debug)]
pub struct RingSource {
    batches: Receiver<Batch>,
    drained_ns: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RingSource {
    /// Starts the thread; it looks at the rings every `poll`.
    ///
    /// # Errors
    /// When the system has no thread for us.
    pub fn start(rings: Rings, poll: Duration) -> io::Result<Self> {
        let (sender, batches) = mpsc::channel(BATCHES_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let drained_ns = Arc::new(AtomicU64::new(0));
        let mut reader = Reader::new(rings, sender, Arc::clone(&drained_ns));
        let stopping = Arc::clone(&stop);
        let thread =
            thread::Builder::new().name("rings".to_owned()).spawn(move || reader.run(poll, &stopping))?;
        Ok(Self { batches, drained_ns, stop, thread: Some(thread) })
    }

    /// Waits for the next batch; `None` after the thread has ended.
    pub async fn recv(&mut self) -> Option<Batch> {
        self.batches.recv().await
    }

    /// Takes a batch that is already there.
    pub fn try_recv(&mut self) -> Option<Batch> {
        self.batches.try_recv().ok()
    }

    /// `CLOCK_BOOTTIME` at which both rings were last begun to be read to their end, nanoseconds: every record that was
    /// committed by then is in a batch that can be received now.
    #[must_use]
    pub fn drained_ns(&self) -> u64 {
        self.drained_ns.load(Ordering::Acquire)
    }

    /// Drains both rings a last time, ends the thread and returns what is left. Call it when the probes are detached.
    pub fn stop(&mut self) -> Vec<Batch> {
        let mut rest = Vec::new();
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread may be waiting for room in the channel, so joining comes last.
            while !thread.is_finished() {
                match self.batches.try_recv() {
                    Ok(batch) => rest.push(batch),
                    Err(_) => thread::sleep(Duration::from_micros(100)),
                }
            }
            if thread.join().is_err() {
                tracing::error!(
                    "the thread that reads the ring buffers panicked; its last records are missing"
                );
            }
        }
        while let Ok(batch) = self.batches.try_recv() {
            rest.push(batch);
        }
        rest
    }
}

impl Drop for RingSource {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.batches.close();
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

struct Reader {
    rings: [(Ring, RingBuf<MapData>); Ring::COUNT],
    batches: Sender<Batch>,
    drained_ns: Arc<AtomicU64>,
    arena: BytesMut,
    index: Vec<Place>,
}

impl Reader {
    fn new(rings: Rings, batches: Sender<Batch>, drained_ns: Arc<AtomicU64>) -> Self {
        Self {
            rings: [(Ring::Management, rings.management), (Ring::Bulk, rings.bulk)],
            batches,
            drained_ns,
            arena: BytesMut::new(),
            index: Vec::new(),
        }
    }

    fn run(&mut self, poll: Duration, stop: &AtomicBool) {
        loop {
            // Asked before the rings are drained: what is committed before the request is taken after it.
            let last = stop.load(Ordering::Acquire);
            loop {
                let looked_ns = boot_ns();
                let Some(batch) = self.drain() else {
                    // Both rings were empty after that moment, and everything before it has been sent.
                    self.drained_ns.store(looked_ns, Ordering::Release);
                    break;
                };
                if self.batches.blocking_send(batch).is_err() {
                    return;
                }
            }
            if last {
                return;
            }
            thread::park_timeout(poll);
        }
    }

    /// Takes what is there, up to a limit per ring; `None` when there is nothing.
    fn drain(&mut self) -> Option<Batch> {
        for (ring, buffer) in &mut self.rings {
            let start = self.arena.len();
            while self.arena.len() - start < BATCH_BYTES {
                let Some(record) = buffer.next() else { break };
                if self.index.is_empty() {
                    // Nothing of the arena is in use by this batch yet, so this takes back what earlier ones have left.
                    reserve(&mut self.arena);
                }
                let place = Place { ring: *ring, at: self.arena.len() as u32, len: record.len() as u32 };
                self.arena.extend_from_slice(&record);
                self.index.push(place);
            }
        }
        if self.index.is_empty() {
            return None;
        }
        let data = self.arena.split().freeze();
        let next = Vec::with_capacity(self.index.len().min(1024));
        let index = mem::replace(&mut self.index, next);
        Some(Batch { data, index })
    }
}

/// Makes room for a batch, in the memory of earlier batches if they are gone.
fn reserve(arena: &mut BytesMut) {
    const ROOM: usize = Ring::COUNT * BATCH_BYTES;
    if arena.capacity() < ROOM && !arena.try_reclaim(ROOM) {
        *arena = BytesMut::with_capacity(ARENA_BYTES);
    }
}

fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
