//! Flood control: what the probes keep of each peer and port, and the agent reads to summarise.
//!
//! A limit is one number, the time until which its budget is spent: a record moves it one interval on, from now at least,
//! and is withheld when that would put it further ahead than the burst allows. (This is the generic cell rate algorithm.)

use crate::record::abi;

/// Peers that are kept apart from each other.
pub const PEERS_LEN: usize = 8192;
/// Peers in one value of the `FLOOD_PEERS` map: few calls read them all, and none moves much.
pub const PEERS_CHUNK: usize = 64;
/// Ports, each in its network namespace, that are kept apart from each other.
pub const PORTS_MAX: u32 = 1024;
/// How many peers with a full budget a port bears: its own limit in those of one peer.
pub const PEERS_PER_PORT: u64 = 16;
/// How many peers with a full budget the management ring bears of all network namespaces but the node's.
pub const PEERS_ELSEWHERE: u64 = 64;
/// Attempts to connect that are remembered, so that a repeated one does not count twice.
pub const ATTEMPTS_LEN: usize = 16384;
/// Budgets of cgroups at files (sockets of runtimes, places of credentials).
pub const FILES_LEN: usize = 8192;
/// Budgets of cgroups for connects: two at each lateral port, and two for all other ports together.
pub const CONNECTS_LEN: usize = 8192;

const _: () = assert!(
    PEERS_LEN.is_power_of_two()
        && PEERS_CHUNK.is_power_of_two()
        && ATTEMPTS_LEN.is_power_of_two()
        && FILES_LEN.is_power_of_two()
        && CONNECTS_LEN.is_power_of_two(),
    "the probes find places with masks"
);

abi! {
/// A watched port in a network namespace.
#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortKey {
    /// Inode of the network namespace; 0 for all those in which this port found no place of its own.
    pub netns: u32,
    /// The port; 0, with namespace 0, for all ports that found no place.
    pub port: u32,
}
}

abi! {
/// What is counted of a peer and of a port, since the entry was made. Only grows.
#[derive(Default, PartialEq, Eq)]
pub struct Counts {
    /// First packets of connections; repeated ones left out as far as they are remembered. 0 without the packet hook.
    pub attempts: u64,
    /// Connections completed.
    pub accepts: u64,
    /// Accepts that were withheld.
    pub withheld: u64,
    /// Withheld accepts that were reported after all, because a request followed.
    pub resumed: u64,
}
}

abi! {
/// One peer at one port.
///
/// A peer has two places to choose from. When both are taken it gets the one whose budget is the less spent, with that
/// budget: whoever can choose many addresses gains nothing from it. What is counted for a peer is therefore not exact.
#[derive(PartialEq, Eq)]
pub struct Peer {
    /// Address in network order, IPv4 as `::ffff:a.b.c.d`; the last eight bytes of a global IPv6 address (2000::/3) are
    /// zero, because whoever has one of them usually has all.
    pub addr: [u64; 2],
    /// Where it connects to.
    pub place: PortKey,
    /// Boot clock until which its budget of accepts is spent.
    pub accepts_until_ns: u64,
    /// Boot clock until which its budget of withheld accepts that are reported after all is spent.
    pub requests_until_ns: u64,
    /// Boot clock at which it took this place; 0 = free.
    pub since_ns: u64,
    /// What was counted since then.
    pub counts: Counts,
}
}

abi! {
/// All peers of one port. Counted exactly.
#[derive(Default, PartialEq, Eq)]
pub struct Port {
    /// Local address of the last attempt or withheld accept, as in [`Peer::addr`], but whole.
    pub local_addr: [u64; 2],
    /// As for a peer.
    pub accepts_until_ns: u64,
    /// As for a peer.
    pub requests_until_ns: u64,
    /// What was counted.
    pub counts: Counts,
    /// Times that a peer took a place in the table of peers.
    pub arrivals: u64,
    /// Who made the entry: one of [`port_origin`].
    pub origin: u64,
}
}

/// Values of [`Port::origin`].
pub mod port_origin {
    /// The probes, for a network namespace other than the node's; it gives way when it is idle.
    pub const PROBES: u64 = 0;
    /// The agent, for all those that found no place; stays.
    pub const SHARED: u64 = 1;
    /// The agent, for the node's own network namespace; stays.
    pub const NODE: u64 = 2;
}

/// One value of the `FLOOD_PEERS` map.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct PeerChunk(pub [Peer; PEERS_CHUNK]);

#[cfg(feature = "loader")]
mod pod {
    #![expect(unsafe_code, reason = "markers for plain data")]

    // SAFETY: integers only, without padding; every bit pattern is valid.
    unsafe impl aya::Pod for super::PortKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Port {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::PeerChunk {}
}
