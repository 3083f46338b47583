//! Ring records to events.
//!
//! Owns the only reading of the ABI structs in the agent: version, kind, length, tail lengths and codes are checked,
//! then values are copied out. Never panics, whatever the bytes; strings stay bytes until somebody wants them.

use std::net::{IpAddr, Ipv6Addr};

use sensor_common::ABI_VERSION;
use sensor_common::record::{
    ANCESTORS_MAX, ARGS_MAX, AcceptRecord, Ancestor as RawAncestor, CGROUP_NAME_MAX, CGROUP_PATH_MAX,
    CgroupRecord, CloseRecord, ConnectRecord, ConnectStage, Direction as RawDirection, Endpoints, ExecRecord,
    ExitRecord, FILENAME_MAX, ForkRecord, ListenerRecord, RecordHeader, RecordKind, TaskId, exec_flags,
};
use thiserror::Error;
use zerocopy::FromBytes;

use crate::fact::{Direction, End};
use crate::ids::{CgroupKey, ProcessKey};
use crate::text::Comm;

/// Why a record was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Fewer bytes than the header or the struct of its kind.
    #[error("record of {found} bytes, expected at least {expected}")]
    TooShort {
        /// Bytes there are.
        found: usize,
        /// Bytes there must be.
        expected: usize,
    },
    /// Written by another ABI version.
    #[error("ABI version {found}, expected {ABI_VERSION}")]
    Version {
        /// The writer's version.
        found: u16,
    },
    /// No such kind.
    #[error("unknown record kind {code}")]
    Kind {
        /// The code found.
        code: u16,
    },
    /// The length in the header is not that of the struct and its tail, or is beyond the bytes.
    #[error("length {found} in the header, expected {expected}")]
    Length {
        /// The length in the header.
        found: usize,
        /// What it must be.
        expected: usize,
    },
    /// A counted field is longer than its bound.
    #[error("{field} of {found}, at most {most}")]
    Bound {
        /// The field.
        field: &'static str,
        /// The count found.
        found: usize,
        /// Its bound.
        most: usize,
    },
    /// A coded field has no such value.
    #[error("unknown {field} {code}")]
    Code {
        /// The field.
        field: &'static str,
        /// The code found.
        code: u32,
    },
}

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
}

/// A connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseEvent {
    /// Connection number.
    pub conn: u64,
    /// When it was established, boot clock.
    pub opened_ns: u64,
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

/// One ancestor from an exec record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AncestorId {
    /// The process.
    pub key: ProcessKey,
    /// Name.
    pub comm: Comm,
}

/// A program was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecEvent {
    /// The process, under its new name.
    pub task: Task,
    /// Its cgroup.
    pub cgroup: CgroupKey,
    /// Inode of its mount namespace.
    pub mnt_ns: u32,
    /// Its pid in its own pid namespace.
    pub ns_pid: u32,
    /// The kernel did not know its cgroup as one of the host.
    pub not_host_cgroup: bool,
    /// Parent first.
    ancestors: [AncestorId; ANCESTORS_MAX],
    ancestors_len: u8,
    cgroup_name_len: u16,
    filename_len: u16,
    args_total: u64,
    args_unreadable: bool,
    tail: Box<[u8]>,
}

impl ExecEvent {
    /// Parent first, as the kernel's process tree was at the exec.
    #[must_use]
    pub fn ancestors(&self) -> &[AncestorId] {
        &self.ancestors[..usize::from(self.ancestors_len)]
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
}

impl Event {
    /// Bytes it holds beside its own size, for bounds on queues.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Exec(exec) => size_of::<ExecEvent>() + exec.tail.len(),
            Self::Cgroup(cgroup) => size_of::<CgroupEvent>() + cgroup.path.len(),
            Self::Listener(_) => size_of::<ListenerEvent>(),
            Self::Close(_) => size_of::<CloseEvent>(),
            Self::Connect(_) => size_of::<ConnectEvent>(),
            Self::Accept(_) | Self::Exit(_) | Self::Fork(_) => 0,
        }
    }
}

/// The kind in a record's header, for counting; `None` when the bytes are too few or the kind is unknown.
#[must_use]
pub fn kind_of(bytes: &[u8]) -> Option<RecordKind> {
    let (header, _) = RecordHeader::read_from_prefix(bytes).ok()?;
    RecordKind::from_code(header.kind)
}

/// Decodes one ring record into its boot-clock time and its event.
///
/// # Errors
/// When the record was not written by this version's probes; nothing of it is used then.
pub fn decode(bytes: &[u8]) -> Result<(u64, Event), DecodeError> {
    let (header, _) = RecordHeader::read_from_prefix(bytes)
        .map_err(|_| DecodeError::TooShort { found: bytes.len(), expected: size_of::<RecordHeader>() })?;
    if header.version != ABI_VERSION {
        return Err(DecodeError::Version { found: header.version });
    }
    let kind = RecordKind::from_code(header.kind).ok_or(DecodeError::Kind { code: header.kind })?;
    let len = header.len as usize;
    let whole = bytes.get(..len).ok_or(DecodeError::Length { found: len, expected: bytes.len() })?;
    let event = match kind {
        RecordKind::ListenerOpened => listener(fixed(whole)?, true),
        RecordKind::ListenerClosed => listener(fixed(whole)?, false),
        RecordKind::Accept => accept(fixed(whole)?),
        RecordKind::Close => close(fixed(whole)?)?,
        RecordKind::Connect => connect(fixed(whole)?)?,
        RecordKind::Exec => exec(whole)?,
        RecordKind::Exit => exit(fixed(whole)?),
        RecordKind::Fork => fork(fixed(whole)?),
        RecordKind::CgroupMkdir => cgroup(whole, true)?,
        RecordKind::CgroupRmdir => cgroup(whole, false)?,
    };
    Ok((header.boot_ns, event))
}

/// The struct of a kind without tail.
fn fixed<T: FromBytes>(whole: &[u8]) -> Result<T, DecodeError> {
    let (record, tail) = with_tail::<T>(whole)?;
    tail_is(size_of::<T>(), tail, 0)?;
    Ok(record)
}

fn with_tail<T: FromBytes>(whole: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    T::read_from_prefix(whole)
        .map_err(|_| DecodeError::TooShort { found: whole.len(), expected: size_of::<T>() })
}

fn tail_is(fixed: usize, tail: &[u8], expected: usize) -> Result<(), DecodeError> {
    if tail.len() == expected {
        Ok(())
    } else {
        Err(DecodeError::Length { found: fixed + tail.len(), expected: fixed + expected })
    }
}

fn bounded(field: &'static str, found: usize, most: usize) -> Result<usize, DecodeError> {
    if found <= most { Ok(found) } else { Err(DecodeError::Bound { field, found, most }) }
}

fn listener(raw: ListenerRecord, opened: bool) -> Event {
    Event::Listener(Box::new(ListenerEvent {
        opened,
        sock: raw.sock,
        cgroup: raw.cgroup.into(),
        task: raw.task.into(),
        task_cgroup: raw.task_cgroup.into(),
        ends: raw.ends.into(),
    }))
}

fn accept(raw: AcceptRecord) -> Event {
    Event::Accept(AcceptEvent { conn: raw.conn, cgroup: raw.cgroup.into(), ends: raw.ends.into() })
}

fn close(raw: CloseRecord) -> Result<Event, DecodeError> {
    let direction = match raw.direction {
        code if code == RawDirection::Inbound as u32 => Direction::Inbound,
        code if code == RawDirection::Outbound as u32 => Direction::Outbound,
        code => return Err(DecodeError::Code { field: "direction", code }),
    };
    Ok(Event::Close(Box::new(CloseEvent {
        conn: raw.conn,
        opened_ns: raw.opened_ns,
        bytes_in: raw.bytes_in,
        bytes_out: raw.bytes_out,
        cgroup: raw.cgroup.into(),
        task: (direction == Direction::Outbound).then(|| raw.task.into()),
        ends: raw.ends.into(),
        direction,
    })))
}

fn connect(raw: ConnectRecord) -> Result<Event, DecodeError> {
    let stage = match raw.stage {
        code if code == ConnectStage::Attempted as u32 => ConnectStage::Attempted,
        code if code == ConnectStage::Established as u32 => ConnectStage::Established,
        code if code == ConnectStage::Failed as u32 => ConnectStage::Failed,
        code => return Err(DecodeError::Code { field: "connect stage", code }),
    };
    Ok(Event::Connect(Box::new(ConnectEvent {
        conn: raw.conn,
        task: raw.task.into(),
        cgroup: raw.cgroup.into(),
        ends: raw.ends.into(),
        stage,
        error: raw.error,
    })))
}

fn exec(whole: &[u8]) -> Result<Event, DecodeError> {
    let (raw, tail) = with_tail::<ExecRecord>(whole)?;
    let cgroup_name = bounded("cgroup name", raw.cgroup_name_len.into(), CGROUP_NAME_MAX)?;
    let filename = bounded("file name", raw.filename_len.into(), FILENAME_MAX)?;
    let args = bounded("arguments", raw.args_len.into(), ARGS_MAX)?;
    bounded("ancestors", raw.ancestors_len.into(), ANCESTORS_MAX)?;
    tail_is(size_of::<ExecRecord>(), tail, cgroup_name + filename + args)?;
    let ancestor = |raw: RawAncestor| AncestorId {
        key: ProcessKey { pid: raw.pid, start_ns: raw.start_ns },
        comm: Comm(raw.comm),
    };
    Ok(Event::Exec(Box::new(ExecEvent {
        task: raw.task.into(),
        cgroup: raw.cgroup.into(),
        mnt_ns: raw.mnt_ns,
        ns_pid: raw.ns_pid,
        not_host_cgroup: raw.flags & exec_flags::NOT_HOST_CGROUP != 0,
        ancestors: raw.ancestors.map(ancestor),
        ancestors_len: raw.ancestors_len as u8,
        cgroup_name_len: raw.cgroup_name_len,
        filename_len: raw.filename_len,
        args_total: raw.args_total,
        args_unreadable: raw.flags & exec_flags::ARGS_UNREADABLE != 0,
        tail: tail.into(),
    })))
}

fn exit(raw: ExitRecord) -> Event {
    Event::Exit(ExitEvent { task: raw.task.into(), cgroup: raw.cgroup.into(), status: raw.exit_code })
}

fn fork(raw: ForkRecord) -> Event {
    let parent = ProcessKey { pid: raw.parent_pid, start_ns: raw.parent_start_ns };
    Event::Fork(ForkEvent { child: raw.child.into(), parent })
}

fn cgroup(whole: &[u8], made: bool) -> Result<Event, DecodeError> {
    let (raw, tail) = with_tail::<CgroupRecord>(whole)?;
    let path = bounded("cgroup path", raw.path_len as usize, CGROUP_PATH_MAX)?;
    tail_is(size_of::<CgroupRecord>(), tail, path)?;
    Ok(Event::Cgroup(Box::new(CgroupEvent {
        made,
        cgroup: raw.cgroup.into(),
        task: raw.task.into(),
        path: tail.into(),
        truncated: path == CGROUP_PATH_MAX,
    })))
}

#[cfg(test)]
mod tests;
