//! `struct sock`: who talks to whom.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skc_to_tcp_sock};
use sensor_common::record::{CgroupId, Endpoints};

use super::{Access, Cgroup, Direct, Pointer, Probed, Sock};
use crate::constants::{ABSENT, offset};

/// `IPPROTO_TCP`. MPTCP sockets (262) report the same connection a second time and are left out.
const TCP: u16 = 6;
/// `AF_INET`.
const AF_INET: u16 = 2;
/// `AF_INET6`.
const AF_INET6: u16 = 10;
/// `TCP_ESTABLISHED`.
const ESTABLISHED: u8 = 1;
/// `TCP_LISTEN`.
const LISTEN: u8 = 10;

impl<A: Access> Sock<A> {
    /// Address of the socket: a key.
    #[inline(always)]
    pub fn key(self) -> u64 {
        self.0.address as u64
    }

    /// The number that no other socket has, 0 when nobody has asked for it yet.
    #[inline(always)]
    pub fn number(self) -> u64 {
        self.0.load(offset!(sk_cookie))
    }

    /// Whether this is a TCP socket.
    #[inline(always)]
    pub fn is_tcp(self) -> bool {
        self.0.load::<u16>(offset!(sk_protocol)) == TCP
    }

    /// Whether this is a TCP socket that listens.
    #[inline(always)]
    pub fn is_listener(self) -> bool {
        self.0.load::<u8>(offset!(sk_state)) == LISTEN && self.is_tcp() && self.is_internet()
    }

    /// Whether this is a socket of IPv4 or IPv6.
    #[inline(always)]
    pub fn is_internet(self) -> bool {
        let family: u16 = self.0.load(offset!(sk_family));
        family == AF_INET || family == AF_INET6
    }

    /// Whether the kernel chose its local port when it connected. Otherwise a program has bound it, as every listener does of
    /// which a connection has it.
    #[inline(always)]
    pub fn has_chosen_port(self) -> bool {
        let bucket = self.0.probed().follow(offset!(icsk_bucket));
        bucket.load::<u8>(offset!(bucket_reuse)) == u8::MAX
    }

    /// Whether both sides may send. The kernel stores this state after it has told of it.
    #[inline(always)]
    pub fn is_established(self) -> bool {
        self.0.load::<u8>(offset!(sk_state)) == ESTABLISHED
    }

    /// Whether a program holds it. False for a connection that no program has accepted yet.
    #[inline(always)]
    pub fn is_held(self) -> bool {
        !self.0.load::<*const u8>(offset!(sk_socket)).is_null()
    }

    /// Local port; 0 after it was released.
    #[inline(always)]
    pub fn local_port(self) -> u16 {
        self.0.load(offset!(sk_num))
    }

    /// Remote port.
    #[inline(always)]
    pub fn peer_port(self) -> u16 {
        u16::from_be(self.0.load(offset!(sk_dport)))
    }

    /// Pending error, an errno.
    #[inline(always)]
    pub fn error(self) -> u32 {
        self.0.load(offset!(sk_err))
    }

    /// Id of its cgroup, always of the version 2 hierarchy.
    #[inline(always)]
    pub fn cgroup_id(self) -> CgroupId {
        let id = if offset!(sk_cgroup) != ABSENT {
            Cgroup(self.0.follow(offset!(sk_cgroup))).id()
        } else {
            // Linux 5.10: a number with two flags, the lower of which says that there is no cgroup in it.
            let tagged: u64 = self.0.load(offset!(sk_cgroup_tagged));
            if tagged & 1 == 0 { Cgroup::<Probed>::new((tagged & !3) as *const u8).id() } else { 0 }
        };
        CgroupId { id, hierarchy: 0, reserved: 0 }
    }

    /// Inode of its network namespace.
    #[inline(always)]
    pub fn netns(self) -> u32 {
        self.0.follow(offset!(sk_net)).load(offset!(net_inum))
    }

    /// Remote address as two words in network order, IPv4 as an IPv4-mapped address.
    #[inline(always)]
    pub fn peer_addr(self) -> [u64; 2] {
        if self.is_v6() { self.words(offset!(sk_v6_daddr)) } else { mapped(self.0.load(offset!(sk_daddr))) }
    }

    /// Local address, likewise.
    #[inline(always)]
    pub fn local_addr(self) -> [u64; 2] {
        if self.is_v6() {
            self.words(offset!(sk_v6_rcv_saddr))
        } else {
            mapped(self.0.load(offset!(sk_rcv_saddr)))
        }
    }

    #[inline(always)]
    fn is_v6(self) -> bool {
        self.0.load::<u16>(offset!(sk_family)) == AF_INET6 && offset!(sk_v6_daddr) != ABSENT
    }

    #[inline(always)]
    fn words(self, at: u64) -> [u64; 2] {
        [self.0.load(at), self.0.load(at.wrapping_add(8))]
    }

    /// Writes both ends, with `local_port` for the local one.
    #[inline(always)]
    pub fn ends(self, local_port: u16, to: *mut Endpoints) {
        let (local, peer, netns) = (self.local_addr(), self.peer_addr(), self.netns());
        // SAFETY: `to` points to room for an `Endpoints`, whose addresses are aligned for u64.
        unsafe {
            ptr::write((&raw mut (*to).local_addr).cast(), local);
            ptr::write((&raw mut (*to).peer_addr).cast(), peer);
            (*to).local_port = local_port;
            (*to).peer_port = self.peer_port();
            (*to).netns = netns;
        }
    }
}

/// The two words of an IPv4-mapped IPv6 address, from an IPv4 address in network order.
#[inline(always)]
pub fn mapped(address: u32) -> [u64; 2] {
    let prefix = u32::to_be(0xffff);
    let low = if cfg!(target_endian = "little") {
        u64::from(address) << 32 | u64::from(prefix)
    } else {
        u64::from(prefix) << 32 | u64::from(address)
    };
    [0, low]
}

/// A place in a stream, from another one and the distance of their numbers.
#[inline(always)]
const fn ahead(place: u64, distance: u32) -> u64 {
    place.wrapping_add(distance as i32 as i64 as u64)
}

/// What only the TCP layer knows of a socket.
pub struct Tcp(Pointer<Direct>);

impl Sock<Direct> {
    /// Whether the kernel has a helper that gives a socket a number (5.12).
    #[inline(always)]
    pub fn has_number() -> bool {
        offset!(helper_socket_cookie) != ABSENT
    }

    /// The TCP socket a packet is for, with the type that the verifier needs; `None` for another kind of socket.
    #[inline(always)]
    pub fn of_packet(sock: *mut bpf_sock) -> Option<Self> {
        // SAFETY: the pointer is a socket, and the helper checks of which kind.
        let address = unsafe { bpf_skc_to_tcp_sock(sock.cast()) };
        if address.is_null() { None } else { Some(Self::new(address.cast_const().cast())) }
    }

    /// The address as a pointer, for helpers.
    #[inline(always)]
    pub fn address(self) -> *const c_void {
        self.0.address.cast()
    }

    /// Gives the socket its number, unless it has one, and returns it; `None` on kernels that cannot.
    #[inline(always)]
    pub fn number_it(self) -> Option<u64> {
        if Self::has_number() {
            // SAFETY: the pointer is a socket; the verifier prunes the call on kernels without the helper.
            Some(unsafe { bpf_get_socket_cookie(self.0.address.cast_mut().cast()) })
        } else {
            None
        }
    }

    /// The same socket, if it is a full TCP one, by a pointer that the verifier knows the type of and does not trust. For
    /// each pointer that is loaded from behind a trusted one, on each path, verifiers since Linux 6.3 search all types of
    /// the kernel by name, some times over: that was the most part of the time it took to load a program.
    #[inline(always)]
    pub fn as_tcp(self) -> Option<Self> {
        self.tcp().map(|tcp| tcp.socket())
    }

    /// Returns the TCP view of a full TCP socket.
    #[inline(always)]
    pub fn tcp(self) -> Option<Tcp> {
        // SAFETY: the pointer is a socket, and the helper checks of which kind.
        let address = unsafe { bpf_skc_to_tcp_sock(self.0.address.cast_mut().cast()) };
        if address.is_null() { None } else { Some(Tcp(Pointer::new(address.cast_const().cast()))) }
    }
}

impl Tcp {
    /// The socket, see [`Sock::as_tcp`].
    #[inline(always)]
    pub const fn socket(&self) -> Sock<Direct> {
        Sock(self.0)
    }

    /// Local port; stays after the port was released.
    #[inline(always)]
    pub fn local_port(&self) -> u16 {
        u16::from_be(self.0.load(offset!(inet_sport)))
    }

    /// Payload bytes received. The kernel counts the peer's FIN as one.
    #[inline(always)]
    pub fn bytes_in(&self) -> u64 {
        let received: u64 = self.0.load(offset!(tcp_bytes_received));
        let flags: u64 = self.0.load(offset!(sk_flags));
        received.wrapping_sub((flags >> (offset!(sock_done_bit) & 63)) & 1)
    }

    /// Bytes before the one with this number in the stream that is received, and in-order bytes received so far. The number
    /// is that of a byte within two gigabytes of the latter.
    #[inline(always)]
    pub fn place_in(&self, number: u32) -> (u64, u64) {
        let mut received: u64 = self.0.load(offset!(tcp_bytes_received));
        let mut next: u32 = self.0.load(offset!(tcp_rcv_nxt));
        // Packets are shown before the socket is locked: whoever reads from it may take the one before at this moment, on
        // another processor, and one of both numbers would be older than the other.
        let received_now: u64 = self.0.load(offset!(tcp_bytes_received));
        let next_now: u32 = self.0.load(offset!(tcp_rcv_nxt));
        if received_now != received || next_now != next {
            received = self.0.load(offset!(tcp_bytes_received));
            next = self.0.load(offset!(tcp_rcv_nxt));
        }
        (ahead(received, number.wrapping_sub(next)), received)
    }

    /// Bytes before the one with this number in the stream that is sent, and bytes sent so far.
    #[inline(always)]
    pub fn place_out(&self, number: u32) -> (u64, u64) {
        let acknowledged: u64 = self.0.load(offset!(tcp_bytes_acked));
        let first: u32 = self.0.load(offset!(tcp_snd_una));
        let next: u32 = self.0.load(offset!(tcp_snd_nxt));
        (ahead(acknowledged, number.wrapping_sub(first)), ahead(acknowledged, next.wrapping_sub(first)))
    }

    /// Payload bytes sent, each once.
    #[inline(always)]
    pub fn bytes_out(&self) -> u64 {
        let sent: u64 = self.0.load(offset!(tcp_bytes_sent));
        sent.wrapping_sub(self.0.load(offset!(tcp_bytes_retrans)))
    }
}
