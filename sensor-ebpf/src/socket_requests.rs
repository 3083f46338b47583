//! What is said on connections to the unix sockets of runtimes that speak HTTP, in both directions.
//!
//! Prototypes (Linux 6.18): the tracepoint `sk_data_ready(const struct sock *sk)`, and `sock_def_readable(struct sock *sk)`,
//! which is where the tracepoint is and what older kernels have instead. Both run once for each buffer that is put into the
//! queue of a socket, in the context of the task that writes. The receiver may take the buffer away before it is looked
//! at, and only the beginning of a large one lies in one piece: then the bytes are read from the memory of the writer, if
//! it is in a call that says where they are. What cannot be read either way is missing, and can be told from what is not.
//!
//! A connection is known by its socket on the listener's side, which has the path of the listener, and nothing of it is
//! kept but beside that socket.

use core::ptr;

use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::{btf_map, btf_tracepoint, fentry};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext};
use sensor_common::record::{
    FileId, PAYLOAD_MAX, RecordKind, Ring, SocketPayloadRecord, UNKNOWN_BYTES, payload_flags,
};
use sensor_common::settings::runtime_socket;

use crate::budgets::{bears_payload, hash_of_cgroup};
use crate::emit::{count_suppressed, emit, now};
use crate::hash::finish;
use crate::kernel::{
    Buffer, Direct, Sock, Unix, copy_from_kernel, copy_from_user, current_cgroup_id, opaque, with_current,
    written,
};
use crate::maps::{FRESH_TALKS, RUNTIME_SOCKETS};
use crate::payload::{CREATE, SMALL, Turn};

/// What is written at once and not longer than this is in one buffer, however small the sender has made the room for it
/// (`SOCK_MIN_SNDBUF`).
const WHOLE_MAX: u64 = 2048;

/// What was said on a connection, by its socket on the listener's side.
#[btf_map]
static TALKS: SkStorage<Talk> = SkStorage::new();

/// How far a connection has come.
#[repr(C)]
#[derive(Clone, Copy)]
struct Talk {
    turn: Turn,
    /// Hash of the cgroup that asked last: what is answered is at its expense.
    caller: u64,
    /// Bytes said to the server.
    to_server: u64,
    /// Bytes said to the client.
    to_client: u64,
}

/// Reports what is said, where another program reports connects.
#[btf_tracepoint(function = "sk_data_ready")]
pub fn unix_requests(ctx: BtfTracePointContext) -> i32 {
    woken(Sock::new(ctx.arg(0)));
    0
}

/// Like [`unix_requests`], where the tracepoint is missing.
#[fentry(function = "sock_def_readable")]
pub fn fentry_unix_requests(ctx: FEntryContext) -> i32 {
    woken(Sock::new(ctx.arg(0)));
    0
}

/// Something was put into the queue of a socket.
#[inline(always)]
pub fn woken(sock: Sock<Direct>) {
    if sock.is_unix_connected() {
        heard(sock);
    } else if sock.is_unix_listener() {
        begun(sock);
    }
}

/// The file that a socket is bound to, if that is a runtime's whose requests are read.
#[inline(always)]
fn served(unix: &Unix) -> Option<FileId> {
    let socket = unix.bound_file()?;
    // SAFETY: a u8 is read whole, whoever writes it.
    let flags = unsafe { RUNTIME_SOCKETS.get(socket) }.copied().unwrap_or(0);
    if flags & runtime_socket::REQUESTS != 0 { Some(socket) } else { None }
}

/// A connection waits for its listener: what is said on it is read from the first byte.
#[inline(always)]
fn begun(listener: Sock<Direct>) {
    if let Some(unix) = listener.unix()
        && served(&unix).is_some()
        && let Some(server) = unix.socket().last_received().and_then(|waiting| waiting.sock_key())
    {
        let _ = FRESH_TALKS.insert(server, 1, 0);
    }
}

#[inline(always)]
fn heard(receiver: Sock<Direct>) {
    let Some(unix) = receiver.unix() else { return };
    let receiver = unix.socket();
    if let Some(socket) = served(&unix) {
        said(receiver, receiver, socket, 0);
    } else if let Some(server) = unix.peer()
        && let Some(unix) = server.unix()
        && let Some(socket) = served(&unix)
    {
        said(receiver, server, socket, payload_flags::TO_PEER);
    }
}

/// The current task has said something to the receiver.
#[inline(always)]
fn said(receiver: Sock<Direct>, server: Sock<Direct>, socket: FileId, direction: u32) {
    let (Some(talk), Some(conn)) = (talk_of(server), server.number_it()) else { return };
    let cgroup = current_cgroup_id();
    let piece = Piece::of(receiver.last_received());
    // SAFETY: points to the value. Two tasks that write to the same connection at a time may lose an update: what they said
    // is then out of order, which is their own loss.
    let (offset, caller) = unsafe {
        let said = if direction == 0 { &raw mut (*talk).to_server } else { &raw mut (*talk).to_client };
        let offset = *said;
        *said = offset.wrapping_add(if piece.len == 0 { UNKNOWN_BYTES } else { piece.len });
        if direction == 0 {
            (*talk).caller = finish(hash_of_cgroup(&cgroup));
        }
        (offset, (*talk).caller)
    };
    if piece.wanted == 0 {
        return count_suppressed(Ring::Bulk, RecordKind::SocketPayload);
    }
    // SAFETY: as above.
    let turn = unsafe { &raw mut (*talk).turn };
    // SAFETY: as above.
    let Some((spent, flags)) = (unsafe { Turn::next(turn, direction) }) else {
        return count_suppressed(Ring::Bulk, RecordKind::SocketPayload);
    };
    let at = now();
    if !bears_payload(caller, piece.wanted, at) {
        return count_suppressed(Ring::Bulk, RecordKind::SocketPayload);
    }
    // SAFETY: as above.
    unsafe { Turn::note(turn, spent.wrapping_add(piece.wanted as u32)) };
    let frame = Frame { conn, offset, socket, flags, piece };
    if frame.piece.wanted <= SMALL as u64 {
        send::<SMALL>(&frame, at);
    } else {
        send::<PAYLOAD_MAX>(&frame, at);
    }
}

/// What is kept of a connection, entered if it is not there yet.
#[inline(always)]
fn talk_of(server: Sock<Direct>) -> Option<*mut Talk> {
    let get = |initial: *const Talk, flags: u64| {
        let map = (&raw const TALKS).cast_mut().cast();
        let initial = initial.cast_mut().cast();
        // SAFETY: the map outlives the program; the kernel has checked that `server` is a socket.
        let talk = unsafe { bpf_sk_storage_get(map, server.address().cast_mut(), initial, flags) };
        if talk.is_null() { None } else { Some(talk.cast::<Talk>()) }
    };
    get(ptr::null(), 0).or_else(|| {
        let is_fresh = FRESH_TALKS.remove(server.key()).is_ok();
        let begun = if is_fresh { 0 } else { UNKNOWN_BYTES };
        get(&Talk { turn: Turn::NONE, caller: 0, to_server: begun, to_client: begun }, CREATE)
    })
}

/// What was written at once.
struct Piece {
    /// Bytes of it; 0 when that is not known.
    len: u64,
    /// How many of them are to be copied; 0 when they cannot be.
    wanted: u64,
    /// Where these lie.
    at: u64,
    /// In the memory of the current process, else in the kernel's.
    is_users: bool,
}

impl Piece {
    #[inline(always)]
    fn of(buffer: Option<Buffer>) -> Self {
        let Some(buffer) = buffer else {
            // Taken already.
            return match written().filter(|(_, len)| *len <= WHOLE_MAX) {
                Some((at, len)) => Self { len, wanted: len, at, is_users: true },
                None => Self { len: 0, wanted: 0, at: 0, is_users: false },
            };
        };
        let (len, linear) = (u64::from(buffer.len()), u64::from(buffer.linear()));
        let wanted = len.min(PAYLOAD_MAX as u64);
        if linear >= wanted {
            return Self { len, wanted, at: buffer.data(), is_users: false };
        }
        match written().filter(|(_, written)| *written == len) {
            Some((at, _)) => Self { len, wanted, at, is_users: true },
            None => Self { len, wanted: 0, at: 0, is_users: false },
        }
    }
}

/// What a record says beside the bytes, and where these are.
struct Frame {
    conn: u64,
    offset: u64,
    socket: FileId,
    flags: u32,
    piece: Piece,
}

/// A record with room for so many bytes.
#[repr(C)]
struct Captured<const ROOM: usize> {
    record: SocketPayloadRecord,
    bytes: [u8; ROOM],
}

/// Sends a record with room for `ROOM` bytes, a power of two. Apart from its callers, and with a result because without one
/// the kernel may find a pointer in the register for it.
#[inline(never)]
fn send<const ROOM: usize>(frame: &Frame, at: u64) -> i32 {
    emit::<Captured<ROOM>>(Ring::Bulk, RecordKind::SocketPayload, at, |captured| {
        // SAFETY: `captured` points to room for the record and its bytes; masked, the length is one to `ROOM`.
        unsafe {
            let len = (opaque(frame.piece.wanted.wrapping_sub(1)) & (ROOM as u64 - 1)) + 1;
            let to: *mut u8 = (&raw mut (*captured).bytes).cast();
            let is_copied = if frame.piece.is_users {
                copy_from_user(to, len as u32, frame.piece.at)
            } else {
                copy_from_kernel(to, len as u32, frame.piece.at)
            };
            let record = &raw mut (*captured).record;
            (*record).conn = frame.conn;
            (*record).offset = frame.offset;
            (*record).socket = frame.socket;
            (*record).len = frame.piece.len as u32;
            (*record).captured = if is_copied { len as u32 } else { 0 };
            (*record).flags = frame.flags;
            (*record).reserved = 0;
            (*record).cgroup = current_cgroup_id();
            with_current!(|task| task.identify(&raw mut (*record).task));
        }
    });
    0
}
