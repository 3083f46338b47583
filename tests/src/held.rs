//! A thread of another process that does not get on, as one that the kernel holds up.

use std::fs;
use std::io;

use anyhow::{Context as _, Result, ensure};

/// A thread that is held until this is dropped. The other threads of its process go on. Belongs to the thread that made it.
pub struct Held(libc::pid_t);

impl Held {
    /// Holds the thread of a process that has this name.
    ///
    /// # Errors
    /// When there is none, or it cannot be held.
    pub fn thread(process: u32, name: &str) -> Result<Self> {
        let id = thread_named(process, name)?;
        request(libc::PTRACE_SEIZE, id)?;
        // From here on it is released again, whatever happens.
        let held = Self(id);
        request(libc::PTRACE_INTERRUPT, id)?;
        let mut status = 0;
        // SAFETY: `status` is ours.
        let waited = unsafe { libc::waitpid(id, &raw mut status, libc::__WALL) };
        ensure!(waited == id, "waiting for thread {id}: {}", io::Error::last_os_error());
        ensure!(libc::WIFSTOPPED(status), "thread {id} did not stop, but {status:#x}");
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Fails when the thread is gone.
        let _ = request(libc::PTRACE_DETACH, self.0);
    }
}

fn thread_named(process: u32, name: &str) -> Result<libc::pid_t> {
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let path = entry?.path();
        if fs::read_to_string(path.join("comm"))?.trim_end() == name {
            let id = path.file_name().and_then(|id| id.to_str()).context("a thread without a number")?;
            return Ok(id.parse()?);
        }
    }
    anyhow::bail!("process {process} has no thread {name}")
}

/// Makes a request of `ptrace` that takes no address and no data.
fn request(what: libc::c_uint, thread: libc::pid_t) -> Result<()> {
    const NONE: usize = 0;
    // SAFETY: neither address nor data is looked at, or they are no pointers.
    let answer = unsafe { libc::ptrace(what, thread, NONE, NONE) };
    ensure!(answer == 0, "ptrace request {what:#x} of thread {thread}: {}", io::Error::last_os_error());
    Ok(())
}
