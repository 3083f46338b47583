//! The probes: they observe, fill a record and submit it; what it means is decided in the agent.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(unstable_features, reason = "inline assembly for the bpf target, see emit.rs and kernel.rs")]

mod accept_task;
mod budgets;
mod cgroup;
mod connections;
mod constants;
mod credential_files;
mod emit;
mod exec;
mod exit;
mod flood;
mod fork;
mod hash;
mod hops;
mod kernel;
mod maps;
mod packets;
mod payload;
mod runtime_sockets;
mod socket_requests;
mod sockets;
mod walk;
mod withheld;

/// Several helpers are open to GPL-compatible programs only; `Dual MIT/GPL` is the kernel's word for code that is
/// offered under the MIT licence (which this is) and may be used under the GPL.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // No path leads here: the verifier would have to prove that an endless loop ends.
    loop {}
}
