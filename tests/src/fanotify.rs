//! The fanotify groups of a running sensor, as any other program with root's rights can reach them.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// Removes every mark from every group of a process.
///
/// # Errors
/// When it has no group, or there is no right to take them, or the kernel refuses.
pub fn remove_marks(process: u32) -> Result<()> {
    let pid = Pid::from_raw(process.cast_signed()).context("no process id")?;
    let target = pidfd_open(pid, PidfdFlags::empty()).context("opening the process")?;
    let mut groups = 0;
    for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
        let path = entry?.path();
        // One may be closed meanwhile.
        let Ok(link) = fs::read_link(&path) else { continue };
        if link.as_os_str() != "anon_inode:[fanotify]" {
            continue;
        }
        let number =
            path.file_name().and_then(|name| name.to_str()).context("a descriptor without a number")?;
        let group = pidfd_getfd(target.as_fd(), number.parse()?, PidfdGetfdFlags::empty())?;
        for kind in [0, libc::FAN_MARK_MOUNT, libc::FAN_MARK_FILESYSTEM] {
            flush(&group, kind).with_context(|| format!("removing marks of kind {kind:#x}"))?;
        }
        groups += 1;
    }
    ensure!(groups > 0, "process {process} has no group of fanotify");
    Ok(())
}

fn flush(group: &OwnedFd, kind: libc::c_uint) -> io::Result<()> {
    let flags = libc::FAN_MARK_FLUSH | kind;
    // SAFETY: without a path the kernel looks at numbers only.
    let done = unsafe { libc::fanotify_mark(group.as_raw_fd(), flags, 0, libc::AT_FDCWD, std::ptr::null()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
