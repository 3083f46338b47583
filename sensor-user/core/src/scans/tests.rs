use super::ledger::SETTLE_READINGS;
use super::*;

const SECOND: u64 = 1_000_000_000;
const PLACE: PortKey = PortKey { netns: 7, port: 2375 };

fn counts(attempts: u64, accepts: u64, withheld: u64, resumed: u64) -> Counts {
    Counts { attempts, accepts, withheld, resumed }
}

fn port(counts: Counts, arrivals: u64) -> (PortKey, Port) {
    (PLACE, Port { counts, arrivals, ..Port::default() })
}

fn peer(number: u64, since_ns: u64, counts: Counts) -> Peer {
    Peer { addr: [0, number], place: PLACE, accepts_until_ns: 0, requests_until_ns: 0, since_ns, counts }
}

fn free() -> Peer {
    Peer { place: PortKey { netns: 0, port: 0 }, ..peer(0, 0, Counts::default()) }
}

/// Readings a second apart.
#[derive(Default)]
struct Readings {
    scans: Scans,
    now: u64,
}

impl Readings {
    /// Of tables that did not change meanwhile.
    fn read(&mut self, port: (PortKey, Port), peers: &[Peer]) -> Vec<Scan> {
        self.read_between(port, peers, port)
    }

    fn read_between(&mut self, before: (PortKey, Port), peers: &[Peer], after: (PortKey, Port)) -> Vec<Scan> {
        self.now += SECOND;
        take(&mut self.scans, self.now, (&[before], peers, &[after]), false).0
    }
}

/// Ports, peers, ports.
type Tables<'a> = (&'a [(PortKey, Port)], &'a [Peer], &'a [(PortKey, Port)]);

fn take(scans: &mut Scans, boot_ns: u64, tables: Tables<'_>, is_last: bool) -> (Vec<Scan>, Vec<PortKey>) {
    let (before, peers, after) = tables;
    let reading = FloodReading { before, peers, after, is_last };
    scans.take(Timestamp { boot_ns, unix_ns: 0 }, &reading)
}

/// Peer, number of peers, count, suppressed, resumed.
fn short(scans: &[Scan]) -> Vec<(Option<u64>, u64, u64, u64, u64)> {
    let row = |scan: &Scan| {
        let Tally { count, suppressed, resumed } = scan.tally;
        (scan.peer.map(|addr| addr[1]), scan.peers, count, suppressed, resumed)
    };
    scans.iter().map(row).collect()
}

fn sum(scans: &[Scan]) -> Tally {
    scans.iter().fold(Tally::default(), |sum, scan| sum.more(scan.tally))
}

#[test]
fn connections_that_were_all_reported_are_not_summarised() {
    let mut readings = Readings::default();
    let seen = counts(40, 40, 0, 0);
    assert_eq!(readings.read(port(seen, 1), &[peer(1, 10, seen)]), []);
}

#[test]
fn the_flood_of_one_peer_names_it_once_per_window() {
    let mut readings = Readings::default();
    let first = counts(0, 100, 36, 0);
    let scans = readings.read(port(first, 1), &[peer(1, 10, first)]);
    assert_eq!(short(&scans), [(Some(1), 1, 100, 36, 0)]);
    assert_eq!((scans[0].shape, scans[0].window_ns), (ScanShape::Flood, SECOND));
    let second = counts(0, 300, 200, 5);
    let scans = readings.read(port(second, 1), &[peer(1, 10, second)]);
    assert_eq!(short(&scans), [(Some(1), 1, 200, 164, 5)]);
    assert_eq!(readings.read(port(second, 1), &[peer(1, 10, second)]), [], "nothing new");
}

#[test]
fn a_crowd_is_one_summary_and_whoever_stands_out_of_it_has_one_of_his_own() {
    let mut readings = Readings::default();
    let mut peers: Vec<Peer> = (1..=100).map(|number| peer(number, 10, counts(0, 3, 1, 0))).collect();
    peers[41].counts = counts(0, 120, 100, 0);
    // Twenty more connections came after the peers were read, from some of them.
    let total = counts(0, 99 * 3 + 120 + 20, 99 + 100 + 20, 0);
    let scans = readings.read(port(total, 100), &peers);
    assert_eq!(short(&scans), [(Some(42), 1, 120, 100, 0), (None, 99, 99 * 3 + 20, 99 + 20, 0)]);
}

#[test]
fn connections_of_one_peer_are_not_blamed_on_another() {
    let mut readings = Readings::default();
    // The second one connects often and has a record of each.
    let peers = [peer(1, 10, counts(0, 100, 40, 0)), peer(2, 11, counts(0, 50, 0, 0))];
    assert_eq!(short(&readings.read(port(counts(0, 150, 40, 0), 2), &peers)), [(Some(1), 1, 100, 40, 0)]);
    let peers = [peer(1, 10, counts(0, 110, 50, 0)), peer(2, 11, counts(0, 90, 0, 0))];
    assert_eq!(short(&readings.read(port(counts(0, 200, 50, 0), 2), &peers)), [(Some(1), 1, 10, 10, 0)]);
}

#[test]
fn what_comes_while_the_tables_are_read_is_told_of_its_author_the_next_time() {
    let mut readings = Readings::default();
    let at = |accepts: u64| port(counts(0, accepts, accepts - 10, 0), 1);
    let own = |accepts: u64| peer(1, 10, counts(0, accepts, accepts - 10, 0));
    let scans = readings.read_between(at(100), &[own(110)], at(130));
    assert_eq!(short(&scans), [(Some(1), 1, 110, 100, 0)]);
    assert!(readings.scans.wants_peers(&[at(130)]), "twenty are still to be told");
    let scans = readings.read_between(at(200), &[own(200)], at(200));
    assert_eq!(short(&scans), [(Some(1), 1, 90, 90, 0)]);
    assert!(!readings.scans.wants_peers(&[at(200)]));
}

#[test]
fn no_peer_has_more_than_its_port() {
    let mut readings = Readings::default();
    // Two CPUs wrote the same place at once.
    let wrong = peer(1, 10, counts(0, 5000, 4000, 7));
    let total = counts(0, 100, 80, 1);
    assert_eq!(short(&readings.read(port(total, 1), &[wrong])), [(Some(1), 1, 100, 80, 1)]);
}

#[test]
fn completed_connections_hide_no_attempts_of_others() {
    let mut readings = Readings::default();
    let mut named = Vec::new();
    // The first one completes a thousand connections in each window, the second one has tried ten and completed none.
    for number in 1..=5 {
        let busy = counts(1000 * number, 1000 * number, 0, 0);
        let total = counts(busy.attempts + 10, busy.accepts, 0, 0);
        let peers = [peer(1, 10, busy), peer(2, 11, counts(10, 0, 0, 0))];
        named.extend(short(&readings.read(port(total, 2), &peers)));
    }
    assert_eq!(named, [(Some(2), 1, 10, 0, 0)]);
}

#[test]
fn a_crowd_is_not_larger_than_its_connections() {
    let mut readings = Readings::default();
    // The same few came and were displaced again and again.
    let scans = readings.read(port(counts(0, 40, 30, 0), 500), &[]);
    assert_eq!(short(&scans), [(None, 40, 40, 30, 0)]);
}

#[test]
fn the_sum_of_the_summaries_is_what_the_port_says_whatever_the_peers_say() {
    let mut readings = Readings::default();
    for (number, own) in [counts(0, 90, 80, 1), counts(0, 400, 390, 9), Counts::default()].iter().enumerate()
    {
        let number = number as u64 + 1;
        let before = readings.scans.ports.get(&PLACE).map_or(Counts::default(), |history| history.last);
        let total = counts(0, 100 * number, 90 * number, number);
        let scans = readings.read(port(total, number), &[peer(number, number, *own), free()]);
        let new = Tally {
            count: total.accepts - before.accepts,
            suppressed: total.withheld - before.withheld,
            resumed: total.resumed - before.resumed,
        };
        assert_eq!(sum(&scans), new, "{scans:?}");
        assert!(scans.iter().all(|scan| scan.peers > 0), "{scans:?}");
    }
}

#[test]
fn peers_that_lost_their_place_are_counted_and_their_connections_belong_to_the_rest() {
    let mut readings = Readings::default();
    // Five peers came, of which one is still there.
    let scans = readings.read(port(counts(0, 50, 40, 0), 5), &[peer(5, 900, counts(0, 10, 8, 0))]);
    assert_eq!(short(&scans), [(Some(5), 1, 10, 8, 0), (None, 4, 40, 32, 0)]);
    assert_eq!(readings.scans.evicted(), 4);
    // Its place was taken: the new one starts from nothing.
    let scans = readings.read(port(counts(0, 60, 50, 0), 6), &[peer(6, SECOND + 1, counts(0, 10, 10, 0))]);
    assert_eq!(short(&scans), [(Some(6), 1, 10, 10, 0)]);
    assert_eq!(readings.scans.evicted(), 4);
}

#[test]
fn attempts_that_are_not_completed_are_summarised_after_they_had_time_for_it() {
    let mut readings = Readings::default();
    let attempts = counts(10, 4, 0, 0);
    for _ in 0..SETTLE_READINGS {
        assert_eq!(readings.read(port(attempts, 1), &[peer(1, 10, attempts)]), []);
        assert!(readings.scans.wants_peers(&[port(attempts, 1)]), "they are waited for");
    }
    let scans = readings.read(port(attempts, 1), &[peer(1, 10, attempts)]);
    assert_eq!(short(&scans), [(Some(1), 1, 6, 0, 0)]);
    assert_eq!(scans[0].shape, ScanShape::HalfOpen);
    assert_eq!(readings.read(port(attempts, 1), &[peer(1, 10, attempts)]), [], "reported once");
    assert!(!readings.scans.wants_peers(&[port(attempts, 1)]));
}

#[test]
fn attempts_that_are_completed_in_time_are_not_summarised() {
    let mut readings = Readings::default();
    for (attempts, accepts) in [(10, 0), (20, 10), (20, 20), (20, 20), (20, 20), (20, 20)] {
        let now = counts(attempts, accepts, 0, 0);
        assert_eq!(readings.read(port(now, 1), &[peer(1, 10, now)]), []);
    }
}

#[test]
fn connections_whose_attempt_was_not_seen_hide_no_other_attempt() {
    let mut readings = Readings::default();
    for now in [counts(0, 5, 0, 0), counts(2, 5, 0, 0), counts(2, 5, 0, 0), counts(2, 5, 0, 0)] {
        assert_eq!(readings.read(port(now, 1), &[peer(1, 10, now)]), []);
    }
    let now = counts(2, 5, 0, 0);
    assert_eq!(short(&readings.read(port(now, 1), &[peer(1, 10, now)])), [(Some(1), 1, 2, 0, 0)]);
}

#[test]
fn the_last_reading_waits_for_no_attempt() {
    let attempts = counts(3, 1, 0, 0);
    let ports = [port(attempts, 1)];
    let tables: Tables<'_> = (&ports, &[peer(1, 10, attempts)], &ports);
    let (last, _) = take(&mut Scans::default(), SECOND, tables, true);
    assert_eq!(short(&last), [(Some(1), 1, 2, 0, 0)]);
}

#[test]
fn idle_ports_give_way_only_when_the_table_fills_up() {
    let idle = |entries: u32| {
        let mut scans = Scans::default();
        let entry = |netns: u32| {
            let port = Port { origin: u64::from(netns < 3), ..Port::default() };
            (PortKey { netns, port: 2375 }, port)
        };
        let ports: Vec<(PortKey, Port)> = (0..entries).map(entry).collect();
        let mut given = Vec::new();
        for reading in 1..=u64::from(IDLE_READINGS) {
            given = take(&mut scans, reading * SECOND, (&ports, &[], &ports), false).1;
        }
        given.len()
    };
    assert_eq!(idle(CROWDED as u32), 0);
    assert_eq!(idle(CROWDED as u32 + 1), CROWDED + 1 - 3, "all but those that the agent made");
}
