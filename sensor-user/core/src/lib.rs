//! The pure core: records in, facts, verdicts and health out.
//!
//! Nothing here reads a clock, a file, the environment or a socket; time and every answer from outside come in as
//! values. Live capture, replay and later cluster mode are this crate behind different sources.
#![forbid(unsafe_code)]

pub mod allow_list;
pub mod audit;
mod bounded;
mod calls;
pub mod canary;
pub mod cgroup_path;
pub mod chains;
mod containers;
pub mod coverage;
pub mod credentials;
mod daemons;
pub mod decode;
pub mod engine;
pub mod event;
mod exchange;
pub mod exposure;
pub mod fact;
pub mod health;
mod holds;
pub mod http;
pub mod ids;
mod image;
mod inventory;
mod listeners;
mod loss;
pub mod merge;
pub mod namespaces;
mod origins;
mod outbox;
pub mod pod_identity;
pub mod pod_volume;
mod processes;
pub mod programs;
pub mod risks;
pub mod role;
pub mod runtime_args;
pub mod scans;
pub mod state;
pub mod text;
pub mod time;
pub mod tls;

#[cfg(test)]
#[path = "../tests/records/mod.rs"]
mod records;
