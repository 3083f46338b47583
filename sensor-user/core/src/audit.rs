//! Kubernetes audit: events of the API server to requests, and what they signal.
//!
//! Owns everything that is learned from audit events. Knows no file and no clock: lines come in, requests and signals
//! go out, and windows are of event time. Every table is bounded and what is evicted is counted.
//!
//! ```text
//! line -> parse -> Fold -> Credentials (AN1547) -> Habits -> Discovery (AN1352) -> misuse -> next_output
//!                             |   Places: which address is whose
//! ```

mod body;
mod credentials;
mod discovery;
mod fold;
mod habits;
mod json;
mod judge;
mod lines;
mod misuse;
mod parse;
mod places;
mod policy;
mod request;
mod signal;
mod signing;
mod uri;

use std::collections::VecDeque;
use std::sync::Arc;

pub use body::Body;
use credentials::{At, Credentials};
use discovery::Discovery;
pub use discovery::DiscoveryLimits;
use fold::Fold;
use habits::{Familiarity, Habits};
use judge::{Case, Verdict};
pub use lines::{EVENT_MAX, Lines};
pub use parse::ParseError;
use parse::{Parsed, Parser};
use places::{Place, Places};
pub use policy::AuditPolicy;
pub use request::{
    AuditRequest, Bound, Credential, CredentialKind, Impersonated, Object, Principal, QueryShape, Source,
    Stage,
};
pub use signal::{Signal, SignalName};

use crate::bounded::Bounded;
use crate::text::hash;

/// How long the same thing is not told again.
const REPEAT_NS: u64 = 10 * 60 * 1_000_000_000;
/// Things told lately.
const TOLD_MAX: usize = 16_384;

/// What comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditOutput {
    /// A request, with the entry of the allow-list that expects its source.
    Request(Box<AuditRequest>, Option<Arc<str>>),
    /// What it signals; comes after it.
    Signal(Signal),
}

/// What became of the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditCounts {
    /// Lines that were events.
    pub events: u64,
    /// Requests among them.
    pub requests: u64,
    /// Further events of the same requests.
    pub folded: u64,
    /// Lines that were none.
    pub malformed: u64,
    /// Entries of the tables that had to go.
    pub evicted: u64,
}

/// Reads events and judges them.
#[derive(Clone, Debug)]
pub struct Auditor {
    policy: AuditPolicy,
    parser: Parser,
    fold: Fold,
    places: Places,
    credentials: Credentials,
    habits: Habits,
    discovery: Discovery,
    told: Bounded<u64, u64>,
    verdicts: Vec<Verdict>,
    outputs: VecDeque<AuditOutput>,
    counts: AuditCounts,
}

impl Auditor {
    /// An auditor that has seen nothing yet.
    #[must_use]
    pub fn new(policy: AuditPolicy, limits: DiscoveryLimits) -> Self {
        Self {
            parser: Parser::default(),
            fold: Fold::new(),
            places: Places::new(&policy),
            credentials: Credentials::new(),
            habits: Habits::new(),
            discovery: Discovery::new(limits),
            told: Bounded::new(TOLD_MAX),
            verdicts: Vec::new(),
            outputs: VecDeque::new(),
            counts: AuditCounts::default(),
            policy,
        }
    }

    /// Judges by another policy from now on. What was seen of credentials and their habits stays; what was learned of nodes
    /// and pods depends on what was told of them, and stays as long as that does.
    pub(crate) fn set_policy(&mut self, policy: AuditPolicy) {
        if policy.nodes == self.policy.nodes && policy.pods == self.policy.pods {
            self.places.set_networks(policy.networks.clone());
        } else {
            self.places = Places::new(&policy);
        }
        self.policy = policy;
    }

    /// Takes one line of an audit log.
    ///
    /// # Errors
    /// Why it is no event; it is counted, and the next line is as good as before.
    pub fn handle_line(&mut self, line: &[u8]) -> Result<(), ParseError> {
        let Parsed { stage, request } =
            self.parser.parse(line).inspect_err(|_| self.counts.malformed += 1)?;
        self.counts.events += 1;
        if self.fold.admits(stage, &request.audit_id, request.at_ns) {
            self.handle_request(request);
        }
        Ok(())
    }

    /// The next result.
    pub fn next_output(&mut self) -> Option<AuditOutput> {
        self.outputs.pop_front()
    }

    /// What became of the events so far.
    #[must_use]
    pub fn counts(&self) -> AuditCounts {
        AuditCounts {
            folded: self.fold.folded(),
            evicted: self.places.evicted()
                + self.credentials.evicted()
                + self.habits.evicted()
                + self.discovery.evicted()
                + self.told.evicted(),
            ..self.counts
        }
    }

    /// Takes a request that was read and folded before, as one of a recording.
    pub fn handle_request(&mut self, mut request: AuditRequest) {
        self.counts.requests += 1;
        self.policy.settle(&mut request.source);
        let source = request.source.trusted;
        let entry = source.and_then(|ip| self.policy.entry(ip, request.at_ns));
        let place = source.map_or(Place::Unknown, |ip| self.places.of(ip));
        let mut verdicts = std::mem::take(&mut self.verdicts);
        if let Some(ip) = source {
            let at = At { ip, place: &place, listed: entry.is_some() };
            verdicts.extend(self.credentials.judge(&request, at, &mut self.places, &mut self.habits));
        }
        let displaced = !verdicts.is_empty();
        self.credentials.note_issue(&request);
        let familiar = match request.principal {
            Principal::Anonymous | Principal::Refused => Familiarity { usual: false, known: false },
            _ => self.habits.meet(&request, !displaced),
        };
        let controller = self.credentials.is_controller(&request);
        let case = Case { request: &request, source, place, entry, familiar, displaced, controller };
        verdicts.extend(self.discovery.judge(&case));
        misuse::judge(&case, &mut verdicts);
        let entry = case.entry;
        let signals: Vec<Signal> =
            verdicts.drain(..).filter_map(|verdict| self.signal(&request, verdict)).collect();
        self.verdicts = verdicts;
        self.outputs.push_back(AuditOutput::Request(Box::new(request), entry));
        self.outputs.extend(signals.into_iter().map(AuditOutput::Signal));
    }

    /// A signal, unless the same was told lately.
    fn signal(&mut self, request: &AuditRequest, verdict: Verdict) -> Option<Signal> {
        let credential = request.credential_id().clone();
        // Counts grow with every request; findings of one source are one thing, single requests are not.
        let detail = if verdict.severity.is_some() { "" } else { &verdict.detail };
        let source = request.source.trusted.map(|ip| ip.to_string()).unwrap_or_default();
        let key = hash([verdict.name.name(), &credential, &source, detail].join("\0").as_bytes());
        if let Some(told_ns) = self.told.get_mut(&key)
            && told_ns.abs_diff(request.at_ns) < REPEAT_NS
        {
            return None;
        }
        self.told.insert(key, request.at_ns);
        Some(Signal {
            name: verdict.name,
            at_ns: request.at_ns,
            audit_id: request.audit_id.clone(),
            user: request.user.clone(),
            credential,
            source: request.source.trusted,
            evidence: verdict.evidence,
            severity: verdict.severity,
            detail: verdict.detail,
        })
    }
}

#[cfg(test)]
mod tests;
