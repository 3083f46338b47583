//! Opens of credential files as fanotify tells them, for kernels that take no program on that hook.
//!
//! It sees every open of a marked file system or directory, whoever opens it and under whatever name, also those that are
//! not for reading. It says which process id that was, nothing more, so the process is looked up at once. There is a
//! group of marks for each kind of place, because an event does not say which mark it is for. Needs `CAP_SYS_ADMIN`.

use std::ffi::{CStr, CString};
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use sensor_core::credentials::PlaceKind;
use sensor_core::event::{Actor, FileOpenEvent, FilePlace};
use sensor_core::ids::FileKey;
use tokio::sync::mpsc::{self, Receiver, Sender, error::TrySendError};

use crate::canary::key_of;
use crate::lookups::Roots;
use crate::lookups::clock;
use crate::lookups::credential_files::Found;
use crate::lookups::procfs::Processes;

/// Opens on their way to the pipeline; one more is lost and counted. The kernel's own queue holds 16,384.
const OPENS_MAX: usize = 4096;
/// Bytes of events read at a time.
const BUFFER: usize = 16 << 10;
/// How often the thread looks whether it is still wanted, milliseconds.
const PATIENCE_MS: i32 = 500;

/// The groups of marks.
#[derive(Debug)]
pub struct Groups(Vec<(PlaceKind, fs::File)>);

impl Groups {
    /// Makes the groups; nothing is marked yet.
    ///
    /// # Errors
    /// When the kernel has no fanotify or a right is missing.
    pub fn new() -> io::Result<Self> {
        let group = |kind| {
            let flags = libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
            let event_flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE | libc::O_NONBLOCK;
            // SAFETY: takes numbers only.
            let descriptor = unsafe { libc::fanotify_init(flags, event_flags.cast_unsigned()) };
            if descriptor < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the kernel has just made this descriptor for us.
            Ok((kind, unsafe { fs::File::from_raw_fd(descriptor) }))
        };
        PlaceKind::ALL.into_iter().map(group).collect::<Result<_, _>>().map(Self)
    }

    /// Marks a directory in every group, whatever is kept there: the sensor's own, by which it sees whether it sees.
    ///
    /// # Errors
    /// The first one.
    pub fn mark_everywhere(&self, directory: &Path) -> io::Result<()> {
        let path = CString::new(directory.as_os_str().as_bytes())?;
        self.0.iter().try_for_each(|(_, group)| mark_directory(group, &path))
    }

    /// Marks places; those that are marked already stay so, those that are gone are left out.
    ///
    /// # Errors
    /// The last one, of all places that could not be marked.
    pub fn mark(&self, places: &[Found]) -> io::Result<()> {
        let mut result = Ok(());
        for found in places {
            let Some((_, group)) = self.0.iter().find(|(kind, _)| *kind == found.place.kind) else {
                continue;
            };
            let Ok(path) = CString::new(found.path.as_os_str().as_bytes()) else { continue };
            let marked = match found.place.key.inode {
                0 => mark(group, libc::FAN_MARK_FILESYSTEM, libc::FAN_OPEN, &path),
                _ => mark_directory(group, &path),
            };
            match marked {
                Err(error) if error.kind() != io::ErrorKind::NotFound => result = Err(error),
                _ => {}
            }
        }
        result
    }
}

fn mark_directory(group: &fs::File, path: &CStr) -> io::Result<()> {
    mark(group, libc::FAN_MARK_ONLYDIR, libc::FAN_OPEN | libc::FAN_EVENT_ON_CHILD, path)
}

fn mark(group: &fs::File, flags: libc::c_uint, mask: u64, path: &CStr) -> io::Result<()> {
    let flags = libc::FAN_MARK_ADD | flags;
    // SAFETY: `path` is a string that ends with NUL.
    let marked =
        unsafe { libc::fanotify_mark(group.as_raw_fd(), flags, mask, libc::AT_FDCWD, path.as_ptr()) };
    if marked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One open.
#[derive(Debug)]
pub struct FileOpen {
    /// When it was read from the kernel, `CLOCK_BOOTTIME`, nanoseconds: shortly after it happened.
    pub boot_ns: u64,
    /// What.
    pub event: FileOpenEvent,
}

/// The receiving end; dropping it ends the thread.
#[derive(Debug)]
pub struct FileOpens {
    opens: Receiver<FileOpen>,
    lost: Arc<AtomicU64>,
    /// How often the thread has looked for events.
    rounds: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl FileOpens {
    /// Starts the thread that reads the groups. Of what the sensor itself opens it tells `own` only.
    ///
    /// # Errors
    /// When the system has no thread for us.
    pub fn start(groups: Arc<Groups>, roots: &Roots, own: Option<FileKey>) -> io::Result<Self> {
        let (sender, opens) = mpsc::channel(OPENS_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let rounds = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let reader = Reader {
            groups,
            own,
            processes: Processes::new(roots),
            roots: roots.clone(),
            sender,
            lost: Arc::clone(&lost),
            rounds: Arc::clone(&rounds),
        };
        let stopping = Arc::clone(&stop);
        thread::Builder::new().name("fanotify".to_owned()).spawn(move || reader.run(&stopping))?;
        Ok(Self { opens, lost, rounds, stop })
    }

    /// Waits for the next open; never returns once the thread is gone.
    pub async fn recv(&mut self) -> FileOpen {
        match self.opens.recv().await {
            Some(open) => open,
            None => std::future::pending().await,
        }
    }

    /// Takes an open that is already there.
    pub fn try_recv(&mut self) -> Option<FileOpen> {
        self.opens.try_recv().ok()
    }

    /// Opens that found no room since the start; one for each time the kernel's queue was full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// How often its thread has looked for events, which it does twice a second at least.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }
}

impl Drop for FileOpens {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

struct Reader {
    groups: Arc<Groups>,
    /// The sensor's own file.
    own: Option<FileKey>,
    processes: Processes,
    roots: Roots,
    sender: Sender<FileOpen>,
    lost: Arc<AtomicU64>,
    rounds: Arc<AtomicU64>,
}

impl Reader {
    fn run(&self, stop: &AtomicBool) {
        let group = |(_, group): &(PlaceKind, fs::File)| libc::pollfd {
            fd: group.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let mut polled: Vec<libc::pollfd> = self.groups.0.iter().map(group).collect();
        let mut buffer = vec![0; BUFFER];
        while !stop.load(Ordering::Acquire) {
            self.rounds.fetch_add(1, Ordering::Relaxed);
            // SAFETY: `polled` is an array of that length.
            let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, PATIENCE_MS) };
            if ready <= 0 {
                continue;
            }
            for ((kind, mut group), polled) in
                self.groups.0.iter().map(|(kind, group)| (*kind, group)).zip(&polled)
            {
                if polled.revents == 0 {
                    continue;
                }
                // A read that fails is one that finds nothing any more, or one without a descriptor left for the event.
                match group.read(&mut buffer) {
                    Ok(len) => self.take(kind, &buffer[..len]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                        tracing::debug!(%error, "an open of a credential file cannot be read");
                    }
                }
            }
        }
    }

    fn take(&self, kind: PlaceKind, bytes: &[u8]) {
        for event in events(bytes) {
            let Some(file) = event.file else {
                self.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            // The sensor's own file is nobody else's, and of what else the sensor opens nothing is told.
            let is_own = self.own.is_some() && key_of(&file).ok() == self.own;
            if event.pid == std::process::id() {
                if is_own {
                    let actor = Actor::Pid { pid: event.pid, started: None };
                    self.send(FileOpenEvent { actor, place: FilePlace::Own(kind), path: Box::default() });
                }
                continue;
            }
            if is_own {
                continue;
            }
            let actor = Actor::Pid { pid: event.pid, started: self.processes.start_ticks(event.pid) };
            let link = self.roots.proc.join(format!("self/fd/{}", file.as_fd().as_raw_fd()));
            let path = fs::read_link(link).map(|path| path.into_os_string().into_vec()).unwrap_or_default();
            self.send(FileOpenEvent { actor, place: FilePlace::Kind(kind), path: path.into() });
        }
    }

    fn send(&self, event: FileOpenEvent) {
        match self.sender.try_send(FileOpen { boot_ns: clock::now().boot_ns, event }) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// One event of the kernel; without a file its queue was full.
#[derive(Debug)]
struct RawEvent {
    pid: u32,
    file: Option<OwnedFd>,
}

/// Splits what was read; the files are ours to close.
fn events(mut bytes: &[u8]) -> impl Iterator<Item = RawEvent> {
    const LEN: usize = size_of::<libc::fanotify_event_metadata>();
    std::iter::from_fn(move || {
        let head = bytes.get(..LEN)?;
        // SAFETY: the type is plain numbers, and there are as many bytes; they need not be aligned.
        let event = unsafe { head.as_ptr().cast::<libc::fanotify_event_metadata>().read_unaligned() };
        bytes = bytes.get((event.event_len as usize).max(LEN)..).unwrap_or_default();
        let descriptor: RawFd = event.fd;
        // SAFETY: the kernel has made the descriptor for this event.
        let file = (descriptor >= 0).then(|| unsafe { OwnedFd::from_raw_fd(descriptor) });
        Some(RawEvent { pid: event.pid.cast_unsigned(), file })
    })
}
