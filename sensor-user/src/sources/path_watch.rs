//! Tells when a path leads to something else than before: the file was written anew, renamed over, or a link on the way to
//! it was swapped, as kubelets do for ConfigMaps.
//!
//! Watches directories, not the file: whoever replaces a file leaves a watch on the old one behind. Changes that the kernel of
//! this host does not make itself, as on a network file system, are not told.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// Most links on the way, as the kernel has it.
const LINKS_MAX: usize = 40;
/// Room for some events with the longest names.
const BUFFER_BYTES: usize = 4096;

/// The watch.
#[derive(Debug)]
pub(super) struct PathWatch {
    inotify: OwnedFd,
    path: PathBuf,
    /// By directory: what is looked at in it.
    names: BTreeMap<i32, (PathBuf, Vec<OsString>)>,
}

impl PathWatch {
    /// A watch that sees nothing before [`Self::aim`].
    ///
    /// # Errors
    /// When the path has no absolute form, or the system has no inotify instance for us.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { inotify, path: std::path::absolute(path)?, names: BTreeMap::new() })
    }

    /// Follows the path as it is now and watches every place on it that decides where it leads. Each is watched before it is
    /// looked at, so that no change falls in between.
    ///
    /// # Errors
    /// When a directory on the way is not there or cannot be watched; what comes before it is watched.
    pub(super) fn aim(&mut self) -> io::Result<()> {
        let before = std::mem::take(&mut self.names);
        let result = self.follow();
        for wd in before.keys().filter(|wd| !self.names.contains_key(wd)) {
            // A directory that is gone has taken its watch along.
            let _ = inotify::remove_watch(&self.inotify, *wd);
        }
        result
    }

    fn follow(&mut self) -> io::Result<()> {
        let mut rest = steps(&self.path);
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            let here = at.join(&name);
            let is_link = fs::symlink_metadata(&here).is_ok_and(|file| file.is_symlink());
            if !is_link && !rest.is_empty() {
                at = here;
                continue;
            }
            self.watch(&at, &name)?;
            // Looked at again: it may have changed before it was watched.
            match fs::read_link(&here) {
                Ok(_) if links == LINKS_MAX => return Err(Errno::LOOP.into()),
                Ok(target) => {
                    links += 1;
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    rest.extend(steps(&target));
                }
                Err(_) => at = here,
            }
        }
        Ok(())
    }

    fn watch(&mut self, directory: &Path, name: &OsStr) -> io::Result<()> {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let wd = inotify::add_watch(&self.inotify, directory, flags)?;
        self.names.entry(wd).or_insert_with(|| (directory.to_owned(), Vec::new())).1.push(name.to_owned());
        Ok(())
    }

    /// Takes what has happened since. Returns whether the path may lead to something else by that.
    pub(super) fn has_changed(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut changed = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                    changed |= self.concerns(event.wd(), event.events(), name);
                }
                Err(Errno::INTR) => {}
                Err(_) => return changed,
            }
        }
    }

    fn concerns(&self, wd: i32, events: ReadFlags, name: Option<&OsStr>) -> bool {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            return true;
        }
        let Some((directory, names)) = self.names.get(&wd) else { return false };
        match name {
            // The directory itself.
            None => true,
            Some(name) if !names.iter().any(|watched| watched == name) => false,
            // A file that was just made is empty; that it was written is told when that is done.
            Some(name) if events.contains(ReadFlags::CREATE) => {
                fs::symlink_metadata(directory.join(name)).is_ok_and(|file| file.is_symlink())
            }
            Some(_) => true,
        }
    }
}

impl AsFd for PathWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// The names of a path, the last one first.
fn steps(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|step| match step {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A watch on `q.yaml` in a directory of its own, after `make` was there.
    fn watched(make: impl FnOnce(&Path)) -> (tempfile::TempDir, PathWatch) {
        let directory = tempfile::tempdir().expect("a directory");
        make(directory.path());
        let mut watch = PathWatch::new(&directory.path().join("q.yaml")).expect("inotify");
        watch.aim().expect("everything is there");
        assert!(!watch.has_changed());
        (directory, watch)
    }

    fn write(path: &Path) {
        fs::write(path, "x").expect("written");
    }

    #[test]
    fn a_file_that_is_written_or_renamed_over_is_told_and_its_neighbours_are_not() {
        let (directory, mut watch) = watched(|directory| write(&directory.join("q.yaml")));
        let (path, other) = (directory.path().join("q.yaml"), directory.path().join("q.yaml.swp"));
        write(&other);
        assert!(!watch.has_changed(), "another file");
        write(&path);
        assert!(watch.has_changed());
        fs::rename(&other, &path).expect("renamed");
        assert!(watch.has_changed());
        watch.aim().expect("still there");
        fs::remove_file(&path).expect("removed");
        assert!(watch.has_changed());
        let made = fs::File::create(&path).expect("made");
        assert!(!watch.has_changed(), "nothing is written yet");
        drop(made);
        assert!(watch.has_changed());
    }

    #[test]
    fn the_swap_of_a_link_on_the_way_is_told() {
        // As a ConfigMap is mounted: q.yaml -> ..data/q.yaml, ..data -> ..1, and then a rename over ..data.
        let (directory, mut watch) = watched(|directory| {
            fs::create_dir(directory.join("..1")).expect("a directory");
            write(&directory.join("..1/q.yaml"));
            symlink("..1", directory.join("..data")).expect("a link");
            symlink("..data/q.yaml", directory.join("q.yaml")).expect("a link");
        });
        let directory = directory.path();
        for number in 2..5 {
            let next = directory.join(format!("..{number}"));
            fs::create_dir(&next).expect("a directory");
            write(&next.join("q.yaml"));
            symlink(next.file_name().expect("a name"), directory.join("..data_tmp")).expect("a link");
            assert!(!watch.has_changed(), "not in place yet");
            fs::rename(directory.join("..data_tmp"), directory.join("..data")).expect("renamed");
            fs::remove_dir_all(directory.join(format!("..{}", number - 1))).expect("removed");
            assert!(watch.has_changed());
            watch.aim().expect("everything is there");
            assert_eq!(watch.names.len(), 2, "watches do not grow");
            watch.has_changed();
        }
    }

    #[test]
    fn what_cannot_be_followed_is_an_error_and_no_endless_way() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut missing = PathWatch::new(&directory.path().join("no/q.yaml")).expect("inotify");
        assert_eq!(missing.aim().expect_err("nothing there").kind(), io::ErrorKind::NotFound);
        let path = directory.path().join("q.yaml");
        symlink("q.yaml", &path).expect("a link");
        let mut endless = PathWatch::new(&path).expect("inotify");
        assert_eq!(endless.aim().expect_err("a circle").raw_os_error(), Some(Errno::LOOP.raw_os_error()));
    }
}
