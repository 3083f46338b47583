//! The exposure ledger: every management endpoint, who holds it, and who from outside has reached it.
//!
//! Owns the endpoints by network namespace, local address and port; an address means nothing without its namespace: the
//! loopback of a container is not the host's. The engine keeps one as it goes, `quaywatch exposure` another one from
//! facts. It knows neither sockets nor kernels.

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::allow_list::in_any;
use crate::bounded::Bounded;
use crate::fact::{
    Container, End, Fact, FactKind, LeadsTo, ListenerState, PeerSeen, Process, Reach, ScanShape, Scope,
    Service, Tls,
};
use crate::time::Timestamp;

/// Most endpoints; the one used longest ago goes first.
pub const ENDPOINTS_MAX: usize = 4096;
/// Most outside peers of one endpoint that are told apart.
pub const OUTSIDE_MAX: usize = 64;

/// The networks that are not outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// Every named network.
    pub networks: Vec<IpNetwork>,
    /// The node's own addresses.
    pub own: Vec<IpAddr>,
}

impl Inside {
    /// Whether a peer is outside: in no named network, none of the node's own addresses, neither loopback nor link-local.
    #[must_use]
    pub fn is_outside(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        let near = match peer {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
        };
        !near && !self.own.iter().any(|own| own.to_canonical() == peer) && !in_any(&self.networks, peer)
    }
}

/// Where something listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointKey {
    /// Inode of the network namespace.
    pub netns: u32,
    /// Local address and port.
    pub local: End,
}

/// What is known of a listener whenever it is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// What is served there.
    pub service: Service,
    /// TLS or not.
    pub tls: Tls,
    /// Where it leads, when a runtime publishes it for a container.
    pub leads_to: Option<LeadsTo>,
    /// A process that holds it.
    pub process: Option<Arc<Process>>,
    /// The container of the socket.
    pub container: Option<Arc<Container>>,
}

/// Connections of a flood, of which a summary tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Withheld {
    /// Accepts that got no record of their own.
    pub suppressed: u64,
    /// Those of now and earlier that got one after all.
    pub resumed: u64,
}

/// One entry of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What is known of it.
    pub listening: Listening,
    /// Sockets that listen there; none: it is closed.
    pub sockets: u32,
    /// When it opened last.
    pub since: Timestamp,
    /// It listened before the sensor started: `since` is when it was found.
    pub is_older: bool,
    /// When it closed, if it is.
    pub closed: Option<Timestamp>,
    reach: Reach,
    outside: Vec<IpAddr>,
}

impl Endpoint {
    /// Who has reached it.
    #[must_use]
    pub const fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Counts a connection. Returns whether it is the first one from outside.
    fn accept(&mut self, at: Timestamp, peer: IpAddr, is_outside: bool) -> bool {
        self.reach.accepts += 1;
        is_outside && self.see_outside(at, peer)
    }

    /// Notes a peer from outside. Returns whether it is the first one.
    fn see_outside(&mut self, at: Timestamp, peer: IpAddr) -> bool {
        let ip = peer.to_canonical();
        if self.outside.len() < OUTSIDE_MAX && !self.outside.contains(&ip) {
            self.outside.push(ip);
            self.reach.outside_peers = self.reach.outside_peers.max(self.outside.len() as u32);
        }
        let seen = PeerSeen { ip, unix_ns: at.unix_ns };
        self.reach.last = Some(seen);
        let is_first = self.reach.first.is_none();
        self.reach.first.get_or_insert(seen);
        is_first
    }

    /// Takes over what another ledger knew of who has reached it.
    fn merge(&mut self, known: &Reach) {
        let own = &mut self.reach;
        own.accepts = own.accepts.max(known.accepts);
        own.outside_peers = own.outside_peers.max(known.outside_peers);
        let seen = [own.first, own.last, known.first, known.last];
        own.first = seen.into_iter().flatten().min_by_key(|peer| peer.unix_ns);
        own.last = seen.into_iter().flatten().max_by_key(|peer| peer.unix_ns);
    }
}

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    endpoints: Bounded<EndpointKey, Endpoint>,
    /// The run that the facts taken last belong to.
    run: Option<Arc<str>>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(ENDPOINTS_MAX)
    }
}

impl Ledger {
    /// A ledger of at most `capacity` endpoints.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { endpoints: Bounded::new(capacity), run: None }
    }

    /// Notes that a socket listens, was found listening, or changed hands, and returns who has reached the endpoint.
    ///
    /// An endpoint that opens again keeps its history, unless it is another container's: the kernel gives the number
    /// of a network namespace that is gone to the next one.
    pub fn listen(
        &mut self,
        at: Timestamp,
        key: EndpointKey,
        state: ListenerState,
        listening: Listening,
    ) -> Reach {
        let id = |listening: &Listening| listening.container.as_ref().map(|container| container.id.clone());
        let is_older = state != ListenerState::Opened;
        if let Some(known) = self.endpoints.get_mut(&key)
            && (known.sockets > 0 || id(&known.listening) == id(&listening))
        {
            if known.sockets == 0 {
                (known.since, known.is_older) = (at, is_older);
            }
            known.sockets = match state {
                ListenerState::Changed => known.sockets.max(1),
                _ => known.sockets.saturating_add(1),
            };
            known.closed = None;
            known.listening = listening;
            return known.reach;
        }
        let (reach, outside) = (Reach::default(), Vec::new());
        let endpoint = Endpoint { listening, sockets: 1, since: at, is_older, closed: None, reach, outside };
        self.endpoints.insert(key, endpoint);
        reach
    }

    /// Notes that a socket listens no more, and returns who has reached the endpoint.
    pub fn close(&mut self, at: Timestamp, key: EndpointKey) -> Option<Reach> {
        let endpoint = self.endpoints.get_mut(&key)?;
        endpoint.sockets = endpoint.sockets.saturating_sub(1);
        if endpoint.sockets == 0 {
            endpoint.closed = Some(at);
        }
        Some(endpoint.reach)
    }

    /// Counts a connection. Returns whether it is the first one from outside.
    pub fn accept(&mut self, at: Timestamp, key: EndpointKey, peer: IpAddr, is_outside: bool) -> bool {
        self.endpoints.get_mut(&key).is_some_and(|endpoint| endpoint.accept(at, peer, is_outside))
    }

    /// Counts connections that have no records of their own, less those that got one after all. Returns whether `outside`,
    /// whose they are, is the first one from outside.
    pub fn add_withheld(
        &mut self,
        at: Timestamp,
        key: EndpointKey,
        withheld: &Withheld,
        outside: Option<IpAddr>,
    ) -> bool {
        let Some(endpoint) = self.endpoints.get_mut(&key) else { return false };
        let accepts = endpoint.reach.accepts.saturating_add(withheld.suppressed);
        endpoint.reach.accepts = accepts.saturating_sub(withheld.resumed);
        let came = outside.filter(|_| withheld.suppressed > 0);
        came.is_some_and(|peer| endpoint.see_outside(at, peer))
    }

    /// Takes a fact. An accept does not name its network namespace: it is counted for the open endpoint of the same
    /// container that fits its local address best.
    pub fn take(&mut self, fact: &Fact, inside: &Inside) {
        self.follow_run(fact);
        let Some(net) = &fact.net else { return };
        let Some(local) = net.local else { return };
        match &fact.kind {
            &FactKind::Listener { state, tls, netns, leads_to, ref reach, .. } => {
                let key = EndpointKey { netns, local };
                if state == ListenerState::Closed {
                    self.close(fact.at, key);
                } else {
                    let (process, container) = (fact.process.clone(), fact.container.clone());
                    let listening = Listening { service: net.service, tls, leads_to, process, container };
                    self.listen(fact.at, key, state, listening);
                }
                if let (Some(known), Some(endpoint)) = (reach, self.endpoints.get_mut(&key)) {
                    endpoint.merge(known);
                }
            }
            FactKind::Accept { .. } => {
                let Some(peer) = net.peer else { return };
                if let Some(key) = self.find(local, fact.container.as_deref()) {
                    self.accept(fact.at, key, peer.ip, inside.is_outside(peer.ip));
                }
            }
            &FactKind::Scan { shape: ScanShape::Flood, suppressed, resumed, .. } => {
                let Some(key) = self.find(local, fact.container.as_deref()) else { return };
                let outside = net.peer.map(|peer| peer.ip).filter(|peer| inside.is_outside(*peer));
                self.add_withheld(fact.at, key, &Withheld { suppressed, resumed }, outside);
            }
            _ => {}
        }
    }

    /// With another run of the sensor every listener is told of anew.
    fn follow_run(&mut self, fact: &Fact) {
        let run = fact.id.0.split_once('-').map_or(&*fact.id.0, |(run, _)| run);
        if self.run.as_deref() == Some(run) {
            return;
        }
        if self.run.replace(run.into()).is_some() {
            for (_, endpoint) in self.endpoints.iter_mut().filter(|(_, endpoint)| endpoint.sockets > 0) {
                endpoint.sockets = 0;
                endpoint.closed = Some(fact.at);
            }
        }
    }

    fn find(&self, local: End, container: Option<&Container>) -> Option<EndpointKey> {
        let id = container.map(|container| &container.id);
        let fits = self.endpoints.iter().filter_map(|(key, endpoint)| {
            let same = endpoint.listening.container.as_ref().map(|container| &container.id) == id;
            let fit = bind_fit(key.local, local).filter(|_| same && key.local.port == local.port)?;
            Some(((endpoint.sockets > 0, fit, endpoint.since.boot_ns), *key))
        });
        fits.max_by_key(|(rank, _)| *rank).map(|(_, key)| key)
    }

    /// Every endpoint, in the order of namespace and address.
    #[must_use]
    pub fn endpoints(&self) -> Vec<(EndpointKey, &Endpoint)> {
        let mut all: Vec<_> = self.endpoints.iter().map(|(key, endpoint)| (*key, endpoint)).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }

    /// Endpoints evicted since the start.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.endpoints.evicted()
    }
}

/// How well a bound address fits the address a connection came to; `None` when it does not. Ports are not looked at.
pub(crate) fn bind_fit(bound: End, local: End) -> Option<u8> {
    if bound.ip == local.ip {
        Some(2)
    } else if !bound.ip.is_unspecified() {
        None
    } else if bound.ip.is_ipv4() == local.ip.is_ipv4() {
        Some(1)
    } else {
        bound.ip.is_ipv6().then_some(0)
    }
}

/// How much an endpoint asks for attention, most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Exposure {
    /// Open to others, and somebody from outside has connected.
    Reached,
    /// Open to others.
    Exposed,
    /// Reached from its own network namespace only.
    Local,
    /// It listens no more.
    Closed,
}

impl Exposure {
    /// The exposure of an endpoint.
    #[must_use]
    pub fn of(key: &EndpointKey, endpoint: &Endpoint) -> Self {
        match Scope::of(key.local.ip) {
            _ if endpoint.sockets == 0 => Self::Closed,
            Scope::Loopback => Self::Local,
            _ if endpoint.reach.first.is_some() => Self::Reached,
            _ => Self::Exposed,
        }
    }
}

#[cfg(test)]
mod tests;
