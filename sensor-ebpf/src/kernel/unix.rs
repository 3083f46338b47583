//! `struct unix_sock`: what it is bound to, and what waits in the queue of a socket.

use aya_ebpf::helpers::generated::{bpf_skc_to_unix_sock, bpf_task_pt_regs};
use sensor_common::record::FileId;

use super::file::id_of;
use super::{Access, Direct, Pointer, Sock, copy_from_user, typed_current};
use crate::constants::{ABSENT, offset};

/// `AF_UNIX`.
const AF_UNIX: u16 = 1;
/// `TCP_LISTEN`, which is the state of a listening unix socket, too.
const LISTEN: u8 = 10;
/// `TCP_ESTABLISHED`, which is that of a connected one.
const ESTABLISHED: u8 = 1;

impl<A: Access> Sock<A> {
    /// Whether this is a unix socket that listens.
    #[inline(always)]
    pub fn is_unix_listener(self) -> bool {
        self.is_unix_in(LISTEN)
    }

    /// Whether this is a unix socket that is connected.
    #[inline(always)]
    pub fn is_unix_connected(self) -> bool {
        self.is_unix_in(ESTABLISHED)
    }

    #[inline(always)]
    fn is_unix_in(self, state: u8) -> bool {
        self.0.load::<u16>(offset!(sk_family)) == AF_UNIX && self.0.load::<u8>(offset!(sk_state)) == state
    }

    /// The file that a unix socket is bound to; `None` for one without a path.
    #[inline(always)]
    pub fn bound_file(self) -> Option<FileId> {
        if offset!(unix_dentry) == ABSENT {
            return None;
        }
        // The verifier knows the common part of a socket only.
        file_of(self.0.probed())
    }
}

impl Sock<Direct> {
    /// The unix view of a unix socket (5.16).
    #[inline(always)]
    pub fn unix(self) -> Option<Unix> {
        // SAFETY: the pointer is a socket, and the helper checks of which kind.
        let address = unsafe { bpf_skc_to_unix_sock(self.address().cast_mut()) };
        if address.is_null() { None } else { Some(Unix(Pointer::new(address.cast_const().cast()))) }
    }

    /// What was put into its queue last; `None` when that was taken already. Read without the lock of the queue.
    #[inline(always)]
    pub fn last_received(self) -> Option<Buffer> {
        let last = self.0.follow(offset!(sk_receive_last));
        let is_empty = last.address as u64 == self.key().wrapping_add(offset!(sk_receive_queue));
        if is_empty { None } else { Some(Buffer(last)) }
    }
}

/// `struct unix_sock`.
pub struct Unix(Pointer<Direct>);

impl Unix {
    /// The socket, by a pointer behind which the verifier searches less, see [`Sock::as_tcp`].
    #[inline(always)]
    pub const fn socket(&self) -> Sock<Direct> {
        Sock(self.0)
    }

    /// The file that it, or its listener, is bound to; `None` for one without a path.
    #[inline(always)]
    pub fn bound_file(&self) -> Option<FileId> {
        file_of(self.0)
    }

    /// The other end.
    #[inline(always)]
    pub fn peer(&self) -> Option<Sock<Direct>> {
        let peer = self.0.follow(offset!(unix_peer));
        if peer.address.is_null() { None } else { Some(Sock(peer)) }
    }
}

#[inline(always)]
fn file_of<A: Access>(unix: Pointer<A>) -> Option<FileId> {
    let dentry = unix.follow(offset!(unix_dentry));
    if dentry.address.is_null() { None } else { Some(id_of(dentry.follow(offset!(dentry_inode)))) }
}

/// `struct sk_buff`.
pub struct Buffer(Pointer<Direct>);

impl Buffer {
    /// Bytes in it.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        self.0.load(offset!(skb_len))
    }

    /// Of these, how many lie at [`Self::data`].
    #[inline(always)]
    pub fn linear(&self) -> u32 {
        self.len().saturating_sub(self.0.load(offset!(skb_data_len)))
    }

    /// Where the first ones lie, in the memory of the kernel.
    #[inline(always)]
    pub fn data(&self) -> u64 {
        self.0.load(offset!(skb_data))
    }

    /// Address of the socket of a connection that waits in the queue of a listening unix socket.
    #[inline(always)]
    pub fn sock_key(&self) -> Option<u64> {
        let key: u64 = self.0.load(offset!(skb_sk));
        if key == 0 { None } else { Some(key) }
    }
}

/// System calls of x86-64 that write to a socket, by how their second and third argument say what.
mod call {
    pub const WRITE: u64 = 1;
    pub const SENDTO: u64 = 44;
    pub const WRITEV: u64 = 20;
    pub const SENDMSG: u64 = 46;
    /// Place of the vector in the `struct msghdr` of `sendmsg`.
    pub const VECTOR: u64 = 16;
}

/// What the current task writes with the system call that it is in (5.15): where it lies in the memory of the process, and
/// how long it is. Of a vector the first part. `None` where that cannot be known: another call, or another architecture.
#[inline(always)]
pub fn written() -> Option<(u64, u64)> {
    if offset!(regs_call) == ABSENT || offset!(helper_task_pt_regs) == ABSENT {
        return None;
    }
    // SAFETY: the task is the current one.
    let regs = unsafe { bpf_task_pt_regs(typed_current().address().cast()) };
    let regs = Pointer::<Direct>::new(regs as *const u8);
    let (second, third): (u64, u64) = (regs.load(offset!(regs_second)), regs.load(offset!(regs_third)));
    let vector = match regs.load(offset!(regs_call)) {
        call::WRITE | call::SENDTO => return Some((second, third)),
        call::WRITEV => second,
        call::SENDMSG => word(second.wrapping_add(call::VECTOR))?,
        _ => return None,
    };
    Some((word(vector)?, word(vector.wrapping_add(8))?))
}

/// A word of the memory of the current process.
#[inline(always)]
fn word(address: u64) -> Option<u64> {
    let mut word = 0u64;
    // SAFETY: room for eight bytes.
    let is_read = unsafe { copy_from_user((&raw mut word).cast(), 8, address) };
    if is_read { Some(word) } else { None }
}
