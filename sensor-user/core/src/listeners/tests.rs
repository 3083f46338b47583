//! Tests of [`super`]: which socket took a connection, and who is named for it.

use super::*;
use crate::decode::decode;
use crate::engine::SeedProcess;
use crate::event::Event;
use crate::records::{self, P, task_item, v2};

fn end(ip: &str, port: u16) -> End {
    End { ip: ip.parse().expect("address"), port }
}

fn ends(netns: u32, local: End) -> Ends {
    Ends { local, peer: end("198.18.0.9", 1), netns }
}

fn holder(task: P) -> Holder {
    Holder { task: task.task().into(), cgroup: CgroupKey { hierarchy: 0, id: 10 } }
}

fn listener(netns: u32, local: End, known_ns: u64, holders: &[P]) -> Listener {
    Listener {
        local,
        netns,
        traits: Traits { service: Service::Docker, tls: Tls::Unknown, leads_to: None },
        cgroup: CgroupKey { hierarchy: 0, id: 10 },
        opener: None,
        holders: holders.iter().copied().map(holder).collect(),
        unheld_ns: None,
        announced: None,
        known_ns,
    }
}

fn found(listeners: &Listeners, netns: u32, ip: &str, port: u16) -> Option<u64> {
    listeners.find(&ends(netns, end(ip, port))).map(|(_, listener)| listener.known_ns)
}

const ANY: P = P(9, "x");

#[test]
fn bind_address_decides_by_how_well_it_fits() {
    let mut listeners = Listeners::new(8);
    for (sock, ip) in [(1, "::"), (2, "0.0.0.0"), (3, "10.0.0.1"), (4, "fd00::1")] {
        listeners.insert(sock, listener(1, end(ip, 2375), sock, &[ANY]));
    }
    for (ip, sock) in [("10.0.0.1", 3), ("10.0.0.2", 2), ("fd00::1", 4), ("fd00::2", 1)] {
        assert_eq!(found(&listeners, 1, ip, 2375), Some(sock), "{ip}");
    }
    listeners.remove(2);
    assert_eq!(found(&listeners, 1, "10.0.0.2", 2375), Some(1), "IPv4 on an IPv6 socket");
    listeners.remove(1);
    assert_eq!(found(&listeners, 1, "10.0.0.2", 2375), None);
}

#[test]
fn other_namespaces_and_ports_do_not_match() {
    let mut listeners = Listeners::new(8);
    listeners.insert(1, listener(1, end("0.0.0.0", 2375), 1, &[ANY]));
    assert_eq!(found(&listeners, 2, "10.0.0.1", 2375), None);
    assert_eq!(found(&listeners, 1, "10.0.0.1", 2376), None);
    assert_eq!(found(&listeners, 1, "fd00::1", 2375), None, "IPv6 on an IPv4 socket");
}

#[test]
fn of_equal_sockets_one_with_holders_wins_then_the_latest() {
    let mut listeners = Listeners::new(8);
    listeners.insert(1, listener(1, end("0.0.0.0", 2375), 1, &[ANY]));
    listeners.insert(2, listener(1, end("0.0.0.0", 2375), 2, &[ANY]));
    listeners.insert(3, listener(1, end("0.0.0.0", 2375), 3, &[]));
    assert_eq!(found(&listeners, 1, "10.0.0.1", 2375), Some(2));
}

#[test]
fn exited_holder_is_dropped_from_every_socket() {
    let mut listeners = Listeners::new(8);
    listeners.insert(1, listener(1, end("0.0.0.0", 1), 1, &[P(5, "a"), P(6, "b")]));
    listeners.insert(2, listener(1, end("0.0.0.0", 2), 2, &[P(5, "a")]));
    let key = holder(P(5, "a")).task.key;
    assert!(listeners.is_holder(key));
    listeners.drop_holder(key);
    listeners.drop_holder(key);
    assert!(!listeners.is_holder(key));
    assert_eq!(listeners.peek(1).map(|listener| listener.holders.len()), Some(1));
    assert_eq!(listeners.peek(2).map(|listener| listener.holders.len()), Some(0));
}

#[test]
fn replaced_holders_are_counted_right() {
    let mut listeners = Listeners::new(8);
    let (old, new) = (holder(P(5, "a")), holder(P(6, "b")));
    listeners.insert(1, listener(1, end("0.0.0.0", 1), 1, &[P(5, "a")]));
    listeners.set_holders(1, vec![old, new]);
    listeners.set_holders(1, vec![new]);
    assert!(!listeners.is_holder(old.task.key));
    listeners.remove(1);
    assert!(!listeners.is_holder(new.task.key));
}

#[test]
fn full_table_forgets_the_oldest_socket_completely() {
    let mut listeners = Listeners::new(1);
    listeners.insert(1, listener(1, end("0.0.0.0", 1), 1, &[P(5, "a")]));
    listeners.insert(2, listener(1, end("0.0.0.0", 2), 2, &[P(6, "b")]));
    assert_eq!(found(&listeners, 1, "10.0.0.1", 1), None);
    assert!(!listeners.is_holder(holder(P(5, "a")).task.key));
    assert_eq!((listeners.len(), listeners.evicted()), (1, 1));
}

#[test]
fn daemon_is_named_before_other_holders() {
    let mut processes = Processes::new(8, Vec::new());
    let seed = |task, exe: &str| SeedProcess {
        item: task_item(task, None, v2(10)),
        exe: Some(exe.into()),
        args: None,
        truncated: false,
        contents: None,
        flags: Default::default(),
        namespaces: Default::default(),
    };
    let (systemd, daemon, shim, worker) =
        (P(1, "systemd"), P(50, "dockerd"), P(60, "docker-proxy"), P(70, "sh"));
    processes.seed(seed(systemd, "/sbin/init"));
    processes.seed(seed(daemon, "/usr/bin/dockerd"));
    processes.seed(seed(shim, "/usr/bin/docker-proxy"));
    processes.seed(seed(worker, "/bin/sh"));
    let named = |holders: &[P]| {
        let listener = listener(1, end("0.0.0.0", 1), 1, holders);
        present_holder(&listener, &processes).map(|holder| holder.task.key.pid)
    };
    assert_eq!(named(&[systemd, daemon, shim, worker]), Some(50));
    assert_eq!(named(&[systemd, shim, worker]), Some(60));
    assert_eq!(named(&[systemd, worker]), Some(70));
    assert_eq!(named(&[systemd]), Some(1));
    assert_eq!(named(&[]), None);
}

#[test]
fn forks_that_run_the_same_program_do_not_stand_for_it() {
    let mut processes = Processes::new(8, Vec::new());
    let (daemon, worker, unknown) = (P(50, "dockerd"), P(60, "dockerd"), P(70, "dockerd"));
    processes.seed(SeedProcess {
        exe: Some("/usr/bin/dockerd".into()),
        item: task_item(daemon, None, v2(10)),
        args: None,
        truncated: false,
        contents: None,
        flags: Default::default(),
        namespaces: Default::default(),
    });
    match decode(&records::fork(1, daemon, worker)).expect("decodes") {
        (_, Event::Fork(event)) => processes.fork(&event),
        other => panic!("a fork, not {other:?}"),
    }
    // Its fork record is still on its way.
    processes.ensure(&holder(unknown).task);
    let mut listener = listener(1, end("0.0.0.0", 1), 1, &[daemon, worker, unknown]);
    listener.opener = Some(holder(daemon).task.key);
    assert_eq!(present_holder(&listener, &processes).map(|holder| holder.task.key.pid), Some(50));
}

#[test]
fn scope_is_the_reach_of_the_address() {
    for (ip, scope) in [
        ("127.0.0.1", Scope::Loopback),
        ("::1", Scope::Loopback),
        ("10.1.2.3", Scope::Private),
        ("172.17.0.1", Scope::Private),
        ("192.168.1.1", Scope::Private),
        ("169.254.0.1", Scope::Private),
        ("fd00::1", Scope::Private),
        ("fe80::1", Scope::Private),
        ("0.0.0.0", Scope::Any),
        ("::", Scope::Any),
        ("198.18.0.1", Scope::Any),
        ("2001:db8::1", Scope::Any),
    ] {
        assert_eq!(scope_of(end(ip, 1)), scope, "{ip}");
    }
}
