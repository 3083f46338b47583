//! Answers about programs, read from their files by a thread of its own.
//!
//! A file is reached through the process that executes it, so that those of containers are found; a process that is gone,
//! or runs something else by now, is looked for at the path that it was executed by, which the host may have in common with
//! it, and has no answer unless the same file is there. Invariant: questions and answers are bounded, and what finds no room
//! counts as gone.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use sensor_core::engine::{ProgramAnswer, Urgency};
use sensor_core::ids::{FileKey, ProcessKey};
use sensor_core::programs::Contents;
use tokio::sync::mpsc;

use crate::lookups::Roots;
use crate::lookups::file::{self, is_component};
use crate::lookups::mounts::device_number;
use crate::lookups::program_file::{self, Clients};

/// Questions that may wait for the thread.
const QUESTIONS_MAX: usize = 1024;
/// Answers that may wait for the pipeline.
const ANSWERS_MAX: usize = 1024;
/// Most bytes of a list of mappings, and most files of it, that are looked at.
const MAPS_MAX: u64 = 256 << 10;
const MAPPED_MAX: usize = 64;
/// Clients by the names they have where nobody renames them, and where they are.
const CLIENTS: &[&str] = &["docker", "podman", "ctr", "crictl", "nerdctl", "kubectl"];
/// Types of file systems that answer without anybody's help: btrfs, erofs, exfat, ext4, f2fs, hugetlbfs, overlay, ramfs,
/// squashfs, tmpfs, vfat, xfs, zfs.
const LOCAL: &[u64] = &[
    0x9123_683e,
    0xe0f5_e1e2,
    0x2011_bab0,
    0xef53,
    0xf2f5_2010,
    0x9584_58f6,
    0x794c_7630,
    0x8584_58f6,
    0x7371_7368,
    0x0102_1994,
    0x4d44,
    0x5846_5342,
    0x2fc1_2fc1,
];
const DIRECTORIES: &[&str] = &["/usr/bin", "/usr/local/bin", "/usr/sbin", "/usr/local/sbin", "/opt/bin"];

#[derive(Debug, PartialEq, Eq)]
struct Question {
    urgency: Urgency,
    process: ProcessKey,
    contents: Contents,
    path: Option<Arc<str>>,
}

/// The handle of the thread, which ends with it.
#[derive(Debug)]
pub struct Programs {
    questions: SyncSender<Question>,
    answers: mpsc::Receiver<ProgramAnswer>,
}

impl Programs {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(roots: &Roots, tools: &[Arc<str>]) -> std::io::Result<Self> {
        let (questions, receive) = sync_channel(QUESTIONS_MAX);
        let (send, answers) = mpsc::channel(ANSWERS_MAX);
        let (roots, tools) = (roots.clone(), tools.to_vec());
        std::thread::Builder::new()
            .name("programs".into())
            .spawn(move || answer_all(&roots, &tools, &receive, &send))?;
        Ok(Self { questions, answers })
    }

    /// Asks what a process executes; returns the answer if there is no room for the question.
    pub fn ask(
        &self,
        process: ProcessKey,
        contents: Contents,
        path: Option<Arc<str>>,
        urgency: Urgency,
    ) -> Option<ProgramAnswer> {
        let refused = self.questions.try_send(Question { urgency, process, contents, path }).is_err();
        refused.then_some(ProgramAnswer::Gone { contents })
    }

    /// Waits for the next answer. Cancel safe.
    pub async fn answer(&mut self) -> Option<ProgramAnswer> {
        self.answers.recv().await
    }
}

fn answer_all(
    roots: &Roots,
    tools: &[Arc<str>],
    questions: &Receiver<Question>,
    answers: &mpsc::Sender<ProgramAnswer>,
) {
    let known = clients(roots, tools);
    let mut backlog = Backlog::default();
    while let Some(question) = backlog.next(questions) {
        if answers.blocking_send(answer(roots, &question, &known)).is_err() {
            return;
        }
    }
}

/// Questions that can wait: a process that was there before the sensor lives longer than one that was just executed.
#[derive(Default)]
struct Backlog(VecDeque<Question>);

impl Backlog {
    /// The next question to answer; `None` when nobody asks any more.
    fn next(&mut self, questions: &Receiver<Question>) -> Option<Question> {
        loop {
            let question = match questions.try_recv() {
                Ok(question) => question,
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => match self.0.pop_front() {
                    Some(question) => return Some(question),
                    None => questions.recv().ok()?,
                },
            };
            if question.urgency == Urgency::Now || self.0.len() >= QUESTIONS_MAX {
                return Some(question);
            }
            self.0.push_back(question);
        }
    }
}

/// The clients and configured tools that this host has.
fn clients(roots: &Roots, tools: &[Arc<str>]) -> Clients {
    let mut known = Clients::default();
    let names = CLIENTS.iter().map(|client| Arc::from(*client)).chain(tools.iter().cloned());
    for name in names.filter(|name| is_component(name)) {
        let places = DIRECTORIES.iter().map(|directory| roots.host_path(format!("{directory}/{name}")));
        places.filter_map(open).for_each(|file| known.learn(file, &name));
    }
    known
}

fn answer(roots: &Roots, question: &Question, known: &Clients) -> ProgramAnswer {
    let contents = question.contents;
    let running = open(roots.proc.join(format!("{}/exe", question.process.pid)));
    // All three: what somebody has executed from a file system of his own says of itself what he likes.
    let is_it = |file: &File| is_unchanged(file, &contents) && is_file(file, contents.file);
    let at_path = || open(roots.host_path(question.path.as_deref()?)).filter(is_it);
    match running.filter(|file| is_unchanged(file, &contents)).or_else(at_path) {
        Some(file) if program_file::is_loader(&file) => {
            let process = question.process;
            ProgramAnswer::Loader { contents, process, client: loaded(roots, process, known) }
        }
        Some(file) => ProgramAnswer::Read { contents, client: known.client(&file) },
        None => ProgramAnswer::Gone { contents },
    }
}

/// The client among the files that a process has mapped to execute.
fn loaded(roots: &Roots, process: ProcessKey, known: &Clients) -> Option<Arc<str>> {
    let directory = roots.proc.join(process.pid.to_string());
    let maps = file::read(&directory.join("maps"), MAPS_MAX, None).ok()?;
    let maps = String::from_utf8_lossy(&maps);
    let mut seen: Vec<(&str, u64)> = Vec::new();
    for mapping in maps.lines().filter_map(Mapping::read) {
        if seen.len() == MAPPED_MAX {
            break;
        }
        let file = (mapping.device, mapping.inode);
        if seen.contains(&file) {
            continue;
        }
        seen.push(file);
        // The first one takes a right that not everybody has, and finds files without a name, too.
        let places = [
            directory.join("map_files").join(mapping.range),
            directory.join("root").join(mapping.path.trim_start_matches('/')),
        ];
        let is_it = |file: &File| file.metadata().is_ok_and(|status| status.ino() == mapping.inode);
        let file = places.into_iter().find_map(|place| open(place).filter(is_it));
        if let Some(client) = file.and_then(|file| known.client(&file)) {
            return Some(client);
        }
    }
    None
}

/// A line of `/proc/<pid>/maps` with a file that is executed.
#[derive(Debug, PartialEq, Eq)]
struct Mapping<'a> {
    range: &'a str,
    /// As it is written there: file systems number their files by themselves.
    device: &'a str,
    inode: u64,
    path: &'a str,
}

impl<'a> Mapping<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut rest = line;
        let mut field = || {
            let (field, behind) = rest.trim_start().split_once(' ')?;
            rest = behind;
            Some(field)
        };
        let (range, rights, _offset, device) = (field()?, field()?, field()?, field()?);
        let inode = field()?.parse().ok().filter(|inode| *inode != 0)?;
        let path = rest.trim_start();
        (rights.contains('x') && path.starts_with('/')).then_some(Self { range, device, inode, path })
    }
}

/// A process that was given the same number, or has executed another program since, runs another file. File systems tell
/// programs other device numbers than the kernel has, and other inode numbers at times, but the same time of change.
fn is_unchanged(file: &File, contents: &Contents) -> bool {
    file.metadata().is_ok_and(|status| {
        let changed_ns = status.ctime().saturating_mul(1_000_000_000).saturating_add(status.ctime_nsec());
        u64::try_from(changed_ns) == Ok(contents.changed_ns)
    })
}

/// Whether a file is the one that the kernel told of. Of some file systems no file is, see [`is_unchanged`].
fn is_file(file: &File, key: FileKey) -> bool {
    file.metadata().is_ok_and(|status| {
        let device = device_number(libc::major(status.dev()), libc::minor(status.dev()));
        (device, status.ino()) == (key.device, key.inode)
    })
}

/// Opens a regular file of a local file system, without waiting for whoever is at the other end of anything else: a user may
/// mount a file system that never answers, and execute what lies there.
fn open(path: PathBuf) -> Option<File> {
    // Neither opens the file itself, so that nobody is asked.
    let place = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path).ok()?;
    let kind = rustix::fs::fstatfs(&place).ok()?.f_type;
    if !LOCAL.contains(&u64::from_ne_bytes(kind.to_ne_bytes())) || !place.metadata().ok()?.is_file() {
        return None;
    }
    let place = format!("/proc/self/fd/{}", place.as_raw_fd());
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(place).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(changed_ns: u64) -> Question {
        let contents = Contents { file: sensor_core::ids::FileKey { device: 1, inode: 1 }, changed_ns };
        let process = ProcessKey { pid: std::process::id(), start_ns: 1 };
        Question { urgency: Urgency::Now, process, contents, path: None }
    }

    #[test]
    fn the_file_of_a_process_is_read_unless_it_is_another_by_now() {
        let (roots, known) = (Roots::default(), Clients::default());
        let status = std::fs::metadata("/proc/self/exe").unwrap();
        let changed_ns = (status.ctime() * 1_000_000_000 + status.ctime_nsec()) as u64;
        let own = question(changed_ns);
        let expected = ProgramAnswer::Read { contents: own.contents, client: None };
        assert_eq!(answer(&roots, &own, &known), expected);
        let other = question(changed_ns + 1);
        assert_eq!(answer(&roots, &other, &known), ProgramAnswer::Gone { contents: other.contents });
        let gone = Question { process: ProcessKey { pid: u32::MAX, start_ns: 1 }, ..own };
        assert_eq!(answer(&roots, &gone, &known), ProgramAnswer::Gone { contents: gone.contents });
    }

    #[test]
    fn of_a_process_that_is_gone_the_file_is_looked_for_where_it_was() {
        let (roots, known) = (Roots::default(), Clients::default());
        let path = std::env::current_exe().unwrap();
        let status = std::fs::metadata(&path).unwrap();
        let changed_ns = (status.ctime() * 1_000_000_000 + status.ctime_nsec()) as u64;
        let process = ProcessKey { pid: u32::MAX, start_ns: 1 };
        let device = device_number(libc::major(status.dev()), libc::minor(status.dev()));
        let ask = |path: &std::path::Path, device: u32, inode: u64| {
            let file = FileKey { device, inode };
            let contents = Contents { file, changed_ns };
            let path = path.to_str().map(Arc::from);
            matches!(
                answer(&roots, &Question { urgency: Urgency::Now, process, contents, path }, &known),
                ProgramAnswer::Read { .. }
            )
        };
        assert!(ask(&path, device, status.ino()));
        assert!(!ask(&path, device, status.ino() + 1), "another file of the same time");
        assert!(!ask(&path, device + 1, status.ino()), "another file system");
        assert!(!ask("/nonexistent".as_ref(), device, status.ino()));
    }

    #[test]
    fn files_that_are_executed_are_found_among_mappings() {
        let line = |rights, inode, path| format!("7f00-7f10 {rights} 00001000 08:01 {inode}     {path}");
        let read = |line: &str| {
            Mapping::read(line).map(|found| (found.device.to_owned(), found.inode, found.path.to_owned()))
        };
        assert_eq!(read(&line("r-xp", 77, "/tmp/a b")), Some(("08:01".into(), 77, "/tmp/a b".into())));
        for other in [line("r--p", 77, "/tmp/x"), line("r-xp", 0, "[vdso]"), line("rwxp", 0, ""), "x".into()]
        {
            assert_eq!(read(&other), None, "{other}");
        }
        let text = line("r-xp", 7, "/x (deleted)");
        let mapping = Mapping::read(&text).unwrap();
        assert_eq!((mapping.range, mapping.path), ("7f00-7f10", "/x (deleted)"));
    }

    #[test]
    fn a_loader_is_told_by_its_file() {
        let loaders = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
        let loader = loaders.iter().find_map(|path| File::open(path).ok()).expect("a loader");
        assert!(program_file::is_loader(&loader));
        let own = File::open("/proc/self/exe").unwrap();
        assert!(!program_file::is_loader(&own), "a program has one");
    }

    #[test]
    fn what_was_just_executed_comes_first() {
        let (send, receive) = sync_channel(8);
        for (changed_ns, urgency) in [(1, Urgency::Later), (2, Urgency::Later), (3, Urgency::Now)] {
            send.send(Question { urgency, ..question(changed_ns) }).unwrap();
        }
        let mut backlog = Backlog::default();
        let mut next = || backlog.next(&receive).map(|question| question.contents.changed_ns);
        assert_eq!([next(), next()], [Some(3), Some(1)]);
        send.send(question(4)).unwrap();
        assert_eq!([next(), next()], [Some(4), Some(2)]);
        drop(send);
        assert_eq!(next(), None);
    }

    #[test]
    fn nothing_but_regular_files_is_opened() {
        for path in ["/dev/zero", "/proc", "/nonexistent"] {
            assert!(open(path.into()).is_none(), "{path}");
        }
    }

    #[tokio::test]
    async fn questions_are_answered_by_the_thread() {
        let mut programs = Programs::start(&Roots::default(), &[]).unwrap();
        let asked = question(0);
        assert_eq!(programs.ask(asked.process, asked.contents, None, Urgency::Now), None);
        assert_eq!(programs.answer().await, Some(ProgramAnswer::Gone { contents: asked.contents }));
    }
}
