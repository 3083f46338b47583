//! Lines of an audit log: every one is counted as what it is, and what comes out of it is bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sensor_core::audit::{AuditOutput, AuditPolicy, Auditor, DiscoveryLimits, Lines};

/// Longest text that a request may carry; see `NAME_MAX` and `TEXT_MAX` of the model.
const TEXT_MAX: usize = 512;

fuzz_target!(|log: &[u8]| {
    let mut auditor = Auditor::new(AuditPolicy::default(), DiscoveryLimits::default());
    let mut lines = Lines::default();
    let mut seen = 0;
    let mut take = |line: &[u8]| {
        seen += 1;
        let before = auditor.counts();
        let read = auditor.handle_line(line);
        let after = auditor.counts();
        assert_eq!(after.malformed - before.malformed, u64::from(read.is_err()));
        assert_eq!(after.events - before.events, u64::from(read.is_ok()));
        while let Some(output) = auditor.next_output() {
            let AuditOutput::Request(request, _) = output else { continue };
            let texts = [&request.audit_id, &request.user, &request.verb, &request.path];
            let commands = request.command.iter().chain(&request.groups);
            assert!(texts.into_iter().chain(commands).all(|text| text.len() <= TEXT_MAX));
        }
    };
    // Cut where a tail might be: the pieces must not matter.
    let middle = log.len() / 2;
    lines.feed(&log[..middle], &mut take);
    lines.feed(&log[middle..], &mut take);
    lines.finish(&mut take);
    let counts = auditor.counts();
    assert_eq!(counts.events + counts.malformed, seen);
    assert_eq!(counts.requests + counts.folded, counts.events);
});
