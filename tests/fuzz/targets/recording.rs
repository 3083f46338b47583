//! Lines of a recording: a replay refuses or reads them, and what it says of them is sound.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quaywatch::wire::{self, Recorded};
use sensor_fuzz::{check_outputs, engine};

fuzz_target!(|lines: &[u8]| {
    let mut engine = engine();
    check_outputs(&mut engine);
    for line in lines.split(|byte| *byte == b'\n') {
        match wire::decode(line) {
            Ok(Recorded::Fact(fact)) => engine.handle_fact(*fact),
            // Lines of an audit log have a target of their own.
            Ok(Recorded::Health { .. } | Recorded::Derived | Recorded::AuditEvent) => {}
            Err(error) => assert!(error.column() <= line.len() + 1, "the place is in the line"),
        }
    }
    engine.finish_replay();
    check_outputs(&mut engine);
});
