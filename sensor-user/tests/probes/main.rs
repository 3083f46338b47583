//! The probes on the running kernel: every record kind is provoked and compared with what the kernel says elsewhere.
//!
//! Needs root, because it loads the probes; without it every test fails and says so. Each test watches from a network
//! namespace of its own, on ports nothing else uses, and asks only for what its own processes did.

mod cgroups;
mod connects;
mod files;
mod flood;
mod hooks;
mod late;
mod parts;
mod processes;
mod socket_requests;
mod sockets;
mod tables;
mod watch;
