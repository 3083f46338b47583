//! Lines on their way out: encoded once, handed to every output that wants their kind.

use std::io::Write;

use bytes::Bytes;
use sensor_core::engine::Output;
use tracing::warn;

use crate::sinks::{FINISH_LIMIT, Overflow, QUEUE_BYTES, Sink, SinkError};
use crate::wire::{self, Kind, KindFilter};

/// A chunk is handed over when it has grown to this size, or at the end of a turn.
const CHUNK_BYTES: usize = 64 << 10;

struct Destination {
    kinds: KindFilter,
    sink: Sink,
    chunk: Vec<u8>,
}

impl Destination {
    fn flush(&mut self) {
        if !self.chunk.is_empty() {
            let spare = Vec::with_capacity(self.chunk.len());
            self.sink.write(Bytes::from(std::mem::replace(&mut self.chunk, spare)));
        }
    }
}

/// The outputs of one run.
#[derive(Default)]
pub struct OutputQueue {
    destinations: Vec<Destination>,
    line: Vec<u8>,
}

impl OutputQueue {
    /// Adds an output.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn add(
        &mut self,
        out: impl Write + Send + 'static,
        kinds: KindFilter,
        overflow: Overflow,
    ) -> Result<(), SinkError> {
        let sink = Sink::start(out, overflow, QUEUE_BYTES)?;
        self.destinations.push(Destination { kinds, sink, chunk: Vec::new() });
        Ok(())
    }

    /// Encodes one output and gives it to everybody who wants it.
    pub fn push(&mut self, output: &Output) {
        let kind = Kind::of(output);
        self.line.clear();
        wire::encode(output, &mut self.line);
        for destination in &mut self.destinations {
            if destination.kinds.admits(kind) {
                destination.chunk.extend_from_slice(&self.line);
                if destination.chunk.len() >= CHUNK_BYTES {
                    destination.flush();
                }
            }
        }
    }

    /// Hands over what is encoded.
    pub fn flush(&mut self) {
        self.destinations.iter_mut().for_each(Destination::flush);
    }

    /// Lines that found no room since the start.
    #[must_use]
    pub fn shed(&self) -> u64 {
        self.destinations.iter().map(|destination| destination.sink.shed()).sum()
    }

    /// Whether nobody reads any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        !self.destinations.is_empty()
            && self.destinations.iter().all(|destination| destination.sink.is_closed())
    }

    /// Waits until everything is written, within a limit.
    ///
    /// # Errors
    /// When an output failed, was closed by its reader, or did not take the last lines in time.
    pub fn finish(mut self) -> Result<(), SinkError> {
        self.flush();
        let mut result = Ok(());
        for Destination { sink, .. } in self.destinations {
            let totals = sink.finish(FINISH_LIMIT);
            if totals.shed > 0 {
                warn!(shed = totals.shed, written = totals.written, "lines were not written");
            }
            if let Some(error) = totals.error {
                result = Err(error);
            }
        }
        result
    }
}
