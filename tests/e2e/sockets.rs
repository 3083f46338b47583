//! Listeners and accepts of all sorts, made by this test itself.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::net::sockopt;
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::netns::{CLIENT_INSIDE, CLIENT_OUTSIDE, NODE_INSIDE, NODE_OUTSIDE, Netns};
use sensor_tests::process::Process;
use sensor_tests::record::Record;
use sensor_tests::sensor::Sensor;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("byte_counts_and_duration_of_a_connection_are_exact", byte_counts),
    ("listener_is_reported_when_it_opens_and_closes", listener_opens_and_closes),
    ("listener_older_than_the_sensor_is_in_the_snapshot", listener_snapshot),
    ("present_holder_of_an_activated_socket_is_named", socket_activation),
    ("accept_through_io_uring_is_seen", io_uring_accept),
    ("ipv4_client_of_an_ipv6_listener_is_ipv4", mapped_address),
    ("other_ports_are_not_reported", other_ports),
    ("direction_does_not_come_from_port_numbers", direction),
    ("watched_ports_are_configurable", configured_port),
];

/// A port of the kubelet, which nothing else here uses.
const KUBELET: u16 = 10250;

fn listen(netns: &Netns, address: IpAddr, port: u16) -> Result<TcpListener> {
    netns.within(|| TcpListener::bind((address, port)))
}

fn connect(netns: &Netns, address: &str, port: u16) -> Result<TcpStream> {
    let server = SocketAddr::new(address.parse()?, port);
    netns.within(|| TcpStream::connect_timeout(&server, Duration::from_secs(5)))
}

/// The accept of a connection, found by the client's end of it.
fn accept_of(sensor: &Sensor, client: &TcpStream) -> Result<Record> {
    let (ip, port) = (client.local_addr()?.ip().to_string(), client.local_addr()?.port().to_string());
    sensor.wait_is("accept", &[("net.peer.ip", &ip), ("net.peer.port", &port)])
}

fn byte_counts(lab: &Lab) -> Result<()> {
    const SENT: usize = 4321;
    const ANSWERED: usize = 87_654;
    let sensor = Sensor::start(CONFIGURATION)?;
    let listener = listen(&lab.network.node, Ipv4Addr::UNSPECIFIED.into(), KUBELET)?;
    let mut client = connect(&lab.network.client, NODE_OUTSIDE, KUBELET)?;
    let (mut server, _) = listener.accept()?;
    let answering = std::thread::spawn(move || -> std::io::Result<()> {
        let mut question = vec![0; SENT];
        server.read_exact(&mut question)?;
        server.write_all(&vec![b'x'; ANSWERED])
    });
    client.write_all(&vec![b'y'; SENT])?;
    let mut answer = Vec::new();
    client.read_to_end(&mut answer)?;
    answering.join().expect("the server panicked")?;
    ensure!(answer.len() == ANSWERED);
    let accept = accept_of(&sensor, &client)?;
    drop(client);

    let close = sensor.wait_is("close", &[("net.conn", accept.text("net.conn"))])?;
    let count = |path: &str| close.number(path).with_context(|| format!("no {path}: {close}"));
    ensure!(count("conn.bytes_in")? == SENT as u64, "{SENT} bytes went in: {close}");
    ensure!(count("conn.bytes_out")? == ANSWERED as u64, "{ANSWERED} bytes went out: {close}");
    let distance = count("boot_ns")? - accept.number("boot_ns").context("no boot_ns")?;
    ensure!(count("conn.duration_ns")? == distance, "duration is not {distance}: {close}");
    ensure!(close.at("net.peer") == accept.at("net.peer"), "another peer:\n{accept}\n{close}");
    ensure!(close.at("net.local") == accept.at("net.local"), "another local end:\n{accept}\n{close}");
    sensor.stop().map(drop)
}

/// This test's own process is who the record names.
fn ensure_own(record: &Record) -> Result<()> {
    let exe = std::env::current_exe()?;
    let exe = exe.to_str().context("path is not text")?;
    let fields = [("process.pid", &*std::process::id().to_string()), ("process.exe", exe)];
    ensure!(record.is(record.kind(), &fields), "{record}\nhas not {fields:?}");
    Ok(())
}

fn listener_opens_and_closes(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    for (address, port, service, scope) in [
        (Ipv4Addr::UNSPECIFIED.into(), 10255, "kubelet-readonly", "any"),
        (Ipv6Addr::LOCALHOST.into(), 2376, "docker-tls", "loopback"),
        (NODE_INSIDE.parse::<IpAddr>()?, KUBELET, "kubelet", "private"),
    ] {
        let listener = listen(&lab.network.node, address, port)?;
        let (ip, port) = (address.to_string(), port.to_string());
        let fields = |state| {
            [
                ("listener.state", state),
                ("listener.service", service),
                ("listener.scope", scope),
                ("net.local.ip", ip.as_str()),
                ("net.local.port", port.as_str()),
            ]
        };
        let opened = sensor.wait_is("listener", &fields("opened"))?;
        ensure_own(&opened)?;
        drop(listener);
        let closed = sensor.wait_is("listener", &fields("closed"))?;
        ensure!(closed.at("listener.netns") == opened.at("listener.netns"), "another namespace: {closed}");
    }
    sensor.stop().map(drop)
}

fn listener_snapshot(lab: &Lab) -> Result<()> {
    let _listener = listen(&lab.network.client, Ipv6Addr::UNSPECIFIED.into(), 6443)?;
    let sensor = Sensor::start(CONFIGURATION)?;
    let own = sensor.wait_is("listener", &[("listener.state", "snapshot"), ("net.local.port", "6443")])?;
    ensure_own(&own)?;
    ensure!(own.is("listener", &[("listener.scope", "any"), ("net.local.ip", "::")]), "{own}");
    for address in [NODE_OUTSIDE, NODE_INSIDE, sensor_tests::netns::NODE_V6] {
        let docker =
            sensor.wait_is("listener", &[("listener.state", "snapshot"), ("net.local.ip", address)])?;
        let fields =
            [("process.comm", "dockerd"), ("listener.service", "docker"), ("net.local.port", "2375")];
        ensure!(docker.is("listener", &fields), "{docker}\nhas not {fields:?}");
        ensure!(docker.number("process.pid") == Some(lab.dockerd.id().into()), "{docker}");
        ensure!(
            docker.at("listener.netns") != own.at("listener.netns"),
            "they are in different namespaces: {docker}"
        );
    }
    sensor.stop().map(drop)
}

fn socket_activation(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let listener = listen(&lab.network.node, Ipv4Addr::UNSPECIFIED.into(), KUBELET)?;
    let opened = sensor.wait_is("listener", &[("listener.state", "opened"), ("net.local.port", "10250")])?;
    ensure_own(&opened)?;
    // Handed over as a file descriptor, as an init system does; this process closes its own.
    let mut service = Command::new("sleep");
    service.arg("600").stdin(Stdio::from(OwnedFd::from(listener)));
    let mut holder = Process::start(&mut service)?;
    drop(service);
    // Nothing in the kernel tells of the hand-over; holders are looked up again for an accept when the last look is
    // older than this.
    std::thread::sleep(Duration::from_millis(300));
    // The kernel completes the connection whether or not the holder ever calls accept.
    let client = connect(&lab.network.client, NODE_OUTSIDE, KUBELET)?;
    let accept = accept_of(&sensor, &client)?;
    let fields = [("process.pid", &*holder.id().to_string()), ("process.comm", "sleep")];
    ensure!(accept.is("accept", &fields), "{accept}\nhas not {fields:?}");
    holder.stop(Duration::from_secs(5));
    sensor.wait_is("listener", &[("listener.state", "closed"), ("net.local.port", "10250")])?;
    sensor.stop().map(drop)
}

fn io_uring_accept(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let listener = listen(&lab.network.node, Ipv4Addr::UNSPECIFIED.into(), KUBELET)?;
    let mut ring = io_uring::IoUring::new(8)?;
    let target = io_uring::types::Fd(listener.as_raw_fd());
    let entry = io_uring::opcode::Accept::new(target, std::ptr::null_mut(), std::ptr::null_mut()).build();
    // SAFETY: the entry refers to no memory, and the listener stays open until the completion was taken.
    unsafe { ring.submission().push(&entry)? };
    ring.submit()?;
    let client = connect(&lab.network.client, NODE_OUTSIDE, KUBELET)?;
    ring.submit_and_wait(1)?;
    let accepted = ring.completion().next().context("no completion")?.result();
    ensure!(accepted >= 0, "io_uring accept failed: {accepted}");
    let accept = accept_of(&sensor, &client)?;
    ensure_own(&accept)?;
    ensure!(accept.is("accept", &[("net.peer.ip", CLIENT_OUTSIDE), ("net.service", "kubelet")]), "{accept}");
    // SAFETY: the completion made this process the only owner of the descriptor.
    drop(unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(accepted) });
    drop(client);
    sensor.wait_is("close", &[("net.conn", accept.text("net.conn"))])?;
    sensor.stop().map(drop)
}

fn mapped_address(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let listener = listen(&lab.network.node, Ipv6Addr::UNSPECIFIED.into(), KUBELET)?;
    let client = connect(&lab.network.client, NODE_INSIDE, KUBELET)?;
    let (server, _) = listener.accept()?;
    ensure!(matches!(server.peer_addr()?.ip(), IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some()));
    let accept = accept_of(&sensor, &client)?;
    let fields =
        [("net.peer.ip", CLIENT_INSIDE), ("net.local.ip", NODE_INSIDE), ("verdict.entry", "lab-network")];
    ensure!(accept.is("accept", &fields), "{accept}\nhas not {fields:?}");
    sensor.stop().map(drop)
}

fn other_ports(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let listener = listen(&lab.network.node, Ipv4Addr::UNSPECIFIED.into(), 8080)?;
    let client = connect(&lab.network.client, NODE_OUTSIDE, 8080)?;
    listener.accept()?;
    drop((client, listener));
    let recording = ensure_nothing_of(lab, sensor, 8080)?;
    let reported = recording.of_kind("accept").filter(|record| record.text("net.local.ip") == NODE_OUTSIDE);
    ensure!(reported.count() == 1, "only the last connection is to be reported");
    Ok(())
}

/// Makes one connection that must be reported, so that everything before it was looked at, and checks that a port is in
/// no record.
fn ensure_nothing_of(lab: &Lab, sensor: Sensor, port: u64) -> Result<sensor_tests::sensor::Recording> {
    let _last = listen(&lab.network.node, Ipv4Addr::UNSPECIFIED.into(), KUBELET)?;
    let client = connect(&lab.network.client, NODE_OUTSIDE, KUBELET)?;
    accept_of(&sensor, &client)?;
    let recording = sensor.stop()?;
    let mentions = |record: &&Record| {
        ["net.local.port", "net.peer.port"].iter().any(|path| record.number(path) == Some(port))
    };
    let found = recording.records.iter().find(mentions);
    ensure!(found.is_none(), "port {port} is not watched: {found:?}");
    Ok(recording)
}

fn direction(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let listener = listen(&lab.network.node, Ipv4Addr::UNSPECIFIED.into(), 8080)?;
    // The client's own port is a watched one: that makes it no server.
    let client = lab.network.client.within(|| {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &SocketAddr::new(CLIENT_OUTSIDE.parse().expect("an address"), 2376))?;
        rustix::net::connect(&socket, &SocketAddr::new(NODE_OUTSIDE.parse().expect("an address"), 8080))?;
        Ok(socket)
    })?;
    let (server, peer) = listener.accept()?;
    ensure!(peer.port() == 2376);
    drop((server, client, listener));
    ensure_nothing_of(lab, sensor, 2376).map(drop)
}

fn configured_port(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start("watch:\n  ports: {12375: docker}\n")?;
    let listener = listen(&lab.network.node, Ipv4Addr::UNSPECIFIED.into(), 12375)?;
    let client = connect(&lab.network.client, NODE_OUTSIDE, 12375)?;
    listener.accept()?;
    let accept = accept_of(&sensor, &client)?;
    ensure!(accept.is("accept", &[("net.service", "docker"), ("net.local.port", "12375")]), "{accept}");
    // The default ports are replaced, not extended; a daemon is told of on any port, and this is none.
    let other = listen(&lab.network.node, Ipv4Addr::UNSPECIFIED.into(), KUBELET)?;
    drop(connect(&lab.network.client, NODE_OUTSIDE, KUBELET)?);
    other.accept()?;
    let client = connect(&lab.network.client, NODE_OUTSIDE, 12375)?;
    accept_of(&sensor, &client)?;
    let recording = sensor.stop()?;
    let mut of_other =
        recording.records.iter().filter(|record| record.number("net.local.port") == Some(KUBELET.into()));
    let found = of_other.next();
    ensure!(found.is_none(), "port {KUBELET} is not configured: {found:?}");
    Ok(())
}
