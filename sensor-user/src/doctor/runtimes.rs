//! Container runtimes of this host: their sockets, state directories and running daemons.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lookups::{Roots, file};

/// Most bytes of a process's name.
const COMM_MAX: u64 = 64;
/// Most daemons of one name that are listed.
const PIDS_MAX: usize = 16;

/// A runtime of which something was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Runtime {
    /// Name of its daemon, or of the runtime where it has none.
    pub name: String,
    /// Process ids of its daemons, ascending; at most sixteen.
    pub pids: Vec<u32>,
    /// Its sockets.
    pub sockets: Vec<String>,
    /// Directories with its state.
    pub state: Vec<String>,
}

/// Where a runtime keeps what.
struct Traces {
    name: &'static str,
    sockets: &'static [&'static str],
    state: &'static [&'static str],
}

const RUNTIMES: &[Traces] = &[
    Traces { name: "dockerd", sockets: &["/run/docker.sock"], state: &["/var/lib/docker"] },
    Traces {
        name: "containerd",
        sockets: &["/run/containerd/containerd.sock", "/run/docker/containerd/containerd.sock"],
        state: &["/var/lib/containerd"],
    },
    Traces { name: "crio", sockets: &["/run/crio/crio.sock"], state: &["/var/lib/crio"] },
    Traces { name: "podman", sockets: &["/run/podman/podman.sock"], state: &["/var/lib/containers/storage"] },
    Traces { name: "kubelet", sockets: &[], state: &["/var/lib/kubelet"] },
    Traces {
        name: "k3s",
        sockets: &["/run/k3s/containerd/containerd.sock"],
        state: &["/var/lib/rancher/k3s"],
    },
];

/// Looks for every runtime the sensor knows.
#[must_use]
pub fn find(roots: &Roots) -> Vec<Runtime> {
    let mut pids: Vec<Vec<u32>> = vec![Vec::new(); RUNTIMES.len()];
    for (pid, comm) in processes(roots) {
        if let Some(index) = RUNTIMES.iter().position(|traces| traces.name.as_bytes() == comm) {
            pids[index].push(pid);
        }
    }
    let found = RUNTIMES.iter().zip(pids).map(|(traces, mut pids)| {
        pids.sort_unstable();
        pids.truncate(PIDS_MAX);
        let place = |path: &&&str| fs::metadata(roots.host_path(**path)).map(|metadata| metadata.file_type());
        let is_socket = |path: &&&str| place(path).is_ok_and(|kind| kind.is_socket());
        let is_directory = |path: &&&str| place(path).is_ok_and(|kind| kind.is_dir());
        let sockets = traces.sockets.iter().filter(is_socket).map(|path| (*path).to_owned()).collect();
        let state = traces.state.iter().filter(is_directory).map(|path| (*path).to_owned()).collect();
        Runtime { name: traces.name.to_owned(), pids, sockets, state }
    });
    found
        .filter(|runtime| {
            !(runtime.pids.is_empty() && runtime.sockets.is_empty() && runtime.state.is_empty())
        })
        .collect()
}

/// Process ids and names.
fn processes(roots: &Roots) -> impl Iterator<Item = (u32, Vec<u8>)> {
    let entries = fs::read_dir(&roots.proc).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let mut comm = file::read(&entry.path().join("comm"), COMM_MAX, None).ok()?;
        comm.pop_if(|last| *last == b'\n');
        Some((pid, comm))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn daemons_sockets_and_state_are_found_below_the_roots() {
        let directory = tempfile::tempdir().unwrap();
        let roots = Roots { host: directory.path().join("host"), proc: directory.path().join("proc") };
        for (pid, comm) in [("12", "dockerd\n"), ("7", "dockerd\n"), ("9", "do\u{1b}cker\n"), ("x", "crio\n")]
        {
            fs::create_dir_all(roots.proc.join(pid)).unwrap();
            fs::write(roots.proc.join(pid).join("comm"), comm).unwrap();
        }
        fs::create_dir_all(roots.host.join("run")).unwrap();
        fs::create_dir_all(roots.host.join("var/lib/kubelet")).unwrap();
        let _socket = UnixListener::bind(roots.host.join("run/docker.sock")).unwrap();
        let found = find(&roots);
        assert_eq!(found.iter().map(|runtime| &*runtime.name).collect::<Vec<_>>(), ["dockerd", "kubelet"]);
        assert_eq!(
            (&*found[0].pids, &*found[0].sockets),
            (&[7, 12][..], &["/run/docker.sock".to_owned()][..])
        );
        assert_eq!((found[1].pids.len(), &*found[1].state), (0, &["/var/lib/kubelet".to_owned()][..]));
    }

    #[test]
    fn no_procfs_is_no_daemon() {
        let roots = Roots { host: "/nonexistent".into(), proc: "/nonexistent".into() };
        assert_eq!(find(&roots), []);
    }
}
