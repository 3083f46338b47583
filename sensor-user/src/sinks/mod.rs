//! Where lines go. A sink takes chunks of whole lines and never looks into them.

use std::io;
use std::time::Instant;

mod file;
mod queue;
mod stdout;

pub use file::{LineFile, Reopen};
pub use stdout::{FINISH_LIMIT, QUEUE_BYTES, Sink, SinkError, Stream, Totals};

/// What a full queue does to the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The new chunk is dropped and its lines are counted: live capture must not wait for a slow reader.
    Shed,
    /// The writer waits: a replay has all the time there is, and must not lose a line.
    Block,
    /// The writer waits until this time and sheds from then on: nothing is captured any more and the last lines matter,
    /// but a reader that is stuck must not keep the program.
    BlockUntil(Instant),
}

/// What the thread of a sink writes to.
pub trait Out: Send + 'static {
    /// Writes a chunk of whole lines.
    fn put(&mut self, chunk: &[u8]) -> Put;

    /// Hands on what the system may hold back.
    ///
    /// # Errors
    /// When that fails.
    fn finish(&mut self) -> io::Result<()>;
}

/// What became of a chunk.
#[derive(Debug)]
pub struct Put {
    /// Bytes of it that were written.
    pub written: usize,
    /// Nothing can be written any more; `None`: what was not written is lost, and the next chunk may fare better.
    pub end: Option<io::Error>,
}
