//! `quaywatch replay`: recorded facts through the same core, judged with the configuration in effect.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use sensor_core::engine::Output;
use tracing::info;

use super::load;
use crate::cli::ReplayArgs;
use crate::exit::Exit;
use crate::sinks::{Overflow, QUEUE_BYTES, Sink, Stream};
use crate::sources::replay::{Audience, Malformed, Replay};
use crate::wire::{self, Kind, KindFilter};

/// Lines are handed to the sink in chunks of about this size.
const CHUNK_BYTES: usize = 64 << 10;
/// Lines that cannot be read are told one by one up to this many, then only counted.
const TOLD: u64 = 100;

/// Writes the engine's records to standard output and what is wrong to stderr.
struct Printer {
    sink: Sink,
    kinds: KindFilter,
    chunk: Vec<u8>,
    malformed: u64,
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
        self.malformed += 1;
        if self.malformed <= TOLD {
            eprintln!("{malformed}");
        } else if self.malformed == TOLD + 1 {
            eprintln!("{}: error: further lines that cannot be read are counted only", malformed.input);
        }
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
    let mut replay = Replay::new(settings.policy, Printer { sink, kinds, chunk: Vec::new(), malformed: 0 });
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

fn feed(replay: &mut Replay<Printer>, path: &Path) -> anyhow::Result<()> {
    if path == Path::new("-") {
        return replay.feed("<stdin>", io::stdin().lock()).context("standard input cannot be read");
    }
    let context = || format!("{} cannot be read", path.display());
    let file = File::open(path).with_context(context)?;
    replay
        .feed(&path.display().to_string(), BufReader::with_capacity(CHUNK_BYTES, file))
        .with_context(context)
}
