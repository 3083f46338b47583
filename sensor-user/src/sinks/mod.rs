//! Where lines go. A sink takes chunks of whole lines and never looks into them.

use std::time::Instant;

mod queue;
mod stdout;

pub use stdout::{FINISH_LIMIT, QUEUE_BYTES, Sink, SinkError, Totals};

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
