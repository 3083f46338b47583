//! What flood control has counted in the kernel, as summaries: one per window for each port, and one for each of its
//! peers that matter.
//!
//! Owns the comparison of one reading of the kernel's tables with the one before. What is counted for a port is exact, for
//! a peer it is not: its place may have been taken by another one. So whatever the peers do not account for is
//! summarised without a peer, and the sum of all summaries of a port is what the port says.

use std::collections::BTreeMap;

use sensor_common::flood::{Counts, Peer, Port, PortKey, port_origin};

use crate::fact::ScanShape;
use crate::time::Timestamp;

mod ledger;

pub(crate) use ledger::Tally;
use ledger::{Attempts, Ledger};

/// Most peers that are named for one port, one shape and one window.
const NAMED_MAX: usize = 8;
/// Readings without anything new after which a port gives way, when the table fills up.
const IDLE_READINGS: u32 = 60;
/// Ports in the kernel's table above which idle ones give way.
const CROWDED: usize = sensor_common::flood::PORTS_MAX as usize / 2;

const SHAPES: [ScanShape; 2] = [ScanShape::Flood, ScanShape::HalfOpen];

/// The kernel's tables, in the order in which they were read. The kernel does not stop meanwhile: each has all that is in the
/// ones before.
#[derive(Clone, Copy, Debug)]
pub struct FloodReading<'a> {
    /// Every port, in the order of its key.
    pub before: &'a [(PortKey, Port)],
    /// Every place for a peer.
    pub peers: &'a [Peer],
    /// Every port once more.
    pub after: &'a [(PortKey, Port)],
    /// No other one follows, and nothing happens any more.
    pub is_last: bool,
}

/// One summary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    pub(crate) place: PortKey,
    /// Local address, network order; zero when the probes have not seen one.
    pub(crate) local_addr: [u64; 2],
    /// The peer, if it is one.
    pub(crate) peer: Option<[u64; 2]>,
    pub(crate) shape: ScanShape,
    pub(crate) tally: Tally,
    pub(crate) peers: u64,
    pub(crate) window_ns: u64,
}

/// The readings before.
#[derive(Debug, Default)]
pub(crate) struct Scans {
    ports: BTreeMap<PortKey, PortHistory>,
    /// By place in the kernel's table.
    peers: Vec<PeerHistory>,
    read_ns: u64,
    evicted: u64,
    shared: u64,
}

/// What earlier readings said of a peer.
#[derive(Clone, Copy, Debug, Default)]
struct PeerHistory {
    /// Tells it from others at this place.
    since_ns: u64,
    attempts: Attempts,
    /// By shape.
    ledgers: [Ledger; 2],
}

/// What earlier readings said of a port, and what was told of it.
#[derive(Debug, Default)]
struct PortHistory {
    last: Counts,
    attempts: Attempts,
    /// By shape.
    ledgers: [Ledger; 2],
    /// Peers that came, as far as each was seen or is known to have been missed.
    arrivals: u64,
    idle_readings: u32,
}

/// What a reading of the peers says of one port.
#[derive(Debug, Default)]
struct Contributors {
    /// Those with something new, by shape.
    news: [Vec<([u64; 2], Tally)>; 2],
    /// Peers that are there for the first time.
    arrived: u64,
}

impl PeerHistory {
    /// Takes a reading; returns what is new, by shape.
    fn take(&mut self, counts: &Counts, is_last: bool) -> [Tally; 2] {
        let all = [Tally::of(counts), self.attempts.take(counts, is_last)];
        let mut news = [Tally::default(); 2];
        for ((news, ledger), all) in news.iter_mut().zip(&mut self.ledgers).zip(all) {
            *news = ledger.tell_all(all);
        }
        news
    }
}

impl PortHistory {
    /// Whether an equal reading would tell nothing.
    fn is_settled(&self) -> bool {
        let all = [Tally::of(&self.last), self.attempts.open(&self.last)];
        self.ledgers.iter().zip(all).all(|(ledger, all)| ledger.has_told(all))
    }
}

impl Scans {
    /// Windows begin here.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        self.read_ns = now.boot_ns;
    }

    /// Whether a reading of the ports is worth one of the peers: something is new, or attempts are waited for.
    pub(crate) fn wants_peers(&self, ports: &[(PortKey, Port)]) -> bool {
        ports.iter().any(|(key, port)| match self.ports.get(key) {
            Some(history) => history.last != port.counts || !history.is_settled(),
            None => port.counts != Counts::default(),
        })
    }

    /// Takes a reading. Returns the summaries, and the ports that may give way.
    pub(crate) fn take(&mut self, now: Timestamp, reading: &FloodReading<'_>) -> (Vec<Scan>, Vec<PortKey>) {
        let window_ns = now.boot_ns.saturating_sub(self.read_ns);
        let mut contributors = self.take_peers(reading);
        let mut scans = Vec::new();
        let mut idle = Vec::new();
        for (place, after) in reading.after {
            let found = reading.before.binary_search_by_key(place, |(place, _)| *place);
            let before = found.map_or_else(|_| Port::default(), |at| reading.before[at].1);
            let Contributors { news, arrived } = contributors.remove(place).unwrap_or_default();
            let history = self.ports.entry(*place).or_default();
            // Whoever came and is not there has lost its place before it was looked at.
            history.arrivals += arrived;
            let unseen = before.arrivals.saturating_sub(history.arrivals);
            history.arrivals += unseen;
            self.evicted += unseen;
            if place.netns == 0 {
                self.shared += after.counts.accepts.saturating_sub(history.last.accepts);
            }
            let is_idle = history.last == after.counts;
            history.idle_readings = if is_idle { history.idle_readings.saturating_add(1) } else { 0 };
            history.last = after.counts;
            // What the peers do not account for may be theirs if it is younger than their reading; the next one tells.
            let certain = [Tally::of(&before.counts), history.attempts.take(&before.counts, reading.is_last)];
            let at_most = [Tally::of(&after.counts), history.attempts.open(&after.counts)];
            for (index, (shape, news)) in SHAPES.into_iter().zip(news).enumerate() {
                let summary =
                    Summary { place: *place, local_addr: after.local_addr, shape, unseen, window_ns };
                let ledger = &mut history.ledgers[index];
                summary.write(ledger, news, certain[index], at_most[index], &mut scans);
            }
            if reading.after.len() > CROWDED
                && history.idle_readings >= IDLE_READINGS
                && after.origin == port_origin::PROBES
            {
                idle.push(*place);
            }
        }
        for place in &idle {
            self.ports.remove(place);
        }
        self.read_ns = now.boot_ns;
        (scans, idle)
    }

    /// Peers that lost their place before they were read.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Connections of ports that found no place of their own.
    pub(crate) fn shared(&self) -> u64 {
        self.shared
    }

    fn take_peers(&mut self, reading: &FloodReading<'_>) -> BTreeMap<PortKey, Contributors> {
        self.peers.resize(reading.peers.len().max(self.peers.len()), PeerHistory::default());
        let mut by_port: BTreeMap<PortKey, Contributors> = BTreeMap::new();
        for (peer, history) in reading.peers.iter().zip(&mut self.peers) {
            let is_new = history.since_ns != peer.since_ns;
            if is_new {
                *history = PeerHistory { since_ns: peer.since_ns, ..PeerHistory::default() };
            }
            let news = history.take(&peer.counts, reading.is_last);
            if !is_new && news == [Tally::default(); 2] {
                continue;
            }
            let contributors = by_port.entry(peer.place).or_default();
            contributors.arrived += u64::from(is_new);
            for (of_shape, tally) in contributors.news.iter_mut().zip(news) {
                of_shape.push((peer.addr, tally));
            }
        }
        by_port
    }
}

/// What the summaries of one port and shape have in common.
struct Summary {
    place: PortKey,
    local_addr: [u64; 2],
    shape: ScanShape,
    /// Peers that lost their place before they were read.
    unseen: u64,
    window_ns: u64,
}

impl Summary {
    /// Adds a summary for each peer that matters and one for the others together.
    fn write(
        &self,
        ledger: &mut Ledger,
        mut peers: Vec<([u64; 2], Tally)>,
        certain: Tally,
        at_most: Tally,
        scans: &mut Vec<Scan>,
    ) {
        for (_, tally) in &mut peers {
            *tally = ledger.tell(*tally, at_most);
        }
        peers.retain(|(_, tally)| tally.is_news(self.shape));
        peers.sort_unstable_by_key(|(addr, tally)| (std::cmp::Reverse(tally.weight(self.shape)), *addr));
        let (mut rest, mut others) = (ledger.tell_all(certain), self.unseen);
        if !rest.is_news(self.shape) {
            (rest, others) = (Tally::default(), 0);
        }
        let of_peers: u64 = peers.iter().map(|(_, tally)| tally.weight(self.shape)).sum();
        let total = of_peers + rest.weight(self.shape);
        let few = peers.len() <= NAMED_MAX;
        for (place, (addr, tally)) in peers.into_iter().enumerate() {
            let matters = tally.weight(self.shape).saturating_mul(NAMED_MAX as u64) >= total;
            if place < NAMED_MAX && (few || matters) {
                scans.push(self.scan(Some(addr), tally, 1));
            } else {
                rest = rest.more(tally);
                others += 1;
            }
        }
        if rest.is_news(self.shape) {
            // The same peer may have come and gone several times.
            scans.push(self.scan(None, rest, others.clamp(1, rest.count.max(1))));
        }
    }

    fn scan(&self, peer: Option<[u64; 2]>, tally: Tally, peers: u64) -> Scan {
        let Self { place, local_addr, shape, window_ns, .. } = *self;
        Scan { place, local_addr, peer, shape, tally, peers, window_ns }
    }
}

#[cfg(test)]
mod tests;
