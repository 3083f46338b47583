use sensor_common::record::{Endpoints, Ring};

use super::*;
use crate::fact::{Direction, Enrichment, ListenerState, Scope};
use crate::records::{
    Exec, P, accept, accept_task, bound, close, connect, ends, exit, fork, hop, listener, listener_item, v2,
};

const SOCK: u64 = 0xffff_8000;
const PEER: (&str, u16) = ("198.18.0.9", 40_000);
const LOCAL: (&str, u16) = ("10.0.0.1", 2375);

fn listening() -> Sensor {
    let mut sensor = Sensor::ready();
    sensor.see(|now| listener(now, true, SOCK, DOCKERD, v2(HOST), bound("0.0.0.0", 2375)));
    sensor.facts();
    sensor
}

fn listener_states(facts: &[Fact]) -> Vec<ListenerState> {
    let states = facts.iter().filter_map(|fact| match fact.kind {
        FactKind::Listener { state, .. } => Some(state),
        _ => None,
    });
    states.collect()
}

#[test]
fn accept_names_the_holder_of_the_listening_socket_and_the_verdict() {
    let mut sensor = listening();
    sensor.see(|now| accept(now, 7, v2(HOST), ends(LOCAL, PEER)));
    let facts = sensor.facts();
    let [fact] = &facts[..] else { panic!("one fact, not {facts:?}") };
    assert_eq!(fact.kind, FactKind::Accept { task: None, client: None, late: false });
    assert_eq!(comm(fact), Some("dockerd"));
    assert_eq!(fact.container, None);
    assert_eq!(fact.quality.enrichment, Enrichment::Ok);
    let net = fact.net.as_ref().expect("a connection");
    assert_eq!(net.direction, Some(Direction::Inbound));
    assert_eq!(net.service, Service::Docker);
    assert_eq!(net.peer.expect("a peer").ip.to_string(), "198.18.0.9");
    assert_eq!(&*net.conn.as_ref().expect("an id").0, "000000000abc-c7");
    assert!(fact.id.0.starts_with("000000000abc-"));
}

#[test]
fn verdict_names_the_entry_that_decides() {
    let mut sensor = listening();
    let peers = ["198.18.0.9", "198.18.1.9", "127.0.0.1", "::ffff:198.18.1.9", "10.0.0.1"];
    sensor.engine.handle_addresses(at(sensor.now), vec!["10.0.0.1".parse().expect("address")]);
    for (conn, peer) in peers.iter().enumerate() {
        sensor.see(|now| accept(now, conn as u64, v2(HOST), ends(LOCAL, (peer, 1))));
    }
    let listed = |name: &str| Some(Verdict::Listed(name.into()));
    assert_eq!(
        sensor.verdicts(),
        [Some(Verdict::Unlisted), listed("vpn"), listed(IMPLIED_LOCAL), listed("vpn"), listed(IMPLIED_LOCAL)]
    );
}

#[test]
fn close_repeats_the_subject_of_its_accept() {
    let mut sensor = listening();
    sensor.see(|now| accept(now, 7, v2(HOST), ends(LOCAL, PEER)));
    // The listener and its holder are gone before the connection ends, and the ports are zero by then.
    sensor.see(|now| listener(now, false, SOCK, DOCKERD, v2(HOST), bound("0.0.0.0", 2375)));
    sensor.see(|now| exit(now, DOCKERD, v2(HOST), 0));
    sensor.see(|now| close(now, 7, None, v2(HOST), ends(("10.0.0.1", 0), PEER)));
    let facts = sensor.facts();
    let accept = facts
        .iter()
        .find(|fact| fact.kind == FactKind::Accept { task: None, client: None, late: false })
        .expect("an accept");
    let close = facts.last().expect("a close");
    let duration_ns = Some(close.at.boot_ns - accept.at.boot_ns);
    assert_eq!(close.kind, FactKind::Close { duration_ns, bytes_in: 10, bytes_out: 20 });
    assert_eq!(
        (&close.process, &close.container, &close.net),
        (&accept.process, &accept.container, &accept.net)
    );
}

#[test]
fn close_without_its_accept_speaks_from_its_own_record() {
    let mut sensor = listening();
    sensor.see(|now| close(now, 99, None, v2(HOST), ends(LOCAL, PEER)));
    let facts = sensor.facts();
    let net = facts[0].net.as_ref().expect("a connection");
    assert_eq!(comm(&facts[0]), Some("dockerd"));
    assert_eq!((net.service, net.direction), (Service::Docker, Some(Direction::Inbound)));
    assert_eq!(facts[0].kind, FactKind::Close { duration_ns: None, bytes_in: 10, bytes_out: 20 });
}

#[test]
fn listener_of_all_ipv6_addresses_takes_ipv4_connections() {
    let mut sensor = Sensor::ready();
    sensor.see(|now| listener(now, true, SOCK, DOCKERD, v2(HOST), bound("::", 2375)));
    sensor.see(|now| accept(now, 1, v2(HOST), ends(LOCAL, PEER)));
    let facts = sensor.facts();
    assert_eq!(comm(&facts[1]), Some("dockerd"));
}

#[test]
fn listener_of_the_exact_address_wins_over_the_one_of_all() {
    let mut sensor = listening();
    let nginx = P(400, "nginx");
    sensor.see(|now| listener(now, true, SOCK + 1, nginx, v2(HOST), bound("10.0.0.1", 2375)));
    sensor.see(|now| accept(now, 1, v2(HOST), ends(LOCAL, PEER)));
    sensor.see(|now| accept(now, 2, v2(HOST), ends(("10.0.0.2", 2375), PEER)));
    let facts = sensor.facts();
    assert_eq!((comm(&facts[1]), comm(&facts[2])), (Some("nginx"), Some("dockerd")));
}

#[test]
fn accept_for_an_unknown_listener_is_not_lost() {
    let mut sensor = Sensor::ready();
    sensor.see(|now| accept(now, 1, v2(HOST), ends(LOCAL, PEER)));
    let facts = sensor.facts();
    assert_eq!(facts[0].kind, FactKind::Accept { task: None, client: None, late: false });
    assert_eq!((comm(&facts[0]), facts[0].quality.enrichment), (None, Enrichment::None));
}

#[test]
fn listeners_that_were_there_come_out_as_snapshot_after_the_ready_record() {
    let mut sensor = Sensor::seeded();
    let items = [listener_item(SOCK, DOCKERD, v2(HOST), bound("127.0.0.1", 2375))];
    sensor.engine.handle_listeners(at(900), &items);
    assert!(sensor.outputs().is_empty());
    sensor.engine.handle_ready(at(1000));
    let outputs = sensor.outputs();
    let [Output::Health { seq: 0, health, .. }, Output::Fact { seq: 1, fact, .. }] = &outputs[..] else {
        panic!("ready and a listener, not {outputs:?}")
    };
    assert_eq!(health.state, HealthState::Ready);
    let FactKind::Listener { state, scope, netns, .. } = fact.kind else {
        panic!("a listener, not {fact:?}")
    };
    assert_eq!((state, scope, netns), (ListenerState::Snapshot, Scope::Loopback, 1));
    assert_eq!(comm(fact), Some("dockerd"));
}

#[test]
fn listener_seen_by_iterator_and_record_is_told_once() {
    let mut sensor = Sensor::seeded();
    let ends = bound("0.0.0.0", 2375);
    sensor.record(Ring::Management, &listener(800, true, SOCK, DOCKERD, v2(HOST), ends));
    sensor.engine.handle_listeners(at(900), &[listener_item(SOCK, DOCKERD, v2(HOST), ends)]);
    sensor.engine.handle_ready(at(1000));
    let facts = sensor.facts();
    assert_eq!(listener_states(&facts), [ListenerState::Snapshot]);
}

#[test]
fn activated_socket_belongs_to_the_daemon_it_was_passed_to() {
    let mut sensor = Sensor::seeded();
    let ends_of = bound("0.0.0.0", 2375);
    sensor.engine.handle_listeners(at(900), &[listener_item(SOCK, INIT, v2(HOST), ends_of)]);
    sensor.engine.handle_ready(at(1000));
    assert_eq!(sensor.facts().iter().map(comm).collect::<Vec<_>>(), [Some("systemd")]);

    let items =
        [listener_item(SOCK, INIT, v2(HOST), ends_of), listener_item(SOCK, DOCKERD, v2(HOST), ends_of)];
    sensor.engine.handle_listeners(at(sensor.now), &items);
    let facts = sensor.read_facts();
    assert_eq!(listener_states(&facts), [ListenerState::Changed]);
    assert_eq!(comm(&facts[0]), Some("dockerd"));

    sensor.engine.handle_listeners(at(sensor.now), &items);
    assert!(sensor.read_facts().is_empty(), "nothing changed");
    sensor.see(|now| accept(now, 1, v2(HOST), ends(LOCAL, PEER)));
    assert_eq!(comm(&sensor.facts()[0]), Some("dockerd"));
}

#[test]
fn opener_is_named_before_workers_that_run_its_program() {
    let mut sensor = Sensor::seeded();
    let (master, worker) = (P(400, "nginx"), P(401, "nginx"));
    let ends_of = bound("0.0.0.0", 2375);
    sensor.engine.handle_listeners(at(900), &[]);
    sensor.engine.handle_ready(at(1000));
    sensor.see(|now| listener(now, true, SOCK, master, v2(HOST), ends_of));
    sensor.see(|now| fork(now, master, worker));
    sensor.facts();
    let items =
        [listener_item(SOCK, worker, v2(HOST), ends_of), listener_item(SOCK, master, v2(HOST), ends_of)];
    sensor.engine.handle_listeners(at(sensor.now), &items);
    sensor.see(|now| accept(now, 1, v2(HOST), ends(LOCAL, PEER)));
    let facts = sensor.facts();
    assert_eq!(facts.last().and_then(|fact| fact.process.as_ref()).map(|process| process.pid), Some(400));
}

#[test]
fn stale_holders_are_looked_at_again_before_an_accept_goes_out() {
    let mut sensor = Sensor::seeded();
    let ends_of = bound("0.0.0.0", 2375);
    let items = [listener_item(SOCK, INIT, v2(HOST), ends_of)];
    sensor.engine.handle_listeners(at(900), &items);
    sensor.engine.handle_ready(at(1000));
    sensor.facts();
    sensor.requests();

    sensor.pass(300_000_000);
    sensor.see(|now| accept(now, 1, v2(HOST), ends(LOCAL, PEER)));
    assert!(sensor.facts().is_empty(), "waits for the answer");
    assert_eq!(sensor.requests(), [Request::RefreshListeners]);
    let items = [listener_item(SOCK, DOCKERD, v2(HOST), ends_of)];
    sensor.engine.handle_listeners(at(sensor.now), &items);
    sensor.pass(0);
    let facts = sensor.read_facts();
    assert_eq!(facts.last().map(comm), Some(Some("dockerd")));
}

#[test]
fn accept_names_the_last_holder_of_a_listener_that_is_gone_when_it_is_looked_at() {
    let mut sensor = Sensor::seeded();
    let items = [listener_item(SOCK, DOCKERD, v2(HOST), bound("0.0.0.0", 2375))];
    sensor.engine.handle_listeners(at(900), &items);
    sensor.engine.handle_ready(at(1000));
    sensor.facts();
    sensor.pass(300_000_000);
    sensor.see(|now| accept(now, 1, v2(HOST), ends(LOCAL, PEER)));
    assert!(sensor.facts().is_empty(), "waits for a look at the holders");
    sensor.engine.handle_listeners(at(sensor.now), &[]);
    sensor.pass(0);
    assert_eq!(sensor.read_facts().iter().map(comm).collect::<Vec<_>>(), [Some("dockerd")]);
    sensor.see(|now| accept(now, 2, v2(HOST), ends(LOCAL, PEER)));
    assert_eq!(sensor.facts().iter().map(comm).collect::<Vec<_>>(), [None], "after the look nobody holds it");
}

#[test]
fn accept_waits_one_poll_at_most_for_an_answer_that_does_not_come() {
    let mut sensor = Sensor::seeded();
    sensor.engine.handle_listeners(at(900), &[]);
    sensor.engine.handle_ready(at(1000));
    sensor.facts();
    sensor.requests();
    sensor.pass(300_000_000);
    for conn in 0..3 {
        sensor.see(|now| accept(now, conn, v2(HOST), ends(LOCAL, PEER)));
    }
    assert_eq!(sensor.facts().len(), 0);
    assert_eq!(sensor.facts().len(), 3);
    assert_eq!(sensor.requests(), [Request::RefreshListeners]);
}

#[test]
fn without_an_iterator_no_accept_waits() {
    let mut sensor = listening();
    sensor.pass(10_000_000_000);
    sensor.see(|now| accept(now, 1, v2(HOST), ends(LOCAL, PEER)));
    assert_eq!(sensor.facts().len(), 1);
    assert!(sensor.requests().is_empty());
}

#[test]
fn exit_of_the_holder_leaves_the_others() {
    let mut sensor = Sensor::seeded();
    let ends_of = bound("0.0.0.0", 2375);
    let items =
        [listener_item(SOCK, INIT, v2(HOST), ends_of), listener_item(SOCK, DOCKERD, v2(HOST), ends_of)];
    sensor.engine.handle_listeners(at(900), &items);
    sensor.engine.handle_ready(at(1000));
    sensor.facts();
    sensor.requests();
    sensor.see(|now| exit(now, DOCKERD, v2(HOST), 0));
    sensor.see(|now| accept(now, 1, v2(HOST), ends(LOCAL, PEER)));
    assert_eq!(comm(&sensor.facts()[0]), Some("systemd"));
    assert!(sensor.requests().contains(&Request::RefreshListeners));
}

#[test]
fn listener_in_a_container_carries_its_container_through_accept_and_close() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    let web = P(500, "web");
    sensor.see(|now| crate::records::cgroup(now, true, v2(50), RUNC, &format!("/docker/{id}")));
    sensor.facts();
    sensor.metadata(&id, "web");
    sensor.see(|now| listener(now, true, SOCK, web, v2(50), bound("0.0.0.0", 2375)));
    sensor.see(|now| accept(now, 1, v2(50), ends(LOCAL, PEER)));
    sensor.see(|now| close(now, 1, None, v2(50), ends(LOCAL, PEER)));
    let facts = sensor.facts();
    let in_container = facts.iter().filter(|fact| container_id(fact) == Some(&id)).count();
    assert_eq!(in_container, 4, "created, opened, accept, close: {facts:?}");
}

#[test]
fn closed_listener_is_told_with_its_holder_after_the_exit() {
    let mut sensor = listening();
    sensor.see(|now| exit(now, DOCKERD, v2(HOST), 0));
    sensor.see(|now| listener(now, false, SOCK, DOCKERD, v2(HOST), bound("0.0.0.0", 2375)));
    let facts = sensor.facts();
    assert_eq!(listener_states(&facts), [ListenerState::Closed]);
    let process = facts[0].process.as_ref().expect("the holder");
    assert_eq!(process.exe.as_deref(), Some("/usr/bin/dockerd"));
}

#[test]
fn the_task_that_takes_a_connection_at_once_is_named_with_it() {
    let mut sensor = listening();
    sensor.see(|now| accept(now, 7, v2(HOST), ends(LOCAL, PEER)));
    sensor.see(|now| accept_task(now, 7, CONTAINERD, v2(HOST)));
    let facts = sensor.facts();
    let [fact] = &facts[..] else { panic!("one fact, not {facts:?}") };
    let FactKind::Accept { task: Some(task), .. } = &fact.kind else { panic!("no task in {fact:?}") };
    assert_eq!((task.pid, task.start_ns, &*task.comm), (CONTAINERD.0, CONTAINERD.start_ns(), "containerd"));
    assert_eq!(task.exe.as_deref(), Some("/usr/bin/containerd"));
    assert_eq!(comm(fact), Some("dockerd"), "the holder stays the process of the record");
}

#[test]
fn a_task_that_takes_a_connection_later_amends_it() {
    let mut sensor = listening();
    sensor.see(|now| accept(now, 7, v2(HOST), ends(LOCAL, PEER)));
    let accepted = sensor.facts();
    assert_eq!(accepted[0].kind, FactKind::Accept { task: None, client: None, late: false });
    sensor.see(|now| accept_task(now, 7, CONTAINERD, v2(HOST)));
    // Of a connection that nobody was told of nothing is amended.
    sensor.see(|now| accept_task(now, 8, CONTAINERD, v2(HOST)));
    let facts = sensor.facts();
    let [fact] = &facts[..] else { panic!("one fact, not {facts:?}") };
    assert_eq!(fact.kind, FactKind::AcceptTask);
    assert_eq!(comm(fact), Some("containerd"));
    assert_eq!(fact.net, accepted[0].net);
}

/// docker-proxy has port 12375 and passes it on to a daemon in a container.
fn with_proxy() -> Sensor {
    let mut sensor = Sensor::ready();
    let args = "docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 12375 -container-ip 172.17.0.2 -container-port 2375";
    let args: Vec<&str> = args.split(' ').collect();
    sensor.see(|now| Exec::new(now, PROXY, v2(HOST), "/usr/bin/docker-proxy", &args).bytes());
    sensor.see(|now| listener(now, true, 78, PROXY, v2(HOST), bound("0.0.0.0", 12375)));
    sensor.facts();
    sensor
}

const PROXY: P = P(510, "docker-proxy");

/// A peer connects to the proxy.
fn outside(sensor: &mut Sensor, conn: u64) {
    let peer = ("198.18.0.9", 40_000 + conn as u16);
    sensor.see(|now| accept(now, conn, v2(HOST), ends(("10.0.0.1", 12375), peer)));
}

/// The proxy connects to the container.
fn pass_on(sensor: &mut Sensor, conn: u64) {
    let (own, daemon) = (("172.17.0.1", 50_000 + conn as u16), ("172.17.0.2", 2375));
    let stage = sensor_common::record::ConnectStage::Established;
    sensor.see(|now| connect(now, conn, PROXY, v2(HOST), ends(own, daemon), stage, 0));
    sensor.see(|now| accept(now, conn + 1, v2(HOST), ends(daemon, own)));
}

/// Peers behind the connections that were passed on.
fn clients(sensor: &mut Sensor) -> Vec<Option<u16>> {
    let facts = sensor.facts();
    let inner = facts
        .iter()
        .filter(|fact| fact.net.as_ref().and_then(|net| net.local).is_some_and(|local| local.port == 2375));
    inner
        .filter_map(|fact| match &fact.kind {
            FactKind::Accept { client, .. } => Some(client.as_ref().map(|client| client.end.port)),
            _ => None,
        })
        .collect()
}

#[test]
fn whoever_is_behind_a_forwarder_is_kept() {
    let mut sensor = with_proxy();
    outside(&mut sensor, 1);
    pass_on(&mut sensor, 10);
    assert_eq!(clients(&mut sensor), [Some(40_001)]);
    // What the proxy does without a client of its own is nobody's.
    pass_on(&mut sensor, 20);
    assert_eq!(clients(&mut sensor), [None]);
}

#[test]
fn of_several_at_a_time_nobody_is_named() {
    let mut sensor = with_proxy();
    outside(&mut sensor, 1);
    outside(&mut sensor, 2);
    pass_on(&mut sensor, 10);
    pass_on(&mut sensor, 20);
    assert_eq!(clients(&mut sensor), [None, None]);
    outside(&mut sensor, 3);
    pass_on(&mut sensor, 30);
    assert_eq!(clients(&mut sensor), [Some(40_003)]);
}

#[test]
fn a_connection_that_comes_late_is_not_passed_on() {
    let mut sensor = with_proxy();
    outside(&mut sensor, 1);
    sensor.pass(2_000_000_000);
    pass_on(&mut sensor, 10);
    assert_eq!(clients(&mut sensor), [None]);
}

/// A forwarder on the host, of which nothing else is told.
const SOCAT: P = P(520, "socat");

/// It has this connection of somebody else, and connects to dockerd on the host.
fn forward(sensor: &mut Sensor, conn: u64, behind: Option<Endpoints>) {
    let (own, daemon) = (("127.0.0.1", 50_000 + conn as u16), ("127.0.0.1", 2375));
    let stage = sensor_common::record::ConnectStage::Established;
    if let Some(behind) = behind {
        sensor.see(|now| hop(now, conn, SOCAT, v2(HOST), behind));
    }
    sensor.see(|now| connect(now, conn, SOCAT, v2(HOST), ends(own, daemon), stage, 0));
    sensor.see(|now| accept(now, conn + 1, v2(HOST), ends(daemon, own)));
}

#[test]
fn whoever_is_behind_a_forwarder_of_the_host_is_kept_and_judged() {
    let mut sensor = listening();
    let behind = ends(("10.0.0.1", 9999), ("198.18.0.9", 40_001));
    forward(&mut sensor, 10, Some(behind));
    sensor.pass(WINDOW_NS + 1000);
    let outputs = sensor.outputs();
    let accepts = outputs.iter().filter_map(|output| match output {
        Output::Fact { fact, verdict, .. } if matches!(fact.kind, FactKind::Accept { .. }) => {
            Some((fact, verdict))
        }
        _ => None,
    });
    let [(fact, verdict)] = accepts.collect::<Vec<_>>()[..] else { panic!("one accept in {outputs:?}") };
    let client = fact.client().expect("who is behind it");
    assert_eq!(
        (client.end.ip.to_string(), client.end.port, &client.conn),
        ("198.18.0.9".to_owned(), 40_001, &None)
    );
    assert_eq!(fact.far_peer(), Some(client.end.ip));
    assert_eq!(*verdict, Some(Verdict::Unlisted), "loopback is listed, who is behind it is not");
}

#[test]
fn a_program_that_passes_nothing_on_names_nobody_whoever_it_named_before() {
    let mut sensor = listening();
    forward(&mut sensor, 10, Some(ends(("10.0.0.1", 9999), ("198.18.0.9", 1))));
    forward(&mut sensor, 20, None);
    assert_eq!(clients(&mut sensor), [Some(1), None]);
}
