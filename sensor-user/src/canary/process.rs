//! A program that does nothing: our own, told to end at once, so that the host need not have one for it.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// First argument of the program that does nothing; the second is the token that tells it from others.
pub(super) const ARGUMENT: &str = "canary";

/// It ends in milliseconds; one that somebody holds up would hold up every canary after it.
const LIMIT: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(1);

/// Executes it and waits for its end; kills it when that takes too long.
///
/// # Errors
/// When it cannot be started, or had to be killed.
pub(super) fn execute(program: &Path, token: &str) -> io::Result<()> {
    let mut command = Command::new(program);
    command.arg0("quaywatch").args([ARGUMENT, token]).env_clear().current_dir("/");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let status = wait(&mut child, LIMIT)?;
    // Whatever its end: it was executed, which is all it is for.
    tracing::trace!(%status, "the canary has ended");
    Ok(())
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not end and was killed"));
        }
        thread::sleep(STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_does_not_end_is_killed_and_reaped() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let error = wait(&mut child, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let status = child.try_wait().unwrap().expect("it is reaped");
        assert!(!status.success());
    }

    #[test]
    fn a_child_that_ends_is_not_waited_for_any_longer() {
        let mut child = Command::new("true").spawn().unwrap();
        assert!(wait(&mut child, LIMIT).unwrap().success());
    }
}
