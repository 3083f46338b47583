//! The audit rules on real logs with known attacks in them, and the table of it in docs/detections.
//!
//! Every scenario is judged three times: by a sensor that knows what the owner of the cluster says and has seen a day of
//! it, by one that has only been told, and by one that has only watched. `cargo xtask bless` rewrites the table.

mod cluster;
mod policy;
mod replayed;
mod table;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use flate2::read::MultiGzDecoder;
use sensor_core::audit::{AuditOutput, AuditPolicy, Auditor, DiscoveryLimits, Lines, Signal};
use serde_json::Value;

/// The quiet logs, each with what must have gone before it to be as in life.
const QUIET: [&[&str]; 4] = [
    &["audit-bootstrap", "audit-benign"],
    &["audit-benign"],
    &["rr-audit-benign"],
    &["audit-bootstrap", "audit-benign", "rr-audit-benign"],
];
/// What a sensor has seen before the attacks.
const DAY: [&str; 2] = ["audit-bootstrap", "audit-benign"];

/// What a sensor knows beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Knowledge {
    /// What the owner says, and a day.
    Both,
    /// What the owner says.
    Told,
    /// A day.
    Watched,
}

impl Knowledge {
    const ALL: [Self; 3] = [Self::Both, Self::Told, Self::Watched];

    fn policy(self) -> AuditPolicy {
        if self == Self::Watched { AuditPolicy::default() } else { cluster::policy(&fixtures()) }
    }

    fn before(self) -> &'static [&'static str] {
        if self == Self::Told { &[] } else { &DAY }
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/audit")
}

fn read(name: &str) -> Vec<u8> {
    let path = fixtures().join(format!("{name}.ndjson.gz"));
    let mut text = Vec::new();
    let packed = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    MultiGzDecoder::new(packed.as_slice()).read_to_end(&mut text).expect("the fixture is whole");
    text
}

/// Feeds a log in pieces and returns its signals; every line must be an event.
fn feed(auditor: &mut Auditor, name: &str) -> Vec<Signal> {
    let mut lines = Lines::default();
    let mut signals = Vec::new();
    let mut take = |line: &[u8]| {
        auditor.handle_line(line).unwrap_or_else(|error| panic!("{name}: {error}"));
        while let Some(output) = auditor.next_output() {
            signals.extend(match output {
                AuditOutput::Signal(signal) => Some(signal),
                AuditOutput::Request(..) => None,
            });
        }
    };
    for piece in read(name).chunks(4000) {
        lines.feed(piece, &mut take);
    }
    lines.finish(&mut take);
    assert_eq!(lines.skipped(), 0);
    signals
}

/// The signals that have come since the last time.
fn signals(auditor: &mut Auditor) -> impl Iterator<Item = Signal> {
    std::iter::from_fn(|| auditor.next_output()).filter_map(|output| match output {
        AuditOutput::Signal(signal) => Some(signal),
        AuditOutput::Request(..) => None,
    })
}

fn judge(knowledge: Knowledge, name: &str) -> Vec<Signal> {
    /// The day is long, and the same for all scenarios.
    static PREPARED: [OnceLock<Auditor>; 3] = [const { OnceLock::new() }; 3];
    let prepared = PREPARED[knowledge as usize].get_or_init(|| {
        let mut auditor = Auditor::new(knowledge.policy(), DiscoveryLimits::default());
        for before in knowledge.before() {
            feed(&mut auditor, before);
        }
        auditor
    });
    feed(&mut prepared.clone(), name)
}

fn truth(name: &str) -> Value {
    let path = fixtures().join(format!("{name}.truth.json"));
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).expect("the truth is JSON")
}

fn malicious(truth: &Value) -> BTreeSet<String> {
    let ids = truth["malicious_auditIDs"].as_array().expect("a list of ids");
    ids.iter().map(|id| id.as_str().expect("an id").to_owned()).collect()
}

/// Names of the files with one scenario each.
fn scenarios() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(fixtures())
        .expect("fixtures are there")
        .filter_map(|entry| entry.expect("it can be read").file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_suffix(".ndjson.gz")?.to_owned()))
        .filter(|name| name.contains("-attacks-"))
        .collect();
    names.sort();
    assert_eq!(names.len(), 29, "20 scenarios at level Metadata and 9 with bodies");
    names
}

#[test]
fn every_scenario_is_found_and_nothing_else_is_a_finding() {
    for name in scenarios() {
        let malicious = malicious(&truth(&name));
        for knowledge in Knowledge::ALL {
            let signals = judge(knowledge, &name);
            let hits = signals.iter().filter(|signal| malicious.contains(&*signal.audit_id)).count();
            assert!(hits > 0, "{name} is missed by {knowledge:?}");
            let wrong: Vec<_> = signals
                .iter()
                .filter(|signal| signal.severity.is_some() && !malicious.contains(&*signal.audit_id))
                .collect();
            assert!(wrong.is_empty(), "{name} by {knowledge:?}: {wrong:?}");
        }
    }
}

/// The scenarios in which a credential is used where it does not belong.
#[test]
fn credentials_out_of_place_are_findings() {
    for scenario in ["a01", "a02", "a03", "a04", "a13", "a14", "a15", "a18"] {
        let name =
            scenarios().into_iter().find(|name| name.contains(&format!("-{scenario}-"))).expect("a file");
        let malicious = malicious(&truth(&name));
        for knowledge in [Knowledge::Both, Knowledge::Told] {
            let found = judge(knowledge, &name).into_iter().find(|signal| {
                signal.name.stage() == "unexpected-source" && malicious.contains(&*signal.audit_id)
            });
            assert!(found.is_some_and(|signal| signal.severity.is_some()), "{name} by {knowledge:?}");
        }
    }
}

#[test]
fn quiet_logs_give_no_finding() {
    for names in QUIET {
        for policy in [cluster::policy(&fixtures()), AuditPolicy::default()] {
            let mut auditor = Auditor::new(policy, DiscoveryLimits::default());
            for name in names {
                let findings: Vec<_> =
                    feed(&mut auditor, name).into_iter().filter(|signal| signal.severity.is_some()).collect();
                assert!(findings.is_empty(), "{name} after {names:?}: {findings:?}");
            }
        }
    }
}

#[test]
fn all_attacks_in_one_log_are_found_one_by_one() {
    for name in ["audit-mixed-all-attacks", "rr-audit-mixed-all-attacks"] {
        let truth = truth(name);
        let signals = judge(Knowledge::Both, name);
        let scenarios = truth["scenarios"].as_array().expect("a list");
        let all: BTreeSet<String> = scenarios.iter().flat_map(malicious).collect();
        for scenario in scenarios {
            let ids = malicious(scenario);
            let found = signals.iter().any(|signal| ids.contains(&*signal.audit_id));
            assert!(found, "{name}: {}", scenario["scenario"]);
        }
        let wrong: Vec<_> = signals
            .iter()
            .filter(|signal| signal.severity.is_some() && !all.contains(&*signal.audit_id))
            .collect();
        assert!(wrong.is_empty(), "{name}: {wrong:?}");
    }
}

/// Batches of several API servers come late and mixed up; events are placed by their own time.
#[test]
fn the_order_of_the_lines_does_not_hide_a_finding() {
    for name in [
        "audit-attacks-a01-sa-token-other-node",
        "audit-attacks-a05-enumeration-peirates-style",
        "audit-attacks-a06-anonymous-discovery",
    ] {
        let mut auditor = Auditor::new(Knowledge::Told.policy(), DiscoveryLimits::default());
        let text = read(name);
        for line in text.split(|byte| *byte == b'\n').rev().filter(|line| !line.is_empty()) {
            auditor.handle_line(line).expect("an event");
        }
        let malicious = malicious(&truth(name));
        let mut found = false;
        while let Some(output) = auditor.next_output() {
            if let AuditOutput::Signal(signal) = output {
                found |= signal.severity.is_some() && malicious.contains(&*signal.audit_id);
            }
        }
        assert!(found, "{name}");
    }
}

#[test]
fn the_table_in_the_documentation_is_what_the_rules_do() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/detections/kubernetes-audit.md");
    let document = std::fs::read_to_string(&path).expect("the document is there");
    let renewed = table::renew(&document);
    if std::env::var_os("QUAYWATCH_BLESS").is_some() {
        std::fs::write(&path, &renewed).expect("it can be written");
    } else {
        assert!(document == renewed, "{} is not up to date; see `cargo xtask bless`", path.display());
    }
}
