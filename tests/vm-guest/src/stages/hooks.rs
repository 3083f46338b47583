//! What one of several programs sees: which one depends on the kernel.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, mount};
use sensor_tests::record::Record;
use sensor_tests::sensor::Sensor;

use super::actor::Actor;
use super::kinds::Row;
use super::sockets::{UNLISTED, address, connect_between};
use super::truth::Truth;
use crate::actor::{ANSWERED, ASKED};
use crate::cgroups::Container;
use crate::report::Outcome;

pub const ROWS: &[Row] = &[
    ("socket-connect", socket_connect),
    ("socket-requests", socket_requests),
    ("file-read", file_read),
    ("accept-task", accept_task),
];

/// Where Docker listens.
const SOCKET: &str = "/run/docker.sock";
/// Where podman listens.
const API: &str = "/run/podman/podman.sock";
/// Whoever listens there.
static SERVER: OnceLock<UnixListener> = OnceLock::new();
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
        fs::create_dir_all("/run/podman")?;
        let server = UnixListener::bind(API)?;
        ensure!(SERVER.set(server).is_ok(), "made twice");
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

/// A container that has another one made, on the socket of a runtime; where nothing can read that, the connect is told and
/// the coverage says why not more is.
fn socket_requests(sensor: &Sensor) -> Result<Outcome> {
    let container = Container::create("f4")?;
    let mut client = Actor::start_within(&container.id, &["ask-unix", API])?;
    let (mut server, _) = SERVER.get().context("nobody listens")?.accept()?;
    server.read_exact(&mut [0; ASKED])?;
    let body = format!("{{\"Id\":\"{}\"{ANSWERED}", "f5".repeat(32));
    let answer = format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    server.write_all(answer.as_bytes())?;
    client.line()?;

    let ready = sensor.wait_is("health", &[("health.state", "ready")])?;
    if ready.text("health.coverage.socket-requests.state") == "blind" {
        let reason = ready.text("health.coverage.socket-requests.reason");
        ensure!(reason.contains("fentry/sock_def_readable: "), "no reason: {ready}");
        sensor.wait_is("socket_connect", &[("container.id", &container.id), ("socket.path", API)])?;
        ensure!(client.finish()?.success(), "the client failed");
        return Ok(Outcome::SeenBy("socket_connect".to_owned()));
    }
    let record = sensor.wait_is("api_request", &[("container.id", &container.id)])?;
    let fields = [
        ("api.route", "/containers/create"),
        ("api.status", "201"),
        ("api.user_agent", "guest/1"),
        ("api.image", "alpine"),
        ("socket.path", API),
        ("socket.service", "podman"),
    ];
    ensure!(record.is("api_request", &fields), "not {fields:?}: {record}");
    ensure!(record.list("api.body_flags").iter().any(|flag| flag == "privileged"), "{record}");
    ensure!(!record.line.contains("secret"), "an environment value: {record}");
    Truth::of(client.id())?.check(&record)?;
    ensure!(client.finish()?.success(), "the client failed");
    by_one_of(sensor, &["unix_data_ready", "unix_requests", "fentry_unix_requests"])
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
