//! What the fuzz targets share: an engine, and what must hold of everything it says.

use std::sync::Arc;

use quaywatch::wire::{self, Recorded};
use sensor_core::engine::{Engine, Output, Policy, Settings};
use sensor_core::fact::{Node, Service};
use sensor_core::ids::RunId;
use sensor_core::time::Timestamp;

/// Merge window of the engine, nanoseconds.
pub const WINDOW_NS: u64 = 1_000;

/// A time at which both clocks show the same.
#[must_use]
pub const fn at(ns: u64) -> Timestamp {
    Timestamp { boot_ns: ns, unix_ns: ns }
}

/// An engine that is ready.
#[must_use]
pub fn engine() -> Engine {
    let mut engine = Engine::new(Settings {
        run: RunId(1),
        node: Arc::new(Node { name: "node-a".into(), boot_id: "boot".into(), cluster: None }),
        policy: Policy { ports: vec![(2375, Service::Docker)], ..Policy::default() },
        merge_window_ns: WINDOW_NS,
        hold_ns: 5 * WINDOW_NS,
        canary_interval_ns: None,
        packets_rest_ns: 0,
    });
    engine.handle_ready(at(0));
    engine
}

/// Takes everything the engine has to say and checks each line. Returns the last of it.
///
/// # Panics
/// When a line is not what the output's contract says.
pub fn check_outputs(engine: &mut Engine) -> Option<Output> {
    let mut last = None;
    let mut line = Vec::new();
    while let Some(output) = engine.next_output() {
        line.clear();
        wire::encode(&output, &mut line);
        check_line(&line);
        if let Output::Fact { fact, .. } = &output {
            let read = wire::decode(&line).expect("a replay reads what was written");
            let written = Box::new(wire::as_read(fact.clone()));
            assert_eq!(read, Recorded::Fact(written), "a replay sees the same fact");
        }
        last = Some(output);
    }
    while engine.next_request().is_some() {}
    last
}

/// One line, one JSON object, no control character, and not longer than what a replay reads.
fn check_line(line: &[u8]) {
    let (end, content) = line.split_last().expect("a line is not empty");
    assert_eq!(*end, b'\n');
    assert!(content.iter().all(|byte| *byte >= b' '), "control characters are escaped");
    assert!(content.len() <= wire::LINE_MAX, "a replay reads it");
    let value: serde_json::Value = serde_json::from_slice(content).expect("valid JSON");
    assert!(value.is_object());
}
