//! Where managers keep their things: directories that their arguments or their configuration name.
//!
//! Docker's are searched for containers, and a mount of any of them is one of what every container of this host is made of.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::super::json::StringOrOther;
use super::super::{Roots, file, paths};

/// Docker's default.
const DOCKER_ROOT: &str = "/var/lib/docker";
/// Docker's own configuration.
pub(super) const DAEMON_JSON: &str = "/etc/docker/daemon.json";
/// Data roots of docker that are tried; a host has one, a test host a few.
const DOCKER_ROOTS_MAX: usize = 16;
/// Most directories of all managers together.
const DIRECTORIES_MAX: usize = 64;
/// Least time between two looks when a container is nowhere to be found, and otherwise.
const SEARCH_INTERVAL: Duration = Duration::from_millis(500);
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);
/// Most bytes of a manager's arguments, and of its configuration.
const ARGUMENTS_MAX: u64 = 64 << 10;
const CONFIGURATION_MAX: u64 = 1 << 20;

/// How a manager is told where to keep its things.
struct Manager {
    /// Name of its process.
    comm: &'static str,
    /// Spellings of each option that names a directory.
    options: &'static [&'static [&'static str]],
    /// Options that name its configuration.
    file_options: &'static [&'static str],
    /// Its configuration otherwise: JSON if it is called so, else TOML.
    file: Option<&'static str>,
    /// Keys of directories in it.
    keys: &'static [&'static str],
}

/// **Source**: the manuals of dockerd, containerd, CRI-O (`crio.conf`), containers-storage.conf, kubelet, k3s and k0s.
const MANAGERS: &[Manager] = &[
    Manager {
        comm: "dockerd",
        options: &[&["--data-root", "--graph", "-g"], &["--exec-root"]],
        file_options: &["--config-file"],
        file: Some(DAEMON_JSON),
        keys: &["data-root", "graph", "exec-root"],
    },
    Manager {
        comm: "containerd",
        options: &[&["--root"], &["--state"]],
        file_options: &["--config", "-c"],
        file: Some("/etc/containerd/config.toml"),
        keys: &["root", "state"],
    },
    Manager {
        comm: "crio",
        options: &[&["--root", "-r"], &["--runroot"]],
        file_options: &["--config", "-c"],
        file: Some("/etc/crio/crio.conf"),
        keys: &["root", "runroot"],
    },
    Manager {
        comm: "podman",
        options: &[&["--root"], &["--runroot"]],
        file_options: &[],
        file: Some("/etc/containers/storage.conf"),
        keys: &["graphroot", "runroot"],
    },
    Manager { comm: "kubelet", options: &[&["--root-dir"]], file_options: &[], file: None, keys: &[] },
    Manager { comm: "k3s-server", options: DATA_DIR, file_options: &[], file: None, keys: &[] },
    Manager { comm: "k3s-agent", options: DATA_DIR, file_options: &[], file: None, keys: &[] },
    Manager { comm: "k0s", options: DATA_DIR, file_options: &[], file: None, keys: &[] },
];
const DATA_DIR: &[&[&str]] = &[&["--data-dir", "-d"]];

/// The managers of this host, looked at seldom.
#[derive(Debug)]
pub(super) struct Managers {
    roots: Roots,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    at: Instant,
    /// Data roots of docker, as places of this process.
    docker: Vec<PathBuf>,
    /// Directories of all managers that were told of any, as places of the host.
    directories: Vec<Arc<str>>,
}

impl Managers {
    pub(super) fn new(roots: &Roots) -> Self {
        Self { roots: roots.clone(), seen: Mutex::new(scan(roots)) }
    }

    /// Tries docker's data roots until one has what is looked for; a daemon that was started since the last look is found
    /// when the others do not have it.
    pub(super) fn find_in_docker<T>(&self, read: impl Fn(&Path) -> Option<T>) -> Option<T> {
        let mut seen = self.seen();
        if let Some(found) = seen.docker.iter().find_map(|root| read(root)) {
            return Some(found);
        }
        if seen.at.elapsed() < SEARCH_INTERVAL {
            return None;
        }
        *seen = scan(&self.roots);
        seen.docker.iter().find_map(|root| read(root))
    }

    /// Directories of managers that were told of any, at most ten seconds old.
    pub(super) fn directories(&self) -> Vec<Arc<str>> {
        let mut seen = self.seen();
        if seen.at.elapsed() >= REFRESH_INTERVAL {
            *seen = scan(&self.roots);
        }
        seen.directories.clone()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Directories as they are found, each once.
struct Found<'a> {
    roots: &'a Roots,
    seen: Seen,
}

impl Found<'_> {
    /// Takes over what a manager was told under this option or key.
    fn add(&mut self, manager: &Manager, name: &str, directory: &Path) {
        let Some(directory) = directory.to_str().filter(|directory| directory.starts_with('/')) else {
            return;
        };
        if manager.comm == "dockerd" && !name.ends_with("exec-root") {
            let root = self.roots.host_path(directory);
            if !self.seen.docker.contains(&root) && self.seen.docker.len() < DOCKER_ROOTS_MAX {
                self.seen.docker.push(root);
            }
        }
        let place = paths::resolve(self.roots, directory, true);
        let known = &mut self.seen.directories;
        // Whoever keeps things in the root of the host has made nothing more sensitive than it is.
        if &*place != "/" && !known.contains(&place) && known.len() < DIRECTORIES_MAX {
            known.push(place);
        }
    }

    fn add_configured(&mut self, manager: &Manager, path: &str) {
        let place = self.roots.host_path(path);
        if path.ends_with(".json") {
            let settings =
                file::read_json::<BTreeMap<String, StringOrOther>>(&place, None).unwrap_or_default();
            for (key, StringOrOther(value)) in settings {
                if manager.keys.contains(&key.as_str()) {
                    self.add(manager, &key, Path::new(&value.unwrap_or_default()));
                }
            }
        } else {
            for (key, value) in toml_strings(&place, manager.keys) {
                self.add(manager, key, Path::new(&value));
            }
        }
    }
}

/// What is there now.
fn scan(roots: &Roots) -> Seen {
    let docker = vec![roots.host_path(DOCKER_ROOT)];
    let mut found = Found { roots, seen: Seen { at: Instant::now(), docker, directories: Vec::new() } };
    for manager in MANAGERS {
        if let Some(file) = manager.file {
            found.add_configured(manager, file);
        }
    }
    // Of this process where it sees the host's root as its own, so that no right over pid 1 is needed.
    let host_mounts = mount_namespace(roots, if roots.host == Path::new("/") { "self" } else { "1" });
    let root = owner_of(&roots.proc.join("1"));
    for pid in file::subdirectories(&roots.proc, usize::MAX) {
        let process = roots.proc.join(&pid);
        let Some(manager) = manager_of(&process) else { continue };
        // Daemons of init's user in the host's own mounts only: a process of a container may call itself what it likes,
        // and would otherwise get to name other containers.
        if owner_of(&process) != root || mount_namespace(roots, &pid) != host_mounts {
            continue;
        }
        let Ok(arguments) = file::read(&process.join("cmdline"), ARGUMENTS_MAX, None) else { continue };
        let arguments: Vec<_> =
            arguments.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument)).collect();
        for names in manager.options {
            if let Some(directory) = option(&arguments, names) {
                found.add(manager, names[0], &absolute(&process, directory));
            }
        }
        if let Some(file) = option(&arguments, manager.file_options) {
            found.add_configured(manager, &absolute(&process, file).to_string_lossy());
        }
    }
    found.seen
}

fn manager_of(process: &Path) -> Option<&'static Manager> {
    let is_number =
        process.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
    let comm = is_number.then(|| file::read(&process.join("comm"), 64, None).ok())??;
    MANAGERS.iter().find(|manager| manager.comm.as_bytes() == comm.trim_ascii_end())
}

fn owner_of(process: &Path) -> Option<u32> {
    fs::metadata(process).ok().map(|metadata| metadata.uid())
}

fn mount_namespace(roots: &Roots, pid: &str) -> Option<PathBuf> {
    fs::read_link(roots.proc.join(pid).join("ns/mnt")).ok()
}

/// A relative path of a daemon counts from its working directory.
pub(super) fn absolute(process: &Path, path: &str) -> PathBuf {
    fs::read_link(process.join("cwd")).unwrap_or_default().join(path)
}

/// The value of an option, written as `--name value` or `--name=value`; the last one counts.
fn option<'a>(arguments: &'a [impl AsRef<str>], names: &[&str]) -> Option<&'a str> {
    let mut value = None;
    let mut arguments = arguments.iter().map(AsRef::as_ref);
    while let Some(argument) = arguments.next() {
        if names.contains(&argument) {
            value = arguments.next();
        } else if let Some((name, joined)) = argument.split_once('=') {
            value = if names.contains(&name) { Some(joined) } else { value };
        }
    }
    value.filter(|value| !value.is_empty())
}

/// The strings of these keys in a TOML file, in whichever section, one a line.
pub(super) fn toml_strings(path: &Path, keys: &[&'static str]) -> Vec<(&'static str, String)> {
    let content = file::read(path, CONFIGURATION_MAX, None).unwrap_or_default();
    let content = String::from_utf8_lossy(&content);
    content
        .lines()
        .filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            let key = keys.iter().find(|known| **known == key.trim())?;
            let value = value.trim();
            let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
            let value = value[1..].split(quote).next()?;
            Some((*key, value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_in_both_spellings() {
        let value = |arguments: &[&'static str]| option(arguments, &["--data-root", "-g"]).map(str::to_owned);
        assert_eq!(value(&["dockerd", "--data-root", "/a"]).as_deref(), Some("/a"));
        assert_eq!(value(&["dockerd", "-g=/a", "--data-root=/b"]).as_deref(), Some("/b"));
        assert_eq!(value(&["dockerd", "--data-root"]), None);
        assert_eq!(value(&["dockerd", "--data-root="]), None);
        assert_eq!(value(&["dockerd", "--data-rooted=/a"]), None);
    }

    #[test]
    fn strings_of_toml_are_found_in_either_quotes() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text = "version = 2\n#root = \"/no\"\n[x]\n  root = \"/a b\" # said\nstate='/s'\nroot = 7\nroots = \"/no\"\n";
        fs::write(file.path(), text).expect("written");
        let expected = [("root", "/a b".to_owned()), ("state", "/s".to_owned())];
        assert_eq!(toml_strings(file.path(), &["root", "state"]), expected);
        assert_eq!(toml_strings(Path::new("/nonexistent"), &["root"]), []);
    }
}
