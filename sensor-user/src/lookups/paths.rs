//! Where a path of the host leads, links resolved, without waiting for a file system that does not answer.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sensor_core::risks::normal;

use super::Roots;
use super::file;
use super::mounts::{MOUNTINFO_MAX, Mount};

/// File systems whose look-ups wait for nobody but this machine.
const LOCAL: &[&str] = &[
    "btrfs", "devtmpfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "overlay", "proc", "ramfs",
    "squashfs", "sysfs", "tmpfs", "vfat", "xfs", "zfs",
];
/// What other names of a place are called, where links cannot be read.
const ALIASES: &[(&str, &str)] = &[("/var/run", "/run"), ("/var/lock", "/run/lock")];

/// The place on the host that a path leads to; the path itself, in normal form, where that cannot be found out.
///
/// `/proc/<pid>/root` is the host's root whichever process of the host it is of. With `may_wait` the look-up may read
/// from a local disk; without, it is content with what the kernel remembers, or with the text.
#[must_use]
pub fn resolve(roots: &Roots, path: &str, may_wait: bool) -> Arc<str> {
    let asked = without_process_root(&normal(path));
    let place = open(roots, &asked, may_wait).ok().and_then(|file| name_of(roots, &file));
    without_process_root(&place.unwrap_or_else(|| without_alias(&asked))).into()
}

/// Device and inode of what a path of the host leads to, under the same conditions; of the procfs of this process for
/// what lies in `/proc`.
#[must_use]
pub fn identity(roots: &Roots, path: &str, may_wait: bool) -> Option<(u64, u64)> {
    let path = normal(path);
    // Links of procfs lead elsewhere than their text says, and never wait.
    if let Some(below) = path.strip_prefix("/proc/") {
        return fs::metadata(roots.proc.join(below)).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    }
    let file = open(roots, &path, may_wait).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

fn open(roots: &Roots, path: &str, may_wait: bool) -> Result<OwnedFd, Errno> {
    match look_up(roots, path, ResolveFlags::CACHED) {
        Err(Errno::AGAIN | Errno::INVAL) if may_wait && is_local(roots, path) => {
            look_up(roots, path, ResolveFlags::empty())
        }
        other => other,
    }
}

fn look_up(roots: &Roots, path: &str, how: ResolveFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open(&roots.host, flags | OFlags::DIRECTORY, Mode::empty())?;
    rustix::fs::openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | how)
}

/// The path of an open file from the host's root.
fn name_of(roots: &Roots, file: &OwnedFd) -> Option<String> {
    let link = roots.proc.join("self/fd").join(file.as_raw_fd().to_string());
    let name = fs::read_link(link).ok()?;
    let below = name.strip_prefix(&roots.host).ok()?.to_str()?;
    // The kernel says so of what was removed since.
    (!below.ends_with(" (deleted)")).then(|| normal(below))
}

/// Whether the file system of a path, as far as the text tells, is one of this machine.
fn is_local(roots: &Roots, path: &str) -> bool {
    let Ok(mountinfo) = file::read(&roots.proc.join("self/mountinfo"), MOUNTINFO_MAX, None) else {
        return false;
    };
    let mountinfo = String::from_utf8_lossy(&mountinfo);
    let place = roots.host_path(path);
    let mounts = mountinfo.lines().filter_map(Mount::parse);
    let around = mounts.filter(|mount| place.starts_with(Path::new(&mount.mount_point)));
    around.max_by_key(|mount| mount.mount_point.len()).is_some_and(|mount| LOCAL.contains(&mount.kind))
}

/// `/proc/<pid>/root/x` is `/x`, and so is `/proc/<pid>/task/<tid>/root/x`.
fn without_process_root(path: &str) -> String {
    let mut path = path.to_owned();
    loop {
        let mut names = path.split('/').skip(1);
        if names.next() != Some("proc") || names.next().is_none() {
            return path;
        }
        let mut name = names.next();
        if name == Some("task") {
            name = names.nth(1);
        }
        if name != Some("root") {
            return path;
        }
        path = format!("/{}", names.collect::<Vec<_>>().join("/"));
    }
}

fn without_alias(path: &str) -> String {
    let alias = ALIASES.iter().find_map(|(alias, place)| {
        let rest = path.strip_prefix(alias)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| format!("{place}{rest}"))
    });
    alias.unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn text_is_brought_into_normal_form() {
        let roots = Roots { host: "/nonexistent".into(), proc: "/nonexistent".into() };
        for (path, expected) in [
            ("/", "/"),
            ("//", "/"),
            ("/.", "/"),
            ("/./etc//kubernetes/", "/etc/kubernetes"),
            ("/etc/../../root", "/root"),
            ("/proc/1/root", "/"),
            ("/proc/1/root/etc", "/etc"),
            ("/proc/self/root/", "/"),
            ("/proc/7/task/8/root/root", "/root"),
            ("/proc/1/root/proc/1/root/etc", "/etc"),
            ("/proc/1/cwd", "/proc/1/cwd"),
            ("/var/run/docker.sock", "/run/docker.sock"),
            ("/var/running", "/var/running"),
        ] {
            assert_eq!(&*resolve(&roots, path, true), expected, "{path}");
        }
    }

    #[test]
    fn links_are_followed_within_the_host() {
        let directory = tempfile::tempdir().unwrap();
        // Its own links may lead through links, as in a temporary directory that is one.
        let host = directory.path().canonicalize().unwrap();
        let roots = Roots { host: host.clone(), proc: "/proc".into() };
        for path in ["etc/kubernetes", "run", "srv"] {
            fs::create_dir_all(host.join(path)).unwrap();
        }
        symlink("/etc", host.join("srv/absolute")).unwrap();
        symlink("../etc/kubernetes", host.join("srv/relative")).unwrap();
        symlink("../../../../..", host.join("srv/climbing")).unwrap();
        symlink("loop", host.join("srv/loop")).unwrap();
        for (path, expected) in [
            ("/srv/absolute", "/etc"),
            ("/srv/absolute/kubernetes", "/etc/kubernetes"),
            ("/srv/relative", "/etc/kubernetes"),
            ("/srv/climbing", "/"),
            ("/srv/climbing/run", "/run"),
            ("/srv/loop", "/srv/loop"),
            ("/srv/nothing", "/srv/nothing"),
        ] {
            assert_eq!(&*resolve(&roots, path, true), expected, "{path}");
        }
    }
}
