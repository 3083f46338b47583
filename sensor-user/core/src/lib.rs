//! The pure core: records in, facts, verdicts and health out.
//!
//! Nothing here reads a clock, a file, the environment or a socket; time and every answer from outside come in as
//! values. Live capture, replay and later cluster mode are this crate behind different sources.
#![forbid(unsafe_code)]

pub mod allow_list;
pub mod engine;
pub mod fact;
pub mod health;
pub mod ids;
pub mod time;
