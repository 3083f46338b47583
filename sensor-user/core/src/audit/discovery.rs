//! AN1352: who looks around, and who tries keys.
//!
//! Counts different questions per principal and address in a window of event time, whatever the order the events come
//! in. What a program always asks, and what caches ask, is no question.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use super::habits::proxied;
use super::judge::{Case, Verdict};
use super::request::{AuditRequest, Principal};
use super::signal::SignalName;
use crate::bounded::Bounded;
use crate::chains::{Confidence, Severity};
use crate::text::hash;

/// Principals and addresses watched at a time.
const WATCHED_MAX: usize = 8192;
/// Questions kept of each.
const QUESTIONS_MAX: usize = 64;

/// Thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscoveryLimits {
    /// Different questions that make a burst.
    pub distinct_calls: usize,
    /// Within this time.
    pub window_ns: u64,
}

impl Default for DiscoveryLimits {
    fn default() -> Self {
        Self { distinct_calls: 6, window_ns: 120 * 1_000_000_000 }
    }
}

/// Refused credentials from one address that are a try.
const GUESSES: usize = 5;
/// Reviews of one kubelet that stand for a direct connection where the bodies are not logged: a request makes one or
/// two, and what comes at the same time by chance makes fewer than this.
const REVIEWS: usize = 4;
/// Within this time.
const REVIEWS_WINDOW_NS: u64 = 5 * 1_000_000_000;

/// What is counted apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Watched {
    Questions(Arc<str>, Option<IpAddr>),
    Guesses(Option<IpAddr>),
    Reviews(Arc<str>),
}

/// Times and questions, in order of time.
#[derive(Clone, Debug, Default)]
struct Asked(VecDeque<(u64, u64)>);

impl Asked {
    /// Adds a question and returns how many different ones there are in the fullest window around it.
    fn add(&mut self, at_ns: u64, question: u64, window_ns: u64) -> usize {
        let position = self.0.partition_point(|(at, _)| *at <= at_ns);
        self.0.insert(position, (at_ns, question));
        if self.0.len() > QUESTIONS_MAX {
            self.0.pop_front();
        }
        let around = || self.0.iter().filter(|(at, _)| at.abs_diff(at_ns) <= window_ns);
        let starts = around().filter(|(at, _)| *at <= at_ns).map(|(at, _)| *at);
        let distinct = |start: u64| {
            let mut questions: Vec<u64> = around()
                .filter(|(at, _)| (start..=start.saturating_add(window_ns)).contains(at))
                .map(|(_, question)| *question)
                .collect();
            questions.sort_unstable();
            questions.dedup();
            questions.len()
        };
        starts.map(distinct).max().unwrap_or_default()
    }
}

/// Everybody who asks.
#[derive(Clone, Debug)]
pub(super) struct Discovery {
    limits: DiscoveryLimits,
    watched: Bounded<Watched, Asked>,
}

impl Discovery {
    pub(super) fn new(limits: DiscoveryLimits) -> Self {
        Self { limits, watched: Bounded::new(WATCHED_MAX) }
    }

    /// Judges a request by what its principal has asked lately.
    pub(super) fn judge(&mut self, case: &Case<'_>) -> Option<Verdict> {
        let request = case.request;
        match request.principal {
            Principal::Refused => {
                let watched = Watched::Guesses(case.source);
                let guesses =
                    self.count(watched, request, hash(request.audit_id.as_bytes()), self.limits.window_ns);
                let from = case.source.map(|ip| format!(" from {ip}")).unwrap_or_default();
                (guesses >= GUESSES).then(|| {
                    let detail = format!("{GUESSES} requests with refused credentials{from}");
                    Verdict::noticed(SignalName::CredentialGuessing, detail)
                })
            }
            Principal::Node(_) if request.resource().0 == "subjectaccessreviews" => self.reviews(request),
            Principal::Component => None,
            _ if case.controller => None,
            _ => self.questions(case),
        }
    }

    /// Entries that had to go.
    pub(super) fn evicted(&self) -> u64 {
        self.watched.evicted()
    }

    fn reviews(&mut self, request: &AuditRequest) -> Option<Verdict> {
        if request.body.is_some() {
            // What is asked is known, and judged by itself.
            return None;
        }
        let question = hash(request.audit_id.as_bytes());
        let reviews =
            self.count(Watched::Reviews(request.user.clone()), request, question, REVIEWS_WINDOW_NS);
        (reviews >= REVIEWS).then(|| Verdict {
            evidence: Confidence::Inferred,
            ..Verdict::noticed(SignalName::KubeletReview, format!("{REVIEWS} reviews within seconds"))
        })
    }

    fn questions(&mut self, case: &Case<'_>) -> Option<Verdict> {
        let request = case.request;
        let question = question(case)?;
        let watched = Watched::Questions(request.user.clone(), case.source);
        let asked = self.count(watched, request, question, self.limits.window_ns);
        if asked < self.limits.distinct_calls {
            return None;
        }
        let secs = self.limits.window_ns / 1_000_000_000;
        let detail = format!("{} different discovery requests within {secs} s", self.limits.distinct_calls);
        Some(match request.principal {
            Principal::Anonymous => Verdict::found(
                SignalName::AnonymousDiscovery,
                Confidence::Proved,
                self.severity(case),
                detail,
            ),
            _ if case.is_expected_person() => Verdict::noticed(SignalName::ListedDiscovery, detail),
            _ => Verdict::found(SignalName::DiscoveryBurst, Confidence::Proved, self.severity(case), detail),
        })
    }

    fn severity(&self, case: &Case<'_>) -> Severity {
        let outside = case.place == super::places::Place::Outside && case.entry.is_none();
        let container = case.request.bound.is_some();
        if outside || container { Severity::High } else { Severity::Medium }
    }

    fn count(&mut self, watched: Watched, request: &AuditRequest, question: u64, window_ns: u64) -> usize {
        if !self.watched.contains(&watched) {
            self.watched.insert(watched.clone(), Asked::default());
        }
        let asked = self.watched.get_mut(&watched).expect("invariant: it was inserted just now");
        asked.add(request.at_ns, question, window_ns)
    }
}

/// What a request asks, if that is a question: equal questions have equal hashes.
fn question(case: &Case<'_>) -> Option<u64> {
    let request = case.request;
    let (resource, subresource) = request.resource();
    let key = |parts: &[&str]| Some(hash(parts.join("\0").as_bytes()));
    let namespace = request.namespace().unwrap_or_default();
    if resource.is_empty() {
        // Every client asks for the root of the API first; only those without credentials walk around in it.
        let anonymous = matches!(request.principal, Principal::Anonymous);
        let health = ["/healthz", "/livez", "/readyz"].iter().any(|probe| request.path.starts_with(probe));
        return if anonymous && !health { key(&["path", &request.path]) } else { None };
    }
    let refused = request.code == Some(403);
    // A cache that is refused asks again and again, but always the same.
    let new = case.displaced || !case.familiar.usual;
    let surprising = match request.principal {
        Principal::Person | Principal::Anonymous => true,
        _ => refused || case.displaced || (new && case.familiar.known),
    };
    match (&*request.verb, resource, subresource) {
        ("create", "selfsubjectrulesreviews" | "selfsubjectaccessreviews", _) => key(&[resource]),
        ("get", "nodes", "proxy") if new => key(&["kubelet", proxied(&request.path)]),
        ("get", _, "proxy") if new => key(&["proxy", namespace, &request.path]),
        ("list", ..) if surprising && (refused || !request.query.versioned) => {
            key(&["list", resource, namespace])
        }
        ("get", ..) if refused && surprising => key(&["get", resource, namespace]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_counted_whatever_the_order_of_its_events() {
        let times = [100, 40, 80, 60, 20];
        let mut asked = Asked::default();
        let counts: Vec<_> = times.iter().map(|at| asked.add(*at, *at, 60)).collect();
        assert_eq!(counts, [1, 2, 3, 4, 4]);
    }

    #[test]
    fn equal_questions_count_once_and_old_ones_not_at_all() {
        let mut asked = Asked::default();
        assert_eq!((1..10).map(|at| asked.add(at, 7, 60)).max(), Some(1));
        assert_eq!(asked.add(1000, 8, 60), 1);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut asked = Asked::default();
        for at in 0..10 * QUESTIONS_MAX as u64 {
            asked.add(at, at, u64::MAX);
        }
        assert_eq!(asked.0.len(), QUESTIONS_MAX);
    }
}
