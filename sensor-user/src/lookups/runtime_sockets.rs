//! The unix sockets of runtimes: where they are, and which file each is bound to.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sensor_common::settings::RUNTIME_SOCKETS_MAX;
use sensor_core::credentials::RuntimeSocket;
use sensor_core::fact::Runtime;
use sensor_core::ids::FileKey;

use super::Roots;
use super::mounts::{device_number, is_absence};

/// Where runtimes listen by default.
const PATHS: &[(&str, Runtime)] = &[
    ("/run/docker.sock", Runtime::Docker),
    ("/run/containerd/containerd.sock", Runtime::Containerd),
    ("/run/docker/containerd/containerd.sock", Runtime::Containerd),
    ("/run/k3s/containerd/containerd.sock", Runtime::Containerd),
    ("/run/crio/crio.sock", Runtime::Crio),
    ("/run/podman/podman.sock", Runtime::Podman),
];
/// Where those of other users than root listen, below the runtime directory of the user.
const USER_PATHS: &[(&str, Runtime)] =
    &[("docker.sock", Runtime::Docker), ("podman/podman.sock", Runtime::Podman)];
/// Runtime directories of users.
const USERS: &str = "/run/user";
/// Most users that are looked at.
const USERS_MAX: usize = 100;

/// The sockets that are there, at most [`RUNTIME_SOCKETS_MAX`].
#[derive(Debug, Default)]
pub struct Sockets {
    /// The sockets.
    pub found: Vec<RuntimeSocket>,
    /// There are more, or more users than are looked at.
    pub cut: bool,
    /// Whether some are there is not known: no right to look, or an error of the file system.
    pub unreadable: bool,
}

/// Finds the sockets that are there now: the built-in ones and those that the configuration names. One that is bound to
/// the same file as another is listed once.
#[must_use]
pub fn find(roots: &Roots, configured: &[(Arc<str>, Runtime)]) -> Sockets {
    let mut sockets = Sockets::default();
    let mut add = |path: &Path, service: Runtime| {
        let socket = match look_at(roots, path, service) {
            Ok(Some(socket)) => socket,
            Ok(None) => return,
            Err(error) => {
                sockets.unreadable |= !is_absence(&error);
                return;
            }
        };
        if sockets.found.iter().any(|known| known.key == socket.key) {
            return;
        }
        if sockets.found.len() < RUNTIME_SOCKETS_MAX as usize {
            sockets.found.push(socket);
        } else {
            sockets.cut = true;
        }
    };
    for (path, service) in configured {
        add(Path::new(&**path), *service);
    }
    for (path, service) in PATHS {
        add(Path::new(path), *service);
    }
    let mut unreadable = false;
    let users = fs::read_dir(roots.host_path(USERS));
    unreadable |= users.as_ref().is_err_and(|error| !is_absence(error));
    let mut users = users.into_iter().flatten();
    for user in users.by_ref().take(USERS_MAX) {
        let Ok(user) = user else {
            unreadable = true;
            continue;
        };
        let directory = PathBuf::from(USERS).join(user.file_name());
        for (path, service) in USER_PATHS {
            add(&directory.join(path), *service);
        }
    }
    sockets.cut |= users.next().is_some();
    sockets.unreadable |= unreadable;
    sockets
}

fn look_at(roots: &Roots, path: &Path, service: Runtime) -> io::Result<Option<RuntimeSocket>> {
    let metadata = fs::metadata(roots.host_path(path))?;
    if !metadata.file_type().is_socket() {
        return Ok(None);
    }
    let device = device_number(libc::major(metadata.dev()), libc::minor(metadata.dev()));
    let key = FileKey { device, inode: metadata.ino() };
    let path = Arc::from(&*path.to_string_lossy());
    Ok(Some(RuntimeSocket { key, path, service, is_roots: metadata.uid() == 0 }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn sockets_are_found_by_name_and_nothing_else_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let roots = Roots { host: directory.path().into(), ..Roots::default() };
        for path in ["run/user/1000/podman", "run/containerd", "srv"] {
            fs::create_dir_all(directory.path().join(path)).expect("a directory");
        }
        fs::write(directory.path().join("run/docker.sock"), "no socket").expect("a file");
        let bind = |path| UnixListener::bind(directory.path().join(path)).expect("a socket");
        let _sockets =
            ["run/containerd/containerd.sock", "run/user/1000/podman/podman.sock", "srv/d.sock"].map(bind);
        let configured =
            [(Arc::from("/srv/d.sock"), Runtime::Docker), (Arc::from("/srv/none"), Runtime::Docker)];
        let Sockets { found, cut, unreadable } = find(&roots, &configured);
        assert!(!cut && !unreadable);
        let names: Vec<_> = found.iter().map(|socket| (&*socket.path, socket.service)).collect();
        assert_eq!(
            names,
            [
                ("/srv/d.sock", Runtime::Docker),
                ("/run/containerd/containerd.sock", Runtime::Containerd),
                ("/run/user/1000/podman/podman.sock", Runtime::Podman),
            ]
        );
        let inode = fs::metadata(directory.path().join("srv/d.sock")).expect("it is there").ino();
        assert_eq!(found[0].key.inode, inode);
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_taken_for_absent() {
        let directory = tempfile::tempdir().expect("a directory");
        let roots = Roots { host: directory.path().into(), ..Roots::default() };
        fs::create_dir_all(directory.path().join("run")).expect("a directory");
        assert!(!find(&roots, &[]).unreadable, "nothing is there");
        // A link to itself: an error for everybody, whatever his rights.
        std::os::unix::fs::symlink("docker.sock", directory.path().join("run/docker.sock")).expect("a link");
        assert!(find(&roots, &[]).unreadable);
        fs::remove_file(directory.path().join("run/docker.sock")).expect("removed");
        std::os::unix::fs::symlink("user", directory.path().join("run/user")).expect("a link");
        assert!(find(&roots, &[]).unreadable);
    }

    #[test]
    fn two_names_of_one_socket_are_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let roots = Roots { host: directory.path().into(), ..Roots::default() };
        fs::create_dir_all(directory.path().join("run")).expect("a directory");
        let _socket = UnixListener::bind(directory.path().join("run/docker.sock")).expect("a socket");
        std::os::unix::fs::symlink("docker.sock", directory.path().join("run/link")).expect("a link");
        assert_eq!(find(&roots, &[(Arc::from("/run/link"), Runtime::Docker)]).found.len(), 1);
    }

    #[test]
    fn more_users_than_are_looked_at_are_said() {
        let directory = tempfile::tempdir().expect("a directory");
        let roots = Roots { host: directory.path().into(), ..Roots::default() };
        for number in 0..USERS_MAX {
            fs::create_dir_all(directory.path().join(format!("run/user/{number}"))).expect("a directory");
        }
        assert!(!find(&roots, &[]).cut);
        fs::create_dir(directory.path().join("run/user/one-more")).expect("a directory");
        assert!(find(&roots, &[]).cut);
    }

    #[test]
    fn more_sockets_than_are_watched_are_said() {
        let directory = tempfile::tempdir().expect("a directory");
        let roots = Roots { host: directory.path().into(), ..Roots::default() };
        let most = RUNTIME_SOCKETS_MAX as usize;
        let paths: Vec<_> = (0..=most).map(|number| format!("/{number}.sock")).collect();
        let _bound: Vec<_> = paths
            .iter()
            .map(|path| UnixListener::bind(directory.path().join(&path[1..])).expect("a socket"))
            .collect();
        let configured: Vec<_> = paths.iter().map(|path| (Arc::from(&**path), Runtime::Docker)).collect();
        assert!(!find(&roots, &configured[..most]).cut);
        let Sockets { found, cut, .. } = find(&roots, &configured);
        assert!(cut && found.len() == most);
    }
}
