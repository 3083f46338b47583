//! Listeners, accepts, connects and their ends.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use quaywatch::kernel::hooks::Feature;
use quaywatch::kernel::{FloodLimits, Options};
use sensor_common::counters::{Event, Fate};
use sensor_common::record::{
    AcceptRecord, AcceptTaskRecord, CloseRecord, Direction, Endpoints, ListenerRecord, RecordKind, Ring,
};

use crate::watch::{
    Watch, assert_cgroup, assert_task, boot_ns, mapped, own_cgroup, own_comm, own_network, task_mount,
    v2_mount,
};

fn assert_ends(ends: &Endpoints, local: SocketAddr, peer: Option<SocketAddr>, netns: u32) {
    assert_eq!((ends.local_addr, ends.local_port), (mapped(local), local.port()));
    if let Some(peer) = peer {
        assert_eq!((ends.peer_addr, ends.peer_port), (mapped(peer), peer.port()));
    }
    assert_eq!(ends.netns, netns);
}

/// A conversation with `sent` bytes from the client and `answered` bytes back.
fn converse(
    listener: &TcpListener,
    target: SocketAddr,
    sent: usize,
    answered: usize,
) -> (SocketAddr, SocketAddr) {
    thread::scope(|scope| {
        let client = scope.spawn(move || {
            let mut stream = TcpStream::connect(target).expect("connect");
            stream.write_all(&vec![b'q'; sent]).expect("send");
            stream.shutdown(Shutdown::Write).expect("shutdown");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).expect("receive");
            assert_eq!(answer.len(), answered);
        });
        let (mut stream, peer) = listener.accept().expect("accept");
        let local = stream.local_addr().expect("address");
        let mut question = Vec::new();
        stream.read_to_end(&mut question).expect("receive");
        assert_eq!(question.len(), sent);
        stream.write_all(&vec![b'a'; answered]).expect("send");
        drop(stream);
        client.join().expect("client");
        (local, peer)
    })
}

#[test]
fn a_connection_is_reported_from_accept_to_close() {
    let netns = own_network();
    let port = 2375;
    let watch = Watch::start(&[port]);
    let (_, v2) = own_cgroup(&v2_mount(), 0);
    let (_, task_cgroup) =
        own_cgroup(&task_mount(watch.probes.task_hierarchy()), watch.probes.task_hierarchy().id());
    // IPv4, IPv6, and IPv4 to a listener for both.
    let cases = [
        ("127.0.0.1:2375", "127.0.0.1:2375", 5, 7),
        ("[::1]:2375", "[::1]:2375", 100_000, 1),
        ("[::]:2375", "127.0.0.1:2375", 0, 300_000),
    ];
    let mut conversations = Vec::new();
    for (bound, target, sent, answered) in cases {
        let listener = TcpListener::bind(bound).expect("bind");
        let before = boot_ns();
        let (local, peer) = converse(&listener, target.parse().expect("an address"), sent, answered);
        conversations.push((bound, local, peer, sent, answered, before..boot_ns()));
    }
    let outcome = watch.finish();

    for (bound, local, peer, sent, answered, during) in conversations {
        let (record, accept) = outcome.one::<AcceptRecord>(RecordKind::Accept, |accept| {
            accept.ends.netns == netns && accept.ends.peer_port == peer.port()
        });
        assert_eq!(record.ring, Ring::Management);
        assert_ends(&accept.ends, local, Some(peer), netns);
        assert_cgroup(accept.cgroup, v2);
        assert!(during.contains(&accept.header.boot_ns), "{bound}");

        let (record, close) =
            outcome.one::<CloseRecord>(RecordKind::Close, |close| close.conn == accept.conn);
        assert_eq!(record.ring, Ring::Management);
        assert_eq!(close.direction, Direction::Inbound as u32);
        assert_ends(&close.ends, local, Some(peer), netns);
        assert_cgroup(close.cgroup, v2);
        assert_eq!((close.bytes_in, close.bytes_out), (sent as u64, answered as u64), "{bound}");
        assert!(
            [0, accept.header.boot_ns].contains(&close.opened_ns),
            "the accept says it, where the end does not"
        );
        assert!(
            close.header.boot_ns > accept.header.boot_ns && during.contains(&close.header.boot_ns),
            "{bound}"
        );

        let bound: SocketAddr = bound.parse().expect("an address");
        for kind in [RecordKind::ListenerOpened, RecordKind::ListenerClosed] {
            let (record, listener) = outcome.one::<ListenerRecord>(kind, |listener| {
                listener.ends.netns == netns && listener.ends.local_addr == mapped(bound)
            });
            assert_eq!(record.ring, Ring::Management);
            assert_ends(&listener.ends, bound, None, netns);
            assert_eq!((listener.ends.peer_addr, listener.ends.peer_port), ([0; 16].map_peer(bound), 0));
            assert_task(&listener.task, std::process::id(), &own_comm());
            assert_cgroup(listener.cgroup, v2);
            assert_cgroup(listener.task_cgroup, task_cgroup);
        }
    }
}

/// What the remote address of a listener looks like.
trait MapPeer {
    fn map_peer(self, bound: SocketAddr) -> Self;
}

impl MapPeer for [u8; 16] {
    fn map_peer(mut self, bound: SocketAddr) -> Self {
        if bound.is_ipv4() {
            self[10..12].fill(0xff);
        }
        self
    }
}

#[test]
fn connection_ids_are_unique_and_other_ports_silent() {
    let netns = own_network();
    let flood = FloodLimits { burst: 1000, per_second: 1 };
    let options = Options { flood, ..Options::default() };
    let watch = Watch::with(options, &[2376], Duration::from_millis(1), |_| {});
    let watched = TcpListener::bind("127.0.0.1:2376").expect("bind");
    let unwatched = TcpListener::bind("127.0.0.1:2377").expect("bind");
    for _ in 0..200 {
        converse(&watched, watched.local_addr().expect("address"), 1, 1);
    }
    converse(&unwatched, unwatched.local_addr().expect("address"), 1, 1);
    let outcome = watch.finish();

    let accepts = outcome.all::<AcceptRecord>(RecordKind::Accept, |accept| accept.ends.netns == netns);
    assert!(accepts.iter().all(|(_, accept)| accept.ends.local_port == 2376));
    let mut ids: Vec<_> = accepts.iter().map(|(_, accept)| accept.conn).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((accepts.len(), ids.len()), (200, 200));
    // The other ends are told, too, where this process passes on what the connections of another test bring.
    let closes = outcome.all::<CloseRecord>(RecordKind::Close, |close| {
        close.ends.netns == netns && close.direction == Direction::Inbound as u32
    });
    assert_eq!(closes.len(), 200, "as many ends as accepts");
}

#[test]
fn listeners_from_before_are_found_in_every_network_namespace() {
    let netns = own_network();
    let port = 10250;
    let listener = TcpListener::bind(("::1", port)).expect("bind");
    let _other = TcpListener::bind(("::1", port + 1)).expect("bind");
    let mut watch = Watch::start(&[port]);
    let (_, v2) = own_cgroup(&v2_mount(), 0);
    // The iterator runs in a thread of another network namespace.
    let probes = &mut watch.probes;
    let items = thread::scope(|scope| {
        let walk = scope.spawn(|| {
            assert_ne!(own_network(), netns);
            probes.listeners().expect("an iterator")
        });
        walk.join().expect("the walk")
    });
    let mine: Vec<_> = items.iter().filter(|item| item.ends.netns == netns).collect();
    assert_eq!(mine.len(), 1, "{mine:?}");
    assert_ends(&mine[0].ends, listener.local_addr().expect("address"), None, netns);
    assert_cgroup(mine[0].cgroup, v2);
    assert_eq!(mine[0].task.pid, std::process::id());

    drop(listener);
    let sock = mine[0].sock;
    let outcome = watch.finish();
    let (_, closed) =
        outcome.one::<ListenerRecord>(RecordKind::ListenerClosed, |closed| closed.ends.netns == netns);
    assert_eq!(closed.sock, sock, "the iterator and the tracepoint name a socket alike");
}

#[test]
fn a_connection_older_than_the_sensor_is_counted_at_its_end() {
    own_network();
    let port = 64_998;
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("bind");
    let client = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    let server = listener.accept().expect("accept").0;
    let watch = Watch::start(&[port]);
    drop(client);
    drop(server);
    let outcome = watch.finish();
    assert_eq!(outcome.counters.events[Event::UnknownClose as usize], 1);
    assert!(outcome.all::<CloseRecord>(RecordKind::Close, |close| close.ends.local_port == port).is_empty());
}

#[test]
fn the_end_of_a_connection_is_reported_after_its_port_is_watched_no_more() {
    let netns = own_network();
    let mut watch = Watch::start(&[6443]);
    let listener = TcpListener::bind("127.0.0.1:6443").expect("bind");
    let client = TcpStream::connect("127.0.0.1:6443").expect("connect");
    let server = listener.accept().expect("accept").0;
    watch.probes.set_ports([]).expect("ports");
    drop(client);
    drop(server);
    let outcome = watch.finish();
    let (_, accept) = outcome.one::<AcceptRecord>(RecordKind::Accept, |accept| accept.ends.netns == netns);
    outcome.one::<CloseRecord>(RecordKind::Close, |close| close.conn == accept.conn);
    assert!(
        outcome.all::<ListenerRecord>(RecordKind::ListenerClosed, |it| it.ends.netns == netns).is_empty()
    );
}

#[test]
fn produced_equals_received_and_lost_with_a_tiny_ring() {
    const CONNECTIONS: usize = 500;
    let netns = own_network();
    let port = 64_999;
    let flood = FloodLimits { burst: 1000, per_second: 1 };
    let options = Options { management_bytes: 4096, bulk_bytes: 4096, flood, ..Options::default() };
    // The reader sleeps through it all.
    let watch = Watch::with(options, &[port], Duration::from_secs(600), |_| {});
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("bind");
    for _ in 0..CONNECTIONS {
        let client = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        drop((listener.accept().expect("accept"), client));
    }
    let outcome = watch.finish();

    let mut lost = 0;
    for ring in Ring::ALL {
        for kind in RecordKind::ALL {
            let fates = outcome.counters.records[ring as usize][kind as usize];
            let received = outcome.records.iter().filter(|record| record.ring == ring && record.kind == kind);
            assert_eq!(fates[Fate::Submitted as usize], received.count() as u64, "{ring:?} {kind:?}");
            lost += fates[Fate::Lost as usize];
        }
    }
    assert!(lost > 0, "the ring was not tiny enough");
    // Nothing else in the world uses this port, so what was produced is known.
    let accepts = outcome.counters.records[Ring::Management as usize][RecordKind::Accept as usize];
    assert_eq!(accepts.iter().sum::<u64>(), CONNECTIONS as u64);
    let received = outcome.all::<AcceptRecord>(RecordKind::Accept, |accept| accept.ends.netns == netns);
    assert_eq!(accepts[Fate::Lost as usize], (CONNECTIONS - received.len()) as u64);
    // An accept that was lost is tracked all the same, so its end is reported or lost, too.
    let closes = outcome.counters.records[Ring::Management as usize][RecordKind::Close as usize];
    assert_eq!(closes.iter().sum::<u64>(), CONNECTIONS as u64);
}

#[test]
fn the_task_that_takes_a_connection_is_told_or_the_kernel_has_no_such_hook() {
    own_network();
    let port = 2375;
    let watch = Watch::start(&[port]);
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("bind");
    let target = listener.local_addr().expect("address");
    let (_, peer) = converse(&listener, target, 1, 1);
    let serves = watch.probes.serves(Feature::AcceptTasks);
    let hooks = watch.probes.hooks();
    let outcome = watch.finish();
    if !serves {
        let of_accept = hooks.iter().filter(|hook| hook.program.starts_with("accept_task"));
        assert!(of_accept.into_iter().all(|hook| hook.reason.is_some()), "{hooks:?}");
        assert_eq!(outcome.all::<AcceptTaskRecord>(RecordKind::AcceptTask, |_| true).len(), 0);
        return;
    }
    let of_peer = |record: &AcceptRecord| record.ends.peer_port == peer.port();
    let (_, accept) = outcome.one::<AcceptRecord>(RecordKind::Accept, of_peer);
    let (_, taken) =
        outcome.one::<AcceptTaskRecord>(RecordKind::AcceptTask, |record| record.conn == accept.conn);
    assert_task(&taken.task, std::process::id(), &own_comm());
    assert!(taken.header.boot_ns >= accept.header.boot_ns);
}
