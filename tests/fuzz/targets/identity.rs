//! Cgroup paths and runtime arguments, as whoever makes containers chooses them.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sensor_core::cgroup_path::{container_in_name, container_in_path};
use sensor_core::runtime_args::{self, RuntimeCall};

fuzz_target!(|text: &str| {
    if let Some(identity) = container_in_path(text) {
        assert!(!identity.id.is_empty() && text.contains(identity.id), "an id is a part of the path");
        assert!(!identity.id.contains('/'), "an id is within one name");
    }
    for name in text.split('/') {
        if let Some((_, id)) = container_in_name(name) {
            assert!(!id.is_empty() && name.contains(id), "an id is a part of the name");
        }
    }
    let args: Vec<Arc<str>> = text.split('\0').map(Arc::from).collect();
    for program in ["runc", "crun", "youki", "containerd-shim-runc-v2", "conmon", "docker"] {
        let Some(call) = runtime_args::parse(program, &args) else { continue };
        let named = match call {
            RuntimeCall::Oci(call) => vec![call.id, call.bundle, call.root],
            RuntimeCall::Shim(call) => vec![call.namespace, call.id, call.bundle],
            RuntimeCall::Conmon(call) => vec![call.id, call.bundle],
        };
        for name in named.into_iter().flatten() {
            assert!(args.iter().any(|arg| arg.contains(&*name)), "what a call names is in its arguments");
        }
    }
});
