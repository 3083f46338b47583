//! Listeners and connections.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, ensure};
use rustix::net::{AddressFamily, SocketType};
use sensor_tests::record::Record;
use sensor_tests::sensor::Sensor;

use super::actor::Actor;
use super::kinds::{OLDER_PORT, Row};
use super::truth::{Truth, network_namespace};
use crate::actor::SENT;
use crate::cgroups::Container;
use crate::report::Outcome;

pub const ROWS: &[Row] = &[
    ("listener", listener),
    ("listener-snapshot", listener_snapshot),
    ("accept", accept),
    ("accept-ipv6", accept_ipv6),
    ("accept-mapped", accept_mapped),
    ("accept-container", accept_container),
    ("close", close),
    ("connect", connect),
    ("connect-ipv6", connect_ipv6),
    ("connect-lateral", connect_lateral),
    ("refused", refused),
];

pub const DOCKER: u16 = 2375;
const KUBELET: u16 = 10_250;
const API_SERVER: u16 = 6443;
/// A port that nobody watches.
const OTHER: u16 = 8080;
/// A port that nobody listens on.
const NOBODYS: u16 = 9;

/// An address whose network is in the allow-list, and its neighbour.
pub const LISTED: [&str; 2] = ["10.77.0.1", "10.77.0.2"];
/// An address whose network is in no list, and its neighbour.
pub const UNLISTED: [&str; 2] = ["198.18.0.1", "198.18.0.2"];
pub const UNLISTED_V6: [&str; 2] = ["fd00:99::1", "fd00:99::2"];

/// A socket address.
pub fn address(ip: &str, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(ip.parse::<IpAddr>()?, port))
}

/// Connects from one of the machine's addresses to another.
pub fn connect_between([server, client]: [&str; 2], port: u16) -> Result<TcpStream> {
    let (server, client) = (address(server, port)?, address(client, 0)?);
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket: OwnedFd = rustix::net::socket(family, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &client)?;
    rustix::net::connect(&socket, &server)?;
    Ok(TcpStream::from(socket))
}

/// Demands of a record that it has both ends of a connection that this client made.
fn check_ends(record: &Record, client: &TcpStream) -> Result<()> {
    let ends = [("net.peer", client.local_addr()?), ("net.local", client.peer_addr()?)];
    for (end, expected) in ends {
        let (ip, port) = (record.text(&format!("{end}.ip")), record.number(&format!("{end}.port")));
        ensure!(
            ip == expected.ip().to_string() && port == Some(expected.port().into()),
            "{end} is not {expected}: {record}"
        );
    }
    Ok(())
}

/// The accept of a connection that this client made. Its own port alone may be that of an earlier connection to another one.
pub fn accept_of(sensor: &Sensor, client: &TcpStream) -> Result<Record> {
    let (local, peer) = (client.local_addr()?, client.peer_addr()?);
    let fields = [
        ("net.peer.ip", &*local.ip().to_string()),
        ("net.peer.port", &*local.port().to_string()),
        ("net.local.port", &*peer.port().to_string()),
    ];
    let accept = sensor.wait_is("accept", &fields)?;
    check_ends(&accept, client)?;
    Ok(accept)
}

fn check_fields(record: &Record, fields: &[(&str, &str)]) -> Result<()> {
    ensure!(record.is(record.kind(), fields), "not {fields:?}: {record}");
    Ok(())
}

fn listener(sensor: &Sensor) -> Result<Outcome> {
    let cases = [
        (IpAddr::from(Ipv4Addr::UNSPECIFIED), KUBELET, "kubelet", "any"),
        (IpAddr::from(Ipv6Addr::LOCALHOST), 2376, "docker-tls", "loopback"),
        (LISTED[0].parse()?, DOCKER, "docker", "private"),
    ];
    for (ip, port, service, scope) in cases {
        let netns = network_namespace()?.to_string();
        let check = |state| {
            let fields = [
                ("listener.state", state),
                ("listener.service", service),
                ("listener.scope", scope),
                ("listener.netns", &*netns),
                ("net.local.ip", &*ip.to_string()),
                ("net.local.port", &*port.to_string()),
            ];
            Truth::of_self()?.check(&sensor.wait_is("listener", &fields)?)
        };
        let socket = TcpListener::bind((ip, port))?;
        check("opened")?;
        drop(socket);
        check("closed")?;
    }
    Ok(Outcome::Seen)
}

fn listener_snapshot(sensor: &Sensor) -> Result<Outcome> {
    let port = OLDER_PORT.to_string();
    let record = sensor.wait_is("listener", &[("listener.state", "snapshot"), ("net.local.port", &port)])?;
    check_fields(&record, &[("net.local.ip", "::"), ("listener.service", "kubelet-readonly")])?;
    Truth::of_self()?.check(&record)?;
    Ok(Outcome::Seen)
}

/// Connections from a network that is expected and from one that is not.
pub fn accept(sensor: &Sensor) -> Result<Outcome> {
    let _listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, DOCKER))?;
    let unlisted = accept_of(sensor, &connect_between(UNLISTED, DOCKER)?)?;
    check_fields(&unlisted, &[("net.service", "docker"), ("verdict.listed", "false")])?;
    Truth::of_self()?.check(&unlisted)?;
    let listed = accept_of(sensor, &connect_between(LISTED, DOCKER)?)?;
    check_fields(&listed, &[("verdict.listed", "true"), ("verdict.entry", "lab")])?;
    Truth::of_self()?.check(&listed)?;
    Ok(Outcome::Seen)
}

fn accept_ipv6(sensor: &Sensor) -> Result<Outcome> {
    let _listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, KUBELET))?;
    let accept = accept_of(sensor, &connect_between(UNLISTED_V6, KUBELET)?)?;
    check_fields(&accept, &[("net.service", "kubelet"), ("verdict.listed", "false")])?;
    Ok(Outcome::Seen)
}

/// An IPv4 client of an IPv6 listener is an IPv4 peer.
fn accept_mapped(sensor: &Sensor) -> Result<Outcome> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, KUBELET))?;
    let client = connect_between(LISTED, KUBELET)?;
    let (server, _) = listener.accept()?;
    ensure!(matches!(server.peer_addr()?.ip(), IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some()));
    check_fields(&accept_of(sensor, &client)?, &[("verdict.entry", "lab")])?;
    Ok(Outcome::Seen)
}

fn accept_container(sensor: &Sensor) -> Result<Outcome> {
    let container = Container::create("a1")?;
    let mut server = Actor::start_within(&container.id, &["listen", &format!("0.0.0.0:{API_SERVER}")])?;
    server.line()?;
    let truth = Truth::of(server.id())?;
    let about = [("container.id", container.id.as_str()), ("container.cgroup", &*container.path())];
    let port = API_SERVER.to_string();
    let opened = sensor.wait_is("listener", &[("listener.state", "opened"), ("net.local.port", &port)])?;
    check_fields(&opened, &about)?;
    truth.check(&opened)?;
    let accept = accept_of(sensor, &connect_between(UNLISTED, API_SERVER)?)?;
    check_fields(&accept, &about)?;
    check_fields(&accept, &[("net.service", "kube-apiserver")])?;
    truth.check(&accept)?;
    server.finish()?;
    Ok(Outcome::Seen)
}

fn close(sensor: &Sensor) -> Result<Outcome> {
    const QUESTION: usize = 4321;
    const ANSWER: usize = 87_654;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, DOCKER))?;
    let mut client = connect_between(UNLISTED, DOCKER)?;
    let (mut server, _) = listener.accept()?;
    let answering = std::thread::spawn(move || -> std::io::Result<()> {
        server.read_exact(&mut [0; QUESTION])?;
        server.write_all(&[b'x'; ANSWER])
    });
    client.write_all(&[b'y'; QUESTION])?;
    let mut answer = Vec::new();
    client.read_to_end(&mut answer)?;
    answering.join().expect("the server panicked")?;
    ensure!(answer.len() == ANSWER);

    let accept = accept_of(sensor, &client)?;
    check_ends(&accept, &client)?;
    let close = sensor.wait_is("close", &[("net.conn", accept.text("net.conn"))])?;
    check_ends(&close, &client)?;
    let number = |path| close.number(path).with_context(|| format!("no {path}: {close}"));
    ensure!(number("conn.bytes_in")? == QUESTION as u64, "{QUESTION} bytes went in: {close}");
    ensure!(number("conn.bytes_out")? == ANSWER as u64, "{ANSWER} bytes went out: {close}");
    let distance = number("boot_ns")? - accept.number("boot_ns").context("no boot_ns")?;
    ensure!(number("conn.duration_ns")? == distance, "duration is not {distance}: {close}");
    Ok(Outcome::Seen)
}

/// A connection of a container, from its beginning to its end.
fn connect_from(sensor: &Sensor, digits: &str, server: SocketAddr) -> Result<()> {
    let container = Container::create(digits)?;
    let listener = TcpListener::bind(server)?;
    let mut client = Actor::start_within(&container.id, &["connect", &server.to_string()])?;
    let local: SocketAddr = client.line()?.parse()?;
    let (mut accepted, peer) = listener.accept()?;
    ensure!(peer == local, "the client said {local}, the kernel says {peer}");
    let connect =
        sensor.wait_is("connect", &[("container.id", &container.id), ("connect.result", "established")])?;
    let ends = [
        ("net.direction", "outbound"),
        ("net.local.ip", &*local.ip().to_string()),
        ("net.local.port", &*local.port().to_string()),
        ("net.peer.ip", &*server.ip().to_string()),
        ("net.peer.port", &*server.port().to_string()),
    ];
    check_fields(&connect, &ends)?;
    check_fields(&connect, &[("container.cgroup", &*container.path())])?;
    Truth::of(client.id())?.check(&connect)?;

    ensure!(client.finish()?.success(), "the client failed");
    let mut received = Vec::new();
    accepted.read_to_end(&mut received)?;
    ensure!(received == SENT);
    drop(accepted);
    let close = sensor.wait_is("close", &[("net.conn", connect.text("net.conn"))])?;
    check_fields(&close, &ends)?;
    ensure!(close.number("conn.bytes_out") == Some(SENT.len() as u64), "{close}");
    Ok(())
}

/// A connection of a container.
pub fn connect(sensor: &Sensor) -> Result<Outcome> {
    connect_from(sensor, "c1", address(UNLISTED[0], OTHER)?)?;
    Ok(Outcome::Seen)
}

fn connect_ipv6(sensor: &Sensor) -> Result<Outcome> {
    connect_from(sensor, "c2", address(UNLISTED_V6[0], OTHER)?)?;
    Ok(Outcome::Seen)
}

/// Towards a management port the attempt is reported before its result.
fn connect_lateral(sensor: &Sensor) -> Result<Outcome> {
    connect_from(sensor, "c3", address(UNLISTED[0], DOCKER)?)?;
    let id = "c3".repeat(32);
    let port = DOCKER.to_string();
    let fields = [("container.id", &*id), ("connect.result", "attempted"), ("net.peer.port", port.as_str())];
    sensor.wait_is("connect", &fields)?;
    Ok(Outcome::Seen)
}

fn refused(sensor: &Sensor) -> Result<Outcome> {
    let container = Container::create("c4")?;
    let server = address(UNLISTED[0], NOBODYS)?;
    let client = Actor::start_within(&container.id, &["connect", &server.to_string()])?;
    let pid = client.id().to_string();
    ensure!(!client.finish()?.success(), "somebody listens on port {NOBODYS}");
    let fields = [
        ("container.id", container.id.as_str()),
        ("process.pid", &pid),
        ("net.peer.ip", UNLISTED[0]),
        ("net.peer.port", &*NOBODYS.to_string()),
    ];
    let refused = sensor.wait_is("connect", &[("connect.result", "refused"), fields[0]])?;
    check_fields(&refused, &fields)?;
    Ok(Outcome::Seen)
}
