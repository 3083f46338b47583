//! The IO shell of quaywatch: builds and loads probes, moves bytes, prints.
//!
//! Everything that decides lives in `sensor_core`; this crate gives it bytes and time and writes what it says.

pub mod canary;
pub mod cli;
pub mod commands;
pub mod comparison;
pub mod config;
pub mod doctor;
pub mod exit;
pub mod exposure;
pub mod kernel;
pub mod lookups;
pub mod memory;
pub mod output;
pub mod pipeline;
pub mod sinks;
pub mod sources;
mod start;
pub mod state;
mod table;
pub mod telemetry;
pub mod wire;
