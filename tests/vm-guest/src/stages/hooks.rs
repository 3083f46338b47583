//! What one of several programs sees: which one depends on the kernel.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, mount};
use sensor_tests::record::Record;
use sensor_tests::sensor::Sensor;

use super::actor::Actor;
use super::kinds::Row;
use super::sockets::{UNLISTED, address, connect_between};
use super::truth::Truth;
use crate::cgroups::Container;
use crate::report::Outcome;

pub const ROWS: &[Row] =
    &[("socket-connect", socket_connect), ("file-read", file_read), ("accept-task", accept_task)];

/// Where Docker listens.
const SOCKET: &str = "/run/docker.sock";
/// Where the kubelet mounts the token of a pod.
const VOLUME: &str = "/var/lib/kubelet/pods/0f3c/volumes/kubernetes.io~projected/kube-api-access";
const SECRET: &str = "secret";
const API_SERVER: u16 = 6443;

/// What has to be there before the sensor looks for it.
pub struct Fixtures {
    _socket: UnixListener,
}

impl Fixtures {
    /// Makes a runtime's socket and a pod's token.
    pub fn create() -> Result<Self> {
        fs::create_dir_all(VOLUME)?;
        mount("tmpfs", VOLUME, "tmpfs", MountFlags::empty(), None).context("mounting the token's volume")?;
        fs::write(format!("{VOLUME}/token"), format!("{SECRET}\n"))?;
        Ok(Self { _socket: UnixListener::bind(SOCKET)? })
    }
}

/// Which of these programs the sensor has attached.
fn by_one_of(sensor: &Sensor, programs: &[&str]) -> Result<Outcome> {
    let ready = sensor.wait_is("health", &[("health.state", "ready")])?;
    let mut attached = ready.list("health.hooks").iter().filter(|hook| hook["state"] == "attached");
    let program = attached.find_map(|hook| hook["program"].as_str().filter(|name| programs.contains(name)));
    let program = program.with_context(|| format!("seen, but none of {programs:?} is attached: {ready}"))?;
    Ok(Outcome::SeenBy(program.to_owned()))
}

/// A container that connects to the socket of a runtime.
fn socket_connect(sensor: &Sensor) -> Result<Outcome> {
    let container = Container::create("f1")?;
    let mut client = Actor::start_within(&container.id, &["connect-unix", SOCKET])?;
    client.line()?;
    let record = sensor.wait_is("socket_connect", &[("container.id", &container.id)])?;
    let inode = fs::metadata(SOCKET)?.ino().to_string();
    let fields = [("socket.path", SOCKET), ("socket.service", "docker"), ("socket.inode", &inode)];
    ensure!(record.is("socket_connect", &fields), "not {fields:?}: {record}");
    Truth::of(client.id())?.check(&record)?;
    ensure!(client.finish()?.success(), "the client failed");
    by_one_of(sensor, &["lsm_unix_connect", "fentry_unix_connect", "unix_data_ready"])
}

/// A container that reads a service account's token.
fn file_read(sensor: &Sensor) -> Result<Outcome> {
    let container = Container::create("f2")?;
    let path = format!("{VOLUME}/token");
    let mut reader = Actor::start(&["within", &container.id, "/bin/busybox", "cat", &path])?;
    let pid = reader.id().to_string();
    ensure!(reader.line()? == SECRET);
    ensure!(reader.finish()?.success(), "cat failed");
    let record = sensor.wait_is("file_read", &[("container.id", &container.id)])?;
    let fields = [("file.path", &*path), ("file.class", "service-account-token"), ("process.pid", &pid)];
    ensure!(record.is("file_read", &fields), "not {fields:?}: {record}");
    by_one_of(sensor, &["lsm_file_open", "fentry_file_open", "fanotify"])
}

/// The process that takes a connection, told with the accept or behind it.
fn accept_task(sensor: &Sensor) -> Result<Outcome> {
    let server = address(UNLISTED[0], API_SERVER)?;
    let mut actor = Actor::start(&["listen", &server.to_string()])?;
    actor.line()?;
    let client = connect_between(UNLISTED, API_SERVER)?;
    let pid = actor.id().to_string();
    let peer: SocketAddr = client.local_addr()?;
    let of_connection = |record: &Record| record.number("net.peer.port") == Some(peer.port().into());
    sensor.wait("the task that took the connection", |record| {
        let with_accept = record.is("accept", &[("accept.task.pid", &pid)]);
        let behind_it = record.is("accept_task", &[("process.pid", &pid)]);
        of_connection(record) && (with_accept || behind_it)
    })?;
    actor.finish()?;
    by_one_of(sensor, &["accept_task", "accept_task_of_four"])
}
