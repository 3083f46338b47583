//! What a record says, decoded: values only, strings still as the bytes they came as.
//!
//! Owns the types between decode and enrich. Knows the ABI's field types, never its bytes.

use std::net::{IpAddr, Ipv6Addr};

use sensor_common::record::{ANCESTORS_MAX, Ancestor, ConnectStage, Endpoints, FILENAME_MAX, TaskId};

use crate::credentials::PlaceKind;
use crate::fact::{Direction, End, ExeFlags};
use crate::ids::{CgroupKey, FileKey, ProcessKey};
use crate::namespaces::Namespaces;
use crate::programs::Contents;
use crate::text::Comm;

/// A task as an event names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// The process.
    pub key: ProcessKey,
    /// Real user id.
    pub uid: u32,
    /// Name.
    pub comm: Comm,
}

impl From<TaskId> for Task {
    fn from(raw: TaskId) -> Self {
        Self { key: ProcessKey { pid: raw.pid, start_ns: raw.start_ns }, uid: raw.uid, comm: Comm(raw.comm) }
    }
}

/// Both ends of a socket, IPv4-mapped addresses as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Local end.
    pub local: End,
    /// Remote end.
    pub peer: End,
    /// Inode of the network namespace.
    pub netns: u32,
}

impl From<Endpoints> for Ends {
    fn from(raw: Endpoints) -> Self {
        let ip = |bytes: [u8; 16]| IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical();
        Self {
            local: End { ip: ip(raw.local_addr), port: raw.local_port },
            peer: End { ip: ip(raw.peer_addr), port: raw.peer_port },
            netns: raw.netns,
        }
    }
}

/// An address as flood control keeps it: two words in network order, IPv4 as an IPv4-mapped address.
pub(crate) fn ip_of(addr: [u64; 2]) -> IpAddr {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&addr[0].to_ne_bytes());
    bytes[8..].copy_from_slice(&addr[1].to_ne_bytes());
    IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
}

/// A listener was opened or closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerEvent {
    /// Opened, else closed.
    pub opened: bool,
    /// Kernel address of the socket.
    pub sock: u64,
    /// Cgroup of the socket.
    pub cgroup: CgroupKey,
    /// Who did it.
    pub task: Task,
    /// Cgroup of that task.
    pub task_cgroup: CgroupKey,
    /// Local end.
    pub ends: Ends,
}

/// A connection was completed for a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptEvent {
    /// Connection number.
    pub conn: u64,
    /// Cgroup of the socket.
    pub cgroup: CgroupKey,
    /// Both ends.
    pub ends: Ends,
    /// Told by its first data, because the kernel has called no program when it was completed.
    pub late: bool,
}

/// A connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseEvent {
    /// Connection number.
    pub conn: u64,
    /// When it was established, boot clock; `None` when the probes leave that to the accept.
    pub opened_ns: Option<u64>,
    /// Payload received.
    pub bytes_in: u64,
    /// Payload sent.
    pub bytes_out: u64,
    /// Cgroup of the socket (inbound) or of the connecting task (outbound).
    pub cgroup: CgroupKey,
    /// The connecting task; `None` for inbound connections.
    pub task: Option<Task>,
    /// Both ends.
    pub ends: Ends,
    /// Who opened it.
    pub direction: Direction,
}

/// An outbound connect went one step further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectEvent {
    /// Connection number.
    pub conn: u64,
    /// Who connects.
    pub task: Task,
    /// Cgroup of that task.
    pub cgroup: CgroupKey,
    /// Both ends.
    pub ends: Ends,
    /// How far it came.
    pub stage: ConnectStage,
    /// errno of a failed connect, 0 = the program gave up.
    pub error: u32,
}

/// A process of the host, no runtime's, begins to connect to a watched port or to the socket of a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HopEvent {
    /// Connection number of the connect; `None` for one to a socket.
    pub conn: Option<u64>,
    /// Who connects.
    pub task: Task,
    /// The one connection that it may pass on.
    pub behind: Ends,
}

/// One ancestor from an exec record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AncestorId {
    /// The process.
    pub key: ProcessKey,
    /// Name.
    pub comm: Comm,
}

impl From<Ancestor> for AncestorId {
    fn from(raw: Ancestor) -> Self {
        Self { key: ProcessKey { pid: raw.pid, start_ns: raw.start_ns }, comm: Comm(raw.comm) }
    }
}

/// A program was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecEvent {
    /// The process, under its new name.
    pub task: Task,
    /// Its cgroup.
    pub cgroup: CgroupKey,
    /// Its namespaces and root directory.
    pub namespaces: Namespaces,
    /// Its pid in its own pid namespace.
    pub ns_pid: u32,
    /// The file that was loaded; unknown is zero.
    pub exe: FileKey,
    /// Time of that file's last change, nanoseconds since 1970.
    pub exe_changed_ns: u64,
    /// What that file is like.
    pub exe_flags: ExeFlags,
    /// Its name is in the table of runtimes and tools.
    pub is_tool: bool,
    /// The kernel did not know its cgroup as one of the host.
    pub not_host_cgroup: bool,
    /// Parent first.
    pub(crate) ancestors: [AncestorId; ANCESTORS_MAX],
    pub(crate) ancestors_len: u8,
    pub(crate) cgroup_name_len: u16,
    pub(crate) filename_len: u16,
    pub(crate) args_total: u64,
    pub(crate) args_unreadable: bool,
    pub(crate) tail: Box<[u8]>,
}

impl ExecEvent {
    /// Parent first, as the kernel's process tree was at the exec.
    #[must_use]
    pub fn ancestors(&self) -> &[AncestorId] {
        &self.ancestors[..usize::from(self.ancestors_len)]
    }

    /// The contents of the file that was loaded, as far as they are known and may be asked for. A runtime's sealed copy of
    /// itself has new ones each time.
    pub(crate) fn contents(&self) -> Option<Contents> {
        let is_known = self.exe != FileKey::default() && !(self.exe_flags.memfd && self.is_tool);
        is_known.then_some(Contents { file: self.exe, changed_ns: self.exe_changed_ns })
    }

    /// Last component of the path of its cgroup.
    #[must_use]
    pub fn cgroup_name(&self) -> &[u8] {
        &self.tail[..usize::from(self.cgroup_name_len)]
    }

    /// File name as given to the kernel.
    #[must_use]
    pub fn filename(&self) -> &[u8] {
        let from = usize::from(self.cgroup_name_len);
        &self.tail[from..from + usize::from(self.filename_len)]
    }

    /// Arguments, each ended by NUL; `None` when they could not be read.
    #[must_use]
    pub fn args(&self) -> Option<&[u8]> {
        let from = usize::from(self.cgroup_name_len) + usize::from(self.filename_len);
        (!self.args_unreadable).then(|| &self.tail[from..])
    }

    /// Whether the file name or the arguments did not fit.
    #[must_use]
    pub fn truncated(&self) -> bool {
        let args = self.args().map_or(0, <[u8]>::len) as u64;
        usize::from(self.filename_len) == FILENAME_MAX || (!self.args_unreadable && args < self.args_total)
    }
}

/// A process exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitEvent {
    /// The process.
    pub task: Task,
    /// Its cgroup.
    pub cgroup: CgroupKey,
    /// Wait status.
    pub status: u32,
}

/// A process was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForkEvent {
    /// The new process.
    pub child: Task,
    /// Who called fork.
    pub parent: ProcessKey,
}

/// A cgroup was made or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupEvent {
    /// Made, else removed.
    pub made: bool,
    /// The cgroup.
    pub cgroup: CgroupKey,
    /// Who did it.
    pub task: Task,
    /// Path from the root of its hierarchy.
    pub path: Box<[u8]>,
    /// The path did not fit; its last component is not whole.
    pub truncated: bool,
}

/// Somebody connected to the socket of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketConnectEvent {
    /// Who.
    pub task: Task,
    /// Cgroup of that task.
    pub cgroup: CgroupKey,
    /// The file that the listening socket is bound to.
    pub socket: FileKey,
}

/// Nanoseconds of one unit of the start time in `/proc/<pid>/stat`; the kernel's interface has 100 per second on every
/// architecture this runs on.
pub const PROC_TICK_NS: u64 = 10_000_000;

/// Who did something, as far as its source can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The probes saw the task.
    Task(Task, CgroupKey),
    /// fanotify tells the process id only.
    Pid {
        /// Thread group id in the initial pid namespace.
        pid: u32,
        /// When the process with this id was started, boot clock, in units of [`PROC_TICK_NS`]; `None` when it was gone.
        started: Option<u64>,
    },
}

/// Where a file was opened, as far as its source can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilePlace {
    /// The entry of the places of credentials that it matched.
    Key(FileKey),
    /// One of this kind.
    Kind(PlaceKind),
    /// The sensor has opened its own file, by which it looks whether opens in places of this kind are told.
    Own(PlaceKind),
}

/// Somebody opened a file where credentials are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOpenEvent {
    /// Who.
    pub actor: Actor,
    /// Where.
    pub place: FilePlace,
    /// Path as the process sees it; empty when it is longer than can be told.
    pub path: Box<[u8]>,
}

/// Somebody took an accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptTaskEvent {
    /// Connection number.
    pub conn: u64,
    /// Who.
    pub task: Task,
    /// Cgroup of that task.
    pub cgroup: CgroupKey,
}

/// What was captured of a segment on a plaintext port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadEvent {
    /// Connection number; 0 for data of the packet that completes a connection.
    pub conn: u64,
    /// Cgroup of the socket.
    pub cgroup: CgroupKey,
    /// Both ends.
    pub ends: Ends,
    /// From the listener to the peer, else the other way.
    pub to_peer: bool,
    /// The first segment after others in the other direction.
    pub turn: bool,
    /// Bytes of its stream before it.
    pub offset: u64,
    /// Bytes of its stream that TCP had taken or sent before it.
    pub settled: u64,
    /// Bytes of it.
    pub len: u32,
    /// Of these, what was captured.
    pub bytes: Box<[u8]>,
}

/// What was captured of what a task wrote on a connection to the socket of a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPayloadEvent {
    /// Connection number.
    pub conn: u64,
    /// Who wrote.
    pub task: Task,
    /// Cgroup of that task.
    pub cgroup: CgroupKey,
    /// The file that the listening socket is bound to.
    pub socket: FileKey,
    /// From the listener's side, else to it.
    pub to_peer: bool,
    /// The first piece after others in the other direction.
    pub turn: bool,
    /// Bytes of its stream before it.
    pub offset: u64,
    /// Bytes of it.
    pub len: u32,
    /// Of these, what was captured.
    pub bytes: Box<[u8]>,
}

/// What a record says. Large and rare contents are boxed, so that events are cheap to queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// See [`ListenerEvent`].
    Listener(Box<ListenerEvent>),
    /// See [`AcceptEvent`].
    Accept(AcceptEvent),
    /// See [`CloseEvent`].
    Close(Box<CloseEvent>),
    /// See [`ConnectEvent`].
    Connect(Box<ConnectEvent>),
    /// See [`ExecEvent`].
    Exec(Box<ExecEvent>),
    /// See [`ExitEvent`].
    Exit(ExitEvent),
    /// See [`ForkEvent`].
    Fork(ForkEvent),
    /// See [`CgroupEvent`].
    Cgroup(Box<CgroupEvent>),
    /// See [`SocketConnectEvent`].
    SocketConnect(Box<SocketConnectEvent>),
    /// See [`FileOpenEvent`].
    FileOpen(Box<FileOpenEvent>),
    /// See [`AcceptTaskEvent`].
    AcceptTask(Box<AcceptTaskEvent>),
    /// See [`PayloadEvent`].
    Payload(Box<PayloadEvent>),
    /// See [`SocketPayloadEvent`].
    SocketPayload(Box<SocketPayloadEvent>),
    /// See [`HopEvent`].
    Hop(Box<HopEvent>),
}

impl Event {
    /// Bytes it holds beside its own size, for bounds on queues.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Exec(exec) => size_of::<ExecEvent>() + exec.tail.len(),
            Self::Cgroup(cgroup) => size_of::<CgroupEvent>() + cgroup.path.len(),
            Self::FileOpen(open) => size_of::<FileOpenEvent>() + open.path.len(),
            Self::Payload(payload) => size_of::<PayloadEvent>() + payload.bytes.len(),
            Self::SocketPayload(payload) => size_of::<SocketPayloadEvent>() + payload.bytes.len(),
            Self::SocketConnect(_) => size_of::<SocketConnectEvent>(),
            Self::AcceptTask(_) => size_of::<AcceptTaskEvent>(),
            Self::Listener(_) => size_of::<ListenerEvent>(),
            Self::Close(_) => size_of::<CloseEvent>(),
            Self::Connect(_) => size_of::<ConnectEvent>(),
            Self::Hop(_) => size_of::<HopEvent>(),
            Self::Accept(_) | Self::Exit(_) | Self::Fork(_) => 0,
        }
    }
}
