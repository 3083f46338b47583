//! `struct task_struct`: who does something.

use core::ptr;

use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_task, bpf_get_current_task_btf,
};
use sensor_common::record::{Ancestor, CgroupId, FileId, TaskId};
use sensor_common::settings::HIERARCHY_V2;

use super::file::id_of;
use super::{Access, Cgroup, Direct, Pointer, Probed, Task, opaque};
use crate::constants::{ABSENT, offset, setting};

/// Covers `pid.numbers`, for the verifier: 33 levels of at most 31 bytes.
const NUMBERS_MASK: u64 = 1023;

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

/// Cgroup of the current task, as [`Task::cgroup_id`] reads it. The helper has the verifier follow no pointers, see
/// [`super::Sock::as_tcp`].
#[inline(always)]
pub fn current_cgroup_id() -> CgroupId {
    if setting!(task_hierarchy) == u64::from(HIERARCHY_V2) {
        // SAFETY: the helper has no preconditions.
        let id = unsafe { bpf_get_current_cgroup_id() };
        CgroupId { id, hierarchy: setting!(task_hierarchy_id) as u32, reserved: 0 }
    } else {
        with_current!(|task| task.cgroup_id())
    }
}

impl<A: Access> Task<A> {
    /// Its address, for helpers.
    #[inline(always)]
    pub fn address(self) -> *mut core::ffi::c_void {
        self.0.address.cast_mut().cast()
    }

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

    /// Name as the kernel has it: kernels before 5.15 leave remains of longer names behind the first NUL.
    #[inline(always)]
    fn raw_name(self) -> [u64; 2] {
        let at = offset!(task_comm);
        [self.0.load(at), self.0.load(at.wrapping_add(8))]
    }

    /// Name, NUL padded.
    #[inline(always)]
    pub fn name(self) -> [u64; 2] {
        let [first, second] = self.raw_name();
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
            ptr::write((&raw mut (*to).comm).cast(), self.raw_name());
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
            ptr::write((&raw mut (*to).comm).cast(), self.raw_name());
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
        // Masked behind the multiplication: older verifiers (6.1 seen) keep no bounds of a product of two registers, and
        // refuse to add an unbounded number to a typed pointer.
        let behind = opaque(u64::from(level) * offset!(upid_size)) & NUMBERS_MASK;
        let number = pid.probed().address.wrapping_add(behind as usize).wrapping_add(at as usize);
        let number = Pointer::<Probed>::new(number);
        (number.follow(offset!(upid_ns)).load(offset!(pidns_inum)), number.load(offset!(upid_nr)))
    }

    /// Its root directory.
    #[inline(always)]
    pub fn root(self) -> FileId {
        let root = self.0.follow(offset!(task_fs)).follow(offset!(fs_root));
        id_of(root.follow(offset!(dentry_inode)))
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
