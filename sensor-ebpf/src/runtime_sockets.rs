//! Connects to the unix sockets of runtimes.
//!
//! Prototypes (Linux 6.18): `security_unix_stream_connect(struct sock *sock, struct sock *other, struct sock *newsk)`,
//! which is the hook of the security modules as well, and the tracepoint `sk_data_ready(const struct sock *sk)`. All run
//! in the context of the task that connects. `other` is the listening socket, and `sk` is it when the new connection is
//! put in its queue; later wakeups concern the connection's own socket, which does not listen.
//!
//! A socket is known by the file that it is bound to. What the caller named is of no matter: the file may be mounted in a
//! container under another name.

use aya_ebpf::macros::{btf_tracepoint, fentry, lsm};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, LsmContext};
use sensor_common::record::{RecordKind, Ring, SocketConnectRecord};
use sensor_common::settings::cgroup_class;

use crate::budgets::bears_file;
use crate::emit::{count_suppressed, emit, now};
use crate::hops;
use crate::kernel::{Direct, Sock, current_cgroup_id, with_current};
use crate::maps::{RUNTIME_PROCESSES, RUNTIME_SOCKETS, class_of};
use crate::socket_requests::woken;

/// Reports a connect; sees those that are refused afterwards, too.
#[lsm(hook = "unix_stream_connect")]
pub fn lsm_unix_connect(ctx: LsmContext) -> i32 {
    connected(Sock::new(ctx.arg(1)));
    0
}

/// Like [`lsm_unix_connect`], where programs do not run as security modules.
#[fentry(function = "security_unix_stream_connect")]
pub fn fentry_unix_connect(ctx: FEntryContext) -> i32 {
    connected(Sock::new(ctx.arg(1)));
    0
}

/// Reports a connect when it wakes the listener, and what is said on the connection, where no other program reports either.
/// It runs for every wakeup of a socket.
#[btf_tracepoint(function = "sk_data_ready")]
pub fn unix_data_ready(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock::<Direct>::new(ctx.arg(0));
    if sock.is_unix_listener() {
        connected(sock);
    }
    woken(sock);
    0
}

#[inline(always)]
fn connected(listener: Sock<Direct>) {
    let Some(socket) = listener.bound_file() else { return };
    if RUNTIME_SOCKETS.get_ptr(socket).is_none() {
        return;
    }
    let at = now();
    let cgroup = current_cgroup_id();
    if !bears_file(&cgroup, &socket, at) {
        return count_suppressed(Ring::Bulk, RecordKind::SocketConnect);
    }
    emit::<SocketConnectRecord>(Ring::Bulk, RecordKind::SocketConnect, at, |record| {
        // SAFETY: `record` points to room for the record.
        unsafe {
            (*record).socket = socket;
            (*record).cgroup = cgroup;
            with_current!(|task| task.identify(&raw mut (*record).task));
        }
    });
    with_current!(|task| {
        let is_runtime = RUNTIME_PROCESSES.get_ptr(task.tgid()).is_some();
        if class_of(&cgroup) != cgroup_class::CONTAINER
            && !is_runtime
            && let Some(behind) = hops::behind()
        {
            hops::report(behind, task, cgroup, hops::TO_SOCKET, at);
        }
    });
}
