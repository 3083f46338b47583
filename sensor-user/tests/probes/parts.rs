//! What bounds the sum of all budgets on the management ring, and what one cgroup has of it.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use sensor_common::flood::{PEERS_ELSEWHERE, PEERS_PER_PORT};
use sensor_common::record::{AcceptRecord, CgroupRecord, RecordKind, Ring};

use crate::cgroups::Cgroup;
use crate::flood::{bind_to, connect_to, socket, watch};
use crate::watch::{Record, own_network, task_mount};

#[test]
fn tasks_that_cause_too_many_management_records_are_sent_to_the_other_ring() {
    /// Two records each; more than a cgroup has in a row and for the seconds it takes.
    const CGROUPS: usize = 6000;
    let watch = watch(21_999, 8, false);
    // Not in the cgroup of the other tests, which have a budget of their own then.
    let cgroup = Cgroup::create(&task_mount(watch.probes.task_hierarchy()), "crowd");
    let child = cgroup.path().join("child");
    let program = format!("for (1..{CGROUPS}) {{ mkdir $ARGV[0]; rmdir $ARGV[0] }}");
    let mut flooding = cgroup.shell(&format!("exec perl -e '{program}' {}", child.display()));
    let pid = flooding.id();
    assert!(flooding.wait().expect("perl ends").success());
    let outcome = watch.finish();
    let records = outcome.all::<CgroupRecord>(RecordKind::CgroupMkdir, |record| record.task.pid == pid);
    assert_eq!(records.len(), CGROUPS, "none is lost");
    assert_eq!(records[0].0.ring, Ring::Management);
    let bulk = records.iter().filter(|(record, _)| record.ring == Ring::Bulk).count();
    assert!(bulk > 0, "all {CGROUPS} on the management ring");
}

/// What a budget bears in a time, in a row and per second.
fn most(burst: u64, per_second: u64, elapsed: Duration) -> u64 {
    burst + per_second * (elapsed.as_millis() as u64 + 1) / 1000 + 1
}

#[test]
fn many_cgroups_share_a_part_of_the_management_ring() {
    /// Two records each; less than a cgroup's own budget.
    const CHANGES: usize = 2000;
    /// They leave an eighth of the part to others.
    const CGROUPS: [&str; 3] = ["crowd-1", "crowd-2", "crowd-3"];
    let watch = watch(21_998, 8, false);
    let mount = task_mount(watch.probes.task_hierarchy());
    let cgroups = CGROUPS.map(|name| Cgroup::create(&mount, name));
    let begun = Instant::now();
    let pids = cgroups.each_ref().map(|cgroup| {
        let child = cgroup.path().join("child");
        let program = format!("for (1..{CHANGES}) {{ mkdir $ARGV[0]; rmdir $ARGV[0] }}");
        let mut flooding = cgroup.shell(&format!("exec perl -e '{program}' {}", child.display()));
        assert!(flooding.wait().expect("perl ends").success());
        flooding.id()
    });
    let most = most(2 * 4096, 4096, begun.elapsed());
    let outcome = watch.finish();
    let records = [RecordKind::CgroupMkdir, RecordKind::CgroupRmdir].map(|kind| {
        let ours = outcome.all::<CgroupRecord>(kind, |record| pids.contains(&record.task.pid));
        assert_eq!(ours.len(), CGROUPS.len() * CHANGES, "none is lost");
        for pid in pids {
            let its = ours.iter().filter(|(_, changed)| changed.task.pid == pid);
            let first = its.min_by_key(|(_, changed)| changed.header.boot_ns).expect("one");
            assert_eq!(first.0.ring, Ring::Management, "no room for a newcomer");
        }
        ours.iter().filter(|(record, _)| record.ring == Ring::Management).count() as u64
    });
    let management = records.iter().sum::<u64>();
    assert!(management <= most, "{management} of at most {most}");
}

#[test]
fn network_namespaces_share_a_part_of_the_management_ring_and_the_nodes_is_apart() {
    const PORT: u16 = 22_500;
    /// As many as one port bears; so many ports leave something to the next one.
    const PEERS: u8 = PEERS_PER_PORT as u8;
    const NAMESPACES: usize = 8;
    let watch = watch(PORT, 1, false);
    let crowd = || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).expect("bind");
        for peer in 1..=PEERS {
            let client = socket(libc::SOCK_STREAM, 0);
            bind_to(&client, Ipv4Addr::new(127, 1, 0, peer));
            connect_to(&client, PORT);
            drop((client, listener.accept().expect("accept")));
        }
    };
    // Made before, because that takes longer than to use them.
    let (begin, begun) = (Barrier::new(NAMESPACES + 1), Mutex::new(None));
    let namespaces: Vec<u32> = std::thread::scope(|scope| {
        let in_turn = || {
            let netns = own_network();
            begin.wait();
            let mut begun = begun.lock().expect("a lock");
            begun.get_or_insert_with(Instant::now);
            crowd();
            netns
        };
        let threads = [(); NAMESPACES].map(|()| scope.spawn(in_turn));
        begin.wait();
        threads.map(|thread| thread.join().expect("a thread")).into()
    });
    let begun = begun.into_inner().expect("a lock").expect("a beginning");
    let most = most(PEERS_ELSEWHERE, PEERS_ELSEWHERE, begun.elapsed());
    crowd();
    let outcome = watch.finish();
    let accepts = outcome.all::<AcceptRecord>(RecordKind::Accept, |accept| accept.ends.local_port == PORT);
    let of_node = accepts.iter().filter(|(_, accept)| !namespaces.contains(&accept.ends.netns));
    let rings: Vec<Ring> = of_node.map(|(record, _)| record.ring).collect();
    assert_eq!(rings, [Ring::Management; PEERS as usize], "crowded out by others");
    assert_eq!(accepts.len(), (NAMESPACES + 1) * usize::from(PEERS), "none is withheld or lost");
    for netns in &namespaces {
        let is_its = |(record, accept): &(&Record, AcceptRecord)| {
            accept.ends.netns == *netns && record.ring == Ring::Management
        };
        assert!(accepts.iter().any(is_its), "no room for a newcomer");
    }
    let elsewhere = accepts.iter().filter(|(record, accept)| {
        record.ring == Ring::Management && namespaces.contains(&accept.ends.netns)
    });
    let management = elsewhere.count() as u64;
    assert!(management <= most, "{management} of at most {most}");
}
