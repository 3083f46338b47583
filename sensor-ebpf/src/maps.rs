//! Every map, with its size and what happens when it is full.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use sensor_common::counters::COUNTERS_LEN;
use sensor_common::flood::{
    ATTEMPTS_LEN, CONNECTS_LEN, FILES_LEN, PEERS_CHUNK, PEERS_LEN, PORTS_MAX, PeerChunk, Port, PortKey,
};
use sensor_common::record::{ARGS_MAX, CGROUP_PATH_MAX, CgroupId, CgroupRecord, ExecRecord, FileId};
use sensor_common::settings::{
    CREDENTIAL_PLACES_MAX, OWN_FILES, PORTS_LEN, ROOT_CGROUP, RUNTIME_SOCKETS_MAX, cgroup_class,
    place_filter, port_flags,
};

use crate::budgets::PARTS_LEN;
use crate::connections::{Accepted, Outbound};
use crate::kernel::opaque;

/// Records of the management plane. Full: the record is lost and counted. The agent sets the size at load.
#[map]
pub static RING_MANAGEMENT: RingBuf = RingBuf::with_byte_size(2 << 20, 0);

/// All other records. Full: the record is lost and counted. The agent sets the size at load.
#[map]
pub static RING_BULK: RingBuf = RingBuf::with_byte_size(2 << 20, 0);

/// What became of records, see [`sensor_common::counters`].
#[map]
pub static COUNTERS: PerCpuArray<[u64; COUNTERS_LEN]> = PerCpuArray::with_max_entries(1, 0);

/// Connections seen so far on this CPU, by [`sensor_common::record::Direction`]. Two numbers, because an inbound
/// connection, in softirq, can interrupt an outbound one between the load and the store of its number.
#[map]
pub static CONNECTION_IDS: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);

/// [`sensor_common::settings::port_flags`] by port.
#[map]
pub static PORTS: Array<[u8; PORTS_LEN]> = Array::with_max_entries(1, 0);

/// [`sensor_common::settings::cgroup_class`] by cgroup; written by the agent only. Full: the agent is told by the
/// kernel, and the cgroup stays unknown, which is treated as a container's. Entries are allocated on demand.
#[map]
pub static CGROUPS: HashMap<CgroupId, u8> = HashMap::with_max_entries(1 << 14, BPF_F_NO_PREALLOC);

/// Names of runtimes and tools, NUL padded; written by the agent only.
#[map]
pub static TOOLS: HashMap<[u64; 2], u8> = HashMap::with_max_entries(1 << 10, BPF_F_NO_PREALLOC);

/// [`sensor_common::settings::runtime_process`] by tgid; entries leave with their process. Full: counted as
/// [`sensor_common::counters::Event::UntrackedProcess`].
#[map]
pub static RUNTIME_PROCESSES: HashMap<u32, u8> = HashMap::with_max_entries(1 << 14, 0);

/// Accepted connections that have not ended, by address of their socket; only on kernels where a socket has no number of
/// its own for us (before 5.12), elsewhere the agent makes it a single entry.
///
/// Not an LRU map: an entry that is evicted to make room is a connection whose end is missed without a trace, and
/// whoever opens enough connections chooses which. Here a full table is noticed where it happens: it is counted as
/// [`sensor_common::counters::Event::UntrackedConnection`], and the accept is reported all the same. Entries leave when
/// the socket closes, and a socket whose end was missed is overwritten by the next one at its address.
#[map]
pub static ACCEPTED: HashMap<u64, Accepted> = HashMap::with_max_entries(1 << 15, 0);

/// Outbound connections that have not ended, like [`ACCEPTED`], on every kernel. Full, or the share of their cgroup spent: a
/// connect is reported when it is tried, because its result will not be known.
#[map]
pub static OUTBOUND: HashMap<u64, Outbound> = HashMap::with_max_entries(OUTBOUND_MAX, 0);

/// Entries of [`OUTBOUND`].
pub const OUTBOUND_MAX: u32 = 1 << 15;

/// Places in [`OUTBOUND_SHARES`], without the last one.
pub const OUTBOUND_SHARES_LEN: u32 = 1024;

/// Entries that a cgroup has in [`OUTBOUND`], by the cgroup's hash: cgroups that share a place share what one may have. The
/// last place counts all entries.
#[map]
pub static OUTBOUND_SHARES: Array<u64> = Array::with_max_entries(OUTBOUND_SHARES_LEN + 1, 0);

/// Length of the value of [`OUTBOUND_PORTS`]: a cache line. More would tell ports apart better and cost more than the
/// lookups it saves, because random parts of it are never in the cache.
pub const OUTBOUND_PORTS_LEN: usize = 8;

/// Number of tracked outbound connections by the low bits of their peer port: 0 spares a lookup in [`OUTBOUND`]. A
/// number that is too high, after a missed end, costs a lookup and nothing else.
#[map]
pub static OUTBOUND_PORTS: Array<[u64; OUTBOUND_PORTS_LEN]> = Array::with_max_entries(1, 0);

/// Peers of watched ports, found by two hashes. Full: a peer takes the place of another one, see
/// [`sensor_common::flood::Peer`].
#[map]
pub static FLOOD_PEERS: Array<PeerChunk> = Array::with_max_entries((PEERS_LEN / PEERS_CHUNK) as u32, 0);

/// Watched ports, each in its network namespace; the agent removes those that are idle, and makes some that stay. Full: the
/// port shares the entry of its like in all namespaces that found no place.
#[map]
pub static FLOOD_PORTS: HashMap<PortKey, Port> = HashMap::with_max_entries(PORTS_MAX, 0);

/// Attempts to connect, by their hash. Full: an attempt takes the place of another one, which counts twice if it is
/// repeated after that.
#[map]
pub static FLOOD_ATTEMPTS: Array<u64> = Array::with_max_entries(ATTEMPTS_LEN as u32, 0);

/// Hash of the last connection whose completing packet brought data, on this CPU.
#[map]
pub static FLOOD_EARLY: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Boot clock until which a cgroup has spent its budget at a file, by their hash: those that share a place share the
/// budget.
#[map]
pub static FLOOD_FILES: Array<u64> = Array::with_max_entries(FILES_LEN as u32, 0);

/// Boot clock until which a cgroup has spent its budget of connects, by the hash of both: those that share a place share the
/// budget.
#[map]
pub static FLOOD_CONNECTS: Array<u64> = Array::with_max_entries(CONNECTS_LEN as u32, 0);

/// Peers in [`FLOOD_PAYLOAD`].
pub const PAYLOAD_PEERS_LEN: u64 = 4096;

/// Boot clock until which a peer has spent its budget of captured bytes, by the peer's hash: peers that share a place share
/// the budget. The last place is that of all peers together.
#[map]
pub static FLOOD_PAYLOAD: Array<u64> = Array::with_max_entries(PAYLOAD_PEERS_LEN as u32 + 1, 0);

/// Places in [`FLOOD_TASKS`].
pub const FLOOD_TASKS_LEN: u32 = 1024;

/// Boot clock until which a cgroup has spent its budget on the management ring, by the cgroup's hash: cgroups that share a
/// place share the budget.
#[map]
pub static FLOOD_TASKS: Array<u64> = Array::with_max_entries(FLOOD_TASKS_LEN, 0);

/// Boot clock until which each [`crate::budgets::Part`] of the management ring is spent.
#[map]
pub static FLOOD_PARTS: Array<u64> = Array::with_max_entries(PARTS_LEN, 0);

/// The files that sockets of runtimes are bound to; written by the agent only, at most as many as it looks for.
#[map]
pub static RUNTIME_SOCKETS: HashMap<FileId, u8> =
    HashMap::with_max_entries(RUNTIME_SOCKETS_MAX + OWN_FILES, BPF_F_NO_PREALLOC);

/// Connections to these on which nothing was said yet, by address of their socket on the listener's side. Evicted, or never
/// entered because it was there before the sensor: what is said on it counts as if something had been said before. An entry
/// that is left behind is of a socket that came after the sensor, as is whatever takes its address.
#[map]
pub static FRESH_TALKS: LruHashMap<u64, u8> = LruHashMap::with_max_entries(1024, 0);

/// Where credential files are: whole file systems (inode 0) and directories; written by the agent only, which is told by
/// the kernel when it is full and says that it sees less.
#[map]
pub static CREDENTIAL_PLACES: HashMap<FileId, u8> =
    HashMap::with_max_entries(CREDENTIAL_PLACES_MAX + OWN_FILES, BPF_F_NO_PREALLOC);

/// One bit for each entry of [`CREDENTIAL_PLACES`], see [`place_filter`].
#[map]
pub static CREDENTIAL_FILTER: Array<[u64; place_filter::WORDS]> = Array::with_max_entries(1, 0);

/// Where records of variable length are put together. One place per kind is enough: the kernel does not start a
/// program of this type on a CPU that is running it already.
#[map]
pub static EXEC_SCRATCH: PerCpuArray<ExecScratch> = PerCpuArray::with_max_entries(1, 0);

/// Like [`EXEC_SCRATCH`].
#[map]
pub static CGROUP_SCRATCH: PerCpuArray<CgroupScratch> = PerCpuArray::with_max_entries(1, 0);

/// Enter what is not there yet, and do not replace what is.
pub const BPF_NOEXIST: u64 = 1;

/// `BPF_F_NO_PREALLOC`, for maps that only the agent writes.
const BPF_F_NO_PREALLOC: u32 = 1;

/// Room for the names and arguments behind an exec record: what the verifier takes for their greatest lengths, which
/// are the masks in exec.rs, not the limits.
pub const EXEC_TAIL: usize = 256 + 1024 + ARGS_MAX;

/// An exec record and its tail.
#[repr(C)]
pub struct ExecScratch {
    /// Fixed part.
    pub record: ExecRecord,
    /// Cgroup name, file name, arguments.
    pub tail: [u8; EXEC_TAIL],
}

/// A cgroup record and its tail.
#[repr(C)]
pub struct CgroupScratch {
    /// Fixed part.
    pub record: CgroupRecord,
    /// Path.
    pub tail: [u8; 2 * CGROUP_PATH_MAX],
}

/// Returns the [`sensor_common::settings::port_flags`] of a port.
#[inline(always)]
pub fn flags_of(port: u16) -> u8 {
    // Masked once more: older verifiers (6.1 seen) take a number whose bytes were swapped for any 64 bits.
    let port = opaque(u64::from(port)) & (PORTS_LEN as u64 - 1);
    match PORTS.get(0) {
        Some(flags) => flags[port as usize],
        None => 0,
    }
}

/// Whether listeners on a port are reported when this process opens, closes or holds them: on any port when it is a
/// runtime's, as their daemons are.
#[inline(always)]
pub fn reports_listener(port: u16, tgid: u32) -> bool {
    flags_of(port) & (port_flags::WATCHED | port_flags::LISTENERS) != 0
        || RUNTIME_PROCESSES.get_ptr(tgid).is_some()
}

/// Returns the class of a cgroup, 0 when it is unknown.
#[inline(always)]
pub fn class_of(cgroup: &CgroupId) -> u8 {
    if cgroup.id == ROOT_CGROUP {
        return cgroup_class::HOST;
    }
    // SAFETY: a u8 is read whole, whoever writes it.
    unsafe { CGROUPS.get(cgroup) }.copied().unwrap_or(0)
}

/// Whether a place is one of credential files.
#[inline(always)]
pub fn has_credentials(place: &FileId) -> bool {
    let (word, bit) = place_filter::bit(place);
    match CREDENTIAL_FILTER.get(0) {
        Some(filter) if filter[word] & bit != 0 => CREDENTIAL_PLACES.get_ptr(place).is_some(),
        _ => false,
    }
}
