//! A file of lines that others may move away.
//!
//! Rotation is the operator's: when the path no longer leads to the open file, or when asked to, it is opened anew. A disk
//! that is full costs the lines that do not fit, counted, and leaves no half of one behind.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tracing::{error, info};

use super::stdout::write_all;
use super::{Out, Put};

/// Readable by a log shipper in the same group.
const MODE: u32 = 0o640;

/// Asks every file that has it to be opened anew, as SIGHUP does.
#[derive(Clone, Debug, Default)]
pub struct Reopen(Arc<AtomicU32>);

impl Reopen {
    /// Asks.
    pub fn ask(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn asked(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The file.
#[derive(Debug)]
pub struct LineFile {
    path: PathBuf,
    open: Option<Open>,
    reopen: Reopen,
    /// Lines lost since the last one that was written.
    lost: u64,
}

#[derive(Debug)]
struct Open {
    file: File,
    device: u64,
    inode: u64,
    asked: u32,
    /// It does not end with a whole line.
    torn: bool,
}

impl LineFile {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// When it is no regular file or cannot be written.
    pub fn open(path: PathBuf, reopen: Reopen) -> io::Result<Self> {
        let mut file = Self { path, open: None, reopen, lost: 0 };
        file.ensure_open()?;
        Ok(file)
    }

    /// Opens the file unless it is open and still what the path leads to.
    fn ensure_open(&mut self) -> io::Result<&mut Open> {
        let asked = self.reopen.asked();
        let present = self.open.take_if(|open| {
            let there = fs::metadata(&self.path);
            open.asked == asked
                && there.is_ok_and(|there| (there.dev(), there.ino()) == (open.device, open.inode))
        });
        let open = match present {
            Some(open) => open,
            None => self.open_anew(asked)?,
        };
        Ok(self.open.insert(open))
    }

    fn open_anew(&mut self, asked: u32) -> io::Result<Open> {
        // A pipe without a reader would keep us otherwise.
        let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
        let mut options = OpenOptions::new();
        let file =
            options.read(true).append(true).create(true).mode(MODE).custom_flags(flags).open(&self.path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut last = [b'\n'];
        if let Some(at) = metadata.len().checked_sub(1) {
            file.read_exact_at(&mut last, at)?;
        }
        let torn = last != [b'\n'];
        Ok(Open { file, device: metadata.dev(), inode: metadata.ino(), asked, torn })
    }

    fn write(&mut self, chunk: &[u8]) -> Result<(), (usize, io::Error)> {
        self.ensure_open().map_err(|error| (0, error))?.append(chunk)
    }
}

impl Open {
    /// Appends whole lines. What does not fit is taken back to the last whole one; returns how many bytes stay.
    fn append(&mut self, chunk: &[u8]) -> Result<(), (usize, io::Error)> {
        let nothing = |error| (0, error);
        if self.torn {
            // Whatever was cut off there is its own line, and spoils no other.
            let (_, ended) = write_all(&mut self.file, b"\n");
            ended.map_err(nothing)?;
            self.torn = false;
        }
        let before = self.file.metadata().map_err(nothing)?.len();
        let (written, result) = write_all(&mut self.file, chunk);
        let Err(error) = result else { return Ok(()) };
        let whole = chunk[..written].iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        if whole < written {
            self.torn = self.file.set_len(before + whole as u64).is_err();
        }
        Err((whole, error))
    }
}

impl Out for LineFile {
    fn put(&mut self, chunk: &[u8]) -> Put {
        let count = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let written = match self.write(chunk) {
            Ok(()) => {
                if self.lost > 0 {
                    info!(path = %self.path.display(), lost = self.lost, "the output file is written again");
                    self.lost = 0;
                }
                chunk.len()
            }
            Err((written, error)) => {
                if self.lost == 0 {
                    error!(path = %self.path.display(), %error, "the output file cannot be written; lines are lost");
                }
                self.lost += count(&chunk[written..]);
                written
            }
        };
        Put { written, end: None }
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_file(directory: &tempfile::TempDir) -> (PathBuf, LineFile, Reopen) {
        let (path, reopen) = (directory.path().join("out.ndjson"), Reopen::default());
        let file = LineFile::open(path.clone(), reopen.clone()).unwrap();
        (path, file, reopen)
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (path, mut file, reopen) = line_file(&directory);
        let moved = directory.path().join("out.1");
        file.put(b"one\n");
        fs::rename(&path, &moved).unwrap();
        file.put(b"two\n");
        fs::remove_file(&path).unwrap();
        file.put(b"three\n");
        reopen.ask();
        file.put(b"four\n");
        assert_eq!(fs::read(&moved).unwrap(), b"one\n");
        assert_eq!(fs::read(&path).unwrap(), b"three\nfour\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_costs_lines_until_it_can() {
        let directory = tempfile::tempdir().unwrap();
        let (path, mut file, _) = line_file(&directory);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let put = file.put(b"lost\n");
        assert_eq!((put.written, put.end.is_none(), file.lost), (0, true, 1));
        fs::remove_dir(&path).unwrap();
        assert_eq!(file.put(b"kept\n").written, 5);
        assert_eq!((fs::read(&path).unwrap(), file.lost), (b"kept\n".to_vec(), 0));
    }

    #[test]
    fn a_line_that_a_crash_has_cut_spoils_no_other() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("out.ndjson"), "{\"cut").unwrap();
        let (path, mut file, _) = line_file(&directory);
        file.put(b"{}\n");
        assert_eq!(fs::read(path).unwrap(), b"{\"cut\n{}\n");
    }

    #[test]
    fn pipes_and_devices_are_refused() {
        for path in ["/dev/null", "/dev"] {
            assert!(LineFile::open(path.into(), Reopen::default()).is_err(), "{path}");
        }
    }
}
