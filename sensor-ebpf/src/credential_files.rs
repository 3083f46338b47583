//! Opens of credential files.
//!
//! Prototype (Linux 6.18): `security_file_open(struct file *file)`, which is the hook of the security modules as well; in
//! the context of the task that opens. Both run for every open of the node, so whether a file matters is decided by two
//! bits: one for its file system, as tokens of service accounts have one of their own, one for its directory, as the
//! files of a directory are replaced one by one.

use aya_ebpf::macros::{fentry, lsm};
use aya_ebpf::programs::{FEntryContext, LsmContext};
use sensor_common::record::{FileId, FileOpenRecord, RecordKind, Ring};

use crate::budgets::bears_file;
use crate::emit::{count_suppressed, emit, now};
use crate::kernel::{Direct, File, current_cgroup_id, with_current};
use crate::maps::has_credentials;

/// Reports an open.
#[lsm(hook = "file_open")]
pub fn lsm_file_open(ctx: LsmContext) -> i32 {
    opened(File::new(ctx.arg(0)));
    0
}

/// Like [`lsm_file_open`], where programs do not run as security modules.
#[fentry(function = "security_file_open")]
pub fn fentry_file_open(ctx: FEntryContext) -> i32 {
    opened(File::new(ctx.arg(0)));
    0
}

#[inline(always)]
fn opened(file: File<Direct>) {
    if let Some(place) = place_of(file)
        && file.is_readable()
    {
        report(file, place);
    }
}

/// The place of credential files that a file is in.
#[inline(always)]
fn place_of(file: File<Direct>) -> Option<FileId> {
    let file_system = file.file_system();
    if has_credentials(&file_system) {
        return Some(file_system);
    }
    let directory = file.directory();
    has_credentials(&directory).then_some(directory)
}

#[inline(always)]
fn report(file: File<Direct>, place: FileId) {
    let at = now();
    let cgroup = current_cgroup_id();
    if !bears_file(&cgroup, &place, at) {
        return count_suppressed(Ring::Bulk, RecordKind::FileOpen);
    }
    // Room in the ring and not in a map: a task that the kernel interrupts here for another one would lose what is in it.
    emit::<FileOpenRecord>(Ring::Bulk, RecordKind::FileOpen, at, |record| {
        // SAFETY: `record` points to room for the record.
        unsafe {
            (*record).place = place;
            (*record).path_len = file.path((&raw mut (*record).path).cast());
            (*record).reserved = 0;
            (*record).cgroup = cgroup;
            with_current!(|task| task.identify(&raw mut (*record).task));
        }
    });
}
