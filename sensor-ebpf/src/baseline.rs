//! Empty programs on the hooks of the probes. Benchmarks run them beside the real ones, to tell what ours cost from what
//! the kernel's machinery costs; the sensor never loads them.
#![no_std]
#![no_main]

use aya_ebpf::macros::{btf_tracepoint, cgroup_skb};
use aya_ebpf::programs::{BtfTracePointContext, SkBuffContext};

macro_rules! empty {
    ($($program:ident on $hook:literal;)*) => {
        $(
            #[doc = concat!("Nothing, on `", $hook, "`.")]
            #[btf_tracepoint(function = $hook)]
            fn $program(_: BtfTracePointContext) -> i32 {
                0
            }
        )*
    };
}

empty! {
    empty_state on "inet_sock_set_state";
    empty_exec on "sched_process_exec";
    empty_fork on "sched_process_fork";
    empty_exit on "sched_process_exit";
    empty_mkdir on "cgroup_mkdir";
    empty_rmdir on "cgroup_rmdir";
    empty_wakeup on "sk_data_ready";
}

/// Nothing, for every packet: it lets it pass.
#[cgroup_skb(ingress)]
fn empty_packets_in(_: SkBuffContext) -> i32 {
    1
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
