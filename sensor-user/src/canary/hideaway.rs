//! A unix socket and a file for ourselves, watched like those of runtimes and like credentials.
//!
//! Both are made in a directory in memory and lose their names at once: what has no name can be come to by nobody but us
//! and whoever may look into our descriptors, nothing is left behind however the sensor ends, and as we hold them, nobody
//! else is given their inode numbers. In memory, because there the kernel's numbers are those that it tells programs.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, fstat, mkdir, open, openat, statfs};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};
use sensor_core::ids::FileKey;

use super::connection::say;
use crate::lookups::Roots;
use crate::lookups::mounts::device_number;

/// Where a file system in memory may be that we may write: the first one that is.
const PLACES: [&str; 3] = ["/dev/shm", "/run", "/tmp"];
/// `TMPFS_MAGIC` and `RAMFS_MAGIC`, from include/uapi/linux/magic.h.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
/// Names within the directory.
const FILE: &str = "file";
const SOCKET: &str = "socket";
/// Longest wait for a step that takes microseconds.
const STEP_LIMIT: Duration = Duration::from_secs(1);
/// Connections that wait at the socket; only we connect to it.
const BACKLOG: i32 = 16;

/// The directory, the file and the socket.
#[derive(Debug)]
pub struct Hideaway {
    /// Held for its number and for whoever comes by [`Keys::path`].
    _directory: OwnedFd,
    file: OwnedFd,
    /// The file that the socket is bound to.
    socket: OwnedFd,
    listener: OwnedFd,
    /// Our descriptors, as paths.
    descriptors: PathBuf,
    /// By which they are known.
    keys: Keys,
}

/// What tells these files from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The file that the socket is bound to.
    pub socket: FileKey,
    /// The directory of the file.
    pub place: FileKey,
    /// The file itself.
    pub file: FileKey,
    /// The directory, for whoever needs a path; holds as long as the [`Hideaway`].
    pub path: PathBuf,
}

impl Hideaway {
    /// Makes both; `name` must not have been used before.
    ///
    /// # Errors
    /// When no file system in memory can be written, or the kernel refuses.
    pub fn make(roots: &Roots, name: &str) -> io::Result<Self> {
        Self::make_below(&PLACES.map(Path::new), roots, name)
    }

    fn make_below(places: &[&Path], roots: &Roots, name: &str) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for place in places {
            let path = place.join(format!(".quaywatch-{name}"));
            match make_directory(place, &path) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    last = error;
                    continue;
                }
            }
            let made = Self::make_in(&path, roots);
            // Some of it may not have been made.
            for name in [FILE, SOCKET] {
                let _ = fs::remove_file(path.join(name));
            }
            fs::remove_dir(&path)?;
            return made;
        }
        Err(last)
    }

    fn make_in(path: &Path, roots: &Roots) -> io::Result<Self> {
        let by_path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = open(path, by_path | OFlags::DIRECTORY, Mode::empty())?;
        let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        drop(openat(&directory, FILE, create, Mode::RUSR)?);
        let file = openat(&directory, FILE, by_path, Mode::empty())?;
        let listener = unix_socket()?;
        bind(&listener, &SocketAddrUnix::new(path.join(SOCKET))?)?;
        listen(&listener, BACKLOG)?;
        let socket = openat(&directory, SOCKET, by_path, Mode::empty())?;
        let descriptors = roots.proc.join("self/fd");
        let keys = Keys {
            socket: key_of(&socket)?,
            place: key_of(&directory)?,
            file: key_of(&file)?,
            path: descriptor_path(&descriptors, directory.as_fd()),
        };
        Ok(Self { _directory: directory, file, socket, listener, descriptors, keys })
    }

    /// What tells the records of these files from all others.
    #[must_use]
    pub const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Connects to the socket, accepts and lets a byte go each way.
    ///
    /// # Errors
    /// When a step is refused or takes too long.
    pub(super) fn connect(&self) -> io::Result<()> {
        let client = unix_socket()?;
        connect(&client, &SocketAddrUnix::new(descriptor_path(&self.descriptors, self.socket.as_fd()))?)?;
        let until = Instant::now() + STEP_LIMIT;
        while Instant::now() < until {
            let accepted = accept_with(&self.listener, SocketFlags::CLOEXEC)?;
            // Root can come here through our descriptors.
            if socket_peercred(&accepted)?.pid == rustix::process::getpid() {
                say(&client, &accepted)?;
                return say(&accepted, &client);
            }
        }
        Err(io::Error::other("others connect to it"))
    }

    /// Opens the file.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn open(&self) -> io::Result<()> {
        fs::File::open(descriptor_path(&self.descriptors, self.file.as_fd())).map(drop)
    }
}

/// Makes a directory that nobody else may enter; returns whether the one above it is in memory, without which it does not.
fn make_directory(place: &Path, path: &Path) -> io::Result<bool> {
    let is_in_memory = IN_MEMORY.contains(&(statfs(place)?.f_type as u64));
    if is_in_memory {
        mkdir(path, Mode::RWXU)?;
    }
    Ok(is_in_memory)
}

fn unix_socket() -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    for step in [Timeout::Send, Timeout::Recv] {
        set_socket_timeout(&socket, step, Some(STEP_LIMIT))?;
    }
    Ok(socket)
}

/// The file behind a descriptor, as the probes name it.
pub fn key_of(file: impl AsFd) -> io::Result<FileKey> {
    let status = fstat(file)?;
    let device = device_number(libc::major(status.st_dev), libc::minor(status.st_dev));
    Ok(FileKey { device, inode: status.st_ino })
}

fn descriptor_path(descriptors: &Path, descriptor: BorrowedFd<'_>) -> PathBuf {
    descriptors.join(descriptor.as_raw_fd().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;

    use super::*;

    #[test]
    fn both_can_be_used_again_and_again_and_have_no_name() {
        let place = Path::new("/dev/shm");
        let hideaway = Hideaway::make_below(&[place], &Roots::default(), "test-of-both").unwrap();
        assert!(!place.join(".quaywatch-test-of-both").exists());
        for _ in 0..3 {
            hideaway.connect().unwrap();
            hideaway.open().unwrap();
        }
        let keys = hideaway.keys();
        assert_eq!(key_of(fs::File::open(&keys.path).unwrap()).unwrap(), keys.place);
        assert!(keys.socket != keys.file && keys.file != keys.place);
    }

    #[test]
    fn a_place_that_is_not_in_memory_or_not_there_is_passed_over() {
        let none = [Path::new("/proc"), Path::new("/nonexistent")];
        let error = Hideaway::make_below(&none, &Roots::default(), "test-of-none").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let some = [none[0], none[1], Path::new("/dev/shm")];
        Hideaway::make_below(&some, &Roots::default(), "test-of-some").unwrap();
    }

    #[test]
    fn strangers_at_the_socket_are_put_aside() {
        let hideaway =
            Hideaway::make_below(&[Path::new("/dev/shm")], &Roots::default(), "test-of-strangers").unwrap();
        let path = descriptor_path(&hideaway.descriptors, hideaway.socket.as_fd());
        let mut stranger = std::process::Command::new("true");
        // SAFETY: between fork and exec, only system calls are made.
        let stranger =
            unsafe { stranger.pre_exec(move || Ok(connect(&unix_socket()?, &SocketAddrUnix::new(&path)?)?)) };
        assert!(stranger.status().unwrap().success());
        hideaway.connect().unwrap();
    }
}
