//! What audit logs signal, as signals and findings: AN1547, a credential out of place, and the half of AN1352 that only
//! the API server sees.
//!
//! One chain for each analytic, credential and trusted source. Audit logs are no node's: windows are of the time that the
//! API server wrote, whichever node reads the log.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    AN1352, AN1547, Completeness, Confidence, Entities, Evidence, Finding, FindingState, LossLog, REORDER_NS,
    Sender, Severity, Signal, SignalKey,
};
use crate::audit;
use crate::fact::{Fact, Node};
use crate::ids::RecordId;
use crate::state::kept::{Kept, is_plausible_time};
use crate::state::{STATE_BYTES, Table, Unreadable};
use crate::time::Timestamp;

/// Chains remembered; of these most are a signal or two that nothing followed.
const CHAINS_MAX: usize = 8192;
/// How long after its last event a chain of discovery may still grow.
const DISCOVERY_WINDOW_NS: u64 = 10 * 60 * 1_000_000_000;

/// What a finding of an analytic is called.
#[derive(Debug)]
struct About {
    id: &'static str,
    strategy: &'static str,
    technique: &'static str,
    title: &'static str,
    stages: &'static [&'static str],
}

const CREDENTIAL: About = About {
    id: AN1547.id,
    strategy: AN1547.strategy,
    technique: AN1547.techniques[0],
    title: AN1547.title,
    stages: &[AN1547.stages[0].name, AN1547.stages[1].name, AN1547.stages[2].name],
};
const DISCOVERY: About = About {
    id: AN1352.id,
    strategy: AN1352.strategy,
    technique: AN1352.techniques[0],
    title: "Discovery through the Kubernetes API",
    stages: &["discovery"],
};

/// Which analytic a chain is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Which {
    /// AN1547.
    Credential,
    /// AN1352.
    Discovery,
}

impl Which {
    /// How long after its last event a chain may still grow, when this is the window of AN1547.
    const fn window_ns(self, of_an1547: u64) -> u64 {
        match self {
            Self::Credential => of_an1547,
            Self::Discovery => DISCOVERY_WINDOW_NS,
        }
    }

    const fn about(self) -> &'static About {
        match self {
            Self::Credential => &CREDENTIAL,
            Self::Discovery => &DISCOVERY,
        }
    }
}

/// What makes a chain: analytic, credential or user, and the address that is believed.
type Key = (Which, Arc<str>, Option<IpAddr>);

/// The chains, and the request whose signals come next.
#[derive(Debug)]
pub(super) struct AuditChains {
    pub(super) chains: Kept<Key, Chain>,
    present: Option<Present>,
    /// When the window of some finding has passed.
    next_due_ns: u64,
    /// The latest event of any chain that had to go for others, in earlier runs, too; 0 if none had to.
    forgotten_ns: u64,
    /// How long after its last event a chain of AN1547 may still grow.
    window_ns: u64,
    /// The latest time that the API server wrote, nanoseconds since 1970; what is lost was about then.
    latest_ns: u64,
    losses: LossLog,
}

/// A request, as its signals refer to it.
#[derive(Clone, Debug)]
struct Present {
    id: RecordId,
    at: Timestamp,
    node: Arc<Node>,
}

/// What one credential did from one address.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Chain {
    which: Which,
    /// In the order of the analytic's stages.
    stages: Vec<Evidence>,
    user: Arc<str>,
    /// Of the signals that make the analytic complete; `None` while none was seen.
    severity: Option<Severity>,
    confidence: Confidence,
    /// Of the signal that mattered most.
    detail: String,
    first: Timestamp,
    last: Timestamp,
    /// As it was told last.
    told: Option<(Arc<str>, Severity, usize)>,
}

impl Default for AuditChains {
    fn default() -> Self {
        Self {
            chains: Kept::new(Table::AuditChains, CHAINS_MAX, STATE_BYTES),
            present: None,
            next_due_ns: u64::MAX,
            forgotten_ns: 0,
            window_ns: super::An1547Limits::default().window_ns,
            latest_ns: 0,
            losses: LossLog::default(),
        }
    }
}

impl AuditChains {
    /// Takes another window for AN1547, for what comes from now on and for what is open.
    pub(super) fn set_window(&mut self, window_ns: u64) {
        self.window_ns = window_ns;
        // Something may be due before what was due until now.
        self.next_due_ns = 0;
    }

    /// Takes the request whose signals come next, and tells the end of what it is too late for.
    pub(super) fn handle(&mut self, fact: &Fact, sender: &mut Sender) {
        let present = Present { id: fact.id.clone(), at: fact.at, node: fact.node.clone() };
        self.latest_ns = self.latest_ns.max(present.at.unix_ns);
        if present.at.unix_ns > self.next_due_ns {
            self.close_past(&present, sender);
        }
        self.present = Some(present);
    }

    /// Takes note that lines were lost: they were read after the latest request, and are told of soon after.
    pub(super) fn note_loss(&mut self, lost: u64) {
        self.losses.note(self.latest_ns, lost);
    }

    /// Findings that may still grow.
    pub(super) fn open(&self) -> usize {
        self.chains.iter().filter(|(_, chain)| chain.told.is_some()).count()
    }

    /// Chains that had to go for others.
    pub(super) fn evicted(&self) -> u64 {
        self.chains.evicted()
    }

    /// Up to when something is missing of what was known, nanoseconds since 1970.
    pub(super) const fn forgotten_ns(&self) -> u64 {
        self.forgotten_ns
    }

    /// Takes what an earlier run has left; `None`: up to when it had forgotten something is not known. Returns how much of it could
    /// not be read.
    pub(super) fn restore(&mut self, chains: &[&[u8]], forgotten_ns: Option<u64>) -> u64 {
        let unreadable = self.chains.restore(chains, |(which, ..), chain| chain.check(*which));
        // What goes was used before all that stays.
        let latest_ns = self.chains.iter().map(|(_, chain)| chain.last.unix_ns).max().unwrap_or_default();
        self.forgotten_ns = forgotten_ns.unwrap_or(u64::MAX).min(latest_ns);
        let told = self.chains.iter().filter(|(_, chain)| chain.told.is_some());
        self.next_due_ns = told.map(|(_, chain)| chain.due_ns(self.window_ns)).min().unwrap_or(u64::MAX);
        unreadable
    }

    /// Tells a signal of the present request, and the chain that it opens or extends.
    pub(super) fn handle_signal(&mut self, signal: &audit::Signal, sender: &mut Sender) {
        let Some(fact) = self.present.clone() else { return };
        sender.signal_of(&fact.id, fact.at, &fact.node, offered(&fact, signal));
        let which = match signal.name.analytic() {
            "AN1547" => Which::Credential,
            _ => Which::Discovery,
        };
        let about = which.about();
        let Some(stage) = about.stages.iter().position(|stage| *stage == signal.name.stage()) else { return };
        let key = (which, signal.credential.clone(), signal.source);
        let window_ns = which.window_ns(self.window_ns);
        let in_time = |chain: &Chain| {
            let (from, to) = (chain.first.unix_ns, chain.last.unix_ns);
            (from.saturating_sub(window_ns)..=to.saturating_add(window_ns)).contains(&signal.at_ns)
        };
        if !self.chains.peek(&key).is_some_and(in_time) {
            self.close(&key, &fact, sender);
            let gone = self.chains.insert(key.clone(), Chain::new(which, fact.at, signal));
            self.note_forgotten(gone);
        }
        let Some(chain) = self.chains.get_mut(&key) else { return };
        chain.add(stage, &fact, signal);
        while let Some(gone) = self.chains.evict_excess() {
            self.note_forgotten(Some(gone));
        }
        let forgotten_ns = self.forgotten_ns;
        let Some(chain) = self.chains.get_mut(&key) else { return };
        if let Some(state) = chain.news() {
            let completeness = chain.completeness(forgotten_ns, &self.losses, self.window_ns);
            chain.tell(state, &key, &fact, completeness, sender);
            self.next_due_ns = self.next_due_ns.min(chain.due_ns(self.window_ns));
        }
    }

    fn close_past(&mut self, present: &Present, sender: &mut Sender) {
        let findings = || self.chains.iter().filter(|(_, chain)| chain.told.is_some());
        let is_past = |chain: &Chain| chain.due_ns(self.window_ns) < present.at.unix_ns;
        let past: Vec<Key> =
            findings().filter(|(_, chain)| is_past(chain)).map(|(key, _)| key.clone()).collect();
        self.next_due_ns = findings()
            .filter(|(_, chain)| !is_past(chain))
            .map(|(_, chain)| chain.due_ns(self.window_ns))
            .min()
            .unwrap_or(u64::MAX);
        for key in past {
            self.close(&key, present, sender);
        }
    }

    /// Forgets a chain, and tells the end of it if it was a finding.
    fn close(&mut self, key: &Key, fact: &Present, sender: &mut Sender) {
        if let Some(mut ended) = self.chains.remove(key)
            && ended.told.is_some()
        {
            let completeness = ended.completeness(self.forgotten_ns, &self.losses, self.window_ns);
            ended.tell(FindingState::Closed, key, fact, completeness, sender);
        }
    }

    fn note_forgotten(&mut self, gone: Option<(Key, Chain)>) {
        let last_ns = gone.map_or(0, |(_, chain)| chain.last.unix_ns);
        self.forgotten_ns = self.forgotten_ns.max(last_ns);
    }
}

/// A signal as it is offered to correlation.
fn offered(fact: &Present, signal: &audit::Signal) -> Signal {
    let mut keys = Vec::with_capacity(4);
    if !signal.credential.is_empty() {
        keys.push((SignalKey::Credential, signal.credential.clone()));
    }
    keys.push((SignalKey::Event, fact.id.0.clone()));
    if let Some(source) = signal.source {
        keys.push((SignalKey::Peer, source.to_canonical().to_string().into()));
    }
    if !signal.user.is_empty() {
        keys.push((SignalKey::User, signal.user.clone()));
    }
    Signal {
        name: Cow::Borrowed(signal.name.name()),
        analytic: Cow::Borrowed(signal.name.analytic()),
        stage: Cow::Borrowed(signal.name.stage()),
        keys,
    }
}

impl Chain {
    fn new(which: Which, at: Timestamp, signal: &audit::Signal) -> Self {
        Self {
            which,
            stages: vec![Evidence::default(); which.about().stages.len()],
            user: signal.user.clone(),
            severity: None,
            confidence: Confidence::Inferred,
            detail: String::new(),
            first: at,
            last: at,
            told: None,
        }
    }

    /// Whether it can be what was kept.
    fn check(&self, which: Which) -> Result<(), Unreadable> {
        let is_plausible = self.which == which
            && self.stages.len() == which.about().stages.len()
            && self.stages.iter().all(Evidence::is_plausible)
            && is_plausible_time(self.first)
            && is_plausible_time(self.last);
        if is_plausible { Ok(()) } else { Err(Unreadable) }
    }

    fn add(&mut self, stage: usize, fact: &Present, signal: &audit::Signal) {
        self.stages[stage].add(&fact.id, fact.at);
        self.first = self.first.min(fact.at);
        self.last = self.last.max(fact.at);
        let Some(severity) = signal.severity else { return };
        if self.severity.is_none_or(|known| severity > known) {
            self.severity = Some(severity);
            self.detail.clone_from(&signal.detail);
        }
        self.confidence = self.confidence.max(signal.evidence);
    }

    /// How much it matters now: more than its source alone when the credential was got or used in the same window.
    fn severity(&self) -> Option<Severity> {
        let raised = self.which == Which::Credential && self.seen() > 1;
        self.severity.map(|severity| if raised { severity.higher() } else { severity })
    }

    /// When it is over, if nothing extends it.
    fn due_ns(&self, window_ns: u64) -> u64 {
        self.last.unix_ns.saturating_add(self.which.window_ns(window_ns) + REORDER_NS)
    }

    fn seen(&self) -> usize {
        self.stages.iter().filter(|stage| stage.seen.is_some()).count()
    }

    /// Whether there is something to tell: it is complete, and more than what was told.
    fn news(&self) -> Option<FindingState> {
        let severity = self.severity()?;
        match &self.told {
            None => Some(FindingState::Open),
            Some((_, told, stages)) if severity > *told || self.seen() > *stages => {
                Some(FindingState::Update)
            }
            Some(_) => None,
        }
    }

    /// What is missing of what it may have been made of, from as long before its first event as it may reach back: lines that
    /// were lost, and chains that had to go.
    fn completeness(&self, forgotten_ns: u64, losses: &LossLog, window_ns: u64) -> Completeness {
        let from_ns = self.first.unix_ns.saturating_sub(self.which.window_ns(window_ns));
        let lost = losses.between(from_ns, self.last.unix_ns.saturating_add(REORDER_NS));
        Completeness { complete: forgotten_ns < from_ns.max(1) && lost == 0, lost, unwatched_ns: 0 }
    }

    fn tell(
        &mut self,
        state: FindingState,
        key: &Key,
        fact: &Present,
        completeness: Completeness,
        sender: &mut Sender,
    ) {
        let Some(severity) = self.severity() else { return };
        let opened_by = match &self.told {
            Some((id, ..)) => id.clone(),
            None => fact.id.0.clone(),
        };
        self.told = Some((opened_by.clone(), severity, self.seen()));
        let About { id, strategy, technique, title, stages } = *self.which.about();
        let finding = Finding {
            id: format!("{id}-{opened_by}").into(),
            analytic: Cow::Borrowed(id),
            strategy: Cow::Borrowed(strategy),
            techniques: vec![Cow::Borrowed(technique)],
            title: Cow::Borrowed(title),
            severity,
            state,
            confidence: self.confidence,
            stages: stages.iter().zip(&self.stages).map(|(name, stage)| stage.of_stage(name)).collect(),
            links: Vec::new(),
            entities: Entities {
                peers: key.2.into_iter().collect(),
                user: (!self.user.is_empty()).then(|| self.user.clone()),
                credential: (!key.1.is_empty()).then(|| key.1.clone()),
                ..Entities::default()
            },
            completeness,
            explanation: self.explanation(key),
            first: self.first,
            last: self.last,
        };
        let id = sender.finding_id(id, &opened_by);
        sender.finding(id, fact.at, fact.node.clone(), finding);
    }

    fn explanation(&self, (_, credential, source): &Key) -> String {
        let user = if self.user.is_empty() { "Somebody without a name" } else { &*self.user };
        let from = source.map_or_else(|| "an unknown address".to_owned(), |ip| ip.to_canonical().to_string());
        let with = if credential.is_empty() || *credential == self.user {
            String::new()
        } else {
            format!(" with credential {credential}")
        };
        let mut text = format!("{user} from {from}{with}: {}.", self.detail);
        for (name, stage) in self.which.about().stages.iter().zip(&self.stages) {
            if stage.seen.is_some() && self.stages.len() > 1 && *name != "unexpected-source" {
                text.push_str(match *name {
                    "credential-access" => " The same credential was used to get at others.",
                    _ => " The same credential was used to change the cluster or to enter a pod.",
                });
            }
        }
        text
    }
}

#[cfg(test)]
mod tests;
