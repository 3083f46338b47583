//! Loads the configuration again when it was changed, and when somebody asks for it.
//!
//! A thread of its own: the disk that it is on may not answer, and the loop must not wait for that.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::path_watch::PathWatch;
use crate::config::{ConfigFile, Invalid, Loaded};

/// How long what was written may take to be followed by more: editors rename, write and remove in a row.
const SETTLE: Duration = Duration::from_millis(50);
/// Distance between two looks where changes are not told.
const LOOK_INTERVAL: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// Outcomes that wait to be taken; until then nothing further is loaded.
const WAITING_MAX: usize = 4;

/// What came of a look: another configuration, or why there is none.
pub type Outcome = Result<Box<Loaded>, Invalid>;

/// Asks for the configuration to be loaded, whether it has changed or not.
#[derive(Clone, Debug)]
pub struct Asker(Arc<OwnedFd>);

impl Asker {
    /// Asks.
    pub fn ask(&self) {
        // It fails only when it has been asked 2^64 times before.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

/// The receiving end; dropping it ends the thread with its next outcome.
#[derive(Debug)]
pub struct ConfigWatch {
    outcomes: mpsc::Receiver<Outcome>,
    asker: Asker,
}

impl ConfigWatch {
    /// Starts the thread. `path` is where the configuration is, if that can change, `in_effect` what it was, and `load` loads
    /// it.
    ///
    /// # Errors
    /// When the system has no thread or event counter for us.
    pub fn start(
        path: Option<PathBuf>,
        in_effect: ConfigFile,
        load: impl Fn() -> Result<Loaded, Invalid> + Send + 'static,
    ) -> io::Result<Self> {
        let asked = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let asker = Asker(Arc::clone(&asked));
        let (sender, outcomes) = mpsc::channel(WAITING_MAX);
        let looker = Looker { load, known: in_effect, refused: None, sender };
        thread::Builder::new().name("configuration".to_owned()).spawn(move || run(looker, path, &asked))?;
        Ok(Self { outcomes, asker })
    }

    /// For whoever is told to reload.
    #[must_use]
    pub fn asker(&self) -> Asker {
        self.asker.clone()
    }

    /// Waits for an outcome that is news; for ever, once the thread has gone.
    pub async fn next(&mut self) -> Outcome {
        match self.outcomes.recv().await {
            Some(outcome) => outcome,
            None => std::future::pending().await,
        }
    }
}

/// Tells news from what is known.
struct Looker<L> {
    load: L,
    /// What was valid last.
    known: ConfigFile,
    /// What has been wrong since.
    refused: Option<Invalid>,
    sender: mpsc::Sender<Outcome>,
}

impl<L: Fn() -> Result<Loaded, Invalid>> Looker<L> {
    /// Loads, and tells what is news, or everything if `asked`. Returns whether anybody listens.
    fn look(&mut self, asked: bool) -> bool {
        let outcome = (self.load)();
        let is_news = match &outcome {
            Ok(loaded) => self.refused.take().is_some() || loaded.file != self.known,
            Err(invalid) => self.refused.as_ref() != Some(invalid),
        };
        match &outcome {
            Ok(loaded) => self.known.clone_from(&loaded.file),
            Err(invalid) => self.refused = Some(invalid.clone()),
        }
        if is_news || asked {
            return self.sender.blocking_send(outcome.map(Box::new)).is_ok();
        }
        !self.sender.is_closed()
    }
}

fn run(mut looker: Looker<impl Fn() -> Result<Loaded, Invalid>>, path: Option<PathBuf>, asked: &OwnedFd) {
    let Some(path) = path else {
        while wait(None, false, asked) && looker.look(true) {}
        return;
    };
    let mut watch = PathWatch::new(&path);
    let mut told = None;
    let mut is_asked = false;
    loop {
        let aimed = match &mut watch {
            Ok(watch) => watch.aim(),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        let problem = aimed.err().map(|error| error.to_string());
        if problem != told {
            let path = path.display();
            match &problem {
                Some(problem) => {
                    warn!(%path, problem, "the configuration is not watched; it is looked at every 5 s instead");
                }
                None => info!(%path, "the configuration is watched"),
            }
            told.clone_from(&problem);
        }
        if !looker.look(is_asked) {
            return;
        }
        is_asked = wait(watch.as_ref().ok(), problem.is_some(), asked);
    }
}

/// Waits until there is a reason to look; returns whether somebody has asked.
fn wait(watch: Option<&PathWatch>, is_blind: bool, asked: &OwnedFd) -> bool {
    loop {
        let mut sources = vec![PollFd::new(asked, PollFlags::IN)];
        sources.extend(watch.map(|watch| PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)));
        // An interruption is as good as nothing that has happened.
        let ready = poll(&mut sources, is_blind.then_some(&LOOK_INTERVAL)).unwrap_or(0);
        let mut count = [0_u8; 8];
        let mut is_asked = rustix::io::read(asked, &mut count).is_ok();
        let mut has_changed = watch.is_some_and(PathWatch::has_changed);
        if has_changed {
            thread::sleep(SETTLE);
            is_asked |= rustix::io::read(asked, &mut count).is_ok();
            has_changed |= watch.is_some_and(PathWatch::has_changed);
        }
        if is_asked || has_changed || (is_blind && ready == 0) {
            return is_asked;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use super::*;
    use crate::config::{self, Overrides};

    struct Watched {
        directory: tempfile::TempDir,
        watch: ConfigWatch,
    }

    impl Watched {
        fn new(text: &str) -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("q.yaml");
            fs::write(&path, text).expect("written");
            let load = move |path: &Path| config::load(Some(path), std::iter::empty(), &Overrides::default());
            let before = load(&path).expect("valid");
            let again = path.clone();
            let watch = ConfigWatch::start(Some(path), before.file, move || load(&again)).expect("a thread");
            Self { directory, watch }
        }

        fn write(&self, text: &str) {
            // As a careful editor does it.
            let (new, path) = (self.directory.path().join("new"), self.directory.path().join("q.yaml"));
            fs::write(&new, text).expect("written");
            fs::rename(new, path).expect("renamed");
        }

        fn next(&mut self) -> Outcome {
            let until = Instant::now() + Duration::from_secs(20);
            while Instant::now() < until {
                if let Ok(outcome) = self.watch.outcomes.try_recv() {
                    return outcome;
                }
                thread::sleep(Duration::from_millis(1));
            }
            panic!("no outcome");
        }
    }

    #[test]
    fn changes_are_told_once_and_what_only_looks_different_is_not() {
        let mut watched = Watched::new("node: {name: a}\n");
        watched.write("# the same\nnode: {name: a}\n");
        watched.write("node: {name: b}\n");
        let loaded = watched.next().expect("valid");
        assert_eq!(loaded.file.node.name.as_deref(), Some("b"));
        watched.write("node: {nam: b}\n");
        let invalid = watched.next().expect_err("a wrong key");
        assert!(invalid.to_string().contains("q.yaml:1:8: error: unknown key"), "{invalid}");
        watched.write("node: {name: b}\n");
        assert!(watched.next().is_ok(), "that it is valid again is news");
        fs::remove_file(watched.directory.path().join("q.yaml")).expect("removed");
        assert!(watched.next().expect_err("nothing there").to_string().contains("cannot be read"));
    }

    #[test]
    fn whoever_asks_is_answered_whether_anything_has_changed_or_not() {
        let mut watched = Watched::new("node: {name: a}\n");
        for _ in 0..2 {
            watched.watch.asker().ask();
            assert_eq!(watched.next().expect("valid").file.node.name.as_deref(), Some("a"));
        }
    }

    #[test]
    fn what_was_piped_in_is_read_once_and_whoever_asks_is_told() {
        let loads = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&loads);
        let load = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Err(config::read_once(Path::new("/dev/fd/63")))
        };
        let directory = tempfile::tempdir().expect("a directory");
        let watch = ConfigWatch::start(None, ConfigFile::default(), load).expect("a thread");
        let mut watched = Watched { directory, watch };
        watched.watch.asker().ask();
        let refused = watched.next().expect_err("it is not read again").to_string();
        assert!(refused.contains("/dev/fd/63") && refused.contains("restart the sensor"), "{refused}");
        assert_eq!(loads.load(Ordering::SeqCst), 1, "nobody looked before");
    }

    #[test]
    fn a_directory_that_is_made_later_is_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("etc/q.yaml");
        let load = {
            let path = path.clone();
            move || match path.exists() {
                true => config::load(Some(&path), std::iter::empty(), &Overrides::default()),
                false => config::load_bytes(&path, b"", std::iter::empty(), &Overrides::default()),
            }
        };
        let before = load().expect("valid").file;
        let watch = ConfigWatch::start(Some(path.clone()), before, load).expect("a thread");
        let mut watched = Watched { directory, watch };
        fs::create_dir(path.parent().expect("a directory")).expect("made");
        fs::write(&path, "node: {name: late}\n").expect("written");
        assert_eq!(watched.next().expect("valid").file.node.name.as_deref(), Some("late"));
    }
}
