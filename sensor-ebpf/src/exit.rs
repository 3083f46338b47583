//! `sched_process_exit`: the end of every process.
//!
//! Prototype: `sched_process_exit(struct task_struct *p)`, with `bool group_dead` behind it from Linux 6.16 on; called
//! for every thread, in its context.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use sensor_common::record::{ExitRecord, RecordKind, Ring};

use crate::budgets::ring_for;
use crate::constants::{ABSENT, offset};
use crate::emit::{emit, now};
use crate::kernel::{Direct, Task, current_cgroup_id};
use crate::maps::RUNTIME_PROCESSES;

/// Arguments of the tracepoint, its hidden first one included, where `group_dead` is one of them.
const ARGS_WITH_GROUP_DEAD: u64 = 3;

/// Reports the end of a process.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    exited(&ctx);
    0
}

#[inline(always)]
fn exited(ctx: &BtfTracePointContext) {
    let task = Task::<Direct>::new(ctx.arg(0));
    let args = offset!(exit_args);
    // The last thread reports, not the leader: a leader that exits first leaves a process behind that is still at work.
    let last = if args != ABSENT && args >= ARGS_WITH_GROUP_DEAD {
        ctx.arg::<u8>(1) != 0
    } else {
        task.all_threads_exiting()
    };
    if !last {
        return;
    }
    let tgid = task.tgid();
    let of_runtime = RUNTIME_PROCESSES.get_ptr(tgid).is_some();
    if of_runtime {
        // Fails only when it is gone already.
        let _ = RUNTIME_PROCESSES.remove(tgid);
    }
    let at = now();
    let ring = if of_runtime { ring_for(&current_cgroup_id(), at) } else { Ring::Bulk };
    emit::<ExitRecord>(ring, RecordKind::Exit, at, |record| {
        // SAFETY: `record` points to room for the record.
        unsafe {
            task.leader().identify(&raw mut (*record).task);
            (*record).cgroup = current_cgroup_id();
            (*record).exit_code = task.exit_code();
            (*record).reserved = 0;
        }
    });
}
