//! What is remembered of reported connections until they end.
//!
//! Of an accepted connection nothing, where the kernel gives each socket a number of its own: the number is the id of the
//! connection, and a socket on a watched port that has one was reported. A table, entered and left, would cost more than
//! both records of the connection together. Of an outbound connection who made it, because at its end nobody could tell.
//!
//! Most sockets of a node are of no interest, so being told "not in the table" must be cheaper than a hash lookup: a
//! counter per peer port says whether there can be an outbound connection.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use sensor_common::counters::Event;
use sensor_common::record::{CgroupId, Direction, Ring, TaskId};

use crate::budgets::hash_of_cgroup;
use crate::flood::add;
use crate::hash::finish;
use crate::kernel::{Direct, Sock};
use crate::maps::{
    ACCEPTED, BPF_NOEXIST, CONNECTION_IDS, OUTBOUND, OUTBOUND_MAX, OUTBOUND_PORTS, OUTBOUND_PORTS_LEN,
    OUTBOUND_SHARES, OUTBOUND_SHARES_LEN,
};
use crate::withheld::Mark;

/// An accepted connection, on kernels where it must be remembered.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Accepted {
    /// Connection id; 0 where its accept was withheld.
    pub conn: u64,
    /// Boot clock of establishment; 0 where nobody has remembered it.
    pub opened_ns: u64,
    /// The [`Ring`] that its accept was reported on.
    pub ring: u64,
}

/// An outbound connection. Its ends are read from the socket again when it closes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Outbound {
    /// Connection id.
    pub conn: u64,
    /// Boot clock of the attempt while it has no result, of establishment after that.
    pub since_ns: u64,
    /// Bits of [`outbound_state`].
    pub state: u64,
    /// The connecting task.
    pub task: TaskId,
    /// Cgroup of that task.
    pub cgroup: CgroupId,
}

/// Bits of [`Outbound::state`].
pub mod outbound_state {
    /// It is established.
    pub const ESTABLISHED: u64 = 1;
    /// The budget of its cgroup did not bear the record of how far it has come: what follows from that has none either.
    pub const WITHHELD: u64 = 1 << 1;
    /// It is charged to no budget and no share: it is no cgroup's, but the sensor's own canary.
    pub const FREE: u64 = 1 << 2;
}

/// Entries of [`OUTBOUND`] that no cgroup gets.
const OUTBOUND_RESERVED: u64 = 256;
/// A cgroup may have an entry more while it has fewer than this part of those that are free. Whoever takes all it can gets a
/// ninth of the table; the more there are of that kind the less each gets, and there always is room for one that has none.
const OUTBOUND_SHARE: u64 = 8;

/// Returns the id of a connection that is being accepted.
#[inline(always)]
pub fn inbound_id(sock: Sock<Direct>) -> u64 {
    // The kernel hands out small numbers, which no outbound connection has.
    sock.number_it().unwrap_or_else(|| new_id(Direction::Inbound))
}

/// Remembers an accepted connection that was reported on this ring.
#[inline(always)]
pub fn begin_inbound(sock: Sock<Direct>, conn: u64, opened_ns: u64, ring: Ring) -> Result<(), Event> {
    if Sock::has_number() {
        // Its end follows it to the bulk ring, unless the kernel cannot mark it.
        let is_tracked = ring == Ring::Management || Mark::set_on_bulk(sock).is_some();
        return if is_tracked { Ok(()) } else { Err(Event::UntrackedConnection) };
    }
    let accepted = Accepted { conn, opened_ns, ring: ring as u64 };
    ACCEPTED.insert(sock.key(), accepted, 0).map_err(|_| Event::UntrackedConnection)
}

/// What is known of an accepted connection; `None` when it was not reported.
#[inline(always)]
pub fn inbound(sock: Sock<Direct>) -> Option<Accepted> {
    if Sock::has_number() {
        let conn = sock.number();
        return if conn == 0 { None } else { Some(Accepted { conn, opened_ns: 0, ring: 0 }) };
    }
    // SAFETY: nobody but the owner of the socket touches its entry.
    unsafe { ACCEPTED.get(sock.key()) }.copied().filter(|accepted| accepted.conn != WITHHELD)
}

/// Remembers an accepted connection that is not reported; says whether it could. One that cannot be remembered must be
/// reported, because a request on it would go unseen.
#[inline(always)]
pub fn withhold_inbound(sock: Sock<Direct>, opened_ns: u64) -> bool {
    if Sock::has_number() {
        Mark::set(sock, opened_ns).is_some()
    } else {
        ACCEPTED.insert(sock.key(), Accepted { conn: WITHHELD, opened_ns, ring: 0 }, 0).is_ok()
    }
}

/// Finds a withheld connection in the table and gives it an id, so that nobody else reports it; `None` when it is not there
/// or was reported. Looked up and taken in one go: at the end of the connection the entry leaves, and another one may use it.
#[inline(always)]
pub fn take_withheld(sock: Sock<Direct>) -> Option<&'static mut Accepted> {
    // SAFETY: points into the map. Between the load and the store nobody else takes it but in the same moment, as with a
    // mark, see withheld.rs.
    let connection = unsafe { &mut *ACCEPTED.get_ptr_mut(sock.key())? };
    if connection.conn != WITHHELD {
        return None;
    }
    connection.conn = new_id(Direction::Inbound);
    Some(connection)
}

/// What is known of an accepted connection that ends.
pub enum Ended {
    /// Its accept was reported.
    Reported(Accepted),
    /// Its accept was withheld; established at this time.
    Withheld(u64),
    /// It is older than the sensor.
    Unknown,
}

/// In place of a connection id: the accept was withheld.
const WITHHELD: u64 = 0;

/// Forgets an accepted connection and returns what is known of it.
#[inline(always)]
pub fn end_inbound(sock: Sock<Direct>) -> Ended {
    if Sock::has_number() {
        // Somebody else may have asked for the number of a socket that we have not reported.
        let mut ring = Ring::Management;
        if let Some(mark) = Mark::find(sock.address()) {
            ring = mark.ring();
            if let Some(since_ns) = mark.take() {
                return Ended::Withheld(since_ns);
            }
        }
        let conn = sock.number();
        return if conn == 0 {
            Ended::Unknown
        } else {
            Ended::Reported(Accepted { conn, opened_ns: 0, ring: ring as u64 })
        };
    }
    // SAFETY: nobody but the owner of the socket touches its entry.
    let Some(accepted) = unsafe { ACCEPTED.get(sock.key()) }.copied() else { return Ended::Unknown };
    // Fails only when somebody else has removed it, and nobody else removes.
    let _ = ACCEPTED.remove(sock.key());
    if accepted.conn == WITHHELD { Ended::Withheld(accepted.opened_ns) } else { Ended::Reported(accepted) }
}

/// Returns a number that no other connection of this run has.
#[inline(always)]
pub fn new_id(direction: Direction) -> u64 {
    // SAFETY: the helper has no preconditions.
    let cpu = u64::from(unsafe { bpf_get_smp_processor_id() });
    let Some(ids) = CONNECTION_IDS.get_ptr_mut(0) else { return 0 };
    // SAFETY: the array has an element per direction; programs that use the same one do not interrupt each other.
    let id = unsafe {
        let next = ids.cast::<u64>().add(direction as usize);
        *next += 1;
        *next
    };
    cpu << 48 | (direction as u64) << 47 | id
}

/// Remembers an outbound connection; replaces what a socket whose end was missed has left at the same address.
#[inline(always)]
pub fn begin_outbound(sock: Sock<Direct>, connection: &Outbound) -> Result<(), Event> {
    if !has_share(connection) {
        return Err(Event::ConnectionShare);
    }
    let key = sock.key();
    if OUTBOUND.insert(key, connection, BPF_NOEXIST).is_err() {
        // What was left goes with its share; the counter of its port is not known any more, and may be too high.
        if let Some(left) = OUTBOUND.get_ptr(key) {
            // SAFETY: points into the map; nobody but the owner of the socket touches its entry.
            forget(key, unsafe { &*left });
        }
        OUTBOUND.insert(key, connection, BPF_NOEXIST).map_err(|_| Event::UntrackedConnection)?;
    }
    add_outbound(sock.peer_port(), 1);
    add_share(connection, 1);
    Ok(())
}

/// Forgets an outbound connection, the one that was found for the socket.
#[inline(always)]
pub fn end_outbound(sock: Sock<Direct>, connection: &Outbound) {
    if forget(sock.key(), connection) {
        add_outbound(sock.peer_port(), -1);
    }
}

/// Removes an entry and gives its share back; says whether it was there.
#[inline(always)]
fn forget(key: u64, connection: &Outbound) -> bool {
    // Another connection may use the entry as soon as it is removed.
    let connection = *connection;
    // Fails only when somebody else has removed it, and nobody else removes.
    let is_removed = OUTBOUND.remove(key).is_ok();
    if is_removed {
        add_share(&connection, -1);
    }
    is_removed
}

/// Whether the cgroup of a connection may have one more entry.
#[inline(always)]
fn has_share(connection: &Outbound) -> bool {
    if connection.state & outbound_state::FREE != 0 {
        return true;
    }
    let entries = |place| OUTBOUND_SHARES.get(place).map_or(u64::MAX, |entries| *entries);
    let free = (u64::from(OUTBOUND_MAX) - OUTBOUND_RESERVED).saturating_sub(entries(OUTBOUND_SHARES_LEN));
    entries(share_of(&connection.cgroup)) < free / OUTBOUND_SHARE
}

/// Counts the entry of a connection, for its cgroup and for all.
#[inline(always)]
fn add_share(connection: &Outbound, delta: i64) {
    let add_at = |place| {
        if let Some(entries) = OUTBOUND_SHARES.get_ptr_mut(place) {
            // SAFETY: points into the map.
            unsafe { add(entries, delta as u64) };
        }
    };
    add_at(OUTBOUND_SHARES_LEN);
    if connection.state & outbound_state::FREE == 0 {
        add_at(share_of(&connection.cgroup));
    }
}

/// The place of a cgroup in [`OUTBOUND_SHARES`].
#[inline(always)]
fn share_of(cgroup: &CgroupId) -> u32 {
    finish(hash_of_cgroup(cgroup)) as u32 & (OUTBOUND_SHARES_LEN - 1)
}

/// Finds the outbound connection of a socket.
#[inline(always)]
pub fn find_outbound(sock: Sock<Direct>) -> Option<*mut Outbound> {
    if may_be_outbound(sock) { OUTBOUND.get_ptr_mut(sock.key()) } else { None }
}

/// Whether an outbound connection to this socket's peer port is remembered. The kernel keeps that port in the socket until
/// it has announced the close.
#[inline(always)]
pub fn may_be_outbound(sock: Sock<Direct>) -> bool {
    match OUTBOUND_PORTS.get(0) {
        Some(counters) => counters[sock.peer_port() as usize % OUTBOUND_PORTS_LEN] != 0,
        None => true,
    }
}

/// Adds to the counter of a peer port.
#[inline(always)]
fn add_outbound(port: u16, delta: i64) {
    if let Some(counters) = OUTBOUND_PORTS.get_ptr_mut(0) {
        // SAFETY: the index is within the array.
        unsafe { add(counters.cast::<u64>().add(port as usize % OUTBOUND_PORTS_LEN), delta as u64) };
    }
}
