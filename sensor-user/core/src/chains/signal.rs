//! What a fact is to an analytic.

use std::borrow::Cow;
use std::sync::Arc;

/// One fact that matters to an analytic, as it is offered to correlation. By itself it is no finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// What was noticed, of the analytic's list.
    pub name: Cow<'static, str>,
    /// The analytic.
    pub analytic: Cow<'static, str>,
    /// Its stage.
    pub stage: Cow<'static, str>,
    /// What it can be joined by, in order of the keys; `event` is the id of the fact.
    pub keys: Vec<(SignalKey, Arc<str>)>,
}

/// What a signal can be joined by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SignalKey {
    /// A connection.
    Conn,
    /// A container.
    Container,
    /// An id of a credential, or what stands for one.
    Credential,
    /// The record that tells the fact.
    Event,
    /// An address.
    Peer,
    /// A management service.
    Service,
    /// Where a connection went: address and port.
    Target,
    /// A user of a cluster.
    User,
}

impl SignalKey {
    /// Every key, in the order of the output.
    pub const ALL: [Self; 8] = [
        Self::Conn,
        Self::Container,
        Self::Credential,
        Self::Event,
        Self::Peer,
        Self::Service,
        Self::Target,
        Self::User,
    ];

    /// The name in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conn => "conn",
            Self::Container => "container",
            Self::Credential => "credential",
            Self::Event => "event",
            Self::Peer => "peer",
            Self::Service => "service",
            Self::Target => "target",
            Self::User => "user",
        }
    }
}
