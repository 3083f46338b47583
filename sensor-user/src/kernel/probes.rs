//! The loaded probes and everything one can say to them.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya_log::EbpfLogger;
use log::Log;
use sensor_common::counters::{COUNTERS_LEN, Event, Fate, event_index, record_index};
use sensor_common::flood::{Peer, Port, PortKey};
use sensor_common::record::{ListenerItem, RecordKind, Ring, TaskItem};
use sensor_common::settings::{port_flags, runtime_process};
use sensor_core::coverage::{Table, TableState};
use sensor_core::engine::Depth;
use sensor_core::health::{Hook, KernelCounters};
use sensor_core::ids::{CgroupKey, FileKey};
use zerocopy::FromBytes;

use super::flood::FloodTables;
use super::hooks::{Feature, WALK_LISTENERS, WALK_TASKS};
use super::load::{Loaded, load};
use super::programs::Programs;
use super::tables::Tables;
use super::{KernelError, Options, TaskHierarchy};

/// Most items that one walk keeps: more processes than a node runs.
const WALK_MAX: usize = 1 << 18;
/// Bytes read from a walk at a time.
const WALK_BUFFER: usize = 64 << 10;

/// The places where records come out; they belong to the thread that drains them.
pub struct Rings {
    /// Management-plane records.
    pub management: RingBuf<MapData>,
    /// All other records.
    pub bulk: RingBuf<MapData>,
}

/// The loaded probes.
pub struct Probes {
    programs: Programs,
    rings: Option<Rings>,
    /// The probes' own debug log, where it was asked for.
    log: Option<EbpfLogger<&'static dyn Log>>,
    tables: Tables,
    runtime_processes: HashMap<MapData, u32, u8>,
    counters: PerCpuArray<MapData, [u64; COUNTERS_LEN]>,
    flood: FloodTables,
    hierarchy: TaskHierarchy,
    proc: PathBuf,
}

impl Probes {
    /// Loads the probes into the kernel; nothing is attached yet.
    ///
    /// # Errors
    /// When the kernel cannot run them or a right is missing, see [`KernelError::is_unsupported`]; when it refuses them.
    pub fn load(options: &Options) -> Result<Self, KernelError> {
        let Loaded { mut ebpf, hierarchy, types } = load(options)?;
        let log = if options.debug { EbpfLogger::init(&mut ebpf).ok() } else { None };
        let probes = Self {
            rings: Some(Rings {
                management: take(&mut ebpf, "RING_MANAGEMENT")?,
                bulk: take(&mut ebpf, "RING_BULK")?,
            }),
            log,
            tables: Tables::take(&mut ebpf)?,
            runtime_processes: take(&mut ebpf, "RUNTIME_PROCESSES")?,
            counters: take(&mut ebpf, "COUNTERS")?,
            flood: FloodTables::new(take(&mut ebpf, "FLOOD_PEERS")?, take(&mut ebpf, "FLOOD_PORTS")?)?,
            programs: types.load_programs(ebpf, options)?,
            hierarchy,
            proc: options.proc.clone(),
        };
        drop(types);
        release_memory();
        Ok(probes)
    }

    /// Hands over the rings, once.
    ///
    /// # Panics
    /// When called twice.
    pub fn take_rings(&mut self) -> Rings {
        self.rings.take().expect("the rings are taken once")
    }

    /// Which hierarchy names the cgroups of tasks on this host.
    #[must_use]
    pub const fn task_hierarchy(&self) -> TaskHierarchy {
        self.hierarchy
    }

    /// Attaches every program. When this returns, no event is missed any more.
    ///
    /// # Errors
    /// When a required hook cannot be attached. Nothing stays attached then.
    pub fn attach(&mut self) -> Result<(), KernelError> {
        self.programs.attach().inspect_err(|_| self.programs.detach())
    }

    /// Whether a program with this feature is attached.
    #[must_use]
    pub fn serves(&self, feature: Feature) -> bool {
        self.programs.serves(feature)
    }

    /// Every program that was attached and whether it still is: somebody else may have detached it.
    #[must_use]
    pub fn attached_state(&self) -> Vec<(&'static str, bool)> {
        self.programs.attached_state()
    }

    /// Attaches a program anew that was attached before; where the kernel refuses, the next one that has its feature.
    /// Returns whether it was attached; [`Self::hooks`] tells how all stand.
    ///
    /// # Errors
    /// When the kernel refuses it; the next call tries again.
    pub fn reattach(&mut self, program: &str) -> Result<bool, KernelError> {
        self.programs.reattach(program)
    }

    /// Every hook and whether it is in place.
    #[must_use]
    pub fn hooks(&self) -> Vec<Hook> {
        self.programs.hooks()
    }

    /// Detaches every program and waits until those that are still running have ended: after this no record is added
    /// and no counter moves. The maps stay readable.
    pub fn detach(&mut self) {
        self.programs.detach();
        wait_for_running_programs();
    }

    /// Attaches the programs on packets that rest, or lets them rest; [`Self::hooks`] says what became of it.
    pub fn watch_packets(&mut self, wanted: bool) {
        self.programs.watch_packets(wanted);
    }

    /// Sets the flags of all ports, see [`sensor_common::settings::port_flags`]; ports that are not named have none. Ends
    /// of connections that were accepted while their port was watched are reported whatever becomes of the port.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_ports(&mut self, flags: impl IntoIterator<Item = (u16, u8)>) -> Result<(), KernelError> {
        let flags: Vec<(u16, u8)> = flags.into_iter().collect();
        let watched = flags.iter().filter(|(_, flags)| flags & port_flags::WATCHED != 0);
        self.flood.watch(watched.map(|(port, _)| *port), node_network(&self.proc))?;
        self.tables.set_ports(&flags)
    }

    /// Watches a port beside those of [`Self::set_ports`]: its listeners, and what comes to them as far as asked for.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn watch_port(&mut self, port: u16, depth: Depth) -> Result<(), KernelError> {
        self.tables.watch_port(port, depth)
    }

    /// Sets the names of runtimes and tools; the kernel compares the first fifteen bytes, which is all it keeps.
    ///
    /// # Errors
    /// When the kernel refuses, or when there are more names than the table holds.
    pub fn set_tools<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) -> Result<(), KernelError> {
        self.tables.set_tools(names)
    }

    /// Tells the probes what a cgroup is, see [`sensor_common::settings::cgroup_class`].
    ///
    /// # Errors
    /// When the table is full: the cgroup stays unknown then, which the probes treat as a container's.
    pub fn classify_cgroup(&mut self, cgroup: CgroupKey, class: u8) -> Result<(), KernelError> {
        self.tables.classify_cgroup(cgroup, class)
    }

    /// Makes a cgroup unknown again.
    pub fn forget_cgroup(&mut self, cgroup: CgroupKey) {
        self.tables.forget_cgroup(cgroup);
    }

    /// Tells the probes that a process belongs to a runtime: its children's execs are management-plane records and its
    /// connects are reported.
    ///
    /// # Errors
    /// When the table is full.
    pub fn mark_runtime_process(&mut self, pid: u32) -> Result<(), KernelError> {
        let what = "tell the probes that a process belongs to a runtime";
        let marked = self.runtime_processes.insert(pid, runtime_process::TOOL, 0);
        marked.map_err(|source| KernelError::Map { what, source })
    }

    /// Adds a socket and a place of the sensor's own to those of runtimes and of credential files, for the whole run: what is
    /// done there is reported like what is done with the others. To be called before others are set.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_own_files(&mut self, socket: FileKey, place: FileKey) -> Result<(), KernelError> {
        self.tables.set_own_files(socket, place)
    }

    /// Sets the files that sockets of runtimes are bound to: connects to them are reported, and where it is said so, what is
    /// said on the connection.
    ///
    /// # Errors
    /// When the kernel refuses, or when there are more than the table holds.
    pub fn set_runtime_sockets(
        &mut self,
        sockets: impl IntoIterator<Item = (FileKey, bool)>,
    ) -> Result<(), KernelError> {
        self.tables.set_runtime_sockets(sockets)
    }

    /// Sets the places of credential files: opens of files there are reported, where a program on that hook is attached.
    ///
    /// # Errors
    /// When the kernel refuses, or when there are more than the table holds.
    pub fn set_credential_places(
        &mut self,
        keys: impl IntoIterator<Item = FileKey>,
    ) -> Result<(), KernelError> {
        self.tables.set_credential_places(keys)
    }

    /// Looks whether what the probes were told of ports, names, cgroups and files is still as it was told; what another
    /// program has changed is told again.
    ///
    /// # Errors
    /// When the kernel refuses to say.
    pub fn check_tables(&mut self) -> Result<Vec<(Table, TableState)>, KernelError> {
        self.tables.check()
    }

    /// Reads the counters, summed over all CPUs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn counters(&self) -> Result<KernelCounters, KernelError> {
        let what = "read the counters of the probes";
        let per_cpu = self.counters.get(&0, 0).map_err(|source| KernelError::Map { what, source })?;
        let sum = |index: u32| per_cpu.iter().map(|counters| counters[index as usize]).sum();
        let mut counters = KernelCounters::default();
        for ring in Ring::ALL {
            for kind in RecordKind::ALL {
                for fate in Fate::ALL {
                    counters.records[ring as usize][kind as usize][fate as usize] =
                        sum(record_index(ring, kind, fate));
                }
            }
        }
        for event in Event::ALL {
            counters.events[event as usize] = sum(event_index(event));
        }
        move_resumed(&mut counters);
        counters.recursion_misses = self.programs.recursion_misses(&self.proc);
        Ok(counters)
    }

    /// Reads what flood control has counted of every port, in the order of their keys.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn flood_ports(&self) -> Result<Vec<(PortKey, Port)>, KernelError> {
        self.flood.ports()
    }

    /// Reads what flood control has counted of every peer it still has, by place.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn flood_peers(&self) -> Result<Vec<Peer>, KernelError> {
        self.flood.peers()
    }

    /// Makes room in the table of ports.
    pub fn forget_flood_port(&mut self, port: PortKey) {
        self.flood.forget(port);
    }

    /// Walks all processes.
    ///
    /// # Errors
    /// When the kernel has no such iterator, or reading it fails.
    pub fn tasks(&mut self) -> Result<Vec<TaskItem>, KernelError> {
        self.walk(WALK_TASKS, |_, _| true)
    }

    /// Walks all holders of listening sockets on watched ports, in all network namespaces; a process that holds a socket
    /// under many numbers is listed once for each run of them.
    ///
    /// # Errors
    /// When the kernel has no such iterator, or reading it fails.
    pub fn listeners(&mut self) -> Result<Vec<ListenerItem>, KernelError> {
        // Whoever listens can duplicate the socket a million times.
        self.walk(WALK_LISTENERS, |last: &ListenerItem, item| {
            (last.sock, last.task.pid) != (item.sock, item.task.pid)
        })
    }

    /// Passes on what the probes have written to their debug log, if they were asked to.
    pub fn flush_log(&mut self) {
        let Some(log) = &mut self.log else { return };
        // The reader panics on an entry it does not understand. That is no reason to stop watching.
        if catch_unwind(AssertUnwindSafe(|| log.flush())).is_err() {
            tracing::warn!("the probes' debug log cannot be read and is given up");
            self.log = None;
        }
    }

    /// Runs an iterator and keeps the items that `differs` tells from the last one kept, at most [`WALK_MAX`].
    fn walk<T: FromBytes>(
        &mut self,
        name: &'static str,
        differs: impl Fn(&T, &T) -> bool,
    ) -> Result<Vec<T>, KernelError> {
        let file = self.programs.open_iterator(name)?;
        collect(file, differs)
            .map_err(|source| KernelError::Read { what: format!("the iterator {name}"), source })
    }
}

/// Moves the accepts that were withheld at first from that fate to the one they found later, on the ring they came to.
fn move_resumed(counters: &mut KernelCounters) {
    let rings = [
        (Ring::Management, [Event::Resumed, Event::ResumedLost]),
        (Ring::Bulk, [Event::ResumedOnBulk, Event::ResumedOnBulkLost]),
    ];
    for (ring, events) in rings {
        let [submitted, lost] = events.map(|event| counters.events[event as usize]);
        let accepts = &mut counters.records[ring as usize][RecordKind::Accept as usize];
        accepts[Fate::Submitted as usize] += submitted;
        accepts[Fate::Lost as usize] += lost;
        // Withheld they are on the ring that they were meant for.
        let withheld = &mut counters.records[Ring::Management as usize][RecordKind::Accept as usize];
        let suppressed = &mut withheld[Fate::Suppressed as usize];
        *suppressed = suppressed.saturating_sub(submitted + lost);
    }
}

/// The network namespace of the node, as its inode; that of this process where the first one's is hidden from us.
fn node_network(proc: &Path) -> Option<u32> {
    let inode = |process: &str| std::fs::metadata(proc.join(process).join("ns/net")).ok();
    let namespace = inode("1").or_else(|| inode("self"))?;
    u32::try_from(namespace.ino()).ok()
}

/// Reads items until the end or until [`WALK_MAX`] are kept.
fn collect<T: FromBytes>(mut file: impl Read, differs: impl Fn(&T, &T) -> bool) -> io::Result<Vec<T>> {
    let mut items: Vec<T> = Vec::new();
    let mut buffer = vec![0; WALK_BUFFER];
    let mut filled = 0;
    loop {
        let read = match file.read(&mut buffer[filled..]) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        filled += read;
        let whole = filled - filled % size_of::<T>();
        for chunk in buffer[..whole].chunks_exact(size_of::<T>()) {
            let Ok(item) = T::read_from_bytes(chunk) else { continue };
            if items.last().is_none_or(|last| differs(last, &item)) {
                items.push(item);
            }
            if items.len() == WALK_MAX {
                tracing::warn!(
                    items = WALK_MAX,
                    "an iterator lists more than can be kept; the rest is left out"
                );
                return Ok(items);
            }
        }
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
        if read == 0 {
            return Ok(items);
        }
    }
}

pub(super) fn take<M: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, KernelError> {
    let map = ebpf.take_map(name).ok_or(KernelError::Incomplete { kind: "map", name })?;
    M::try_from(map).map_err(|source| KernelError::Map { what: "use a map of the probes", source })
}

/// Waits until every CPU has left the program it may be in: unlinking a tracepoint does not.
fn wait_for_running_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_long = 1;
    // SAFETY: membarrier takes numbers only.
    let waited = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if waited != 0 {
        // Kernels with isolated CPUs refuse. A program runs for microseconds.
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Gives back what reading the kernel's type information took: tens of megabytes in small pieces.
fn release_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_that_are_reported_after_all_are_no_longer_suppressed() {
        let mut counters = KernelCounters::default();
        counters.records[0][RecordKind::Accept as usize] = [10, 1, 100];
        counters.events[Event::Resumed as usize] = 7;
        counters.events[Event::ResumedLost as usize] = 2;
        counters.events[Event::ResumedOnBulk as usize] = 20;
        counters.events[Event::ResumedOnBulkLost as usize] = 30;
        move_resumed(&mut counters);
        let accepts = |ring: Ring| counters.records[ring as usize][RecordKind::Accept as usize];
        assert_eq!(accepts(Ring::Management), [17, 3, 41]);
        assert_eq!(accepts(Ring::Bulk), [20, 30, 0]);
    }

    #[test]
    fn items_are_read_whole_whatever_the_pieces_and_repetitions_are_left_out() {
        let numbers: Vec<u8> =
            [1_u64, 1, 2, 2, 2, 1].iter().flat_map(|number| number.to_ne_bytes()).collect();
        let (one, other) = numbers.split_at(11);
        let differing = collect(one.chain(other), |last: &u64, item| last != item);
        assert_eq!(differing.expect("readable"), [1, 2, 1]);
        assert_eq!(collect(&numbers[..], |_: &u64, _| true).expect("readable").len(), 6);
    }
}
