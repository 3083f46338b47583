//! `inet_sock_set_state`: listeners, accepts, connects and their ends.
//!
//! Prototype (Linux 6.18): `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`.
//! The kernel calls it before it stores the new state. Direction comes from the transition alone: SYN_RECV ->
//! ESTABLISHED is a connection somebody made to us, SYN_SENT -> ESTABLISHED one that we made. The first happens in
//! softirq, where the current task is whoever was interrupted: identity is taken from the socket there, which has the
//! cgroup of its listener.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;
use core::mem::MaybeUninit;
use sensor_common::counters::Event;
use sensor_common::record::{
    AcceptRecord, CgroupId, CloseRecord, ConnectRecord, ConnectStage, Direction, ListenerRecord, RecordKind, Ring,
    TaskId,
};
use sensor_common::settings::{cgroup_class, port_flags};

use crate::emit::{count_event, emit, now};
use crate::kernel::{Access, Direct, Sock, Task, with_current};
use crate::maps::{CONNECTION_IDS, CONNECTIONS, Connection, RUNTIME_PROCESSES, class_of, flags_of, stage};

const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const SYN_RECV: i32 = 3;
const CLOSE: i32 = 7;
const LISTEN: i32 = 10;

/// Reports what a change of state means.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    if let Err(event) = state_changed(&ctx) {
        count_event(event);
        debug!(&ctx, "inet_sock_set_state: event {}", event as u32);
    }
    0
}

#[inline(always)]
fn state_changed(ctx: &BtfTracePointContext) -> Result<(), Event> {
    let old: i32 = ctx.arg(1);
    let new: i32 = ctx.arg(2);
    let sock = Sock::<Direct>::new(ctx.arg(0));
    match (old, new) {
        (LISTEN, CLOSE) => listener(sock, RecordKind::ListenerClosed),
        (_, CLOSE) => closed(sock, old),
        (CLOSE, LISTEN) => listener(sock, RecordKind::ListenerOpened),
        (CLOSE, SYN_SENT) => connecting(sock),
        (SYN_SENT, ESTABLISHED) => connected(sock),
        // Usually to ESTABLISHED; to FIN_WAIT1 when a program accepted early (TCP Fast Open) and has closed already.
        (SYN_RECV, _) => accepted(sock),
        _ => Ok(()),
    }
}

/// Returns a number that no other connection of this run has.
#[inline(always)]
fn new_id(direction: Direction) -> u64 {
    // SAFETY: the helper has no preconditions.
    let cpu = u64::from(unsafe { bpf_get_smp_processor_id() });
    let Some(ids) = CONNECTION_IDS.get_ptr_mut(0) else { return 0 };
    // SAFETY: the array has an element per direction; programs that use the same one do not interrupt each other.
    let id = unsafe {
        let next = ids.cast::<u64>().add(direction as usize);
        *next += 1;
        *next
    };
    cpu << 48 | (direction as u64) << 47 | id
}

#[inline(always)]
fn listener(sock: Sock<Direct>, kind: RecordKind) -> Result<(), Event> {
    let port = sock.local_port();
    if !sock.is_tcp() || flags_of(port) & port_flags::WATCHED == 0 {
        return Ok(());
    }
    emit::<ListenerRecord>(Ring::Management, kind, now(), |record| {
        // SAFETY: `record` points to room for the record.
        unsafe {
            (*record).sock = sock.key();
            (*record).cgroup = sock.cgroup_id();
            sock.ends(port, &raw mut (*record).ends);
            with_current!(|task| {
                task.identify(&raw mut (*record).task);
                (*record).task_cgroup = task.cgroup_id();
            });
        }
    });
    Ok(())
}

#[inline(always)]
fn accepted(sock: Sock<Direct>) -> Result<(), Event> {
    if !sock.is_tcp() {
        return Ok(());
    }
    // A connection that a program holds before it is established is one it accepted early, or its own connect that met
    // a connect of the other side.
    if sock.is_held()
        && let Some(connection) = CONNECTIONS.get_ptr_mut(sock.key())
    {
        return established(sock, connection);
    }
    let port = sock.local_port();
    if flags_of(port) & port_flags::WATCHED == 0 {
        return Ok(());
    }
    let at = now();
    let conn = new_id(Direction::Inbound);
    emit::<AcceptRecord>(Ring::Management, RecordKind::Accept, at, |record| {
        // SAFETY: `record` points to room for the record.
        unsafe {
            (*record).conn = conn;
            (*record).cgroup = sock.cgroup_id();
            sock.ends(port, &raw mut (*record).ends);
        }
    });
    let nobody = TaskId { pid: 0, uid: 0, start_ns: 0, comm: [0; 16] };
    let cgroup = CgroupId { id: 0, hierarchy: 0, reserved: 0 };
    track(sock, &Connection { conn, since_ns: at, stage: stage::INBOUND, task: nobody, cgroup })
}

#[inline(always)]
fn track(sock: Sock<Direct>, connection: &Connection) -> Result<(), Event> {
    CONNECTIONS.insert(sock.key(), connection, 0).map_err(|_| Event::UntrackedConnection)
}

#[inline(always)]
fn connecting(sock: Sock<Direct>) -> Result<(), Event> {
    if !sock.is_tcp() {
        return Ok(());
    }
    with_current!(|task| connecting_as(sock, task))
}

#[inline(always)]
fn connecting_as<A: Access>(sock: Sock<Direct>, task: Task<A>) -> Result<(), Event> {
    let cgroup = task.cgroup_id();
    if class_of(&cgroup) == cgroup_class::HOST && RUNTIME_PROCESSES.get_ptr(task.tgid()).is_none() {
        return Ok(());
    }
    let at = now();
    let mut id = MaybeUninit::<TaskId>::uninit();
    task.identify(id.as_mut_ptr());
    // SAFETY: `identify` writes every member.
    let task = unsafe { id.assume_init() };
    let connection =
        Connection { conn: new_id(Direction::Outbound), since_ns: at, stage: stage::PENDING, task, cgroup };
    let tracked = track(sock, &connection);
    // A connect that cannot be tracked is reported now: its result will not be known.
    if tracked.is_err() || flags_of(sock.peer_port()) & port_flags::LATERAL != 0 {
        report_connect(sock, &raw const connection, at, ConnectStage::Attempted, 0);
    }
    tracked
}

#[inline(always)]
fn connected(sock: Sock<Direct>) -> Result<(), Event> {
    match CONNECTIONS.get_ptr_mut(sock.key()) {
        Some(connection) if sock.is_tcp() => established(sock, connection),
        _ => Ok(()),
    }
}

#[inline(always)]
fn established(sock: Sock<Direct>, connection: *mut Connection) -> Result<(), Event> {
    let at = now();
    report_connect(sock, connection, at, ConnectStage::Established, 0);
    // SAFETY: `connection` points into the map; the kernel holds the lock of the socket it belongs to.
    unsafe {
        (*connection).stage = stage::OUTBOUND;
        (*connection).since_ns = at;
    }
    Ok(())
}

/// Reports a stage of an outbound connect; `connection` must still say when it was tried.
#[inline(always)]
fn report_connect(sock: Sock<Direct>, connection: *const Connection, at: u64, stage: ConnectStage, error: u32) {
    emit::<ConnectRecord>(Ring::Bulk, RecordKind::Connect, at, |record| {
        // SAFETY: `record` points to room for the record, `connection` to a connection.
        unsafe {
            (*record).conn = (*connection).conn;
            (*record).started_ns = (*connection).since_ns;
            (*record).task = (*connection).task;
            (*record).cgroup = (*connection).cgroup;
            sock.ends(sock.local_port(), &raw mut (*record).ends);
            (*record).stage = stage as u32;
            (*record).error = error;
        }
    });
}

#[inline(always)]
fn closed(sock: Sock<Direct>, old: i32) -> Result<(), Event> {
    // By socket and not by port: the kernel has released the port by now.
    let connection = CONNECTIONS.get_ptr_mut(sock.key());
    let Some(tcp) = sock.tcp() else { return Ok(()) };
    let Some(connection) = connection else {
        let had_opened = old != SYN_SENT && old != SYN_RECV;
        let watched = flags_of(tcp.local_port()) & port_flags::WATCHED != 0;
        return if had_opened && watched { Err(Event::UnknownClose) } else { Ok(()) };
    };
    let at = now();
    // SAFETY: `connection` points into the map.
    let stage = unsafe { (*connection).stage };
    if stage == stage::PENDING {
        report_connect(sock, connection, at, ConnectStage::Failed, sock.error());
    } else {
        let (ring, direction) = if stage == stage::INBOUND {
            (Ring::Management, Direction::Inbound)
        } else {
            (Ring::Bulk, Direction::Outbound)
        };
        emit::<CloseRecord>(ring, RecordKind::Close, at, |record| {
            // SAFETY: `record` points to room for the record, `connection` into the map.
            unsafe {
                (*record).conn = (*connection).conn;
                (*record).opened_ns = (*connection).since_ns;
                (*record).bytes_in = tcp.bytes_in();
                (*record).bytes_out = tcp.bytes_out();
                (*record).task = (*connection).task;
                (*record).cgroup = if stage == stage::INBOUND { sock.cgroup_id() } else { (*connection).cgroup };
                sock.ends(tcp.local_port(), &raw mut (*record).ends);
                (*record).direction = direction as u32;
                (*record).reserved = 0;
            }
        });
    }
    // Fails only when somebody else has removed it, and nobody else removes.
    let _ = CONNECTIONS.remove(sock.key());
    Ok(())
}
