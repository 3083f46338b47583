//! The files that a log was rotated into: which they are, and in which order they were written.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Most entries of a directory that are looked at.
const ENTRIES_MAX: usize = 10_000;

/// A file that belongs to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sibling {
    pub(super) path: PathBuf,
    /// Device and inode number.
    pub(super) id: (u64, u64),
    pub(super) len: u64,
    pub(super) modified_ns: i128,
    /// It is what the log is called, so that it is written now.
    pub(super) is_log: bool,
    /// It was packed since.
    pub(super) is_packed: bool,
}

impl Sibling {
    /// The order in which they were written.
    pub(super) fn order(&self) -> (bool, i128, &Path) {
        (self.is_log, self.modified_ns, &self.path)
    }
}

pub(super) fn id_of(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

pub(super) fn modified_ns(metadata: &Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

/// Opens a file for reading; what is none, as a pipe, is refused and does not hang.
pub(super) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err(io::Error::other("it is no file")) }
}

/// The log itself, if it is there, and what it was rotated into, the oldest first.
pub(super) fn find(log: &Path) -> io::Result<Vec<Sibling>> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)?.take(ENTRIES_MAX) {
        let entry = entry?;
        let Ok(other) = entry.file_name().into_string() else { continue };
        let Some(is_packed) = rotated(name, &other) else { continue };
        let is_log = other == name;
        let path = directory.join(&other);
        // The log may be a link; what it was rotated into is none.
        let metadata = if is_log { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
        // It may have gone meanwhile.
        let Ok(metadata) = metadata else { continue };
        if metadata.is_file() {
            let (id, len, modified_ns) = (id_of(&metadata), metadata.len(), modified_ns(&metadata));
            found.push(Sibling { path, id, len, modified_ns, is_log, is_packed });
        }
    }
    found.sort_by(|one, other| one.order().cmp(&other.order()));
    Ok(found)
}

/// Whether `other` is the log `name` or was made of it, and whether it is packed. `audit-2026-11-23T11-00-00.000.log` is
/// what the API server makes of `audit.log`, `audit.log.1` and `audit.log-20261123` what logrotate makes.
fn rotated(name: &str, other: &str) -> Option<bool> {
    if other == name {
        return Some(false);
    }
    let (other, is_packed) = other.strip_suffix(".gz").map_or((other, false), |plain| (plain, true));
    let (stem, end) = name.rfind('.').map_or((name, ""), |dot| name.split_at(dot));
    let between = |begin: &str, end: &str| {
        let middle = other.strip_prefix(begin)?.strip_suffix(end)?;
        let mut bytes = middle.bytes();
        let is_stamp = bytes.next()?.is_ascii_digit()
            && bytes.all(|byte| byte.is_ascii_digit() || b"T.-:+Z".contains(&byte));
        is_stamp.then_some(is_packed)
    };
    between(&format!("{stem}-"), end)
        .or_else(|| between(&format!("{name}."), ""))
        .or_else(|| between(&format!("{name}-"), ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_log_was_rotated_into_are_told_from_others() {
        for (other, expected) in [
            ("audit.log", Some(false)),
            ("audit-2026-11-23T11-00-00.000.log", Some(false)),
            ("audit-2026-11-23T11-00-00.000.log.gz", Some(true)),
            ("audit.log.1", Some(false)),
            ("audit.log.12.gz", Some(true)),
            ("audit.log-20261123", Some(false)),
            ("audit.log.bak", None),
            ("audit-policy.log", None),
            ("audit.log.", None),
            ("audit.log.gz", None),
            ("xaudit.log.1", None),
            ("audit", None),
        ] {
            assert_eq!(rotated("audit.log", other), expected, "{other}");
        }
        assert_eq!(rotated("audit", "audit-1"), Some(false));
    }

    #[test]
    fn the_log_itself_comes_last() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["a.log", "a.log.1", "a.log.2", "b.log"] {
            fs::write(directory.path().join(name), name).expect("written");
        }
        let found = find(&directory.path().join("a.log")).expect("it can be listed");
        assert_eq!(found.len(), 3);
        assert!(found[2].is_log && !found[0].is_log, "{found:?}");
    }
}
