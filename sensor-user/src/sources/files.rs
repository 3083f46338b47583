//! Looks for the sockets of runtimes and the places of credential files, again and again: daemons bind their sockets anew,
//! pods come and go.
//!
//! A thread of its own, because a home directory may be on a server that does not answer. It also keeps the marks of
//! fanotify, where that is in use.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use sensor_core::coverage::{FANOTIFY, Gap};
use sensor_core::credentials::RuntimeSocket;
use sensor_core::fact::Runtime;
use sensor_core::health::{Capability, Hook, HookState};
use sensor_core::time::Timestamp;
use tokio::sync::watch;
use tracing::warn;

use super::fanotify::{FileOpen, FileOpens, Groups};
use crate::canary::Keys;
use crate::lookups::Roots;
use crate::lookups::credential_files::{self, Found, Places};
use crate::lookups::runtime_sockets;

/// Distance between two looks. A socket that is connected to, or a credential that is read, this soon after it was made
/// may be missed.
const INTERVAL: Duration = Duration::from_millis(500);
/// Longest wait for the first look: a start must not depend on somebody's home directory.
const FIRST_MAX: Duration = Duration::from_secs(2);

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Sockets of runtimes.
    pub sockets: Vec<RuntimeSocket>,
    /// Places of credential files.
    pub places: Vec<Found>,
    /// What is missing.
    pub gaps: Vec<Gap>,
    /// Why places may be missing, where the system has said so.
    pub problem: Option<Arc<str>>,
}

/// Looks at [`FileWatch::stuck`] without a finished search in between before there is a gap; the pipeline looks twice a second.
const STUCK_AFTER: u32 = 10;
/// Opens are not read from fanotify.
const UNREAD: Gap = Gap::new(
    Capability::CredentialFiles,
    "opens are not read any more: the thread that reads them hangs or has ended",
);
/// Neither kind of file is looked for.
const STUCK: [Gap; 2] = {
    const REASON: &str = "not looked for any more: a file system does not answer, or the thread has ended; what is bound or \
                          made from now on is not watched";
    [Gap::new(Capability::RuntimeSockets, REASON), Gap::new(Capability::CredentialFiles, REASON)]
};

/// Whether a thread gets on, by the number of times it has come round. Counted in questions and not in time: whoever has
/// stopped the sensor has stopped the thread as well.
#[derive(Debug)]
struct Progress {
    before: u64,
    /// How often it was asked for since that number changed.
    asked: u32,
    /// When it was found changed.
    good: Option<Timestamp>,
}

impl Progress {
    const fn new(asked: u32) -> Self {
        Self { before: 0, asked, good: None }
    }

    /// Takes how often the thread has come round; says whether it does not get on.
    fn is_stuck(&mut self, now: Timestamp, rounds: u64) -> bool {
        if rounds == self.before {
            self.asked = self.asked.saturating_add(1);
        } else {
            (self.asked, self.good) = (0, Some(now));
        }
        self.before = rounds;
        self.asked >= STUCK_AFTER
    }

    /// What is missing since it did.
    fn date(&self, gap: Gap) -> Gap {
        Gap { since: self.good, ..gap }
    }
}

/// The files, and their opens where no program tells them.
#[derive(Debug)]
pub struct FileWatch {
    finder: FileFinder,
    /// Of the searches.
    progress: Progress,
    opens: Option<FileOpens>,
    /// Of the thread that reads the opens.
    reading: Progress,
    /// Opens that were lost by those before these.
    lost_before: u64,
    /// fanotify, as one more hook.
    hook: Hook,
    roots: Roots,
    /// The sensor's own files.
    own: Option<Keys>,
}

impl FileWatch {
    /// Starts to look for files; `configured` are further sockets. With `opens`, fanotify is to tell of opens of credential
    /// files, and of the sensor's `own`; if it cannot, [`Self::hook`] says why.
    ///
    /// # Errors
    /// When the system has no thread for us.
    pub fn start(
        roots: &Roots,
        configured: &[(Arc<str>, Runtime)],
        opens: bool,
        own: Option<Keys>,
    ) -> io::Result<Self> {
        let groups = opens.then(|| make_groups(own.as_ref()));
        let (groups, state, reason) = match groups {
            Some(Ok(groups)) => (Some(groups), HookState::Attached, None),
            Some(Err(error)) => (None, HookState::Unavailable, Some(fanotify_refusal(&error))),
            None => (None, HookState::Standby, None),
        };
        let hook = Hook { name: FANOTIFY.into(), program: FANOTIFY.into(), state, reason };
        let file = own.as_ref().map(|own| own.file);
        let opens = groups.clone().map(|groups| FileOpens::start(groups, roots, file)).transpose()?;
        let finder = FileFinder::start(roots.clone(), configured.to_vec(), groups)?;
        // Without a first search nothing is watched.
        let (progress, reading) = (Progress::new(STUCK_AFTER), Progress::new(0));
        Ok(Self { finder, progress, opens, reading, lost_before: 0, hook, roots: roots.clone(), own })
    }

    /// Marks everything anew with groups of marks that nobody else has had in hand, in place of those that do not tell what
    /// they should. Returns whether there were any; when the kernel refuses new ones, the old ones stay.
    ///
    /// # Errors
    /// When it does, or the system has no thread for us.
    pub fn renew(&mut self) -> io::Result<bool> {
        let Some(before) = &self.opens else { return Ok(false) };
        let groups = make_groups(self.own.as_ref())?;
        let file = self.own.as_ref().map(|own| own.file);
        let opens = FileOpens::start(Arc::clone(&groups), &self.roots, file)?;
        self.lost_before += before.lost();
        self.opens = Some(opens);
        self.reading = Progress::new(0);
        self.finder.mark_with(groups);
        Ok(true)
    }

    /// fanotify, as one more hook.
    #[must_use]
    pub const fn hook(&self) -> &Hook {
        &self.hook
    }

    /// Waits for the first look; `None` when it takes too long.
    pub fn first(&mut self) -> Option<Files> {
        self.finder.first()
    }

    /// What is missing because the search for files does not come to an end, or their opens are not read; to be asked twice a
    /// second.
    pub fn stuck(&mut self, now: Timestamp) -> Vec<Gap> {
        let finished = self.finder.finished.load(Ordering::Acquire);
        let mut gaps = Vec::new();
        if self.progress.is_stuck(now, finished) {
            gaps.extend(STUCK.map(|gap| self.progress.date(gap)));
        }
        if self.opens.as_ref().is_some_and(|opens| self.reading.is_stuck(now, opens.rounds())) {
            gaps.push(self.reading.date(UNREAD));
        }
        gaps
    }

    /// Waits for a change or an open.
    pub async fn next(&mut self) -> FileNews {
        let opens = async {
            match &mut self.opens {
                Some(opens) => opens.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            files = self.finder.changed() => FileNews::Files(files),
            open = opens => FileNews::Open(open),
        }
    }

    /// Takes an open that is already there.
    pub fn try_open(&mut self) -> Option<FileOpen> {
        self.opens.as_mut()?.try_recv()
    }

    /// Opens that found no room since the start.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost_before + self.opens.as_ref().map_or(0, FileOpens::lost)
    }
}

/// What [`FileWatch`] has to tell.
#[derive(Debug)]
pub enum FileNews {
    /// Files have come or gone; this is all there is now.
    Files(Files),
    /// A credential file was opened.
    Open(FileOpen),
}

fn make_groups(own: Option<&Keys>) -> io::Result<Arc<Groups>> {
    let groups = Groups::new()?;
    // Without that mark the canary does not come back, which coverage says; real opens are told all the same.
    if let Some(error) = own.and_then(|own| groups.mark_everywhere(&own.path).err()) {
        warn!(%error, "the sensor's own file is not marked: opens of credential files cannot be proved");
    }
    Ok(Arc::new(groups))
}

fn fanotify_refusal(error: &io::Error) -> Arc<str> {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "no permission to use fanotify: run as root, or with the capability SYS_ADMIN".into()
        }
        _ => format!("the kernel refuses fanotify ({error})").into(),
    }
}

/// The receiving end; dropping it ends the thread.
#[derive(Debug)]
struct FileFinder {
    found: watch::Receiver<Option<Files>>,
    /// How often it has looked for everything.
    finished: Arc<AtomicU64>,
    marks: Marks,
    stop: Arc<AtomicBool>,
    thread: Thread,
}

/// The marks to be kept, which may be exchanged.
type Marks = Arc<Mutex<Option<Arc<Groups>>>>;

impl FileFinder {
    /// Starts the thread. `configured` are further sockets; `marks` are kept as places come.
    ///
    /// # Errors
    /// When the system has no thread for us.
    fn start(
        roots: Roots,
        configured: Vec<(Arc<str>, Runtime)>,
        marks: Option<Arc<Groups>>,
    ) -> io::Result<Self> {
        let (sender, found) = watch::channel(None);
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let finished = Arc::new(AtomicU64::new(0));
        let finishing = Arc::clone(&finished);
        let marks = Arc::new(Mutex::new(marks));
        let marking = Arc::clone(&marks);
        let thread = thread::Builder::new().name("files".to_owned()).spawn(move || {
            while !stopping.load(Ordering::Acquire) {
                let marks = marking.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let files = look(&roots, &configured, marks.as_deref());
                finishing.fetch_add(1, Ordering::Release);
                sender.send_if_modified(|known| {
                    let is_new = known.as_ref() != Some(&files);
                    if is_new {
                        *known = Some(files);
                    }
                    is_new
                });
                thread::park_timeout(INTERVAL);
            }
        })?;
        Ok(Self { found, finished, marks, stop, thread: thread.thread().clone() })
    }

    /// Keeps other marks from now on, and looks for places at once.
    fn mark_with(&self, groups: Arc<Groups>) {
        *self.marks.lock().unwrap_or_else(PoisonError::into_inner) = Some(groups);
        self.thread.unpark();
    }

    /// Waits for the first look; `None` when it takes too long.
    fn first(&mut self) -> Option<Files> {
        let until = Instant::now() + FIRST_MAX;
        while Instant::now() < until {
            if self.found.has_changed().unwrap_or(false) {
                return self.found.borrow_and_update().clone();
            }
            thread::sleep(Duration::from_millis(1));
        }
        None
    }

    /// Waits until something has changed; never, once the thread is gone.
    async fn changed(&mut self) -> Files {
        loop {
            if self.found.changed().await.is_err() {
                return std::future::pending().await;
            }
            if let Some(files) = self.found.borrow_and_update().clone() {
                return files;
            }
        }
    }
}

impl Drop for FileFinder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

fn look(roots: &Roots, configured: &[(Arc<str>, Runtime)], marks: Option<&Groups>) -> Files {
    let sockets = runtime_sockets::find(roots, configured);
    let (places, mut problem) = match credential_files::find(roots) {
        Ok(places) => (places, None),
        Err(error) => (Places::default(), Some(error.to_string())),
    };
    // Anew each time: a file system that has gone takes its mark along, and the next one may get its number.
    if let Some(error) = marks.and_then(|marks| marks.mark(&places.found).err()) {
        problem = Some(error.to_string());
    }
    let gaps = [
        (
            sockets.cut,
            Capability::RuntimeSockets,
            "there are more sockets of runtimes, or users, than are watched",
        ),
        (
            places.cut,
            Capability::CredentialFiles,
            "there are more places of credential files than are watched",
        ),
        (
            sockets.unreadable,
            Capability::RuntimeSockets,
            "some places of runtimes' sockets cannot be looked at: no right, or an error of the file system",
        ),
        (
            places.unreadable,
            Capability::CredentialFiles,
            "some places of credential files cannot be looked at: no right, or an error of the file system",
        ),
        (problem.is_some(), Capability::CredentialFiles, "some places of credential files cannot be watched"),
    ];
    let missing = gaps.into_iter().filter(|(is_missing, ..)| *is_missing);
    let gaps = missing.map(|(_, capability, reason)| Gap::new(capability, reason)).collect();
    Files { sockets: sockets.found, places: places.found, gaps, problem: problem.map(Arc::from) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::lookups::clock;

    #[test]
    fn a_thread_that_does_not_come_round_is_stuck_until_it_does() {
        let at = |boot_ns| Timestamp { boot_ns, ..Timestamp::default() };
        let mut progress = Progress::new(0);
        for rounds in 1..100 {
            assert!(!progress.is_stuck(at(rounds), rounds));
        }
        let asked = (1..=STUCK_AFTER).find(|asked| progress.is_stuck(at(99 + u64::from(*asked)), 99));
        assert_eq!(asked, Some(STUCK_AFTER));
        assert!(progress.is_stuck(at(200), 99));
        assert_eq!(
            progress.date(UNREAD).since,
            Some(at(99)),
            "since it got on last, not since that was noticed"
        );
        assert!(!progress.is_stuck(at(201), 100));
    }

    #[test]
    fn a_search_that_does_not_end_is_missed() {
        let directory = tempfile::tempdir().expect("a directory");
        let roots = Roots { host: directory.path().into(), ..Roots::default() };
        let mut files = FileWatch::start(&roots, &[], false, None).expect("a thread");
        assert!(files.first().is_some(), "in time");
        let before = clock::now();
        assert_eq!(files.stuck(before), []);
        files.finder.stop.store(true, Ordering::Release);
        // One search may still have been under way.
        let asked = (0..2 * STUCK_AFTER + 2).find(|_| !files.stuck(clock::now()).is_empty());
        assert!(asked >= Some(STUCK_AFTER - 1), "{asked:?}");
        let stuck = files.stuck(clock::now());
        assert!(stuck.iter().all(|gap| gap.since >= Some(before)), "{stuck:?}");
        assert_eq!(stuck.iter().map(|gap| gap.reason).collect::<Vec<_>>(), STUCK.map(|gap| gap.reason));
    }

    #[test]
    fn a_socket_that_is_bound_anew_is_found_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("run/docker.sock");
        std::fs::create_dir(directory.path().join("run")).expect("a directory");
        let first = UnixListener::bind(&path).expect("a socket");
        let roots = Roots { host: directory.path().into(), ..Roots::default() };
        let mut finder = FileFinder::start(roots, Vec::new(), None).expect("a thread");
        let before = finder.first().expect("in time").sockets;
        assert_eq!(before.len(), 1);
        // While the first file is there its number is not given to another.
        std::fs::rename(&path, path.with_extension("old")).expect("renamed");
        let second = UnixListener::bind(&path).expect("a socket");
        let after = finder.first().expect("in time").sockets;
        assert_ne!(after.first().map(|socket| socket.key), Some(before[0].key));
        drop((first, second));
    }
}
