//! The generated parts of docs/detections/kubernetes-audit.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use sensor_core::audit::{Signal, SignalName};

use crate::{Knowledge, judge, malicious, scenarios, truth};

/// Puts what is generated between the marks of the document.
pub fn renew(document: &str) -> String {
    let document = between(document, "signals", &signals());
    let document = between(&document, "scenarios", &results());
    between(&document, "quiet", &quiet())
}

fn between(document: &str, part: &str, text: &str) -> String {
    let (begin, end) = (format!("<!-- begin {part} -->\n"), format!("<!-- end {part} -->"));
    let (head, rest) = document.split_once(&begin).unwrap_or_else(|| panic!("no {begin}"));
    let (_, tail) = rest.split_once(&end).unwrap_or_else(|| panic!("no {end}"));
    format!("{head}{begin}{text}{end}{tail}")
}

fn signals() -> String {
    let mut text = "| signal | analytic, stage | means | cannot see |\n|---|---|---|---|\n".to_owned();
    for name in SignalName::ALL {
        let finding = if name.is_complete() { ", **finding**" } else { "" };
        writeln!(
            text,
            "| `{}` | {}, `{}`{finding} | {} | {} |",
            name.name(),
            name.analytic(),
            name.stage(),
            name.means(),
            name.blind()
        )
        .expect("memory");
    }
    text
}

/// One line per file: what is found by a sensor that was told of the cluster and has seen a day of it.
fn results() -> String {
    let mut text = "| scenario | level | expected | found | told only | watched only | other findings | other signals |\n|---|---|---|---|---|---|---|---|\n".to_owned();
    for file in scenarios() {
        let truth = truth(&file);
        let malicious = malicious(&truth);
        let level = if file.starts_with("rr-") { "bodies" } else { "Metadata" };
        let mut row = Vec::new();
        let (mut findings, mut others) = (0, BTreeSet::new());
        for knowledge in Knowledge::ALL {
            let (hits, misses): (Vec<_>, Vec<_>) =
                judge(knowledge, &file).into_iter().partition(|signal| malicious.contains(&*signal.audit_id));
            row.push(names(&hits));
            findings += misses.iter().filter(|signal| signal.severity.is_some()).count();
            others.extend(
                misses.iter().filter(|signal| signal.severity.is_none()).map(|signal| signal.name.name()),
            );
        }
        let others: Vec<_> = others.into_iter().collect();
        let scenario = truth["scenario"].as_str().expect("a name");
        let expected = truth["expected"].as_str().expect("a text").replace('|', "\\|");
        writeln!(
            text,
            "| {scenario} | {level} | {expected} | {} | {} | {} | {findings} | {} |",
            row[0],
            row[1],
            row[2],
            others.join(", ")
        )
        .expect("memory");
    }
    text
}

/// Signals by name with findings in bold.
fn names(signals: &[Signal]) -> String {
    let mut counts: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    for signal in signals {
        *counts.entry((signal.name.name(), signal.severity.is_some())).or_default() += 1;
    }
    if counts.is_empty() {
        return "**missed**".to_owned();
    }
    let one = |((name, finding), count): (&(&str, bool), &usize)| {
        let name = if *finding { format!("**{name}**") } else { (*name).to_owned() };
        if *count > 1 { format!("{name} ×{count}") } else { name }
    };
    counts.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn quiet() -> String {
    let mut text = "| log | knows | findings | signals |\n|---|---|---|---|\n".to_owned();
    for file in ["audit-bootstrap", "audit-benign", "rr-audit-benign"] {
        for (knowledge, knows) in [(Knowledge::Told, "told"), (Knowledge::Both, "told and watched")] {
            if knowledge == Knowledge::Both && file != "rr-audit-benign" {
                continue;
            }
            let (findings, signals): (Vec<_>, Vec<_>) =
                judge(knowledge, file).into_iter().partition(|signal| signal.severity.is_some());
            let signals = if signals.is_empty() { "none".to_owned() } else { names(&signals) };
            writeln!(text, "| {file} | {knows} | {} | {signals} |", findings.len()).expect("memory");
        }
    }
    text
}
