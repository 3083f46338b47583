//! Answers about containers, read from the runtimes' state files by a thread of its own.
//!
//! The pipeline must never wait for a disk, so it posts questions here and takes answers when they come. A runtime
//! writes its files around the time the kernel reports the cgroup; a question is therefore asked again, with growing
//! distance, until the answer is complete or the schedule ends. Invariant: questions, watches and answers are bounded,
//! and what finds no room is counted.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hashlink::LinkedHashMap;
use sensor_core::engine::{ContainerMetadata, ContainerQuery};
use sensor_core::fact::Runtime;
use tokio::sync::mpsc;

use crate::lookups::runtime::Containers;

/// Questions that may wait for the thread.
const QUESTIONS_MAX: usize = 16_384;
/// Questions that may wait for their next attempt; the one due last gives way.
const RETRIES_MAX: usize = 16_384;
/// Containers watched for removal; the oldest gives way.
const WATCHES_MAX: usize = 16_384;
/// Answers that may wait for the pipeline.
const ANSWERS_MAX: usize = 4_096;
/// Distance between two looks at the watched containers.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// Pauses between attempts. The first ones fall into the hold time of container records, the last ones serve runtimes
/// that write their index late.
const PAUSES: [Duration; 8] = [
    Duration::from_millis(4),
    Duration::from_millis(8),
    Duration::from_millis(16),
    Duration::from_millis(32),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(1_000),
    Duration::from_millis(3_000),
];

/// Where container state is read from.
pub trait StateFiles: Send + 'static {
    /// Reads what is known of a container now; empty fields where nothing was found.
    fn read(&self, query: &ContainerQuery) -> ContainerMetadata;
    /// Whether the runtime still keeps state of this container.
    fn exists(&self, query: &ContainerQuery) -> bool;
}

impl StateFiles for Containers {
    fn read(&self, query: &ContainerQuery) -> ContainerMetadata {
        Self::read(self, query)
    }

    fn exists(&self, query: &ContainerQuery) -> bool {
        Self::exists(self, query)
    }
}

/// An answer for the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What the state files say; asked again later when it is not complete.
    Metadata(ContainerMetadata),
    /// The runtime has dropped its state.
    Removed(Arc<str>),
}

enum Question {
    Read(ContainerQuery),
    Watch(ContainerQuery),
    Forget(Arc<str>),
}

/// The handle of the thread.
#[derive(Debug)]
pub struct ContainerState {
    questions: Option<SyncSender<Question>>,
    answers: mpsc::Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
    refused: u64,
}

impl ContainerState {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(files: impl StateFiles) -> std::io::Result<Self> {
        let (questions, receive) = sync_channel(QUESTIONS_MAX);
        let (send, answers) = mpsc::channel(ANSWERS_MAX);
        let thread = std::thread::Builder::new()
            .name("container-state".into())
            .spawn(move || Worker::new(files, send).run(&receive))?;
        Ok(Self { questions: Some(questions), answers, thread: Some(thread), refused: 0 })
    }

    /// Asks for a container's metadata.
    pub fn read(&mut self, query: ContainerQuery) {
        self.post(Question::Read(query));
    }

    /// Asks to be told when the runtime drops its state of a container.
    pub fn watch(&mut self, query: ContainerQuery) {
        self.post(Question::Watch(query));
    }

    /// Takes back a watch.
    pub fn forget(&mut self, id: Arc<str>) {
        self.post(Question::Forget(id));
    }

    /// Waits for the next answer. Cancel safe.
    pub async fn answer(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }

    /// Takes an answer that is already there.
    pub fn try_answer(&mut self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }

    /// Questions that found no room since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn post(&mut self, question: Question) {
        let Some(questions) = &self.questions else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = questions.try_send(question) {
            self.refused += 1;
        }
    }
}

impl Drop for ContainerState {
    fn drop(&mut self) {
        self.questions = None;
        self.answers.close();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed by its hook; there is nothing to add while dropping.
            let _ = thread.join();
        }
    }
}

struct Attempt {
    due: Instant,
    number: usize,
    query: ContainerQuery,
    last: Option<ContainerMetadata>,
}

impl PartialEq for Attempt {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}
impl Eq for Attempt {}
impl PartialOrd for Attempt {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Attempt {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}

struct Worker<F> {
    files: F,
    answers: mpsc::Sender<Answer>,
    attempts: BinaryHeap<Reverse<Attempt>>,
    watched: LinkedHashMap<Arc<str>, ContainerQuery>,
    next_watch: Instant,
}

impl<F: StateFiles> Worker<F> {
    fn new(files: F, answers: mpsc::Sender<Answer>) -> Self {
        Self {
            files,
            answers,
            attempts: BinaryHeap::new(),
            watched: LinkedHashMap::new(),
            next_watch: Instant::now() + WATCH_INTERVAL,
        }
    }

    fn run(mut self, questions: &Receiver<Question>) {
        loop {
            match questions.recv_timeout(self.pause()) {
                Ok(question) => self.take(question),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.work().is_err() {
                return;
            }
        }
    }

    fn pause(&self) -> Duration {
        let watch = (!self.watched.is_empty()).then_some(self.next_watch);
        let attempt = self.attempts.peek().map(|Reverse(attempt)| attempt.due);
        let due = [watch, attempt].into_iter().flatten().min();
        due.map_or(Duration::from_secs(3600), |due| due.saturating_duration_since(Instant::now()))
    }

    fn take(&mut self, question: Question) {
        match question {
            Question::Read(query) if self.attempts.len() < RETRIES_MAX => {
                self.attempts.push(Reverse(Attempt { due: Instant::now(), number: 0, query, last: None }));
            }
            Question::Read(query) => {
                // No room to come back to it: one look now is better than none.
                let metadata = self.files.read(&query);
                let _ = self.answers.blocking_send(Answer::Metadata(metadata));
            }
            Question::Watch(query) => {
                if self.watched.len() >= WATCHES_MAX {
                    self.watched.pop_front();
                }
                self.watched.insert(query.id.clone(), query);
            }
            Question::Forget(id) => {
                self.watched.remove(&id);
            }
        }
    }

    /// Does what is due. An error means that the pipeline is gone.
    fn work(&mut self) -> Result<(), mpsc::error::SendError<Answer>> {
        let now = Instant::now();
        while self.attempts.peek().is_some_and(|Reverse(attempt)| attempt.due <= now) {
            if let Some(Reverse(attempt)) = self.attempts.pop() {
                self.attempt(now, attempt)?;
            }
        }
        if now >= self.next_watch {
            self.next_watch = now + WATCH_INTERVAL;
            self.look_at_watched()?;
        }
        Ok(())
    }

    fn attempt(&mut self, now: Instant, attempt: Attempt) -> Result<(), mpsc::error::SendError<Answer>> {
        let Attempt { number, query, last, .. } = attempt;
        let metadata = self.files.read(&query);
        let pause = if is_complete(&metadata) { None } else { PAUSES.get(number) };
        let news = last.as_ref() != Some(&metadata) && !is_empty(&metadata);
        // The end of the schedule is an answer too: the core stops waiting.
        if news || (pause.is_none() && last.is_none()) {
            self.answers.blocking_send(Answer::Metadata(metadata.clone()))?;
        }
        if let Some(&pause) = pause {
            let last = news.then_some(metadata).or(last);
            self.attempts.push(Reverse(Attempt { due: now + pause, number: number + 1, query, last }));
        }
        Ok(())
    }

    fn look_at_watched(&mut self) -> Result<(), mpsc::error::SendError<Answer>> {
        let gone: Vec<Arc<str>> = self
            .watched
            .iter()
            .filter(|(_, query)| !self.files.exists(query))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.watched.remove(&id);
            self.answers.blocking_send(Answer::Removed(id))?;
        }
        Ok(())
    }
}

/// Whether asking again can bring more. A container of a bare OCI runtime has no name or image beside its id.
fn is_complete(metadata: &ContainerMetadata) -> bool {
    match metadata.runtime {
        None => false,
        Some(Runtime::Runc) => metadata.created.is_some(),
        Some(_) => metadata.name.is_some() && metadata.image.is_some(),
    }
}

fn is_empty(metadata: &ContainerMetadata) -> bool {
    *metadata == ContainerMetadata { id: metadata.id.clone(), ..ContainerMetadata::default() }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Fake {
        reads: Mutex<u32>,
        complete_at: u32,
        exists: bool,
    }

    impl StateFiles for Fake {
        fn read(&self, query: &ContainerQuery) -> ContainerMetadata {
            let mut reads = self.reads.lock().unwrap();
            *reads += 1;
            let found = *reads >= self.complete_at;
            ContainerMetadata {
                id: query.id.clone(),
                runtime: found.then_some(Runtime::Docker),
                name: found.then(|| "web".into()),
                image: found.then(|| "nginx".into()),
                ..ContainerMetadata::default()
            }
        }

        fn exists(&self, _query: &ContainerQuery) -> bool {
            self.exists
        }
    }

    fn query(id: &str) -> ContainerQuery {
        ContainerQuery {
            id: id.into(),
            runtime: Runtime::Docker,
            namespace: None,
            bundle: None,
            root: None,
            uid: None,
        }
    }

    fn next(state: &mut ContainerState) -> Answer {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(20), state.answer()).await })
            .expect("an answer in time")
            .expect("the thread runs")
    }

    #[test]
    fn late_files_are_found_by_asking_again() {
        let mut state = ContainerState::start(Fake { complete_at: 3, ..Fake::default() }).unwrap();
        state.read(query("abc"));
        let Answer::Metadata(metadata) = next(&mut state) else { panic!("metadata expected") };
        assert_eq!(metadata.name.as_deref(), Some("web"));
        assert_eq!(state.try_answer(), None, "an incomplete answer is not repeated");
    }

    #[test]
    fn dropped_state_is_reported_once() {
        let mut state = ContainerState::start(Fake { exists: false, ..Fake::default() }).unwrap();
        state.watch(query("abc"));
        assert_eq!(next(&mut state), Answer::Removed("abc".into()));
        std::thread::sleep(WATCH_INTERVAL * 2);
        assert_eq!(state.try_answer(), None);
    }

    #[test]
    fn a_forgotten_watch_stays_silent() {
        let mut state = ContainerState::start(Fake { exists: false, ..Fake::default() }).unwrap();
        state.watch(query("abc"));
        state.forget("abc".into());
        std::thread::sleep(WATCH_INTERVAL * 3);
        assert_eq!(state.try_answer(), None);
    }
}
