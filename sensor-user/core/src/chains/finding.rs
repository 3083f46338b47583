//! A chain as it is told: what was seen of it, how sure that is, and what is missing.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use crate::ids::RecordId;
use crate::time::Timestamp;

/// A chain, partial or complete. One chain is told of several times under the same [`Self::id`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Identity of the chain: the id of the record that opened it.
    pub id: Arc<str>,
    /// The analytic.
    pub analytic: Cow<'static, str>,
    /// Its detection strategy.
    pub strategy: Cow<'static, str>,
    /// The techniques that it detects.
    pub techniques: Vec<Cow<'static, str>>,
    /// What it is about, in a few words.
    pub title: Cow<'static, str>,
    /// How much it matters.
    pub severity: Severity,
    /// Where it is in its life.
    pub state: FindingState,
    /// How sure the weakest of its links is.
    pub confidence: Confidence,
    /// Every stage of the analytic, in order, those that were not seen included.
    pub stages: Vec<StageSeen>,
    /// What joins the events of its stages.
    pub links: Vec<Link>,
    /// Who and what is involved.
    pub entities: Entities,
    /// How complete its evidence is.
    pub completeness: Completeness,
    /// What somebody on call has to know, in one paragraph.
    pub explanation: String,
    /// Time of the first event.
    pub first: Timestamp,
    /// Time of the last one.
    pub last: Timestamp,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Low,
    /// Worth a look today.
    Medium,
    /// Worth a look now.
    High,
    /// Worth waking somebody.
    Critical,
}

impl Severity {
    /// Every severity, the least first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// One more, as far as there is.
    #[must_use]
    pub const fn higher(self) -> Self {
        match self {
            Self::Low => Self::Medium,
            Self::Medium => Self::High,
            Self::High | Self::Critical => Self::Critical,
        }
    }

    /// One less, as far as there is.
    #[must_use]
    pub const fn lower(self) -> Self {
        match self {
            Self::Low | Self::Medium => Self::Low,
            Self::High => Self::Medium,
            Self::Critical => Self::High,
        }
    }
}

/// How sure a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Confidence {
    /// It was concluded from order and time, or from what was learned.
    Inferred,
    /// It was read.
    Proved,
}

/// Where a finding is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FindingState {
    /// It is told for the first time.
    Open,
    /// It has grown.
    Update,
    /// Its window has ended.
    Closed,
}

/// A stage of an analytic in one chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageSeen {
    /// Its name.
    pub name: Cow<'static, str>,
    /// When it was seen first; `None`: it was not.
    pub seen: Option<Timestamp>,
    /// The records that say so, the first ones when there are many.
    pub events: Vec<RecordId>,
    /// Further records that are not named.
    pub further: u64,
}

/// What joins two events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The earlier one.
    pub from: RecordId,
    /// The later one.
    pub to: RecordId,
    /// How sure it is.
    pub class: Confidence,
    /// What says so.
    pub how: Cow<'static, str>,
}

/// Who and what is involved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entities {
    /// Who it comes from: several when it is not known which of them.
    pub peers: Vec<IpAddr>,
    /// Containers, by their full ids.
    pub containers: Vec<Arc<str>>,
    /// Names of nodes.
    pub nodes: Vec<Arc<str>>,
    /// Where activity went: addresses with ports, or what else names a target.
    pub targets: Vec<Arc<str>>,
    /// A user of a cluster.
    pub user: Option<Arc<str>>,
    /// The id of a credential, or what stands for one.
    pub credential: Option<Arc<str>>,
}

/// How complete the evidence of a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completeness {
    /// Nothing was lost between its first and its last event, and nothing had to be forgotten.
    pub complete: bool,
    /// Management records that were lost in that time.
    pub lost: u64,
    /// For how long of the time since its first event no sensor ran, nanoseconds.
    pub unwatched_ns: u64,
}
