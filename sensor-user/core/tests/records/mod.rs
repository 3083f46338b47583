//! Records as the probes write them, for the tests.
//!
//! Shared by the unit tests of the crate and by the integration tests; not every one of them uses all of it.
#![allow(dead_code, reason = "each test target uses its own part")]

use std::net::{IpAddr, Ipv6Addr};

use sensor_common::ABI_VERSION;
use sensor_common::record::{
    ANCESTORS_MAX, AcceptRecord, AcceptTaskRecord, Ancestor, CgroupId, CgroupRecord, CloseRecord,
    ConnectRecord, ConnectStage, Direction, Endpoints, ExecRecord, ExitRecord, FILE_PATH_MAX, FileId,
    FileOpenRecord, ForkRecord, HopRecord, ListenerItem, ListenerRecord, PayloadRecord, RecordHeader,
    RecordKind, SocketConnectRecord, SocketPayloadRecord, TaskId, TaskItem, exec_flags, payload_flags,
};
use zerocopy::{FromZeros, Immutable, IntoBytes};

/// A process: pid, start time and name.
#[derive(Clone, Copy, Debug)]
pub struct P(pub u32, pub &'static str);

impl P {
    /// Start time: pids are not reused in the tests, so it follows from the pid.
    pub fn start_ns(self) -> u64 {
        u64::from(self.0) * 1000
    }

    /// As the kernel names it.
    pub fn task(self) -> TaskId {
        let mut comm = [0; 16];
        let len = self.1.len().min(15);
        comm[..len].copy_from_slice(&self.1.as_bytes()[..len]);
        TaskId { pid: self.0, uid: 0, start_ns: self.start_ns(), comm }
    }
}

/// A cgroup of the version 2 hierarchy.
pub fn v2(id: u64) -> CgroupId {
    CgroupId { id, hierarchy: 0, reserved: 0 }
}

/// A cgroup of a version 1 hierarchy.
pub fn v1(id: u64) -> CgroupId {
    CgroupId { id, hierarchy: 8, reserved: 0 }
}

/// Both ends of a socket in network namespace 1.
pub fn ends(local: (&str, u16), peer: (&str, u16)) -> Endpoints {
    let mapped = |ip: &str| match ip.parse().expect("address") {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    Endpoints {
        local_addr: mapped(local.0),
        peer_addr: mapped(peer.0),
        local_port: local.1,
        peer_port: peer.1,
        netns: 1,
    }
}

/// Both ends of a listener.
pub fn bound(ip: &str, port: u16) -> Endpoints {
    Endpoints { peer_addr: Ipv6Addr::UNSPECIFIED.octets(), ..ends((ip, port), ("::", 0)) }
}

/// The same ends in another network namespace.
pub fn netns(ends: Endpoints, netns: u32) -> Endpoints {
    Endpoints { netns, ..ends }
}

fn header(kind: RecordKind, boot_ns: u64, len: usize) -> RecordHeader {
    RecordHeader { kind: kind as u16, version: ABI_VERSION, len: len as u32, boot_ns }
}

fn bytes<T: IntoBytes + Immutable>(record: &T, tail: &[&[u8]]) -> Vec<u8> {
    let mut bytes = record.as_bytes().to_vec();
    for part in tail {
        bytes.extend_from_slice(part);
    }
    let len = bytes.len() as u32;
    bytes[4..8].copy_from_slice(&len.to_ne_bytes());
    bytes
}

/// A listener opened or closed.
pub fn listener(
    boot_ns: u64,
    opened: bool,
    sock: u64,
    task: P,
    cgroup: CgroupId,
    ends: Endpoints,
) -> Vec<u8> {
    let kind = if opened { RecordKind::ListenerOpened } else { RecordKind::ListenerClosed };
    let header = header(kind, boot_ns, 0);
    bytes(&ListenerRecord { header, sock, cgroup, task: task.task(), task_cgroup: cgroup, ends }, &[])
}

/// An accept.
pub fn accept(boot_ns: u64, conn: u64, cgroup: CgroupId, ends: Endpoints) -> Vec<u8> {
    accept_as(RecordKind::Accept, boot_ns, conn, cgroup, ends)
}

/// An accept that is told by the first data of its connection.
pub fn late_accept(boot_ns: u64, conn: u64, cgroup: CgroupId, ends: Endpoints) -> Vec<u8> {
    accept_as(RecordKind::LateAccept, boot_ns, conn, cgroup, ends)
}

fn accept_as(kind: RecordKind, boot_ns: u64, conn: u64, cgroup: CgroupId, ends: Endpoints) -> Vec<u8> {
    bytes(&AcceptRecord { header: header(kind, boot_ns, 0), conn, cgroup, ends }, &[])
}

/// The end of a connection; `task` for outbound ones, of which alone the probes know the beginning.
pub fn close(boot_ns: u64, conn: u64, task: Option<P>, cgroup: CgroupId, ends: Endpoints) -> Vec<u8> {
    close_after(boot_ns, conn, task, cgroup, ends, 10)
}

/// The end of a connection on which so many bytes came.
pub fn close_after(
    boot_ns: u64,
    conn: u64,
    task: Option<P>,
    cgroup: CgroupId,
    ends: Endpoints,
    bytes_in: u64,
) -> Vec<u8> {
    let direction = if task.is_some() { Direction::Outbound } else { Direction::Inbound };
    let record = CloseRecord {
        header: header(RecordKind::Close, boot_ns, 0),
        conn,
        opened_ns: if task.is_some() { boot_ns - 500 } else { 0 },
        bytes_in,
        bytes_out: 20,
        cgroup,
        task: task.map_or_else(TaskId::new_zeroed, P::task),
        ends,
        direction: direction as u32,
        reserved: 0,
    };
    bytes(&record, &[])
}

/// A step of an outbound connect.
pub fn connect(
    boot_ns: u64,
    conn: u64,
    task: P,
    cgroup: CgroupId,
    ends: Endpoints,
    stage: ConnectStage,
    error: u32,
) -> Vec<u8> {
    let header = header(RecordKind::Connect, boot_ns, 0);
    let (task, stage) = (task.task(), stage as u32);
    bytes(&ConnectRecord { header, conn, started_ns: boot_ns, task, cgroup, ends, stage, error }, &[])
}

/// An exec; further fields may be set before it is turned into bytes.
pub struct Exec<'a> {
    /// When.
    pub boot_ns: u64,
    /// Who.
    pub task: P,
    /// Where.
    pub cgroup: CgroupId,
    /// Own name of the cgroup.
    pub cgroup_name: &'a str,
    /// File.
    pub file: &'a str,
    /// Arguments.
    pub args: &'a [&'a str],
    /// Parent first.
    pub ancestors: &'a [P],
    /// Mount namespace.
    pub mnt_ns: u32,
    /// Pid namespace; 0 = the number of the mount namespace.
    pub pid_ns: u32,
    /// Inode of the root directory.
    pub root: u64,
    /// Inode of the file.
    pub exe: u64,
    /// Pid in its own namespace; 0 = as outside.
    pub ns_pid: u32,
    /// Flags.
    pub flags: u32,
    /// Bytes of arguments beyond those recorded.
    pub args_beyond: u64,
}

impl<'a> Exec<'a> {
    /// An exec on the host.
    pub fn new(boot_ns: u64, task: P, cgroup: CgroupId, file: &'a str, args: &'a [&'a str]) -> Self {
        Self {
            boot_ns,
            task,
            cgroup,
            cgroup_name: "",
            file,
            args,
            ancestors: &[],
            mnt_ns: 1,
            pid_ns: 0,
            root: 0,
            exe: 0,
            ns_pid: 0,
            flags: exec_flags::NOT_HOST_CGROUP,
            args_beyond: 0,
        }
    }

    /// As the probes write it.
    pub fn bytes(&self) -> Vec<u8> {
        let args: Vec<u8> = self.args.iter().flat_map(|arg| [arg.as_bytes(), b"\0"].concat()).collect();
        let mut ancestors = [Ancestor::new_zeroed(); ANCESTORS_MAX];
        for (slot, ancestor) in ancestors.iter_mut().zip(self.ancestors) {
            let TaskId { pid, start_ns, comm, .. } = ancestor.task();
            *slot = Ancestor { pid, reserved: 0, start_ns, comm };
        }
        let record = ExecRecord {
            header: header(RecordKind::Exec, self.boot_ns, 0),
            task: self.task.task(),
            cgroup: self.cgroup,
            pid_ns: if self.pid_ns == 0 { self.mnt_ns } else { self.pid_ns },
            mnt_ns: self.mnt_ns,
            ns_pid: if self.ns_pid == 0 { self.task.0 } else { self.ns_pid },
            flags: self.flags,
            cgroup_name_len: self.cgroup_name.len() as u16,
            filename_len: self.file.len() as u16,
            args_len: args.len() as u16,
            ancestors_len: self.ancestors.len() as u16,
            args_total: args.len() as u64 + self.args_beyond,
            exe: FileId { inode: self.exe, device: u32::from(self.exe != 0), reserved: 0 },
            exe_changed_ns: 0,
            root: FileId { inode: self.root, device: 1, reserved: 0 },
            ancestors,
        };
        bytes(&record, &[self.cgroup_name.as_bytes(), self.file.as_bytes(), &args])
    }
}

/// An exit.
pub fn exit(boot_ns: u64, task: P, cgroup: CgroupId, status: u32) -> Vec<u8> {
    let header = header(RecordKind::Exit, boot_ns, 0);
    bytes(&ExitRecord { header, task: task.task(), cgroup, exit_code: status, reserved: 0 }, &[])
}

/// A fork.
pub fn fork(boot_ns: u64, parent: P, child: P) -> Vec<u8> {
    let record = ForkRecord {
        header: header(RecordKind::Fork, boot_ns, 0),
        child: child.task(),
        parent_pid: parent.0,
        reserved: 0,
        parent_start_ns: parent.start_ns(),
    };
    bytes(&record, &[])
}

/// A cgroup made or removed.
pub fn cgroup(boot_ns: u64, made: bool, cgroup: CgroupId, task: P, path: &str) -> Vec<u8> {
    let kind = if made { RecordKind::CgroupMkdir } else { RecordKind::CgroupRmdir };
    let header = header(kind, boot_ns, 0);
    let path_len = path.len() as u32;
    bytes(&CgroupRecord { header, cgroup, task: task.task(), path_len, reserved: 0 }, &[path.as_bytes()])
}

/// A holder of a listening socket.
pub fn listener_item(sock: u64, task: P, cgroup: CgroupId, ends: Endpoints) -> ListenerItem {
    ListenerItem { sock, cgroup, task: task.task(), task_cgroup: cgroup, ends }
}

/// A process that was there before.
pub fn task_item(task: P, parent: Option<P>, cgroup: CgroupId) -> TaskItem {
    TaskItem {
        task: task.task(),
        cgroup,
        parent_pid: parent.map_or(0, |parent| parent.0),
        reserved: 0,
        parent_start_ns: parent.map_or(0, P::start_ns),
    }
}

/// A file on device 7.
pub fn file(inode: u64) -> FileId {
    FileId { inode, device: 7, reserved: 0 }
}

/// A connect to the socket of a runtime.
pub fn socket_connect(boot_ns: u64, task: P, cgroup: CgroupId, inode: u64) -> Vec<u8> {
    let header = header(RecordKind::SocketConnect, boot_ns, 0);
    bytes(&SocketConnectRecord { header, task: task.task(), cgroup, socket: file(inode) }, &[])
}

/// An open of a credential file.
pub fn file_open(boot_ns: u64, task: P, cgroup: CgroupId, place: u64, path: &str) -> Vec<u8> {
    let mut record = FileOpenRecord {
        header: header(RecordKind::FileOpen, boot_ns, 0),
        task: task.task(),
        cgroup,
        place: file(place),
        path_len: path.len() as u32,
        reserved: 0,
        path: [0xff; FILE_PATH_MAX],
    };
    record.path[..path.len()].copy_from_slice(path.as_bytes());
    bytes(&record, &[])
}

/// A task took an accepted connection.
pub fn accept_task(boot_ns: u64, conn: u64, task: P, cgroup: CgroupId) -> Vec<u8> {
    let header = header(RecordKind::AcceptTask, boot_ns, 0);
    bytes(&AcceptTaskRecord { header, conn, task: task.task(), cgroup }, &[])
}

/// A program of the host connects to a watched port, and has this connection of somebody else.
pub fn hop(boot_ns: u64, conn: u64, task: P, cgroup: CgroupId, behind: Endpoints) -> Vec<u8> {
    let header = header(RecordKind::Hop, boot_ns, 0);
    bytes(&HopRecord { header, conn, task: task.task(), cgroup, behind }, &[])
}

/// A segment of a connection that was captured whole, the first one of its message.
pub fn payload(
    boot_ns: u64,
    conn: u64,
    cgroup: CgroupId,
    ends: Endpoints,
    to_peer: bool,
    offset: u64,
    segment: &[u8],
) -> Vec<u8> {
    let record = PayloadRecord {
        header: header(RecordKind::Payload, boot_ns, 0),
        conn,
        offset,
        settled: offset,
        cgroup,
        ends,
        len: segment.len() as u32,
        captured: segment.len() as u32,
        flags: payload_flags::TURN | if to_peer { payload_flags::TO_PEER } else { 0 },
        reserved: 0,
    };
    // The probes reserve room in few sizes.
    bytes(&record, &[segment, &vec![0xff; 512_usize.saturating_sub(segment.len())]])
}

/// What a task writes on a connection to the socket of a runtime, captured whole, the first piece of its message.
pub fn socket_payload(
    boot_ns: u64,
    conn: u64,
    (task, cgroup): (P, CgroupId),
    inode: u64,
    to_peer: bool,
    offset: u64,
    written: &[u8],
) -> Vec<u8> {
    let record = SocketPayloadRecord {
        header: header(RecordKind::SocketPayload, boot_ns, 0),
        conn,
        offset,
        task: task.task(),
        cgroup,
        socket: file(inode),
        len: written.len() as u32,
        captured: written.len() as u32,
        flags: payload_flags::TURN | if to_peer { payload_flags::TO_PEER } else { 0 },
        reserved: 0,
    };
    bytes(&record, &[written, &vec![0xff; 512_usize.saturating_sub(written.len())]])
}
