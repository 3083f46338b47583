//! `cgroup_skb` ingress at the root of the version 2 cgroups: attempts to connect, and requests on connections whose accept
//! was withheld.
//!
//! Context: `struct __sk_buff`, whose data begin at the network header; softirq. The kernel runs it for every packet on
//! its way to a socket of the node, so that what is not for a watched port must pay next to nothing. It always lets the
//! packet pass.

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::bpf_get_socket_cookie;
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use sensor_common::settings::port_flags;

use crate::connections::take_withheld;
use crate::emit::now;
use crate::flood::{Account, Count, PeerKey};
use crate::kernel::{Direct, Sock, mapped};
use crate::maps::flags_of;
use crate::payload::{Way, capture, capture_early};
use crate::withheld::{Mark, resume};

/// What the kernel takes for "let it pass".
pub const PASS: i32 = 1;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// Bytes of an IPv6 header.
const IPV6_HEADER: usize = 40;
/// TCP flags: SYN and ACK.
const SYN: u8 = 2;
const ACK: u8 = 16;

/// Looks at a packet.
#[cgroup_skb(ingress)]
pub fn packets_in(ctx: SkBuffContext) -> i32 {
    let Some((sk, port)) = socket_of(&ctx) else { return PASS };
    let flags = flags_of(port);
    if flags & port_flags::WATCHED != 0 {
        on_watched(&ctx, sk, port, flags);
    }
    PASS
}

/// The socket of a packet and its local port.
#[inline(always)]
pub fn socket_of(ctx: &SkBuffContext) -> Option<(*mut bpf_sock, u16)> {
    // SAFETY: the kernel hands over a context of this type.
    let sk = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return None;
    }
    // SAFETY: the verifier has seen that it is a socket. The whole number, as the kernel demands.
    let port = unsafe { (&raw const (*sk).src_port).read_volatile() } as u16;
    Some((sk, port))
}

#[inline(always)]
fn on_watched(ctx: &SkBuffContext, sk: *mut bpf_sock, port: u16, flags: u8) {
    let Some(sock) = Sock::<Direct>::of_packet(sk) else { return };
    if sock.is_listener() {
        if let Some(segment) = Segment::read(ctx) {
            let key = PeerKey::new(segment.peer, sock.netns(), port);
            match segment.flags & (SYN | ACK) {
                SYN => on_attempt(&key, &segment),
                // It completes a connection, which the other hook sees; but not what comes with it.
                ACK if segment.payload > 0 => {
                    key.note_early_data(segment.peer_port);
                    if flags & (port_flags::PLAINTEXT | port_flags::ENCRYPTED) != 0 {
                        capture_early(ctx, sock, port, &key, &segment);
                    }
                }
                _ => {}
            }
        }
        return;
    }
    resume_withheld(ctx, sk, sock, port);
    let is_read = flags & port_flags::PLAINTEXT != 0
        || flags & port_flags::ENCRYPTED != 0 && sock.tcp().is_some_and(|tcp| tcp.bytes_out() == 0);
    if is_read {
        capture(ctx, sk, sock, port, Way::ToListener);
    }
}

/// Reports the accept of a connection that was withheld, if a request came.
#[inline(always)]
fn resume_withheld(ctx: &SkBuffContext, sk: *mut bpf_sock, sock: Sock<Direct>, port: u16) {
    if !Sock::has_number() {
        if has_request(ctx, sock)
            && let Some(connection) = take_withheld(sock)
        {
            connection.ring = resume(sock, port, connection.conn, connection.opened_ns, now()) as u64;
        }
        return;
    }
    let Some(mark) = Mark::find(sk.cast_const().cast()).filter(|mark| mark.is_waiting()) else { return };
    if has_request(ctx, sock)
        && let Some(since_ns) = mark.take()
    {
        // SAFETY: the context is a packet's.
        let conn = unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) };
        mark.note_ring(resume(sock, port, conn, since_ns, now()));
    }
}

/// Whether a packet brings data, or follows some. Packets with IPv6 extension headers are not looked into; the next one
/// tells of their data.
#[inline(always)]
fn has_request(ctx: &SkBuffContext, sock: Sock<Direct>) -> bool {
    Segment::read(ctx)
        .is_some_and(|segment| segment.payload > 0 || sock.tcp().is_some_and(|tcp| tcp.bytes_in() > 0))
}

#[inline(always)]
fn on_attempt(key: &PeerKey, segment: &Segment) {
    if key.is_repeated(segment.peer_port, segment.sequence) {
        return;
    }
    if let Some(account) = Account::of(key, now()) {
        account.note_local(segment.local);
        account.count(Count::Attempt);
    }
}

/// What counts of a TCP segment.
pub struct Segment {
    /// Source address, IPv4 as `::ffff:a.b.c.d`, network order.
    pub peer: [u64; 2],
    /// Destination address, likewise.
    pub local: [u64; 2],
    /// Source port.
    pub peer_port: u16,
    /// Number of its first byte.
    pub sequence: u32,
    flags: u8,
    /// Bytes of the headers.
    pub start: u32,
    /// Bytes behind the headers.
    pub payload: u32,
}

/// The first bytes of a TCP header.
#[repr(C)]
struct TcpHeader {
    source: u16,
    destination: u16,
    sequence: u32,
    acknowledgement: u32,
    /// Upper half: length in words.
    offset: u8,
    flags: u8,
}

impl Segment {
    /// Reads the headers; `None` for another protocol, or IPv6 extension headers.
    #[inline(always)]
    pub fn read(ctx: &SkBuffContext) -> Option<Self> {
        let version: u8 = ctx.load(0).ok()?;
        let (peer, local, at) = if version >> 4 == 4 {
            if ctx.load::<u8>(9).ok()? != TCP {
                return None;
            }
            let addresses: [u32; 2] = ctx.load(12).ok()?;
            (mapped(addresses[0]), mapped(addresses[1]), usize::from(version & 15) * 4)
        } else {
            if ctx.load::<u8>(6).ok()? != TCP {
                return None;
            }
            let addresses: [u64; 4] = ctx.load(8).ok()?;
            ([addresses[0], addresses[1]], [addresses[2], addresses[3]], IPV6_HEADER)
        };
        let header: TcpHeader = ctx.load(at).ok()?;
        let headers = at as u32 + u32::from(header.offset >> 4) * 4;
        Some(Self {
            peer,
            local,
            peer_port: u16::from_be(header.source),
            sequence: u32::from_be(header.sequence),
            flags: header.flags,
            start: headers,
            payload: ctx.len().saturating_sub(headers),
        })
    }
}
