//! What is said on plaintext ports: the beginning of each message, in both directions.
//!
//! A message ends where the direction turns. Of each so many bytes are captured, of a peer so many a second: whoever sends
//! more is not read to the end, and displaces nobody else's records. What is not captured can be told from the numbers of
//! the bytes that are.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::{bpf_sk_storage_get, bpf_skb_load_bytes};
use aya_ebpf::macros::{btf_map, cgroup_skb};
use aya_ebpf::programs::SkBuffContext;
use sensor_common::record::{PAYLOAD_MAX, PayloadRecord, RecordKind, Ring, payload_flags};
use sensor_common::settings::port_flags;

use crate::budgets::bears_payload;
use crate::connections::inbound;
use crate::emit::{count_suppressed, emit, now};
use crate::flood::PeerKey;
use crate::kernel::{Direct, Sock, opaque};
use crate::maps::flags_of;
use crate::packets::{PASS, Segment, socket_of};

/// Most bytes captured of a request: a body that asks for a container, with room for padding.
const REQUEST_MAX: u32 = 16 << 10;
/// Most bytes captured of an answer: what an inspected container or a short list of them takes, so that its end is found.
const ANSWER_MAX: u32 = 16 << 10;
/// Bytes that fit into a small record; most segments do.
pub const SMALL: usize = 512;

/// How much of the present message was captured, by socket. The kernel bounds it by the number of sockets and frees it
/// with the socket.
#[btf_map]
static TURNS: SkStorage<Turn> = SkStorage::new();

/// A message.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Turn {
    /// [`payload_flags::TO_PEER`] or 0; [`NOBODY`] before the first.
    direction: u32,
    /// Bytes captured of it.
    captured: u32,
}

impl Turn {
    /// Before the first message.
    pub const NONE: Self = Self { direction: NOBODY, captured: 0 };

    /// Takes the next piece, which begins a message if the direction turns. Returns the bytes captured of the message so
    /// far and the flags of the piece, or `None` when the message has had its share.
    ///
    /// # Safety
    /// `turn` must point to one. Both directions at a time may write it; then a message is captured to a greater or lesser
    /// length than its budget.
    #[inline(always)]
    pub unsafe fn next(turn: *mut Self, direction: u32) -> Option<(u32, u32)> {
        let mut flags = direction;
        // SAFETY: see above.
        let spent = unsafe {
            if (*turn).direction != direction {
                *turn = Self { direction, captured: 0 };
                flags |= payload_flags::TURN;
            }
            (*turn).captured
        };
        let most = if direction == 0 { REQUEST_MAX } else { ANSWER_MAX };
        if spent < most { Some((spent, flags)) } else { None }
    }

    /// Notes how much of the message was captured.
    ///
    /// # Safety
    /// As for [`Self::next`].
    #[inline(always)]
    pub unsafe fn note(turn: *mut Self, captured: u32) {
        // SAFETY: see above.
        unsafe { (*turn).captured = captured };
    }
}

/// Nobody has said anything yet.
const NOBODY: u32 = u32::MAX;
/// `BPF_SK_STORAGE_GET_F_CREATE`.
pub const CREATE: u64 = 1;

/// From where to where a segment goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the listener's side.
    ToListener,
    /// To the peer.
    ToPeer,
}

/// Looks at a packet on its way from a socket. It always lets it pass.
#[cgroup_skb(egress)]
pub fn packets_out(ctx: SkBuffContext) -> i32 {
    let Some((sk, port)) = socket_of(&ctx) else { return PASS };
    if flags_of(port) & port_flags::PLAINTEXT != 0
        && let Some(sock) = Sock::<Direct>::of_packet(sk)
        && !sock.is_listener()
        && let Some(segment) = Segment::read(&ctx)
    {
        capture(&ctx, sk, sock, port, &segment, Way::ToPeer);
    }
    PASS
}

/// Captures the data of the packet that completes a connection, which has no number yet.
#[inline(always)]
pub fn capture_early(
    ctx: &SkBuffContext,
    listener: Sock<Direct>,
    port: u16,
    key: &PeerKey,
    segment: &Segment,
) {
    let (wanted, at) = (u64::from(segment.payload).min(PAYLOAD_MAX as u64), now());
    if !bears_payload(key.hash(), wanted, at) {
        return count_suppressed(Ring::Bulk, RecordKind::Payload);
    }
    let flags = payload_flags::TURN;
    Frame { sock: listener, port, conn: 0, offset: 0, settled: 0, flags, segment }.send(ctx, wanted, at);
}

/// Captures a segment of a connection.
#[inline(always)]
pub fn capture(
    ctx: &SkBuffContext,
    sk: *mut bpf_sock,
    sock: Sock<Direct>,
    port: u16,
    segment: &Segment,
    way: Way,
) {
    if segment.payload == 0 {
        return;
    }
    let (Some(connection), Some(tcp)) = (inbound(sock), sock.tcp()) else { return };
    let (offset, settled) = match way {
        Way::ToListener => tcp.place_in(segment.sequence),
        Way::ToPeer => tcp.place_out(segment.sequence),
    };
    // Nothing new.
    if offset.wrapping_add(u64::from(segment.payload)) <= settled {
        return;
    }
    let Some(turn) = turn_of(sk.cast_const().cast()) else { return };
    let direction = match way {
        Way::ToListener => 0,
        Way::ToPeer => payload_flags::TO_PEER,
    };
    // SAFETY: points to the value.
    let Some((spent, flags)) = (unsafe { Turn::next(turn, direction) }) else {
        return count_suppressed(Ring::Bulk, RecordKind::Payload);
    };
    let at = now();
    let wanted = u64::from(segment.payload).min(PAYLOAD_MAX as u64);
    let key = PeerKey::new(sock.peer_addr(), sock.netns(), port);
    if !bears_payload(key.hash(), wanted, at) {
        return count_suppressed(Ring::Bulk, RecordKind::Payload);
    }
    // SAFETY: as above.
    unsafe { Turn::note(turn, spent + wanted as u32) };
    let frame = Frame { sock, port, conn: connection.conn, offset, settled, flags, segment };
    frame.send(ctx, wanted, at);
}

#[inline(always)]
fn turn_of(sock: *const c_void) -> Option<*mut Turn> {
    let initial = Turn::NONE;
    let map = (&raw const TURNS).cast_mut().cast();
    // SAFETY: the map outlives the program; the kernel has checked that `sock` is a socket.
    let turn =
        unsafe { bpf_sk_storage_get(map, sock.cast_mut(), (&raw const initial).cast_mut().cast(), CREATE) };
    if turn.is_null() { None } else { Some(turn.cast()) }
}

/// A record with room for so many bytes.
#[repr(C)]
struct Captured<const ROOM: usize> {
    record: PayloadRecord,
    bytes: [u8; ROOM],
}

/// What a record says beside the bytes.
struct Frame<'a> {
    sock: Sock<Direct>,
    port: u16,
    conn: u64,
    offset: u64,
    settled: u64,
    flags: u32,
    segment: &'a Segment,
}

impl Frame<'_> {
    /// Sends a record with the first bytes of the segment, at least one.
    #[inline(always)]
    fn send(&self, ctx: &SkBuffContext, wanted: u64, at: u64) {
        if wanted <= SMALL as u64 {
            send::<SMALL>(self, ctx, wanted, at);
        } else {
            send::<PAYLOAD_MAX>(self, ctx, wanted, at);
        }
    }
}

/// Sends a record with room for `ROOM` bytes, a power of two. Apart from its callers, and with a result because without one
/// the kernel may find a pointer in the register for it.
#[inline(never)]
fn send<const ROOM: usize>(frame: &Frame<'_>, ctx: &SkBuffContext, wanted: u64, at: u64) -> i32 {
    emit::<Captured<ROOM>>(Ring::Bulk, RecordKind::Payload, at, |captured| {
        // SAFETY: `captured` points to room for the record and its bytes; masked, the length is one to `ROOM`.
        unsafe {
            let len = (opaque(wanted.wrapping_sub(1)) & (ROOM as u64 - 1)) + 1;
            let to: *mut c_void = (&raw mut (*captured).bytes).cast();
            let result = bpf_skb_load_bytes(ctx.as_ptr(), frame.segment.start, to, len as u32);
            let record = &raw mut (*captured).record;
            (*record).conn = frame.conn;
            (*record).offset = frame.offset;
            (*record).settled = frame.settled;
            (*record).cgroup = frame.sock.cgroup_id();
            frame.sock.ends(frame.port, &raw mut (*record).ends);
            if frame.conn == 0 {
                // A listener has no peer.
                ptr::write((&raw mut (*record).ends.local_addr).cast(), frame.segment.local);
                ptr::write((&raw mut (*record).ends.peer_addr).cast(), frame.segment.peer);
                (*record).ends.peer_port = frame.segment.peer_port;
            }
            (*record).len = frame.segment.payload;
            (*record).captured = if result == 0 { len as u32 } else { 0 };
            (*record).flags = frame.flags;
            (*record).reserved = 0;
        }
    });
    0
}
