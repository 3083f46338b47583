//! The hooks, as data.

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// To a tracepoint, with typed arguments.
    Tracepoint(&'static str),
    /// Run on demand, over all items of a kind.
    Iterator(&'static str),
    /// To the beginning of a kernel function.
    FEntry(&'static str),
    /// To the end of a kernel function. Where its result lies depends on how many parameters it has.
    FExit {
        /// Its name.
        function: &'static str,
        /// The number of parameters the program is written for.
        parameters: u32,
    },
    /// To a hook of the security modules; runs only where `bpf` is among the active ones.
    Lsm(&'static str),
    /// To the packets of all sockets of the node, at the root of the version 2 cgroups.
    CgroupSkb(PacketDirection),
}

impl Attach {
    /// Name of the typedef or function by whose id the kernel is told where to attach a program, where there is one.
    #[must_use]
    pub fn type_name(self) -> Option<String> {
        match self {
            Self::Tracepoint(name) => Some(format!("btf_trace_{name}")),
            Self::Iterator(name) => Some(format!("bpf_iter_{name}")),
            Self::Lsm(name) => Some(format!("bpf_lsm_{name}")),
            Self::FEntry(function) | Self::FExit { function, .. } => Some(function.to_owned()),
            Self::CgroupSkb(_) => None,
        }
    }
}

/// Which packets a program on [`Attach::CgroupSkb`] sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketDirection {
    /// Those on their way to a socket.
    Ingress,
    /// Those that come from a socket.
    Egress,
}

/// Something that one of several programs can do, depending on the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Reports connects to the sockets of runtimes.
    SocketConnects,
    /// Reports what is said on these connections.
    SocketRequests,
    /// Reports opens of credential files.
    CredentialFiles,
    /// Names the task that takes an accepted connection.
    AcceptTasks,
}

/// What becomes of the sensor without a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing the sensor says could be trusted: it does not start.
    Required,
    /// It is blind for something, which it says.
    Optional,
    /// The next program in the table that has the same feature takes its place.
    OneOf(Feature),
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
    /// What it is worth.
    pub need: Need,
    /// Another feature that it has: no program is needed for that where this one is attached.
    pub also: Option<Feature>,
}

use Feature::{AcceptTasks, CredentialFiles, SocketConnects, SocketRequests};

/// Every hook, in the order of attachment: processes before what they do, and of the programs that share a feature the
/// one that sees most first.
pub const TABLE: &[HookSpec] = &[
    tracepoint("tp_btf/sched_process_fork", "sched_process_fork"),
    tracepoint("tp_btf/sched_process_exec", "sched_process_exec"),
    tracepoint("tp_btf/sched_process_exit", "sched_process_exit"),
    tracepoint("tp_btf/cgroup_mkdir", "cgroup_mkdir"),
    tracepoint("tp_btf/cgroup_rmdir", "cgroup_rmdir"),
    // Before the accepts: an attempt that is not seen must not look like one that another peer completed.
    packets("cgroup_skb/ingress", PACKETS_IN, PacketDirection::Ingress),
    packets("cgroup_skb/egress", PACKETS_OUT, PacketDirection::Egress),
    tracepoint("tp_btf/inet_sock_set_state", SOCKETS),
    one_of(SocketConnects, "lsm/unix_stream_connect", "lsm_unix_connect", Attach::Lsm("unix_stream_connect")),
    one_of(
        SocketConnects,
        "fentry/security_unix_stream_connect",
        "fentry_unix_connect",
        Attach::FEntry("security_unix_stream_connect"),
    ),
    HookSpec {
        also: Some(SocketRequests),
        ..one_of(SocketConnects, SK_DATA_READY, "unix_data_ready", Attach::Tracepoint("sk_data_ready"))
    },
    one_of(SocketRequests, SK_DATA_READY, "unix_requests", Attach::Tracepoint("sk_data_ready")),
    one_of(
        SocketRequests,
        "fentry/sock_def_readable",
        "fentry_unix_requests",
        Attach::FEntry("sock_def_readable"),
    ),
    one_of(CredentialFiles, "lsm/file_open", "lsm_file_open", Attach::Lsm("file_open")),
    one_of(
        CredentialFiles,
        "fentry/security_file_open",
        "fentry_file_open",
        Attach::FEntry("security_file_open"),
    ),
    one_of(AcceptTasks, ACCEPT, "accept_task", Attach::FExit { function: "inet_csk_accept", parameters: 2 }),
    one_of(
        AcceptTasks,
        ACCEPT,
        "accept_task_of_four",
        Attach::FExit { function: "inet_csk_accept", parameters: 4 },
    ),
    iterator("iter/task", WALK_TASKS, "task"),
    iterator("iter/task_file", WALK_LISTENERS, "task_file"),
];

/// Hook of the two programs that see what is put into the queue of a socket.
const SK_DATA_READY: &str = "tp_btf/sk_data_ready";
/// Hook of the two programs that name the task which takes a connection.
const ACCEPT: &str = "fexit/inet_csk_accept";
/// Program without which the sensor has no purpose.
pub const SOCKETS: &str = "inet_sock_set_state";
/// Program that looks at packets on their way to a socket.
pub const PACKETS_IN: &str = "packets_in";
/// Program that looks at packets on their way from a socket.
pub const PACKETS_OUT: &str = "packets_out";
/// Program that walks all processes.
pub const WALK_TASKS: &str = "walk_tasks";
/// Program that walks all holders of watched listeners.
pub const WALK_LISTENERS: &str = "walk_listeners";

const fn tracepoint(name: &'static str, program: &'static str) -> HookSpec {
    HookSpec { name, program, attach: Attach::Tracepoint(program), need: Need::Required, also: None }
}

const fn packets(name: &'static str, program: &'static str, direction: PacketDirection) -> HookSpec {
    HookSpec { name, program, attach: Attach::CgroupSkb(direction), need: Need::Optional, also: None }
}

const fn one_of(feature: Feature, name: &'static str, program: &'static str, attach: Attach) -> HookSpec {
    HookSpec { name, program, attach, need: Need::OneOf(feature), also: None }
}

const fn iterator(name: &'static str, program: &'static str, target: &'static str) -> HookSpec {
    // Without it the sensor is blind for what was there before it, which it says.
    HookSpec { name, program, attach: Attach::Iterator(target), need: Need::Optional, also: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_one_place() {
        for (index, spec) in TABLE.iter().enumerate() {
            let same = TABLE[..index].iter().find(|other| other.program == spec.program);
            assert!(same.is_none(), "{} is in the table twice", spec.program);
        }
    }
}
