//! Tests of [`super`]: what an endpoint remembers, who is outside, what facts add up to.

use super::*;
use crate::fact::{Direction, Net, Node, Quality, Runtime};
use crate::ids::RecordId;

const HOST_NETNS: u32 = 1;

fn at(boot_ns: u64) -> Timestamp {
    Timestamp { boot_ns, unix_ns: boot_ns + 1000 }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn key(netns: u32, address: &str) -> EndpointKey {
    EndpointKey { netns, local: End { ip: ip(address), port: 2375 } }
}

fn container(id: &str) -> Arc<Container> {
    Arc::new(Container {
        id: id.into(),
        namesake: 0,
        runtime: Runtime::Docker,
        name: None,
        image: None,
        created: None,
        risks: None,
        cgroup: None,
    })
}

fn listening(container: Option<Arc<Container>>) -> Listening {
    Listening { service: Service::Docker, tls: Tls::Unknown, leads_to: None, process: None, container }
}

fn open(ledger: &mut Ledger, now: u64, key: EndpointKey, id: Option<&str>) -> Reach {
    ledger.listen(at(now), key, ListenerState::Opened, listening(id.map(container)))
}

fn only(ledger: &Ledger) -> &Endpoint {
    let all = ledger.endpoints();
    assert_eq!(all.len(), 1);
    all[0].1
}

#[test]
fn outside_is_what_no_network_holds_and_nothing_near() {
    let networks = vec!["198.18.1.0/24".parse().expect("network")];
    let inside = Inside { networks, own: vec![ip("198.18.2.1")] };
    for (peer, expected) in [
        ("198.18.0.9", true),
        ("::ffff:198.18.0.9", true),
        ("10.0.0.1", true),
        ("fd00::1", true),
        ("198.18.1.9", false),
        ("::ffff:198.18.1.9", false),
        ("198.18.2.1", false),
        ("127.0.0.1", false),
        ("169.254.1.1", false),
        ("fe80::1", false),
        ("::1", false),
    ] {
        assert_eq!(inside.is_outside(ip(peer)), expected, "{peer}");
    }
}

#[test]
fn an_endpoint_remembers_its_first_and_last_peer_from_outside() {
    let mut ledger = Ledger::default();
    let place = key(HOST_NETNS, "0.0.0.0");
    open(&mut ledger, 1, place, None);
    assert!(!ledger.accept(at(2), place, ip("10.0.0.1"), false), "a peer from inside");
    assert!(ledger.accept(at(3), place, ip("198.18.0.9"), true), "the first one from outside");
    assert!(!ledger.accept(at(4), place, ip("198.18.0.9"), true));
    assert!(!ledger.accept(at(5), place, ip("198.18.0.8"), true));
    let seen = |address, unix_ns| Some(PeerSeen { ip: ip(address), unix_ns });
    let (first, last) = (seen("198.18.0.9", 1003), seen("198.18.0.8", 1005));
    assert_eq!(*only(&ledger).reach(), Reach { accepts: 4, outside_peers: 2, first, last });
}

#[test]
fn peers_are_counted_up_to_a_bound_and_connections_without() {
    let mut ledger = Ledger::default();
    let place = key(HOST_NETNS, "0.0.0.0");
    open(&mut ledger, 1, place, None);
    for peer in 0..300_u32 {
        ledger.accept(at(2), place, IpAddr::from(peer.to_be_bytes()), true);
    }
    let reach = only(&ledger).reach();
    assert_eq!((reach.accepts, reach.outside_peers), (300, OUTSIDE_MAX as u32));
}

#[test]
fn history_outlives_a_restart_of_the_daemon_and_not_another_container() {
    let mut ledger = Ledger::default();
    let place = key(7, "0.0.0.0");
    open(&mut ledger, 1, place, Some("a"));
    ledger.accept(at(2), place, ip("198.18.0.9"), true);
    assert_eq!(ledger.close(at(3), place).map(|reach| reach.accepts), Some(1));
    assert_eq!((only(&ledger).sockets, only(&ledger).closed), (0, Some(at(3))));
    assert_eq!(open(&mut ledger, 4, place, Some("a")).accepts, 1);
    assert_eq!((only(&ledger).since, only(&ledger).closed), (at(4), None));
    ledger.close(at(5), place);
    // The number of the namespace was given to the next one.
    assert_eq!(open(&mut ledger, 6, place, Some("b")), Reach::default());
}

#[test]
fn an_endpoint_of_several_sockets_closes_with_the_last_one() {
    let mut ledger = Ledger::default();
    let place = key(HOST_NETNS, "0.0.0.0");
    open(&mut ledger, 1, place, None);
    open(&mut ledger, 2, place, None);
    ledger.close(at(3), place);
    assert_eq!(only(&ledger).sockets, 1);
    ledger.close(at(4), place);
    assert_eq!(Exposure::of(&place, only(&ledger)), Exposure::Closed);
    assert_eq!(ledger.close(at(5), key(9, "0.0.0.0")), None, "never opened");
}

#[test]
fn the_table_is_bounded_and_evictions_are_counted() {
    let mut ledger = Ledger::new(2);
    for netns in 1..=3 {
        open(&mut ledger, 1, key(netns, "0.0.0.0"), None);
    }
    assert_eq!((ledger.endpoints().len(), ledger.evicted()), (2, 1));
}

#[test]
fn exposure_is_by_address_and_by_who_came() {
    let mut ledger = Ledger::default();
    let places = ["0.0.0.0", "10.0.0.1", "127.0.0.1", "::1"].map(|address| key(HOST_NETNS, address));
    for place in places {
        open(&mut ledger, 1, place, None);
    }
    ledger.accept(at(2), places[1], ip("198.18.0.9"), true);
    let exposures: Vec<_> =
        places.iter().map(|place| Exposure::of(place, ledger.endpoints.peek(place).expect("open"))).collect();
    use Exposure::{Exposed, Local, Reached};
    assert_eq!(exposures, [Exposed, Reached, Local, Local]);
    assert!(Reached < Exposed && Exposed < Local && Local < Exposure::Closed);
}

fn fact(id: &str, now: u64, net: Net, container: Option<Arc<Container>>, kind: FactKind) -> Fact {
    let node = Arc::new(Node { name: "n".into(), boot_id: "b".into(), cluster: None });
    let (process, k8s, quality) = (None, None, Quality::default());
    Fact {
        id: RecordId(id.into()),
        at: at(now),
        node,
        process,
        container,
        k8s,
        net: Some(net),
        quality,
        kind,
    }
}

fn listener(id: &str, now: u64, netns: u32, state: ListenerState, owner: Option<Arc<Container>>) -> Fact {
    let local = Some(key(netns, "0.0.0.0").local);
    let net = Net { direction: None, peer: None, local, service: Service::Docker, conn: None };
    let (scope, tls, leads_to, reach) = (Scope::Any, Tls::Plaintext, None, None);
    fact(id, now, net, owner, FactKind::Listener { state, scope, tls, netns, leads_to, reach })
}

fn accepted(id: &str, now: u64, local: &str, owner: Option<Arc<Container>>) -> Fact {
    let end = |address, port| Some(End { ip: ip(address), port });
    let (peer, local) = (end("198.18.0.9", 4), end(local, 2375));
    let net = Net { direction: Some(Direction::Inbound), peer, local, service: Service::Docker, conn: None };
    fact(id, now, net, owner, FactKind::Accept { task: None, client: None, late: false })
}

#[test]
fn facts_of_a_recording_add_up_to_the_same_ledger() {
    let mut ledger = Ledger::default();
    let web = Some(container("web"));
    for fact in [
        listener("a-1", 1, HOST_NETNS, ListenerState::Snapshot, None),
        listener("a-2", 2, 7, ListenerState::Opened, web.clone()),
        accepted("a-3", 3, "10.0.0.1", None),
        accepted("a-4", 4, "172.17.0.2", web.clone()),
        accepted("a-5", 5, "172.17.0.2", web.clone()),
        accepted("a-6", 6, "172.17.0.9", Some(container("unknown"))),
        listener("a-7", 7, 7, ListenerState::Closed, web),
    ] {
        ledger.take(&fact, &Inside::default());
    }
    let all = ledger.endpoints();
    let [(host, on_host), (inner, in_web)] = &all[..] else { panic!("two endpoints, not {all:?}") };
    assert_eq!((host.netns, on_host.sockets, on_host.is_older, on_host.reach.accepts), (1, 1, true, 1));
    assert_eq!((inner.netns, in_web.sockets, in_web.is_older, in_web.reach.accepts), (7, 0, false, 2));
    assert_eq!((on_host.listening.tls, in_web.closed), (Tls::Plaintext, Some(at(7))));
}

#[test]
fn another_run_tells_of_its_listeners_anew() {
    let mut ledger = Ledger::default();
    let inside = Inside::default();
    ledger.take(&listener("a-1", 1, HOST_NETNS, ListenerState::Snapshot, None), &inside);
    ledger.take(&accepted("a-2", 2, "10.0.0.1", None), &inside);
    ledger.take(&listener("b-1", 9, HOST_NETNS, ListenerState::Snapshot, None), &inside);
    assert_eq!((only(&ledger).sockets, only(&ledger).reach.accepts), (1, 1));
    ledger.take(&accepted("c-1", 10, "10.0.0.1", None), &inside);
    assert_eq!((only(&ledger).sockets, only(&ledger).closed), (0, Some(at(10))));
}

#[test]
fn what_the_records_knew_is_taken_over() {
    let mut ledger = Ledger::default();
    let mut changed = listener("a-9", 9, HOST_NETNS, ListenerState::Changed, None);
    let seen = |address, unix_ns| Some(PeerSeen { ip: ip(address), unix_ns });
    let (first, last) = (seen("198.18.0.1", 2), seen("198.18.0.2", 8));
    let known = Reach { accepts: 40, outside_peers: 3, first, last };
    if let FactKind::Listener { reach, .. } = &mut changed.kind {
        *reach = Some(Arc::new(known));
    }
    ledger.take(&changed, &Inside::default());
    assert_eq!(*only(&ledger).reach(), known);
    ledger.take(&accepted("a-a", 10_000, "10.0.0.1", None), &Inside::default());
    let reach = only(&ledger).reach();
    assert_eq!((reach.accepts, reach.first), (41, first));
    assert_eq!(reach.last, seen("198.18.0.9", 11_000));
}
