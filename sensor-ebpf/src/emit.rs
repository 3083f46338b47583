//! Puts records on the rings and counts what became of each.

use core::arch::asm;
use core::ptr;

use aya_ebpf::helpers::{bpf_ktime_get_boot_ns, bpf_ringbuf_output, bpf_ringbuf_reserve, bpf_ringbuf_submit};
use aya_ebpf::maps::RingBuf;
use sensor_common::ABI_VERSION;
use sensor_common::counters::{COUNTERS_LEN, Event, Fate, event_index, record_index};
use sensor_common::record::{RecordHeader, RecordKind, Ring};

use crate::constants::setting;
use crate::kernel::opaque;
use crate::maps::{COUNTERS, RING_BULK, RING_MANAGEMENT};

/// The reader polls. A wakeup per record would cost the watched program ten times what the record costs.
const BPF_RB_NO_WAKEUP: u64 = 1;

/// Returns the time every record is stamped with: `CLOCK_BOOTTIME`, nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Submits a record of fixed size, or counts its loss. `fill` writes everything behind the header.
#[inline(always)]
pub fn emit<R>(ring: Ring, kind: RecordKind, boot_ns: u64, fill: impl FnOnce(*mut R)) {
    let fate = if submit(ring, kind, boot_ns, fill) { Fate::Submitted } else { Fate::Lost };
    count(ring, kind, fate);
}

/// Counts a record that flood control withholds.
#[inline(always)]
pub fn count_suppressed(ring: Ring, kind: RecordKind) {
    count(ring, kind, Fate::Suppressed);
}

/// Submits a record of fixed size and leaves it to the caller to count what became of it: says whether there was room.
/// `fill` writes everything behind the header.
///
/// `R` must begin with a [`RecordHeader`].
#[inline(always)]
pub fn submit<R>(ring: Ring, kind: RecordKind, boot_ns: u64, fill: impl FnOnce(*mut R)) -> bool {
    const { assert!(align_of::<R>() == align_of::<RecordHeader>() && size_of::<R>() >= size_of::<RecordHeader>()) };
    // SAFETY: the map outlives the program; the size is a constant, as the verifier demands.
    let record = unsafe { bpf_ringbuf_reserve(map(ring), size_of::<R>() as u64, 0) };
    if record.is_null() {
        return opaque(0) != 0;
    }
    let record: *mut R = record.cast();
    // SAFETY: `record` points to room for an `R`, which begins with a header.
    unsafe { write_header(record.cast(), kind, size_of::<R>() as u64, boot_ns) };
    fill(record);
    // SAFETY: `record` was reserved above and is not used afterwards.
    unsafe { bpf_ringbuf_submit(record.cast(), BPF_RB_NO_WAKEUP) };
    // Hidden from the compiler, which would ask a second time whether there was a record: older verifiers take both for
    // possible then.
    opaque(1) != 0
}

/// Copies a record of `len` bytes that was put together elsewhere, or counts its loss. Its header is filled in here.
///
/// `R` must begin with a [`RecordHeader`].
#[inline(always)]
pub fn output<R>(ring: Ring, kind: RecordKind, boot_ns: u64, record: *mut R, len: u64) {
    // SAFETY: `record` points to an `R`, which begins with a header.
    unsafe { write_header(record.cast(), kind, len, boot_ns) };
    // SAFETY: the verifier has proved that `len` bytes at `record` are ours.
    let result = unsafe { bpf_ringbuf_output(map(ring), record.cast(), len, BPF_RB_NO_WAKEUP) };
    count(ring, kind, if result == 0 { Fate::Submitted } else { Fate::Lost });
}

/// Counts something that is not about one record. Several programs do, and one can interrupt another.
#[inline(always)]
pub fn count_event(event: Event) {
    if let Some(counter) = counter(event_index(event)) {
        add_atomically(counter);
    }
}

/// # Safety
/// `header` must point to room for a header.
#[inline(always)]
unsafe fn write_header(header: *mut RecordHeader, kind: RecordKind, len: u64, boot_ns: u64) {
    // SAFETY: see above.
    unsafe {
        ptr::write(header, RecordHeader { kind: kind as u16, version: ABI_VERSION, len: len as u32, boot_ns })
    };
}

#[inline(always)]
fn map(ring: Ring) -> *mut core::ffi::c_void {
    let map: *const RingBuf = match ring {
        Ring::Management => &raw const RING_MANAGEMENT,
        Ring::Bulk => &raw const RING_BULK,
    };
    map.cast_mut().cast()
}

/// Adds one to the counter of a record. Where no two programs share one, a plain addition is exact if the kernel does not run
/// a program twice at a time on a CPU. A packet that comes in can interrupt the program for one that goes out.
#[inline(always)]
fn count(ring: Ring, kind: RecordKind, fate: Fate) {
    let Some(counter) = counter(record_index(ring, kind, fate)) else { return };
    if kind as u16 == RecordKind::Payload as u16 || setting!(programs_nest) != 0 {
        return add_atomically(counter);
    }
    // SAFETY: `counter` points to a counter of this CPU.
    unsafe { *counter += 1 };
}

/// Returns a counter of this CPU.
#[inline(always)]
fn counter(index: u32) -> Option<*mut u64> {
    let index = index as usize;
    if index >= COUNTERS_LEN {
        return None;
    }
    // SAFETY: `index` is within the array.
    COUNTERS.get_ptr_mut(0).map(|counters| unsafe { counters.cast::<u64>().add(index) })
}

/// Adds one in a single instruction, because a softirq can interrupt the program. In assembly, because the target has no
/// atomics that fetch nothing, and fetching ones need Linux 5.12.
#[inline(always)]
fn add_atomically(counter: *mut u64) {
    // SAFETY: `counter` points to a counter of this CPU.
    unsafe {
        asm!("lock *(u64 *)({counter} + 0) += {one}", counter = in(reg) counter, one = in(reg) 1u64);
    }
}
