//! The agent alone: encoded kernel records in, JSON lines out, one thread.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quaywatch::config::Settings as Config;
use quaywatch::wire;
use rustix::time::{ClockId, clock_gettime};
use sensor_common::ABI_VERSION;
use sensor_common::record::{
    ARGS_MAX, AcceptRecord, Ancestor, CgroupId, CloseRecord, Direction, Endpoints, ExecRecord, FileId,
    ForkRecord, ListenerItem, RecordHeader, RecordKind, Ring, TaskId, TaskItem, exec_flags,
};
use sensor_core::engine::{Engine, SeedCgroup, SeedProcess, Settings};
use sensor_core::fact::Node;
use sensor_core::ids::{CgroupKey, RunId};
use sensor_core::time::{ClockMap, Timestamp};
use zerocopy::IntoBytes as _;

/// What came out.
#[derive(Clone, Copy, Debug)]
struct Throughput {
    /// Kernel records per second of processor time.
    records_per_s: f64,
    /// Bytes of JSON per record.
    bytes_per_record: f64,
}

const START_NS: u64 = 1_000_000_000_000;
const STEP_NS: u64 = 2_000;
const NETNS: u32 = 4_026_531_833;
/// The shell that makes all processes.
const SHELL: TaskId = TaskId { pid: 900, uid: 0, start_ns: 6_000, comm: *b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0" };
const DAEMON: TaskId = TaskId { pid: 800, uid: 0, start_ns: 5_000, comm: *b"dockerd\0\0\0\0\0\0\0\0\0" };

/// A container of Docker's.
pub struct Container {
    id: String,
    cgroup: CgroupId,
}

impl Container {
    /// Each number has its own.
    pub fn numbered(number: u64) -> Self {
        let id = format!("{number:016x}").repeat(4);
        Self { id, cgroup: CgroupId { id: 7_000 + number, hierarchy: 0, reserved: 0 } }
    }

    /// As the walk of the cgroups finds it.
    pub fn seed(&self) -> SeedCgroup {
        SeedCgroup {
            key: CgroupKey { hierarchy: self.cgroup.hierarchy, id: self.cgroup.id },
            path: format!("/docker/{}", self.id).into(),
        }
    }
}

/// Measures and prints the table.
pub fn print(_scratch: &Path) -> anyhow::Result<()> {
    let throughput = measure(Duration::from_secs(3));
    println!("encoded records to JSON lines, one thread's processor time, accept : close : exec = 1 : 1 : 1");
    println!("  {:8.0} records/s   aim >= 500000", throughput.records_per_s);
    println!("  {:8.0} bytes of JSON per record\n", throughput.bytes_per_record);
    Ok(())
}

/// Feeds accepts, their ends, and execs inside a container in equal parts for about `time`.
fn measure(time: Duration) -> Throughput {
    let container = Container::numbered(0);
    let mut engine = engine(vec![container.seed()]);
    let mut line = Vec::with_capacity(64 << 10);
    let (mut records, mut bytes, mut now_ns) = (0_u64, 0_u64, START_NS);
    let start = processor_time();
    while processor_time() - start < time {
        for _ in 0..100 {
            let accept = accept(records, now_ns);
            engine.handle_record(Ring::Management, accept.as_bytes());
            let close = close(records, now_ns + STEP_NS);
            engine.handle_record(Ring::Management, close.as_bytes());
            engine.handle_record(Ring::Bulk, &exec(records, now_ns + 2 * STEP_NS, &container));
            records += 3;
            now_ns += 3 * STEP_NS;
        }
        engine.poll(ClockMap { offset_ns: 1 << 60 }.at(now_ns));
        while engine.next_request().is_some() {}
        while let Some(output) = engine.next_output() {
            line.clear();
            wire::encode(&output, &mut line);
            bytes += line.len() as u64;
        }
    }
    let elapsed = (processor_time() - start).as_secs_f64();
    Throughput { records_per_s: records as f64 / elapsed, bytes_per_record: bytes as f64 / records as f64 }
}

/// Processor time of this thread so far: a busy machine makes it wait, and nothing more.
pub fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

/// A sensor's core that has seen dockerd listen, and these containers.
pub fn engine(cgroups: Vec<SeedCgroup>) -> Engine {
    let mut engine = Engine::new(Settings {
        run: RunId(1),
        node: Arc::new(Node {
            name: "node-a".into(),
            boot_id: "9ca7c103-9e9b-436e-8ef2-e3b3d504bc82".into(),
            cluster: None,
        }),
        policy: Config::default().policy,
        merge_window_ns: 5_000_000,
        hold_ns: 50_000_000,
        canary_interval_ns: None,
        packets_rest_ns: 0,
    });
    engine.handle_clock(ClockMap { offset_ns: 1 << 60 });
    engine.handle_cgroups(cgroups);
    seed(&mut engine, DAEMON, &["/usr/sbin/dockerd", "-H", "tcp://0.0.0.0:2375"]);
    seed(&mut engine, SHELL, &["/bin/sh"]);
    let now = Timestamp { boot_ns: START_NS, unix_ns: START_NS };
    let mut listener = ends();
    (listener.peer_addr, listener.peer_port) = ([0; 16], 0);
    engine.handle_listeners(
        now,
        &[ListenerItem {
            sock: 1,
            cgroup: CgroupId { id: 1, hierarchy: 0, reserved: 0 },
            task: DAEMON,
            task_cgroup: CgroupId { id: 1, hierarchy: 0, reserved: 0 },
            ends: listener,
        }],
    );
    engine.handle_ready(now);
    engine
}

/// A process that was there before the sensor, as the walk of the processes finds it.
fn seed(engine: &mut Engine, task: TaskId, args: &[&str]) {
    engine.handle_process(SeedProcess {
        item: TaskItem {
            task,
            cgroup: CgroupId { id: 1, hierarchy: 0, reserved: 0 },
            parent_pid: 1,
            reserved: 0,
            parent_start_ns: 100,
        },
        exe: args.first().map(|exe| Arc::from(*exe)),
        args: Some(args.iter().map(|arg| Arc::from(*arg)).collect()),
        truncated: false,
        contents: None,
        flags: Default::default(),
        namespaces: Default::default(),
    });
}

fn ends() -> Endpoints {
    let mapped = |last: [u8; 4]| {
        let mut address = [0; 16];
        address[10..12].fill(0xff);
        address[12..].copy_from_slice(&last);
        address
    };
    Endpoints {
        local_addr: mapped([10, 0, 0, 1]),
        peer_addr: mapped([198, 18, 0, 7]),
        local_port: 2375,
        peer_port: 40_000,
        netns: NETNS,
    }
}

fn header(kind: RecordKind, len: usize, boot_ns: u64) -> RecordHeader {
    RecordHeader { kind: kind as u16, version: ABI_VERSION, len: len as u32, boot_ns }
}

fn accept(number: u64, boot_ns: u64) -> AcceptRecord {
    AcceptRecord {
        header: header(RecordKind::Accept, size_of::<AcceptRecord>(), boot_ns),
        conn: number,
        cgroup: CgroupId { id: 1, hierarchy: 0, reserved: 0 },
        ends: ends(),
    }
}

fn close(number: u64, boot_ns: u64) -> CloseRecord {
    CloseRecord {
        header: header(RecordKind::Close, size_of::<CloseRecord>(), boot_ns),
        conn: number,
        opened_ns: boot_ns - STEP_NS,
        bytes_in: 1_234,
        bytes_out: 5_678,
        cgroup: CgroupId { id: 1, hierarchy: 0, reserved: 0 },
        task: TaskId { pid: 0, uid: 0, start_ns: 0, comm: [0; 16] },
        ends: ends(),
        direction: Direction::Inbound as u32,
        reserved: 0,
    }
}

/// A process that no other number has, when it has just been made. Process ids come again.
fn child(number: u64, exec_ns: u64) -> TaskId {
    TaskId { pid: 1_000 + (number % 30_000) as u32, start_ns: exec_ns - 1_000, ..SHELL }
}

/// How it is made, before it executes something at this time.
pub fn fork(number: u64, exec_ns: u64) -> ForkRecord {
    let child = child(number, exec_ns);
    ForkRecord {
        header: header(RecordKind::Fork, size_of::<ForkRecord>(), child.start_ns),
        child,
        parent_pid: SHELL.pid,
        reserved: 0,
        parent_start_ns: SHELL.start_ns,
    }
}

/// An exec in a container, of a process that no other number has.
fn exec(number: u64, boot_ns: u64, container: &Container) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_exec(&mut bytes, number, boot_ns, container);
    bytes
}

/// The same, in the place of what was there.
pub fn write_exec(bytes: &mut Vec<u8>, number: u64, boot_ns: u64, container: &Container) {
    const FILE: &[u8] = b"/usr/bin/curl";
    const ARGS: &[u8] = b"curl\0-s\0http://10.0.0.2:2375/containers/json\0";
    const { assert!(ARGS.len() <= ARGS_MAX) };
    let name = container.id.as_bytes();
    let len = size_of::<ExecRecord>() + name.len() + FILE.len() + ARGS.len();
    let none = Ancestor { pid: 0, reserved: 0, start_ns: 0, comm: [0; 16] };
    let mut ancestors = [none; 6];
    let TaskId { pid, start_ns, comm, .. } = SHELL;
    ancestors[0] = Ancestor { pid, reserved: 0, start_ns, comm };
    let record = ExecRecord {
        header: header(RecordKind::Exec, len, boot_ns),
        task: TaskId { comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0", ..child(number, boot_ns) },
        cgroup: container.cgroup,
        pid_ns: 4_026_532_200,
        mnt_ns: 4_026_532_198,
        ns_pid: 17,
        flags: exec_flags::NOT_HOST_CGROUP,
        cgroup_name_len: name.len() as u16,
        filename_len: FILE.len() as u16,
        args_len: ARGS.len() as u16,
        ancestors_len: 1,
        args_total: ARGS.len() as u64,
        exe: FileId { inode: 1, device: 1, reserved: 0 },
        exe_changed_ns: 1,
        root: FileId { inode: 2, device: 1, reserved: 0 },
        ancestors,
    };
    bytes.clear();
    for part in [record.as_bytes(), name, FILE, ARGS] {
        bytes.extend_from_slice(part);
    }
}
