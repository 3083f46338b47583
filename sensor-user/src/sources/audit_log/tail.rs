//! A log that is being written, followed through rotation, truncation and restarts.
//!
//! Owns which file is read and how far. It is asked again and again and never waits; what it hands out is whole lines with
//! the position after them. Knows nothing of what the lines say.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use memchr::{memchr, memrchr};
use sensor_core::audit::EVENT_MAX;
use tracing::warn;

use super::position::{Position, Print, TAIL_MAX};
use super::siblings::{self, Sibling, id_of, modified_ns};

/// Read at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// Whole lines of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    /// Bytes of the file before them.
    pub start: u64,
    /// The lines; the last one of a file may lack its newline.
    pub bytes: Vec<u8>,
    /// The position after them.
    pub after: Position,
}

/// What came of asking.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Lines.
    Lines(Lines),
    /// Nothing yet; there may be more at once.
    Again,
    /// Nothing is there at present.
    Idle,
    /// Nothing is there, and the log neither.
    Absent,
}

/// What was lost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Lines that are too long.
    pub oversize: u64,
    /// Times that nobody knows how much could not be read.
    pub gaps: u64,
}

/// The log.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    /// Where the last run ended, until that is found again.
    resume: Option<Position>,
    reading: Option<Reading>,
    lost: Lost,
    chunk: Vec<u8>,
}

/// The file that is read.
#[derive(Debug)]
struct Reading {
    file: File,
    id: (u64, u64),
    /// Bytes before what comes next.
    offset: u64,
    /// The last bytes before that: they change when the file is written anew.
    last: Vec<u8>,
    /// What is known of the bytes before the line that has begun.
    print: Print,
    /// The beginning of a line, before `offset`.
    begun: Vec<u8>,
    /// That line is too long, and `begun` is empty.
    skipping: bool,
    /// Others were seen to be written after it; what it has now is all of it.
    is_over: bool,
}

/// What a look at a file found.
enum Fill {
    Some,
    End,
    /// It is not the file that it was.
    Changed,
}

impl Reading {
    /// Reads a file from a position; `None` when it is shorter.
    fn at(file: File, id: (u64, u64), offset: u64) -> io::Result<Option<Self>> {
        let Some(print) = Print::of(&file, offset)? else { return Ok(None) };
        let last = print.tail.clone();
        Ok(Some(Self { file, id, offset, last, print, begun: Vec::new(), skipping: false, is_over: false }))
    }

    /// Bytes before the line that has begun.
    fn line_start(&self) -> u64 {
        self.offset - self.begun.len() as u64
    }

    fn position(&self) -> io::Result<Position> {
        let modified_ns = modified_ns(&self.file.metadata()?);
        Ok(Position { file: self.id, offset: self.line_start(), modified_ns, print: self.print.digest() })
    }

    /// Reads what comes next, and in the same call what stood before it: in between the file may have been emptied.
    fn fill(&mut self, chunk: &mut Vec<u8>) -> io::Result<Fill> {
        let known = self.last.len();
        chunk.resize(known + CHUNK_BYTES, 0);
        let len = loop {
            match self.file.read_at(chunk, self.offset - known as u64) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if len < known || chunk[..known] != self.last {
            return Ok(Fill::Changed);
        }
        let new = &chunk[known..len];
        if new.is_empty() {
            return Ok(Fill::End);
        }
        self.offset += new.len() as u64;
        self.last.extend_from_slice(&new[new.len().saturating_sub(TAIL_MAX)..]);
        self.last.drain(..self.last.len().saturating_sub(TAIL_MAX));
        match memchr(b'\n', new) {
            None if self.skipping => self.print.extend(new),
            Some(end) if self.skipping => {
                self.print.extend(&new[..=end]);
                self.begun.extend_from_slice(&new[end + 1..]);
                self.skipping = false;
            }
            _ => self.begun.extend_from_slice(new),
        }
        Ok(Fill::Some)
    }

    /// Passes over the line that has begun if it is too long; returns where it began.
    fn skip_oversize(&mut self) -> Option<u64> {
        let end = memchr(b'\n', &self.begun);
        if end.unwrap_or(self.begun.len()) <= EVENT_MAX {
            return None;
        }
        let start = self.line_start();
        let len = end.map_or(self.begun.len(), |end| end + 1);
        self.print.extend(&self.begun[..len]);
        self.begun = self.begun.split_off(len);
        self.skipping = end.is_none();
        Some(start)
    }

    /// Takes the whole lines, or with `all` what there is.
    fn cut(&mut self, all: bool) -> io::Result<Option<Lines>> {
        let len = if all { self.begun.len() } else { memrchr(b'\n', &self.begun).map_or(0, |end| end + 1) };
        if len == 0 {
            return Ok(None);
        }
        let start = self.line_start();
        let rest = self.begun.split_off(len);
        let bytes = std::mem::replace(&mut self.begun, rest);
        self.print.extend(&bytes);
        Ok(Some(Lines { start, bytes, after: self.position()? }))
    }
}

impl Tail {
    /// Follows the log from where it was read before, else from its beginning.
    #[must_use]
    pub fn new(path: PathBuf, resume: Option<Position>) -> Self {
        Self { path, resume, reading: None, lost: Lost::default(), chunk: Vec::new() }
    }

    /// What was lost so far.
    #[must_use]
    pub const fn lost(&self) -> Lost {
        self.lost
    }

    /// Does the next thing there is to do.
    ///
    /// # Errors
    /// When a file cannot be looked at or read; asking again is right.
    pub fn step(&mut self) -> io::Result<Step> {
        let Some(reading) = &mut self.reading else { return self.begin() };
        match reading.fill(&mut self.chunk)? {
            Fill::Some => {
                while let Some(start) = reading.skip_oversize() {
                    self.lost.oversize += 1;
                    if self.lost.oversize <= super::TOLD_MAX {
                        warn!(
                            file = %self.path.display(), byte = start,
                            "a line is longer than {EVENT_MAX} bytes and left out"
                        );
                    }
                }
                Ok(reading.cut(false)?.map_or(Step::Again, Step::Lines))
            }
            Fill::End => self.follow(),
            Fill::Changed => self.changed(),
        }
    }

    /// Bytes that are there and were not handed out.
    ///
    /// # Errors
    /// When a file cannot be looked at.
    pub fn behind(&self) -> io::Result<u64> {
        let of_log = || fs::metadata(&self.path).map(|metadata| (id_of(&metadata), metadata.len()));
        let Some(reading) = &self.reading else { return Ok(of_log().map_or(0, |(_, len)| len)) };
        let left = reading.file.metadata()?.len().saturating_sub(reading.line_start());
        let later = of_log().ok().filter(|(id, _)| *id != reading.id).map_or(0, |(_, len)| len);
        Ok(left + later)
    }

    /// Opens the file to begin with.
    fn begin(&mut self) -> io::Result<Step> {
        let found = siblings::find(&self.path).or_else(absent)?;
        let plain = || found.iter().filter(|sibling| !sibling.is_packed);
        let Some(position) = self.resume.clone() else {
            let Some(log) = plain().find(|sibling| sibling.is_log) else { return Ok(Step::Absent) };
            return self.read_from_start(log);
        };
        if let Some(reading) = holding(plain(), &position, None)? {
            self.resume = None;
            self.reading = Some(reading);
            return Ok(Step::Again);
        }
        let Some(next) = plain().find(|one| one.is_log || one.modified_ns > position.modified_ns) else {
            return Ok(Step::Absent);
        };
        self.tell_gap("what was read last is not there any more, nor is what may have followed it");
        let step = self.read_from_start(next)?;
        self.resume = None;
        Ok(step)
    }

    fn read_from_start(&mut self, sibling: &Sibling) -> io::Result<Step> {
        let (file, metadata) = siblings::open(&sibling.path)?;
        self.reading = Reading::at(file, id_of(&metadata), 0)?;
        Ok(Step::Again)
    }

    /// The file has come to its end: goes on with the next one when it is sure that this one is not written any more.
    fn follow(&mut self) -> io::Result<Step> {
        let Some(reading) = &mut self.reading else { return Ok(Step::Again) };
        match fs::metadata(&self.path) {
            Ok(metadata) if id_of(&metadata) == reading.id => return Ok(Step::Idle),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Step::Absent),
            Err(error) => return Err(error),
        }
        let found = siblings::find(&self.path)?;
        let modified_ns = modified_ns(&reading.file.metadata()?);
        let own = found.iter().find(|sibling| sibling.id == reading.id);
        let order = own.map_or((false, modified_ns, Path::new("")), |own| (false, modified_ns, &*own.path));
        let later = found.iter().filter(|sibling| sibling.id != reading.id && sibling.order() > order);
        let Some(next) = later.clone().find(|sibling| !sibling.is_packed) else { return Ok(Step::Idle) };
        // Whoever rotates may still write to the old file while the new one is empty.
        if next.is_log && next.len == 0 {
            return Ok(Step::Idle);
        }
        if !std::mem::replace(&mut reading.is_over, true) {
            return Ok(Step::Again);
        }
        // One that is packed may be this one.
        let packed = later.filter(|sibling| sibling.is_packed).count();
        let missed = if own.is_some() { packed } else { packed.saturating_sub(1) };
        // What has no newline is a line, too: nothing follows it any more.
        let rest = if reading.skipping { None } else { reading.cut(true)? };
        let step = self.read_from_start(next)?;
        for _ in 0..missed {
            self.tell_gap("a file that the log was rotated into was packed before it was read");
        }
        Ok(rest.map_or(step, Step::Lines))
    }

    /// The file was emptied: goes on in the copy that was made of it, if there is one, else at its new beginning.
    fn changed(&mut self) -> io::Result<Step> {
        let Some(reading) = &self.reading else { return Ok(Step::Again) };
        let (position, id) = (reading.position()?, reading.id);
        let found = siblings::find(&self.path).or_else(absent)?;
        let copy = holding(found.iter().filter(|sibling| !sibling.is_packed), &position, Some(id))?;
        if copy.is_none() {
            self.tell_gap("it was emptied; what was written to it after it was read last is lost");
        }
        // Anew by its name: what is read from now on is another log.
        self.reading = copy;
        Ok(Step::Again)
    }

    fn tell_gap(&mut self, what: &str) {
        self.lost.gaps += 1;
        warn!(file = %self.path.display(), what, "some of an audit log may have been missed");
    }
}

/// No directory, no files.
fn absent(error: io::Error) -> io::Result<Vec<Sibling>> {
    if error.kind() == io::ErrorKind::NotFound { Ok(Vec::new()) } else { Err(error) }
}

/// The file that holds what stood before a position, opened there; the one with the same number is tried first.
fn holding<'a>(
    candidates: impl Iterator<Item = &'a Sibling>,
    position: &Position,
    except: Option<(u64, u64)>,
) -> io::Result<Option<Reading>> {
    let mut candidates: Vec<&Sibling> = candidates
        .filter(|sibling| Some(sibling.id) != except && sibling.len >= position.offset)
        // Nothing tells two beginnings apart.
        .filter(|sibling| position.offset > 0 || sibling.id == position.file)
        .collect();
    candidates.sort_by_key(|sibling| sibling.id != position.file);
    for candidate in candidates {
        let Ok((file, metadata)) = siblings::open(&candidate.path) else { continue };
        if let Some(reading) = Reading::at(file, id_of(&metadata), position.offset)?
            && reading.print.digest() == position.print
        {
            return Ok(Some(reading));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
