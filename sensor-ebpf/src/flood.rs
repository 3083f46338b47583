//! Flood control: which accepts get records of their own, and the counts of those that do not.
//!
//! A peer has a budget at each port, and so have all peers of a port together. The more of its own budget a peer has
//! spent, the more of the common one must be left for it: a crowd of busy peers leaves half of it to those that come
//! now and then. See [`sensor_common::flood`] for the arithmetic, and for what somebody with many addresses gains.

use core::arch::asm;

use sensor_common::flood::{
    ATTEMPTS_LEN, Counts, PEERS_CHUNK, PEERS_ELSEWHERE, PEERS_LEN, PEERS_PER_PORT, Peer, Port, PortKey,
    port_origin,
};
use sensor_common::record::Ring;

use crate::budgets::{Part, bears_on_ring};
use crate::constants::setting;
use crate::hash::{finish, mix, salt};
use crate::kernel::opaque;
use crate::maps::{BPF_NOEXIST, FLOOD_ATTEMPTS, FLOOD_EARLY, FLOOD_PEERS, FLOOD_PORTS};

/// Key of the entry for ports that find no place at all; the agent makes it.
const OTHER_PORTS: PortKey = PortKey { netns: 0, port: 0 };

/// What a record is charged to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// Of accepts.
    Accepts,
    /// Of accepts that were withheld, once a request follows.
    Requests,
}

/// Something that is counted of a peer and its port.
#[derive(Clone, Copy)]
pub enum Count {
    /// See [`Counts::attempts`].
    Attempt,
    /// See [`Counts::accepts`].
    Accept,
    /// See [`Counts::withheld`].
    Withheld,
    /// See [`Counts::resumed`].
    Resumed,
}

/// A peer, and where it connects to.
#[derive(Clone, Copy)]
pub struct PeerKey {
    addr: [u64; 2],
    place: PortKey,
}

/// The budgets and counts of a peer and of its port.
pub struct Account {
    peer: *mut Peer,
    port: *mut Port,
}

impl PeerKey {
    /// `addr` is in network order, IPv4 as an IPv4-mapped address.
    #[inline(always)]
    pub fn new(addr: [u64; 2], netns: u32, port: u16) -> Self {
        // Global addresses are given out by networks of this size. Others (IPv4, loopback, link-local, unique local, NAT64)
        // have no prefix that belongs to one host.
        let is_global = u64::from_be(addr[0]) >> 61 == 1;
        let addr = if is_global { [addr[0], 0] } else { addr };
        Self { addr, place: PortKey { netns, port: u32::from(port) } }
    }

    /// Its hash, of which every bit counts.
    #[inline(always)]
    pub fn hash(&self) -> u64 {
        let place = u64::from(self.place.netns) << 32 | u64::from(self.place.port);
        finish(mix(mix(mix(salt(), self.addr[0]), self.addr[1]), place))
    }

    /// The hash of a connection, or of an attempt at one.
    #[inline(always)]
    fn hash_of(&self, peer_port: u16, sequence: u32) -> u64 {
        finish(mix(self.hash(), u64::from(peer_port) << 32 | u64::from(sequence)))
    }

    /// Whether this attempt to connect was seen before, as far as is remembered. A repeated one has the same ports and
    /// the same sequence number.
    #[inline(always)]
    pub fn is_repeated(&self, peer_port: u16, sequence: u32) -> bool {
        let hash = self.hash_of(peer_port, sequence);
        let Some(seen) = FLOOD_ATTEMPTS.get_ptr_mut((hash & (ATTEMPTS_LEN as u64 - 1)) as u32) else {
            return false;
        };
        // SAFETY: `seen` points into the map; a number is read and written whole.
        unsafe {
            let repeated = *seen == hash;
            *seen = hash;
            repeated
        }
    }

    /// Notes that the packet which completes a connection brings data. The kernel announces the connection while it handles
    /// that packet, on the same CPU.
    #[inline(always)]
    pub fn note_early_data(&self, peer_port: u16) {
        if let Some(early) = FLOOD_EARLY.get_ptr_mut(0) {
            // SAFETY: points to the number of this CPU.
            unsafe { *early = self.hash_of(peer_port, 0) };
        }
    }

    /// Whether that was noted last.
    #[inline(always)]
    pub fn has_early_data(&self, peer_port: u16) -> bool {
        // SAFETY: points to the number of this CPU.
        FLOOD_EARLY.get_ptr_mut(0).is_some_and(|early| unsafe { *early } == self.hash_of(peer_port, 0))
    }
}

impl Account {
    /// Finds the account of a peer, or opens one.
    #[inline(always)]
    pub fn of(key: &PeerKey, now: u64) -> Option<Self> {
        let port = port_of(&key.place)?;
        let hash = key.hash();
        let (first, second) = (peer_at(hash)?, peer_at(hash >> 32)?);
        // SAFETY: both point into the map. Another CPU may write them at the same time; then a count or an address is wrong,
        // for which the numbers of the port make up.
        unsafe {
            let peer = if is_of(first, key) {
                first
            } else if is_of(second, key) {
                second
            } else {
                let peer = if is_worth_less(second, first) { second } else { first };
                // The budgets stay as spent as they are.
                (*peer).addr = key.addr;
                (*peer).place = key.place;
                (*peer).since_ns = now;
                (*peer).counts = Counts { attempts: 0, accepts: 0, withheld: 0, resumed: 0 };
                add(&raw mut (*port).arrivals, 1);
                peer
            };
            Some(Self { peer, port })
        }
    }

    /// Charges a record to the budgets of the peer and of its port and says on which ring it goes; `None` if they cannot bear
    /// it. On the bulk ring, if the port is not the node's and the management ring has no room left for those of others.
    #[inline(always)]
    pub fn charge(&self, budget: Budget, now: u64) -> Option<Ring> {
        let interval = setting!(flood_interval_ns);
        let horizon = interval.wrapping_mul(setting!(flood_burst));
        // SAFETY: both point into maps.
        let (own, common) = unsafe {
            match budget {
                Budget::Accepts => {
                    (&raw mut (*self.peer).accepts_until_ns, &raw mut (*self.port).accepts_until_ns)
                }
                Budget::Requests => {
                    (&raw mut (*self.peer).requests_until_ns, &raw mut (*self.port).requests_until_ns)
                }
            }
        };
        let share = interval / PEERS_PER_PORT;
        // SAFETY: as above. A lost update lets one record more through.
        unsafe {
            let (spent, spent_by_all) = ((*own).saturating_sub(now), (*common).saturating_sub(now));
            if spent + interval > horizon || spent_by_all + spent / 2 + share > horizon {
                return None;
            }
            *own = now + spent + interval;
            if spent_by_all == 0 {
                *common = now;
            }
            add(common, share);
            let is_borne = (*self.port).origin == port_origin::NODE
                || bears_on_ring(
                    Part::Connections,
                    horizon.saturating_sub(spent_by_all / 2),
                    interval / PEERS_ELSEWHERE,
                    now,
                );
            Some(if is_borne { Ring::Management } else { Ring::Bulk })
        }
    }

    /// The ring for an accept on whose connection a request came, though its own budget was spent. Beyond the budget for
    /// such accepts it is the bulk ring: a request is never withheld, but a flood of them displaces no management record.
    #[inline(always)]
    pub fn ring_for_request(&self, now: u64) -> Ring {
        self.charge(Budget::Requests, now).unwrap_or(Ring::Bulk)
    }

    /// Counts something, exactly for the port, and for the peer as long as it keeps its place.
    #[inline(always)]
    pub fn count(&self, what: Count) {
        // SAFETY: both point into maps.
        unsafe {
            let (peer, port) = (&raw mut (*self.peer).counts, &raw mut (*self.port).counts);
            let (own, common) = match what {
                Count::Attempt => (&raw mut (*peer).attempts, &raw mut (*port).attempts),
                Count::Accept => (&raw mut (*peer).accepts, &raw mut (*port).accepts),
                Count::Withheld => (&raw mut (*peer).withheld, &raw mut (*port).withheld),
                Count::Resumed => (&raw mut (*peer).resumed, &raw mut (*port).resumed),
            };
            add(own, 1);
            add(common, 1);
        }
    }

    /// Notes the local address that the peer used.
    #[inline(always)]
    pub fn note_local(&self, addr: [u64; 2]) {
        // SAFETY: points into the map.
        unsafe { (*self.port).local_addr = addr };
    }
}

#[inline(always)]
fn port_of(place: &PortKey) -> Option<*mut Port> {
    if let Some(port) = FLOOD_PORTS.get_ptr_mut(place) {
        return Some(port);
    }
    let empty = Port {
        local_addr: [0; 2],
        accepts_until_ns: 0,
        requests_until_ns: 0,
        counts: Counts { attempts: 0, accepts: 0, withheld: 0, resumed: 0 },
        arrivals: 0,
        origin: port_origin::PROBES,
    };
    // Fails when there is no place left, or another CPU was faster.
    #[expect(
        clippy::needless_borrows_for_generic_args,
        reason = "by value the copy costs the verifier a tenth to a quarter more instructions"
    )]
    let _ = FLOOD_PORTS.insert(place, &empty, BPF_NOEXIST);
    FLOOD_PORTS
        .get_ptr_mut(place)
        .or_else(|| FLOOD_PORTS.get_ptr_mut(PortKey { netns: 0, ..*place }))
        .or_else(|| FLOOD_PORTS.get_ptr_mut(OTHER_PORTS))
}

#[inline(always)]
fn peer_at(hash: u64) -> Option<*mut Peer> {
    let index = hash & (PEERS_LEN as u64 - 1);
    let chunk = FLOOD_PEERS.get_ptr_mut((index / PEERS_CHUNK as u64) as u32)?;
    let within = opaque(index) & (PEERS_CHUNK as u64 - 1);
    // SAFETY: the index is within the chunk.
    Some(unsafe { chunk.cast::<Peer>().add(within as usize) })
}

/// # Safety
/// `peer` must point to a peer.
#[inline(always)]
unsafe fn is_of(peer: *const Peer, key: &PeerKey) -> bool {
    // SAFETY: see above.
    let Peer { addr, place, .. } = unsafe { &*peer };
    addr[1] == key.addr[1]
        && addr[0] == key.addr[0]
        && place.netns == key.place.netns
        && place.port == key.place.port
}

/// Whether to displace the one rather than the other: its budget is the less spent, or as much and it is older.
///
/// # Safety
/// Both must point to peers.
#[inline(always)]
unsafe fn is_worth_less(one: *const Peer, other: *const Peer) -> bool {
    // SAFETY: see above.
    let (one, other) = unsafe { (&*one, &*other) };
    if one.accepts_until_ns == other.accepts_until_ns {
        one.since_ns < other.since_ns
    } else {
        one.accepts_until_ns < other.accepts_until_ns
    }
}

/// Adds in a single instruction, wrapping around; see emit.rs for why in assembly.
///
/// # Safety
/// `to` must point to a number in a map.
#[inline(always)]
pub unsafe fn add(to: *mut u64, number: u64) {
    // SAFETY: see above.
    unsafe { asm!("lock *(u64 *)({to} + 0) += {number}", to = in(reg) to, number = in(reg) number) };
}
