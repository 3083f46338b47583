//! `cgroup_mkdir` and `cgroup_rmdir`: cgroups come and go.
//!
//! Prototypes (Linux 6.18): `cgroup_mkdir(struct cgroup *cgrp, const char *path)`, `cgroup_rmdir` likewise; called in
//! the context of the task that makes or removes the directory. On hosts with version 1 hierarchies a container has a
//! cgroup in each; only the version 2 hierarchy and the one that names tasks are reported.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;
use sensor_common::counters::Event;
use sensor_common::record::{CGROUP_PATH_MAX, CgroupId, CgroupRecord, RecordKind};

use crate::budgets::ring_for;
use crate::constants::setting;
use crate::emit::{count_event, now, output};
use crate::kernel::{Cgroup, Direct, copy_string, current_cgroup_id, with_current};
use crate::maps::CGROUP_SCRATCH;

/// Covers the length of a path, for the verifier.
const PATH_MASK: u64 = 2 * CGROUP_PATH_MAX as u64 - 1;

const _: () = assert!(CGROUP_PATH_MAX.is_power_of_two());

/// Reports a new cgroup.
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    report(&ctx, RecordKind::CgroupMkdir)
}

/// Reports the end of a cgroup.
#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    report(&ctx, RecordKind::CgroupRmdir)
}

#[inline(always)]
fn report(ctx: &BtfTracePointContext, kind: RecordKind) -> i32 {
    if let Err(event) = changed(ctx, kind) {
        count_event(event);
        debug!(ctx, "cgroup kind {}: event {}", kind as u16, event as u32);
    }
    0
}

#[inline(always)]
fn changed(ctx: &BtfTracePointContext, kind: RecordKind) -> Result<(), Event> {
    let cgroup = Cgroup::<Direct>::new(ctx.arg(0));
    let hierarchy = cgroup.hierarchy();
    if hierarchy != 0 && hierarchy != setting!(task_hierarchy_id) as u32 {
        return Ok(());
    }
    let at = now();
    let Some(scratch) = CGROUP_SCRATCH.get_ptr_mut(0) else { return Ok(()) };
    // SAFETY: `scratch` is this CPU's; nothing else uses it while this program runs.
    let (record, tail) = unsafe { (&mut (*scratch).record, (&raw mut (*scratch).tail).cast::<u8>()) };
    record.cgroup = CgroupId { id: cgroup.id(), hierarchy, reserved: 0 };
    record.reserved = 0;
    with_current!(|task| task.identify(&raw mut record.task));
    let ring = ring_for(&current_cgroup_id(), at);
    // SAFETY: the tail has room for the path and its NUL.
    let path = unsafe { copy_string(tail, CGROUP_PATH_MAX as u32 + 1, ctx.arg(1)) };
    let path_len = path.unwrap_or(0) & PATH_MASK;
    record.path_len = path_len as u32;
    let len = size_of::<CgroupRecord>() as u64 + path_len;
    output(ring, kind, at, scratch.cast::<CgroupRecord>(), len);
    if path.is_some() { Ok(()) } else { Err(Event::ReadFailed) }
}
