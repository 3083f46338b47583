//! What a listener record says beyond its socket: where it leads, and who has reached it.

use std::net::IpAddr;

use super::{End, Service};

/// Where a port that a runtime publishes leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeadsTo {
    /// Address inside the container.
    pub ip: IpAddr,
    /// Port there.
    pub port: u16,
    /// Service by that port.
    pub service: Service,
}

/// A TCP port of the host that a runtime publishes for a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Published {
    /// On the host.
    pub host: End,
    /// In the container.
    pub inner: End,
}

/// A peer and when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerSeen {
    /// Its address; an IPv4-mapped address is kept as IPv4.
    pub ip: IpAddr,
    /// Wall clock, nanoseconds since 1970.
    pub unix_ns: u64,
}

/// Who has reached an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Connections; those that flood control withheld are counted with the summary that tells of them.
    pub accepts: u64,
    /// Different outside peers; not counted beyond [`crate::exposure::OUTSIDE_MAX`].
    pub outside_peers: u32,
    /// The first outside peer.
    pub first: Option<PeerSeen>,
    /// The latest one.
    pub last: Option<PeerSeen>,
}
