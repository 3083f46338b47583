//! Reading recorded output for the commands that do.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use anyhow::Context as _;
use flate2::bufread::MultiGzDecoder;

use crate::sources::replay::{Audience, Malformed, Replay};

/// Recordings are read in pieces of this size.
const CHUNK_BYTES: usize = 64 << 10;
/// How what gzip packed begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Lines that cannot be read are told one by one up to this many, then only counted.
const TOLD: u64 = 100;

/// What is wrong with the lines of recordings, on stderr.
#[derive(Debug, Default)]
pub(super) struct Complaints(u64);

impl Complaints {
    /// Tells of a line that was left out.
    pub(super) fn tell(&mut self, malformed: &Malformed) {
        self.0 += 1;
        if self.0 <= TOLD {
            eprintln!("{malformed}");
        } else if self.0 == TOLD + 1 {
            eprintln!("{}: error: further lines that cannot be read are counted only", malformed.input);
        }
    }
}

/// Feeds a file, or standard input for `-`.
///
/// # Errors
/// When it cannot be read.
pub(super) fn feed<A: Audience>(replay: &mut Replay<A>, path: &Path) -> anyhow::Result<()> {
    if path == Path::new("-") {
        return feed_plain_or_packed(replay, "<stdin>", io::stdin().lock())
            .context("standard input cannot be read");
    }
    let context = || format!("{} cannot be read", path.display());
    let file = File::open(path).with_context(context)?;
    let input = BufReader::with_capacity(CHUNK_BYTES, file);
    feed_plain_or_packed(replay, &path.display().to_string(), input).with_context(context)
}

/// Feeds lines, or lines packed by gzip: rotated logs are.
fn feed_plain_or_packed<A: Audience>(
    replay: &mut Replay<A>,
    name: &str,
    mut input: impl BufRead,
) -> io::Result<()> {
    if input.fill_buf()?.starts_with(&GZIP) {
        let unpacked = BufReader::with_capacity(CHUNK_BYTES, MultiGzDecoder::new(input));
        return replay.feed(name, unpacked);
    }
    replay.feed(name, input)
}
