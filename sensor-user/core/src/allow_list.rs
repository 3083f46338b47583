//! The operator's expected access: ordered entries, the first match decides and is named.

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::{IpNetwork, Ipv4Network};

use crate::fact::{Service, Verdict};

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
}

/// The peers an entry speaks of: any of the given kinds, none of the exceptions.
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
#[derive(Clone, Debug, Default)]
pub struct AllowList {
    /// Entries in the operator's order; the built-in entry, where wanted, is the last one.
    pub entries: Vec<AllowEntry>,
    /// Addresses of the cluster's nodes.
    pub nodes: Vec<IpNetwork>,
    /// Addresses of this node, refreshed by the shell.
    pub local: Vec<IpAddr>,
}

impl AllowList {
    /// Judges a peer of a management service: the first entry that speaks of both decides.
    ///
    /// An IPv4-mapped address is its IPv4 address, in the peer as well as in the entries.
    #[must_use]
    pub fn judge(&self, peer: IpAddr, service: Service, port: u16) -> Verdict {
        let peer = peer.to_canonical();
        let decides = |entry: &&AllowEntry| entry.to.covers(service, port) && self.covers(&entry.from, peer);
        match self.entries.iter().find(decides) {
            Some(entry) => Verdict::Listed(entry.name.clone()),
            None => Verdict::Unlisted,
        }
    }

    fn covers(&self, from: &Source, peer: IpAddr) -> bool {
        let listed = in_any(&from.networks, peer)
            || (from.nodes && in_any(&self.nodes, peer))
            || (from.local && self.is_local(peer));
        listed && !in_any(&from.except, peer)
    }

    fn is_local(&self, peer: IpAddr) -> bool {
        peer.is_loopback() || self.local.iter().any(|own| own.to_canonical() == peer)
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
