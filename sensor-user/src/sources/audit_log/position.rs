//! How far each log was read: kept in a small file of its own, so that a restart goes on where the last run ended.
//!
//! A position names the file by number and by what it begins with and what stands before the position: numbers are given
//! again, and a file may have been emptied and filled since.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Bytes at the beginning that tell a file from others: more than the id and time of the first event.
const HEAD_MAX: usize = 1024;
/// Bytes before the position that tell whether it still is where it was.
pub(super) const TAIL_MAX: usize = 64;
/// Most bytes of the file of positions.
const STORE_MAX: u64 = 1 << 20;
/// The form of that file.
const VERSION: u32 = 1;

/// A place in a file, between two lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Device and inode number.
    pub file: (u64, u64),
    /// Bytes before it.
    pub offset: u64,
    /// Time of the file's last change when it was read, nanoseconds since 1970.
    pub modified_ns: i128,
    /// Digest of [`Print`].
    pub print: String,
}

/// What is known of the bytes before a position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Print {
    /// The first bytes of the file.
    head: Vec<u8>,
    /// The last bytes before the position.
    pub(super) tail: Vec<u8>,
}

impl Print {
    /// Reads what stands before a position; `None` when the file is shorter.
    pub(super) fn of(file: &File, offset: u64) -> io::Result<Option<Self>> {
        let part = |max: usize| usize::try_from(offset).map_or(max, |offset| offset.min(max));
        let mut print = Self { head: vec![0; part(HEAD_MAX)], tail: vec![0; part(TAIL_MAX)] };
        let read = file
            .read_exact_at(&mut print.head, 0)
            .and_then(|()| file.read_exact_at(&mut print.tail, offset - part(TAIL_MAX) as u64));
        match read {
            Ok(()) => Ok(Some(print)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes what comes next.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        let room = HEAD_MAX - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_MAX)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_MAX));
    }

    pub(super) fn digest(&self) -> String {
        use std::fmt::Write as _;
        let digest = Sha256::new().chain_update(&self.head).chain_update(&self.tail).finalize();
        digest.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Stored {
    version: u32,
    files: BTreeMap<String, Position>,
}

/// The file of positions.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    positions: BTreeMap<String, Position>,
}

/// Why positions cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system says no.
    #[error("{} cannot be {verb}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Read or written.
        verb: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It is none of ours.
    #[error("{} is no file of positions: {problem}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl Store {
    /// Reads the file; an absent one is empty.
    ///
    /// # Errors
    /// When it is there and cannot be used.
    pub fn open(path: PathBuf) -> Result<Self, StoreError> {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::empty(path)),
            Err(source) => return Err(StoreError::Io { path, verb: "read", source }),
        };
        let mut text = Vec::new();
        if let Err(source) = file.take(STORE_MAX).read_to_end(&mut text) {
            return Err(StoreError::Io { path, verb: "read", source });
        }
        match serde_json::from_slice::<Stored>(&text) {
            Ok(Stored { version: VERSION, files }) => Ok(Self { path, positions: files }),
            Ok(Stored { version, .. }) => {
                let problem = format!("its version is {version}, this program reads {VERSION}");
                Err(StoreError::Content { path, problem })
            }
            Err(error) => Err(StoreError::Content { path, problem: error.to_string() }),
        }
    }

    /// One that knows nothing yet.
    #[must_use]
    pub const fn empty(path: PathBuf) -> Self {
        Self { path, positions: BTreeMap::new() }
    }

    /// How far a log was read.
    #[must_use]
    pub fn get(&self, log: &str) -> Option<&Position> {
        self.positions.get(log)
    }

    /// Keeps these positions, and those of logs that are not among them. A crash leaves the file as it was or as it is to be.
    ///
    /// # Errors
    /// When it cannot be written; the positions are kept for the next time.
    pub fn save(
        &mut self,
        positions: impl IntoIterator<Item = (String, Position)>,
    ) -> Result<(), StoreError> {
        self.positions.extend(positions);
        let stored = Stored { version: VERSION, files: self.positions.clone() };
        let text = serde_json::to_vec(&stored).expect("invariant: every key is a string");
        write_whole(&self.path, &text).map_err(|source| StoreError::Io {
            path: self.path.clone(),
            verb: "written",
            source,
        })
    }
}

fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let mut begun = path.as_os_str().to_owned();
    begun.push(".new");
    // A link that somebody put there is replaced, not followed.
    match fs::remove_file(&begun) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&begun)?;
    file.write_all(text)?;
    file.sync_data()?;
    fs::rename(&begun, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(offset: u64) -> Position {
        Position { file: (1, 2), offset, modified_ns: -3, print: Print::default().digest() }
    }

    #[test]
    fn positions_outlive_the_program() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("made/audit.positions");
        let mut store = Store::open(path.clone()).expect("an absent file is empty");
        store.save([("a".to_owned(), position(1)), ("b".to_owned(), position(2))]).expect("saved");
        store.save([("a".to_owned(), position(3))]).expect("saved again");
        let store = Store::open(path).expect("read");
        assert_eq!(store.get("a"), Some(&position(3)));
        assert_eq!(store.get("b"), Some(&position(2)));
        assert_eq!(store.get("c"), None);
    }

    #[test]
    fn what_is_no_file_of_positions_is_refused_with_its_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("p");
        for (content, expected) in [("", "EOF"), ("{\"version\":9,\"files\":{}}", "version is 9")] {
            fs::write(&path, content).expect("written");
            let error = Store::open(path.clone()).expect_err("it is damaged").to_string();
            assert!(error.contains(expected) && error.contains("/p is no file"), "{error}");
        }
    }

    #[test]
    fn a_print_is_the_same_whether_read_or_gathered() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let text: Vec<u8> = (0..5000_u32).flat_map(u32::to_le_bytes).collect();
        fs::write(&path, &text).expect("written");
        let file = File::open(&path).expect("it is there");
        for step in [1, 7, 100, 5000] {
            let mut gathered = Print::default();
            let mut offset = 0;
            for piece in text.chunks(step).take(200) {
                gathered.extend(piece);
                offset += piece.len() as u64;
                if offset.is_multiple_of(700) || step > 1 {
                    assert_eq!(Print::of(&file, offset).expect("read"), Some(gathered.clone()));
                }
            }
        }
        assert_eq!(Print::of(&file, text.len() as u64 + 1).expect("read"), None);
    }
}
