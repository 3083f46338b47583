//! The mounts of this process, from `/proc/self/mountinfo`.

use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use sensor_core::ids::FileKey;

use super::Roots;
use super::file::{self, FileError};

/// Most bytes of `mountinfo` and of other lists in procfs.
pub const MOUNTINFO_MAX: u64 = 4 << 20;

/// One line of `mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount<'a> {
    /// Number of the mount.
    pub id: u64,
    /// Device of its file system as the kernel numbers it, see [`device_number`].
    pub device: u32,
    /// Path within that file system.
    pub root: &'a str,
    /// Where it is mounted.
    pub mount_point: String,
    /// Type of the file system.
    pub kind: &'a str,
    /// Options of the file system.
    pub options: &'a str,
}

impl<'a> Mount<'a> {
    /// Reads a line; `None` for one that is not as it should be.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ');
        let id = left.next()?.parse().ok()?;
        let (major, minor) = left.nth(1)?.split_once(':')?;
        let device = device_number(major.parse().ok()?, minor.parse().ok()?);
        let (root, mount_point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1)?);
        Some(Self { id, device, root, mount_point: unescape(mount_point), kind, options })
    }
}

/// The number of a device within the kernel: `MKDEV` in include/linux/kdev_t.h.
#[must_use]
pub const fn device_number(major: u32, minor: u32) -> u32 {
    major << 20 | minor & 0xf_ffff
}

/// The list of mounts of this process.
///
/// # Errors
/// When it cannot be read.
pub fn text(roots: &Roots) -> Result<String, FileError> {
    let text = file::read(&roots.proc.join("self/mountinfo"), MOUNTINFO_MAX, None)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The key of a directory; `None` when there is none. `mounts` is the list of those it may be on.
///
/// # Errors
/// When the file system does not say: no right to look, a server that does not answer.
pub fn directory_key(path: &Path, mounts: &[Mount<'_>]) -> io::Result<Option<FileKey>> {
    const S_IFDIR: u32 = 0o040_000;
    const S_IFMT: u32 = 0o170_000;
    let wanted = StatxFlags::INO | StatxFlags::TYPE | StatxFlags::from_bits_retain(libc::STATX_MNT_ID);
    let status = match statx(CWD, path, AtFlags::empty(), wanted).map_err(io::Error::from) {
        Ok(status) => status,
        Err(error) if is_absence(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    if u32::from(status.stx_mode) & S_IFMT != S_IFDIR {
        return Ok(None);
    }
    // Some file systems tell programs another device than the kernel has for them (btrfs); the list of mounts is right.
    let mount = mounts.iter().find(|mount| mount.id == status.stx_mnt_id);
    let device =
        mount.map_or_else(|| device_number(status.stx_dev_major, status.stx_dev_minor), |mount| mount.device);
    Ok(Some(FileKey { device, inode: status.stx_ino }))
}

/// Whether an error says that there is nothing at a path; any other says that nobody knows.
pub fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The kernel writes blanks and backslashes of a path as three octal digits.
fn unescape(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        plain.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_its_parts() {
        let mount = Mount::parse("51 31 0:36 /a /mnt/with\\040blank rw shared:9 - tmpfs none rw,size=4k");
        let expected = Mount {
            id: 51,
            device: 36,
            root: "/a",
            mount_point: "/mnt/with blank".to_owned(),
            kind: "tmpfs",
            options: "rw,size=4k",
        };
        assert_eq!(mount, Some(expected));
        assert_eq!(
            Mount::parse("1 2 8:17 / / rw - ext4 /dev/sdb1 rw").map(|mount| mount.device),
            Some(8 << 20 | 17)
        );
    }

    #[test]
    fn nonsense_is_no_mount() {
        for text in ["", " - ", "1 2 3 / /x - tmpfs", "a b c:d e f - tmpfs x rw", "1 2 0:1 - tmpfs x rw"] {
            assert_eq!(Mount::parse(text), None, "{text}");
        }
        assert_eq!(unescape("\\"), "\\");
        assert_eq!(unescape("\\777x"), "\\777x");
    }
}
