//! Accepted connections without a record: withheld by flood control, or completed while the kernel called no program. They
//! are reported after all when a request follows.
//!
//! The mark of such a connection lies with its socket, where the kernel can do that: no table, so nobody can have the mark
//! of his connection evicted by opening others.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::btf_map;
use sensor_common::counters::Event;
use sensor_common::record::{AcceptRecord, RecordKind, Ring};

use crate::emit::{count_event, emit, submit};
use crate::flood::{Account, Count, PeerKey};
use crate::kernel::{Direct, Sock};

/// Boot clock of establishment, by socket; [`REPORTED`] or [`REPORTED_ON_BULK`] once it was reported, [`OUTBOUND`] if it was
/// no accept. The kernel bounds it
/// by the number of sockets and frees it with the socket.
#[btf_map]
static WITHHELD: SkStorage<u64> = SkStorage::new();

/// In place of a time: the accept was reported on the management ring.
const REPORTED: u64 = 0;
/// In place of a time: the accept was reported on the bulk ring.
const REPORTED_ON_BULK: u64 = 1;
/// In place of a time: a connection that was opened from here, and has a watched port of its own.
const OUTBOUND: u64 = 2;

/// `BPF_SK_STORAGE_GET_F_CREATE`.
const CREATE: u64 = 1;

/// The mark of a connection that is withheld.
#[derive(Clone, Copy)]
pub struct Mark(*mut u64);

impl Mark {
    /// Marks a connection as withheld; `None` when there is no memory for it.
    #[inline(always)]
    pub fn set(sock: Sock<Direct>, since_ns: u64) -> Option<Self> {
        let mark = Self::get(sock.address(), &since_ns, CREATE)?;
        // One that is there already keeps its value.
        // SAFETY: points to the value.
        unsafe { *mark.0 = since_ns };
        Some(mark)
    }

    /// Marks a connection as reported on the bulk ring; `None` when there is no memory for it.
    #[inline(always)]
    pub fn set_on_bulk(sock: Sock<Direct>) -> Option<Self> {
        Self::set(sock, REPORTED_ON_BULK)
    }

    /// Marks a connection as opened from here; without memory for it, its first data are taken for those of an accept.
    #[inline(always)]
    pub fn set_outbound(sock: Sock<Direct>) {
        let _ = Self::set(sock, OUTBOUND);
    }

    /// Marks a socket, any pointer to which the verifier knows as one, whose accept was reported late.
    #[inline(always)]
    pub fn set_late(sock: *const c_void, ring: Ring) {
        if ring == Ring::Bulk {
            let _ = Self::get(sock, &REPORTED_ON_BULK, CREATE);
        }
    }

    /// Finds the mark of a socket, any pointer to which the verifier knows as one.
    #[inline(always)]
    pub fn find(sock: *const c_void) -> Option<Self> {
        Self::get(sock, ptr::null(), 0)
    }

    #[inline(always)]
    fn get(sock: *const c_void, initial: *const u64, flags: u64) -> Option<Self> {
        let map = (&raw const WITHHELD).cast_mut().cast();
        // SAFETY: the map outlives the program; the kernel has checked that `sock` is a socket.
        let value = unsafe { bpf_sk_storage_get(map, sock.cast_mut(), initial.cast_mut().cast(), flags) };
        if value.is_null() { None } else { Some(Self(value.cast())) }
    }

    /// Takes the time of establishment away, so that nobody else reports the connection; `None` when it was reported.
    #[inline(always)]
    pub fn take(self) -> Option<u64> {
        // SAFETY: points to the value. Between the load and the store nobody else takes it but in the same moment: the
        // packet that brings data and the end of the connection.
        unsafe {
            let since_ns = *self.0;
            if since_ns <= OUTBOUND {
                return None;
            }
            *self.0 = REPORTED;
            Some(since_ns)
        }
    }

    /// Notes the ring that the connection was reported on.
    #[inline(always)]
    pub fn note_ring(self, ring: Ring) {
        let value = match ring {
            Ring::Management => REPORTED,
            Ring::Bulk => REPORTED_ON_BULK,
        };
        // SAFETY: points to the value.
        unsafe { *self.0 = value };
    }

    /// The ring that a reported connection was reported on.
    #[inline(always)]
    pub fn ring(self) -> Ring {
        // SAFETY: points to the value.
        if unsafe { *self.0 } == REPORTED_ON_BULK { Ring::Bulk } else { Ring::Management }
    }
}

/// Reports a withheld accept after all and says on which ring, see [`Account::ring_for_request`].
#[inline(always)]
pub fn resume(sock: Sock<Direct>, local_port: u16, conn: u64, since_ns: u64, now: u64) -> Ring {
    let ring = ring_for(sock, local_port, Count::Resumed, now);
    let submitted = submit::<AcceptRecord>(ring, RecordKind::Accept, since_ns, |record| {
        fill_accept(record, sock, local_port, conn);
    });
    count_event(match (ring, submitted) {
        (Ring::Management, true) => Event::Resumed,
        (Ring::Management, false) => Event::ResumedLost,
        (Ring::Bulk, true) => Event::ResumedOnBulk,
        (Ring::Bulk, false) => Event::ResumedOnBulkLost,
    });
    ring
}

/// Reports an accept of which no program was told, and says on which ring. The kernel calls no tracing program in a softirq
/// that has interrupted one of the same name; a program on packets is always called.
#[inline(always)]
pub fn report_late(sock: Sock<Direct>, local_port: u16, conn: u64, now: u64) -> Ring {
    let ring = ring_for(sock, local_port, Count::Accept, now);
    emit::<AcceptRecord>(ring, RecordKind::LateAccept, now, |record| {
        fill_accept(record, sock, local_port, conn);
    });
    ring
}

/// The ring for an accept that is reported because a request came, which is counted as `count`.
#[inline(always)]
fn ring_for(sock: Sock<Direct>, local_port: u16, count: Count, now: u64) -> Ring {
    let key = PeerKey::new(sock.peer_addr(), sock.netns(), local_port);
    let Some(account) = Account::of(&key, now) else { return Ring::Bulk };
    account.count(count);
    account.ring_for_request(now)
}

/// Writes everything behind the header of the record of an accept.
#[inline(always)]
pub fn fill_accept(record: *mut AcceptRecord, sock: Sock<Direct>, local_port: u16, conn: u64) {
    // SAFETY: `record` points to room for the record.
    unsafe {
        (*record).conn = conn;
        (*record).cgroup = sock.cgroup_id();
        sock.ends(local_port, &raw mut (*record).ends);
    }
}
