//! Audit logs of the Kubernetes API server as they are written: files, and standard input.
//!
//! A thread for each input reads whole lines into one bounded queue and waits while that is full: what is not taken stays in
//! the file. Positions are kept once what followed from the lines before them has been written ([`Positions`]), so that after a
//! crash something may be told twice, and nothing is missed.

use std::io::{self, BufRead as _, Read as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sensor_core::audit::EVENT_MAX;
use sensor_core::engine::Engine;
use sensor_core::health::{AuditInput, AuditLack};
use tokio::sync::mpsc;
use tracing::{error, warn};

mod keeper;
mod position;
mod siblings;
mod tail;

pub use keeper::Positions;
pub use position::{Position, Store, StoreError};
use tail::{Lost, Step, Tail};

/// Pause before a log is looked at again that had nothing new.
const POLL: Duration = Duration::from_millis(200);
/// Pause after an error.
const RETRY: Duration = Duration::from_secs(1);
/// Pieces that wait to be taken; each is a few lines, or one of at most [`EVENT_MAX`] bytes.
const QUEUE: usize = 4;
/// Lines of an input that are told one by one when they are left out; after that they are counted only.
const TOLD_MAX: u64 = 100;
/// A log that was never read to its end for this long is read too slowly.
const LATE: Duration = Duration::from_secs(60);
/// Looks without the thread having come round before it counts as stuck; the pipeline looks twice a second.
const STUCK_AFTER: u32 = 20;
/// What standard input is called in the configuration.
pub const STDIN: &str = "-";
/// And in what is told.
const STDIN_NAME: &str = "<stdin>";

/// Lines of one input.
#[derive(Debug)]
pub struct Piece {
    /// Which input.
    input: usize,
    lines: tail::Lines,
    /// Whether a restart can begin after them.
    keeps: bool,
}

/// How an input is, as its thread knows.
#[derive(Debug, Default)]
struct Status {
    lack: Option<AuditLack>,
    lost: Lost,
    behind_bytes: Option<u64>,
}

/// What a thread and the pipeline share.
#[derive(Debug, Default)]
struct Shared {
    status: Mutex<Status>,
    /// How often the thread has come round.
    rounds: AtomicU64,
    /// It waits for the pipeline, not for the file.
    is_waiting: AtomicBool,
}

impl Shared {
    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An input, as the pipeline knows it.
#[derive(Debug)]
struct Input {
    name: Arc<str>,
    shared: Arc<Shared>,
    events: u64,
    bytes: u64,
    invalid: u64,
    latest_unix_ns: Option<u64>,
    /// Rounds as of the last look, and looks since they changed.
    progress: (u64, u32),
}

/// All inputs.
#[derive(Debug)]
pub struct AuditLogs {
    inputs: Vec<Input>,
    pieces: mpsc::Receiver<Piece>,
    stop: Arc<AtomicBool>,
}

impl AuditLogs {
    /// Starts a thread for each of these paths, `-` being standard input; `store` says where files go on.
    ///
    /// # Errors
    /// When the system has no thread for one.
    pub fn start(files: &[PathBuf], store: &Store) -> io::Result<Self> {
        let (sender, pieces) = mpsc::channel(QUEUE);
        let stop = Arc::new(AtomicBool::new(false));
        let mut inputs = Vec::new();
        for (index, path) in files.iter().enumerate() {
            let is_stdin = path.as_os_str() == STDIN;
            let name: Arc<str> = if is_stdin { STDIN_NAME.into() } else { path.display().to_string().into() };
            let shared = Arc::new(Shared::default());
            let feeder = Feeder {
                input: index,
                name: name.clone(),
                sender: sender.clone(),
                shared: shared.clone(),
                stop: stop.clone(),
            };
            let tail = (!is_stdin).then(|| Tail::new(path.clone(), store.get(&name).cloned()));
            thread::Builder::new().name("audit".to_owned()).spawn(move || match tail {
                Some(tail) => feeder.follow(tail),
                None => feeder.read_stdin(),
            })?;
            let (events, bytes, invalid, latest_unix_ns) = (0, 0, 0, None);
            inputs.push(Input { name, shared, events, bytes, invalid, latest_unix_ns, progress: (0, 0) });
        }
        Ok(Self { inputs, pieces, stop })
    }

    /// Waits for lines; for ever, where no input is left.
    pub async fn recv(&mut self) -> Piece {
        match self.pieces.recv().await {
            Some(piece) => piece,
            None => std::future::pending().await,
        }
    }

    /// Takes lines that are already there.
    pub fn try_recv(&mut self) -> Option<Piece> {
        self.pieces.try_recv().ok()
    }

    /// Hands lines to the engine; what is no event is counted and told. Returns the log and the position that was reached.
    pub fn feed(&mut self, piece: Piece, engine: &mut Engine) -> Option<(Arc<str>, Position)> {
        let input = self.inputs.get_mut(piece.input)?;
        let mut start = piece.lines.start;
        for line in piece.lines.bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            if !text.trim_ascii().is_empty() {
                match engine.handle_live_audit_line(text) {
                    Ok(at_ns) => {
                        input.events += 1;
                        input.latest_unix_ns = input.latest_unix_ns.max(at_ns);
                    }
                    Err(problem) => input.tell_invalid(start, &problem.to_string()),
                }
            }
            start += line.len() as u64;
        }
        input.bytes += piece.lines.bytes.len() as u64;
        piece.keeps.then(|| (input.name.clone(), piece.lines.after))
    }

    /// How the inputs are; to be asked twice a second. `unkept` is why positions are not kept.
    pub fn look(&mut self, unkept: Option<&Arc<str>>) -> Vec<AuditInput> {
        let look = |input: &mut Input| {
            let is_stuck = input.is_stuck();
            let status = input.shared.status();
            let lack = status.lack.clone().or_else(|| {
                let reason = if is_stuck {
                    format!("{}: not read any more: its file system does not answer", input.name).into()
                } else {
                    unkept?.clone()
                };
                Some(AuditLack { is_blind: is_stuck, reason })
            });
            AuditInput {
                name: input.name.clone(),
                lack,
                events: input.events,
                bytes: input.bytes,
                invalid: input.invalid,
                oversize: status.lost.oversize,
                gaps: status.lost.gaps,
                behind_bytes: status.behind_bytes,
                latest_unix_ns: input.latest_unix_ns,
            }
        };
        self.inputs.iter_mut().map(look).collect()
    }

    /// Reads no more; what was read before can still be taken.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.pieces.close();
    }
}

impl Drop for AuditLogs {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Input {
    fn tell_invalid(&mut self, start: u64, problem: &str) {
        self.invalid += 1;
        if self.invalid <= TOLD_MAX {
            warn!(file = %self.name, byte = start, problem, "a line of an audit log is no event");
        } else if self.invalid == TOLD_MAX + 1 {
            warn!(file = %self.name, "further lines that are no events are counted only");
        }
    }

    /// Whether the thread does not come round although nobody holds it up.
    fn is_stuck(&mut self) -> bool {
        let rounds = self.shared.rounds.load(Ordering::Acquire);
        let (before, looks) = &mut self.progress;
        let is_held = self.shared.is_waiting.load(Ordering::Acquire);
        *looks = if rounds != *before || is_held { 0 } else { looks.saturating_add(1) };
        *before = rounds;
        *looks >= STUCK_AFTER
    }
}

/// The thread of an input.
struct Feeder {
    input: usize,
    name: Arc<str>,
    sender: mpsc::Sender<Piece>,
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
}

impl Feeder {
    /// Hands lines on as soon as there is room; returns whether anybody takes them.
    fn send(&self, lines: tail::Lines, keeps: bool) -> bool {
        self.shared.is_waiting.store(true, Ordering::Release);
        let sent = self.sender.blocking_send(Piece { input: self.input, lines, keeps }).is_ok();
        self.shared.is_waiting.store(false, Ordering::Release);
        sent
    }

    fn lacks(&self, is_blind: bool, what: &str) -> AuditLack {
        AuditLack { is_blind, reason: format!("{}: {what}", self.name).into() }
    }

    fn follow(&self, mut tail: Tail) {
        let mut caught_up = Instant::now();
        while !self.stop.load(Ordering::Acquire) {
            let step = tail.step();
            let behind = tail.behind().ok();
            if behind == Some(0) || matches!(step, Ok(Step::Idle)) {
                caught_up = Instant::now();
            }
            let lack = match &step {
                Ok(Step::Absent) => Some(self.lacks(true, "it is not there")),
                Ok(_) if caught_up.elapsed() > LATE => {
                    Some(self.lacks(false, "it is written faster than it is read, or the output is not"))
                }
                Ok(_) => None,
                Err(error) => Some(self.lacks(true, &format!("it cannot be read ({error})"))),
            };
            *self.shared.status() = Status { lack, lost: tail.lost(), behind_bytes: behind };
            self.shared.rounds.fetch_add(1, Ordering::Release);
            match step {
                Ok(Step::Lines(lines)) => {
                    if !self.send(lines, true) {
                        return;
                    }
                }
                Ok(Step::Again) => {}
                Ok(Step::Idle | Step::Absent) => thread::sleep(POLL),
                Err(_) => thread::sleep(RETRY),
            }
        }
    }

    /// Reads standard input to its end. A line that is too long is passed over in bounded memory.
    fn read_stdin(&self) {
        let mut input = io::stdin().lock();
        let (mut start, mut line, mut lost) = (0_u64, Vec::new(), Lost::default());
        self.shared.is_waiting.store(true, Ordering::Release);
        let end = loop {
            line.clear();
            match input.by_ref().take(EVENT_MAX as u64 + 1).read_until(b'\n', &mut line) {
                Ok(0) => break None,
                Ok(_) if line.len() > EVENT_MAX && line.last() != Some(&b'\n') => {
                    lost.oversize += 1;
                    warn!(
                        file = STDIN_NAME,
                        byte = start,
                        "a line is longer than {EVENT_MAX} bytes and left out"
                    );
                    self.shared.status().lost = lost;
                    start += line.len() as u64;
                    match input.skip_until(b'\n') {
                        Ok(skipped) => start += skipped as u64,
                        Err(error) => break Some(error),
                    }
                }
                Ok(len) => {
                    let after = Position { file: (0, 0), offset: 0, modified_ns: 0, print: String::new() };
                    let lines = tail::Lines { start, bytes: std::mem::take(&mut line), after };
                    start += len as u64;
                    if !self.send(lines, false) {
                        return;
                    }
                    self.shared.is_waiting.store(true, Ordering::Release);
                }
                Err(error) => break Some(error),
            }
        };
        let what = match end {
            None => "it has come to its end".to_owned(),
            Some(error) => {
                error!(%error, "standard input cannot be read any more");
                format!("it cannot be read ({error})")
            }
        };
        self.shared.status().lack = Some(self.lacks(true, &what));
    }
}

#[cfg(test)]
mod tests;
