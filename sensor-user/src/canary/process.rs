//! A program that does nothing: our own, told to end at once, so that the host need not have one for it.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// First argument of the program that does nothing; the second is the token that tells it from others.
pub(super) const ARGUMENT: &str = "canary";

/// Executes it and waits for its end.
pub(super) fn execute(program: &Path, token: &str) -> io::Result<()> {
    let mut command = Command::new(program);
    command.arg0("quaywatch").args([ARGUMENT, token]).env_clear().current_dir("/");
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    // Whatever its end: it was executed, which is all it is for.
    tracing::trace!(%status, "the canary has ended");
    Ok(())
}
