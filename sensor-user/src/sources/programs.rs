//! Answers about programs, read from their files by a thread of its own.
//!
//! A file is reached through the process that executes it, so that those of containers are found; a process that is gone,
//! or runs something else by now, has no answer. Invariant: questions and answers are bounded, and what finds no room
//! counts as gone.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sensor_core::engine::ProgramAnswer;
use sensor_core::ids::ProcessKey;
use sensor_core::programs::Contents;
use tokio::sync::mpsc;

use crate::lookups::Roots;
use crate::lookups::program_file::{self, BuildIds};

/// Questions that may wait for the thread.
const QUESTIONS_MAX: usize = 1024;
/// Answers that may wait for the pipeline.
const ANSWERS_MAX: usize = 1024;
/// Clients by the names they have where nobody renames them, and where they are.
const CLIENTS: &[&str] = &["docker", "podman", "ctr", "crictl", "nerdctl", "kubectl"];
const DIRECTORIES: &[&str] = &["/usr/bin", "/usr/local/bin", "/usr/sbin", "/usr/local/sbin", "/opt/bin"];

struct Question {
    process: ProcessKey,
    contents: Contents,
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
    pub fn start(roots: &Roots) -> std::io::Result<Self> {
        let (questions, receive) = sync_channel(QUESTIONS_MAX);
        let (send, answers) = mpsc::channel(ANSWERS_MAX);
        let roots = roots.clone();
        std::thread::Builder::new()
            .name("programs".into())
            .spawn(move || answer_all(&roots, &receive, &send))?;
        Ok(Self { questions, answers })
    }

    /// Asks what a process executes; returns the answer if there is no room for the question.
    pub fn ask(&self, process: ProcessKey, contents: Contents) -> Option<ProgramAnswer> {
        let refused = self.questions.try_send(Question { process, contents }).is_err();
        refused.then_some(ProgramAnswer::Gone { contents })
    }

    /// Waits for the next answer. Cancel safe.
    pub async fn answer(&mut self) -> Option<ProgramAnswer> {
        self.answers.recv().await
    }
}

fn answer_all(roots: &Roots, questions: &Receiver<Question>, answers: &mpsc::Sender<ProgramAnswer>) {
    let known = build_ids(roots);
    for question in questions {
        if answers.blocking_send(answer(roots, &question, &known)).is_err() {
            return;
        }
    }
}

/// Build ids of the clients that this host has.
fn build_ids(roots: &Roots) -> BuildIds {
    let places = DIRECTORIES.iter().flat_map(|directory| {
        CLIENTS.iter().map(move |client| (roots.host_path(format!("{directory}/{client}")), *client))
    });
    places.filter_map(|(path, client)| Some((program_file::build_id(&open(path)?)?, client.into()))).collect()
}

fn answer(roots: &Roots, question: &Question, known: &BuildIds) -> ProgramAnswer {
    let contents = question.contents;
    let file = open(roots.proc.join(format!("{}/exe", question.process.pid)));
    match file.filter(|file| is_unchanged(file, &contents)) {
        Some(file) => ProgramAnswer::Read { contents, client: program_file::client(&file, known) },
        None => ProgramAnswer::Gone { contents },
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

/// Opens a regular file, without waiting for whoever is at the other end of anything else.
fn open(path: PathBuf) -> Option<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(changed_ns: u64) -> Question {
        let contents = Contents { file: sensor_core::ids::FileKey { device: 1, inode: 1 }, changed_ns };
        Question { process: ProcessKey { pid: std::process::id(), start_ns: 1 }, contents }
    }

    #[test]
    fn the_file_of_a_process_is_read_unless_it_is_another_by_now() {
        let (roots, known) = (Roots::default(), BuildIds::new());
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
    fn nothing_but_regular_files_is_opened() {
        for path in ["/dev/zero", "/proc", "/nonexistent"] {
            assert!(open(path.into()).is_none(), "{path}");
        }
    }

    #[tokio::test]
    async fn questions_are_answered_by_the_thread() {
        let mut programs = Programs::start(&Roots::default()).unwrap();
        let asked = question(0);
        assert_eq!(programs.ask(asked.process, asked.contents), None);
        assert_eq!(programs.answer().await, Some(ProgramAnswer::Gone { contents: asked.contents }));
    }
}
