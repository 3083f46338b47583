//! Flood control: what is withheld, what is reported all the same, and that every connection is in one of the counts.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use quaywatch::kernel::{FloodLimits, Options};
use sensor_common::counters::Fate;
use sensor_common::flood::{Counts, PEERS_PER_PORT, PORTS_MAX, Peer, Port, PortKey, port_origin};
use sensor_common::record::{AcceptRecord, CloseRecord, RecordKind, Ring};

use crate::watch::{Outcome, Watch, boot_ns, mapped, own_network, v2_mount};

const PEER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// A listener of our own, watched.
struct Site {
    netns: u32,
    /// Nothing else in the world uses it, so that the counts of the probes are ours.
    port: u16,
    listener: TcpListener,
    watch: Watch,
}

impl Site {
    /// One accept per peer and second after so many in a row.
    fn new(burst: u32, packets: bool) -> Self {
        static PORTS: AtomicU16 = AtomicU16::new(21_000);
        let port = PORTS.fetch_add(1, Ordering::Relaxed);
        let netns = own_network();
        let watch = watch(port, burst, packets);
        let listener = TcpListener::bind(("::", port)).expect("bind");
        Self { netns, port, listener, watch }
    }

    /// Both ends of a new connection from a source address.
    fn connect(&self, source: Ipv4Addr) -> (TcpStream, TcpStream) {
        let client = socket(libc::SOCK_STREAM, 0);
        bind_to(&client, source);
        connect_to(&client, self.port);
        (TcpStream::from(client), self.listener.accept().expect("accept").0)
    }

    /// What the probes have counted of the port and of its peers.
    fn counted(&self) -> (Port, Vec<Peer>) {
        let place = PortKey { netns: self.netns, port: u32::from(self.port) };
        let ports = self.watch.probes.flood_ports().expect("ports");
        let (_, port) = ports.into_iter().find(|(key, _)| *key == place).expect("our port");
        let peers = self.watch.probes.flood_peers().expect("peers");
        (port, peers.into_iter().filter(|peer| peer.place == place).collect())
    }

    /// Gives the probes time for what the kernel does later: ends of connections.
    fn settle(&self) {
        std::thread::sleep(Duration::from_millis(100));
    }

    fn finish(self) -> Outcome {
        self.watch.finish()
    }
}

pub fn watch(port: u16, burst: u32, packets: bool) -> Watch {
    let flood = FloodLimits { burst, per_second: 1 };
    let options = Options { flood, cgroups: packets.then(v2_mount), ..Options::default() };
    Watch::with(options, &[port], Duration::from_millis(1), |_| {})
}

fn address(ip: Ipv4Addr, port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(ip).to_be() },
        sin_zero: [0; 8],
    }
}

pub fn socket(kind: i32, protocol: i32) -> OwnedFd {
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::socket(libc::AF_INET, kind | libc::SOCK_CLOEXEC, protocol) };
    assert!(fd >= 0, "a socket");
    // SAFETY: it is ours.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub fn bind_to(socket: &OwnedFd, source: Ipv4Addr) {
    bind_to_port(socket, source, 0);
}

pub fn bind_to_port(socket: &OwnedFd, source: Ipv4Addr, port: u16) {
    let from = address(source, port);
    // SAFETY: the address lives until the call returns.
    let bound = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const from).cast(), size_of::<libc::sockaddr_in>() as u32)
    };
    assert_eq!(bound, 0, "bind: {}", std::io::Error::last_os_error());
}

pub fn connect_to(socket: &OwnedFd, port: u16) {
    let to = address(Ipv4Addr::LOCALHOST, port);
    // SAFETY: the address lives until the call returns.
    let connected = unsafe {
        libc::connect(socket.as_raw_fd(), (&raw const to).cast(), size_of::<libc::sockaddr_in>() as u32)
    };
    assert_eq!(connected, 0, "connect: {}", std::io::Error::last_os_error());
}

fn set_option(socket: &OwnedFd, level: i32, option: i32, value: i32) {
    let len = size_of::<i32>() as u32;
    // SAFETY: the value lives until the call returns.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), len) };
    assert_eq!(set, 0, "setsockopt: {}", std::io::Error::last_os_error());
}

/// The fates of a kind of management record.
fn fates(outcome: &Outcome, kind: RecordKind) -> [u64; Fate::COUNT] {
    outcome.counters.records[Ring::Management as usize][kind as usize]
}

fn accepts_from(outcome: &Outcome, source: Ipv4Addr) -> Vec<AcceptRecord> {
    let source = mapped(SocketAddr::from((source, 0)));
    let accepts = outcome.all::<AcceptRecord>(RecordKind::Accept, |accept| accept.ends.peer_addr == source);
    accepts.into_iter().map(|(_, accept)| accept).collect()
}

#[test]
fn accepts_beyond_the_burst_are_withheld_with_their_closes_and_counted() {
    const CONNECTIONS: u64 = 100;
    let site = Site::new(8, true);
    let begun = Instant::now();
    for _ in 0..CONNECTIONS {
        site.connect(PEER);
    }
    site.settle();
    let refilled = begun.elapsed().as_secs() + 1;
    let (port, peers) = site.counted();
    let outcome = site.finish();

    let [submitted, lost, suppressed] = fates(&outcome, RecordKind::Accept);
    assert_eq!((submitted + suppressed, lost), (CONNECTIONS, 0));
    assert!((8..=8 + refilled).contains(&submitted), "{submitted} in {:?}", begun.elapsed());
    assert_eq!(accepts_from(&outcome, PEER).len() as u64, submitted);
    assert_eq!(fates(&outcome, RecordKind::Close), [submitted, 0, suppressed]);
    let expected = Counts { attempts: CONNECTIONS, accepts: CONNECTIONS, withheld: suppressed, resumed: 0 };
    assert_eq!((port.counts, port.arrivals), (expected, 1));
    let [peer] = &peers[..] else { panic!("one peer, not {peers:?}") };
    assert_eq!(peer.counts, expected);
    let words = |[high, low]: [u64; 2]| [high.to_ne_bytes(), low.to_ne_bytes()].concat();
    assert_eq!(words(peer.addr), mapped(SocketAddr::from((PEER, 0))));
    assert_eq!(words(port.local_addr), mapped(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
}

#[test]
fn a_request_on_a_withheld_connection_is_reported_at_once_with_its_true_time() {
    let site = Site::new(1, true);
    let _first = site.connect(PEER);
    let before = boot_ns();
    let (mut client, server) = site.connect(PEER);
    let after = boot_ns();
    site.settle();
    client.write_all(b"GET /version HTTP/1.1\r\n\r\n").expect("send");
    client.write_all(b"once more").expect("send");
    site.settle();
    let (port, _) = site.counted();
    let port_of_client = client.local_addr().expect("address").port();
    let (local_port, netns) = (site.port, site.netns);
    // Detached while it is open: no end has given it away.
    let outcome = site.finish();
    drop((client, server));

    let late: Vec<_> =
        outcome.all::<AcceptRecord>(RecordKind::Accept, |accept| accept.ends.peer_port == port_of_client);
    let [(_, accept)] = &late[..] else { panic!("reported once, not {}", late.len()) };
    assert!(
        (before..=after).contains(&accept.header.boot_ns),
        "the time of the connection, not of the request"
    );
    assert_ne!(accept.conn, 0);
    assert_eq!((accept.ends.local_port, accept.ends.netns), (local_port, netns));
    assert_eq!(fates(&outcome, RecordKind::Accept), [2, 0, 0]);
    assert_eq!((port.counts.withheld, port.counts.resumed), (1, 1));
}

#[test]
fn the_end_of_a_connection_that_was_reported_late_is_reported() {
    let site = Site::new(1, true);
    let _first = site.connect(PEER);
    let (mut client, server) = site.connect(PEER);
    client.write_all(b"request").expect("send");
    site.settle();
    drop((server, client));
    site.settle();
    let port = site.port;
    let outcome = site.finish();
    let accepts = accepts_from(&outcome, PEER);
    let (_, close) = outcome.one::<CloseRecord>(RecordKind::Close, |close| close.ends.local_port == port);
    assert_eq!(accepts.iter().filter(|accept| accept.conn == close.conn).count(), 1);
    assert_eq!((close.bytes_in, fates(&outcome, RecordKind::Close)), (7, [1, 0, 0]));
}

#[test]
fn without_the_packet_hook_a_request_is_reported_when_its_connection_ends() {
    let site = Site::new(1, false);
    let _first = site.connect(PEER);
    let (mut client, server) = site.connect(PEER);
    let silent = site.connect(PEER);
    client.write_all(b"request").expect("send");
    site.settle();
    drop((server, client, silent));
    site.settle();
    let port = site.port;
    let outcome = site.finish();
    assert_eq!(fates(&outcome, RecordKind::Accept), [2, 0, 1], "all but the silent one");
    let (_, close) = outcome.one::<CloseRecord>(RecordKind::Close, |close| close.ends.local_port == port);
    assert_eq!(accepts_from(&outcome, PEER)[1].conn, close.conn);
    assert_eq!(fates(&outcome, RecordKind::Close), [1, 0, 1]);
}

#[test]
fn requests_beyond_their_budget_are_reported_on_the_other_ring_and_none_is_withheld() {
    const CONNECTIONS: u64 = 30;
    for packets in [true, false] {
        let site = Site::new(4, packets);
        let begun = Instant::now();
        for _ in 0..CONNECTIONS {
            let (mut client, server) = site.connect(PEER);
            client.write_all(b"r").expect("send");
            drop((server, client));
        }
        site.settle();
        let refilled = 2 * (begun.elapsed().as_secs() + 1);
        let (port, _) = site.counted();
        let outcome = site.finish();
        let [submitted, lost, suppressed] = fates(&outcome, RecordKind::Accept);
        assert_eq!((lost, suppressed), (0, 0));
        assert!(
            (8..=8 + refilled).contains(&submitted),
            "a burst of accepts and of requests, not {submitted}"
        );
        let of_bulk = |kind: RecordKind| outcome.counters.records[Ring::Bulk as usize][kind as usize];
        let beyond = CONNECTIONS - submitted;
        assert_eq!(of_bulk(RecordKind::Accept), [beyond, 0, 0]);
        assert_eq!(accepts_from(&outcome, PEER).len() as u64, CONNECTIONS);
        // The end goes where the beginning went.
        assert_eq!(fates(&outcome, RecordKind::Close), [submitted, 0, 0]);
        assert_eq!(of_bulk(RecordKind::Close), [beyond, 0, 0]);
        assert_eq!(port.counts.withheld, port.counts.resumed);
    }
}

#[test]
fn a_request_in_the_packet_that_completes_the_connection_is_not_withheld() {
    let site = Site::new(1, true);
    let _first = site.connect(PEER);
    let client = socket(libc::SOCK_STREAM, 0);
    // The answer to the server's packet waits for the first data.
    set_option(&client, libc::IPPROTO_TCP, libc::TCP_QUICKACK, 0);
    bind_to(&client, PEER);
    connect_to(&client, site.port);
    let mut client = TcpStream::from(client);
    client.write_all(b"request").expect("send");
    let _server = site.listener.accept().expect("accept");
    site.settle();
    let (port, _) = site.counted();
    // No further packet and no end has given it away.
    let outcome = site.finish();
    assert_eq!(accepts_from(&outcome, PEER).len(), 2);
    assert_eq!((port.counts.accepts, port.counts.withheld, port.counts.resumed), (2, 0, 0));
}

#[test]
fn a_request_in_the_first_packet_is_not_withheld() {
    /// Both ends; without cookies; for every listener.
    const EVERYTHING: &str = "1543";
    let site = Site::new(1, true);
    fs::write("/proc/sys/net/ipv4/tcp_fastopen", EVERYTHING).expect("a setting of the network namespace");
    let _first = site.connect(PEER);
    let client = socket(libc::SOCK_STREAM, 0);
    bind_to(&client, PEER);
    let (to, len) = (address(Ipv4Addr::LOCALHOST, site.port), size_of::<libc::sockaddr_in>() as u32);
    // SAFETY: data and address live until the call returns.
    let sent = unsafe {
        let (fd, to) = (client.as_raw_fd(), (&raw const to).cast());
        libc::sendto(fd, b"request".as_ptr().cast(), 7, libc::MSG_FASTOPEN, to, len)
    };
    assert_eq!(sent, 7, "{}", std::io::Error::last_os_error());
    let _server = site.listener.accept().expect("accept");
    site.settle();
    let (port, _) = site.counted();
    let outcome = site.finish();
    assert_eq!(accepts_from(&outcome, PEER).len(), 2);
    assert_eq!((port.counts.accepts, port.counts.withheld), (2, 0));
}

#[test]
fn a_full_table_of_ports_leaves_those_of_the_node_and_each_port_apart() {
    const FIRST: u16 = 23_000;
    const PORTS: u16 = 1100;
    let network_of = |process: &str| fs::metadata(format!("/proc/{process}/ns/net"));
    // Where the first process is hidden from us, it is hidden from the agent.
    let node = network_of("1").or_else(|_| network_of("self")).expect("a namespace").ino() as u32;
    let ports: Vec<u16> = (FIRST..FIRST + PORTS).collect();
    let watch = Watch::with(Options::default(), &ports, Duration::from_millis(1), |_| {});
    own_network();
    // Those that have entries of their own for good come last, when the table is full.
    for port in ports.iter().rev() {
        let listener = TcpListener::bind(("127.0.0.1", *port)).expect("bind");
        drop((TcpStream::connect(("127.0.0.1", *port)).expect("connect"), listener.accept()));
    }
    let counted = watch.probes.flood_ports().expect("ports");
    drop(watch.finish());
    let accepts = |netns: u32, port: u16| {
        let key = PortKey { netns, port: u32::from(port) };
        counted.iter().find(|(known, _)| *known == key).map(|(_, port)| (port.counts.accepts, port.origin))
    };
    assert_eq!(counted.len(), PORTS_MAX as usize);
    assert_eq!(accepts(node, FIRST), Some((0, port_origin::NODE)), "of the node, and its own");
    assert_eq!(accepts(0, FIRST), Some((1, port_origin::SHARED)), "of all that found no place");
    let (of_unlisted, _) = accepts(0, 0).expect("the last resort");
    assert!(of_unlisted > 0);
    let sum: u64 = counted.iter().map(|(_, port)| port.counts.accepts).sum();
    assert_eq!(sum, u64::from(PORTS));
}

#[test]
fn the_flood_of_one_peer_leaves_the_budget_of_others_alone() {
    let site = Site::new(4, true);
    for _ in 0..200 {
        site.connect(PEER);
    }
    site.connect(OTHER);
    let outcome = site.finish();
    assert_eq!(accepts_from(&outcome, OTHER).len(), 1);
}

#[test]
fn a_crowd_has_a_common_budget_and_busy_peers_leave_some_of_it() {
    const PEERS: u32 = 400;
    const BURST: u32 = 4;
    let site = Site::new(BURST, true);
    let begun = Instant::now();
    let crowd = |number: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + number);
    for _ in 0..3 {
        for number in 0..PEERS {
            site.connect(crowd(number));
        }
    }
    let seconds = begun.elapsed().as_secs() + 1;
    let (port, peers) = site.counted();
    let outcome = site.finish();
    let [submitted, _, suppressed] = fates(&outcome, RecordKind::Accept);
    assert_eq!(submitted + suppressed, u64::from(3 * PEERS));
    assert_eq!((port.counts.accepts, port.counts.withheld), (u64::from(3 * PEERS), suppressed));
    let most = (u64::from(BURST) + seconds) * PEERS_PER_PORT;
    assert!(submitted <= most, "{submitted} of at most {most} in {:?}", begun.elapsed());
    assert!(
        submitted >= u64::from(BURST) * PEERS_PER_PORT / 2,
        "{submitted}: the common budget was not used"
    );
    // Chance has it that a few find both their places taken: one in some hundred, with so many. Who has lost his place may
    // find another one later.
    let lost_places = port.arrivals - u64::from(PEERS);
    assert!(lost_places <= u64::from(PEERS) / 20, "{lost_places} have lost their place");
    assert!(u64::from(PEERS) - peers.len() as u64 <= lost_places, "{} of {PEERS} are known", peers.len());
    let sum: u64 = peers.iter().map(|peer| peer.counts.withheld).sum();
    assert!(sum <= suppressed && (lost_places > 0 || sum == suppressed), "{sum} of {suppressed}");
}

/// Waits until the kernel knows an address as its own: it adds the route to a new one later, in a work queue
/// (addrconf_dad_work). Until then the route of its network, if another address has brought that, leads nowhere.
fn wait_for_route(address: &str) {
    let begun = Instant::now();
    let is_there = || {
        let arguments = ["-6", "route", "show", "table", "local", "type", "local", "exact", address];
        let routes = std::process::Command::new("ip").args(arguments).output().expect("ip");
        !routes.stdout.is_empty()
    };
    while !is_there() {
        assert!(begun.elapsed() < Duration::from_secs(10), "no local route to {address}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Connects three times from each of these addresses; returns accepts and withheld ones of each peer.
fn peers_of(addresses: &[&str]) -> Vec<(u64, u64)> {
    let site = Site::new(4, true);
    for address in addresses {
        let network = format!("{address}/64");
        let arguments = ["-6", "address", "add", &network, "dev", "lo", "nodad"];
        assert!(std::process::Command::new("ip").args(arguments).status().expect("ip").success());
        wait_for_route(address);
    }
    // A connection to one's own address comes from that address.
    for target in addresses {
        for _ in 0..3 {
            drop((
                TcpStream::connect((*target, site.port)).expect("connect"),
                site.listener.accept().expect("accept"),
            ));
        }
    }
    let (port, peers) = site.counted();
    drop(site.finish());
    assert_eq!(port.counts.attempts, 3 * addresses.len() as u64);
    let mut counts: Vec<_> = peers.iter().map(|peer| (peer.counts.accepts, peer.counts.withheld)).collect();
    counts.sort_unstable();
    counts
}

#[test]
fn global_addresses_of_one_ipv6_network_share_a_budget() {
    assert_eq!(peers_of(&["2001:2:0:5::1", "2001:2:0:5::2", "2001:2:0:6::1"]), [(3, 0), (6, 2)]);
}

#[test]
fn local_addresses_of_one_ipv6_network_are_many_hosts() {
    assert_eq!(peers_of(&["fd00:5::1", "fd00:5::2", "64:ff9b::1", "64:ff9b::2"]), [(3, 0); 4]);
}

#[test]
fn attempts_that_are_not_completed_are_counted_once_however_often_they_are_repeated() {
    let site = Site::new(8, true);
    site.connect(PEER);
    for (source_port, sequence) in [(40_001, 7), (40_001, 7), (40_001, 8), (40_002, 7), (40_002, 7)] {
        send_syn(SocketAddrV4::new(OTHER, source_port), site.port, sequence);
    }
    let (port, peers) = site.counted();
    drop(site.finish());
    assert_eq!((port.counts.attempts, port.counts.accepts), (4, 1));
    let scanner =
        peers.iter().find(|peer| peer.counts.accepts == 0).expect("the peer that completed nothing");
    assert_eq!(scanner.counts.attempts, 3);
}

#[test]
fn accepts_by_syn_cookie_are_seen() {
    let site = Site::new(2, true);
    // 2: for every connection, not only when the queue is full. A setting of the network namespace.
    fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").expect("the setting");
    for _ in 0..3 {
        let (mut client, _server) = site.connect(PEER);
        client.write_all(b"request").expect("send");
    }
    site.settle();
    let (port, _) = site.counted();
    let outcome = site.finish();
    assert_eq!(fates(&outcome, RecordKind::Accept), [3, 0, 0], "two, and one because of its request");
    assert_eq!((port.counts.attempts, port.counts.accepts, port.counts.resumed), (3, 3, 1));
}

/// Sends the first packet of a connection and nothing else.
fn send_syn(source: SocketAddrV4, port: u16, sequence: u32) {
    const SYN: u8 = 2;
    let (from, local) = (source.ip().octets(), Ipv4Addr::LOCALHOST.octets());
    let mut segment = Vec::with_capacity(20);
    segment.extend(source.port().to_be_bytes());
    segment.extend(port.to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend([5 << 4, SYN, 0xff, 0xff, 0, 0, 0, 0]);
    let pseudo = [&from[..], &local[..], &[0, libc::IPPROTO_TCP as u8, 0, 20], &segment[..]].concat();
    let sum: u32 = pseudo.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    // The kernel fills in length, identification and checksum of the header.
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, libc::IPPROTO_TCP as u8, 0, 0];
    packet.extend(from);
    packet.extend(local);
    packet.extend(segment);
    let raw = socket(libc::SOCK_RAW, libc::IPPROTO_RAW);
    let to = address(Ipv4Addr::LOCALHOST, 0);
    // SAFETY: packet and address live until the call returns.
    let sent = unsafe {
        libc::sendto(
            raw.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_in>() as u32,
        )
    };
    assert_eq!(sent, packet.len() as isize, "{}", std::io::Error::last_os_error());
}
