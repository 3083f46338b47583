//! The probes, seen from the agent: loads them, attaches them and talks to their maps.
//!
//! Owns everything that depends on the running kernel: its type information, which hooks it has, how a refusal is
//! explained. Knows nothing of what the records mean. Start with [`Probes`].
//!
//! Invariant: nothing is attached before [`Probes::attach`], so that ports, tools and cgroups can be handed over first.

pub mod btf;
mod cgroup_root;
mod constants;
pub mod error;
mod flood;
pub mod hierarchy;
pub mod hooks;
mod link;
mod load;
pub mod lockdown;
mod probes;
mod programs;
pub mod security_modules;
mod tables;

pub use error::KernelError;
pub use flood::FloodLimits;
pub use hierarchy::TaskHierarchy;
pub use hooks::{WALK_LISTENERS, WALK_TASKS};
pub use load::{FIRST_KERNEL, Options};
pub use probes::{Probes, Rings};
