//! Ring records to events.
//!
//! Owns the only reading of the ABI structs in the agent: version, kind, length, tail lengths and codes are checked,
//! then values are copied out. Never panics, whatever the bytes; strings stay bytes until somebody wants them.

use sensor_common::ABI_VERSION;
use sensor_common::record::{
    ANCESTORS_MAX, ARGS_MAX, AcceptRecord, AcceptTaskRecord, CGROUP_NAME_MAX, CGROUP_PATH_MAX, CgroupRecord,
    CloseRecord, ConnectRecord, ConnectStage, Direction as RawDirection, ExecRecord, ExitRecord,
    FILE_PATH_MAX, FILENAME_MAX, FileOpenRecord, ForkRecord, HopRecord, ListenerRecord, PAYLOAD_MAX,
    PayloadRecord, RecordHeader, RecordKind, SocketConnectRecord, SocketPayloadRecord, exec_flags,
    payload_flags,
};
use thiserror::Error;
use zerocopy::FromBytes;

use crate::event::{
    AcceptEvent, AcceptTaskEvent, Actor, CgroupEvent, CloseEvent, ConnectEvent, Event, ExecEvent, ExitEvent,
    FileOpenEvent, FilePlace, ForkEvent, HopEvent, ListenerEvent, PayloadEvent, SocketConnectEvent,
    SocketPayloadEvent,
};
use crate::fact::{Direction, ExeFlags};
use crate::ids::ProcessKey;
use crate::namespaces::Namespaces;

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
        RecordKind::Accept => accept(fixed(whole)?, false),
        RecordKind::LateAccept => accept(fixed(whole)?, true),
        RecordKind::Close => close(fixed(whole)?)?,
        RecordKind::Connect => connect(fixed(whole)?)?,
        RecordKind::Exec => exec(whole)?,
        RecordKind::Exit => exit(fixed(whole)?),
        RecordKind::Fork => fork(fixed(whole)?),
        RecordKind::CgroupMkdir => cgroup(whole, true)?,
        RecordKind::CgroupRmdir => cgroup(whole, false)?,
        RecordKind::SocketConnect => socket_connect(fixed(whole)?),
        RecordKind::FileOpen => file_open(&fixed(whole)?)?,
        RecordKind::AcceptTask => accept_task(fixed(whole)?),
        RecordKind::Payload => payload(whole)?,
        RecordKind::SocketPayload => socket_payload(whole)?,
        RecordKind::Hop => hop(fixed(whole)?),
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

fn accept(raw: AcceptRecord, late: bool) -> Event {
    Event::Accept(AcceptEvent { conn: raw.conn, cgroup: raw.cgroup.into(), ends: raw.ends.into(), late })
}

fn close(raw: CloseRecord) -> Result<Event, DecodeError> {
    let direction = match raw.direction {
        code if code == RawDirection::Inbound as u32 => Direction::Inbound,
        code if code == RawDirection::Outbound as u32 => Direction::Outbound,
        code => return Err(DecodeError::Code { field: "direction", code }),
    };
    Ok(Event::Close(Box::new(CloseEvent {
        conn: raw.conn,
        opened_ns: (raw.opened_ns != 0).then_some(raw.opened_ns),
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

fn hop(raw: HopRecord) -> Event {
    Event::Hop(Box::new(HopEvent {
        conn: (raw.conn != 0).then_some(raw.conn),
        task: raw.task.into(),
        behind: raw.behind.into(),
    }))
}

fn exec(whole: &[u8]) -> Result<Event, DecodeError> {
    let (raw, tail) = with_tail::<ExecRecord>(whole)?;
    let cgroup_name = bounded("cgroup name", raw.cgroup_name_len.into(), CGROUP_NAME_MAX)?;
    let filename = bounded("file name", raw.filename_len.into(), FILENAME_MAX)?;
    let args = bounded("arguments", raw.args_len.into(), ARGS_MAX)?;
    bounded("ancestors", raw.ancestors_len.into(), ANCESTORS_MAX)?;
    tail_is(size_of::<ExecRecord>(), tail, cgroup_name + filename + args)?;
    Ok(Event::Exec(Box::new(ExecEvent {
        task: raw.task.into(),
        cgroup: raw.cgroup.into(),
        exe: raw.exe.into(),
        exe_changed_ns: raw.exe_changed_ns,
        exe_flags: ExeFlags {
            deleted: raw.flags & exec_flags::DELETED != 0,
            memfd: raw.flags & exec_flags::MEMFD != 0,
            script: raw.flags & exec_flags::SCRIPT != 0,
        },
        is_tool: raw.flags & exec_flags::TOOL != 0,
        namespaces: Namespaces { mnt: raw.mnt_ns, pid: raw.pid_ns, root: raw.root.into() },
        ns_pid: raw.ns_pid,
        not_host_cgroup: raw.flags & exec_flags::NOT_HOST_CGROUP != 0,
        ancestors: raw.ancestors.map(Into::into),
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

fn socket_connect(raw: SocketConnectRecord) -> Event {
    Event::SocketConnect(Box::new(SocketConnectEvent {
        task: raw.task.into(),
        cgroup: raw.cgroup.into(),
        socket: raw.socket.into(),
    }))
}

fn file_open(raw: &FileOpenRecord) -> Result<Event, DecodeError> {
    let len = bounded("path", raw.path_len as usize, FILE_PATH_MAX - 1)?;
    Ok(Event::FileOpen(Box::new(FileOpenEvent {
        actor: Actor::Task(raw.task.into(), raw.cgroup.into()),
        place: FilePlace::Key(raw.place.into()),
        path: raw.path[..len].into(),
    })))
}

fn accept_task(raw: AcceptTaskRecord) -> Event {
    let (task, cgroup) = (raw.task.into(), raw.cgroup.into());
    Event::AcceptTask(Box::new(AcceptTaskEvent { conn: raw.conn, task, cgroup }))
}

/// The tail is as long as the room that was reserved; the bytes at its end mean nothing.
fn captured_of(tail: &[u8], captured: u32, len: u32) -> Result<Box<[u8]>, DecodeError> {
    bounded("segment", tail.len(), PAYLOAD_MAX)?;
    let captured = bounded("captured bytes", captured as usize, tail.len().min(len as usize))?;
    Ok(tail[..captured].into())
}

fn socket_payload(whole: &[u8]) -> Result<Event, DecodeError> {
    let (raw, tail) = with_tail::<SocketPayloadRecord>(whole)?;
    Ok(Event::SocketPayload(Box::new(SocketPayloadEvent {
        conn: raw.conn,
        task: raw.task.into(),
        cgroup: raw.cgroup.into(),
        socket: raw.socket.into(),
        to_peer: raw.flags & payload_flags::TO_PEER != 0,
        turn: raw.flags & payload_flags::TURN != 0,
        offset: raw.offset,
        len: raw.len,
        bytes: captured_of(tail, raw.captured, raw.len)?,
    })))
}

fn payload(whole: &[u8]) -> Result<Event, DecodeError> {
    let (raw, tail) = with_tail::<PayloadRecord>(whole)?;
    Ok(Event::Payload(Box::new(PayloadEvent {
        conn: raw.conn,
        cgroup: raw.cgroup.into(),
        ends: raw.ends.into(),
        to_peer: raw.flags & payload_flags::TO_PEER != 0,
        turn: raw.flags & payload_flags::TURN != 0,
        offset: raw.offset,
        settled: raw.settled,
        len: raw.len,
        bytes: captured_of(tail, raw.captured, raw.len)?,
    })))
}

#[cfg(test)]
mod tests;
