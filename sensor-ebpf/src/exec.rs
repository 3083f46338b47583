//! `sched_process_exec`: every successful exec.
//!
//! Prototype (Linux 6.18): `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`, called
//! in the context of the new program, with its name, credentials and memory in place.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;
use core::ptr;
use sensor_common::counters::Event;
use sensor_common::record::{
    ARGS_MAX, CGROUP_NAME_MAX, ExecRecord, FILENAME_MAX, RecordKind, Ring, exec_flags,
};
use sensor_common::settings::{cgroup_class, runtime_process};

use crate::budgets::ring_for;
use crate::constants::setting;
use crate::emit::{count_event, now, output};
use crate::kernel::{Direct, Program, Task, copy_from_user, copy_string, current_cgroup_id, opaque};
use crate::maps::{EXEC_SCRATCH, EXEC_TAIL, RUNTIME_PROCESSES, TOOLS, class_of};

/// Covers the length of a cgroup name, for the verifier.
const NAME_MASK: u64 = 255;
/// Covers the length of a file name, for the verifier.
const FILENAME_MASK: u64 = 1023;
/// Covers the length of arguments less one, for the verifier.
const ARGS_MASK: u64 = ARGS_MAX as u64 - 1;

const _: () = assert!(CGROUP_NAME_MAX as u64 <= NAME_MASK && FILENAME_MAX as u64 <= FILENAME_MASK);
const _: () = assert!((NAME_MASK + FILENAME_MASK + ARGS_MASK + 1) as usize <= EXEC_TAIL);

/// Reports an exec.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    if let Err(event) = executed(&ctx) {
        count_event(event);
        debug!(&ctx, "sched_process_exec: event {}", event as u32);
    }
    0
}

#[inline(always)]
fn executed(ctx: &BtfTracePointContext) -> Result<(), Event> {
    let at = now();
    let task = Task::<Direct>::new(ctx.arg(0));
    let program = Program::<Direct>::new(ctx.arg(2));
    let Some(scratch) = EXEC_SCRATCH.get_ptr_mut(0) else { return Ok(()) };
    // SAFETY: `scratch` is this CPU's; nothing else uses it while this program runs.
    let (record, tail) = unsafe { (&mut (*scratch).record, (&raw mut (*scratch).tail).cast::<u8>()) };

    task.identify(&raw mut record.task);
    record.cgroup = current_cgroup_id();
    record.mnt_ns = task.mount_namespace();
    (record.pid_ns, record.ns_pid) = task.namespaced_pid();
    let parent = task.parent();
    let loaded = program.file();
    let flags = Flags::cleared(&mut record.flags);
    mark_place(flags, record, task, parent);
    flags.set(loaded.name_flags());
    if program.is_script() {
        flags.set(exec_flags::SCRIPT);
    }
    let place = Place { tgid: record.task.pid, flags: flags.get() };
    record.exe = loaded.id();
    record.exe_changed_ns = loaded.changed_ns();
    record.root = task.root();
    record.ancestors_len = write_ancestors(record, parent, place.is_ordinary());

    // SAFETY: the tail has room for the greatest lengths of its three parts together, and for the name at its beginning.
    let (name, file, args) = unsafe {
        // The agent knows the names of the cgroups that it has told us are the host's.
        let name = if place.is_of_host() {
            0
        } else {
            copy_string(tail, CGROUP_NAME_MAX as u32 + 1, task.cgroup().name()).unwrap_or(0) & NAME_MASK
        };
        let at = tail.add(name as usize);
        let file = copy_string(at, FILENAME_MAX as u32 + 1, program.file_name()).unwrap_or(0) & FILENAME_MASK;
        (name, file, copy_arguments(record, at.add(file as usize), task))
    };
    record.cgroup_name_len = name as u16;
    record.filename_len = file as u16;
    record.args_len = args as u16;
    let len = size_of::<ExecRecord>() as u64 + name + file + args;
    let ring = if place.is_management() { ring_for(&record.cgroup, at) } else { Ring::Bulk };
    output(ring, RecordKind::Exec, at, scratch.cast::<ExecRecord>(), len);

    if record.flags & exec_flags::ARGS_UNREADABLE != 0 {
        count_event(Event::ReadFailed);
    }
    // SAFETY: the file name begins within the tail, which is more than eight bytes longer than what is before it.
    let beginning = unsafe { ptr::read_unaligned(tail.add(name as usize).cast()) };
    place.remember(task, parent, is_indirect(u64::from_be_bytes(beginning)))
}

/// Copies the arguments and returns how many bytes of them.
///
/// # Safety
/// `to` must point to room for [`ARGS_MAX`] bytes.
#[inline(always)]
unsafe fn copy_arguments(record: &mut ExecRecord, to: *mut u8, task: Task<Direct>) -> u64 {
    let (start, end) = task.arguments();
    record.args_total = end.saturating_sub(start);
    let wanted = record.args_total.min(setting!(args_max)).min(ARGS_MAX as u64);
    if wanted == 0 {
        return 0;
    }
    let len = (opaque(wanted - 1) & ARGS_MASK) + 1;
    // SAFETY: `len` is at most `ARGS_MAX`.
    if unsafe { copy_from_user(to, len as u32, start) } {
        len
    } else {
        record.flags |= exec_flags::ARGS_UNREADABLE;
        0
    }
}

/// Writes the ancestors and returns their number. Of an ordinary process of the host the parent is enough: it is in no
/// output but as somebody's ancestor, and the agent has its exec.
#[inline(always)]
fn write_ancestors(record: &mut ExecRecord, parent: Task<Direct>, parent_only: bool) -> u16 {
    let mut ancestor = parent;
    let mut len = 0;
    for slot in &mut record.ancestors {
        // The parent of the first process is the idle task, whose number is 0.
        if ancestor.tgid() == 0 {
            break;
        }
        ancestor.identify_ancestor(slot);
        len += 1;
        if parent_only {
            break;
        }
        ancestor = ancestor.parent();
    }
    len
}

/// Whether a program was named through a descriptor or procfs, as runtimes do that execute themselves again.
/// `beginning` is the first eight bytes of the file name, the first of them most significant.
#[inline(always)]
fn is_indirect(beginning: u64) -> bool {
    beginning == u64::from_be_bytes(*b"/dev/fd/") || beginning >> 16 == u64::from_be_bytes(*b"\0\0/proc/")
}

/// What a process that has executed a program is to the runtimes.
///
/// - A program of the tool table counts as a runtime only in a cgroup that is known to be the host's: a container may
///   call its programs as it likes and must not get a say on the management ring.
/// - A process that a runtime forked is on the management ring with its first exec. That is how a container starts; if
///   it is not the runtime that executes itself once more, in the mount namespace it came from, it is no runtime after.
/// - In a cgroup that nobody has classified yet the child of a runtime counts too, should its fork have been before our
///   time; but not in known containers, where processes of a container in the host's pid namespace become children of
///   the shim as they like.
#[derive(Clone, Copy)]
struct Place {
    tgid: u32,
    /// Bits of [`exec_flags`].
    flags: u32,
}

/// Sets the flags that say what a process is to the runtimes.
#[inline(always)]
fn mark_place(flags: Flags, record: &ExecRecord, task: Task<Direct>, parent: Task<Direct>) {
    let class = class_of(&record.cgroup);
    if TOOLS.get_ptr(task.name()).is_some() {
        flags.set(exec_flags::TOOL);
    }
    let is_new = class != cgroup_class::HOST && class != cgroup_class::CONTAINER;
    if RUNTIME_PROCESSES.get_ptr(record.task.pid).is_some()
        || is_new && RUNTIME_PROCESSES.get_ptr(parent.tgid()).is_some()
    {
        flags.set(exec_flags::RUNTIME_LINEAGE);
    }
    if class != cgroup_class::HOST {
        flags.set(exec_flags::NOT_HOST_CGROUP);
    }
}

/// Flags that lie in memory at all times. What is read back from there the verifier takes for any number. In a register it
/// would know each combination of bits, and follow each one through all that comes after.
#[derive(Clone, Copy)]
struct Flags(*mut u32);

impl Flags {
    #[inline(always)]
    fn cleared(flags: *mut u32) -> Self {
        // SAFETY: points to the flags of a record.
        unsafe { ptr::write_volatile(flags, 0) };
        Self(flags)
    }

    #[inline(always)]
    fn get(self) -> u32 {
        // SAFETY: as above.
        unsafe { ptr::read_volatile(self.0) }
    }

    #[inline(always)]
    fn set(self, bits: u32) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(self.0, self.get() | bits) };
    }
}

impl Place {
    #[inline(always)]
    fn is_of_host(self) -> bool {
        self.flags & exec_flags::NOT_HOST_CGROUP == 0
    }

    /// Whether it is a program of a runtime, run by the host.
    #[inline(always)]
    fn is_tool(self) -> bool {
        self.flags & exec_flags::TOOL != 0 && self.is_of_host()
    }

    #[inline(always)]
    fn is_lineage(self) -> bool {
        self.flags & exec_flags::RUNTIME_LINEAGE != 0
    }

    /// Whether it is a process of the host that has nothing to do with containers.
    #[inline(always)]
    fn is_ordinary(self) -> bool {
        self.is_of_host() && self.flags & (exec_flags::TOOL | exec_flags::RUNTIME_LINEAGE) == 0
    }

    /// Whether the record is one of the management plane.
    #[inline(always)]
    fn is_management(self) -> bool {
        self.is_tool() || self.is_lineage()
    }

    /// Keeps `RUNTIME_PROCESSES`.
    #[inline(always)]
    fn remember(self, task: Task<Direct>, parent: Task<Direct>, indirect: bool) -> Result<(), Event> {
        let executes_itself =
            self.is_lineage() && indirect && task.mount_namespace() == parent.mount_namespace();
        if self.is_tool() || executes_itself {
            let inserted = RUNTIME_PROCESSES.insert(self.tgid, runtime_process::TOOL, 0);
            return inserted.map_err(|_| Event::UntrackedProcess);
        }
        if self.is_lineage() {
            // Fails when it is gone already, or was never there.
            let _ = RUNTIME_PROCESSES.remove(self.tgid);
        }
        Ok(())
    }
}
