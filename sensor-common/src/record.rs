//! Records on the ring buffers and items of the start-up iterators.
//!
//! Every ring record starts with a [`RecordHeader`] whose `kind` selects the struct that follows and whose `len` counts
//! all bytes, header and variable tail included.

/// Bytes of `task_struct.comm`, NUL included.
pub const COMM_LEN: usize = 16;
/// Most bytes of an executed file name that a record carries, NUL excluded.
pub const FILENAME_MAX: usize = 512;
/// Most bytes of an argument vector that a record carries; the rest is counted in [`ExecRecord::args_total`].
pub const ARGS_MAX: usize = 4096;
/// Most bytes of a cgroup path that a record carries, NUL excluded.
pub const CGROUP_PATH_MAX: usize = 1024;
/// Most bytes of a cgroup's own name that a record carries, NUL excluded.
pub const CGROUP_NAME_MAX: usize = 128;
/// Ancestors of a process that an [`ExecRecord`] carries, nearest first.
pub const ANCESTORS_MAX: usize = 6;

/// The ring buffer a record travels on.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// Listeners, accepts and their ends, runtime execs, cgroup changes: never crowded out by the rest.
    Management = 0,
    /// Connects, other execs, forks, exits, captured payload.
    Bulk = 1,
}

impl Ring {
    /// Number of rings.
    pub const COUNT: usize = 2;
    /// Every ring, in index order.
    pub const ALL: [Self; Self::COUNT] = [Self::Management, Self::Bulk];
}

/// What a record says; the integer is [`RecordHeader::kind`] and the column of the counter table.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// [`ListenerRecord`]: a socket on a watched port began to listen.
    ListenerOpened = 0,
    /// [`ListenerRecord`]: it stopped.
    ListenerClosed = 1,
    /// [`AcceptRecord`]: the kernel completed a connection for a listener on a watched port.
    Accept = 2,
    /// [`CloseRecord`]: a connection reported as accept or as established connect ended.
    Close = 3,
    /// [`ConnectRecord`]: an outbound connect was tried, succeeded or failed.
    Connect = 4,
    /// [`ExecRecord`].
    Exec = 5,
    /// [`ExitRecord`]: a process exited.
    Exit = 6,
    /// [`ForkRecord`]: a new process (not a thread).
    Fork = 7,
    /// [`CgroupRecord`]: a cgroup was created.
    CgroupMkdir = 8,
    /// [`CgroupRecord`]: a cgroup was removed.
    CgroupRmdir = 9,
    /// [`SocketConnectRecord`]: somebody connected to the socket of a runtime.
    SocketConnect = 10,
    /// [`FileOpenRecord`]: somebody opened a credential file for reading.
    FileOpen = 11,
    /// [`AcceptTaskRecord`]: a program took a connection that was reported as accept.
    AcceptTask = 12,
    /// [`PayloadRecord`]: what a segment of a connection on a plaintext port carries.
    Payload = 13,
    /// [`AcceptRecord`]: as [`RecordKind::Accept`], but told by the first data of the connection, because the kernel has
    /// called no program when it was completed. Its time is that of the data.
    LateAccept = 14,
    /// [`SocketPayloadRecord`]: what is said on a connection to the socket of a runtime.
    SocketPayload = 15,
    /// [`HopRecord`]: a program that has a connection connects to a watched port.
    Hop = 16,
}

impl RecordKind {
    /// Number of kinds.
    pub const COUNT: usize = 17;
    /// Every kind, in index order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::ListenerOpened,
        Self::ListenerClosed,
        Self::Accept,
        Self::Close,
        Self::Connect,
        Self::Exec,
        Self::Exit,
        Self::Fork,
        Self::CgroupMkdir,
        Self::CgroupRmdir,
        Self::SocketConnect,
        Self::FileOpen,
        Self::AcceptTask,
        Self::Payload,
        Self::LateAccept,
        Self::SocketPayload,
        Self::Hop,
    ];

    /// Returns the kind with this code, if there is one.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        if (code as usize) < Self::COUNT { Some(Self::ALL[code as usize]) } else { None }
    }
}

macro_rules! abi {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($body:tt)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        #[cfg_attr(
            feature = "user",
            derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
        )]
        $vis struct $name { $($body)* }
    };
}

pub(crate) use abi;
mod files;
mod hop;
mod payload;

pub use files::{FILE_PATH_MAX, FileId, FileOpenRecord, SocketConnectRecord};
pub use hop::{HOP_FILES_MAX, HopRecord};
pub use payload::{PAYLOAD_MAX, PayloadRecord, SocketPayloadRecord, UNKNOWN_BYTES, payload_flags};

abi! {
/// First bytes of every ring record.
pub struct RecordHeader {
    /// A [`RecordKind`] code.
    pub kind: u16,
    /// [`crate::ABI_VERSION`] of the writer.
    pub version: u16,
    /// Bytes of the whole record, this header and the variable tail included.
    pub len: u32,
    /// `CLOCK_BOOTTIME` of the event in nanoseconds (`bpf_ktime_get_boot_ns`, Linux 5.8).
    pub boot_ns: u64,
}
}

abi! {
/// A cgroup: ids of version 1 hierarchies collide with each other, so the hierarchy is part of the key.
pub struct CgroupId {
    /// `kernfs_node.id`; in the version 2 hierarchy also the inode number of its directory. 0 = unknown.
    pub id: u64,
    /// `cgroup_root.hierarchy_id`; 0 is the version 2 (default) hierarchy.
    pub hierarchy: u32,
    /// Zero.
    pub reserved: u32,
}
}

abi! {
/// A process as the kernel knows it at the moment of the event.
pub struct TaskId {
    /// `task_struct.tgid` in the initial pid namespace.
    pub pid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// `group_leader->start_boottime` in nanoseconds; with `pid` the key of the process.
    pub start_ns: u64,
    /// `task_struct.comm`; what follows the first NUL means nothing.
    pub comm: [u8; COMM_LEN],
}
}

abi! {
/// One ancestor of an executing process.
pub struct Ancestor {
    /// `tgid` in the initial pid namespace.
    pub pid: u32,
    /// Zero.
    pub reserved: u32,
    /// `group_leader->start_boottime` in nanoseconds.
    pub start_ns: u64,
    /// `comm` of the group leader; what follows the first NUL means nothing.
    pub comm: [u8; COMM_LEN],
}
}

abi! {
/// The two ends of a TCP socket.
pub struct Endpoints {
    /// Local address in network order; IPv4 as `::ffff:a.b.c.d`.
    pub local_addr: [u8; 16],
    /// Remote address in network order; IPv4 as `::ffff:a.b.c.d`; all zero for a listener.
    pub peer_addr: [u8; 16],
    /// Local port, host order; 0 while the kernel has not chosen one.
    pub local_port: u16,
    /// Remote port, host order.
    pub peer_port: u16,
    /// Inode of the network namespace of the socket.
    pub netns: u32,
}
}

abi! {
/// A listening socket on a watched port.
///
/// Source: `inet_sock_set_state` CLOSE -> LISTEN and LISTEN -> CLOSE, both in process context.
pub struct ListenerRecord {
    /// Kind [`RecordKind::ListenerOpened`] or [`RecordKind::ListenerClosed`].
    pub header: RecordHeader,
    /// Kernel address of the socket: a key between records of one sensor run, never printed.
    pub sock: u64,
    /// Cgroup of the socket (version 2 hierarchy).
    pub cgroup: CgroupId,
    /// The task that changed the state.
    pub task: TaskId,
    /// Cgroup of that task, see [`crate::settings::Settings::task_hierarchy`].
    pub task_cgroup: CgroupId,
    /// Local end; the remote end is zero.
    pub ends: Endpoints,
}
}

abi! {
/// A connection completed for a listener on a watched port.
///
/// Source: `inet_sock_set_state` SYN_RECV -> ESTABLISHED, in softirq: there is no task to name.
pub struct AcceptRecord {
    /// Kind [`RecordKind::Accept`] or [`RecordKind::LateAccept`].
    pub header: RecordHeader,
    /// Connection id, unique in this sensor run.
    pub conn: u64,
    /// Cgroup of the socket, which it has from its listener (version 2 hierarchy).
    pub cgroup: CgroupId,
    /// Both ends.
    pub ends: Endpoints,
}
}

abi! {
/// The end of a connection that was reported before.
pub struct CloseRecord {
    /// Kind [`RecordKind::Close`].
    pub header: RecordHeader,
    /// Connection id of the accept or connect.
    pub conn: u64,
    /// `CLOCK_BOOTTIME` of establishment, nanoseconds; 0 for an inbound connection on kernels from 5.12 on, where the probes
    /// keep no table of them: it is the time of the accept with this `conn`.
    pub opened_ns: u64,
    /// Payload bytes received (`tcp_sock.bytes_received` less the FIN).
    pub bytes_in: u64,
    /// Payload bytes sent, retransmissions excluded (`bytes_sent - bytes_retrans`).
    pub bytes_out: u64,
    /// Cgroup of the socket for inbound, of the connecting task for outbound connections.
    pub cgroup: CgroupId,
    /// The connecting task for outbound connections; all zero for inbound ones.
    pub task: TaskId,
    /// Both ends, as they were when the connection was established.
    pub ends: Endpoints,
    /// A [`Direction`] code.
    pub direction: u32,
    /// Zero.
    pub reserved: u32,
}
}

/// Who opened a connection, taken from the kernel's state transition.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// SYN_RECV -> ESTABLISHED.
    Inbound = 0,
    /// SYN_SENT -> ESTABLISHED.
    Outbound = 1,
}

/// How far an outbound connect came.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectStage {
    /// CLOSE -> SYN_SENT, reported for lateral ports only.
    Attempted = 0,
    /// SYN_SENT -> ESTABLISHED.
    Established = 1,
    /// SYN_SENT -> CLOSE; [`ConnectRecord::error`] says why.
    Failed = 2,
}

abi! {
/// An outbound connect of a process that is in a container or is a runtime process.
///
/// Source: `inet_sock_set_state` CLOSE -> SYN_SENT (process context, where the identity is taken), then
/// SYN_SENT -> ESTABLISHED or CLOSE.
pub struct ConnectRecord {
    /// Kind [`RecordKind::Connect`].
    pub header: RecordHeader,
    /// Connection id, unique in this sensor run, the same in all records of one connect.
    pub conn: u64,
    /// `CLOCK_BOOTTIME` of SYN_SENT, nanoseconds.
    pub started_ns: u64,
    /// The connecting task.
    pub task: TaskId,
    /// Cgroup of that task, see [`crate::settings::Settings::task_hierarchy`].
    pub cgroup: CgroupId,
    /// Both ends; the local port is 0 while `stage` is [`ConnectStage::Attempted`].
    pub ends: Endpoints,
    /// A [`ConnectStage`] code.
    pub stage: u32,
    /// `sock.sk_err` (an errno, positive) when `stage` is [`ConnectStage::Failed`]; 0 = the program gave up itself.
    pub error: u32,
}
}

abi! {
/// A successful exec; followed by the tail `cgroup name ‖ file name ‖ arguments` without separators.
///
/// Source: `sched_process_exec`, process context. Arguments are NUL-separated as in `/proc/<pid>/cmdline`.
pub struct ExecRecord {
    /// Kind [`RecordKind::Exec`].
    pub header: RecordHeader,
    /// The process, under its new name.
    pub task: TaskId,
    /// Cgroup of the task, see [`crate::settings::Settings::task_hierarchy`].
    pub cgroup: CgroupId,
    /// Inode number of its pid namespace.
    pub pid_ns: u32,
    /// Inode number of its mount namespace.
    pub mnt_ns: u32,
    /// Its pid in its own pid namespace.
    pub ns_pid: u32,
    /// [`exec_flags`].
    pub flags: u32,
    /// Bytes of cgroup name in the tail, at most [`CGROUP_NAME_MAX`]; none for a cgroup that the agent has classified as
    /// the host's.
    pub cgroup_name_len: u16,
    /// Bytes of file name in the tail, at most [`FILENAME_MAX`].
    pub filename_len: u16,
    /// Bytes of arguments in the tail, at most [`ARGS_MAX`].
    pub args_len: u16,
    /// Valid entries in `ancestors`.
    pub ancestors_len: u16,
    /// Bytes of the whole argument vector in the process.
    pub args_total: u64,
    /// The file that was loaded: of a script, its interpreter.
    pub exe: FileId,
    /// `i_ctime` of that file, nanoseconds since 1970: with `exe` it says which contents these are.
    pub exe_changed_ns: u64,
    /// Root directory of the process.
    pub root: FileId,
    /// Parent first. The walk ends at the initial process or after [`ANCESTORS_MAX`]; with no flag set, for an ordinary
    /// process of the host, after the parent.
    pub ancestors: [Ancestor; ANCESTORS_MAX],
}
}

/// Bits of [`ExecRecord::flags`].
pub mod exec_flags {
    /// The name is in the table of runtimes and tools.
    pub const TOOL: u32 = 1;
    /// The process was a runtime process or forked by one, or, in a cgroup that is not classified, its parent is one: the
    /// start of a container, a shim, a helper.
    pub const RUNTIME_LINEAGE: u32 = 1 << 1;
    /// The cgroup is not known to belong to the host.
    pub const NOT_HOST_CGROUP: u32 = 1 << 2;
    /// The arguments could not be read.
    pub const ARGS_UNREADABLE: u32 = 1 << 3;
    /// The file that was loaded has no name any more.
    pub const DELETED: u32 = 1 << 4;
    /// The file that was loaded has never had one: it was made by `memfd_create`.
    pub const MEMFD: u32 = 1 << 5;
    /// What was executed is run by an interpreter: `#!`, or a format registered with `binfmt_misc`.
    pub const SCRIPT: u32 = 1 << 6;
}

abi! {
/// Exit of a process: its last thread is going. Before 6.16 two threads that exit at the same moment can both report it.
///
/// Source: `sched_process_exit`.
pub struct ExitRecord {
    /// Kind [`RecordKind::Exit`].
    pub header: RecordHeader,
    /// The process.
    pub task: TaskId,
    /// Cgroup of the task.
    pub cgroup: CgroupId,
    /// `task_struct.exit_code` of the last thread: wait status as in `wait(2)`.
    pub exit_code: u32,
    /// Zero.
    pub reserved: u32,
}
}

abi! {
/// A new process.
///
/// Source: `sched_process_fork`; threads are left out.
pub struct ForkRecord {
    /// Kind [`RecordKind::Fork`].
    pub header: RecordHeader,
    /// The child; it still carries its parent's name.
    pub child: TaskId,
    /// `tgid` of the process that called fork (not of the reaper it may be given to later).
    pub parent_pid: u32,
    /// Zero.
    pub reserved: u32,
    /// `group_leader->start_boottime` of that process, nanoseconds.
    pub parent_start_ns: u64,
}
}

abi! {
/// A cgroup was created or removed; followed by its path from the root of its hierarchy.
///
/// Source: `cgroup_mkdir`, `cgroup_rmdir`, process context.
pub struct CgroupRecord {
    /// Kind [`RecordKind::CgroupMkdir`] or [`RecordKind::CgroupRmdir`].
    pub header: RecordHeader,
    /// The cgroup.
    pub cgroup: CgroupId,
    /// The task that made or removed it.
    pub task: TaskId,
    /// Bytes of path in the tail, at most [`CGROUP_PATH_MAX`]; a longer path is cut at its end.
    pub path_len: u32,
    /// Zero.
    pub reserved: u32,
}
}

abi! {
/// The task that took an accepted connection out of the queue of its listener.
///
/// Source: the end of `inet_csk_accept`, process context; after the [`AcceptRecord`] with the same `conn`.
pub struct AcceptTaskRecord {
    /// Kind [`RecordKind::AcceptTask`].
    pub header: RecordHeader,
    /// Connection id.
    pub conn: u64,
    /// The task that accepts.
    pub task: TaskId,
    /// Cgroup of that task, see [`crate::settings::Settings::task_hierarchy`].
    pub cgroup: CgroupId,
}
}

abi! {
/// One item of the `iter/task_file` walk: a task that holds a listening TCP socket.
pub struct ListenerItem {
    /// Kernel address of the socket, as in [`ListenerRecord::sock`].
    pub sock: u64,
    /// Cgroup of the socket (version 2 hierarchy).
    pub cgroup: CgroupId,
    /// The holder.
    pub task: TaskId,
    /// Cgroup of the holder.
    pub task_cgroup: CgroupId,
    /// Local end.
    pub ends: Endpoints,
}
}

abi! {
/// One item of the `iter/task` walk: a process (thread group leader).
pub struct TaskItem {
    /// The process.
    pub task: TaskId,
    /// Cgroup of the task.
    pub cgroup: CgroupId,
    /// Parent's `tgid`; 0 = none.
    pub parent_pid: u32,
    /// Zero.
    pub reserved: u32,
    /// Parent's `group_leader->start_boottime`, nanoseconds.
    pub parent_start_ns: u64,
}
}

#[cfg(feature = "loader")]
#[expect(unsafe_code, reason = "a marker for plain data")]
// SAFETY: integers only, without padding; every bit pattern is valid.
unsafe impl aya::Pod for CgroupId {}
