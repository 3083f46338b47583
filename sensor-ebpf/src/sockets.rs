//! `inet_sock_set_state`: listeners, accepts, connects and their ends.
//!
//! Prototype (Linux 6.18): `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`.
//! The kernel calls it before it stores the new state. Direction comes from the transition alone: SYN_RECV ->
//! ESTABLISHED is a connection somebody made to us, SYN_SENT -> ESTABLISHED one that we made. The first happens in
//! softirq, where the current task is whoever was interrupted: identity is taken from the socket there, which has the
//! cgroup of its listener.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;
use sensor_common::counters::Event;
use sensor_common::record::{
    AcceptRecord, CgroupId, CloseRecord, ConnectRecord, ConnectStage, Direction, ListenerRecord, RecordKind,
    Ring, TaskId,
};
use sensor_common::settings::{cgroup_class, port_flags};

use crate::budgets::{bears_connect, ring_for};
use crate::connections::{
    Accepted, Ended, Outbound, begin_inbound, begin_outbound, end_inbound, end_outbound, find_outbound,
    inbound_id, may_be_outbound, new_id, outbound_state, withhold_inbound,
};
use crate::emit::{count_event, count_suppressed, emit, now};
use crate::flood::{Account, Budget, Count, PeerKey};
use crate::hops;
use crate::kernel::{Access, Direct, Sock, Task, Tcp, current_cgroup_id, with_current};
use crate::maps::{RUNTIME_PROCESSES, class_of, flags_of, reports_listener};
use crate::withheld::{Mark, fill_accept, resume};

const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const SYN_RECV: i32 = 3;
const CLOSE: i32 = 7;
const LISTEN: i32 = 10;

/// Reports what a change of state means.
///
/// Nearly all sockets of a node are of no interest. What tells them apart cheaply is done here, the rest apart from it.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock::<Direct>::new(ctx.arg(0));
    match (ctx.arg(1), ctx.arg(2)) {
        (LISTEN, CLOSE) => on_listener_closed(ctx.as_ptr()),
        (_, CLOSE) => on_closed(ctx.as_ptr()),
        (CLOSE, LISTEN) => on_listener_opened(ctx.as_ptr()),
        (CLOSE, SYN_SENT) => on_connecting(ctx.as_ptr()),
        // To SYN_RECV when both sides have sent a SYN at the same time: the peer has answered.
        (SYN_SENT, ESTABLISHED | SYN_RECV) if may_be_outbound(sock) || is_watched(sock) => {
            on_connected(ctx.as_ptr())
        }
        // Usually to ESTABLISHED; to FIN_WAIT1 when a program accepted early (TCP Fast Open) and has closed already.
        (SYN_RECV, _) if is_watched(sock) => on_accepted(ctx.as_ptr()),
        _ => 0,
    }
}

/// Whether the local port is a watched one.
#[inline(always)]
fn is_watched(sock: Sock<Direct>) -> bool {
    flags_of(sock.local_port()) & port_flags::WATCHED != 0
}

/// Defines functions that the compiler leaves apart, so that transitions without a meaning to us do not pay for the
/// registers that the others save.
macro_rules! transitions {
    ($($name:ident => |$sock:ident, $ctx:ident| $body:expr;)*) => {
        $(
            #[inline(never)]
            fn $name(ctx: *mut c_void) -> i32 {
                let $ctx = BtfTracePointContext::new(ctx);
                let $sock = Sock::<Direct>::new($ctx.arg(0));
                if let Err(event) = $body {
                    count_event(event);
                    debug!(&$ctx, "{}: event {}", stringify!($name), event as u32);
                }
                0
            }
        )*
    };
}

transitions! {
    on_listener_opened => |sock, ctx| listener(sock, RecordKind::ListenerOpened);
    on_listener_closed => |sock, ctx| listener(sock, RecordKind::ListenerClosed);
    on_connecting => |sock, ctx| connecting(sock);
    on_connected => |sock, ctx| connected(sock);
    on_accepted => |sock, ctx| accepted(sock);
    on_closed => |sock, ctx| closed(sock, ctx.arg(1));
}

#[inline(always)]
fn listener(sock: Sock<Direct>, kind: RecordKind) -> Result<(), Event> {
    let Some(sock) = sock.as_tcp() else { return Ok(()) };
    let port = sock.local_port();
    if !with_current!(|task| reports_listener(port, task.tgid())) {
        return Ok(());
    }
    let at = now();
    let ring = ring_for(&current_cgroup_id(), at);
    emit::<ListenerRecord>(ring, kind, at, |record| {
        // SAFETY: `record` points to room for the record.
        unsafe {
            (*record).sock = sock.key();
            (*record).cgroup = sock.cgroup_id();
            sock.ends(port, &raw mut (*record).ends);
            with_current!(|task| task.identify(&raw mut (*record).task));
            (*record).task_cgroup = current_cgroup_id();
        }
    });
    Ok(())
}

#[inline(always)]
fn accepted(sock: Sock<Direct>) -> Result<(), Event> {
    let Some(sock) = sock.as_tcp() else { return Ok(()) };
    // A program that holds a connection before it is established has accepted it early (TCP Fast Open), or has made it
    // itself: then it was reported when the other side's SYN met ours.
    if sock.is_held() && find_outbound(sock).is_some() {
        return Ok(());
    }
    let at = now();
    let Some(ring) = ring_for_accept(sock, at) else {
        count_suppressed(Ring::Management, RecordKind::Accept);
        return Ok(());
    };
    let conn = inbound_id(sock);
    emit::<AcceptRecord>(ring, RecordKind::Accept, at, |record| {
        fill_accept(record, sock, sock.local_port(), conn);
    });
    begin_inbound(sock, conn, at, ring)
}

/// The ring for an accept; `None` when flood control withholds it: the connection is marked then.
#[inline(always)]
fn ring_for_accept(sock: Sock<Direct>, at: u64) -> Option<Ring> {
    let key = PeerKey::new(sock.peer_addr(), sock.netns(), sock.local_port());
    // What cannot be charged must not displace what can.
    let Some(account) = Account::of(&key, at) else { return Some(Ring::Bulk) };
    account.count(Count::Accept);
    if let Some(ring) = account.charge(Budget::Accepts, at) {
        return Some(ring);
    }
    if has_request(sock, &key) {
        return Some(account.ring_for_request(at));
    }
    // A request on a connection that cannot be marked would go unseen: it is reported.
    if !withhold_inbound(sock, at) {
        return Some(Ring::Bulk);
    }
    account.note_local(sock.local_addr());
    account.count(Count::Withheld);
    None
}

/// Whether data came before the connection was complete (TCP Fast Open), or come with the packet that completes it.
#[inline(always)]
fn has_request(sock: Sock<Direct>, key: &PeerKey) -> bool {
    key.has_early_data(sock.peer_port()) || sock.tcp().is_some_and(|tcp| tcp.bytes_in() > 0)
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
    let cgroup = current_cgroup_id();
    let class = class_of(&cgroup);
    let is_runtime = RUNTIME_PROCESSES.get_ptr(task.tgid()).is_some();
    let is_ordinary = class == cgroup_class::HOST && !is_runtime;
    let flags = flags_of(sock.peer_port());
    let is_canary = is_ordinary && flags & port_flags::CANARY != 0;
    // Whoever is nothing to us may connect to a watched port for somebody else.
    let may_pass_on =
        flags & port_flags::WATCHED != 0 && !is_canary && !is_runtime && class != cgroup_class::CONTAINER;
    let behind = if may_pass_on { hops::behind() } else { None };
    if is_ordinary && !is_canary && behind.is_none() {
        return Ok(());
    }
    let Some(sock) = sock.as_tcp() else { return Ok(()) };
    let at = now();
    let conn = new_id(Direction::Outbound);
    let port = lateral_port(sock);
    let is_borne = is_canary || bears_connect(&cgroup, sock.peer_addr(), port, ConnectStage::Attempted, at);
    if let Some(behind) = behind {
        if is_borne {
            hops::report(behind, task, cgroup, conn, at);
        } else {
            count_suppressed(Ring::Bulk, RecordKind::Hop);
            if is_ordinary {
                return Ok(());
            }
        }
    }
    let mut id = MaybeUninit::<TaskId>::uninit();
    task.identify(id.as_mut_ptr());
    // SAFETY: `identify` writes every member.
    let task = unsafe { id.assume_init() };
    let state = if is_canary {
        outbound_state::FREE
    } else if is_borne {
        0
    } else {
        outbound_state::WITHHELD
    };
    let connection = Outbound { conn, since_ns: at, state, task, cgroup };
    let tracked = begin_outbound(sock, &connection);
    // A connect that cannot be tracked is reported now: its result will not be known.
    if tracked.is_err() || port != 0 {
        report_connect(sock, &raw const connection, at, ConnectStage::Attempted, 0);
    }
    tracked
}

/// The port that is connected to, if it is a lateral one; 0 for all others.
#[inline(always)]
fn lateral_port(sock: Sock<Direct>) -> u16 {
    let port = sock.peer_port();
    if flags_of(port) & port_flags::LATERAL != 0 { port } else { 0 }
}

#[inline(always)]
fn connected(sock: Sock<Direct>) -> Result<(), Event> {
    // What comes on it is no request of a peer's.
    if Sock::has_number() && is_watched(sock) && sock.is_tcp() {
        Mark::set_outbound(sock);
    }
    match find_outbound(sock) {
        Some(connection) => sock.as_tcp().map_or(Ok(()), |sock| established(sock, connection)),
        None => Ok(()),
    }
}

#[inline(always)]
fn established(sock: Sock<Direct>, connection: *mut Outbound) -> Result<(), Event> {
    let at = now();
    // SAFETY: `connection` points into the map; the kernel holds the lock of the socket it belongs to.
    unsafe {
        let free = (*connection).state & outbound_state::FREE;
        let is_borne = free != 0
            || bears_connect(
                &(*connection).cgroup,
                sock.peer_addr(),
                lateral_port(sock),
                ConnectStage::Established,
                at,
            );
        let withheld = if is_borne { 0 } else { outbound_state::WITHHELD };
        (*connection).state = outbound_state::ESTABLISHED | withheld | free;
        report_connect(sock, connection, at, ConnectStage::Established, 0);
        (*connection).since_ns = at;
    }
    Ok(())
}

/// Reports a stage of an outbound connect, or counts it if it is withheld; `connection` must still say when it was tried.
#[inline(always)]
fn report_connect(sock: Sock<Direct>, connection: *const Outbound, at: u64, stage: ConnectStage, error: u32) {
    // SAFETY: `connection` points to a connection.
    if unsafe { (*connection).state } & outbound_state::WITHHELD != 0 {
        return count_suppressed(Ring::Bulk, RecordKind::Connect);
    }
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
    let Some(tcp) = sock.tcp() else { return Ok(()) };
    let sock = tcp.socket();
    if let Some(connection) = find_outbound(sock) {
        // SAFETY: `connection` points into the map.
        let connection = unsafe { &*connection };
        if connection.state & outbound_state::ESTABLISHED == 0 {
            report_connect(sock, connection, now(), ConnectStage::Failed, sock.error());
        } else if connection.state & outbound_state::WITHHELD != 0 {
            count_suppressed(Ring::Bulk, RecordKind::Close);
        } else {
            let &Outbound { conn, since_ns, ref task, cgroup, .. } = connection;
            let opened = Accepted { conn, opened_ns: since_ns, ring: Ring::Bulk as u64 };
            report_close(sock, &tcp, Direction::Outbound, opened, task, cgroup);
        }
        end_outbound(sock, connection);
        return Ok(());
    }
    // The kernel has released the port by now; this is where it came from.
    let flags = flags_of(tcp.local_port());
    if flags & port_flags::TRACKED == 0 || old == SYN_SENT || old == SYN_RECV {
        return Ok(());
    }
    let opened = match end_inbound(sock) {
        Ended::Reported(opened) => opened,
        Ended::Unknown if flags & port_flags::WATCHED != 0 => return Err(Event::UnknownClose),
        Ended::Unknown => return Ok(()),
        Ended::Withheld(opened_ns) => {
            let conn = inbound_id(sock);
            // Whoever has sent a request is reported, at the latest now.
            if tcp.bytes_in() == 0 {
                count_suppressed(Ring::Management, RecordKind::Close);
                return Ok(());
            }
            let ring = resume(sock, tcp.local_port(), conn, opened_ns, now());
            Accepted { conn, opened_ns, ring: ring as u64 }
        }
    };
    let nobody = TaskId { pid: 0, uid: 0, start_ns: 0, comm: [0; 16] };
    report_close(sock, &tcp, Direction::Inbound, opened, &nobody, sock.cgroup_id());
    Ok(())
}

#[inline(always)]
fn report_close(
    sock: Sock<Direct>,
    tcp: &Tcp,
    direction: Direction,
    opened: Accepted,
    task: &TaskId,
    cgroup: CgroupId,
) {
    let ring = if opened.ring == Ring::Bulk as u64 { Ring::Bulk } else { Ring::Management };
    emit::<CloseRecord>(ring, RecordKind::Close, now(), |record| {
        // SAFETY: `record` points to room for the record.
        unsafe {
            (*record).conn = opened.conn;
            (*record).opened_ns = opened.opened_ns;
            (*record).bytes_in = tcp.bytes_in();
            (*record).bytes_out = tcp.bytes_out();
            (*record).task = *task;
            (*record).cgroup = cgroup;
            sock.ends(tcp.local_port(), &raw mut (*record).ends);
            (*record).direction = direction as u32;
            (*record).reserved = 0;
        }
    });
}
