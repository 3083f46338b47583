//! Answers about containers, read from the runtimes' state files by a thread of its own.
//!
//! The pipeline must never wait for a disk, so it posts questions here and takes answers when they come. A runtime
//! writes its files around the time the kernel reports the cgroup; a question is therefore asked again, with growing
//! distance, until the answer is complete or the schedule ends. Invariant: questions, watches and answers are bounded,
//! and what finds no room is counted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hashlink::LinkedHashMap;
use sensor_core::engine::{ContainerMetadata, ContainerQuery, DaemonOptions, DaemonQuery, ProcessQuery};
use sensor_core::fact::Runtime;
use sensor_core::ids::ProcessKey;
use sensor_core::risks::Risks;
use tokio::sync::mpsc;

use crate::lookups::runtime::{Containers, ProcessFile};

/// Questions that may wait for the thread.
const QUESTIONS_MAX: usize = 16_384;
/// Containers that may wait for their next attempt; further ones get one attempt only.
const RETRIES_MAX: usize = 16_384;
/// Containers watched for removal; the oldest gives way.
const WATCHES_MAX: usize = 16_384;
/// Answers that may wait for the pipeline.
const ANSWERS_MAX: usize = 4_096;
/// What was read when runtimes were called and is kept; the oldest gives way.
const AHEAD_MAX: usize = 1024;
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
    /// Reads what tells of a process to be put into a container.
    fn read_process(&self, query: &ProcessQuery) -> ProcessFile;
    /// Reads what a dockerd was told.
    fn read_daemon(&self, query: &DaemonQuery) -> Option<DaemonOptions>;
    /// Whether the runtime still keeps state of this container.
    fn exists(&self, query: &ContainerQuery) -> bool;
}

impl StateFiles for Containers {
    fn read(&self, query: &ContainerQuery) -> ContainerMetadata {
        Self::read(self, query)
    }

    fn read_process(&self, query: &ProcessQuery) -> ProcessFile {
        Self::read_process(self, query)
    }

    fn read_daemon(&self, query: &DaemonQuery) -> Option<DaemonOptions> {
        Self::read_daemon(self, query)
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
    /// What tells of a process that is put into a container, by the number of its query.
    Process(u64, Option<Risks>),
    /// What a daemon was told.
    Daemon(ProcessKey, DaemonOptions),
    /// The runtime has dropped its state of the container of this key.
    Removed(Arc<str>),
}

/// What could not be done since the start.
#[derive(Debug, Default)]
struct Losses {
    /// Questions that found no room and watches that had to give way.
    refused: AtomicU64,
    /// Containers of which what was asked for is there and cannot be used, and processes put into them whose file cannot
    /// be used or is gone.
    unusable_specs: AtomicU64,
}

enum Question {
    Read(ContainerQuery),
    ReadAhead(ContainerQuery),
    ReadProcess(ProcessQuery),
    ReadDaemon(DaemonQuery),
    Watch(ContainerQuery),
    Forget(Arc<str>),
}

/// The handle of the thread.
#[derive(Debug)]
pub struct ContainerState {
    questions: Option<SyncSender<Question>>,
    answers: mpsc::Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
    losses: Arc<Losses>,
}

impl ContainerState {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(files: impl StateFiles) -> std::io::Result<Self> {
        let (questions, receive) = sync_channel(QUESTIONS_MAX);
        let (send, answers) = mpsc::channel(ANSWERS_MAX);
        let losses = Arc::<Losses>::default();
        let worker = Worker::new(files, send, Arc::clone(&losses));
        let thread =
            std::thread::Builder::new().name("container-state".into()).spawn(move || worker.run(&receive))?;
        Ok(Self { questions: Some(questions), answers, thread: Some(thread), losses })
    }

    /// Asks for a container's metadata.
    pub fn read(&mut self, query: ContainerQuery) {
        self.post(Question::Read(query));
    }

    /// Has it read what is there of a container that a runtime was called to make.
    pub fn read_ahead(&mut self, query: ContainerQuery) {
        self.post(Question::ReadAhead(query));
    }

    /// Asks what tells of a process that is put into a container.
    pub fn read_process(&mut self, query: ProcessQuery) {
        self.post(Question::ReadProcess(query));
    }

    /// Asks what a daemon was told; answered if it can be found out.
    pub fn read_daemon(&mut self, query: DaemonQuery) {
        self.post(Question::ReadDaemon(query));
    }

    /// Asks to be told when the runtime drops its state of a container.
    pub fn watch(&mut self, query: ContainerQuery) {
        self.post(Question::Watch(query));
    }

    /// Takes back a watch, by the key of the container.
    pub fn forget(&mut self, key: Arc<str>) {
        self.post(Question::Forget(key));
    }

    /// Waits for the next answer. Cancel safe.
    pub async fn answer(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }

    /// Takes an answer that is already there.
    pub fn try_answer(&mut self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }

    /// Questions that found no room and watches that had to give way since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.losses.refused.load(Ordering::Relaxed)
    }

    /// Containers since the start whose spec is there and cannot be used, so that their risks stay unknown.
    #[must_use]
    pub fn unusable_specs(&self) -> u64 {
        self.losses.unusable_specs.load(Ordering::Relaxed)
    }

    fn post(&mut self, question: Question) {
        let Some(questions) = &self.questions else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = questions.try_send(question) {
            self.losses.refused.fetch_add(1, Ordering::Relaxed);
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

/// What is to be done for a container that was asked for.
struct Attempt {
    due: Instant,
    number: usize,
    query: ContainerQuery,
    /// The latest answer with anything in it; most questions wait with none, and it is large.
    last: Option<Box<ContainerMetadata>>,
    /// An answer said what tells of it.
    judged: bool,
}

/// Nobody takes answers any more.
#[derive(Debug)]
struct Gone;

struct Worker<F> {
    files: F,
    answers: mpsc::Sender<Answer>,
    /// By key of the container: however often it is asked for, the answers are the same. Boxed, because half of a hash
    /// table's places are empty.
    attempts: HashMap<Arc<str>, Box<Attempt>>,
    /// The keys of `attempts` by when they are due.
    schedule: BTreeSet<(Instant, Arc<str>)>,
    watched: LinkedHashMap<Arc<str>, ContainerQuery>,
    /// By what a runtime was called with, and when.
    ahead: LinkedHashMap<Call, ContainerMetadata>,
    next_watch: Instant,
    losses: Arc<Losses>,
}

impl<F: StateFiles> Worker<F> {
    fn new(files: F, answers: mpsc::Sender<Answer>, losses: Arc<Losses>) -> Self {
        Self {
            files,
            answers,
            attempts: HashMap::new(),
            schedule: BTreeSet::new(),
            watched: LinkedHashMap::new(),
            ahead: LinkedHashMap::new(),
            next_watch: Instant::now() + WATCH_INTERVAL,
            losses,
        }
    }

    fn run(mut self, questions: &Receiver<Question>) {
        loop {
            match questions.recv_timeout(self.pause()) {
                Ok(question) => {
                    self.take(question);
                    // What is asked for the first time goes before what is looked at again: it may be gone soon.
                    questions.try_iter().take(QUESTIONS_MAX).for_each(|question| self.take(question));
                }
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
        let attempt = self.schedule.first().map(|(due, _)| *due);
        let due = [watch, attempt].into_iter().flatten().min();
        due.map_or(Duration::from_secs(3600), |due| due.saturating_duration_since(Instant::now()))
    }

    fn take(&mut self, question: Question) {
        match question {
            Question::Read(query) if self.attempts.contains_key(&query.key) => self.ask_again(query),
            Question::Read(query) if self.attempts.len() < RETRIES_MAX => {
                let now = Instant::now();
                // That nobody waits for answers any more shows with the next attempt.
                let _ = self.attempt(now, Attempt { due: now, number: 0, query, last: None, judged: false });
            }
            Question::ReadAhead(query) => {
                let Some(call) = Call::of(&query) else { return };
                let metadata = self.files.read(&query);
                if self.ahead.len() >= AHEAD_MAX {
                    self.ahead.pop_front();
                }
                self.ahead.insert(call, metadata);
            }
            Question::Read(query) => {
                // No room to come back to it: one look now is better than none.
                let metadata = ContainerMetadata { is_last: true, ..self.read(&query) };
                // That nobody waits for it any more shows with the next attempt.
                let _ = self.send(Answer::Metadata(metadata));
            }
            Question::ReadProcess(query) => {
                let file = self.files.read_process(&query);
                if !matches!(file, ProcessFile::Read(_)) {
                    self.losses.unusable_specs.fetch_add(1, Ordering::Relaxed);
                }
                let _ = self.send(Answer::Process(query.number, file.into_risks()));
            }
            Question::ReadDaemon(query) => {
                if let Some(options) = self.files.read_daemon(&query) {
                    let _ = self.send(Answer::Daemon(query.process, options));
                }
            }
            Question::Watch(query) => {
                self.watched.remove(&query.key);
                if self.watched.len() >= WATCHES_MAX {
                    self.watched.pop_front();
                    self.losses.refused.fetch_add(1, Ordering::Relaxed);
                }
                self.watched.insert(query.key.clone(), query);
            }
            Question::Forget(key) => {
                self.watched.remove(&key);
            }
        }
    }

    /// A question for a container whose last one is still worked on: both get the same answer, from now on anew.
    fn ask_again(&mut self, query: ContainerQuery) {
        let Some(mut attempt) = self.attempts.remove(&query.key) else { return };
        self.schedule.remove(&(attempt.due, query.key.clone()));
        attempt.query = merge(attempt.query, query);
        self.schedule(Attempt { due: Instant::now(), number: 0, ..*attempt });
    }

    fn schedule(&mut self, attempt: Attempt) {
        let key = attempt.query.key.clone();
        self.schedule.insert((attempt.due, key.clone()));
        self.attempts.insert(key, Box::new(attempt));
    }

    /// Does what is due.
    fn work(&mut self) -> Result<(), Gone> {
        let now = Instant::now();
        while self.schedule.first().is_some_and(|(due, _)| *due <= now) {
            let next = self.schedule.pop_first().and_then(|(_, key)| self.attempts.remove(&key));
            if let Some(attempt) = next {
                self.attempt(now, *attempt)?;
            }
        }
        if now >= self.next_watch {
            self.next_watch = now + WATCH_INTERVAL;
            self.look_at_watched()?;
        }
        Ok(())
    }

    fn read(&self, query: &ContainerQuery) -> ContainerMetadata {
        let mut metadata = ContainerMetadata { key: Some(query.key.clone()), ..self.files.read(query) };
        if let Some(before) = Call::of(query).and_then(|call| self.ahead.get(&call)) {
            fill(&mut metadata, before);
        }
        metadata
    }

    fn attempt(&mut self, now: Instant, attempt: Attempt) -> Result<(), Gone> {
        let Attempt { number, query, last, judged, .. } = attempt;
        let mut metadata = self.read(&query);
        let judged = judged || metadata.risks.is_some();
        let pause = if is_complete(&metadata) { None } else { PAUSES.get(number) };
        let news = last.as_deref() != Some(&metadata) && !is_empty(&metadata);
        metadata.is_last = pause.is_none();
        if metadata.is_last {
            self.finish(&metadata, judged);
        }
        // The end of the schedule is an answer too: the core stops waiting.
        if news || metadata.is_last {
            self.send(Answer::Metadata(metadata.clone()))?;
        }
        if let Some(&pause) = pause {
            let last = if news { Some(Box::new(metadata)) } else { last };
            self.schedule(Attempt { due: now + pause, number: number + 1, query, last, judged });
        }
        Ok(())
    }

    /// Nobody looks again after this: what could not be used so far never will be.
    fn finish(&self, metadata: &ContainerMetadata, judged: bool) {
        if metadata.spec_refused && !judged {
            self.losses.unusable_specs.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn send(&self, answer: Answer) -> Result<(), Gone> {
        self.answers.blocking_send(answer).map_err(|_| Gone)
    }

    fn look_at_watched(&mut self) -> Result<(), Gone> {
        let gone: Vec<Arc<str>> = self
            .watched
            .iter()
            .filter(|(_, query)| !self.files.exists(query))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.watched.remove(&key);
            self.send(Answer::Removed(key))?;
        }
        Ok(())
    }
}

/// One call of a runtime.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Call {
    id: Arc<str>,
    bundle: Arc<str>,
    made_unix_ns: u64,
}

impl Call {
    /// The call behind a question, if that is known: who asks for another time or another bundle asks for something else.
    fn of(query: &ContainerQuery) -> Option<Self> {
        let (bundle, made_unix_ns) = (query.bundle.clone()?, query.made_unix_ns?);
        Some(Self { id: query.id.clone(), bundle, made_unix_ns })
    }
}

/// Adds what was there when the runtime was called and is not any more.
fn fill(metadata: &mut ContainerMetadata, before: &ContainerMetadata) {
    fn take<T: Clone>(field: &mut Option<T>, before: &Option<T>) {
        if field.is_none() {
            field.clone_from(before);
        }
    }
    // A bundle that was changed since is refused: what it was made from is known all the same.
    metadata.spec_refused &= before.risks.is_none();
    take(&mut metadata.risks, &before.risks);
    take(&mut metadata.runtime, &before.runtime);
    take(&mut metadata.name, &before.name);
    take(&mut metadata.image, &before.image);
    take(&mut metadata.created, &before.created);
    take(&mut metadata.k8s, &before.k8s);
}

/// Where to look after two questions for one container: what the newer one does not know stays.
///
/// What was said of different users is never mixed, or one could have files read in the other's name; root's question
/// is the one that counts.
fn merge(older: ContainerQuery, newer: ContainerQuery) -> ContainerQuery {
    match (older.uid, newer.uid) {
        (Some(0), Some(uid)) if uid != 0 => return older,
        (Some(before), Some(uid)) if before != uid => return newer,
        _ => {}
    }
    ContainerQuery {
        key: newer.key,
        id: newer.id,
        runtime: if newer.runtime == Runtime::Unknown { older.runtime } else { newer.runtime },
        namespace: newer.namespace.or(older.namespace),
        bundle: newer.bundle.or(older.bundle),
        root: newer.root.or(older.root),
        uid: newer.uid.or(older.uid),
        made_unix_ns: newer.made_unix_ns.or(older.made_unix_ns),
    }
}

/// Whether asking again can bring more. A container of a bare OCI runtime has no name or image beside its id.
fn is_complete(metadata: &ContainerMetadata) -> bool {
    metadata.risks.is_some()
        && !metadata.awaits_ports
        && match metadata.runtime {
            None => false,
            Some(Runtime::Runc) => metadata.created.is_some(),
            Some(_) => metadata.name.is_some() && metadata.image.is_some(),
        }
}

fn is_empty(metadata: &ContainerMetadata) -> bool {
    let (key, id) = (metadata.key.clone(), metadata.id.clone());
    *metadata == ContainerMetadata { key, id, ..ContainerMetadata::default() }
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
                risks: found.then(Risks::default),
                ..ContainerMetadata::default()
            }
        }

        fn read_process(&self, _query: &ProcessQuery) -> ProcessFile {
            ProcessFile::Refused
        }

        fn read_daemon(&self, query: &DaemonQuery) -> Option<DaemonOptions> {
            query.file.is_some().then(DaemonOptions::default)
        }

        fn exists(&self, _query: &ContainerQuery) -> bool {
            self.exists
        }
    }

    fn query(id: &str) -> ContainerQuery {
        ContainerQuery {
            key: id.into(),
            id: id.into(),
            runtime: Runtime::Docker,
            namespace: None,
            bundle: None,
            root: None,
            uid: None,
            made_unix_ns: None,
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
    fn a_process_that_cannot_be_read_is_answered_and_counted() {
        let mut state = ContainerState::start(Fake::default()).unwrap();
        state.read_process(ProcessQuery { number: 7, file: "/p".into(), uid: None });
        assert_eq!(next(&mut state), Answer::Process(7, None));
        assert_eq!(state.unusable_specs(), 1);
    }

    #[test]
    fn a_daemon_is_answered_for_when_it_can_be_read() {
        let mut state = ContainerState::start(Fake::default()).unwrap();
        let process = ProcessKey { pid: 7, start_ns: 1 };
        for file in [None, Some("/d.json".into())] {
            state.read_daemon(DaemonQuery { process, file });
        }
        assert_eq!(next(&mut state), Answer::Daemon(process, DaemonOptions::default()));
        assert!(state.try_answer().is_none());
    }

    #[test]
    fn a_container_whose_spec_cannot_be_used_is_counted_once() {
        let (worker, mut answers) = worker(Fake::default());
        let refused = ContainerMetadata { spec_refused: true, ..worker.files.read(&query("abc")) };
        worker.finish(&refused, false);
        worker.finish(&refused, true);
        assert_eq!(worker.losses.unusable_specs.load(Ordering::Relaxed), 1);
        worker.finish(&ContainerMetadata { spec_refused: false, ..refused }, false);
        assert_eq!(worker.losses.unusable_specs.load(Ordering::Relaxed), 1);
        assert!(answers.try_recv().is_err());
    }

    #[test]
    fn a_forgotten_watch_stays_silent() {
        let mut state = ContainerState::start(Fake { exists: false, ..Fake::default() }).unwrap();
        state.watch(query("abc"));
        state.forget("abc".into());
        std::thread::sleep(WATCH_INTERVAL * 3);
        assert_eq!(state.try_answer(), None);
    }

    /// Answers with the bundle of the query, never completely; remembers the queries.
    #[derive(Default)]
    struct Partial(Arc<Mutex<Vec<ContainerQuery>>>);

    impl StateFiles for Partial {
        fn read(&self, query: &ContainerQuery) -> ContainerMetadata {
            self.0.lock().unwrap().push(query.clone());
            let name = query.bundle.clone();
            ContainerMetadata {
                id: query.id.clone(),
                runtime: Some(Runtime::Docker),
                name,
                ..Default::default()
            }
        }

        fn read_process(&self, _query: &ProcessQuery) -> ProcessFile {
            ProcessFile::Refused
        }

        fn read_daemon(&self, _query: &DaemonQuery) -> Option<DaemonOptions> {
            None
        }

        fn exists(&self, _query: &ContainerQuery) -> bool {
            true
        }
    }

    fn worker<F: StateFiles>(files: F) -> (Worker<F>, mpsc::Receiver<Answer>) {
        let (send, answers) = mpsc::channel(ANSWERS_MAX);
        (Worker::new(files, send, Arc::default()), answers)
    }

    #[test]
    fn questions_for_one_container_are_one_and_get_one_answer() {
        let queries = Arc::<Mutex<Vec<ContainerQuery>>>::default();
        let (mut worker, mut answers) = worker(Partial(queries.clone()));
        worker.take(Question::Read(ContainerQuery { namespace: Some("lab".into()), ..query("abc") }));
        worker.work().unwrap();
        assert!(answers.try_recv().is_ok());
        worker.take(Question::Read(query("abc")));
        worker.work().unwrap();
        assert!(answers.try_recv().is_err(), "an identical answer is useless");
        assert_eq!((worker.attempts.len(), worker.schedule.len()), (1, 1));

        let newer = ContainerQuery { bundle: Some("/b".into()), runtime: Runtime::Unknown, ..query("abc") };
        worker.take(Question::Read(newer));
        worker.work().unwrap();
        let Ok(Answer::Metadata(metadata)) = answers.try_recv() else { panic!("news expected") };
        assert_eq!(metadata.name.as_deref(), Some("/b"));
        let last = queries.lock().unwrap().last().cloned().unwrap();
        assert_eq!((last.namespace.as_deref(), last.runtime), (Some("lab"), Runtime::Docker));
    }

    /// A bundle that is there once.
    struct Once(Mutex<u32>);

    impl StateFiles for Once {
        fn read(&self, query: &ContainerQuery) -> ContainerMetadata {
            let mut reads = self.0.lock().unwrap();
            *reads += 1;
            let image = (*reads == 1).then(|| "nginx".into());
            let risks = image.is_some().then(Risks::default);
            ContainerMetadata { id: query.id.clone(), image, risks, ..Default::default() }
        }

        fn read_process(&self, _query: &ProcessQuery) -> ProcessFile {
            ProcessFile::Refused
        }

        fn read_daemon(&self, _query: &DaemonQuery) -> Option<DaemonOptions> {
            None
        }

        fn exists(&self, _query: &ContainerQuery) -> bool {
            false
        }
    }

    #[test]
    fn what_is_gone_was_read_when_the_runtime_was_called() {
        let called = |made_unix_ns| ContainerQuery {
            bundle: Some("/b".into()),
            made_unix_ns: Some(made_unix_ns),
            ..query("abc")
        };
        let (mut worker, mut answers) = worker(Once(Mutex::default()));
        worker.take(Question::ReadAhead(ContainerQuery { key: "\0".into(), ..called(1) }));
        assert!(answers.try_recv().is_err(), "nobody has asked");
        worker.take(Question::Read(called(1)));
        let Ok(Answer::Metadata(metadata)) = answers.try_recv() else { panic!("at once") };
        assert_eq!((metadata.key.as_deref(), metadata.image.as_deref()), (Some("abc"), Some("nginx")));
        assert!(metadata.risks.is_some());
        // The next one under that name was called for at another time.
        let other = ContainerQuery { key: "def".into(), ..called(2) };
        worker.take(Question::Read(other));
        assert!(answers.try_recv().is_err(), "nothing is known of it");
    }

    #[test]
    fn what_was_read_ahead_is_bounded() {
        let (mut worker, _answers) = worker(Partial::default());
        for made in 0..AHEAD_MAX as u64 + 5 {
            let bundle = Some("/b".into());
            worker.take(Question::ReadAhead(ContainerQuery {
                bundle,
                made_unix_ns: Some(made),
                ..query("x")
            }));
        }
        assert_eq!(worker.ahead.len(), AHEAD_MAX);
        worker.take(Question::ReadAhead(query("x")));
        assert_eq!(worker.ahead.len(), AHEAD_MAX, "of no bundle there is nothing to read");
    }

    #[test]
    fn questions_of_different_users_are_not_mixed() {
        let of =
            |uid, bundle: Option<&str>| ContainerQuery { uid, bundle: bundle.map(Into::into), ..query("x") };
        let user = of(Some(1000), Some("/home/ann/b"));
        assert_eq!(merge(user.clone(), of(Some(0), None)), of(Some(0), None));
        assert_eq!(merge(of(Some(0), None), user.clone()), of(Some(0), None));
        assert_eq!(merge(user.clone(), of(Some(1001), None)), of(Some(1001), None));
        assert_eq!(merge(user.clone(), of(None, None)), user);
        assert_eq!(merge(of(None, None), user.clone()), user);
    }

    #[test]
    fn watches_that_give_way_are_counted() {
        let (mut worker, _answers) = worker(Fake { exists: true, ..Fake::default() });
        for index in 0..WATCHES_MAX {
            worker.take(Question::Watch(query(&index.to_string())));
        }
        worker.take(Question::Watch(query("7")));
        assert_eq!(worker.losses.refused.load(Ordering::Relaxed), 0, "it was watched already");
        worker.take(Question::Watch(query("one more")));
        assert_eq!((worker.watched.len(), worker.losses.refused.load(Ordering::Relaxed)), (WATCHES_MAX, 1));
    }

    #[test]
    fn the_handle_shows_what_the_thread_counts() {
        let mut state = ContainerState::start(Fake { exists: true, ..Fake::default() }).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        for index in 0.. {
            state.watch(query(&index.to_string()));
            if index > WATCHES_MAX && state.refused() > 0 {
                break;
            }
            assert!(Instant::now() < deadline, "nothing was counted");
        }
    }
}
