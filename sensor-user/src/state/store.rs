//! The file in which open chains outlive the program.
//!
//! Owns what is a file of ours and what is not: whatever cannot be used is put aside and never written over. Knows numbers
//! and bytes; what they mean is the core's.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError,
    TableDefinition, TableError,
};
use rustix::fs::OFlags;
use sensor_core::state::{Change, ENTRY_MAX, STATE_VERSION};

/// Entries, by code of their table and number.
const ENTRIES: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("entries");
/// What the file says of itself.
const ABOUT: TableDefinition<'_, &str, u32> = TableDefinition::new("about");
const VERSION: &str = "version";

/// Memory for pages; the file is read once and written in small pieces after that.
const CACHE_BYTES: usize = 4 << 20;
/// What the name of a file that is put aside ends with.
const ASIDE: &str = ".unusable";

/// An entry as it was left: code of the table, number, bytes.
pub type Left = (u8, u64, Vec<u8>);

/// Why there is no file to write to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its directory is not there.
    #[error("the directory {} is not there; make it, or set state.path", .0.display())]
    NoDirectory(PathBuf),
    /// There is something else in its place.
    #[error("{} is no regular file; remove it, or set state.path", .0.display())]
    NoFile(PathBuf),
    /// Another process writes to it.
    #[error("{} is in use by another process; give every sensor a state.path of its own", .0.display())]
    InUse(PathBuf),
    /// Reading or writing failed.
    #[error("{}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The library failed in another way.
    #[error("{}", .path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
}

/// Why a file is not one of ours, or is damaged.
enum Flaw {
    Damaged(String),
    Version(u32),
    Failed(StoreError),
}

/// The open file.
#[derive(Debug)]
pub struct Store {
    database: Database,
    path: PathBuf,
    /// Bytes that the file may have.
    max: u64,
}

/// What was found when it was opened.
#[derive(Debug, Default)]
pub struct Found {
    /// The entries.
    pub left: Vec<Left>,
    /// What was wrong with a file that was put aside.
    pub put_aside: Option<String>,
}

impl Store {
    /// Opens the file, or makes it. One that cannot be used is put aside. `max`: bytes that it may have.
    ///
    /// # Errors
    /// When there can be no file at this place.
    pub fn open(path: &Path, max: u64) -> Result<(Self, Found), StoreError> {
        check_place(path)?;
        let flaw = match Self::open_as_is(path, max) {
            Ok((store, left)) => return Ok((store, Found { left, put_aside: None })),
            Err(Flaw::Failed(error)) => return Err(error),
            Err(Flaw::Version(found)) => {
                format!("it has format {found}, and this version reads {STATE_VERSION}")
            }
            Err(Flaw::Damaged(reason)) => reason,
        };
        let mut aside = path.as_os_str().to_owned();
        aside.push(ASIDE);
        fs::rename(path, &aside).map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
        let put_aside = Some(format!("{flaw}; it is {} now", Path::new(&aside).display()));
        match Self::open_as_is(path, max) {
            Ok((store, _)) => Ok((store, Found { left: Vec::new(), put_aside })),
            Err(Flaw::Failed(error)) => Err(error),
            // A new file has no flaws.
            Err(Flaw::Version(_) | Flaw::Damaged(_)) => {
                let source = io::Error::other("a file that was just made cannot be read");
                Err(StoreError::Io { path: path.to_owned(), source })
            }
        }
    }

    fn open_as_is(path: &Path, max: u64) -> Result<(Self, Vec<Left>), Flaw> {
        let io = |source| Flaw::Failed(StoreError::Io { path: path.to_owned(), source });
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
            .map_err(io)?;
        let is_new = file.metadata().map_err(io)?.len() == 0;
        let backend = FileBackend::new(file).map_err(|error| of_opening(path, error))?;
        let open = || {
            let mut builder = Builder::new();
            // What was altered behind its back may end the library otherwise.
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(!is_new);
            builder.create_with_backend(backend)
        };
        // A damaged file is no reason to go: the library is careful, and need not be perfect.
        let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(open));
        let database = match opened {
            Ok(Ok(database)) => database,
            Ok(Err(error)) => return Err(of_opening(path, error)),
            Err(_) => return Err(Flaw::Damaged("it is damaged".to_owned())),
        };
        let store = Self { database, path: path.to_owned(), max };
        if is_new {
            store.write(&[], true).map_err(Flaw::Failed)?;
            return Ok((store, Vec::new()));
        }
        let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| store.read()));
        let left = read.unwrap_or_else(|_| Err(Flaw::Damaged("it is damaged".to_owned())))?;
        Ok((store, left))
    }

    fn read(&self) -> Result<Vec<Left>, Flaw> {
        let flawed = |error: redb::Error| self.flaw_of(error);
        let transaction = self.database.begin_read().map_err(|error| flawed(error.into()))?;
        let foreign = |error: TableError| match error {
            TableError::Storage(error) => flawed(error.into()),
            _ => Flaw::Damaged("it is a database, and not of this program".to_owned()),
        };
        let about = transaction.open_table(ABOUT).map_err(foreign)?;
        let version =
            about.get(VERSION).map_err(|error| flawed(error.into()))?.map(|version| version.value());
        match version {
            Some(STATE_VERSION) => {}
            Some(other) => return Err(Flaw::Version(other)),
            None => return Err(Flaw::Damaged("it does not say of which format it is".to_owned())),
        }
        let entries = transaction.open_table(ENTRIES).map_err(foreign)?;
        let mut left = Vec::new();
        let mut bytes = 0;
        for entry in entries.iter().map_err(|error| flawed(error.into()))? {
            let (key, entry) = entry.map_err(|error| flawed(error.into()))?;
            let ((table, number), entry) = (key.value(), entry.value());
            bytes += entry.len() as u64;
            // The bound may have been smaller than the one of the run that wrote it, and the core drops what is too much.
            if entry.len() <= ENTRY_MAX && bytes <= self.max {
                left.push((table, number, entry.to_vec()));
            }
        }
        Ok(left)
    }

    /// Writes changes, all of them or none; what this has returned from outlives the machine. `anew`: nothing else is left.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, changes: &[Change], anew: bool) -> Result<(), StoreError> {
        self.try_write(changes, anew).map_err(|error| self.failure(error))
    }

    fn try_write(&self, changes: &[Change], anew: bool) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        if anew {
            transaction.delete_table(ENTRIES)?;
            transaction.open_table(ABOUT)?.insert(VERSION, STATE_VERSION)?;
        }
        {
            let mut entries = transaction.open_table(ENTRIES)?;
            for Change { table, number, entry } in changes {
                let key = (table.code(), *number);
                match entry {
                    Some(entry) => drop(entries.insert(key, entry.as_slice())?),
                    None => drop(entries.remove(key)?),
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Makes the file smaller when it has more bytes than it may. Returns whether it has few enough.
    ///
    /// # Errors
    /// When that fails.
    pub fn shrink(&mut self) -> Result<bool, StoreError> {
        if self.bytes()? <= self.max {
            return Ok(true);
        }
        self.database.compact().map_err(|error| self.failure(error.into()))?;
        Ok(self.bytes()? <= self.max)
    }

    /// Bytes that the file has.
    ///
    /// # Errors
    /// When nobody knows.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        let known = fs::metadata(&self.path);
        known.map(|known| known.len()).map_err(|source| StoreError::Io { path: self.path.clone(), source })
    }

    fn failure(&self, error: redb::Error) -> StoreError {
        let path = self.path.clone();
        match error {
            redb::Error::Io(source) => StoreError::Io { path, source },
            source => StoreError::Database { path, source: Box::new(source) },
        }
    }

    fn flaw_of(&self, error: redb::Error) -> Flaw {
        match error {
            redb::Error::Corrupted(_) => Flaw::Damaged(format!("it is damaged: {error}")),
            error => Flaw::Failed(self.failure(error)),
        }
    }
}

fn check_place(path: &Path) -> Result<(), StoreError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    if !directory.is_dir() {
        return Err(StoreError::NoDirectory(directory.to_owned()));
    }
    match fs::symlink_metadata(path) {
        // A pipe would keep whoever opens it.
        Ok(found) if !found.is_file() => Err(StoreError::NoFile(path.to_owned())),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StoreError::Io { path: path.to_owned(), source }),
    }
}

fn of_opening(path: &Path, error: DatabaseError) -> Flaw {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            Flaw::Failed(StoreError::InUse(path))
        }
        DatabaseError::UpgradeRequired(version) => {
            Flaw::Damaged(format!("its database has the old format {version}"))
        }
        DatabaseError::Storage(StorageError::Io(source)) => match source.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Flaw::Damaged(format!("it is no database: {source}"))
            }
            _ => Flaw::Failed(StoreError::Io { path, source }),
        },
        DatabaseError::Storage(StorageError::Corrupted(_)) | DatabaseError::RepairAborted => {
            Flaw::Damaged(format!("it is damaged: {error}"))
        }
        other => Flaw::Failed(StoreError::Database { path, source: Box::new(other.into()) }),
    }
}
