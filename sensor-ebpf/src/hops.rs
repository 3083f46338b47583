//! Connections that a program of the host passes on: whose may be the one that it makes now.
//!
//! A forwarder (`socat`, `ssh -L`) holds the connection that it was given when it makes its own. Looked at is what the process
//! has open, and only when it connects to a watched port or to
//! the socket of a runtime: neither its listener nor how it took the connection need be known.

use core::ptr;

use sensor_common::record::{CgroupId, Endpoints, HOP_FILES_MAX, HopRecord, RecordKind, Ring};
use sensor_common::settings::port_flags;

use crate::constants::setting;
use crate::emit::emit;
use crate::kernel::{Access, Descriptors, Probed, Sock, Task, opaque, untyped_current};
use crate::maps::flags_of;

/// Stands for the id of a connect to the socket of a runtime, which has none.
pub const TO_SOCKET: u64 = 0;

/// Where the kernel begins, unless it is told otherwise, to give out ports to those who connect.
const EPHEMERAL: u16 = 32_768;

/// Whether this kernel lets a program read what a process has open.
#[inline(always)]
pub fn are_known() -> bool {
    setting!(reads_kernel) != 0
}

/// Reports what the current task may pass on by the connection with this id. Says whether it is one connection: only then it
/// can be told whose.
#[inline(always)]
pub fn report<A: Access>(task: Task<A>, cgroup: CgroupId, conn: u64, at: u64) -> bool {
    let mut count = 0;
    emit::<HopRecord>(Ring::Bulk, RecordKind::Hop, at, |record| {
        // SAFETY: `record` points to room for the record.
        unsafe {
            (*record).conn = conn;
            task.identify(&raw mut (*record).task);
            (*record).cgroup = cgroup;
            ptr::write((&raw mut (*record).behind).cast(), [0_u64; size_of::<Endpoints>() / 8]);
            (*record).count = 0;
            (*record).reserved = 0;
            find(untyped_current().descriptors(), record);
            // From memory, of which the verifier knows nothing: otherwise it would follow every number by itself.
            count = ptr::read_volatile(&raw const (*record).count);
            let behind = &raw mut (*record).behind;
            if count == 1 {
                let sock = Sock::<Probed>::new(ptr::read_volatile(behind.cast::<u64>()) as *const u8);
                sock.ends(sock.local_port(), behind);
            }
        }
    });
    count == 1
}

/// Writes the connections that may be passed on.
///
/// # Safety
/// `record` must point to a record.
#[inline(always)]
unsafe fn find(descriptors: Descriptors, record: *mut HopRecord) {
    let mut number = 0;
    while number < HOP_FILES_MAX {
        if number >= descriptors.len() {
            return;
        }
        if let Some(sock) = descriptors.get(number).and_then(|file| file.socket())
            && may_be_passed_on(sock)
        {
            // SAFETY: see above. Volatile: see `report`.
            unsafe {
                let count = &raw mut (*record).count;
                ptr::write_volatile(count, ptr::read_volatile(count).wrapping_add(1));
                // Its place, which becomes its ends when it is the only one.
                ptr::write_volatile((&raw mut (*record).behind).cast::<u64>(), sock.key());
            }
        }
        // Hidden from the compiler, which would write the loop out.
        number = opaque(number + 1);
    }
}

/// Whether a socket is a connection that somebody else may have opened. Only the numbers of its ports say so.
#[inline(always)]
fn may_be_passed_on(sock: Sock<Probed>) -> bool {
    if !sock.is_internet() || !sock.is_tcp() || !sock.is_established() {
        return false;
    }
    let is_own = sock.local_port() >= EPHEMERAL && sock.peer_port() < EPHEMERAL;
    !is_own && flags_of(sock.peer_port()) & port_flags::WATCHED == 0
}
