//! The tables of reported connections that have not ended, one for each direction.
//!
//! Most sockets of a node are of no interest, so being told "not in a table" must be cheaper than a hash lookup. An
//! accepted connection is only ever in it when its local port is watched; for outbound ones a counter per peer port says
//! whether there can be any.

use core::arch::asm;

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use sensor_common::counters::Event;
use sensor_common::record::{CgroupId, Direction, TaskId};

use crate::kernel::{Direct, Sock};
use crate::maps::{ACCEPTED, CONNECTION_IDS, OUTBOUND, OUTBOUND_PORTS, OUTBOUND_PORTS_LEN};

/// Where a tracked connection stands.
pub mod stage {
    /// An outbound connect without a result.
    pub const PENDING: u64 = 0;
    /// An established outbound connection.
    pub const OUTBOUND: u64 = 1;
    /// An accepted connection.
    pub const INBOUND: u64 = 2;
}

/// A tracked connection. Its ends are read from the socket again when it closes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Connection {
    /// Connection id.
    pub conn: u64,
    /// Boot clock of the attempt while pending, of establishment after that.
    pub since_ns: u64,
    /// A [`stage`].
    pub stage: u64,
    /// The connecting task; zero for accepted connections.
    pub task: TaskId,
    /// Cgroup of that task; zero for accepted connections, whose socket knows it.
    pub cgroup: CgroupId,
}

impl Connection {
    /// An accepted connection.
    #[inline(always)]
    pub const fn inbound(conn: u64, since_ns: u64) -> Self {
        let task = TaskId { pid: 0, uid: 0, start_ns: 0, comm: [0; 16] };
        let cgroup = CgroupId { id: 0, hierarchy: 0, reserved: 0 };
        Self { conn, since_ns, stage: stage::INBOUND, task, cgroup }
    }

    /// An outbound connect without a result.
    #[inline(always)]
    pub const fn pending(conn: u64, since_ns: u64, task: TaskId, cgroup: CgroupId) -> Self {
        Self { conn, since_ns, stage: stage::PENDING, task, cgroup }
    }
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

/// Enters a connection; replaces what a socket whose end was missed has left at the same address.
#[inline(always)]
pub fn track(sock: Sock<Direct>, connection: &Connection) -> Result<(), Event> {
    let is_inbound = connection.stage == stage::INBOUND;
    let table = if is_inbound { &ACCEPTED } else { &OUTBOUND };
    if table.insert(sock.key(), connection, 0).is_err() {
        return Err(Event::UntrackedConnection);
    }
    if !is_inbound {
        add_outbound(sock.peer_port(), 1);
    }
    Ok(())
}

/// Removes a connection.
#[inline(always)]
pub fn untrack(sock: Sock<Direct>, stage: u64) {
    let table = if stage == stage::INBOUND { &ACCEPTED } else { &OUTBOUND };
    // Fails only when somebody else has removed it, and nobody else removes.
    if table.remove(sock.key()).is_ok() && stage != stage::INBOUND {
        add_outbound(sock.peer_port(), -1);
    }
}

/// Finds the connection of a socket that may be of either direction.
#[inline(always)]
pub fn find(sock: Sock<Direct>) -> Option<*mut Connection> {
    let key = sock.key();
    match ACCEPTED.get_ptr_mut(key) {
        Some(connection) => Some(connection),
        None => OUTBOUND.get_ptr_mut(key),
    }
}

/// Finds the connection of a socket that has connected out.
#[inline(always)]
pub fn find_outbound(sock: Sock<Direct>) -> Option<*mut Connection> {
    OUTBOUND.get_ptr_mut(sock.key())
}

/// Whether an outbound connection to this socket's peer port is tracked. The kernel keeps that port in the socket until
/// it has announced the close.
#[inline(always)]
pub fn may_be_outbound(sock: Sock<Direct>) -> bool {
    match OUTBOUND_PORTS.get(0) {
        Some(counters) => counters[sock.peer_port() as usize % OUTBOUND_PORTS_LEN] != 0,
        None => true,
    }
}

/// Adds to the counter of a peer port. In assembly for the reason given in emit.rs.
#[inline(always)]
fn add_outbound(port: u16, delta: i64) {
    if let Some(counters) = OUTBOUND_PORTS.get_ptr_mut(0) {
        // SAFETY: the index is within the array; the addition is a single instruction.
        unsafe {
            let counter = counters.cast::<u64>().add(port as usize % OUTBOUND_PORTS_LEN);
            asm!("lock *(u64 *)({counter} + 0) += {delta}", counter = in(reg) counter, delta = in(reg) delta);
        }
    }
}
