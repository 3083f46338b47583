//! Reading files that others write, some of them hostile.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::marker::PhantomData;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::de::{DeserializeOwned, DeserializeSeed};

use super::json::Bounded;

/// Most bytes of a runtime's state file. It is decoded as it is read and only what is wanted is kept, so that labels,
/// which anybody may set, can fill most of it without hiding the container or costing memory.
pub const STATE_FILE_MAX: u64 = 64 << 20;
/// Files whose excess was reported; beyond that many, a report may be repeated.
const REPORTED_MAX: usize = 1024;
/// How much later a file may have been changed than what it describes was made: what the boot clock drifts from the wall
/// clock between two samples of both.
const CHANGE_GRACE: Duration = Duration::from_millis(1);
/// Least time between two reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there.
    #[error("{} does not exist", .0.display())]
    Absent(PathBuf),
    /// It is a directory, link, socket, pipe or device.
    #[error("{} is not a regular file", .0.display())]
    NotRegular(PathBuf),
    /// It is longer than anything honest.
    #[error("{} has more than {} bytes", path.display(), limit)]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The bound.
        limit: u64,
    },
    /// It belongs to another user than the one whose state it should hold.
    #[error("{} belongs to user {owner}, expected {expected}", path.display())]
    WrongOwner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user in question.
        expected: u32,
    },
    /// It was changed later than what it should describe was made.
    #[error("{} was changed since", .0.display())]
    Changed(PathBuf),
    /// It could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It is not the JSON expected.
    #[error("cannot understand {}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
}

impl FileError {
    /// Whether the file is just not there (yet, or any more).
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent(_))
    }
}

/// Reads a regular file of at most `limit` bytes; its last component may not be a symbolic link.
///
/// With `owner` the file must belong to that user: somebody who can point a path at another user's file gains nothing.
///
/// # Errors
/// Whatever keeps the content from being exactly that.
pub fn read(path: &Path, limit: u64, owner: Option<u32>) -> Result<Vec<u8>, FileError> {
    let file = open_regular(path, owner)?;
    let expected = file.metadata().map_or(0, |metadata| metadata.len().min(limit));
    // The length is no promise: the writer may still be at work. One byte more than the limit tells.
    let mut content = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
    file.take(limit + 1)
        .read_to_end(&mut content)
        .map_err(|source| FileError::Io { path: path.into(), source })?;
    if content.len() as u64 > limit {
        return Err(FileError::TooLong { path: path.into(), limit });
    }
    Ok(content)
}

/// Opens a regular file for reading, under the conditions of [`read`].
///
/// # Errors
/// When it is absent, something else than a regular file, or another user's.
pub fn open_regular(path: &Path, owner: Option<u32>) -> Result<File, FileError> {
    let file = open(path)?;
    let metadata = file.metadata().map_err(|source| FileError::Io { path: path.into(), source })?;
    if !metadata.is_file() {
        return Err(FileError::NotRegular(path.into()));
    }
    if let Some(expected) = owner.filter(|expected| metadata.uid() != *expected) {
        return Err(FileError::WrongOwner { path: path.into(), owner: metadata.uid(), expected });
    }
    Ok(file)
}

/// Reads a state file and decodes it.
///
/// A file beyond [`STATE_FILE_MAX`] is also reported in the log, once, since whatever it describes stays without it.
///
/// # Errors
/// As [`read`], and when it is not the JSON of a `T`.
pub fn read_json<T: DeserializeOwned>(path: &Path, owner: Option<u32>) -> Result<T, FileError> {
    read_json_with(path, owner, PhantomData)
}

/// As [`read_json`], of a file that describes something made at this time (nanoseconds since 1970): whatever has been done
/// to it since, it is not what that was made from.
///
/// The time of the last change counts, which no program can set. The kernel takes it from a clock that steps with the timer
/// and is up to 10 ms behind, so a change within that time does not show.
///
/// # Errors
/// As [`read_json`], and when it was changed later.
pub fn read_json_older<T: DeserializeOwned>(
    path: &Path,
    owner: Option<u32>,
    made_unix_ns: Option<u64>,
) -> Result<T, FileError> {
    let file = open_regular(path, owner)?;
    let value = reported(decode(path, &file, STATE_FILE_MAX, PhantomData))?;
    // Asked after reading: what was changed meanwhile shows, too.
    let changed_ns = file.metadata().ok().and_then(|status| {
        let seconds = u64::try_from(status.ctime()).ok()?;
        seconds.checked_mul(1_000_000_000)?.checked_add(u64::try_from(status.ctime_nsec()).ok()?)
    });
    let latest = made_unix_ns.map(|made| made.saturating_add(CHANGE_GRACE.as_nanos() as u64));
    match (changed_ns, latest) {
        (Some(changed), Some(latest)) if changed > latest => Err(FileError::Changed(path.into())),
        _ => Ok(value),
    }
}

/// Reads a state file and decodes what `seed` wants of it.
///
/// # Errors
/// As [`read_json`].
pub fn read_json_with<S, T>(path: &Path, owner: Option<u32>, seed: S) -> Result<T, FileError>
where
    S: for<'de> DeserializeSeed<'de, Value = T>,
{
    let file = open_regular(path, owner)?;
    reported(decode(path, &file, STATE_FILE_MAX, seed))
}

/// Says in the log of a file that is too long.
fn reported<T>(result: Result<T, FileError>) -> Result<T, FileError> {
    static REPORTS: LazyLock<Mutex<Reports>> = LazyLock::new(Mutex::default);
    if let Err(FileError::TooLong { path, limit }) = &result {
        let mut reports = REPORTS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(suppressed) = reports.due(path, Instant::now()) {
            tracing::warn!(path = %path.display(), limit, suppressed, "state file is too long and is not read");
        }
    }
    result
}

fn decode<S, T>(path: &Path, file: &File, limit: u64, seed: S) -> Result<T, FileError>
where
    S: for<'de> DeserializeSeed<'de, Value = T>,
{
    let too_long = || FileError::TooLong { path: path.into(), limit };
    if file.metadata().is_ok_and(|metadata| metadata.len() > limit) {
        return Err(too_long());
    }
    // The length is no promise: the writer may still be at work. One byte more than the limit tells.
    let mut reader = BufReader::new(Bounded::new(file.take(limit + 1)));
    let mut deserializer = serde_json::Deserializer::from_reader(&mut reader);
    let result = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    result.map_err(|source| match reader.get_ref().get_ref().limit() {
        0 => too_long(),
        _ => FileError::Json { path: path.into(), source },
    })
}

/// Which files were reported, so that a report comes once per file and seldom overall.
#[derive(Debug, Default)]
struct Reports {
    reported: HashSet<PathBuf>,
    last: Option<Instant>,
    suppressed: u64,
}

impl Reports {
    /// Whether to report this file now; if so, how often it had to be left out since the last report.
    fn due(&mut self, path: &Path, now: Instant) -> Option<u64> {
        if self.reported.contains(path) {
            return None;
        }
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < REPORT_INTERVAL) {
            self.suppressed += 1;
            return None;
        }
        if self.reported.len() >= REPORTED_MAX {
            self.reported.clear();
        }
        self.reported.insert(path.into());
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// Names of the sub-directories of a directory, at most `limit` of them; none if it cannot be listed.
#[must_use]
pub fn subdirectories(path: &Path, limit: usize) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .take(limit)
        .collect()
}

/// Whether `name` can be one component of a path, and no other place than that.
#[must_use]
pub fn is_component(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && !name.contains(['/', '\0'])
}

fn open(path: &Path) -> Result<File, FileError> {
    // NONBLOCK: opening a pipe must not wait for a writer. NOFOLLOW: the last step is what was asked for.
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY;
    fs::OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|source| {
        match (source.kind(), source.raw_os_error()) {
            (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, _) => FileError::Absent(path.into()),
            // A symbolic link, or a socket.
            (_, Some(libc::ELOOP | libc::ENXIO)) => FileError::NotRegular(path.into()),
            _ => FileError::Io { path: path.into(), source },
        }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_regular_files_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("file"), "{}").unwrap();
        symlink(at("file"), at("link")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();

        assert_eq!(read(&at("file"), 10, None).unwrap(), b"{}");
        for name in ["link", "socket", "pipe", "."] {
            let result = read(&at(name), 10, None);
            assert!(matches!(result, Err(FileError::NotRegular(_))), "{name}: {result:?}");
        }
        assert!(read(&at("nothing"), 10, None).unwrap_err().is_absent());
        assert!(read(&at("file/below"), 10, None).unwrap_err().is_absent());
    }

    #[test]
    fn length_and_owner_are_bounds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        fs::write(&path, "12345678").unwrap();
        assert!(read(&path, 8, None).is_ok());
        assert!(matches!(read(&path, 7, None), Err(FileError::TooLong { limit: 7, .. })));
        let owner = fs::metadata(&path).unwrap().uid();
        assert!(read(&path, 8, Some(owner)).is_ok());
        assert!(matches!(read(&path, 8, Some(owner + 1)), Err(FileError::WrongOwner { .. })));
    }

    #[test]
    fn hostile_json_is_an_error_value() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        let nested = "[".repeat(100_000);
        for text in ["", "{", "[]", "{\"ID\":7}", "\u{0}", "nul", nested.as_str()] {
            fs::write(&path, text).unwrap();
            let result = read_json::<std::collections::BTreeMap<String, String>>(&path, None);
            assert!(matches!(result, Err(FileError::Json { .. })), "{text:.20}: {result:?}");
        }
    }

    #[test]
    fn documents_are_bounded_in_length_and_depth() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        let decode = |limit| {
            let file = open_regular(&path, None)?;
            decode(&path, &file, limit, PhantomData::<std::collections::BTreeMap<String, u8>>)
        };
        fs::write(&path, "{\"a\": 1}").unwrap();
        assert_eq!(decode(8).unwrap()["a"], 1);
        assert!(matches!(decode(7), Err(FileError::TooLong { limit: 7, .. })));
        // What is skipped must not be remembered bracket by bracket.
        fs::write(&path, "[".repeat(100_000)).unwrap();
        let skipped = read_json::<serde::de::IgnoredAny>(&path, None).unwrap_err();
        assert!(matches!(&skipped, FileError::Json { source, .. } if source.is_io()), "{skipped:?}");
    }

    #[test]
    fn what_was_changed_later_is_not_what_something_was_made_from() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs::write(&path, "{}").unwrap();
        // The modification time is whatever a program says.
        File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        let status = fs::metadata(&path).unwrap();
        let changed_ns = (status.ctime() * 1_000_000_000 + status.ctime_nsec()) as u64;
        let read = |made| read_json_older::<serde::de::IgnoredAny>(&path, None, made);
        let grace = CHANGE_GRACE.as_nanos() as u64;
        assert!(read(None).is_ok());
        assert!(read(Some(changed_ns)).is_ok());
        assert!(read(Some(changed_ns - grace)).is_ok());
        assert!(matches!(read(Some(changed_ns - grace - 1)), Err(FileError::Changed(_))));
        assert!(matches!(read(Some(0)), Err(FileError::Changed(_))));
        assert!(read(Some(u64::MAX)).is_ok());
    }

    #[test]
    fn a_file_is_reported_once_and_reports_are_seldom() {
        let mut reports = Reports::default();
        let start = Instant::now();
        let [one, two] = ["/one", "/two"].map(Path::new);
        assert_eq!(reports.due(one, start), Some(0));
        assert_eq!(reports.due(two, start), None, "too soon");
        assert_eq!(reports.due(one, start + REPORT_INTERVAL), None, "known");
        assert_eq!(reports.due(two, start + REPORT_INTERVAL), Some(1));
        for index in 0..2 * REPORTED_MAX as u32 {
            let _ = reports.due(Path::new(&index.to_string()), start + REPORT_INTERVAL * (index + 2));
            assert!(reports.reported.len() <= REPORTED_MAX);
        }
    }

    #[test]
    fn components_are_names_and_nothing_else() {
        for name in ["", ".", "..", "a/b", "/", "a\0b", &"x".repeat(256)] {
            assert!(!is_component(name), "{name}");
        }
        for name in ["0123abcd", "my container", "...", "ümlaut"] {
            assert!(is_component(name), "{name}");
        }
    }
}
