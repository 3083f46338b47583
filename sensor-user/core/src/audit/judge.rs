//! What the rules see of one request: the request, and what is known of its source and its principal.

use std::net::IpAddr;
use std::sync::Arc;

use super::habits::Familiarity;
use super::places::Place;
use super::request::{AuditRequest, Principal};
use super::signal::SignalName;
use crate::chains::{Confidence, Severity};

/// One request with its circumstances.
#[derive(Debug)]
pub(super) struct Case<'a> {
    pub(super) request: &'a AuditRequest,
    /// Where it came from, if the API server knows.
    pub(super) source: Option<IpAddr>,
    /// What that address is.
    pub(super) place: Place,
    /// The entry of the allow-list that expects requests from there.
    pub(super) entry: Option<Arc<str>>,
    /// How familiar the request is.
    pub(super) familiar: Familiarity,
    /// The credential is out of place.
    pub(super) displaced: bool,
    /// It is an account of the controller manager, with a token that nobody else is known to have asked for.
    pub(super) controller: bool,
}

/// What a rule says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) name: SignalName,
    pub(super) evidence: Confidence,
    pub(super) severity: Option<Severity>,
    pub(super) detail: String,
}

impl Verdict {
    /// Something noticed that is no finding by itself.
    pub(super) fn noticed(name: SignalName, detail: impl Into<String>) -> Self {
        Self { name, evidence: Confidence::Proved, severity: None, detail: detail.into() }
    }

    /// Something that is a finding.
    pub(super) fn found(
        name: SignalName,
        evidence: Confidence,
        severity: Severity,
        detail: impl Into<String>,
    ) -> Self {
        Self { name, evidence, severity: Some(severity), detail: detail.into() }
    }
}

impl Case<'_> {
    /// Whether this is a person, or a program with a person's name, where the operator expects it.
    pub(super) fn is_expected_person(&self) -> bool {
        matches!(self.request.principal, Principal::Person) && !self.displaced && self.place_is_expected()
    }

    /// Whether what is done here is new for a program, or done by somebody who is not where people are expected.
    ///
    /// The control plane itself is left out: its parts do on every cluster what would be remarkable for others.
    pub(super) fn is_remarkable(&self) -> bool {
        match self.request.principal {
            _ if self.displaced => true,
            Principal::Component => false,
            Principal::ServiceAccount { .. } if self.controller => false,
            Principal::Person => !self.place_is_expected(),
            Principal::Anonymous => true,
            Principal::ServiceAccount { .. } | Principal::Node(_) | Principal::Refused => {
                !self.familiar.usual
            }
        }
    }

    fn place_is_expected(&self) -> bool {
        self.entry.is_some() || matches!(self.place, Place::Local | Place::Unknown)
    }
}
