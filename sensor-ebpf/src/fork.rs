//! `sched_process_fork`: every new process, with its true forker.
//!
//! Prototype (Linux 6.18): `sched_process_fork(struct task_struct *parent, struct task_struct *child)`, called in the
//! context of the thread that forks, before the child can run.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;
use sensor_common::counters::Event;
use sensor_common::record::{ForkRecord, RecordKind, Ring};
use sensor_common::settings::runtime_process;

use crate::budgets::ring_for;
use crate::emit::{count_event, emit, now};
use crate::kernel::{Direct, Task, current_cgroup_id};
use crate::maps::RUNTIME_PROCESSES;

/// Reports a new process.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    if let Err(event) = forked(&ctx) {
        count_event(event);
        debug!(&ctx, "sched_process_fork: event {}", event as u32);
    }
    0
}

#[inline(always)]
fn forked(ctx: &BtfTracePointContext) -> Result<(), Event> {
    let parent = Task::<Direct>::new(ctx.arg(0));
    let child = Task::<Direct>::new(ctx.arg(1));
    let tgid = child.tgid();
    if tgid != child.thread_id() {
        return Ok(());
    }
    let parent_tgid = parent.tgid();
    let of_runtime = RUNTIME_PROCESSES.get_ptr(parent_tgid).is_some();
    let remembered = if of_runtime {
        RUNTIME_PROCESSES.insert(tgid, runtime_process::FORKED, 0).map_err(|_| Event::UntrackedProcess)
    } else {
        Ok(())
    };
    let at = now();
    let ring = if of_runtime { ring_for(&current_cgroup_id(), at) } else { Ring::Bulk };
    emit::<ForkRecord>(ring, RecordKind::Fork, at, |record| {
        // SAFETY: `record` points to room for the record.
        unsafe {
            child.identify(&raw mut (*record).child);
            (*record).parent_pid = parent_tgid;
            (*record).reserved = 0;
            (*record).parent_start_ns = parent.leader().start_ns();
        }
    });
    remembered
}
