//! What is said on connections to the sockets of runtimes.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use quaywatch::kernel::Options;
use quaywatch::kernel::hooks::Feature;
use sensor_common::record::{PAYLOAD_MAX, RecordKind, SocketPayloadRecord, UNKNOWN_BYTES, payload_flags};
use zerocopy::FromBytes as _;

use crate::files::socket_key;
use crate::watch::{Outcome, Watch, assert_task, own_comm};

fn watch(path: &Path) -> Watch {
    let key = socket_key(path);
    let watch = Watch::with(Options::default(), &[], Duration::from_millis(1), |probes| {
        probes.set_runtime_sockets([(key, true)]).expect("set");
    });
    assert!(watch.probes.serves(Feature::SocketRequests), "{:?}", watch.probes.hooks());
    watch
}

/// A connection, both ends.
fn connection(listener: &UnixListener, path: &Path) -> [UnixStream; 2] {
    let client = UnixStream::connect(path).expect("connect");
    let (server, _) = listener.accept().expect("accept");
    [client, server]
}

fn say(from: &mut UnixStream, to: &mut UnixStream, bytes: &[u8]) {
    from.write_all(bytes).expect("send");
    let mut read = vec![0; bytes.len()];
    to.read_exact(&mut read).expect("receive");
    assert_eq!(read, bytes);
}

/// The records of this process, with what was captured.
fn said(outcome: &Outcome) -> Vec<(SocketPayloadRecord, Vec<u8>)> {
    let records = outcome.records.iter().filter(|record| record.kind == RecordKind::SocketPayload);
    let said = records.map(|record| {
        let (payload, tail) = SocketPayloadRecord::read_from_prefix(&record.bytes).expect("a record");
        (payload, tail[..payload.captured as usize].to_vec())
    });
    said.filter(|(payload, _)| payload.task.pid == std::process::id()).collect()
}

#[test]
fn both_directions_are_reported_with_who_writes_and_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("d.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let watch = watch(&path);
    let [mut client, mut server] = connection(&listener, &path);
    // In parts, and one that the kernel keeps in pieces.
    let large: Vec<u8> = (0..8000_u32).map(|index| index as u8).collect();
    say(&mut client, &mut server, b"question");
    say(&mut client, &mut server, &large);
    say(&mut server, &mut client, b"answer");
    say(&mut client, &mut server, b"another");
    let outcome = watch.finish();

    let said = said(&outcome);
    let seen: Vec<_> =
        said.iter().map(|(record, bytes)| (record.flags, record.offset, record.len, &bytes[..])).collect();
    let (turn, back) = (payload_flags::TURN, payload_flags::TURN | payload_flags::TO_PEER);
    let expected = [
        (turn, 0, 8, &b"question"[..]),
        (0, 8, 8000, &large[..PAYLOAD_MAX]),
        (back, 0, 6, b"answer"),
        (turn, 8008, 7, b"another"),
    ];
    assert_eq!(seen, expected);
    for (record, _) in &said {
        assert_eq!((record.conn, record.socket), (said[0].0.conn, socket_key(&path).into()));
        assert_task(&record.task, std::process::id(), &own_comm());
    }
}

#[test]
fn of_a_connection_from_before_it_is_said_that_its_beginning_is_missing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("d.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let [mut client, mut server] = connection(&listener, &path);
    let watch = watch(&path);
    say(&mut client, &mut server, b"question");
    let offsets: Vec<u64> = said(&watch.finish()).iter().map(|(record, _)| record.offset).collect();
    assert_eq!(offsets, [UNKNOWN_BYTES]);
}

#[test]
fn other_sockets_are_not_read_and_a_name_of_its_own_hides_no_client() {
    let directory = tempfile::tempdir().expect("a directory");
    let [path, other, own] = ["d.sock", "other.sock", "own.sock"].map(|name| directory.path().join(name));
    let listener = UnixListener::bind(&path).expect("a socket");
    let unwatched = UnixListener::bind(&other).expect("a socket");
    let watch = watch(&path);
    let [mut client, mut server] = connection(&unwatched, &other);
    say(&mut client, &mut server, b"private");
    say(&mut server, &mut client, b"private");

    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None)
        .expect("a socket");
    let address = |path: &Path| rustix::net::SocketAddrUnix::new(path).expect("an address");
    rustix::net::bind(&socket, &address(&own)).expect("bound");
    rustix::net::connect(&socket, &address(&path)).expect("connected");
    let (mut server, _) = listener.accept().expect("accept");
    let mut client = UnixStream::from(socket);
    say(&mut client, &mut server, b"question");
    say(&mut server, &mut client, b"answer");
    let outcome = watch.finish();
    let said: Vec<_> = said(&outcome).into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(said, [b"question".to_vec(), b"answer".to_vec()]);
}
