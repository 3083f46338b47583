//! The end of `inet_csk_accept`: who takes a connection.
//!
//! Prototypes: `struct sock *inet_csk_accept(struct sock *sk, int flags, int *err, bool kern)` up to Linux 6.9,
//! `struct sock *inet_csk_accept(struct sock *sk, struct proto_accept_arg *arg)` after that. The result follows the
//! parameters, so there is a program for each; an index that is known at load only is refused by the verifier. Connections
//! that a program waits for in `accept` already when the program is attached are missed, once.

use aya_ebpf::macros::fexit;
use aya_ebpf::programs::FExitContext;
use sensor_common::record::{AcceptTaskRecord, RecordKind, Ring};
use sensor_common::settings::port_flags;

use crate::connections::inbound;
use crate::emit::{emit, now};
use crate::kernel::{Direct, Sock, current_cgroup_id, with_current};
use crate::maps::flags_of;

/// Reports who accepts, where the function has two parameters.
#[fexit(function = "inet_csk_accept")]
pub fn accept_task(ctx: FExitContext) -> i32 {
    taken(ctx.arg(2));
    0
}

/// Reports who accepts, where the function has four parameters.
#[fexit(function = "inet_csk_accept")]
pub fn accept_task_of_four(ctx: FExitContext) -> i32 {
    taken(ctx.arg(4));
    0
}

#[inline(always)]
fn taken(sock: *const u8) {
    if sock.is_null() {
        return;
    }
    let sock = Sock::<Direct>::new(sock);
    if flags_of(sock.local_port()) & port_flags::WATCHED == 0 || !sock.is_tcp() {
        return;
    }
    let Some(connection) = inbound(sock) else { return };
    emit::<AcceptTaskRecord>(Ring::Bulk, RecordKind::AcceptTask, now(), |record| {
        // SAFETY: `record` points to room for the record.
        unsafe {
            (*record).conn = connection.conn;
            with_current!(|task| task.identify(&raw mut (*record).task));
            (*record).cgroup = current_cgroup_id();
        }
    });
}
