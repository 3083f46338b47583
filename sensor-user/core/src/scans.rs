//! What flood control has counted in the kernel, as summaries: one per window for each port, and one for each of its
//! peers that matter.
//!
//! Owns the comparison of one reading of the kernel's tables with the one before. What is counted for a port is exact, for
//! a peer it is not: its place may have been taken by another one. So whatever the peers do not account for is
//! summarised without a peer, and the sum of all summaries of a port is what the port says.

use std::collections::BTreeMap;

use sensor_common::flood::{Counts, Peer, Port, PortKey};

use crate::fact::ScanShape;
use crate::time::Timestamp;

/// Readings after which an attempt that was not completed counts as one that never will be. The agent reads once a second,
/// and a peer that has lost a packet repeats it after one.
const SETTLE_READINGS: usize = 3;
/// Most peers that are named for one port, one shape and one window.
const NAMED_MAX: usize = 8;
/// Readings without anything new after which a port gives way, when the table fills up.
const IDLE_READINGS: u32 = 60;
/// Ports in the kernel's table above which idle ones give way.
const CROWDED: usize = sensor_common::flood::PORTS_MAX as usize / 2;

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

/// What is new of a peer or a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Connections, or attempts that were not completed.
    pub(crate) count: u64,
    /// Withheld of them.
    pub(crate) suppressed: u64,
    /// Withheld in this window or an earlier one, and reported after all.
    pub(crate) resumed: u64,
}

/// The readings before.
#[derive(Debug, Default)]
pub(crate) struct Scans {
    ports: BTreeMap<PortKey, History>,
    /// By place in the kernel's table.
    peers: Vec<(u64, History)>,
    read_ns: u64,
    evicted: u64,
}

/// What earlier readings said of a peer or a port.
#[derive(Clone, Copy, Debug, Default)]
struct History {
    last: Counts,
    /// Attempts at the last readings, the oldest first.
    attempts: [u64; SETTLE_READINGS],
    /// Completed connections whose attempt was not seen.
    unseen: u64,
    /// Attempts reported as never completed.
    incomplete: u64,
    idle_readings: u32,
    arrivals: u64,
}

/// What is new, by shape.
#[derive(Clone, Copy, Debug, Default)]
struct News {
    flood: Tally,
    half_open: Tally,
}

impl News {
    fn of(&self, shape: ScanShape) -> Tally {
        match shape {
            ScanShape::Flood => self.flood,
            ScanShape::HalfOpen => self.half_open,
        }
    }
}

impl Tally {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What orders peers: who has more withheld, or more that is not completed.
    fn weight(&self) -> u64 {
        if self.suppressed > 0 { self.suppressed } else { self.count }
    }

    fn more(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            suppressed: self.suppressed + other.suppressed,
            resumed: self.resumed + other.resumed,
        }
    }

    fn less(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_sub(other.count),
            suppressed: self.suppressed.saturating_sub(other.suppressed),
            resumed: self.resumed.saturating_sub(other.resumed),
        }
    }
}

impl History {
    /// Takes a reading and returns what is new. Only in the last one an attempt is not waited for any longer.
    fn take(&mut self, counts: &Counts, is_last: bool) -> News {
        let grown = |now: u64, before: u64| now.saturating_sub(before);
        let last = std::mem::replace(&mut self.last, *counts);
        self.idle_readings = if last == *counts { self.idle_readings.saturating_add(1) } else { 0 };
        let (suppressed, resumed) =
            (grown(counts.withheld, last.withheld), grown(counts.resumed, last.resumed));
        let count = if suppressed > 0 { grown(counts.accepts, last.accepts) } else { 0 };

        let settled = if is_last { counts.attempts } else { self.attempts[0] };
        self.attempts.rotate_left(1);
        self.attempts[SETTLE_READINGS - 1] = counts.attempts;
        self.unseen = self.unseen.max(grown(counts.accepts, counts.attempts));
        let incomplete = (settled + self.unseen).saturating_sub(counts.accepts);
        let new = grown(incomplete, self.incomplete);
        self.incomplete += new;
        News {
            flood: Tally { count, suppressed, resumed },
            half_open: Tally { count: new, ..Tally::default() },
        }
    }

    /// Whether an equal reading would tell nothing.
    fn is_settled(&self) -> bool {
        let told = self.last.accepts + self.incomplete;
        self.attempts.iter().all(|attempts| *attempts == self.last.attempts && attempts + self.unseen <= told)
    }
}

impl Scans {
    /// Whether a reading of the ports is worth one of the peers: something is new, or attempts are waited for.
    pub(crate) fn wants_peers(&self, ports: &[(PortKey, Port)]) -> bool {
        ports.iter().any(|(key, port)| match self.ports.get(key) {
            Some(history) => history.last != port.counts || !history.is_settled(),
            None => true,
        })
    }

    /// Takes a reading: every port in the order of its key, every place for a peer. Returns the summaries, and the ports that
    /// may give way.
    pub(crate) fn take(
        &mut self,
        now: Timestamp,
        ports: &[(PortKey, Port)],
        peers: &[Peer],
        is_last: bool,
    ) -> (Vec<Scan>, Vec<PortKey>) {
        let window_ns = now.boot_ns.saturating_sub(self.read_ns);
        let contributors = self.take_peers(peers, is_last);
        let mut scans = Vec::new();
        let mut idle = Vec::new();
        for (place, port) in ports {
            let history = self.ports.entry(*place).or_default();
            let news = history.take(&port.counts, is_last);
            let arrived = port.arrivals.saturating_sub(history.arrivals);
            history.arrivals = port.arrivals;
            let of_port = contributors.get(place).map_or(&[][..], Vec::as_slice);
            let present = of_port.iter().filter(|contributor| contributor.since_ns > self.read_ns).count();
            let unseen = arrived.saturating_sub(present as u64);
            self.evicted += unseen;
            for shape in [ScanShape::Flood, ScanShape::HalfOpen] {
                let summary = Summary { place: *place, port, shape, unseen, window_ns };
                summary.write(news.of(shape), of_port, &mut scans);
            }
            if ports.len() > CROWDED && history.idle_readings >= IDLE_READINGS && place.netns != 0 {
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

    fn take_peers(&mut self, peers: &[Peer], is_last: bool) -> BTreeMap<PortKey, Vec<Contributor>> {
        self.peers.resize(peers.len().max(self.peers.len()), (0, History::default()));
        let mut contributors: BTreeMap<PortKey, Vec<Contributor>> = BTreeMap::new();
        for (peer, (since_ns, history)) in peers.iter().zip(&mut self.peers) {
            if *since_ns != peer.since_ns {
                (*since_ns, *history) = (peer.since_ns, History::default());
            }
            let before = history.last;
            let news = history.take(&peer.counts, is_last);
            if before != peer.counts || !news.half_open.is_empty() {
                let contributor = Contributor { addr: peer.addr, since_ns: peer.since_ns, news };
                contributors.entry(peer.place).or_default().push(contributor);
            }
        }
        contributors
    }
}

/// A peer with something new.
#[derive(Debug)]
struct Contributor {
    addr: [u64; 2],
    since_ns: u64,
    news: News,
}

/// What the summaries of one port and shape have in common.
struct Summary<'a> {
    place: PortKey,
    port: &'a Port,
    shape: ScanShape,
    /// Peers that lost their place before they were read.
    unseen: u64,
    window_ns: u64,
}

impl Summary<'_> {
    /// Adds a summary for each peer that matters and one for the others together.
    fn write(&self, total: Tally, contributors: &[Contributor], scans: &mut Vec<Scan>) {
        if total.is_empty() {
            return;
        }
        let mut peers: Vec<(u64, [u64; 2], Tally)> = contributors
            .iter()
            .map(|contributor| (contributor.news.of(self.shape), contributor.addr))
            .filter(|(tally, _)| !tally.is_empty())
            .map(|(tally, addr)| (tally.weight(), addr, tally))
            .collect();
        peers.sort_unstable_by(|one, other| (other.0, one.1).cmp(&(one.0, other.1)));
        let known = peers.len() as u64;
        let matters = |weight: u64| weight.saturating_mul(NAMED_MAX as u64) >= total.weight();
        let few = peers.len() <= NAMED_MAX;
        let mut rest = total;
        let mut named = 0;
        let first = scans.len();
        for (_, addr, tally) in
            peers.iter().take(NAMED_MAX).take_while(|(weight, ..)| few || matters(*weight))
        {
            // Never more than the port itself has.
            let tally = rest.less(rest.less(*tally));
            rest = rest.less(tally);
            named += 1;
            if !tally.is_empty() {
                scans.push(self.scan(Some(*addr), tally, 1));
            }
        }
        let others = known - named + self.unseen;
        match scans.get_mut(first) {
            // Nobody else was there: it came between the looks at the peers and at the port.
            Some(heaviest) if others == 0 => heaviest.tally = heaviest.tally.more(rest),
            _ if !rest.is_empty() => scans.push(self.scan(None, rest, others.max(1))),
            _ => {}
        }
    }

    fn scan(&self, peer: Option<[u64; 2]>, tally: Tally, peers: u64) -> Scan {
        let Self { place, port, shape, window_ns, .. } = *self;
        Scan { place, local_addr: port.local_addr, peer, shape, tally, peers, window_ns }
    }
}

#[cfg(test)]
mod tests;
