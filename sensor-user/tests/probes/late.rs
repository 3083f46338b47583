//! Accepts that no program was told of. What the kernel does by chance (it calls no tracing program in a softirq that has
//! interrupted one of the same name) is made here by watching a port once its connections are complete.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use quaywatch::kernel::Options;
use sensor_common::counters::{Event, Fate};
use sensor_common::record::{AcceptRecord, CloseRecord, PayloadRecord, RecordKind, Ring};
use sensor_common::settings::port_flags;

use crate::flood::{bind_to_port, connect_to, socket};
use crate::watch::{Outcome, Watch, own_network, v2_mount};

/// Not watched at first. A port for each test: a sensor gives the sockets of a port that it watches a number, by which
/// another one would take them for reported.
const UNTOLD: u16 = 22_100;
const OLDER: u16 = 22_101;
const OPENED: u16 = 22_102;
const ELSEWHERE: u16 = 22_103;

fn watch() -> Watch {
    let options = Options { cgroups: Some(v2_mount()), ..Options::default() };
    Watch::with(options, &[], Duration::from_millis(1), |_| {})
}

fn begin_to_watch(watch: &mut Watch, port: u16) {
    watch.probes.set_ports([(port, port_flags::WATCHED | port_flags::PLAINTEXT)]).expect("ports");
}

/// Both ends of a new connection.
fn connection(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    (client, listener.accept().expect("accept").0)
}

fn say(from: &mut TcpStream, to: &mut TcpStream, words: &[u8]) {
    from.write_all(words).expect("write");
    let mut heard = vec![0; words.len()];
    to.read_exact(&mut heard).expect("read");
    assert_eq!(heard, words);
}

fn late(outcome: &Outcome, netns: u32) -> Vec<AcceptRecord> {
    let of_network = |accept: &AcceptRecord| accept.ends.netns == netns;
    outcome.all(RecordKind::LateAccept, of_network).into_iter().map(|(_, accept)| accept).collect()
}

#[test]
fn an_accept_that_no_program_was_told_of_is_reported_with_its_first_data() {
    let netns = own_network();
    let mut watch = watch();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, UNTOLD)).expect("bind");
    let (mut client, mut server) = connection(&listener);
    begin_to_watch(&mut watch, UNTOLD);
    say(&mut client, &mut server, b"GET /_ping HTTP/1.1\r\n\r\n");
    say(&mut server, &mut client, b"HTTP/1.1 200 OK\r\n\r\n");
    say(&mut client, &mut server, b"GET /info HTTP/1.1\r\n\r\n");
    let peer = client.local_addr().expect("address");
    drop((client, server));
    std::thread::sleep(Duration::from_millis(100));
    let outcome = watch.finish();

    let accepts = late(&outcome, netns);
    let [accept] = &accepts[..] else { panic!("{accepts:?}") };
    assert_eq!((accept.ends.local_port, accept.ends.peer_port), (UNTOLD, peer.port()));
    assert_eq!(accept.ends.peer_addr, crate::watch::mapped(peer));
    assert_ne!(accept.conn, 0);
    // From here on it is a connection like any other: what it asks is read, and its end is told.
    let said = outcome.all::<PayloadRecord>(RecordKind::Payload, |said| said.conn == accept.conn);
    assert_eq!(said.len(), 3);
    let (_, close) = outcome.one::<CloseRecord>(RecordKind::Close, |close| close.conn == accept.conn);
    assert_eq!(close.ends.peer_port, peer.port());
    let fates = outcome.counters.records[Ring::Management as usize][RecordKind::LateAccept as usize];
    assert_eq!(fates[Fate::Submitted as usize], 1);
}

#[test]
fn what_has_said_something_before_is_older_and_no_accept() {
    let netns = own_network();
    let mut watch = watch();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, OLDER)).expect("bind");
    let (mut client, mut server) = connection(&listener);
    say(&mut client, &mut server, b"before");
    begin_to_watch(&mut watch, OLDER);
    say(&mut client, &mut server, b"after");
    drop((client, server));
    std::thread::sleep(Duration::from_millis(100));
    let outcome = watch.finish();
    assert_eq!(late(&outcome, netns).len(), 0);
    assert_ne!(outcome.counters.events[Event::UnknownClose as usize], 0, "its end is counted as before");
}

#[test]
fn a_connection_that_was_opened_from_a_watched_port_is_no_accept() {
    let netns = own_network();
    let mut watch = watch();
    begin_to_watch(&mut watch, OPENED);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, ELSEWHERE)).expect("bind");
    let client = socket(libc::SOCK_STREAM, 0);
    bind_to_port(&client, Ipv4Addr::LOCALHOST, OPENED);
    connect_to(&client, ELSEWHERE);
    let mut client = TcpStream::from(client);
    let mut server = listener.accept().expect("accept").0;
    assert_eq!(client.local_addr().expect("address"), SocketAddr::from((Ipv4Addr::LOCALHOST, OPENED)));
    say(&mut server, &mut client, b"not a request");
    drop((client, server));
    assert_eq!(late(&watch.finish(), netns).len(), 0);
}
