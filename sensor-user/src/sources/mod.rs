//! Where bytes enter: the rings of the kernel, recordings, the state files of runtimes.

pub mod container_state;
pub mod replay;
pub mod ring_buffer;
