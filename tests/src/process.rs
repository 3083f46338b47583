//! Starting and stopping programs.

use std::io::Read as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// Pause between two looks at something that is awaited.
const POLL: Duration = Duration::from_millis(10);

/// Longest time one program may take; a test that hangs must not hang the run.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a program to its end and returns its standard output without the last line break.
///
/// # Errors
/// When it cannot be started, does not end in time, or ends with another status than 0; with its output.
pub fn run(command: &mut Command) -> Result<String> {
    let output = run_unchecked(command)?;
    ensure!(
        output.status.success(),
        "`{}` failed: {}\n{}{}",
        display(command),
        output.status,
        output.stdout,
        output.stderr
    );
    Ok(output.stdout.trim_end_matches('\n').to_owned())
}

/// What a program that ended left.
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs a program to its end, however it ends.
///
/// # Errors
/// When it cannot be started or does not end in time.
pub fn run_unchecked(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Process(command.spawn().with_context(|| format!("cannot start `{}`", display(command)))?);
    // A daemon may inherit the pipes and keep them open, so the reading threads are not waited for without limit.
    let stdout = reader(child.0.stdout.take());
    let stderr = reader(child.0.stderr.take());
    let status = child
        .wait(COMMAND_TIMEOUT)
        .with_context(|| format!("`{}` did not end within {COMMAND_TIMEOUT:?}", display(command)))?;
    let collect = |thread: std::sync::mpsc::Receiver<Vec<u8>>| {
        let bytes = thread.recv_timeout(Duration::from_secs(5)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok(Output { status, stdout: collect(stdout), stderr: collect(stderr) })
}

fn reader(pipe: Option<impl std::io::Read + Send + 'static>) -> std::sync::mpsc::Receiver<Vec<u8>> {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is what there is.
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = send.send(bytes);
    });
    receive
}

/// A child that is ended when it is dropped.
#[derive(Debug)]
pub struct Process(pub Child);

impl Process {
    /// Starts a program.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        Ok(Self(command.spawn().with_context(|| format!("cannot start `{}`", display(command)))?))
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal; nothing happens if it has ended already.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, signal).or_else(|error| match error {
            Errno::SRCH => Ok(()),
            error => Err(error).with_context(|| format!("cannot signal process {}", self.id())),
        })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.0.try_wait()? {
            return Ok(status);
        }
        // Nobody else waits for it, so the id is still its own. Not asked again and again: where every instruction is
        // emulated, that takes from what it is waited for.
        let ended = pidfd_open(Pid::from_child(&self.0), PidfdFlags::empty())?;
        let deadline = Instant::now() + timeout;
        loop {
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()))?;
            match poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&left)) {
                Ok(0) => bail!("process {} still runs after {timeout:?}", self.id()),
                Ok(_) => return Ok(self.0.wait()?),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Asks it to end, and makes it end when it does not.
    pub fn stop(&mut self, patience: Duration) {
        let _ = self.signal(Signal::TERM);
        if self.wait(patience).is_err() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Asks again and again until the answer is there.
///
/// # Errors
/// When it is not there in time; `what` says what was awaited.
pub fn wait_until<T>(what: &str, timeout: Duration, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("{what}: not within {timeout:?}");
        }
        std::thread::sleep(POLL);
    }
}

fn display(command: &Command) -> String {
    let arguments = command.get_args().map(|argument| format!(" {}", argument.to_string_lossy()));
    format!("{}{}", command.get_program().to_string_lossy(), arguments.collect::<String>())
}

/// Reads what a file has now; empty when it is not there.
#[must_use]
pub fn read_log(path: &std::path::Path) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = std::fs::File::open(path) {
        let _ = file.read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}
