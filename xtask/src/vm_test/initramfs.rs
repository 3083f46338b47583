//! The root file system of the machines: an archive that the kernel unpacks (cpio, format "newc").

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::command;

const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_777;
const CONSOLE: u32 = 0o020_600;
/// Device number of `/dev/console`.
const CONSOLE_DEVICE: [u32; 2] = [5, 1];

/// An archive under construction.
pub struct Initramfs<W> {
    to: W,
    inode: u32,
    written: BTreeSet<PathBuf>,
}

impl Initramfs<BufWriter<File>> {
    /// Begins an archive in a file.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self::new(BufWriter::new(file)))
    }
}

impl<W: Write> Initramfs<W> {
    fn new(to: W) -> Self {
        Self { to, inode: 0, written: BTreeSet::new() }
    }

    /// Adds an empty directory, and those above it.
    pub fn directory(&mut self, path: &str) -> Result<()> {
        let path = Path::new(path.trim_start_matches('/'));
        let ancestors: Vec<&Path> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
        for ancestor in ancestors.into_iter().rev() {
            if !self.written.contains(ancestor) {
                self.entry(ancestor, DIRECTORY, [0, 0], b"")?;
            }
        }
        Ok(())
    }

    /// Adds the device that the kernel opens as the first process's standard streams.
    pub fn console(&mut self) -> Result<()> {
        self.directory("dev")?;
        self.entry(Path::new("dev/console"), CONSOLE, CONSOLE_DEVICE, b"")
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        let path = self.place(path)?;
        self.entry(&path, SYMLINK, [0, 0], target.as_bytes())
    }

    /// Adds a file of this system; nothing when it is there already.
    pub fn file(&mut self, path: &str, from: &Path) -> Result<()> {
        let path = self.place(path)?;
        if self.written.contains(&path) {
            return Ok(());
        }
        let metadata = fs::metadata(from).with_context(|| format!("cannot read {}", from.display()))?;
        let contents = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.entry(&path, REGULAR | metadata.permissions().mode() & 0o777, [0, 0], &contents)
    }

    /// Adds a program and the shared libraries it is linked with, those at their places on this system.
    pub fn program(&mut self, path: &str, from: &Path) -> Result<()> {
        self.file(path, from)?;
        // Fails for a program that needs none.
        let libraries = command::output(command::program("ldd").arg(from)).unwrap_or_default();
        ensure!(!libraries.contains("not found"), "{} lacks libraries:\n{libraries}", from.display());
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            self.file(library, Path::new(library))?;
        }
        Ok(())
    }

    /// Ends the archive and returns where it was written to.
    pub fn finish(mut self) -> Result<W> {
        self.entry(Path::new("TRAILER!!!"), 0, [0, 0], b"")?;
        self.to.flush()?;
        Ok(self.to)
    }

    /// The path as the archive has it, its directory made.
    fn place(&mut self, path: &str) -> Result<PathBuf> {
        let path = PathBuf::from(path.trim_start_matches('/'));
        if let Some(parent) = path.parent().and_then(Path::to_str) {
            self.directory(parent)?;
        }
        Ok(path)
    }

    fn entry(&mut self, path: &Path, mode: u32, device: [u32; 2], contents: &[u8]) -> Result<()> {
        self.inode += 1;
        let name = path.to_str().context("a path is not text")?;
        let size = u32::try_from(contents.len()).context("a file is too large")?;
        // inode, mode, uid, gid, links, modification time, size, device of the file system (2), device (2), length of the
        // name with its NUL, checksum (of another format)
        let [major, minor] = device;
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name.len() as u32 + 1, 0];
        let mut header = String::from("070701");
        for field in fields {
            header += &format!("{field:08X}");
        }
        header += name;
        header.push('\0');
        self.padded(header.as_bytes())?;
        self.padded(contents)?;
        self.written.insert(path.to_owned());
        Ok(())
    }

    /// Writes bytes and NULs up to a multiple of four.
    fn padded(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes)?;
        self.to.write_all(&[0; 3][..bytes.len().next_multiple_of(4) - bytes.len()])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_padded_and_directories_come_first_and_once() {
        let mut archive = Initramfs::new(Vec::new());
        archive.symlink("/a/b/link", "target").expect("written");
        archive.directory("a/c").expect("written");
        let bytes = archive.finish().expect("written");
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).expect("only text in it");
        let names: Vec<&str> = text
            .split("070701")
            .skip(1)
            .map(|entry| entry[104..].split('\0').next().expect("a name"))
            .collect();
        assert_eq!(names, ["a", "a/b", "a/b/link", "a/c", "TRAILER!!!"]);
        // The symbolic link: mode, size and the length of its name, then the name, a NUL, padding, the target.
        let link = text.split("070701").nth(3).expect("the third entry");
        assert_eq!((&link[8..16], &link[48..56], &link[88..96]), ("0000A1FF", "00000006", "00000009"));
        assert!(link[104..].starts_with("a/b/link\0"), "{link}");
        assert!(link.trim_end_matches('\0').ends_with("target"), "{link}");
    }
}
