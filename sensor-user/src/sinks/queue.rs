//! A queue of chunks bounded by bytes, between one writer and one reader.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

/// What a chunk costs beside its bytes, so that many small ones are bounded too.
const CHUNK_OVERHEAD: usize = 64;

/// The queue; shared by reference.
#[derive(Debug)]
pub struct Queue {
    max_bytes: usize,
    state: Mutex<State>,
    /// A chunk came, or the writer closed the queue.
    filled: Condvar,
    /// A chunk was taken, or the reader is gone.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    writer_done: bool,
    reader_done: bool,
}

/// Why a chunk was not queued; it comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// No room.
    Full(Bytes),
    /// Nobody reads any more.
    Closed(Bytes),
}

impl Queue {
    /// A queue for so many bytes; one chunk always fits into an empty queue.
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, state: Mutex::default(), filled: Condvar::new(), emptied: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, and the state is valid between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a chunk if there is room.
    pub fn try_push(&self, chunk: Bytes) -> Result<(), Refused> {
        let mut state = self.lock();
        self.push_locked(&mut state, chunk)
    }

    /// Queues a chunk as soon as there is room.
    pub fn push(&self, chunk: Bytes) -> Result<(), Refused> {
        let mut state = self.lock();
        let mut chunk = chunk;
        loop {
            match self.push_locked(&mut state, chunk) {
                Err(Refused::Full(back)) => chunk = back,
                other => return other,
            }
            state = self.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Queues a chunk as soon as there is room, if that is before `deadline`.
    pub fn push_until(&self, chunk: Bytes, deadline: Instant) -> Result<(), Refused> {
        let mut state = self.lock();
        let mut chunk = chunk;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.push_locked(&mut state, chunk) {
                Err(Refused::Full(back)) if !left.is_zero() => chunk = back,
                other => return other,
            }
            state = self.emptied.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Bytes of one more chunk that would leave the queue at no more than half of its size. Only the writer makes this
    /// less.
    pub fn room_below_half(&self) -> usize {
        (self.max_bytes / 2).saturating_sub(self.lock().bytes + CHUNK_OVERHEAD)
    }

    fn push_locked(&self, state: &mut State, chunk: Bytes) -> Result<(), Refused> {
        let cost = chunk.len() + CHUNK_OVERHEAD;
        if state.reader_done {
            Err(Refused::Closed(chunk))
        } else if !state.chunks.is_empty() && state.bytes + cost > self.max_bytes {
            Err(Refused::Full(chunk))
        } else {
            state.bytes += cost;
            state.chunks.push_back(chunk);
            self.filled.notify_one();
            Ok(())
        }
    }

    /// Takes the oldest chunk, waiting for one; `None` when the writer has closed the queue and it is empty.
    pub fn pop(&self) -> Option<Bytes> {
        let mut state = self.lock();
        loop {
            if let Some(chunk) = state.chunks.pop_front() {
                state.bytes -= chunk.len() + CHUNK_OVERHEAD;
                self.emptied.notify_one();
                return Some(chunk);
            }
            if state.writer_done {
                return None;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The writer adds nothing more.
    pub fn close(&self) {
        self.lock().writer_done = true;
        self.filled.notify_one();
    }

    /// The reader takes nothing more; returns what it leaves behind.
    pub fn abandon(&self) -> Vec<Bytes> {
        let mut state = self.lock();
        state.reader_done = true;
        state.bytes = 0;
        self.emptied.notify_one();
        state.chunks.drain(..).collect()
    }

    /// Whether the reader is gone.
    pub fn is_abandoned(&self) -> bool {
        self.lock().reader_done
    }

    /// Waits for the reader to be gone, but no longer than `limit`; returns whether it is.
    pub fn wait_abandoned(&self, limit: Duration) -> bool {
        let started = Instant::now();
        let mut state = self.lock();
        while !state.reader_done {
            let Some(left) = limit.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) else {
                return false;
            };
            state = self.emptied.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_and_an_empty_one_takes_any_chunk() {
        let queue = Queue::new(10);
        let large = Bytes::from(vec![0; 1000]);
        assert_eq!(queue.try_push(large.clone()), Ok(()));
        assert_eq!(queue.try_push(Bytes::from_static(b"x")), Err(Refused::Full(Bytes::from_static(b"x"))));
        assert_eq!(queue.pop(), Some(large));
        assert_eq!(queue.try_push(Bytes::from_static(b"x")), Ok(()));
    }

    #[test]
    fn small_chunks_are_bounded_too() {
        let queue = Queue::new(10 * CHUNK_OVERHEAD);
        let taken = (0..1000).take_while(|_| queue.try_push(Bytes::new()).is_ok()).count();
        assert_eq!(taken, 10);
    }

    #[test]
    fn the_room_below_half_is_what_is_left_of_one_half() {
        let queue = Queue::new(1000);
        assert_eq!(queue.room_below_half(), 500 - CHUNK_OVERHEAD);
        queue.try_push(Bytes::from(vec![0; 100])).expect("room");
        assert_eq!(queue.room_below_half(), 400 - 2 * CHUNK_OVERHEAD);
        queue.try_push(Bytes::from(vec![0; 400])).expect("room");
        assert_eq!(queue.room_below_half(), 0);
    }

    #[test]
    fn a_wait_with_a_deadline_ends_with_room_or_at_the_deadline() {
        let queue = Queue::new(1);
        queue.try_push(Bytes::from_static(b"a")).expect("room");
        let refused = queue.push_until(Bytes::from_static(b"b"), Instant::now() + Duration::from_millis(5));
        assert_eq!(refused, Err(Refused::Full(Bytes::from_static(b"b"))));
        std::thread::scope(|scope| {
            let queue = &queue;
            let deadline = Instant::now() + Duration::from_secs(60);
            let waiting = scope.spawn(move || queue.push_until(Bytes::from_static(b"b"), deadline));
            assert_eq!(queue.pop(), Some(Bytes::from_static(b"a")));
            assert_eq!(waiting.join().expect("no panic"), Ok(()));
        });
    }

    #[test]
    fn what_was_queued_before_the_close_is_still_read() {
        let queue = Queue::new(1000);
        queue.try_push(Bytes::from_static(b"a")).expect("room");
        queue.close();
        assert_eq!(queue.pop(), Some(Bytes::from_static(b"a")));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn a_waiting_writer_learns_that_the_reader_is_gone() {
        let queue = Queue::new(1);
        queue.try_push(Bytes::from_static(b"a")).expect("room");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.push(Bytes::from_static(b"b")));
            assert_eq!(queue.abandon(), [Bytes::from_static(b"a")]);
            assert_eq!(waiting.join().expect("no panic"), Err(Refused::Closed(Bytes::from_static(b"b"))));
        });
        assert!(queue.wait_abandoned(Duration::ZERO));
    }
}
