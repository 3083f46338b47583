//! `quaywatch replay`: recorded facts through the same core, judged with the configuration in effect.

use std::io;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use sensor_core::engine::Output;
use tracing::info;

use super::load;
use super::recordings::{Complaints, feed};
use crate::cli::ReplayArgs;
use crate::exit::Exit;
use crate::sinks::{Overflow, QUEUE_BYTES, Sink, Stream};
use crate::sources::replay::{Audience, Malformed, Replay};
use crate::wire::{self, Kind, KindFilter};

/// Lines are handed to the sink in chunks of about this size.
const CHUNK_BYTES: usize = 64 << 10;

/// Writes the engine's records to standard output and what is wrong to stderr.
struct Printer {
    sink: Sink,
    kinds: KindFilter,
    chunk: Vec<u8>,
    complaints: Complaints,
}

impl Printer {
    fn flush(&mut self) {
        self.sink.write(Bytes::from(std::mem::take(&mut self.chunk)));
    }
}

impl Audience for Printer {
    fn output(&mut self, output: &Output) -> bool {
        if self.kinds.admits(Kind::of(output)) {
            wire::encode(output, &mut self.chunk);
        }
        if self.chunk.len() < CHUNK_BYTES {
            return true;
        }
        self.flush();
        !self.sink.is_closed()
    }

    fn malformed(&mut self, malformed: Malformed) {
        self.complaints.tell(&malformed);
    }
}

/// Replays the files in their order.
///
/// # Errors
/// When the configuration is invalid, a file cannot be read, a line has no meaning, or the output was closed.
pub fn replay(args: &ReplayArgs) -> anyhow::Result<Exit> {
    let settings = load(&args.config)?.settings;
    let kinds = settings.outputs.first().map_or(KindFilter::ANY, |output| output.kinds);
    let sink = Sink::start(Stream(io::stdout()), Overflow::Block, QUEUE_BYTES)?;
    let mut replay = Replay::new(
        settings.policy,
        settings.cluster,
        Printer { sink, kinds, chunk: Vec::new(), complaints: Complaints::default() },
    );
    let mut unreadable = None;
    for path in &args.files {
        if let Err(error) = feed(&mut replay, path) {
            unreadable = Some(error);
            break;
        }
        if replay.is_over() {
            break;
        }
    }
    let (mut printer, counts) = replay.finish();
    printer.flush();
    // There is no hurry: whoever reads the output decides how long it takes.
    let totals = printer.sink.finish(Duration::MAX);
    info!(
        facts = counts.facts,
        audit_events = counts.events,
        passed_over = counts.passed_over,
        malformed = counts.malformed,
        written = totals.written,
        "replayed"
    );
    match (unreadable, totals.error) {
        (Some(error), _) => Err(error),
        (None, Some(error)) => Err(error.into()),
        (None, None) if counts.malformed > 0 => bail!("{} lines could not be read", counts.malformed),
        (None, None) => Ok(Exit::Done),
    }
}
