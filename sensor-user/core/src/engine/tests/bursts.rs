use sensor_common::record::ConnectStage;

use super::*;
use crate::fact::{Direction, End, Net, ScanShape};
use crate::records::{accept, bound, cgroup, close_after, connect, ends, listener, v2};

const PEER: &str = "198.18.0.9";
const PORTS: [u16; 4] = [2375, 2376, 6443, 10250];
const SERVICES: [Service; 4] =
    [Service::Docker, Service::DockerTls, Service::KubeApiserver, Service::Kubelet];
const SECOND: u64 = 1_000_000_000;
/// Longer than a source may be quiet.
const QUIET: u64 = 3 * SECOND;

impl Sensor {
    /// Ready, with all ports watched.
    fn watching() -> Self {
        let mut sensor = Self::ready();
        let ports = PORTS.into_iter().zip(SERVICES).collect();
        sensor.engine.handle_policy(at(2000), Policy { ports, ..settings().policy }, Vec::new());
        sensor.outputs();
        sensor
    }

    /// A connection of the peer to a port, on which it sends so many bytes.
    fn visit(&mut self, conn: u64, port: u16, bytes_in: u64) {
        let ends = ends(("10.0.0.1", port), (PEER, 40_000));
        self.see(|now| accept(now, conn, v2(HOST), ends));
        self.see(|now| close_after(now, conn, None, v2(HOST), ends, bytes_in));
    }

    /// A connect of a container that is refused.
    fn probe(&mut self, conn: u64, host: &str, port: u16) {
        let ends = ends(("172.17.0.2", 40_000), (host, port));
        self.see(|now| connect(now, conn, CURL, v2(50), ends, ConnectStage::Attempted, 0));
        self.see(|now| connect(now, conn, CURL, v2(50), ends, ConnectStage::Failed, 111));
    }

    fn scans(&mut self) -> Vec<(ScanShape, u64, u64, Net)> {
        let facts = self.facts();
        let scan = |fact: &Fact| match fact.kind {
            FactKind::Scan { shape, targets, count, peers: 1, suppressed: 0, resumed: 0, .. } => {
                Some((shape, targets, count, fact.net.clone().expect("ends")))
            }
            _ => None,
        };
        facts.iter().filter_map(scan).collect()
    }
}

fn end(ip: &str, port: u16) -> Option<End> {
    Some(End { ip: ip.parse().expect("address"), port })
}

#[test]
fn connections_without_data_are_one_record_when_the_peer_is_quiet() {
    let mut sensor = Sensor::watching();
    sensor.see(|now| listener(now, true, 0xffff_8000, DOCKERD, v2(HOST), bound("0.0.0.0", 2375)));
    for conn in 1..=5 {
        sensor.visit(conn, 2375, 0);
        sensor.pass(SECOND);
    }
    assert_eq!(sensor.scans(), [], "it goes on");
    sensor.pass(QUIET);
    let scans = sensor.scans();
    let [(shape, targets, count, net)] = &scans[..] else { panic!("one record, not {scans:?}") };
    assert_eq!((shape, targets, count), (&ScanShape::NoData, &1, &5));
    assert_eq!((net.peer, net.local), (end(PEER, 0), end("10.0.0.1", 2375)));
    assert_eq!((net.direction, net.service), (Some(Direction::Inbound), Service::Docker));
    sensor.pass(QUIET);
    assert_eq!(sensor.scans(), [], "it is told once");
}

#[test]
fn connections_with_data_are_a_scan_from_the_third_endpoint_on() {
    let mut sensor = Sensor::watching();
    for (conn, port) in (1..).zip(PORTS) {
        sensor.visit(conn, port, if port == 2376 { 0 } else { 80 });
        sensor.visit(10 + conn, port, 80);
    }
    sensor.pass(QUIET);
    let scans = sensor.scans();
    let [(shape, targets, count, net)] = &scans[..] else { panic!("one record, not {scans:?}") };
    assert_eq!((shape, targets, count), (&ScanShape::Connect, &4, &8));
    assert_eq!((net.local, net.service), (end("10.0.0.1", 0), Service::Other), "what differs has no name");
    for (conn, port) in (20..).zip(&PORTS[..2]) {
        sensor.visit(conn, *port, 80);
    }
    sensor.pass(QUIET);
    assert_eq!(sensor.scans(), [], "two endpoints are ordinary");
}

#[test]
fn probes_of_all_endpoints_without_data_are_one_record() {
    let mut sensor = Sensor::watching();
    for (conn, port) in (1..).zip(PORTS) {
        sensor.visit(conn, port, 0);
    }
    sensor.pass(QUIET);
    let scans = sensor.scans();
    assert_eq!(scans.len(), 1);
    assert_eq!((scans[0].0, scans[0].1, scans[0].2), (ScanShape::NoData, 4, 4));
}

#[test]
fn sweep_of_a_container_is_one_record_with_its_subject() {
    let id = long_id("ab");
    let mut sensor = Sensor::watching();
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("/docker/{id}")));
    for host in 1..=200 {
        sensor.probe(host, &format!("198.18.1.{host}"), 10250);
    }
    sensor.facts();
    sensor.pass(HOLD_NS);
    sensor.facts();
    sensor.pass(QUIET);
    let facts = sensor.facts();
    let [fact] = &facts[..] else { panic!("one record, not {facts:?}") };
    let FactKind::Scan { shape, targets, count, window_ns, .. } = fact.kind else { panic!("a scan") };
    assert_eq!((shape, targets, count), (ScanShape::Sweep, 200, 200));
    assert!((200_000..SECOND).contains(&window_ns), "from the first act to the last");
    assert_eq!((container_id(fact), comm(fact)), (Some(&*id), Some("curl")));
    let net = fact.net.as_ref().expect("a service");
    assert_eq!((net.direction, net.peer, net.local), (Some(Direction::Outbound), None, None));
    assert_eq!(net.service, Service::Kubelet);
    for host in 1..=3 {
        sensor.probe(300 + host, "198.18.1.1", 2374 + u16::try_from(host).expect("small"));
    }
    sensor.facts();
    sensor.pass(QUIET);
    assert_eq!(sensor.scans(), [], "three endpoints are ordinary");
}

#[test]
fn long_burst_is_told_of_in_parts() {
    let mut sensor = Sensor::watching();
    for conn in 1..=70 {
        sensor.visit(conn, 2375, 0);
        sensor.pass(SECOND);
    }
    sensor.pass(QUIET);
    let scans = sensor.scans();
    assert_eq!(scans.len(), 2);
    assert_eq!(scans.iter().map(|(_, _, count, _)| count).sum::<u64>(), 70);
}

#[test]
fn sources_have_a_bound_and_none_is_forgotten() {
    let mut sensor = Sensor::watching();
    const SOURCES: u32 = 5000;
    for number in 0..SOURCES {
        let peer = std::net::Ipv4Addr::from(0xc612_0000 + number).to_string();
        let ends = ends(("10.0.0.1", 2375), (&peer, 40_000));
        sensor.see(|now| accept(now, number.into(), v2(HOST), ends));
        sensor.see(|now| close_after(now, number.into(), None, v2(HOST), ends, 0));
    }
    let early = sensor.scans().len();
    assert_eq!(early, SOURCES as usize - 4096);
    sensor.pass(QUIET);
    assert_eq!(early + sensor.scans().len(), SOURCES as usize);
}

#[test]
fn end_of_the_run_is_the_end_of_every_burst() {
    let mut sensor = Sensor::watching();
    sensor.visit(1, 2375, 0);
    sensor.engine.finish(at(sensor.now + 1000), &crate::health::KernelCounters::default());
    assert_eq!(sensor.scans().len(), 1);
}
