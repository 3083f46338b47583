//! Floods and attempts that come to nothing, as the kernel has counted them.

use sensor_common::flood::{Port, PortKey};

use crate::engine::{Engine, Request};
use crate::event::{Ends, ip_of};
use crate::exposure::Withheld;
use crate::fact::{Direction, End, FactKind, Net, ScanShape};
use crate::scans::{FloodReading, Scan};
use crate::time::Timestamp;

impl Engine {
    /// Whether a reading of the ports asks for one of the peers; if not, there is nothing to hand in.
    #[must_use]
    pub fn wants_flood_peers(&self, ports: &[(PortKey, Port)]) -> bool {
        self.scans.wants_peers(ports)
    }

    /// Takes what was counted at each port some time after `now`: attempts at that of the canaries prove that they are.
    pub fn handle_attempts(&mut self, now: Timestamp, ports: &[(PortKey, Port)]) {
        if self.canaries.count_attempts(now, ports) {
            self.report_coverage(now, false);
        }
    }

    /// Takes what flood control has counted in the kernel, and summarises what is new. `now` is before it was read. To be handed
    /// in once a second, and a last time before [`Self::finish`].
    pub fn handle_flood(&mut self, now: Timestamp, reading: &FloodReading<'_>) {
        self.handle_attempts(now, reading.before);
        let (scans, idle) = self.scans.take(now, reading);
        for scan in &scans {
            self.on_scan(now, scan);
        }
        for port in idle {
            self.outbox.request(Request::ForgetFloodPort(port));
        }
    }

    fn on_scan(&mut self, at: Timestamp, scan: &Scan) {
        let Scan { place, local_addr, peer, shape, tally, peers, window_ns } = *scan;
        // No port is 0 but that of those which found no place of their own.
        let port = u16::try_from(place.port).ok().filter(|port| *port != 0);
        let local = port.map(|port| End { ip: ip_of(local_addr), port });
        let listener = local.and_then(|local| {
            self.listeners.find(&Ends { local, peer: local, netns: place.netns }).map(|(sock, listener)| {
                let holder = crate::listeners::present_holder(listener, &self.processes).copied();
                (sock, listener.cgroup, holder, listener.traits.service)
            })
        });
        let sock = listener.map(|(sock, ..)| sock);
        let (subject, service) = match listener {
            Some((_, cgroup, holder, service)) => (self.socket_subject(cgroup, holder), service),
            None => {
                let subject = self.subject(None, &super::subject::Whereabouts::Unknown);
                (subject, self.service_of(port.unwrap_or(0)))
            }
        };
        let net = Net {
            direction: Some(Direction::Inbound),
            peer: peer.map(|addr| End { ip: ip_of(addr), port: 0 }),
            local,
            service,
            conn: None,
        };
        let kind = FactKind::Scan {
            shape,
            targets: 1,
            peers,
            count: tally.count,
            suppressed: tally.suppressed,
            resumed: tally.resumed,
            window_ns,
        };
        let from = net.peer.map(|peer| peer.ip);
        self.send(at, subject, Some(net), kind, None);
        if let Some(sock) = sock
            && shape == ScanShape::Flood
        {
            let withheld = Withheld { suppressed: tally.suppressed, resumed: tally.resumed };
            self.note_withheld(at, sock, &withheld, from);
        }
    }
}
