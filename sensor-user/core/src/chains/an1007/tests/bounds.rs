//! What is apart from what: peers, containers, nodes; and what bounds all of it.

use super::*;

#[test]
fn containers_of_one_peer_are_one_finding_and_those_of_another_are_not() {
    let mut bench = Bench::new();
    bench.accept(10 * SECOND, "c1", ATTACKER, Service::Docker);
    bench.accept(10 * SECOND, "c2", ATTACKER, Service::Docker);
    bench.accept(10 * SECOND, "c3", OTHER, Service::Docker);
    bench.created(11 * SECOND, "x", RISKY, proved_by("c1", None));
    bench.created(12 * SECOND, "y", &[], proved_by("c2", None));
    bench.created(13 * SECOND, "z", RISKY, proved_by("c3", None));
    assert_eq!(bench.states(), [(Open, High, Proved), (Update, High, Proved), (Open, High, Proved)]);
    assert_eq!(bench.findings[1].2.entities.containers, ["x".into(), "y".into()]);
    // The plain one of the two moves: the worst of a chain counts for each container by itself.
    bench.connect(14 * SECOND, "y", LATERAL);
    assert_eq!(bench.last().severity, High);
    bench.connect(15 * SECOND, "x", LATERAL);
    assert_eq!(bench.last().severity, Critical);
}

#[test]
fn lateral_activity_is_of_several_kinds_and_of_the_container_alone() {
    let lateral = |act: fn(&mut Bench) -> Fact| {
        let mut bench = Bench::new();
        bench.accept(10 * SECOND, "c1", ATTACKER, Service::Docker);
        bench.created(11 * SECOND, "x", RISKY, proved_by("c1", None));
        let fact = act(&mut bench);
        bench.hand_in(&fact, None);
        bench.last().severity == Critical
    };
    let in_x = |fact: Fact| Fact { container: Some(container("x", &[])), ..fact };
    assert!(lateral(|bench| bench.connect_of(12 * SECOND, "x", ("169.254.169.254", 80))));
    assert!(lateral(|bench| bench.connect_of(12 * SECOND, "x", ("fd00:ec2::254", 80))));
    assert!(lateral(|bench| bench.connect_of(12 * SECOND, "x", ("fd00::12", 10250))));
    assert!(!lateral(|bench| bench.connect_of(12 * SECOND, "x", ("10.0.0.12", 443))), "no lateral port");
    assert!(!lateral(|bench| bench.connect_of(12 * SECOND, "x", ("127.0.0.1", 22))), "itself");
    assert!(!lateral(|bench| bench.connect_of(12 * SECOND, "y", LATERAL)), "another container");
    let sweep = |shape| FactKind::Scan {
        shape,
        targets: 9,
        peers: 1,
        count: 9,
        suppressed: 0,
        resumed: 0,
        window_ns: 1,
    };
    let mut bench = Bench::new();
    bench.accept(10 * SECOND, "c1", ATTACKER, Service::Docker);
    bench.created(11 * SECOND, "x", RISKY, proved_by("c1", None));
    let flood = in_x(bench.fact(12 * SECOND, sweep(ScanShape::Flood)));
    bench.hand_in(&flood, None);
    assert_eq!(bench.findings.len(), 1, "what comes to a container is not its own doing");
    let fact = in_x(bench.fact(12 * SECOND, sweep(ScanShape::Sweep)));
    bench.hand_in(&fact, None);
    let socket = FactKind::SocketConnect { path: Some("/run/docker.sock".into()), inode: 7, service: None };
    let fact = in_x(bench.fact(13 * SECOND, socket));
    bench.hand_in(&fact, None);
    let escape = FactKind::Escape(HostSide { mnt: true, pid: true, ..HostSide::default() });
    let fact = in_x(bench.fact(13 * SECOND, escape));
    bench.hand_in(&fact, None);
    bench.pass(8000 * SECOND);
    assert_eq!(bench.last().entities.targets, ["9 management endpoints".into(), "/run/docker.sock".into()]);
    assert!(bench.last().explanation.contains("on the host's side"), "{}", bench.last().explanation);
}

#[test]
fn what_is_lost_meanwhile_makes_a_finding_incomplete() {
    let mut bench = Bench::new();
    bench.chains.note_loss(&node(), 5 * SECOND, 100);
    bench.accept(10 * SECOND, "c1", ATTACKER, Service::Docker);
    bench.created(12 * SECOND, "x", RISKY, proved_by("c1", None));
    assert!(bench.last().completeness.complete, "what was lost before has nothing to do with it");
    bench.chains.note_loss(&node(), 13 * SECOND, 7);
    bench.connect(14 * SECOND, "x", LATERAL);
    assert_eq!((bench.last().completeness.complete, bench.last().completeness.lost), (false, 7));
    assert!(bench.last().explanation.contains("7 management records"));
}

#[test]
fn nodes_do_not_mix() {
    let mut bench = Bench::new();
    bench.accept(10 * SECOND, "c1", ATTACKER, Service::KubeApiserver);
    let kind = FactKind::Container { action: ContainerAction::Created, origin: Origin::none() };
    let elsewhere = Arc::new(Node { name: "node-b".into(), boot_id: "other".into(), cluster: None });
    let fact =
        Fact { container: Some(container("x", RISKY)), node: elsewhere, ..bench.fact(12 * SECOND, kind) };
    bench.hand_in(&fact, None);
    assert_eq!(bench.findings, []);
}

#[test]
fn other_limits_hold_from_then_on_and_what_is_open_stays() {
    let mut bench = Bench::new();
    bench.accept(10 * SECOND, "c1", ATTACKER, Service::Docker);
    let an1007 =
        An1007Limits { access_window_ns: 5 * SECOND, lateral_ports: vec![8080], ..An1007Limits::default() };
    bench.chains.set_limits(Limits { an1007, ..Limits::default() });
    bench.created(14 * SECOND, "x", RISKY, proved_by("c1", None));
    bench.created(16 * SECOND, "y", RISKY, proved_by("c1", None));
    bench.connect(17 * SECOND, "x", LATERAL);
    assert_eq!(bench.states(), [(Open, High, Proved)]);
    bench.connect(18 * SECOND, "x", ("10.0.0.12", 8080));
    assert_eq!(bench.last().severity, Critical);
    assert_eq!(bench.last().entities.containers, ["x".into()]);
}

#[test]
fn tables_are_bounded_and_what_had_to_go_is_told_of() {
    let mut bench = Bench::new();
    let many = super::super::CASES_MAX as u32 + 3;
    for number in 0..many {
        let peer = std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string();
        let conn = format!("c{number}");
        let at = SECOND + 2 * u64::from(number);
        bench.accept(at, &conn, &peer, Service::Docker);
        bench.created(at + 1, &format!("x{number}"), RISKY, proved_by(&conn, None));
    }
    let closed: Vec<_> = bench.findings.iter().filter(|(.., finding)| finding.state == Closed).collect();
    assert_eq!(closed.len(), 3);
    assert!(closed.iter().all(|(.., finding)| !finding.completeness.complete));
    let evicted = bench.chains.evicted();
    assert_eq!(evicted[2], ("chains", 3));
    assert!(evicted[1].1 > 0, "{evicted:?}");
}
