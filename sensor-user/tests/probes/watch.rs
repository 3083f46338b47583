//! Loads the probes, collects what they report, and reads the ground truth from procfs.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quaywatch::kernel::{Options, Probes, TaskHierarchy};
use quaywatch::sources::ring_buffer::RingSource;
use sensor_common::ABI_VERSION;
use sensor_common::record::{CgroupId, RecordHeader, RecordKind, Ring, TaskId};
use sensor_common::settings::port_flags;
use sensor_core::health::KernelCounters;
use sensor_core::ids::CgroupKey;
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Attached probes.
pub struct Watch {
    pub probes: Probes,
    rings: RingSource,
}

/// One record.
#[derive(Clone, Debug)]
pub struct Record {
    pub ring: Ring,
    pub kind: RecordKind,
    pub bytes: Vec<u8>,
}

/// Everything that was reported, after the probes were detached.
pub struct Outcome {
    pub records: Vec<Record>,
    pub counters: KernelCounters,
}

impl Watch {
    /// Watches the given ports.
    pub fn start(ports: &[u16]) -> Self {
        Self::with(Options::default(), ports, Duration::from_millis(1), |_| {})
    }

    /// Watches with other options, after `prepare` has had the probes.
    pub fn with(options: Options, ports: &[u16], poll: Duration, prepare: impl FnOnce(&mut Probes)) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test loads probes: run it as root (`cargo xtask test`)"
        );
        let mut probes =
            Probes::load(&options).unwrap_or_else(|error| panic!("{:#}", anyhow::Error::new(error)));
        probes.set_ports(ports.iter().map(|port| (*port, port_flags::WATCHED))).expect("ports");
        prepare(&mut probes);
        let rings = RingSource::start(probes.take_rings(), poll).expect("a thread");
        probes.attach().unwrap_or_else(|error| panic!("{:#}", anyhow::Error::new(error)));
        Self { probes, rings }
    }

    /// Detaches and returns everything.
    pub fn finish(mut self) -> Outcome {
        self.probes.detach();
        let batches = self.rings.stop();
        let records = batches.iter().flat_map(|batch| batch.records()).map(|(ring, bytes)| {
            let (header, _) = RecordHeader::read_from_prefix(bytes).expect("a header");
            assert_eq!(header.version, ABI_VERSION);
            assert_eq!(header.len as usize, bytes.len(), "the header counts the whole record");
            let kind = RecordKind::from_code(header.kind).expect("a known kind");
            Record { ring, kind, bytes: bytes.to_vec() }
        });
        Outcome { records: records.collect(), counters: self.probes.counters().expect("counters") }
    }
}

impl Record {
    /// The fixed part.
    pub fn fixed<T: FromBytes + KnownLayout + Immutable>(&self) -> T {
        T::read_from_prefix(&self.bytes).expect("long enough").0
    }

    /// What follows the fixed part.
    pub fn tail<T>(&self) -> &[u8] {
        &self.bytes[size_of::<T>()..]
    }
}

impl Outcome {
    /// The records of a kind that `wanted` picks, in the order of their ring.
    pub fn all<T: FromBytes + KnownLayout + Immutable>(
        &self,
        kind: RecordKind,
        wanted: impl Fn(&T) -> bool,
    ) -> Vec<(&Record, T)> {
        let of_kind = self.records.iter().filter(|record| record.kind == kind);
        of_kind.map(|record| (record, record.fixed::<T>())).filter(|(_, fixed)| wanted(fixed)).collect()
    }

    /// The only such record.
    pub fn one<T: FromBytes + KnownLayout + Immutable>(
        &self,
        kind: RecordKind,
        wanted: impl Fn(&T) -> bool,
    ) -> (&Record, T) {
        let mut found = self.all(kind, wanted);
        assert_eq!(found.len(), 1, "exactly one {kind:?} record");
        found.remove(0)
    }
}

/// Moves this thread into a new network namespace with a working loopback; returns its inode number.
pub fn own_network() -> u32 {
    // SAFETY: affects this thread only.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "a new network namespace needs root");
    let status = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(status.expect("the program `ip` (package iproute2)").success());
    namespace(Path::new("/proc/thread-self"), "net")
}

/// Inode number of a namespace.
pub fn namespace(process: &Path, name: &str) -> u32 {
    fs::metadata(process.join("ns").join(name)).expect("a namespace").ino() as u32
}

/// The address as records have it: IPv4 mapped into IPv6.
pub fn mapped(address: SocketAddr) -> [u8; 16] {
    match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Compares an identity with procfs; `comm` may be that of a thread.
pub fn assert_task(task: &TaskId, pid: u32, comm: &str) {
    assert_eq!(task.pid, pid);
    assert_eq!(task.uid, fs::metadata(format!("/proc/{pid}")).expect("the process").uid());
    assert_eq!(text(&task.comm), comm);
    assert_eq!(ticks(task.start_ns), start_ticks(pid), "start time of {pid}");
}

/// Field 22 of `/proc/<pid>/stat`: start on the boot clock, in ticks of 10 ms.
pub fn start_ticks(pid: u32) -> u64 {
    stat_field(pid, 22).parse().expect("a number")
}

/// A field of `/proc/<pid>/stat`, numbered as in proc(5), from 3 on.
pub fn stat_field(pid: u32, number: usize) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process");
    let (_, rest) = stat.rsplit_once(") ").expect("a name in brackets");
    rest.split_whitespace().nth(number - 3).expect("the field").to_owned()
}

pub const fn ticks(start_ns: u64) -> u64 {
    start_ns / 10_000_000
}

/// Name of this thread.
pub fn own_comm() -> String {
    fs::read_to_string("/proc/thread-self/comm").expect("a name").trim_end().to_owned()
}

/// The text before the first NUL.
pub fn text(bytes: &[u8]) -> &str {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..len]).expect("UTF-8")
}

/// `CLOCK_BOOTTIME`.
pub fn boot_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Where the hierarchy that names tasks is mounted.
pub fn task_mount(hierarchy: TaskHierarchy) -> PathBuf {
    let wanted = |kind: &str, options: &str| match hierarchy {
        TaskHierarchy::V2 => kind == "cgroup2",
        TaskHierarchy::V1Pids { .. } => kind == "cgroup" && options.split(',').any(|option| option == "pids"),
    };
    mount(wanted)
}

/// Where the version 2 hierarchy is mounted.
pub fn v2_mount() -> PathBuf {
    mount(|kind, _| kind == "cgroup2")
}

fn mount(wanted: impl Fn(&str, &str) -> bool) -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let found = mounts.lines().find_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        (fields.len() > 3 && wanted(fields[2], fields[3])).then(|| PathBuf::from(fields[1]))
    });
    found.expect("a mounted cgroup hierarchy")
}

/// The cgroup of this process below a mount point, and its id.
pub fn own_cgroup(mount: &Path, hierarchy: u32) -> (PathBuf, CgroupId) {
    let table = fs::read_to_string("/proc/self/cgroup").expect("cgroups");
    let path = table.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let id: u32 = fields.next()?.parse().ok()?;
        (id == hierarchy).then(|| fields.nth(1)).flatten()
    });
    let path = mount.join(path.expect("this hierarchy").trim_start_matches('/'));
    let id = cgroup_id(&path, hierarchy);
    (path, id)
}

/// Id of a cgroup from its directory.
pub fn cgroup_id(path: &Path, hierarchy: u32) -> CgroupId {
    CgroupId { id: fs::metadata(path).expect("a cgroup").ino(), hierarchy, reserved: 0 }
}

pub fn key(cgroup: CgroupId) -> CgroupKey {
    cgroup.into()
}

pub fn assert_cgroup(found: CgroupId, expected: CgroupId) {
    assert_eq!(key(found), key(expected));
}
