//! Budgets of the management ring: what all bear together who have budgets of their own there.
//! Budgets of cgroups: which of their tasks' records may use that ring, and which of their uses of files and which of their
//! connects are reported.
//! Budgets of peers: how much of what they say is captured.

use sensor_common::flood::{CONNECTS_LEN, FILES_LEN};
use sensor_common::record::{CgroupId, ConnectStage, FileId, Ring};

use crate::flood::add;
use crate::hash::{finish, mix, salt};
use crate::maps::{
    FLOOD_CONNECTS, FLOOD_FILES, FLOOD_PARTS, FLOOD_PAYLOAD, FLOOD_TASKS, FLOOD_TASKS_LEN, PAYLOAD_PEERS_LEN,
};

/// Management records that the tasks of one cgroup may cause in a row. A `docker run` causes some fifty.
const TASK_BURST: u64 = 4096;
/// Nanoseconds after which they may cause one more.
const TASK_INTERVAL_NS: u64 = 1_000_000_000 / 1024;
/// How far ahead the budget of a cgroup may be spent.
const TASK_HORIZON_NS: u64 = TASK_BURST * TASK_INTERVAL_NS;
/// The same of all cgroups together: twice as many records in a row, four times as many per second.
const ALL_TASKS_INTERVAL_NS: u64 = TASK_INTERVAL_NS / 4;
const ALL_TASKS_HORIZON_NS: u64 = 2 * TASK_BURST * ALL_TASKS_INTERVAL_NS;
/// Connects to one socket of a runtime, or opens in one place of credentials, that the tasks of one cgroup may make in a
/// row and that are reported.
const FILE_BURST: u64 = 256;
/// Nanoseconds after which one more is.
const FILE_INTERVAL_NS: u64 = 1_000_000_000 / 64;
/// Connects that the tasks of one cgroup may make in a row and that are reported: attempts, and of them those that succeed;
/// half of these if all have the same destination.
const CONNECT_BURST: u64 = 1024;
/// Nanoseconds after which one more is.
const CONNECT_INTERVAL_NS: u64 = 1_000_000_000 / 256;
/// Nanoseconds for a captured byte of one peer: a megabyte in a second. All peers together have four times that.
const PAYLOAD_BYTE_NS: u64 = 1000;
/// How far ahead a peer's budget may be spent: half a megabyte in a row.
const PAYLOAD_HORIZON_NS: u64 = 1_000_000_000 / 2;
/// The same for all peers together: a megabyte, which is half of the ring.
const PAYLOAD_COMMON_HORIZON_NS: u64 = 1_000_000_000 / 4;

/// Those who share a part of the management ring. Each of them has a budget of his own, and whoever can have many of those
/// (network namespaces, cgroups) would otherwise have the whole ring.
#[derive(Clone, Copy)]
pub enum Part {
    /// Connections in network namespaces other than the node's.
    Connections,
    /// Tasks of all cgroups.
    Tasks,
}

/// Number of [`Part`]s.
pub const PARTS_LEN: u32 = 2;

/// Charges a record to a part of the management ring, if less than `horizon` of it is spent. The more of his own budget
/// somebody has spent, the less he gives as that, down to half: the rest is for those who cause little.
#[inline(always)]
pub fn bears_on_ring(part: Part, horizon: u64, interval: u64, now: u64) -> bool {
    let Some(until) = FLOOD_PARTS.get_ptr_mut(part as u32) else { return false };
    // SAFETY: `until` points into the map. Every CPU charges here, so that updates must not be lost as they may elsewhere.
    unsafe {
        let spent = (*until).saturating_sub(now);
        if spent >= horizon {
            return false;
        }
        if spent == 0 {
            *until = now;
        }
        add(until, interval);
    }
    true
}

/// The ring for a management record that a task of this cgroup causes: once its tasks cause more than any runtime would, or
/// those of all cgroups do and this one has more than a small part in it, what they do travels with everybody else's records
/// and cannot displace those of other cgroups.
#[inline(always)]
pub fn ring_for(cgroup: &CgroupId, now: u64) -> Ring {
    let index = finish(hash_of_cgroup(cgroup)) & (u64::from(FLOOD_TASKS_LEN) - 1);
    let Some(until) = FLOOD_TASKS.get_ptr_mut(index as u32) else { return Ring::Bulk };
    // SAFETY: `until` points into the map. A lost update lets one record more through.
    unsafe {
        let spent = (*until).saturating_sub(now);
        if spent >= TASK_HORIZON_NS {
            return Ring::Bulk;
        }
        // All of its own is half of the common one.
        let horizon = ALL_TASKS_HORIZON_NS - spent / (2 * TASK_HORIZON_NS / ALL_TASKS_HORIZON_NS);
        if !bears_on_ring(Part::Tasks, horizon, ALL_TASKS_INTERVAL_NS, now) {
            return Ring::Bulk;
        }
        *until = now + spent + TASK_INTERVAL_NS;
    }
    Ring::Management
}

/// Whether the budget of a cgroup bears one more record of something its tasks do to a file. Beyond it the records say
/// nothing new, and would displace those of others.
#[inline(always)]
pub fn bears_file(cgroup: &CgroupId, file: &FileId, now: u64) -> bool {
    let hash = mix(mix(hash_of_cgroup(cgroup), file.inode), u64::from(file.device));
    let Some(until) = FLOOD_FILES.get_ptr_mut((finish(hash) & (FILES_LEN as u64 - 1)) as u32) else {
        return false;
    };
    // SAFETY: `until` points into the map.
    unsafe { spend(until, FILE_BURST * FILE_INTERVAL_NS, FILE_INTERVAL_NS, now) }
}

/// Whether the budgets of a cgroup bear one more record of a connect to this address that has come to this stage. `port` is
/// the port that it connects to if that is a lateral one, 0 for all others: they share a budget, so that rotating through
/// them gains nothing, and connects to a lateral port are not hidden by others. Attempts and successes have budgets of their
/// own, so that an attempt which succeeds is not hidden by many that fail.
///
/// Of a budget one destination gets a half: the rest is left to destinations that are new. Those within the host, of which
/// everybody has sixteen million, have budgets of their own.
#[inline(always)]
pub fn bears_connect(cgroup: &CgroupId, addr: [u64; 2], port: u16, stage: ConnectStage, now: u64) -> bool {
    let place = u64::from(is_loopback(addr)) << 24 | u64::from(port) << 8 | stage as u64;
    let all = mix(hash_of_cgroup(cgroup), place);
    let one = mix(mix(all, addr[0]), addr[1]);
    let budget = |hash| FLOOD_CONNECTS.get_ptr_mut((finish(hash) & (CONNECTS_LEN as u64 - 1)) as u32);
    let (Some(one), Some(all)) = (budget(one), budget(all)) else { return false };
    // SAFETY: both point into the map. A lost update lets one record more through.
    unsafe {
        let (spent, spent_by_all) = ((*one).saturating_sub(now), (*all).saturating_sub(now));
        if spent + spent_by_all >= CONNECT_BURST * CONNECT_INTERVAL_NS {
            return false;
        }
        *one = now + spent + CONNECT_INTERVAL_NS;
        *all = now + spent_by_all + CONNECT_INTERVAL_NS;
    }
    true
}

/// Whether this is `::1` or, mapped, in 127.0.0.0/8. In network order.
#[inline(always)]
fn is_loopback(addr: [u64; 2]) -> bool {
    let low = u64::from_be(addr[1]);
    addr[0] == 0 && (low == 1 || low >> 24 == 0xff_ff7f)
}

/// Whether the budgets bear that so many bytes of what a peer says are captured. A peer, of which this is the hash, is an
/// address at a port, or a cgroup at the sockets of runtimes.
#[inline(always)]
pub fn bears_payload(peer: u64, bytes: u64, now: u64) -> bool {
    let index = peer & (PAYLOAD_PEERS_LEN - 1);
    let (Some(own), Some(common)) =
        (FLOOD_PAYLOAD.get_ptr_mut(index as u32), FLOOD_PAYLOAD.get_ptr_mut(PAYLOAD_PEERS_LEN as u32))
    else {
        return false;
    };
    // SAFETY: both point into the map. A lost update lets one record more through.
    unsafe {
        // Whoever has spent much of its own leaves some of the common one to others.
        let spent = (*own).saturating_sub(now);
        let spent_by_all = (*common).saturating_sub(now);
        if spent >= PAYLOAD_HORIZON_NS || spent_by_all + spent / 4 >= PAYLOAD_COMMON_HORIZON_NS {
            return false;
        }
        *own = now + spent + bytes * PAYLOAD_BYTE_NS;
        *common = now + spent_by_all + bytes * PAYLOAD_BYTE_NS / 4;
    }
    true
}

/// The hash of a cgroup; not every bit of it depends on every other one.
#[inline(always)]
pub fn hash_of_cgroup(cgroup: &CgroupId) -> u64 {
    mix(salt(), cgroup.id << 8 ^ u64::from(cgroup.hierarchy))
}

/// Charges a record to a budget, if it can bear it.
///
/// # Safety
/// `until` must point into a map. A lost update lets one record more through.
#[inline(always)]
unsafe fn spend(until: *mut u64, horizon: u64, interval: u64, now: u64) -> bool {
    // SAFETY: see above.
    unsafe {
        let spent = (*until).saturating_sub(now);
        if spent >= horizon {
            return false;
        }
        *until = now + spent + interval;
    }
    true
}
