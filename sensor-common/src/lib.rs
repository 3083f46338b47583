//! The kernel/user ABI: what the probes write and the agent reads, and nothing else.
//!
//! Rules for changing a layout: every type is `#[repr(C)]` without implicit padding (proved by `zerocopy` in the
//! agent's build and by the assertions in [`layout`]); fields are native endian unless their doc says otherwise; any
//! change raises [`ABI_VERSION`]. Probes and agent ship in one binary, so there is no compatibility to keep, only a
//! mismatch to detect.
#![no_std]
#![forbid(unsafe_op_in_unsafe_fn)]

pub mod counters;
pub mod flood;
pub mod layout;
pub mod offsets;
pub mod placeholder;
pub mod record;
pub mod settings;

/// Version of every layout in this crate, carried by each [`record::RecordHeader`].
pub const ABI_VERSION: u16 = 8;
