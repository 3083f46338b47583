//! What `quaywatch policy test` says, for programs and for people.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;

use sensor_core::allow_list::Reason;
use sensor_core::fact::Verdict;
use serde::Serialize;

use super::SHOWN;
use crate::wire::{ApiClass, Service, Severity, UtcTime};

/// The answer of `quaywatch policy test`.
#[derive(Debug, Serialize)]
pub struct Report {
    pub(super) policy: String,
    pub(super) against: Vec<String>,
    /// Records with a verdict.
    pub(super) judged: u64,
    pub(super) verdicts: Vec<VerdictChange>,
    pub(super) signals: Shift<SignalTold>,
    pub(super) findings: Shift<FindingTold>,
    /// Told of, and too many to be compared.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) further_findings: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What is no longer there, what is new, and what is there in another way.
#[derive(Debug, Serialize)]
pub(super) struct Shift<T> {
    pub(super) silenced: Vec<T>,
    pub(super) raised: Vec<T>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) changed: Vec<T>,
}

/// Records that are judged by another entry, or by none any more, or by one now.
#[derive(Debug, Serialize)]
pub(super) struct VerdictChange {
    pub(super) before: Expectation,
    pub(super) after: Expectation,
    pub(super) records: u64,
    pub(super) peers: BTreeSet<IpAddr>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) containers: BTreeSet<Arc<str>>,
    pub(super) examples: Vec<ChangedRecord>,
    /// The conditions of the entries by which they decided.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) before_by: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) after_by: BTreeSet<String>,
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Expectation {
    pub(super) listed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) entry: Option<Arc<str>>,
}

/// One such record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ChangedRecord {
    pub(super) id: String,
    pub(super) kind: &'static str,
    pub(super) ts: UtcTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peer: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<Service>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) container: Option<Arc<str>>,
}

/// Signals of one name.
#[derive(Debug, Serialize)]
pub(super) struct SignalTold {
    pub(super) analytic: String,
    pub(super) name: String,
    pub(super) records: u64,
}

/// A finding as it was told last.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FindingTold {
    pub(super) id: Arc<str>,
    pub(super) analytic: String,
    pub(super) severity: Severity,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) severity_before: Option<Severity>,
    pub(super) title: String,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) peers: BTreeSet<IpAddr>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) containers: BTreeSet<Arc<str>>,
    /// Entries by which the verdict on its peers or containers changes.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) entries: BTreeSet<Arc<str>>,
}

impl From<&Verdict> for Expectation {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Listed(entry) => Self { listed: true, entry: Some(entry.clone()) },
            Verdict::Unlisted => Self { listed: false, entry: None },
        }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.entry.as_deref().unwrap_or("(unlisted)"))
    }
}

impl Report {
    /// Whether the other policy makes any difference.
    #[must_use]
    pub fn differs(&self) -> bool {
        let Self { verdicts, signals, findings, .. } = self;
        !verdicts.is_empty() || signals.differs() || findings.differs()
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("invariant: memory takes what is written");
        text
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "{} against {}: {} records judged", self.policy, self.against.join(", "), self.judged)?;
        for change in &self.verdicts {
            let VerdictChange { before, after, records, peers, containers, .. } = change;
            write!(out, "verdict   {before} -> {after}: {records} records")?;
            if !peers.is_empty() || containers.is_empty() {
                write!(out, ", peers {}", shown(peers))?;
            }
            if !containers.is_empty() {
                write!(out, ", containers {}", shown(containers))?;
            }
            writeln!(out)?;
            for (entry, reasons) in [(before, &change.before_by), (after, &change.after_by)] {
                if !reasons.is_empty() {
                    writeln!(out, "          {entry} by {}", shown(reasons))?;
                }
            }
        }
        for (what, signals) in [("silenced", &self.signals.silenced), ("raised", &self.signals.raised)] {
            for SignalTold { analytic, name, records } in signals {
                writeln!(out, "{what:<9} signal {analytic} {name}: {records}")?;
            }
        }
        let findings = [
            ("silenced", &self.findings.silenced),
            ("raised", &self.findings.raised),
            ("changed", &self.findings.changed),
        ];
        for (what, findings) in findings {
            for finding in findings {
                finding.write(what, out)?;
            }
        }
        if self.further_findings > 0 {
            writeln!(out, "{} further findings were not compared", self.further_findings)?;
        }
        if !self.differs() {
            writeln!(out, "nothing changes")?;
        }
        Ok(())
    }
}

/// A condition as it is written in the configuration.
pub(super) fn reason_text(reason: &Reason) -> String {
    match reason {
        Reason::Network(network) => format!("network {network}"),
        Reason::Node(node) => format!("nodes {node}"),
        Reason::Local => "local".to_owned(),
        Reason::Service(service) => format!("service {}", service.name()),
        Reason::Port(port) => format!("port {port}"),
        Reason::Class(class) => format!("class {}", ApiClass::from(*class).name()),
        Reason::Fingerprint(text) => format!("fingerprint {text}"),
        Reason::Tool(text) => format!("tool {text}"),
        Reason::Image(text) => format!("image {text}"),
        Reason::Namespace(text) => format!("namespace {text}"),
        Reason::Container(text) => format!("container {text}"),
        Reason::Act(act) => format!("act {}", act.name()),
    }
}

/// The first of them.
fn shown<T: fmt::Display>(all: &BTreeSet<T>) -> String {
    let shown: Vec<String> = all.iter().take(SHOWN).map(T::to_string).collect();
    let more = if all.len() > SHOWN { ", ..." } else { "" };
    shown.join(", ") + more
}

impl<T> Shift<T> {
    fn differs(&self) -> bool {
        !self.silenced.is_empty() || !self.raised.is_empty() || !self.changed.is_empty()
    }
}

impl FindingTold {
    fn write(&self, what: &str, out: &mut String) -> fmt::Result {
        let Self { id, analytic, severity, severity_before, title, peers, entries, .. } = self;
        write!(out, "{what:<9} finding {analytic} ")?;
        if let Some(before) = severity_before {
            write!(out, "{} -> ", before.name())?;
        }
        write!(out, "{} {id}: {title}", severity.name())?;
        for peer in peers.iter().take(SHOWN) {
            write!(out, ", peer {peer}")?;
        }
        for entry in entries {
            write!(out, ", by {entry}")?;
        }
        writeln!(out)
    }
}
