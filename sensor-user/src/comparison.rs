//! What another policy makes of a recording: which verdicts change by it, and which signals and findings come or go.
//!
//! Both policies see the same facts in the same order, so that what they make of each can be laid side by side, fact by fact.
//! Knows neither files nor threads.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;

use sensor_core::allow_list::{Act, AllowList, Reason};
use sensor_core::chains::Finding;
use sensor_core::engine::Output;
use sensor_core::fact::{Fact, Verdict};
use sensor_core::ids::RecordId;

mod report;

pub use report::Report;
use report::{ChangedRecord, Expectation, FindingTold, Shift, SignalTold, VerdictChange, reason_text};

use crate::wire::{Kind, Service, Severity, UtcTime};

/// Records that are named for each change of a verdict.
const RECORDS_MAX: usize = 1000;
/// Peers, and containers, that are named for each change of a verdict.
const PEERS_MAX: usize = 1000;
/// Conditions that are named for each change of a verdict.
const REASONS_MAX: usize = 100;
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
    /// The conditions that agreed.
    reasons: Vec<Reason>,
}

/// What one policy makes of one fact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The policy, for what it decided by.
    allow: Option<Arc<AllowList>>,
    fact: Option<RecordId>,
    judged: Option<Judged>,
    /// By analytic and name.
    signals: BTreeMap<(String, String), u64>,
    findings: Vec<Finding>,
}

impl Step {
    /// What this policy makes of the first fact.
    #[must_use]
    pub fn of(allow: AllowList) -> Self {
        Self { allow: Some(Arc::new(allow)), ..Self::default() }
    }

    /// Takes an output of the engine. A fact begins the next step; the one before is handed out, if it said anything.
    pub fn take(&mut self, output: &Output) -> Option<Self> {
        match output {
            Output::Fact { fact, verdict, .. } => {
                let allow = self.allow.clone();
                let judged =
                    verdict.as_ref().map(|verdict| Judged::new(output, fact, verdict, allow.as_deref()));
                let next = Self { allow, fact: Some(fact.id.clone()), judged, ..Self::default() };
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
    fn new(output: &Output, fact: &Fact, verdict: &Verdict, allow: Option<&AllowList>) -> Self {
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
            reasons: allow.map_or_else(Vec::new, |allow| allow.reasons(fact, verdict)),
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
    /// What the entries decided by, before and after.
    before_by: BTreeSet<String>,
    after_by: BTreeSet<String>,
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
                let change = self.verdicts.entry(change).or_default();
                change.add(judged);
                let [before, after] = [&present, &other].map(|step| step.judged.as_ref());
                Change::explain(&mut change.before_by, before);
                Change::explain(&mut change.after_by, after);
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
            before_by: change.before_by,
            after_by: change.after_by,
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
    fn explain(told: &mut BTreeSet<String>, judged: Option<&Judged>) {
        let reasons = judged.into_iter().flat_map(|judged| &judged.reasons);
        for reason in reasons.take(REASONS_MAX - told.len().min(REASONS_MAX)) {
            told.insert(reason_text(reason));
        }
    }

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
