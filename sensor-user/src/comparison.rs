//! What another policy makes of a recording: which verdicts change by it, and which signals and findings come or go.
//!
//! Both policies see the same facts in the same order, so that what they make of each can be laid side by side, fact by fact.
//! Knows neither files nor threads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;

use sensor_core::allow_list::Act;
use sensor_core::chains::Finding;
use sensor_core::engine::Output;
use sensor_core::fact::{Fact, Verdict};
use sensor_core::ids::RecordId;
use serde::Serialize;

use crate::wire::{Kind, Service, Severity, UtcTime};

/// Records that are named for each change of a verdict.
const RECORDS_MAX: usize = 1000;
/// Peers, and containers, that are named for each change of a verdict.
const PEERS_MAX: usize = 1000;
/// Findings of one policy that are compared.
const FINDINGS_MAX: usize = 65_536;
/// Records and peers that the text names of each change.
const SHOWN: usize = 5;

/// A fact that was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Judged {
    record: ChangedRecord,
    /// Who came, or which container did it.
    peer: Option<IpAddr>,
    container: Option<Arc<str>>,
    verdict: Verdict,
}

/// What one policy makes of one fact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    fact: Option<RecordId>,
    judged: Option<Judged>,
    /// By analytic and name.
    signals: BTreeMap<(String, String), u64>,
    findings: Vec<Finding>,
}

impl Step {
    /// Takes an output of the engine. A fact begins the next step; the one before is handed out, if it said anything.
    pub fn take(&mut self, output: &Output) -> Option<Self> {
        match output {
            Output::Fact { fact, verdict, .. } => {
                let judged = verdict.as_ref().map(|verdict| Judged::new(output, fact, verdict));
                let next = Self { fact: Some(fact.id.clone()), judged, ..Self::default() };
                Some(mem::replace(self, next))
            }
            Output::Signal { signal, .. } => {
                let key = (signal.analytic.clone().into_owned(), signal.name.clone().into_owned());
                *self.signals.entry(key).or_default() += 1;
                None
            }
            Output::Finding { finding, .. } => {
                self.findings.push(Finding::clone(finding));
                None
            }
            Output::Health { .. } => None,
        }
    }
}

impl Judged {
    fn new(output: &Output, fact: &Fact, verdict: &Verdict) -> Self {
        let net = fact.net.as_ref();
        // What a container does is judged by what it is, wherever it goes.
        let is_act = Act::of(&fact.kind).is_some();
        let peer = net.filter(|_| !is_act).and_then(|net| net.peer).map(|peer| peer.ip.to_canonical());
        let container = fact.container.as_ref().filter(|_| is_act).map(|container| container.id.clone());
        Self {
            record: ChangedRecord {
                id: fact.id.0.to_string(),
                kind: Kind::of(output).name(),
                ts: UtcTime(fact.at.unix_ns),
                peer,
                port: net.and_then(|net| net.local).map(|local| local.port),
                service: net.map(|net| Service::from(net.service)),
                container: container.clone(),
            },
            peer,
            container,
            verdict: verdict.clone(),
        }
    }
}

/// The two policies have not seen the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the two replays do not see the same facts; has a recording changed meanwhile?")]
pub struct Disagreement;

/// Lays what two policies say side by side.
#[derive(Debug, Default)]
pub struct Comparison {
    judged: u64,
    verdicts: BTreeMap<(Expectation, Expectation), Change>,
    signals: [BTreeMap<(String, String), u64>; 2],
    findings: [BTreeMap<Arc<str>, FindingTold>; 2],
    further_findings: u64,
}

#[derive(Debug, Default)]
struct Change {
    records: u64,
    peers: BTreeSet<IpAddr>,
    containers: BTreeSet<Arc<str>>,
    examples: Vec<ChangedRecord>,
}

impl Comparison {
    /// Takes what both make of the same fact.
    ///
    /// # Errors
    /// When it is not the same fact.
    pub fn take(&mut self, present: Step, other: Step) -> Result<(), Disagreement> {
        if present.fact != other.fact {
            return Err(Disagreement);
        }
        if let Some(judged) = other.judged.as_ref().or(present.judged.as_ref()) {
            self.judged += 1;
            // What a container does is spoken of by entries that expect it only.
            let of =
                |step: &Step| step.judged.as_ref().map_or(Verdict::Unlisted, |judged| judged.verdict.clone());
            let (before, after) = (of(&present), of(&other));
            if before != after {
                let change = (Expectation::from(&before), Expectation::from(&after));
                self.verdicts.entry(change).or_default().add(judged);
            }
        }
        let names: BTreeSet<_> = present.signals.keys().chain(other.signals.keys()).cloned().collect();
        for name in names {
            let [before, after] =
                [&present, &other].map(|step| step.signals.get(&name).copied().unwrap_or_default());
            let side = usize::from(after > before);
            if before != after {
                *self.signals[side].entry(name).or_default() += before.abs_diff(after);
            }
        }
        for (side, step) in [present, other].into_iter().enumerate() {
            for finding in step.findings {
                self.note(side, &finding);
            }
        }
        Ok(())
    }

    fn note(&mut self, side: usize, finding: &Finding) {
        let told = &mut self.findings[side];
        let severity = Severity::from(finding.severity);
        if let Some(known) = told.get_mut(&finding.id) {
            known.severity = severity;
            known.peers.extend(finding.entities.peers.iter().map(IpAddr::to_canonical));
            known.containers.extend(finding.entities.containers.iter().cloned());
        } else if told.len() < FINDINGS_MAX {
            let finding = FindingTold {
                id: finding.id.clone(),
                analytic: finding.analytic.clone().into_owned(),
                severity,
                severity_before: None,
                title: finding.title.clone().into_owned(),
                peers: finding.entities.peers.iter().map(IpAddr::to_canonical).collect(),
                containers: finding.entities.containers.iter().cloned().collect(),
                entries: BTreeSet::new(),
            };
            told.insert(finding.id.clone(), finding);
        } else {
            self.further_findings += 1;
        }
    }

    /// What there is to say.
    #[must_use]
    pub fn report(mut self, policy: String, against: Vec<String>) -> Report {
        let [mut before, mut after] = mem::take(&mut self.findings);
        let mut changed = Vec::new();
        for (id, now) in &mut after {
            if let Some(then) = before.remove(id) {
                if then.severity != now.severity {
                    now.severity_before = Some(then.severity);
                    now.entries = self.entries_of(now, |_| true);
                    changed.push(now.clone());
                }
                now.severity_before = Some(then.severity);
            }
        }
        after.retain(|_, now| now.severity_before.is_none());
        let named = |findings: BTreeMap<Arc<str>, FindingTold>, side: usize| {
            let name = |mut finding: FindingTold| {
                finding.entries = self.entries_of(&finding, |at| at == side);
                finding
            };
            findings.into_values().map(name).collect()
        };
        let findings = Shift { silenced: named(before, 1), raised: named(after, 0), changed };
        let [silenced, raised] = self.signals.map(|signals| {
            let told = |((analytic, name), records)| SignalTold { analytic, name, records };
            signals.into_iter().map(told).collect()
        });
        let verdicts = self.verdicts.into_iter().map(|((before, after), change)| VerdictChange {
            before,
            after,
            records: change.records,
            peers: change.peers,
            containers: change.containers,
            examples: change.examples,
        });
        Report {
            policy,
            against,
            judged: self.judged,
            verdicts: verdicts.collect(),
            signals: Shift { silenced, raised, changed: Vec::new() },
            findings,
            further_findings: self.further_findings,
        }
    }

    /// The entries by which the verdict on peers or containers of a finding changes; those of before are side 0.
    fn entries_of(&self, finding: &FindingTold, of: impl Fn(usize) -> bool) -> BTreeSet<Arc<str>> {
        let is_of = |change: &Change| {
            !change.peers.is_disjoint(&finding.peers) || !change.containers.is_disjoint(&finding.containers)
        };
        let of_peers = self.verdicts.iter().filter(|(_, change)| is_of(change));
        let sides = of_peers.flat_map(|((before, after), _)| [before, after].into_iter().enumerate());
        sides.filter(|(side, _)| of(*side)).filter_map(|(_, expected)| expected.entry.clone()).collect()
    }
}

impl Change {
    fn add(&mut self, judged: &Judged) {
        self.records += 1;
        if self.examples.len() < RECORDS_MAX {
            self.examples.push(judged.record.clone());
        }
        if self.peers.len() < PEERS_MAX {
            self.peers.extend(judged.peer);
        }
        if self.containers.len() < PEERS_MAX {
            self.containers.extend(judged.container.clone());
        }
    }
}

/// The answer of `quaywatch policy test`.
#[derive(Debug, Serialize)]
pub struct Report {
    policy: String,
    against: Vec<String>,
    /// Records with a verdict.
    judged: u64,
    verdicts: Vec<VerdictChange>,
    signals: Shift<SignalTold>,
    findings: Shift<FindingTold>,
    /// Told of, and too many to be compared.
    #[serde(skip_serializing_if = "is_zero")]
    further_findings: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What is no longer there, what is new, and what is there in another way.
#[derive(Debug, Serialize)]
struct Shift<T> {
    silenced: Vec<T>,
    raised: Vec<T>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changed: Vec<T>,
}

/// Records that are judged by another entry, or by none any more, or by one now.
#[derive(Debug, Serialize)]
struct VerdictChange {
    before: Expectation,
    after: Expectation,
    records: u64,
    peers: BTreeSet<IpAddr>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    containers: BTreeSet<Arc<str>>,
    examples: Vec<ChangedRecord>,
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Expectation {
    listed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<Arc<str>>,
}

/// One such record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ChangedRecord {
    id: String,
    kind: &'static str,
    ts: UtcTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Service>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Arc<str>>,
}

/// Signals of one name.
#[derive(Debug, Serialize)]
struct SignalTold {
    analytic: String,
    name: String,
    records: u64,
}

/// A finding as it was told last.
#[derive(Clone, Debug, Serialize)]
struct FindingTold {
    id: Arc<str>,
    analytic: String,
    severity: Severity,
    #[serde(skip_serializing_if = "Option::is_none")]
    severity_before: Option<Severity>,
    title: String,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    peers: BTreeSet<IpAddr>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    containers: BTreeSet<Arc<str>>,
    /// Entries by which the verdict on its peers or containers changes.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    entries: BTreeSet<Arc<str>>,
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
