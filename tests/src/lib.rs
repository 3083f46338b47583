//! Harness of the end-to-end tests: a sensor under test, a laboratory of real runtimes to watch, and the actions that
//! trigger its hooks.
//!
//! Whatever is started here is stopped when its value is dropped, by the id of its process, also after a failed test.

pub mod bpf;
pub mod containerd;
pub mod dockerd;
pub mod fanotify;
pub mod flood;
pub mod held;
pub mod lab;
pub mod netns;
pub mod oci;
pub mod podman;
pub mod process;
pub mod record;
pub mod require;
pub mod sensor;
pub mod traffic;
