//! Listeners as endpoints: whose they are, what is served, who came first.

use super::*;
use crate::engine::{DaemonOptions, DaemonQuery, Depth};
use crate::fact::{End, LeadsTo, ListenerState, Published, Reach, Scope, Tls};
use crate::records::{Exec, P, accept, bound, ends, listener, listener_item, netns, v2};

const SOCK: u64 = 0xffff_8000;
const OUTSIDE: (&str, u16) = ("198.18.9.9", 40_000);

/// State, service, TLS and where it leads, of the listeners among facts.
fn told(facts: &[Fact]) -> Vec<(ListenerState, Service, Tls, Option<LeadsTo>)> {
    let told = facts.iter().filter_map(|fact| match fact.kind {
        FactKind::Listener { state, tls, leads_to, .. } => {
            Some((state, fact.net.as_ref()?.service, tls, leads_to))
        }
        _ => None,
    });
    told.collect()
}

fn reach(fact: &Fact) -> Option<Reach> {
    match &fact.kind {
        FactKind::Listener { reach, .. } => reach.as_deref().copied(),
        _ => panic!("no listener: {fact:?}"),
    }
}

/// Runs a program of the host that opens a port, and reads what is told of it.
fn opened_by(sensor: &mut Sensor, program: P, args: &[&str], port: u16) -> Vec<Fact> {
    let path = format!("/usr/bin/{}", args[0]);
    sensor.see(|now| Exec::new(now, program, v2(HOST), &path, args).bytes());
    sensor.see(|now| listener(now, true, SOCK, program, v2(HOST), bound("0.0.0.0", port)));
    sensor.facts().into_iter().filter(|fact| matches!(fact.kind, FactKind::Listener { .. })).collect()
}

#[test]
fn a_daemon_is_told_of_on_any_port_and_says_what_it_serves() {
    use ListenerState::Opened;
    for (args, service, tls, depth) in [
        (
            &["dockerd", "-H", "tcp://0.0.0.0:4243", "--tls=false"][..],
            Service::Docker,
            Tls::Plaintext,
            Depth::Requests,
        ),
        (
            &["dockerd", "-H", "tcp://0.0.0.0:4243", "--tlsverify"],
            Service::DockerTls,
            Tls::Tls,
            Depth::Hellos,
        ),
        (&["dockerd", "--metrics-addr", "0.0.0.0:4243"], Service::Other, Tls::Unknown, Depth::Listeners),
        (&["containerd"], Service::Other, Tls::Unknown, Depth::Listeners),
        (
            &["podman", "system", "service", "tcp://0.0.0.0:4243"],
            Service::Docker,
            Tls::Plaintext,
            Depth::Requests,
        ),
    ] {
        let mut sensor = Sensor::ready();
        let facts = opened_by(&mut sensor, P(500, "daemon"), args, 4243);
        assert_eq!(told(&facts), [(Opened, service, tls, None)], "{args:?}");
        let watch = Request::WatchPort { port: 4243, depth };
        assert!(sensor.requests().contains(&watch), "{args:?}");
    }
}

#[test]
fn other_programs_on_other_ports_are_nobodys_business() {
    let mut sensor = Sensor::ready();
    for args in [&["nginx"][..], &["docker", "ps"], &["podman", "run"], &["docker-proxy", "-host-port", "80"]]
    {
        assert_eq!(opened_by(&mut sensor, P(500, "x"), args, 4243), [], "{args:?}");
        sensor.see(|now| listener(now, false, SOCK, P(500, "x"), v2(HOST), bound("0.0.0.0", 4243)));
        assert_eq!(sensor.facts(), [], "{args:?}");
    }
    assert!(!sensor.requests().iter().any(|request| matches!(request, Request::WatchPort { .. })));
}

#[test]
fn a_published_port_that_leads_to_a_management_port_is_followed() {
    let mut sensor = Sensor::ready();
    let line =
        "docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 12375 -container-ip 172.17.0.2 -container-port";
    let mut args: Vec<&str> = line.split(' ').collect();
    args.push("2375");
    let facts = opened_by(&mut sensor, P(500, "docker-proxy"), &args, 12375);
    let ip = "172.17.0.2".parse().expect("address");
    let leads_to = Some(LeadsTo { ip, port: 2375, service: Service::Docker });
    assert_eq!(told(&facts), [(ListenerState::Opened, Service::Docker, Tls::Unknown, leads_to)]);
    *args.last_mut().expect("the port") = "8080";
    assert_eq!(opened_by(&mut Sensor::ready(), P(501, "docker-proxy"), &args, 12375), []);
}

#[test]
fn accepts_of_a_learned_port_are_those_of_its_listener_alone() {
    let mut sensor = Sensor::ready();
    opened_by(&mut sensor, P(500, "dockerd"), &["dockerd", "-H", "tcp://0.0.0.0:4243"], 4243);
    let theirs = ends(("10.0.0.1", 4243), OUTSIDE);
    sensor.see(|now| accept(now, 1, v2(HOST), theirs));
    sensor.see(|now| accept(now, 2, v2(HOST), netns(theirs, 9)));
    let facts = sensor.facts();
    let accepts: Vec<_> = facts.iter().filter(|fact| matches!(fact.kind, FactKind::Accept { .. })).collect();
    assert_eq!(accepts.len(), 1);
    assert_eq!(accepts[0].net.as_ref().map(|net| net.service), Some(Service::Docker));
}

#[test]
fn the_first_peer_from_outside_is_told_of_and_the_last_record_knows_them_all() {
    let mut sensor = Sensor::ready();
    sensor.see(|now| listener(now, true, SOCK, DOCKERD, v2(HOST), bound("0.0.0.0", 2375)));
    sensor.facts();
    let mut accept_of = |conn, peer| {
        sensor.see(|now| accept(now, conn, v2(HOST), ends(("10.0.0.1", 2375), (peer, 4))));
        sensor.facts()
    };
    // A named network, then two peers that are in none.
    assert_eq!(told(&accept_of(1, "198.18.1.9")), []);
    let first = accept_of(2, "198.18.9.9");
    assert_eq!(told(&first), [(ListenerState::Changed, Service::Docker, Tls::Unknown, None)]);
    assert_eq!(told(&accept_of(3, "198.18.9.8")), []);
    sensor.see(|now| listener(now, false, SOCK, DOCKERD, v2(HOST), bound("0.0.0.0", 2375)));
    let closed = sensor.facts();
    let (first, last) = (reach(&first[1]).expect("reached"), reach(&closed[0]).expect("reached"));
    assert_eq!((first.accepts, first.outside_peers, first.first), (2, 1, first.last));
    assert_eq!((last.accepts, last.outside_peers, last.first), (3, 2, first.first));
    assert_eq!(last.last.map(|peer| peer.ip.to_string()).as_deref(), Some("198.18.9.8"));
}

#[test]
fn loopback_of_a_container_is_not_that_of_the_host() {
    let mut sensor = Sensor::ready();
    let local = bound("127.0.0.1", 2375);
    sensor.see(|now| listener(now, true, SOCK, DOCKERD, v2(HOST), local));
    sensor.see(|now| listener(now, true, SOCK + 1, CURL, v2(HOST), netns(local, 9)));
    sensor.facts();
    sensor.see(|now| accept(now, 1, v2(HOST), netns(ends(("127.0.0.1", 2375), ("127.0.0.1", 4)), 9)));
    sensor.see(|now| listener(now, false, SOCK, DOCKERD, v2(HOST), local));
    sensor.see(|now| listener(now, false, SOCK + 1, CURL, v2(HOST), netns(local, 9)));
    let facts = sensor.facts();
    let accepts: Vec<_> = facts[1..].iter().map(|fact| reach(fact).map(|reach| reach.accepts)).collect();
    assert_eq!(accepts, [None, Some(1)]);
    assert!(facts[1..].iter().all(|fact| matches!(
        fact.kind,
        FactKind::Listener { scope: Scope::Loopback, state: ListenerState::Closed, .. }
    )));
}

#[test]
fn a_daemons_listener_from_before_the_start_is_in_the_snapshot() {
    let mut sensor = Sensor::seeded();
    let item = |sock, task, port| listener_item(sock, task, v2(HOST), bound("0.0.0.0", port));
    let items = [item(SOCK, CONTAINERD, 40_001), item(SOCK + 1, CURL, 40_002)];
    sensor.engine.handle_listeners(at(1), &items);
    sensor.engine.handle_ready(at(2));
    let facts = sensor.read_facts();
    assert_eq!(told(&facts), [(ListenerState::Snapshot, Service::Other, Tls::Unknown, None)]);
    assert_eq!(comm(&facts[0]), Some("containerd"));
}

#[test]
fn what_a_daemon_was_told_in_its_configuration_is_told_when_it_is_known() {
    use ListenerState::{Changed, Opened};
    let mut sensor = Sensor::ready();
    let facts = opened_by(&mut sensor, P(500, "dockerd"), &["dockerd", "--config-file", "/d.json"], 4243);
    assert_eq!(told(&facts), [(Opened, Service::Other, Tls::Unknown, None)]);
    let daemon = P(500, "dockerd");
    let process = crate::ids::ProcessKey { pid: daemon.0, start_ns: daemon.start_ns() };
    let query = DaemonQuery { process, file: Some("/d.json".into()) };
    assert!(sensor.requests().contains(&Request::ReadDaemonOptions(query)));
    let options = DaemonOptions { hosts: vec!["tcp://0.0.0.0:4243".into()], ..DaemonOptions::default() };
    sensor.engine.handle_daemon_options(at(sensor.now), process, options.clone());
    assert_eq!(told(&sensor.facts()), [(Changed, Service::Docker, Tls::Plaintext, None)]);
    sensor.engine.handle_daemon_options(at(sensor.now), process, options);
    assert_eq!(told(&sensor.facts()), [], "nothing new");
}

#[test]
fn a_daemon_inside_a_container_is_told_of_on_the_ports_it_names() {
    const INSIDE: u64 = 60;
    let mut sensor = Sensor::ready();
    let path = format!("/docker/{}", long_id("cd"));
    sensor.see(|now| crate::records::cgroup(now, true, v2(INSIDE), RUNC, &path));
    sensor.facts();
    sensor.requests();
    let task = P(600, "dockerd");
    let args = ["dockerd", "-H", "tcp://0.0.0.0:4243", "--tls=false", "-H", "tcp://0.0.0.0:2375"];
    sensor
        .see(|now| Exec { mnt_ns: 7, ..Exec::new(now, task, v2(INSIDE), "/usr/bin/dockerd", &args) }.bytes());
    sensor.facts();
    let requests = sensor.requests();
    assert!(requests.contains(&Request::WatchPort { port: 4243, depth: Depth::Listeners }), "{requests:?}");
    assert!(
        !requests.contains(&Request::WatchPort { port: 2375, depth: Depth::Listeners }),
        "it is watched anyway"
    );
    let asks = |request: &Request| matches!(request, Request::ReadDaemonOptions(_));
    assert!(!requests.iter().any(asks), "the files of the host are not its own");
    sensor.see(|now| listener(now, true, SOCK, task, v2(INSIDE), netns(bound("0.0.0.0", 4243), 9)));
    let facts = sensor.facts();
    assert_eq!(told(&facts), [(ListenerState::Opened, Service::Docker, Tls::Plaintext, None)]);
    assert_eq!(container_id(&facts[0]), Some(&*long_id("cd")));
    assert!(sensor.requests().contains(&Request::WatchPort { port: 4243, depth: Depth::Accepts }));

    // Whoever calls himself so may name as many as he likes.
    let hosts: Vec<String> = (1..=200).map(|port| format!("tcp://:{port}")).collect();
    let args: Vec<&str> =
        std::iter::once("dockerd").chain(hosts.iter().flat_map(|host| ["-H", host])).collect();
    sensor.see(|now| Exec::new(now, P(601, "dockerd"), v2(INSIDE), "/usr/bin/dockerd", &args).bytes());
    sensor.facts();
    assert_eq!(sensor.engine.learned_ports().count(), 64);
}

fn published(id: &str, host: (&str, u16), inner: u16) -> ContainerMetadata {
    let end = |ip: &str, port| End { ip: ip.parse().expect("address"), port };
    ContainerMetadata {
        id: id.into(),
        name: Some("web".into()),
        risks: Some(Risks::default()),
        published: vec![Published { host: end(host.0, host.1), inner: end("172.17.0.2", inner) }],
        ..ContainerMetadata::default()
    }
}

/// Has a container start, whose cgroup is 60.
fn start_container(sensor: &mut Sensor, id: &str) {
    sensor.see(|now| crate::records::cgroup(now, true, v2(60), RUNC, &format!("/docker/{id}")));
    sensor.see(|now| {
        Exec { mnt_ns: 7, ns_pid: 1, ..Exec::new(now, P(600, "sh"), v2(60), "/bin/sh", &["sh"]) }.bytes()
    });
    sensor.facts();
}

#[test]
fn a_port_that_the_packet_filter_publishes_is_an_endpoint_of_its_container() {
    let id = long_id("cd");
    let ip = "172.17.0.2".parse().expect("address");
    let leads_to = Some(LeadsTo { ip, port: 2375, service: Service::Docker });
    let mut sensor = Sensor::ready();
    sensor.engine.handle_host_network(1);
    sensor.engine.handle_listeners(at(sensor.now), &[]);
    start_container(&mut sensor, &id);
    for _ in 0..2 {
        sensor.engine.handle_container_metadata(at(sensor.now), published(&id, ("0.0.0.0", 12375), 2375));
    }
    let facts = sensor.facts();
    assert_eq!(told(&facts), [(ListenerState::Opened, Service::Docker, Tls::Unknown, leads_to)]);
    let fact = facts.iter().find(|fact| matches!(fact.kind, FactKind::Listener { .. })).expect("it is there");
    assert_eq!((container_id(fact), comm(fact)), (Some(&*id), None));
    sensor.see(|now| crate::records::exit(now, P(600, "sh"), v2(60), 0));
    let closed = (ListenerState::Closed, Service::Docker, Tls::Unknown, leads_to);
    assert_eq!(told(&sensor.facts()), [closed]);

    // One that leads elsewhere is nobody's business.
    start_container(&mut sensor, &long_id("ef"));
    let elsewhere = published(&long_id("ef"), ("0.0.0.0", 8080), 80);
    sensor.engine.handle_container_metadata(at(sensor.now), elsewhere);
    assert_eq!(told(&sensor.facts()), []);
}

#[test]
fn a_port_that_dockerd_keeps_for_a_container_is_told_of_with_where_it_leads() {
    let id = long_id("cd");
    let mut sensor = Sensor::ready();
    sensor.engine.handle_host_network(1);
    sensor.engine.handle_listeners(at(sensor.now), &[]);
    sensor.see(|now| listener(now, true, SOCK, DOCKERD, v2(HOST), bound("0.0.0.0", 12375)));
    assert_eq!(told(&sensor.facts()), [(ListenerState::Opened, Service::Other, Tls::Unknown, None)]);
    start_container(&mut sensor, &id);
    sensor.engine.handle_container_metadata(at(sensor.now), published(&id, ("0.0.0.0", 12375), 2375));
    let ip = "172.17.0.2".parse().expect("address");
    let leads_to = Some(LeadsTo { ip, port: 2375, service: Service::Docker });
    assert_eq!(told(&sensor.facts()), [(ListenerState::Changed, Service::Docker, Tls::Unknown, leads_to)]);
}

#[test]
fn a_published_port_from_before_the_start_is_told_of_behind_what_listens() {
    let id = long_id("cd");
    for is_held in [false, true] {
        let mut sensor = Sensor::seeded();
        sensor.engine.handle_host_network(1);
        let cgroups = vec![format!("/docker/{id}").into()];
        let metadata = ContainerMetadata { cgroups, ..published(&id, ("0.0.0.0", 12375), 2375) };
        sensor.engine.handle_container_metadata(at(1), metadata);
        let item = listener_item(SOCK, DOCKERD, v2(HOST), bound("0.0.0.0", 12375));
        sensor.engine.handle_listeners(at(2), if is_held { std::slice::from_ref(&item) } else { &[] });
        sensor.engine.handle_ready(at(3));
        let facts = sensor.read_facts();
        let last = told(&facts).pop().expect("it is told of");
        assert_eq!(last.3.map(|to| to.port), Some(2375), "{facts:?}");
        assert_eq!(facts.last().and_then(comm), is_held.then_some("dockerd"));
    }
}
