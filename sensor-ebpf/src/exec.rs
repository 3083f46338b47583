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
    ANCESTORS_MAX, ARGS_MAX, CGROUP_NAME_MAX, ExecRecord, FILENAME_MAX, RecordKind, Ring, exec_flags,
};
use sensor_common::settings::{cgroup_class, runtime_process};

use crate::emit::{count_event, now, output};
use crate::kernel::{Direct, Program, Task, copy_from_user, copy_string, opaque};
use crate::maps::{EXEC_SCRATCH, EXEC_TAIL, RUNTIME_PROCESSES, TOOLS, class_of, setting};

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
    record.cgroup = task.cgroup_id();
    record.mnt_ns = task.mount_namespace();
    (record.pid_ns, record.ns_pid) = task.namespaced_pid();
    record.flags = 0;
    write_ancestors(record, task);

    // SAFETY: the tail has room for the greatest lengths of its three parts together.
    let (name, file, args) = unsafe {
        let name = copy_string(tail, CGROUP_NAME_MAX as u32 + 1, task.cgroup().name()).unwrap_or(0) & NAME_MASK;
        let at = tail.add(name as usize);
        let file = copy_string(at, FILENAME_MAX as u32 + 1, program.file_name()).unwrap_or(0) & FILENAME_MASK;
        (name, file, copy_arguments(record, at.add(file as usize), task))
    };
    record.cgroup_name_len = name as u16;
    record.filename_len = file as u16;
    record.args_len = args as u16;

    // SAFETY: the file name begins within the tail and is followed by more than eight bytes of it.
    let beginning = u64::from_be_bytes(unsafe { ptr::read(tail.add(name as usize).cast()) });
    let (ring, remembered) = place(record, task, is_indirect(beginning));
    let len = size_of::<ExecRecord>() as u64 + name + file + args;
    output(ring, RecordKind::Exec, at, scratch.cast::<ExecRecord>(), len);

    if record.flags & exec_flags::ARGS_UNREADABLE != 0 {
        count_event(Event::ReadFailed);
    }
    remembered
}

/// Copies the arguments and returns how many bytes of them.
///
/// # Safety
/// `to` must point to room for [`ARGS_MAX`] bytes.
#[inline(always)]
unsafe fn copy_arguments(record: &mut ExecRecord, to: *mut u8, task: Task<Direct>) -> u64 {
    let (start, end) = task.arguments();
    record.args_total = end.saturating_sub(start);
    let wanted = record.args_total.min(u64::from(setting!(args_max))).min(ARGS_MAX as u64);
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

#[inline(always)]
fn write_ancestors(record: &mut ExecRecord, task: Task<Direct>) {
    let mut ancestor = task;
    let mut len = 0;
    for slot in &mut record.ancestors {
        ancestor = ancestor.parent();
        // The parent of the first process is the idle task, whose number is 0.
        if ancestor.tgid() == 0 {
            break;
        }
        ancestor.identify_ancestor(slot);
        len += 1;
    }
    record.ancestors_len = len;
}

const _: () = assert!(ANCESTORS_MAX > 0);

/// Whether a program was named through a descriptor or procfs, as runtimes do that execute themselves again.
/// `beginning` is the first eight bytes of the file name, the first of them most significant.
#[inline(always)]
fn is_indirect(beginning: u64) -> bool {
    beginning == u64::from_be_bytes(*b"/dev/fd/") || beginning >> 16 == u64::from_be_bytes(*b"\0\0/proc/")
}

/// Decides what the process is to the runtimes: sets the flags, keeps `RUNTIME_PROCESSES`, returns the ring.
///
/// - A program of the tool table counts as a runtime only in a cgroup that is known to be the host's: a container may
///   call its programs as it likes and must not get a say on the management ring.
/// - A process that a runtime forked is on the management ring with its first exec. That is how a container starts; if
///   it is not the runtime that executes itself once more, in the mount namespace it came from, it is no runtime after.
/// - The child of a runtime counts too, for a runtime whose fork was before our time; but not in known containers,
///   where processes of a container in the host's pid namespace become children of the shim as they like.
#[inline(always)]
fn place(record: &mut ExecRecord, task: Task<Direct>, indirect: bool) -> (Ring, Result<(), Event>) {
    let tgid = record.task.pid;
    let class = class_of(&record.cgroup);
    let named = TOOLS.get_ptr(task.name()).is_some();
    let forked = RUNTIME_PROCESSES.get_ptr(tgid).is_some();
    let child = class != cgroup_class::CONTAINER && RUNTIME_PROCESSES.get_ptr(record.ancestors[0].pid).is_some();

    let tool = named && class == cgroup_class::HOST;
    let lineage = forked || child;
    if named {
        record.flags |= exec_flags::TOOL;
    }
    if lineage {
        record.flags |= exec_flags::RUNTIME_LINEAGE;
    }
    if class != cgroup_class::HOST {
        record.flags |= exec_flags::NOT_HOST_CGROUP;
    }

    let stays = tool || lineage && indirect && task.parent().mount_namespace() == record.mnt_ns;
    let mut remembered = Ok(());
    if stays {
        remembered =
            RUNTIME_PROCESSES.insert(tgid, runtime_process::TOOL, 0).map_err(|_| Event::UntrackedProcess);
    } else if forked {
        // Fails only when it is gone already.
        let _ = RUNTIME_PROCESSES.remove(tgid);
    }
    (if tool || lineage { Ring::Management } else { Ring::Bulk }, remembered)
}
