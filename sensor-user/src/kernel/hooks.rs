//! The hooks, as data.

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// To a tracepoint, with typed arguments.
    Tracepoint(&'static str),
    /// Run on demand, over all items of a kind.
    Iterator(&'static str),
}

/// One program and its place in the kernel.
#[derive(Clone, Copy, Debug)]
pub struct HookSpec {
    /// Name of the hook, for people.
    pub name: &'static str,
    /// Name of the program in the object.
    pub program: &'static str,
    /// Where it goes.
    pub attach: Attach,
    /// Without a required hook nothing the sensor says can be trusted, and it does not start.
    pub required: bool,
}

/// Every hook, in the order of attachment: processes before what they do.
pub const TABLE: &[HookSpec] = &[
    tracepoint("tp_btf/sched_process_fork", "sched_process_fork"),
    tracepoint("tp_btf/sched_process_exec", "sched_process_exec"),
    tracepoint("tp_btf/sched_process_exit", "sched_process_exit"),
    tracepoint("tp_btf/cgroup_mkdir", "cgroup_mkdir"),
    tracepoint("tp_btf/cgroup_rmdir", "cgroup_rmdir"),
    tracepoint("tp_btf/inet_sock_set_state", "inet_sock_set_state"),
    iterator("iter/task", WALK_TASKS, "task"),
    iterator("iter/task_file", WALK_LISTENERS, "task_file"),
];

/// Program that walks all processes.
pub const WALK_TASKS: &str = "walk_tasks";
/// Program that walks all holders of watched listeners.
pub const WALK_LISTENERS: &str = "walk_listeners";

const fn tracepoint(name: &'static str, program: &'static str) -> HookSpec {
    HookSpec { name, program, attach: Attach::Tracepoint(program), required: true }
}

const fn iterator(name: &'static str, program: &'static str, target: &'static str) -> HookSpec {
    // Without it the sensor is blind for what was there before it, which it says.
    HookSpec { name, program, attach: Attach::Iterator(target), required: false }
}
