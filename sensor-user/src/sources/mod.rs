//! Where bytes enter: the rings of the kernel, audit logs, recordings, the state files of runtimes.

pub mod audit_log;
pub mod config_file;
pub mod container_state;
pub mod fanotify;
pub mod files;
mod path_watch;
pub mod programs;
pub mod replay;
pub mod ring_buffer;
