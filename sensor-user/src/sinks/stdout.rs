//! A sink with a thread of its own, and the stream it writes to: standard output, or whatever a test gives it.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::queue::Queue;
use super::{Out, Overflow, Put};

/// Bytes of lines that wait for a slow reader before any is shed.
pub const QUEUE_BYTES: usize = 16 << 20;
/// How long the end of the program waits for a slow reader.
pub const FINISH_LIMIT: Duration = Duration::from_secs(5);
/// Pause before a stream that is set to non-blocking is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// Why a sink ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The other end of the pipe was closed.
    #[error("the reader of the output closed it")]
    Closed,
    /// The stream cannot be written any more.
    #[error("the output cannot be written")]
    Write(#[source] io::Error),
    /// The reader was too slow at the end of the program.
    #[error("the reader of the output did not take the last lines within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The thread could not be started.
    #[error("no thread for the output")]
    Thread(#[source] io::Error),
}

impl From<io::Error> for SinkError {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::BrokenPipe { Self::Closed } else { Self::Write(error) }
    }
}

/// What a sink did in its life. Every line given to it is in one of the two counts.
#[derive(Debug, Default)]
pub struct Totals {
    /// Lines handed to the stream.
    pub written: u64,
    /// Lines that did not reach it: shed from a full queue, or left behind by an error.
    pub shed: u64,
    /// Why it ended before its time, if it did.
    pub error: Option<SinkError>,
}

/// The writer's end.
#[derive(Debug)]
pub struct Sink {
    queue: Arc<Queue>,
    overflow: Overflow,
    /// Lines handed to the sink.
    given: u64,
    /// Of these, lines that were not queued.
    shed: u64,
    /// Lines that were queued and could not be written, while the output goes on.
    unwritten: Arc<AtomicU64>,
    outcome: Arc<Mutex<Outcome>>,
}

/// What the thread has to say.
#[derive(Debug, Default)]
struct Outcome {
    written: u64,
    error: Option<SinkError>,
}

impl Sink {
    /// Starts the thread that writes to `out`; `queue_bytes` may wait for it.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn start(out: impl Out, overflow: Overflow, queue_bytes: usize) -> Result<Self, SinkError> {
        let queue = Arc::new(Queue::new(queue_bytes));
        let outcome = Arc::new(Mutex::new(Outcome::default()));
        let unwritten = Arc::new(AtomicU64::new(0));
        let (their_queue, their_outcome) = (Arc::clone(&queue), Arc::clone(&outcome));
        let their_unwritten = Arc::clone(&unwritten);
        thread::Builder::new()
            .name("sink".to_owned())
            .spawn(move || drain(&their_queue, &their_unwritten, &their_outcome, out))
            .map_err(SinkError::Thread)?;
        Ok(Self { queue, overflow, given: 0, shed: 0, unwritten, outcome })
    }

    /// Hands over a chunk of whole lines.
    pub fn write(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        let lines = lines(&chunk);
        self.given += lines;
        let pushed = match self.overflow {
            Overflow::Shed => self.queue.try_push(chunk),
            Overflow::Block => self.queue.push(chunk),
            Overflow::BlockUntil(deadline) => self.queue.push_until(chunk, deadline),
        };
        if pushed.is_err() {
            self.shed += lines;
        }
    }

    /// Bytes of bulk lines that the next chunk may have. Bulk lines get one half of the queue, so that whoever makes many
    /// of them cannot crowd out the others. A writer that waits needs no such rule. The room shrinks with
    /// [`Self::write`] only.
    #[must_use]
    pub fn bulk_room(&self) -> usize {
        match self.overflow {
            Overflow::Shed => self.queue.room_below_half(),
            Overflow::Block | Overflow::BlockUntil(_) => usize::MAX,
        }
    }

    /// Changes what a full queue does.
    pub const fn set_overflow(&mut self, overflow: Overflow) {
        self.overflow = overflow;
    }

    /// Lines that did not reach their place since the start: not queued for want of room or of a reader, or not written.
    #[must_use]
    pub fn shed(&self) -> u64 {
        self.shed + self.unwritten.load(Ordering::Relaxed)
    }

    /// Lines that were queued since the start.
    #[must_use]
    pub const fn queued(&self) -> u64 {
        self.given - self.shed
    }

    /// Of these, lines that left the queue: written, or known never to be. They do in the order in which they came.
    #[must_use]
    pub fn dealt_with(&self) -> u64 {
        let written = self.outcome.lock().unwrap_or_else(PoisonError::into_inner).written;
        written + self.unwritten.load(Ordering::Relaxed)
    }

    /// Whether the stream can no longer be written: the other end was closed, or an error occurred.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue.is_abandoned()
    }

    /// Waits until everything is written, but no longer than `limit`, and not beyond [`Overflow::BlockUntil`].
    #[must_use]
    pub fn finish(self, limit: Duration) -> Totals {
        self.queue.close();
        let left = match self.overflow {
            Overflow::BlockUntil(deadline) => limit.min(deadline.saturating_duration_since(Instant::now())),
            Overflow::Shed | Overflow::Block => limit,
        };
        // A reader that is stuck keeps its thread; the process ends without it.
        let in_time = self.queue.wait_abandoned(left);
        let outcome = std::mem::take(&mut *self.outcome.lock().unwrap_or_else(PoisonError::into_inner));
        Totals {
            written: outcome.written,
            shed: self.given - outcome.written,
            error: if in_time { outcome.error } else { Some(SinkError::TimedOut(limit)) },
        }
    }
}

fn lines(chunk: &[u8]) -> u64 {
    chunk.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// The thread: writes until the queue is closed and empty, or the output comes to an end.
fn drain(queue: &Queue, unwritten: &AtomicU64, outcome: &Mutex<Outcome>, mut out: impl Out) {
    let outcome = || outcome.lock().unwrap_or_else(PoisonError::into_inner);
    let mut result = Ok(());
    while let Some(chunk) = queue.pop() {
        let put = out.put(&chunk);
        outcome().written += lines(&chunk[..put.written]);
        if let Some(error) = put.end {
            result = Err(error);
            break;
        }
        unwritten.fetch_add(lines(&chunk[put.written..]), Ordering::Relaxed);
    }
    if let Err(error) = result.and_then(|()| out.finish()) {
        outcome().error = Some(error.into());
    }
    // Last, because it is what `finish` waits for.
    queue.abandon();
}

/// A stream: what it refuses once, it refuses for ever.
#[derive(Debug)]
pub struct Stream<W>(pub W);

impl<W: Write + Send + 'static> Out for Stream<W> {
    fn put(&mut self, chunk: &[u8]) -> Put {
        let (written, result) = write_all(&mut self.0, chunk);
        Put { written, end: result.err() }
    }

    fn finish(&mut self) -> io::Result<()> {
        flush(&mut self.0)
    }
}

/// Writes a chunk; returns how many bytes went out before the error, if there was one.
pub(super) fn write_all(out: &mut impl Write, chunk: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < chunk.len() {
        match out.write(&chunk[written..]) {
            Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
            Ok(some) => written += some,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Somebody else may share our end of a terminal or pipe and set it to non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

fn flush(out: &mut impl Write) -> io::Result<()> {
    loop {
        match out.flush() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A stream that the test reads from, or holds up.
    struct Channel(mpsc::SyncSender<Vec<u8>>);

    impl Write for Channel {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line() -> Bytes {
        Bytes::from_static(b"{}\n")
    }

    #[test]
    fn lines_arrive_in_order_and_are_counted() {
        let (sender, receiver) = mpsc::sync_channel(100);
        let mut sink = Sink::start(Stream(Channel(sender)), Overflow::Shed, 1000).expect("a thread");
        sink.write(Bytes::from_static(b"1\n2\n"));
        sink.write(Bytes::from_static(b"3\n"));
        let totals = sink.finish(FINISH_LIMIT);
        assert_eq!((totals.written, totals.shed), (3, 0));
        assert!(totals.error.is_none());
        assert_eq!(receiver.iter().flatten().collect::<Vec<_>>(), b"1\n2\n3\n");
    }

    #[test]
    fn a_slow_reader_sheds_and_never_blocks() {
        let (sender, receiver) = mpsc::sync_channel(0);
        let mut sink = Sink::start(Stream(Channel(sender)), Overflow::Shed, 700).expect("a thread");
        for _ in 0..100 {
            sink.write(line());
        }
        let shed = sink.shed();
        assert!((80..100).contains(&shed), "{shed} of 100 shed");
        let reader = thread::spawn(move || receiver.iter().count() as u64);
        let totals = sink.finish(FINISH_LIMIT);
        assert_eq!(totals.shed, shed);
        assert_eq!(totals.written, 100 - shed);
        assert_eq!(reader.join().expect("no panic"), totals.written);
    }

    #[test]
    fn only_a_writer_that_sheds_keeps_a_reserve() {
        let (sender, _receiver) = mpsc::sync_channel(0);
        let mut sink = Sink::start(Stream(Channel(sender)), Overflow::Shed, 1000).expect("a thread");
        assert!(sink.bulk_room() < 500, "{}", sink.bulk_room());
        sink.set_overflow(Overflow::BlockUntil(Instant::now()));
        assert_eq!(sink.bulk_room(), usize::MAX);
    }

    #[test]
    fn one_deadline_holds_for_the_last_lines_and_the_end() {
        let (sender, receiver) = mpsc::sync_channel(0);
        let started = Instant::now();
        let deadline = started + Duration::from_millis(20);
        let mut sink =
            Sink::start(Stream(Channel(sender)), Overflow::BlockUntil(deadline), 1).expect("a thread");
        for _ in 0..10 {
            sink.write(line());
        }
        assert!(sink.shed() >= 8, "{} of 10 shed", sink.shed());
        let totals = sink.finish(Duration::from_secs(60));
        assert!(started.elapsed() < Duration::from_secs(60));
        assert_eq!((totals.written, totals.shed), (0, 10));
        assert!(matches!(totals.error, Some(SinkError::TimedOut(_))));
        drop(receiver);
    }

    #[test]
    fn a_blocking_writer_loses_nothing() {
        let (sender, receiver) = mpsc::sync_channel(0);
        let reader = thread::spawn(move || receiver.iter().count());
        let mut sink = Sink::start(Stream(Channel(sender)), Overflow::Block, 1).expect("a thread");
        for _ in 0..1000 {
            sink.write(line());
        }
        let totals = sink.finish(FINISH_LIMIT);
        assert_eq!((totals.written, totals.shed), (1000, 0));
        assert_eq!(reader.join().expect("no panic"), 1000);
    }

    #[test]
    fn a_closed_pipe_ends_the_sink_and_is_told_apart() {
        let (sender, receiver) = mpsc::sync_channel(0);
        drop(receiver);
        let mut sink = Sink::start(Stream(Channel(sender)), Overflow::Block, 1000).expect("a thread");
        sink.write(line());
        while !sink.is_closed() {
            thread::yield_now();
        }
        sink.write(line());
        let totals = sink.finish(FINISH_LIMIT);
        assert_eq!((totals.written, totals.shed), (0, 2));
        assert!(matches!(totals.error, Some(SinkError::Closed)));
    }

    #[test]
    fn a_stuck_reader_does_not_hold_up_the_end() {
        let (sender, receiver) = mpsc::sync_channel(0);
        let mut sink = Sink::start(Stream(Channel(sender)), Overflow::Shed, 1000).expect("a thread");
        sink.write(line());
        sink.write(line());
        let totals = sink.finish(Duration::from_millis(20));
        assert_eq!((totals.written, totals.shed), (0, 2));
        assert!(matches!(totals.error, Some(SinkError::TimedOut(_))));
        drop(receiver);
    }

    #[test]
    fn short_writes_and_interruptions_are_continued() {
        struct Hesitant(mpsc::Sender<u8>, u32);
        impl Write for Hesitant {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                match self.1 % 3 {
                    0 => Err(ErrorKind::Interrupted.into()),
                    1 => Err(ErrorKind::WouldBlock.into()),
                    _ => self.0.send(bytes[0]).map(|()| 1).map_err(|_| ErrorKind::BrokenPipe.into()),
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (sender, receiver) = mpsc::channel();
        let mut sink = Sink::start(Stream(Hesitant(sender, 0)), Overflow::Block, 1000).expect("a thread");
        sink.write(Bytes::from_static(b"abc\ndef\n"));
        assert_eq!(sink.finish(FINISH_LIMIT).written, 2);
        assert_eq!(receiver.iter().collect::<Vec<_>>(), b"abc\ndef\n");
    }
}
