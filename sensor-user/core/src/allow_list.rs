//! The operator's expected access: ordered entries, the first match decides and is named.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::{IpNetwork, Ipv4Network};

use crate::fact::{Net, Service, Verdict};
use crate::time::Timestamp;

mod actor;
mod reasons;
mod review;
mod schedule;
mod shows;

pub use actor::{Act, Actor};
pub use reasons::Reason;
pub use review::Shadowed;
pub use schedule::{Days, Hours, Schedule};
pub use shows::{Shown, Shows, product_of};

/// Name of the built-in last entry.
pub const IMPLIED_LOCAL: &str = "implied-local";

/// One reviewed expectation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowEntry {
    /// Unique name, printed in the verdict.
    pub name: Arc<str>,
    /// Who.
    pub from: Source,
    /// What.
    pub to: Target,
    /// When, within what [`Self::until_unix_ns`] leaves.
    pub when: Schedule,
    /// The first moment at which it holds no longer, nanoseconds since 1970; `None`: it does not expire.
    pub until_unix_ns: Option<u64>,
}

/// Somebody who came to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access<'a> {
    /// Address of the peer; an IPv4-mapped one is its IPv4 address.
    pub peer: IpAddr,
    /// Service behind the endpoint.
    pub service: Service,
    /// Its local port.
    pub port: u16,
    /// When it was, which is not when it is judged.
    pub at: Timestamp,
    /// What has shown of the peer by this fact.
    pub shown: Shown<'a>,
}

/// Whom an entry speaks of: peers of any of the given kinds, none of the exceptions; or containers of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Networks that match.
    pub networks: Vec<IpNetwork>,
    /// Networks that do not, whatever matched.
    pub except: Vec<IpNetwork>,
    /// The members of `networks.nodes` match.
    pub nodes: bool,
    /// Loopback and the node's own addresses match.
    pub local: bool,
    /// What the peers show beside that.
    pub shows: Shows,
    /// Containers of the node, instead of peers.
    pub actor: Actor,
}

/// The endpoints an entry speaks of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Services; empty together with `ports` = any.
    pub services: Vec<Service>,
    /// Local ports beside the services.
    pub ports: Vec<u16>,
}

/// The ordered list with what its entries refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    /// Entries in the operator's order; the built-in entry, where wanted, is the last one.
    pub entries: Vec<AllowEntry>,
    /// Addresses of the cluster's nodes.
    pub nodes: Vec<IpNetwork>,
    /// Addresses of this node, refreshed by the shell.
    pub local: Vec<IpAddr>,
}

impl Access<'_> {
    /// What the record of a connection that somebody opened here tells; `None` for one without a peer.
    #[must_use]
    pub fn of(net: &Net, at: Timestamp) -> Option<Self> {
        let port = net.local.map_or(0, |local| local.port);
        net.peer.map(|peer| Self { peer: peer.ip, service: net.service, port, at, shown: Shown::default() })
    }
}

impl AllowList {
    /// Judges a peer of a management service: the first entry that speaks of who, what and when decides.
    ///
    /// An IPv4-mapped address is its IPv4 address, in the peer as well as in the entries.
    #[must_use]
    pub fn judge(&self, access: &Access<'_>) -> Verdict {
        let peer = access.peer.to_canonical();
        let decides = |entry: &&AllowEntry| {
            entry.to.covers(access.service, access.port)
                && self.covers(&entry.from, peer)
                && entry.from.shows.agree(&access.shown)
                && entry.holds_at(access.at.unix_ns)
        };
        match self.entries.iter().find(decides) {
            Some(entry) => Verdict::Listed(entry.name.clone()),
            None => Verdict::Unlisted,
        }
    }

    /// The names of the entries that expect a peer by what he shows, and thus each time anew.
    pub(crate) fn narrowed(&self) -> BTreeSet<Arc<str>> {
        let narrowed = self.entries.iter().filter(|entry| entry.from.shows != Shows::default());
        narrowed.map(|entry| entry.name.clone()).collect()
    }

    fn covers(&self, from: &Source, peer: IpAddr) -> bool {
        let listed = in_any(&from.networks, peer)
            || (from.nodes && in_any(&self.nodes, peer))
            || (from.local && self.is_local(peer));
        // What runs at the other end of a connection the node cannot know: a condition on that never agrees.
        from.actor.is_empty() && listed && !in_any(&from.except, peer)
    }

    fn is_local(&self, peer: IpAddr) -> bool {
        peer.is_loopback() || self.local.iter().any(|own| own.to_canonical() == peer)
    }
}

impl AllowEntry {
    fn holds_at(&self, unix_ns: u64) -> bool {
        self.until_unix_ns.is_none_or(|until| unix_ns < until) && self.when.covers(unix_ns)
    }
}

impl Target {
    fn covers(&self, service: Service, port: u16) -> bool {
        let any = self.services.is_empty() && self.ports.is_empty();
        any || self.services.contains(&service) || self.ports.contains(&port)
    }
}

/// Whether any of the networks holds a canonical address.
pub(crate) fn in_any(networks: &[IpNetwork], peer: IpAddr) -> bool {
    networks.iter().any(|network| contains(*network, peer))
}

/// Whether a network holds a canonical address. A network inside ::ffff:0:0/96 is meant as the IPv4 network it spells.
fn contains(network: IpNetwork, peer: IpAddr) -> bool {
    match (network, peer) {
        (IpNetwork::V6(mapped), IpAddr::V4(peer)) => {
            const MAPPED_BITS: u8 = 96;
            let Some(prefix) = mapped.prefix().checked_sub(MAPPED_BITS) else { return false };
            let Some(base) = mapped.ip().to_ipv4_mapped() else { return false };
            Ipv4Network::new(base, prefix).is_ok_and(|network| network.contains(peer))
        }
        _ => network.contains(peer),
    }
}

#[cfg(test)]
mod tests;
