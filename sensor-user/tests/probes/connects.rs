//! Connects beyond the budget of their cgroup.

use std::io::Read as _;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use quaywatch::kernel::Options;
use sensor_common::counters::{Event, Fate};
use sensor_common::record::{
    CloseRecord, ConnectRecord, ConnectStage, Direction, Endpoints, RecordKind, Ring,
};
use sensor_common::settings::port_flags;

use crate::cgroups::Cgroup;
use crate::watch::{Watch, mapped, own_network, task_mount};

const CONNECTS: u64 = 3000;
const FLOODED: u16 = 2375;
const TRIED: u16 = 2379;
const OTHER: u16 = 10_250;

/// An address that is not one of the loopback network.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// Floods one port with connects that succeed and another one with connects that fail, and the first one at every address
/// of the loopback network; then a connect to a third port, one that succeeds after all, and one to the first port of
/// another host.
const FLOOD: &str = "\
use strict; use IO::Socket::INET;
my ($count, $flooded, $tried, $other, $elsewhere) = @ARGV;
sub listener { IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $_[0], Listen => 9) or die }
sub attempt { IO::Socket::INET->new(PeerAddr => $_[1] || '127.0.0.1', PeerPort => $_[0]) }
sub refused { attempt(@_) and die }
sub accepted { my $client = attempt($_[1]) or die; $_[0]->accept or die }
my $listener = listener($flooded);
for (1..$count) { accepted($listener, $flooded); refused($tried) }
for (1..$count) { refused($flooded, '127.1.' . int($_ / 250) . '.' . (1 + $_ % 250)) }
refused($flooded, $elsewhere);
refused($other);
accepted(listener($tried), $tried);
";

/// Held by tests that spend budgets: what is withheld is counted for all cgroups together, and each test would find what the
/// others do.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn connects_beyond_the_budget_of_a_cgroup_are_counted_and_hide_neither_other_ports_nor_a_success() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let netns = own_network();
    let add = Command::new("ip").args(["address", "add", &ELSEWHERE.to_string(), "dev", "lo"]).status();
    assert!(add.expect("the program `ip` (package iproute2)").success());
    let watch = Watch::with(Options::default(), &[], Duration::from_millis(1), |probes| {
        let lateral = [FLOODED, TRIED, OTHER].map(|port| (port, port_flags::LATERAL));
        probes.set_ports(lateral).expect("ports");
    });
    let cgroup = Cgroup::create(&task_mount(watch.probes.task_hierarchy()), "connects");
    let script = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(script.path(), FLOOD).expect("written");
    let begun = Instant::now();
    let arguments = format!("{CONNECTS} {FLOODED} {TRIED} {OTHER} {ELSEWHERE}");
    let mut flooding = cgroup.shell(&format!("exec perl {} {arguments}", script.path().display()));
    assert!(flooding.wait().expect("perl ends").success());
    let seconds = begun.elapsed().as_secs() + 1;
    // The kernel ends the last connections a little later.
    std::thread::sleep(Duration::from_millis(100));

    let outcome = watch.finish();
    let ours = outcome.all::<ConnectRecord>(RecordKind::Connect, |connect| connect.ends.netns == netns);
    let reported = |port: u16, stage: ConnectStage| {
        let of_port = ours.iter().filter(|(_, connect)| connect.ends.peer_port == port);
        of_port.filter(|(_, connect)| connect.stage == stage as u32).count() as u64
    };
    // One destination gets half of what all together do.
    let flooded = [
        (FLOODED, ConnectStage::Attempted, 1024),
        (FLOODED, ConnectStage::Established, 512),
        (TRIED, ConnectStage::Attempted, 512),
        (TRIED, ConnectStage::Failed, 512),
    ];
    for (port, stage, burst) in flooded {
        let (reported, budget) = (reported(port, stage), burst..=burst + 256 * seconds);
        assert!(budget.contains(&reported), "port {port}, {stage:?}: {reported} not in {budget:?}");
    }
    assert_eq!(reported(TRIED, ConnectStage::Established), 1, "hidden by attempts that failed");
    for stage in [ConnectStage::Attempted, ConnectStage::Failed] {
        assert_eq!(reported(OTHER, stage), 1, "hidden by connects to another port");
        let elsewhere = ours.iter().filter(|(_, connect)| {
            connect.stage == stage as u32 && connect.ends.peer_addr == mapped((ELSEWHERE, FLOODED).into())
        });
        assert_eq!(elsewhere.count(), 1, "hidden by connects within the host");
    }

    // Of each connect there are two records, of each that succeeds a third about its end.
    let withheld = |kind: RecordKind| {
        outcome.counters.records[Ring::Bulk as usize][kind as usize][Fate::Suppressed as usize]
    };
    let all = 2 * (3 * CONNECTS + 3);
    assert_eq!(ours.len() as u64 + withheld(RecordKind::Connect), all, "connects reported and withheld");
    let ends = outcome.all::<CloseRecord>(RecordKind::Close, |close| {
        close.ends.netns == netns && close.direction == Direction::Outbound as u32
    });
    assert_eq!(ends.len() as u64 + withheld(RecordKind::Close), CONNECTS + 1, "ends reported and withheld");
    assert_eq!(
        ends.len() as u64,
        reported(FLOODED, ConnectStage::Established) + 1,
        "ends of what is reported"
    );
}

/// More connections than a cgroup may have in the table, which has so many places.
const HELD: u64 = 4200;
const PLACES: u64 = 1 << 15;

/// Connections that it may have again when these have ended.
const HELD_AGAIN: u64 = 3000;

/// Holds so many connections to itself and says so; ends them when it is told to, and makes so many again.
const HOLD: &str = "\
use strict; use IO::Socket::INET;
$| = 1;
my ($port, $count, $again) = @ARGV;
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 9) or die;
sub pair {
    my $client = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or die;
    return ($client, $listener->accept || die);
}
my @held = map { pair() } (1..$count);
print 'held'; close STDOUT; <STDIN>;
@held = ();
@held = map { pair() } (1..$again);
";

/// Runs that in a cgroup, up to the point where it holds its connections.
fn hold(cgroup: &Cgroup, arguments: &str) -> Child {
    let script = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(script.path(), HOLD).expect("written");
    let enter = format!("echo $$ > {}/cgroup.procs && ulimit -n 20000", cgroup.path().display());
    let run = format!("{enter} && exec perl {} {arguments}", script.path().display());
    let mut child = Command::new("/bin/bash")
        .args(["-c", &run])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash");
    let mut said = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut said).expect("read");
    assert_eq!(said, "held");
    child
}

/// Lets it go on to its end.
fn release(mut child: Child) {
    drop(child.stdin.take());
    assert!(child.wait().expect("perl ends").success());
}

#[test]
fn a_cgroup_that_holds_its_share_of_the_table_hides_no_connect_of_others() {
    const HOLDER: u16 = 24_000;
    const VICTIM: u16 = 24_001;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let netns = own_network();
    let watch = Watch::start(&[]);
    let mount = task_mount(watch.probes.task_hierarchy());
    let (holder, victim) = (Cgroup::create(&mount, "holder"), Cgroup::create(&mount, "victim"));
    let holding = hold(&holder, &format!("{HOLDER} {HELD} {HELD_AGAIN}"));
    release(hold(&victim, &format!("{VICTIM} 1 1")));
    release(holding);
    // The kernel ends the last connections a little later.
    std::thread::sleep(Duration::from_millis(100));

    let outcome = watch.finish();
    let is_victims = |ends: &Endpoints| (ends.netns, ends.peer_port) == (netns, VICTIM);
    let connects = outcome.all::<ConnectRecord>(RecordKind::Connect, |connect| {
        connect.stage == ConnectStage::Established as u32 && is_victims(&connect.ends)
    });
    let ends = outcome.all::<CloseRecord>(RecordKind::Close, |close| {
        close.direction == Direction::Outbound as u32 && is_victims(&close.ends)
    });
    assert_eq!((connects.len(), ends.len()), (2, 2), "hidden by the holder");
    let beyond = outcome.counters.events[Event::ConnectionShare as usize];
    assert!(HELD - beyond.min(HELD) <= PLACES / 8, "only {beyond} of {HELD} have found no place");
    assert!(beyond < HELD - HELD_AGAIN, "{beyond}: shares are not given back");
    assert_eq!(outcome.counters.events[Event::UntrackedConnection as usize], 0, "the table is full");
}
