//! Canaries: what the sensor does in order to see itself.
//!
//! A thread of its own does the acts, because each of them can be held up by the kernel, and the pipeline waits for
//! nobody. It says what it is about to do before it does it; the pipeline listens before it takes the next records, so
//! that no record of a canary is faster than its announcement. What follows from all that is decided in the core.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, io};

use sensor_core::canary::{Act, Canary, CanaryNotice};
use sensor_core::time::Timestamp;
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::lookups::cgroupfs::Hierarchies;
use crate::lookups::{Roots, clock, node};

mod cgroup;
mod connection;
mod hideaway;
mod process;

pub use connection::Loopback;
pub use hideaway::{Hideaway, Keys, key_of};

/// Notices on their way to the pipeline; a round has fewer.
const NOTICES_MAX: usize = 16;
/// How long the end of the sensor waits for a round that is under way.
const STOP_LIMIT: Duration = Duration::from_millis(200);

/// Whether this process is the canary that executes a program: it has nothing else to do.
#[must_use]
pub fn is_this_process() -> bool {
    env::args_os().nth(1).as_deref() == Some(OsStr::new(process::ARGUMENT))
}

/// The thread that does the acts, and what it has to say.
#[derive(Debug)]
pub struct Canaries {
    notices: Receiver<(Timestamp, CanaryNotice)>,
    start: Option<SyncSender<()>>,
    thread: JoinHandle<()>,
}

impl Canaries {
    /// Starts the thread, which waits to be asked for a round.
    ///
    /// # Errors
    /// When the system has no thread for us.
    pub fn start(
        roots: &Roots,
        hierarchies: &Hierarchies,
        loopback: io::Result<Loopback>,
        hideaway: Result<Hideaway, Reason>,
    ) -> io::Result<Self> {
        // Through procfs: the file may have been replaced since we were started.
        Self::start_with(roots.proc.join("self/exe"), roots, hierarchies, loopback, hideaway)
    }

    /// `program` must end at once when its first argument is [`process::ARGUMENT`].
    fn start_with(
        program: PathBuf,
        roots: &Roots,
        hierarchies: &Hierarchies,
        loopback: io::Result<Loopback>,
        hideaway: Result<Hideaway, Reason>,
    ) -> io::Result<Self> {
        let (notice, notices) = mpsc::channel(NOTICES_MAX);
        let (start, started) = sync_channel(1);
        let actor = Actor {
            program,
            roots: roots.clone(),
            hierarchies: hierarchies.clone(),
            loopback: loopback.map_err(|error| format!("no port on loopback: {error}").into()),
            hideaway,
            notice,
        };
        let thread = thread::Builder::new().name("canaries".to_owned()).spawn(move || {
            // Ends when nobody asks or nobody listens any more.
            while started.recv().is_ok() && actor.round().is_some() {}
        })?;
        Ok(Self { notices, start: Some(start), thread })
    }

    /// Asks for a round; while one is under way, for one more at most. Returns whether there is still somebody to do it.
    #[must_use]
    pub fn run(&self) -> bool {
        let asked = self.start.as_ref().map(|start| start.try_send(()));
        !matches!(asked, Some(Err(TrySendError::Disconnected(()))))
    }

    /// Waits for the next notice.
    pub async fn notice(&mut self) -> Option<(Timestamp, CanaryNotice)> {
        self.notices.recv().await
    }

    /// Takes a notice that is already there.
    pub fn try_notice(&mut self) -> Option<(Timestamp, CanaryNotice)> {
        self.notices.try_recv().ok()
    }

    /// Asks for nothing more and lets a round that is under way come to its end, within a limit.
    pub fn stop(&mut self) {
        self.start = None;
        let deadline = Instant::now() + STOP_LIMIT;
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What the thread owns.
struct Actor {
    program: PathBuf,
    roots: Roots,
    hierarchies: Hierarchies,
    loopback: Result<Loopback, Reason>,
    hideaway: Result<Hideaway, Reason>,
    notice: Sender<(Timestamp, CanaryNotice)>,
}

/// Why an act could not be done.
type Reason = Arc<str>;

impl Actor {
    /// Does every act once; `None` when nobody listens any more.
    fn round(&self) -> Option<()> {
        for act in Act::ALL {
            let done = match act {
                Act::Connection => self.connection(),
                Act::Process => self.process(),
                Act::Cgroup => self.cgroup(),
                Act::Socket => self.socket(),
                Act::File => self.file(),
            };
            if let Err(reason) = done {
                self.tell(CanaryNotice::Failed(act, reason))?;
            }
        }
        self.tell(CanaryNotice::Ended)
    }

    fn tell(&self, notice: CanaryNotice) -> Option<()> {
        self.notice.blocking_send((clock::now(), notice)).ok()
    }

    /// Says what is about to be done.
    fn announce(&self, canary: Canary) -> Result<(), Reason> {
        self.tell(CanaryNotice::Begins(canary)).ok_or_else(|| "nobody listens".into())
    }

    fn connection(&self) -> Result<(), Reason> {
        let loopback = self.loopback.as_ref().map_err(Arc::clone)?;
        let refused = |error: io::Error| Reason::from(format!("no connection to loopback: {error}"));
        let client = loopback.client().map_err(refused)?;
        self.announce(Canary::Connection(loopback.identity(&client)))?;
        loopback.connect(client).map_err(refused)
    }

    fn process(&self) -> Result<(), Reason> {
        let token = draw_name()?;
        self.announce(Canary::Process { token: token.as_str().into() })?;
        process::execute(&self.program, &token)
            .map_err(|error| format!("no program can be executed: {error}").into())
    }

    fn cgroup(&self) -> Result<(), Reason> {
        let own =
            cgroup::own(&self.roots, &self.hierarchies).ok_or("the sensor's own cgroup is not mounted")?;
        let name = format!("quaywatch-canary-{}", draw_name()?);
        self.announce(Canary::Cgroup { name: name.as_str().into() })?;
        cgroup::make_and_remove(&own, &name)
            .map_err(|error| format!("no cgroup can be made in {}: {error}", own.display()).into())
    }

    fn socket(&self) -> Result<(), Reason> {
        let hideaway = self.hideaway.as_ref().map_err(Arc::clone)?;
        self.announce(Canary::Socket { key: hideaway.keys().socket })?;
        hideaway.connect().map_err(|error| format!("no connection to a unix socket: {error}").into())
    }

    fn file(&self) -> Result<(), Reason> {
        let hideaway = self.hideaway.as_ref().map_err(Arc::clone)?;
        self.announce(Canary::File { place: hideaway.keys().place })?;
        hideaway.open().map_err(|error| format!("no file can be opened: {error}").into())
    }
}

/// Makes the socket and the file of the canaries.
///
/// # Errors
/// When that cannot be done, and why.
pub fn hide(roots: &Roots) -> Result<Hideaway, Reason> {
    Hideaway::make(roots, &draw_name()?)
        .map_err(|error| format!("no file can be made in a file system in memory: {error}").into())
}

fn draw_name() -> Result<String, Reason> {
    let token = node::draw_token().map_err(|error| format!("no random numbers: {error}"))?;
    Ok(format!("{token:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_act_is_announced_before_it_is_done_and_the_end_is_told() {
        let roots = Roots::default();
        let loopback = Loopback::reserve(&roots, &[]);
        // Not this program: a test binary takes the argument for the name of a test, of this one among others.
        let program = PathBuf::from("/bin/true");
        let hierarchies = Hierarchies::default();
        let mut canaries =
            Canaries::start_with(program, &roots, &hierarchies, loopback, hide(&roots)).unwrap();
        assert!(canaries.run());
        let mut begun = Vec::new();
        let failed = loop {
            match canaries.notices.blocking_recv().unwrap().1 {
                CanaryNotice::Begins(canary) => begun.push(canary.act()),
                CanaryNotice::Failed(Act::Cgroup, reason) => break reason,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(begun, [Act::Connection, Act::Process]);
        assert_eq!(&*failed, "the sensor's own cgroup is not mounted");
        for act in [Act::Socket, Act::File] {
            let CanaryNotice::Begins(canary) = canaries.notices.blocking_recv().unwrap().1 else {
                panic!("{act:?} is not announced");
            };
            assert_eq!(canary.act(), act);
        }
        assert_eq!(canaries.notices.blocking_recv().unwrap().1, CanaryNotice::Ended);
        canaries.stop();
        assert!(canaries.thread.is_finished());
    }
}
