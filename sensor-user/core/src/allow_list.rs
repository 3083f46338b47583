//! The operator's expected access: ordered entries, the first match decides and is named.

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

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
    /// Judges a peer of a management service.
    #[must_use]
    pub fn judge(&self, _peer: IpAddr, _service: Service, _port: u16) -> Verdict {
        Verdict::Unlisted
    }
}
