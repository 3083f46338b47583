//! Connections that a program of the host passes on: whose may be the one that it makes now.
//!
//! A forwarder (`socat`, `ssh -L`) holds the connection that it was given when it makes its own. Looked at is what the process
//! has open, and only when it connects to a watched port or to
//! the socket of a runtime: neither its listener nor how it took the connection need be known.

use sensor_common::record::{CgroupId, HOP_FILES_MAX, HopRecord, RecordKind, Ring};

use crate::constants::setting;
use crate::emit::{emit, now};
use crate::kernel::{Access, Probed, Sock, Task, opaque, untyped_current};

/// Stands for the id of a connect to the socket of a runtime, which has none.
pub const TO_SOCKET: u64 = 0;

/// A connection that the current task may pass on.
#[derive(Clone, Copy)]
pub struct Behind(Sock<Probed>);

/// The one connection that the current task may pass on; of several nobody knows which. Nothing where this kernel lets no
/// program read what a process has open.
#[inline(always)]
pub fn behind() -> Option<Behind> {
    if setting!(reads_kernel) == 0 {
        return None;
    }
    match passed_on() {
        0 => None,
        address => Some(Behind(Sock::new(address as *const u8))),
    }
}

/// Reports what the current task may pass on by the connection with this id.
#[inline(always)]
pub fn report<A: Access>(behind: Behind, task: Task<A>, cgroup: CgroupId, conn: u64, at: u64) {
    emit::<HopRecord>(Ring::Bulk, RecordKind::Hop, at, |record| {
        // SAFETY: `record` points to room for the record.
        unsafe {
            (*record).conn = conn;
            task.identify(&raw mut (*record).task);
            (*record).cgroup = cgroup;
            behind.0.ends(behind.0.local_port(), &raw mut (*record).behind);
        }
    });
}

/// Looks through what the current task has open. Returns the address of the socket of its one connection that may be passed
/// on, or 0. Apart from its callers, of which the verifier then follows the rest but twice: with 0 and with any address.
#[inline(never)]
fn passed_on() -> u64 {
    let descriptors = untyped_current().descriptors();
    // Zero, of which the verifier does not know that: it follows every value that it knows by itself, from each of the
    // descriptors on.
    let zero = now() >> 63;
    let (mut found, mut count) = (zero, zero);
    let mut number = 0;
    while number < HOP_FILES_MAX && number < descriptors.len() {
        if let Some(sock) = descriptors.get(number).and_then(|file| file.socket())
            && may_be_passed_on(sock)
        {
            found = sock.key();
            count += 1;
        }
        // Hidden from the compiler, which would write the loop out.
        number = opaque(number + 1);
    }
    if count == 1 { found } else { 0 }
}

/// Whether a socket is a connection that somebody else may have opened: its port is not one that the kernel chose when it
/// connected. The peer has no say in that, as it has in its own port.
#[inline(always)]
fn may_be_passed_on(sock: Sock<Probed>) -> bool {
    sock.is_internet() && sock.is_tcp() && sock.is_established() && !sock.has_chosen_port()
}
