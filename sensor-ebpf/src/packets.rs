//! `cgroup_skb` ingress at the root of the version 2 cgroups: attempts to connect, and requests on connections whose accept
//! was withheld, or missed by the hook that should have told it.
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
use crate::withheld::{Mark, report_late, resume};

/// What the kernel takes for "let it pass".
pub const PASS: i32 = 1;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// Bytes of an IPv4 header without options.
const IPV4_HEADER: usize = 20;
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
    let (Some(segment), Some(sock)) = (Segment::read(ctx), Sock::<Direct>::of_packet(sk)) else { return };
    if sock.is_listener() {
        return on_listener(ctx, sock, port, flags, &segment);
    }
    // Packets with IPv6 extension headers are not looked into; the next one tells of their data.
    if segment.payload == 0 && sock.tcp().is_none_or(|tcp| tcp.bytes_in() == 0) {
        return;
    }
    report_untold(ctx, sk, sock, port);
    let is_read = flags & port_flags::PLAINTEXT != 0
        || flags & port_flags::ENCRYPTED != 0 && sock.tcp().is_some_and(|tcp| tcp.bytes_out() == 0);
    if is_read {
        capture(ctx, sk, sock, port, &segment, Way::ToListener);
    }
}

/// A packet for a listener: it begins a connection or completes one.
#[inline(always)]
fn on_listener(ctx: &SkBuffContext, listener: Sock<Direct>, port: u16, flags: u8, segment: &Segment) {
    let is_early = segment.payload > 0;
    match segment.flags & (SYN | ACK) {
        SYN => on_attempt(&PeerKey::new(segment.peer, listener.netns(), port), segment),
        // The other hook sees the connection that it completes; but not what comes with it.
        ACK if is_early => {
            let key = PeerKey::new(segment.peer, listener.netns(), port);
            key.note_early_data(segment.peer_port);
            if flags & (port_flags::PLAINTEXT | port_flags::ENCRYPTED) != 0 {
                capture_early(ctx, listener, port, &key, segment);
            }
        }
        _ => {}
    }
}

/// Reports the accept of a connection that was not told, because a request came.
#[inline(always)]
fn report_untold(ctx: &SkBuffContext, sk: *mut bpf_sock, sock: Sock<Direct>, port: u16) {
    if !Sock::has_number() {
        if let Some(connection) = take_withheld(sock) {
            connection.ring = resume(sock, port, connection.conn, connection.opened_ns, now()) as u64;
        }
        return;
    }
    let sk = sk.cast_const().cast();
    let Some(mark) = Mark::find(sk) else {
        // With neither mark nor number nobody was told. What has said something before is older than the sensor.
        if sock.number() == 0 && sock.is_established() && sock.tcp().is_some_and(|tcp| tcp.bytes_in() == 0) {
            Mark::set_late(sk, report_late(sock, port, number_of(ctx), now()));
        }
        return;
    };
    if let Some(since_ns) = mark.take() {
        mark.note_ring(resume(sock, port, number_of(ctx), since_ns, now()));
    }
}

/// Gives the socket of a packet its number and returns it.
#[inline(always)]
fn number_of(ctx: &SkBuffContext) -> u64 {
    // SAFETY: the context is a packet's.
    unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) }
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

impl Segment {
    /// Reads the headers; `None` for another protocol, or IPv6 extension headers. Numbers are taken out of whole words,
    /// because calls are what costs here: one is enough for a packet without IPv4 options.
    #[inline(always)]
    pub fn read(ctx: &SkBuffContext) -> Option<Self> {
        // No packet of TCP has less than these: an IPv6 header, or both headers over IPv4.
        let raw: [u64; 5] = ctx.load(0).ok()?;
        let words = raw.map(u64::from_be);
        let (protocol, peer, local, at) = if words[0] >> 60 == 4 {
            let (source, destination) = (words[1] as u32, (words[2] >> 32) as u32);
            let at = (words[0] >> 56 & 15) as usize * 4;
            (words[1] >> 48, mapped(source.to_be()), mapped(destination.to_be()), at)
        } else {
            (words[0] >> 8, [raw[1], raw[2]], [raw[3], raw[4]], IPV6_HEADER)
        };
        if protocol as u8 != TCP {
            return None;
        }
        // Ports and sequence number; acknowledgement, length in words and flags.
        let tcp = if at == IPV4_HEADER {
            [words[2] << 32 | words[3] >> 32, words[3] << 32 | words[4] >> 32]
        } else {
            ctx.load::<[u64; 2]>(at).ok()?.map(u64::from_be)
        };
        let headers = at as u32 + (tcp[1] >> 28 & 15) as u32 * 4;
        Some(Self {
            peer,
            local,
            peer_port: (tcp[0] >> 48) as u16,
            sequence: tcp[0] as u32,
            flags: (tcp[1] >> 16) as u8,
            start: headers,
            payload: ctx.len().saturating_sub(headers),
        })
    }
}
