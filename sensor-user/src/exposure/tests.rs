//! Tests of [`super`]: order, nodes kept apart, what people read.

use sensor_core::fact::{FactKind, ListenerState, Net, Node, Quality, Tls};
use sensor_core::ids::RecordId;
use sensor_core::time::Timestamp;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn fact(node: &str, address: &str, peer: Option<&str>, kind: FactKind) -> Fact {
    let end = |address, port| fact::End { ip: ip(address), port };
    Fact {
        id: RecordId("0123456789ab-1".into()),
        at: Timestamp { boot_ns: 5, unix_ns: 1_795_343_940_000_000_000 },
        node: Arc::new(Node { name: node.into(), boot_id: "b".into(), cluster: None }),
        process: None,
        container: None,
        k8s: None,
        net: Some(Net {
            direction: peer.map(|_| fact::Direction::Inbound),
            peer: peer.map(|peer| end(peer, 4)),
            local: Some(end(address, 2375)),
            service: fact::Service::Docker,
            conn: None,
        }),
        quality: Quality::default(),
        kind,
    }
}

fn listener(node: &str, address: &str, state: ListenerState, tls: Tls) -> Fact {
    let (scope, netns, leads_to, reach) = (fact::Scope::of(ip(address)), 1, None, None);
    fact(node, address, None, FactKind::Listener { state, scope, tls, netns, leads_to, reach })
}

fn report() -> Report {
    let mut ledgers = Ledgers::new(vec!["10.0.0.0/8".parse().expect("a network")]);
    for listener in [
        listener("a", "127.0.0.1", ListenerState::Snapshot, Tls::Plaintext),
        listener("a", "10.0.0.1", ListenerState::Opened, Tls::Tls),
        listener("a", "0.0.0.0", ListenerState::Opened, Tls::Unknown),
        listener("b", "0.0.0.0", ListenerState::Opened, Tls::Plaintext),
        listener("b", "10.0.0.2", ListenerState::Opened, Tls::Plaintext),
        listener("b", "10.0.0.2", ListenerState::Closed, Tls::Plaintext),
    ] {
        ledgers.take(&listener);
    }
    ledgers.take_addresses(&"b".into(), &[ip("198.18.0.1")]);
    for (node, local, peer) in
        [("a", "10.0.0.1", "198.18.0.9"), ("b", "10.0.0.2", "198.18.0.1"), ("b", "10.0.0.3", "10.0.0.9")]
    {
        ledgers.take(&fact(
            node,
            local,
            Some(peer),
            FactKind::Accept { task: None, client: None, late: false },
        ));
    }
    Report::of_ledgers(Source::Recordings, &ledgers)
}

#[test]
fn reached_comes_above_exposed_above_the_rest() {
    let report = report();
    let rows: Vec<_> = report
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.exposure, endpoint.address.to_string(), endpoint.node.as_deref()))
        .collect();
    let row = |exposure, address: &str, node| (exposure, address.to_owned(), Some(node));
    assert_eq!(
        rows,
        [
            row(Exposure::Reached, "10.0.0.1:2375", "a"),
            // Plaintext before what may have TLS.
            row(Exposure::Exposed, "0.0.0.0:2375", "b"),
            row(Exposure::Exposed, "0.0.0.0:2375", "a"),
            row(Exposure::Local, "127.0.0.1:2375", "a"),
            row(Exposure::Closed, "10.0.0.2:2375", "b"),
        ]
    );
    // The node's own address and the named network are not outside.
    assert_eq!((report.endpoints[1].accepts, report.endpoints[1].first_peer), (2, None));
    assert_eq!(report.endpoints[0].first_peer.map(|peer| peer.ip), Some(ip("198.18.0.9")));
}

#[test]
fn people_read_who_came_and_when() {
    let text = report().text();
    for part in [
        "Reached from outside\n  10.0.0.1:2375            docker       private, tls tls, holder not known\n",
        "1 connections, 1 peers from outside",
        "first 198.18.0.9 at 2026-11-22T10:39:00.000000000Z",
        "2 connections, none from outside",
        "closed 2026-11-22T10:39:00.000000000Z",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let empty = Report::of_ledgers(Source::Host, &Ledgers::new(Vec::new())).text();
    assert!(empty.contains("no management endpoint") && empty.contains("quaywatch exposure FILE"), "{empty}");
}

#[test]
fn names_of_others_do_not_reach_the_terminal_raw() {
    let mut report = report();
    report.endpoints[0].process = Some(Process { pid: 1, comm: "a\u{1b}[2J\nb".to_owned(), exe: None });
    let text = report.text();
    assert!(!text.contains('\u{1b}') && text.contains("a\u{fffd}[2J\u{fffd}b"), "{text:?}");
}

#[test]
fn without_probes_the_report_says_so() {
    let found = doctor::Listener {
        address: "0.0.0.0:2375".parse().expect("an address"),
        service: Service::Docker,
        scope: Scope::Any,
        netns: None,
        pid: None,
        comm: None,
    };
    let report = Report::of_procfs("no permission: run as root".to_owned(), vec![found]);
    assert_eq!(report.endpoints[0].exposure, Exposure::Exposed);
    assert!(report.text().contains("no permission: run as root"));
}
