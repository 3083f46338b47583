//! The only file that reads kernel structures.
//!
//! Members are found through the offsets of the running kernel. Where the verifier knows the type of a pointer they are
//! loaded directly, which costs a tenth of a helper call; strings, untyped pointers and members behind a runtime index
//! go through the probe-read helpers, and so does everything on kernels that give an untyped pointer only. Which way a
//! pointer is read is part of its type. A failed read gives zero, as the kernel does for a failed direct load.

use core::marker::PhantomData;
use core::{arch::asm, ptr};

use aya_ebpf::helpers::generated::{
    bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_probe_read_kernel_str,
    bpf_probe_read_user, bpf_skc_to_tcp_sock,
};
use sensor_common::record::{Ancestor, CgroupId, Endpoints, TaskId};
use sensor_common::settings::HIERARCHY_V2;

use crate::constants::{ABSENT, offset, setting};

/// `IPPROTO_TCP`. MPTCP sockets (262) report the same connection a second time and are left out.
const TCP: u16 = 6;
/// `AF_INET`.
const AF_INET: u16 = 2;
/// `AF_INET6`.
const AF_INET6: u16 = 10;
/// `TCP_LISTEN`.
const LISTEN: u8 = 10;
/// Magic of sockfs.
const SOCKFS: u64 = 0x534f_434b;

/// How the members behind a pointer are read.
pub trait Access: Copy {
    /// Reads a `T` at `base + offset`.
    fn load<T: Copy>(base: *const u8, offset: u64) -> T;
}

/// By a load instruction; for pointers whose type the verifier knows.
#[derive(Clone, Copy)]
pub struct Direct;

/// By a helper; for all others.
#[derive(Clone, Copy)]
pub struct Probed;

impl Access for Direct {
    #[inline(always)]
    fn load<T: Copy>(base: *const u8, offset: u64) -> T {
        // SAFETY: the verifier knows the type of `base` and turns a faulting load into zero. Volatile, so that it stays
        // one load of this width. The kernel tolerates misaligned loads on the architectures we build for.
        unsafe { ptr::read_volatile(base.wrapping_add(offset as usize).cast()) }
    }
}

impl Access for Probed {
    #[inline(always)]
    fn load<T: Copy>(base: *const u8, offset: u64) -> T {
        let mut value = core::mem::MaybeUninit::<T>::zeroed();
        // SAFETY: the helper writes `size_of::<T>()` bytes to `value`, zeroes when it cannot read; `T` is always an
        // integer, an array of them or a raw pointer, for which every bit pattern is valid.
        unsafe {
            bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                base.wrapping_add(offset as usize).cast(),
            );
            value.assume_init()
        }
    }
}

/// A pointer to a kernel structure.
#[derive(Clone, Copy)]
pub struct Pointer<A> {
    address: *const u8,
    access: PhantomData<A>,
}

impl<A: Access> Pointer<A> {
    #[inline(always)]
    const fn new(address: *const u8) -> Self {
        Self { address, access: PhantomData }
    }

    #[inline(always)]
    fn load<T: Copy>(self, offset: u64) -> T {
        A::load(self.address, offset)
    }

    #[inline(always)]
    fn follow(self, offset: u64) -> Self {
        Self::new(self.load(offset))
    }

    #[inline(always)]
    const fn probed(self) -> Pointer<Probed> {
        Pointer::new(self.address)
    }
}

macro_rules! structure {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name<A>(Pointer<A>);

        impl<A: Access> $name<A> {
            /// Wraps an address that the kernel gave us as a pointer to this structure.
            #[inline(always)]
            pub const fn new(address: *const u8) -> Self {
                Self(Pointer::new(address))
            }
        }
    };
}

structure! {
    /// `struct task_struct`.
    Task
}
structure! {
    /// `struct cgroup`.
    Cgroup
}
structure! {
    /// `struct sock`.
    Sock
}
structure! {
    /// `struct linux_binprm`.
    Program
}
structure! {
    /// `struct file`.
    File
}

/// Runs `$body` with `$task` bound to the current task, read the fastest way this kernel allows.
macro_rules! with_current {
    (|$task:ident| $body:expr) => {
        if $crate::kernel::has_typed_current() {
            let $task = $crate::kernel::typed_current();
            $body
        } else {
            let $task = $crate::kernel::untyped_current();
            $body
        }
    };
}
pub(crate) use with_current;

/// Tells whether the kernel has a helper that gives the current task as a typed pointer (5.11).
#[inline(always)]
pub fn has_typed_current() -> bool {
    offset!(helper_current_task_btf) != ABSENT
}

/// Returns the current task; only where [`has_typed_current`].
#[inline(always)]
pub fn typed_current() -> Task<Direct> {
    // SAFETY: the helper has no preconditions; the verifier prunes the call on kernels without it.
    Task::new(unsafe { bpf_get_current_task_btf() }.cast_const().cast())
}

/// Returns the current task as every kernel can give it.
#[inline(always)]
pub fn untyped_current() -> Task<Probed> {
    // SAFETY: the helper has no preconditions.
    Task::new(unsafe { bpf_get_current_task() } as *const u8)
}

impl<A: Access> Task<A> {
    /// Thread group id in the initial pid namespace.
    #[inline(always)]
    pub fn tgid(self) -> u32 {
        self.0.load(offset!(task_tgid))
    }

    /// Thread id in the initial pid namespace.
    #[inline(always)]
    pub fn thread_id(self) -> u32 {
        self.0.load(offset!(task_pid))
    }

    /// The thread group leader.
    #[inline(always)]
    pub fn leader(self) -> Self {
        Self(self.0.follow(offset!(task_leader)))
    }

    /// The thread group leader of the parent.
    #[inline(always)]
    pub fn parent(self) -> Self {
        Self(self.0.follow(offset!(task_real_parent))).leader()
    }

    /// Start time on the boot clock, nanoseconds.
    #[inline(always)]
    pub fn start_ns(self) -> u64 {
        self.0.load(offset!(task_start))
    }

    /// Wait status.
    #[inline(always)]
    pub fn exit_code(self) -> u32 {
        self.0.load(offset!(task_exit_code))
    }

    /// Whether every thread of the process has begun to exit.
    #[inline(always)]
    pub fn all_threads_exiting(self) -> bool {
        self.0.follow(offset!(task_signal)).load::<u32>(offset!(signal_live)) == 0
    }

    /// Name, NUL padded: kernels before 5.15 leave remains of longer names behind the first NUL.
    #[inline(always)]
    pub fn name(self) -> [u64; 2] {
        let at = offset!(task_comm);
        let (first, second) = (self.0.load(at), self.0.load(at.wrapping_add(8)));
        let kept = bytes_before_nul(first);
        [first & kept, if kept == u64::MAX { second & bytes_before_nul(second) } else { 0 }]
    }

    /// Writes the identity of the process.
    #[inline(always)]
    pub fn identify(self, to: *mut TaskId) {
        let leader = self.leader();
        let uid: u32 = self.0.follow(offset!(task_cred)).load(offset!(cred_uid));
        // SAFETY: `to` points to room for a `TaskId`; its name is aligned for two u64, being at offset 16.
        unsafe {
            (*to).pid = self.tgid();
            (*to).uid = uid;
            (*to).start_ns = leader.start_ns();
            ptr::write((&raw mut (*to).comm).cast(), self.name());
        }
    }

    /// Writes the identity of an ancestor; `self` must be a thread group leader.
    #[inline(always)]
    pub fn identify_ancestor(self, to: *mut Ancestor) {
        // SAFETY: `to` points to room for an `Ancestor`; its name is aligned for two u64, being at offset 16.
        unsafe {
            (*to).pid = self.tgid();
            (*to).reserved = 0;
            (*to).start_ns = self.start_ns();
            ptr::write((&raw mut (*to).comm).cast(), self.name());
        }
    }

    /// Cgroup of the task in the hierarchy that the agent chose.
    #[inline(always)]
    pub fn cgroup(self) -> Cgroup<A> {
        let set = self.0.follow(offset!(task_cgroups));
        let controller = setting!(task_hierarchy);
        if controller == u64::from(HIERARCHY_V2) {
            Cgroup(set.follow(offset!(css_set_dfl)))
        } else {
            let state = set.follow(offset!(css_set_subsys).wrapping_add(controller.wrapping_mul(8)));
            Cgroup(state.follow(offset!(css_cgroup)))
        }
    }

    /// Id of that cgroup, with its hierarchy.
    #[inline(always)]
    pub fn cgroup_id(self) -> CgroupId {
        CgroupId { id: self.cgroup().id(), hierarchy: setting!(task_hierarchy_id) as u32, reserved: 0 }
    }

    /// Inode number of the mount namespace; 0 while a task has none.
    #[inline(always)]
    pub fn mount_namespace(self) -> u32 {
        self.0.follow(offset!(task_nsproxy)).follow(offset!(nsproxy_mnt)).load(offset!(mnt_inum))
    }

    /// Inode number of the pid namespace and the pid therein.
    #[inline(always)]
    pub fn namespaced_pid(self) -> (u32, u32) {
        let pid = self.0.follow(offset!(task_thread_pid));
        let level: u32 = pid.load(offset!(pid_level));
        let at = offset!(pid_numbers);
        if level == 0 {
            let namespace = pid.follow(at.wrapping_add(offset!(upid_ns)));
            return (namespace.load(offset!(pidns_inum)), pid.load(at.wrapping_add(offset!(upid_nr))));
        }
        let number = pid.probed().address.wrapping_add((level & 63) as usize * offset!(upid_size) as usize);
        let number = Pointer::<Probed>::new(number.wrapping_add(at as usize));
        (number.follow(offset!(upid_ns)).load(offset!(pidns_inum)), number.load(offset!(upid_nr)))
    }

    /// Start and end of the arguments in the memory of the process.
    #[inline(always)]
    pub fn arguments(self) -> (u64, u64) {
        let mm = self.0.follow(offset!(task_mm));
        (mm.load(offset!(mm_arg_start)), mm.load(offset!(mm_arg_end)))
    }
}

/// Mask of the bytes of a word, in memory order, before the first that is zero.
#[inline(always)]
fn bytes_before_nul(word: u64) -> u64 {
    let word = u64::from_le(word);
    let nuls = word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080;
    // The lowest marker is exact; it is the top bit of its byte, hence the shift.
    let mask = if nuls == 0 { u64::MAX } else { ((nuls & nuls.wrapping_neg()) >> 7).wrapping_sub(1) };
    u64::to_le(mask)
}

impl<A: Access> Cgroup<A> {
    /// `kernfs_node.id`.
    #[inline(always)]
    pub fn id(self) -> u64 {
        self.0.follow(offset!(cgroup_kn)).load(offset!(kn_id))
    }

    /// Id of the hierarchy it belongs to.
    #[inline(always)]
    pub fn hierarchy(self) -> u32 {
        self.0.follow(offset!(cgroup_root)).load(offset!(root_hierarchy_id))
    }

    /// Address of its own name, a string in kernel memory.
    #[inline(always)]
    pub fn name(self) -> *const u8 {
        self.0.follow(offset!(cgroup_kn)).load(offset!(kn_name))
    }
}

impl<A: Access> Sock<A> {
    /// Address of the socket: a key.
    #[inline(always)]
    pub fn key(self) -> u64 {
        self.0.address as u64
    }

    /// Whether this is a TCP socket.
    #[inline(always)]
    pub fn is_tcp(self) -> bool {
        self.0.load::<u16>(offset!(sk_protocol)) == TCP
    }

    /// Whether this is a TCP socket that listens.
    #[inline(always)]
    pub fn is_listener(self) -> bool {
        self.0.load::<u8>(offset!(sk_state)) == LISTEN && self.is_tcp() && {
            let family: u16 = self.0.load(offset!(sk_family));
            family == AF_INET || family == AF_INET6
        }
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

    /// Writes both ends, with `local_port` for the local one.
    #[inline(always)]
    pub fn ends(self, local_port: u16, to: *mut Endpoints) {
        let family: u16 = self.0.load(offset!(sk_family));
        let (local, peer) = if family == AF_INET6 && offset!(sk_v6_daddr) != ABSENT {
            let words = |at: u64| [self.0.load::<u64>(at), self.0.load::<u64>(at.wrapping_add(8))];
            (words(offset!(sk_v6_rcv_saddr)), words(offset!(sk_v6_daddr)))
        } else {
            (mapped(self.0.load(offset!(sk_rcv_saddr))), mapped(self.0.load(offset!(sk_daddr))))
        };
        let netns: u32 = self.0.follow(offset!(sk_net)).load(offset!(net_inum));
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
fn mapped(address: u32) -> [u64; 2] {
    let prefix = u32::to_be(0xffff);
    let low = if cfg!(target_endian = "little") {
        u64::from(address) << 32 | u64::from(prefix)
    } else {
        u64::from(prefix) << 32 | u64::from(address)
    };
    [0, low]
}

/// What only the TCP layer knows of a socket.
pub struct Tcp(Pointer<Direct>);

impl Sock<Direct> {
    /// Returns the TCP view of a full TCP socket.
    #[inline(always)]
    pub fn tcp(self) -> Option<Tcp> {
        // SAFETY: the pointer is a socket, and the helper checks of which kind.
        let address = unsafe { bpf_skc_to_tcp_sock(self.0.address.cast_mut().cast()) };
        if address.is_null() { None } else { Some(Tcp(Pointer::new(address.cast_const().cast()))) }
    }
}

impl Tcp {
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

    /// Payload bytes sent, each once.
    #[inline(always)]
    pub fn bytes_out(&self) -> u64 {
        let sent: u64 = self.0.load(offset!(tcp_bytes_sent));
        sent.wrapping_sub(self.0.load(offset!(tcp_bytes_retrans)))
    }
}

impl<A: Access> Program<A> {
    /// Address of the file name given to exec, a string in kernel memory.
    #[inline(always)]
    pub fn file_name(self) -> *const u8 {
        self.0.load(offset!(bprm_filename))
    }
}

impl<A: Access> File<A> {
    /// The socket behind this file, if it is one.
    #[inline(always)]
    pub fn socket(self) -> Option<Sock<Probed>> {
        let superblock = self.0.follow(offset!(file_inode)).follow(offset!(inode_sb));
        if superblock.load::<u64>(offset!(sb_magic)) != SOCKFS {
            return None;
        }
        let socket = Pointer::<Probed>::new(self.0.load(offset!(file_private)));
        Some(Sock(socket.follow(offset!(socket_sk))))
    }
}

/// Copies a string from kernel memory, at most `size - 1` bytes of it and a NUL. Returns its length without the NUL, or
/// `None` when it cannot be read.
///
/// # Safety
/// `to` must point to room for `size` bytes.
#[inline(always)]
pub unsafe fn copy_string(to: *mut u8, size: u32, from: *const u8) -> Option<u64> {
    // SAFETY: see above.
    let copied = unsafe { bpf_probe_read_kernel_str(to.cast(), size, from.cast()) };
    if copied > 0 { Some(opaque(copied as u64 - 1)) } else { None }
}

/// Copies `len` bytes from the memory of the current process; tells whether it could.
///
/// # Safety
/// `to` must point to room for `len` bytes.
#[inline(always)]
pub unsafe fn copy_from_user(to: *mut u8, len: u32, from: u64) -> bool {
    // SAFETY: see above.
    unsafe { bpf_probe_read_user(to.cast(), len, from as *const core::ffi::c_void) == 0 }
}

/// Hides from the compiler what it knows of a number, so that it keeps the masks which the verifier needs to see. Older
/// verifiers do not carry a bound from one register to a copy of it.
#[inline(always)]
pub fn opaque(mut number: u64) -> u64 {
    // SAFETY: moves a register onto itself. Without an instruction the kernel would reject the line information.
    unsafe { asm!("{number} = {number}", number = inout(reg) number, options(pure, nomem, nostack)) };
    number
}
