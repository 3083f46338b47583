use sensor_common::flood::{Counts, Peer, Port, PortKey};

use super::*;
use crate::fact::{Direction, ScanShape};
use crate::health::KernelCounters;
use crate::records::{bound, listener, v2};
use crate::scans::FloodReading;

/// The network namespace of the test's records.
const PLACE: PortKey = PortKey { netns: 1, port: 2375 };

fn words(ip: &str) -> [u64; 2] {
    let octets = ip.parse::<std::net::Ipv4Addr>().expect("address").to_ipv6_mapped().octets();
    let word = |at: usize| u64::from_ne_bytes(octets[at..at + 8].try_into().expect("eight"));
    [word(0), word(8)]
}

impl Sensor {
    fn read_flood(&mut self, ports: &[(PortKey, Port)], peers: &[Peer]) {
        let reading = FloodReading { before: ports, peers, after: ports, is_last: false };
        self.engine.handle_flood(at(9000), &reading);
    }
}

fn flooded(place: PortKey) -> (PortKey, Port, Peer) {
    let counts = Counts { attempts: 0, accepts: 500, withheld: 400, resumed: 3 };
    let port = Port { local_addr: words("10.0.0.1"), counts, arrivals: 1, ..Port::default() };
    let (accepts_until_ns, requests_until_ns, since_ns) = (0, 0, 1);
    let addr = words("198.18.0.9");
    (place, port, Peer { addr, place, accepts_until_ns, requests_until_ns, since_ns, counts })
}

#[test]
fn a_flood_is_one_fact_about_the_listener_it_came_to() {
    let mut sensor = Sensor::ready();
    sensor.see(|now| listener(now, true, 0xffff_8000, DOCKERD, v2(HOST), bound("0.0.0.0", 2375)));
    sensor.facts();
    let (place, port, peer) = flooded(PLACE);
    assert!(sensor.engine.wants_flood_peers(&[(place, port)]));
    sensor.read_flood(&[(place, port)], &[peer]);
    let facts = sensor.facts();
    let [fact] = &facts[..] else { panic!("one fact, not {facts:?}") };
    let FactKind::Scan { shape, targets, peers, count, suppressed, resumed, window_ns } = fact.kind else {
        panic!("a scan, not {fact:?}")
    };
    assert_eq!(
        (shape, targets, peers, window_ns),
        (ScanShape::Flood, 1, 1, 8000),
        "since the sensor was ready"
    );
    assert_eq!((count, suppressed, resumed), (500, 400, 3));
    assert_eq!(comm(fact), Some("dockerd"));
    let net = fact.net.as_ref().expect("a port");
    assert_eq!((net.direction, net.service, &net.conn), (Some(Direction::Inbound), Service::Docker, &None));
    let (peer, local) = (net.peer.expect("one"), net.local.expect("known"));
    assert_eq!((peer.ip.to_string(), peer.port), ("198.18.0.9".to_owned(), 0));
    assert_eq!((local.ip.to_string(), local.port), ("10.0.0.1".to_owned(), 2375));
    assert!(!sensor.engine.wants_flood_peers(&[(place, port)]), "nothing new");
}

#[test]
fn ports_without_a_place_of_their_own_are_summarised_without_an_address() {
    let mut sensor = Sensor::ready();
    let (place, port, _) = flooded(PortKey { netns: 0, port: 0 });
    sensor.read_flood(&[(place, port)], &[]);
    let facts = sensor.facts();
    let [fact] = &facts[..] else { panic!("one fact, not {facts:?}") };
    let net = fact.net.as_ref().expect("a service");
    assert_eq!((net.peer, net.local, net.service), (None, None, Service::Other));
}

#[test]
fn peers_out_of_sight_are_counted_and_do_not_degrade() {
    let mut sensor = Sensor::ready();
    let (place, port, _) = flooded(PLACE);
    sensor.read_flood(&[(place, Port { arrivals: 8, ..port })], &[]);
    sensor.engine.handle_counters(at(9001), &KernelCounters::default());
    let health = sensor.outputs().into_iter().find_map(|output| match output {
        Output::Health { health, .. } => Some(health),
        _ => None,
    });
    let health = health.expect("evictions are reported");
    assert_eq!(health.state, HealthState::Running);
    assert_eq!((health.loss[0].kind, health.loss[0].evicted), ("flood-peers", 8));
}

#[test]
fn what_a_flood_withheld_has_reached_its_endpoint() {
    let mut sensor = Sensor::ready();
    let local = bound("0.0.0.0", 2375);
    sensor.see(|now| listener(now, true, 0xffff_8000, DOCKERD, v2(HOST), local));
    sensor.facts();
    let (place, port, peer) = flooded(PLACE);
    let outside = Peer { addr: words("198.18.9.9"), ..peer };
    sensor.read_flood(&[(place, port)], &[outside]);
    let facts = sensor.facts();
    let reach = |fact: &Fact| match &fact.kind {
        FactKind::Listener { reach, .. } => reach.as_deref().copied(),
        _ => None,
    };
    let first = facts.iter().find_map(reach).expect("the first peer from outside is told of");
    assert_eq!((first.accepts, first.outside_peers), (397, 1), "withheld, less those told of after all");
    assert_eq!(first.first.map(|peer| peer.ip.to_string()).as_deref(), Some("198.18.9.9"));
    sensor.see(|now| listener(now, false, 0xffff_8000, DOCKERD, v2(HOST), local));
    assert_eq!(sensor.facts().iter().find_map(reach).map(|reach| reach.accepts), Some(397));
}
