//! What a dockerd was told elsewhere than in its arguments: `daemon.json`, and one variable of its environment.

use std::path::Path;
use std::sync::Arc;

use sensor_core::engine::{DaemonOptions, DaemonQuery};
use serde::Deserialize;

use super::super::file;
use super::super::json::Limited;
use super::super::procfs::Processes;
use super::super::{Roots, paths};
use super::managers::{DAEMON_JSON, absolute};

/// Most hosts that a daemon serves.
const HOSTS_MAX: usize = 256;
/// Most bytes of an environment.
const ENVIRONMENT_MAX: u64 = 2 << 20;
/// Set to anything, it turns TLS on where nothing else says so.
const TLS_VERIFY: &[u8] = b"DOCKER_TLS_VERIFY=";

/// The part of `daemon.json` that is read.
#[derive(Default, Deserialize)]
struct Configuration {
    #[serde(default)]
    hosts: Limited<String, HOSTS_MAX>,
    tls: Option<bool>,
    tlsverify: Option<bool>,
}

/// Reads what a daemon was told; nothing when that cannot be found out.
pub(super) fn read(roots: &Roots, query: &DaemonQuery) -> Option<DaemonOptions> {
    let process = roots.proc.join(query.process.pid.to_string());
    let path = match query.file.as_deref() {
        Some(file) => absolute(&process, file),
        None => DAEMON_JSON.into(),
    };
    let configuration = configuration(roots, &path)?;
    let verifies = file::read(&process.join("environ"), ENVIRONMENT_MAX, None).ok().map(|environment| {
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable.strip_prefix(TLS_VERIFY).is_some_and(|value| !value.is_empty()))
    })?;
    // Asked after reading: it was the same process then.
    Processes::new(roots).is_alive(query.process).then(|| DaemonOptions {
        hosts: configuration.hosts.0.into_iter().map(Arc::from).collect(),
        tls: configuration.tls,
        tls_verify: configuration.tlsverify.or(verifies.then_some(true)),
    })
}

/// The file, links followed; without one the daemon has its defaults.
fn configuration(roots: &Roots, path: &Path) -> Option<Configuration> {
    let path = paths::resolve(roots, path.to_str()?, true);
    match file::read_json(&roots.host_path(&*path), None) {
        Ok(configuration) => Some(configuration),
        Err(error) if error.is_absent() => Some(Configuration::default()),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use sensor_core::ids::ProcessKey;
    use serde_json::json;

    use super::*;

    struct Host(tempfile::TempDir);

    impl Host {
        /// With one process, 7, that was started 10 ms after boot.
        fn new() -> Self {
            let host = Self(tempfile::tempdir().unwrap());
            host.write("proc/7/stat", "7 (dockerd) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 1 1 2");
            host.write("proc/7/environ", "PATH=/bin\0DOCKER_TLS_VERIFY=\0");
            host
        }

        fn write(&self, path: &str, content: impl ToString) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content.to_string()).unwrap();
        }

        fn read(&self, file: Option<&str>, start_ns: u64) -> Option<DaemonOptions> {
            let roots = Roots { host: self.0.path().into(), proc: self.0.path().join("proc") };
            let process = ProcessKey { pid: 7, start_ns };
            read(&roots, &DaemonQuery { process, file: file.map(Arc::from) })
        }
    }

    const START_NS: u64 = 10_000_000;

    #[test]
    fn a_daemon_without_a_file_has_its_defaults() {
        assert_eq!(Host::new().read(None, START_NS), Some(DaemonOptions::default()));
        assert_eq!(Host::new().read(None, 0), None, "another process has its number");
    }

    #[test]
    fn the_file_that_it_was_given_is_read() {
        let host = Host::new();
        host.write("etc/docker/daemon.json", json!({"tlsverify": true, "data-root": "/x"}));
        host.write("srv/d.json", json!({"hosts": ["tcp://:1", "fd://"], "tls": false}));
        symlink("/srv", host.0.path().join("proc/7/cwd")).unwrap();
        let default = DaemonOptions { tls_verify: Some(true), ..DaemonOptions::default() };
        assert_eq!(host.read(None, START_NS), Some(default));
        let hosts = vec!["tcp://:1".into(), "fd://".into()];
        let given = DaemonOptions { hosts, tls: Some(false), tls_verify: None };
        for file in ["/srv/d.json", "d.json"] {
            assert_eq!(host.read(Some(file), START_NS).as_ref(), Some(&given), "{file}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_not_known() {
        let host = Host::new();
        let too_many = json!({"hosts": vec!["fd://"; HOSTS_MAX + 1]}).to_string();
        for text in ["", "[]", "{\"tls\": \"yes\"}", too_many.as_str()] {
            host.write("etc/docker/daemon.json", text);
            assert_eq!(host.read(None, START_NS), None, "{text:.20}");
        }
    }

    #[test]
    fn the_environment_turns_tls_on_where_the_file_is_silent() {
        let host = Host::new();
        host.write("proc/7/environ", "DOCKER_TLS_VERIFY=1\0");
        assert_eq!(host.read(None, START_NS).and_then(|options| options.tls_verify), Some(true));
        host.write("etc/docker/daemon.json", json!({"tlsverify": false}));
        assert_eq!(host.read(None, START_NS).and_then(|options| options.tls_verify), Some(false));
        fs::remove_file(host.0.path().join("proc/7/environ")).unwrap();
        assert_eq!(host.read(None, START_NS), None);
    }
}
