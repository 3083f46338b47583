//! The probes are a program, see `main.rs`; this empty library lets other packages name the crate as a dependency.
#![no_std]
