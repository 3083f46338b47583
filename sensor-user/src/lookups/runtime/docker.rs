//! Docker: `<data root>/containers/<id>/config.v2.json`, and `hostconfig.json` beside it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sensor_core::fact::Runtime;
use sensor_core::risks::Spec;
use serde::Deserialize;

use super::super::Roots;
use super::super::file::{self, FileError};
use super::docker_options::{self, HostConfig, Options};
use super::docker_ports::NetworkSettings;
use super::oci::Annotations;
use super::{Found, Search, storage, text, time};

/// Docker's default.
const DEFAULT_ROOT: &str = "/var/lib/docker";
/// Docker's own configuration.
pub(super) const DAEMON_JSON: &str = "/etc/docker/daemon.json";
/// Data roots that are tried; a host has one, a test host a few.
const ROOTS_MAX: usize = 16;
/// Least time between two looks for running daemons.
const SCAN_INTERVAL: Duration = Duration::from_millis(500);
/// Most bytes of a daemon's arguments.
const ARGUMENTS_MAX: u64 = 64 << 10;

/// The part of `config.v2.json` that is read.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    created: String,
    config: Option<Config>,
    network_settings: Option<NetworkSettings>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    image: String,
    #[serde(default)]
    labels: Option<Annotations>,
}

/// Where daemons keep their containers: the default, the configuration's, and those of running daemons.
#[derive(Debug)]
pub(super) struct DataRoots {
    cache: Mutex<Cache>,
}

#[derive(Debug)]
struct Cache {
    roots: Vec<PathBuf>,
    scanned: Instant,
}

impl DataRoots {
    pub(super) fn new(roots: &Roots) -> Self {
        Self { cache: Mutex::new(Cache { roots: scan(roots), scanned: Instant::now() }) }
    }

    /// Reads a container; a daemon that was started since the last look is found when the others do not have it.
    pub(super) fn read(&self, search: Search<'_>) -> Found {
        let roots = search.roots;
        let rootless = search.owner().and_then(|uid| storage::home(roots, uid));
        if let Some(found) =
            rootless.and_then(|home| read_state(search, &home.join(".local/share/docker"), search.owner()))
        {
            return found;
        }
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let search =
            |data_roots: &[PathBuf]| data_roots.iter().find_map(|root| read_state(search, root, None));
        if let Some(found) = search(&cache.roots) {
            return found;
        }
        if cache.scanned.elapsed() >= SCAN_INTERVAL {
            *cache = Cache { roots: scan(roots), scanned: Instant::now() };
            return search(&cache.roots).unwrap_or_default();
        }
        Found::default()
    }
}

fn read_state(search: Search<'_>, root: &Path, owner: Option<u32>) -> Option<Found> {
    let id = &*search.query.id;
    let directory = root.join("containers").join(id);
    let state: State = file::read_json(&directory.join("config.v2.json"), owner).ok()?;
    if *state.id != *id {
        return None;
    }
    let Config { image, labels } = state.config.unwrap_or_default();
    let labels = labels.unwrap_or_default();
    let options = read_options(search, &directory, owner);
    let published = state.network_settings.unwrap_or_default().published();
    Some(Found {
        runtime: Some(Runtime::Docker),
        name: text(state.name.strip_prefix('/').unwrap_or(&state.name)),
        image: text(&image),
        created: time(&state.created),
        k8s: labels.k8s(),
        sandbox: labels.sandbox(),
        refused: matches!(&options, Err(error) if !error.is_absent()),
        awaits_ports: matches!(&options, Ok((_, true))) && published.is_empty(),
        published,
        manager_spec: options.ok().map(|(spec, _)| spec),
        state_directory: Some(directory),
        ..Found::default()
    })
}

/// What it was asked for, and whether that has ports to publish.
fn read_options(search: Search<'_>, directory: &Path, owner: Option<u32>) -> Result<(Spec, bool), FileError> {
    let host: HostConfig = file::read_json(&directory.join("hostconfig.json"), owner)?;
    let options: Options = file::read_json(&directory.join("config.v2.json"), owner)?;
    let publishes = host.publishes();
    Ok((docker_options::read(host, options, search.roots, owner), publishes))
}

/// The data roots of now, each once, as places of this process.
fn scan(roots: &Roots) -> Vec<PathBuf> {
    let mut found = vec![roots.host_path(DEFAULT_ROOT)];
    let mut add = |root: PathBuf| {
        if !found.contains(&root) && found.len() < ROOTS_MAX {
            found.push(root);
        }
    };
    add_configured(roots, DAEMON_JSON, &mut add);
    // Of this process where it sees the host's root as its own, so that no right over pid 1 is needed.
    let host_mounts = mount_namespace(roots, if roots.host == Path::new("/") { "self" } else { "1" });
    let root = owner_of(&roots.proc.join("1"));
    for pid in file::subdirectories(&roots.proc, usize::MAX) {
        let process = roots.proc.join(&pid);
        // Daemons of init's user in the host's own mounts only: a process of a container may call itself what it likes,
        // and would otherwise get to name other containers.
        if !is_daemon(&process) || owner_of(&process) != root || mount_namespace(roots, &pid) != host_mounts {
            continue;
        }
        let Ok(arguments) = file::read(&process.join("cmdline"), ARGUMENTS_MAX, None) else { continue };
        let arguments: Vec<_> =
            arguments.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument)).collect();
        if let Some(data_root) = option(&arguments, &["--data-root", "--graph", "-g"]) {
            add(roots.host_path(absolute(&process, data_root)));
        }
        if let Some(config) = option(&arguments, &["--config-file"]) {
            let config = absolute(&process, config);
            add_configured(roots, &config.to_string_lossy(), &mut add);
        }
    }
    found
}

fn is_daemon(process: &Path) -> bool {
    let is_number =
        process.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
    is_number
        && file::read(&process.join("comm"), 64, None).is_ok_and(|comm| comm.trim_ascii_end() == b"dockerd")
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

fn add_configured(roots: &Roots, path: &str, add: &mut impl FnMut(PathBuf)) {
    #[derive(Deserialize)]
    struct DaemonConfig {
        #[serde(rename = "data-root", alias = "graph")]
        data_root: Option<String>,
    }
    let config = file::read_json::<DaemonConfig>(&roots.host_path(path), None);
    if let Ok(DaemonConfig { data_root: Some(data_root) }) = config {
        add(roots.host_path(data_root));
    }
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
}
