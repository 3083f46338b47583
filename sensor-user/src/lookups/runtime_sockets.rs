//! The unix sockets of runtimes: where they are, and which file each is bound to.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sensor_common::settings::RUNTIME_SOCKETS_MAX;
use sensor_core::credentials::RuntimeSocket;
use sensor_core::fact::Runtime;
use sensor_core::ids::FileKey;

use super::Roots;
use super::mounts::device_number;

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

/// Finds the sockets that are there now: the built-in ones and those that the configuration names. One that is bound to
/// the same file as another is listed once.
#[must_use]
pub fn find(roots: &Roots, configured: &[(Arc<str>, Runtime)]) -> Vec<RuntimeSocket> {
    let mut found: Vec<RuntimeSocket> = Vec::new();
    let mut add = |path: &Path, service: Runtime| {
        let Some(socket) = look_at(roots, path, service) else { return };
        let is_new = found.iter().all(|known| known.key != socket.key);
        if is_new && found.len() < RUNTIME_SOCKETS_MAX as usize {
            found.push(socket);
        }
    };
    for (path, service) in configured {
        add(Path::new(&**path), *service);
    }
    for (path, service) in PATHS {
        add(Path::new(path), *service);
    }
    let users = fs::read_dir(roots.host_path(USERS)).into_iter().flatten().flatten().take(USERS_MAX);
    for user in users {
        let directory = PathBuf::from(USERS).join(user.file_name());
        for (path, service) in USER_PATHS {
            add(&directory.join(path), *service);
        }
    }
    found
}

fn look_at(roots: &Roots, path: &Path, service: Runtime) -> Option<RuntimeSocket> {
    let metadata = fs::metadata(roots.host_path(path)).ok()?;
    if !metadata.file_type().is_socket() {
        return None;
    }
    let device = device_number(libc::major(metadata.dev()), libc::minor(metadata.dev()));
    let key = FileKey { device, inode: metadata.ino() };
    Some(RuntimeSocket { key, path: Arc::from(&*path.to_string_lossy()), service })
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
        let found = find(&roots, &configured);
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
    fn two_names_of_one_socket_are_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let roots = Roots { host: directory.path().into(), ..Roots::default() };
        fs::create_dir_all(directory.path().join("run")).expect("a directory");
        let _socket = UnixListener::bind(directory.path().join("run/docker.sock")).expect("a socket");
        std::os::unix::fs::symlink("docker.sock", directory.path().join("run/link")).expect("a link");
        assert_eq!(find(&roots, &[(Arc::from("/run/link"), Runtime::Docker)]).len(), 1);
    }
}
