//! Identity of the node and of this run.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use sensor_core::ids::RunId;

use super::Roots;
use super::file::{self, FileError};

/// Most bytes of a host name or a boot id, with room to spare.
const NAME_MAX: u64 = 256;

/// Why the node's identity is not known.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The kernel's file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is empty or not text.
    #[error("{0} holds no name")]
    Empty(&'static str),
}

/// Reads the host name of the kernel.
///
/// # Errors
/// When procfs does not have it.
pub fn host_name(roots: &Roots) -> Result<Arc<str>, NodeError> {
    kernel_string(&roots.proc, "sys/kernel/hostname")
}

/// Reads the identity of the present boot.
///
/// # Errors
/// When procfs does not have it.
pub fn boot_id(roots: &Roots) -> Result<Arc<str>, NodeError> {
    kernel_string(&roots.proc, "sys/kernel/random/boot_id")
}

/// Draws the identity of a run.
///
/// # Errors
/// When the kernel's random numbers cannot be read.
pub fn draw_run_id() -> io::Result<RunId> {
    draw_token().map(|token| RunId(token >> 16))
}

/// Draws a number that nobody can guess.
///
/// # Errors
/// When the kernel's random numbers cannot be read.
pub fn draw_token() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn kernel_string(proc: &Path, name: &'static str) -> Result<Arc<str>, NodeError> {
    let content = file::read(&proc.join(name), NAME_MAX, None)?;
    let text = str::from_utf8(&content).map(str::trim).unwrap_or_default();
    if text.is_empty() { Err(NodeError::Empty(name)) } else { Ok(text.into()) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn names_are_read_from_the_injected_procfs() {
        let directory = tempfile::tempdir().unwrap();
        let roots = Roots { host: directory.path().into(), proc: directory.path().join("proc") };
        fs::create_dir_all(roots.proc.join("sys/kernel/random")).unwrap();
        fs::write(roots.proc.join("sys/kernel/hostname"), "node-a\n").unwrap();
        assert_eq!(&*host_name(&roots).unwrap(), "node-a");
        assert!(matches!(boot_id(&roots), Err(NodeError::File(error)) if error.is_absent()));
        fs::write(roots.proc.join("sys/kernel/random/boot_id"), "\n").unwrap();
        assert!(matches!(boot_id(&roots), Err(NodeError::Empty(_))));
    }

    #[test]
    fn runs_differ() {
        assert_ne!(draw_run_id().unwrap(), draw_run_id().unwrap());
    }
}
