//! The table of what each capability needs: hooks in place, and the signs of canaries.

use crate::canary::Sign;
use crate::health::{Capability, CoverageState};

/// Something that a capability needs, and what its absence costs.
pub(super) struct Need {
    pub(super) what: What,
    pub(super) capability: Capability,
    pub(super) without: CoverageState,
    pub(super) cost: &'static str,
}

/// What is needed.
pub(super) enum What {
    /// A program in place.
    Hook(&'static str),
    /// One of several programs in place: those that see most first, each with what it does not see.
    OneOf(&'static [(&'static str, Option<&'static str>)]),
    /// A record of the sensor's own acts; asked for only while the program that makes it is in place.
    Sign(Sign),
}

const fn hook(
    program: &'static str,
    capability: Capability,
    without: CoverageState,
    cost: &'static str,
) -> Need {
    Need { what: What::Hook(program), capability, without, cost }
}

const fn sign(sign: Sign, capability: Capability, without: CoverageState, cost: &'static str) -> Need {
    Need { what: What::Sign(sign), capability, without, cost }
}

const fn one_of(
    programs: &'static [(&'static str, Option<&'static str>)],
    capability: Capability,
    cost: &'static str,
) -> Need {
    Need { what: What::OneOf(programs), capability, without: CoverageState::Blind, cost }
}

use Capability::{
    AcceptTasks, Accepts, Connects, Containers, CredentialFiles, Execs, Listeners, Requests, RuntimeSockets,
    Scans, SocketRequests,
};
use CoverageState::{Blind as IsBlind, Degraded};

/// What follows when answers are not captured.
const WITHOUT_ANSWERS: &str = "the status of a request is not read, and no container's cause is proved";

/// What follows for scans and floods when packets are not looked at.
const WITHOUT_PACKETS: &str = "half-open attempts are not seen; \
     a request on a connection whose accept was withheld is reported when it ends";

/// What follows where the hooks of the optional capabilities are missing, or silent.
const NO_SOCKET_CONNECT: &str = "no connect to the socket of a runtime is seen";
const NO_SOCKET_REQUEST: &str = "of what is asked on the sockets of runtimes only the connect is seen";
const NO_OPEN: &str = "no open of a credential file is seen";
const NO_TASK: &str = "which task takes a connection is not seen";

pub(super) const NEEDS: &[Need] = &[
    hook("inet_sock_set_state", Listeners, IsBlind, "no listener is seen"),
    hook("inet_sock_set_state", Accepts, IsBlind, "no accept is seen"),
    hook("inet_sock_set_state", Connects, IsBlind, "no connect is seen"),
    hook("walk_listeners", Listeners, Degraded, "listeners from before the start are unknown"),
    hook("walk_listeners", Accepts, Degraded, "the holder of a listening socket is not refreshed"),
    hook("sched_process_exec", Execs, IsBlind, "no exec is seen"),
    hook("sched_process_fork", Execs, Degraded, "the true parent of a process may be unknown"),
    hook("sched_process_exit", Execs, Degraded, "exits are not seen"),
    hook("walk_tasks", Execs, Degraded, "processes from before the start are unknown"),
    hook("sched_process_exec", Containers, Degraded, "starts of containers are not seen"),
    hook("cgroup_mkdir", Containers, IsBlind, "new containers are not recognised"),
    hook("cgroup_rmdir", Containers, Degraded, "the end of a container may be missed"),
    hook("inet_sock_set_state", Scans, IsBlind, "no flood is seen"),
    hook("packets_in", Scans, Degraded, WITHOUT_PACKETS),
    hook("packets_in", Requests, IsBlind, "no request is read"),
    hook("packets_out", Requests, Degraded, WITHOUT_ANSWERS),
    one_of(
        &[
            ("lsm_unix_connect", None),
            ("fentry_unix_connect", None),
            ("unix_data_ready", Some("connects that a security module refuses are not seen")),
        ],
        RuntimeSockets,
        NO_SOCKET_CONNECT,
    ),
    one_of(
        &[("unix_data_ready", None), ("unix_requests", None), ("fentry_unix_requests", None)],
        SocketRequests,
        NO_SOCKET_REQUEST,
    ),
    one_of(
        &[
            ("lsm_file_open", None),
            ("fentry_file_open", None),
            (
                FANOTIFY,
                Some(
                    "who opened is known only if the process lives long enough, and whether it was for reading is not",
                ),
            ),
        ],
        CredentialFiles,
        NO_OPEN,
    ),
    one_of(&[("accept_task", None), ("accept_task_of_four", None)], AcceptTasks, NO_TASK),
    sign(Sign::ListenerOpened, Listeners, IsBlind, "no listener is seen"),
    sign(Sign::ListenerClosed, Listeners, Degraded, "the end of a listener is not seen"),
    sign(Sign::Accept, Accepts, IsBlind, "no accept is seen"),
    sign(Sign::Accept, Scans, IsBlind, "no flood is seen"),
    sign(Sign::Attempt, Scans, Degraded, WITHOUT_PACKETS),
    sign(Sign::InboundClose, Accepts, Degraded, "the end of an accepted connection is not seen"),
    sign(Sign::Connect, Connects, IsBlind, "no connect is seen"),
    sign(Sign::OutboundClose, Connects, Degraded, "the end of a connect is not seen"),
    sign(Sign::Exec, Execs, IsBlind, "no exec is seen"),
    sign(Sign::Request, Requests, IsBlind, "no request is read"),
    sign(Sign::Answer, Requests, Degraded, WITHOUT_ANSWERS),
    sign(Sign::Fork, Execs, Degraded, "the true parent of a process may be unknown"),
    sign(Sign::Exit, Execs, Degraded, "exits are not seen"),
    sign(Sign::Exec, Containers, Degraded, "starts of containers are not seen"),
    sign(Sign::CgroupMade, Containers, IsBlind, "new containers are not recognised"),
    sign(Sign::CgroupRemoved, Containers, Degraded, "the end of a container may be missed"),
    sign(Sign::SocketConnect, RuntimeSockets, IsBlind, NO_SOCKET_CONNECT),
    sign(Sign::SocketRequest, SocketRequests, IsBlind, NO_SOCKET_REQUEST),
    sign(Sign::SocketAnswer, SocketRequests, Degraded, WITHOUT_ANSWERS),
    sign(Sign::FileOpen, CredentialFiles, IsBlind, NO_OPEN),
    sign(Sign::AcceptTask, AcceptTasks, IsBlind, NO_TASK),
];

/// The programs that a capability needs, or of which it needs one.
#[must_use]
pub fn programs_of(capability: Capability) -> Vec<&'static str> {
    let needs = NEEDS.iter().filter(|need| need.capability == capability);
    let programs = needs.flat_map(|need| match need.what {
        What::Hook(program) => vec![program],
        What::OneOf(programs) => programs.iter().map(|(program, _)| *program).collect(),
        What::Sign(_) => Vec::new(),
    });
    programs.collect()
}

/// Stands for a program in [`Hook::program`] where there is none: the kernel's own notifications of opened files.
pub const FANOTIFY: &str = "fanotify";
