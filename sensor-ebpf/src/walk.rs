//! `iter/task` and `iter/task_file`: what was there before us, and who holds a listener now.
//!
//! The kernel calls an iterator once per item and once more, with null pointers, at the end. What it writes to the
//! sequence file is what the agent reads. First kernel: 5.8.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::bpf_seq_write;
use sensor_common::record::{ListenerItem, TaskItem};

use crate::kernel::{Direct, File, Task};
use crate::maps::reports_listener;

/// `struct bpf_iter__task`.
#[repr(C)]
struct TaskContext {
    meta: *const *mut c_void,
    task: *const u8,
}

/// `struct bpf_iter__task_file`.
#[repr(C)]
struct TaskFileContext {
    meta: *const *mut c_void,
    task: *const u8,
    fd: u64,
    file: *const u8,
}

/// Writes one [`TaskItem`] per process.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
extern "C" fn walk_tasks(ctx: *const TaskContext) -> i32 {
    // SAFETY: the kernel hands over a context of this type.
    let (meta, task) = unsafe { ((*ctx).meta, (*ctx).task) };
    if task.is_null() {
        return 0;
    }
    let task = Task::<Direct>::new(task);
    if task.tgid() != task.thread_id() {
        return 0;
    }
    let mut item = MaybeUninit::<TaskItem>::uninit();
    let to = item.as_mut_ptr();
    // SAFETY: `to` points to room for an item, and every member is written.
    unsafe {
        let parent = task.parent();
        task.identify(&raw mut (*to).task);
        (*to).cgroup = task.cgroup_id();
        (*to).parent_pid = parent.tgid();
        (*to).reserved = 0;
        (*to).parent_start_ns = parent.start_ns();
        write(meta, to)
    }
}

/// Writes one [`ListenerItem`] per descriptor of a listening TCP socket on a watched port or of a runtime process, in all
/// network namespaces.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn walk_listeners(ctx: *const TaskFileContext) -> i32 {
    // SAFETY: the kernel hands over a context of this type.
    let (meta, task, file) = unsafe { ((*ctx).meta, (*ctx).task, (*ctx).file) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    let Some(sock) = File::<Direct>::new(file).socket() else { return 0 };
    if !sock.is_listener() {
        return 0;
    }
    let port = sock.local_port();
    let task = Task::<Direct>::new(task);
    if !reports_listener(port, task.tgid()) {
        return 0;
    }
    let mut item = MaybeUninit::<ListenerItem>::uninit();
    let to = item.as_mut_ptr();
    // SAFETY: `to` points to room for an item, and every member is written.
    unsafe {
        (*to).sock = sock.key();
        (*to).cgroup = sock.cgroup_id();
        task.identify(&raw mut (*to).task);
        (*to).task_cgroup = task.cgroup_id();
        sock.ends(port, &raw mut (*to).ends);
        write(meta, to)
    }
}

/// Appends an item to the sequence file. When its buffer is full the kernel hands the buffer to the reader and calls us
/// with the same item again.
///
/// # Safety
/// `meta` must be the first member of an iterator's context, `item` must point to an item.
#[inline(always)]
unsafe fn write<T>(meta: *const *mut c_void, item: *const T) -> i32 {
    // SAFETY: the sequence file is the first member of `struct bpf_iter_meta`.
    unsafe { bpf_seq_write((*meta).cast(), item.cast_mut().cast(), size_of::<T>() as u32) };
    0
}
