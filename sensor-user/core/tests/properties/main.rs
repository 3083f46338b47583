//! Properties of the core against small reference models and hostile input.

#[path = "../records/mod.rs"]
mod records;

mod allow_list;
mod chains;
mod hostile_bytes;
mod lifecycle;
mod order;
mod state;
mod tls;

use std::sync::Arc;

use sensor_core::engine::{Engine, Output, Policy, Settings};
use sensor_core::fact::{Fact, Node, Service};
use sensor_core::ids::RunId;
use sensor_core::time::Timestamp;

/// Merge window of the engines under test.
const WINDOW_NS: u64 = 1000;
/// Hold of the engines under test.
const HOLD_NS: u64 = 5000;

fn at(boot_ns: u64) -> Timestamp {
    Timestamp { boot_ns, unix_ns: boot_ns }
}

/// An engine that is ready, its first record read.
fn ready_engine() -> Engine {
    let mut engine = Engine::new(Settings {
        run: RunId(1),
        node: Arc::new(Node { name: "node-a".into(), boot_id: "boot".into(), cluster: None }),
        policy: Policy { ports: vec![(2375, Service::Docker)], ..Policy::default() },
        merge_window_ns: WINDOW_NS,
        hold_ns: HOLD_NS,
        canary_interval_ns: None,
        packets_rest_ns: 0,
    });
    engine.handle_ready(at(0));
    while engine.next_output().is_some() {}
    engine
}

/// Reads the facts that are out, in order.
fn facts(engine: &mut Engine) -> Vec<Fact> {
    let outputs = std::iter::from_fn(|| engine.next_output());
    let facts = outputs.filter_map(|output| match output {
        Output::Fact { fact, .. } => Some(fact),
        _ => None,
    });
    facts.collect()
}
