//! Objects of what is derived from facts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::lists::{Confidence, FindingState, Severity, SignalKey};
use super::super::time::UtcTime;
use super::{Text, is_zero};

/// What a fact is to an analytic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Signal<'a> {
    /// What was noticed.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Id of the analytic.
    #[serde(borrow)]
    pub analytic: Text<'a>,
    /// Name of its stage.
    #[serde(borrow)]
    pub stage: Text<'a>,
    /// What it can be joined by; `event` is the id of the fact.
    #[serde(borrow)]
    pub keys: BTreeMap<SignalKey, Text<'a>>,
}

/// A chain, partial or complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding<'a> {
    /// Identity of the chain, the same in all records of it: the id of the first one.
    #[serde(borrow)]
    pub id: Text<'a>,
    /// Id of the analytic.
    #[serde(borrow)]
    pub analytic: Text<'a>,
    /// Id of its detection strategy.
    #[serde(borrow)]
    pub strategy: Text<'a>,
    /// Ids of the techniques that it detects.
    #[serde(borrow)]
    pub techniques: Vec<Text<'a>>,
    /// What it is about, in a few words.
    #[serde(borrow)]
    pub title: Text<'a>,
    /// How much it matters.
    pub severity: Severity,
    /// Where it is in its life.
    pub state: FindingState,
    /// How sure the weakest of its links is.
    pub confidence: Confidence,
    /// All stages of the analytic, in order.
    #[serde(borrow)]
    pub stages: Vec<Stage<'a>>,
    /// What joins the events of its stages.
    #[serde(borrow)]
    pub links: Vec<Link<'a>>,
    /// Who and what is involved.
    #[serde(borrow)]
    pub entities: Entities<'a>,
    /// How complete its evidence is.
    pub completeness: Completeness,
    /// What somebody on call has to know.
    #[serde(borrow)]
    pub explanation: Text<'a>,
    /// Time of the first event.
    pub first_ts: UtcTime,
    /// Time of the last one.
    pub last_ts: UtcTime,
}

/// A stage of an analytic in one chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stage<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Whether it was seen.
    pub seen: bool,
    /// When it was seen first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts: Option<UtcTime>,
    /// Ids of the records that say so; the first ones, when there are many.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Text<'a>>,
    /// Further records that are not named. Absent: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub further: u64,
}

/// What joins two events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Link<'a> {
    /// Id of the earlier record.
    #[serde(borrow)]
    pub from: Text<'a>,
    /// Id of the later one.
    #[serde(borrow)]
    pub to: Text<'a>,
    /// How sure it is.
    pub class: Confidence,
    /// What says so.
    #[serde(borrow)]
    pub how: Text<'a>,
}

/// Who and what is involved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Entities<'a> {
    /// Who it comes from; absent when it may be one of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// Who it may come from, when it may be one of several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<IpAddr>,
    /// Containers, by their full ids.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<Text<'a>>,
    /// Names of nodes.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Text<'a>>,
    /// Where activity went: addresses with ports, or what else names a target.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Text<'a>>,
    /// A user of a cluster.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Text<'a>>,
    /// Id of a credential, or what stands for one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Text<'a>>,
}

/// How complete the evidence of a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Completeness {
    /// Nothing was lost between its first and its last event, and nothing had to be forgotten.
    pub complete: bool,
    /// Management records that were lost in that time, as far as was known when the record went out.
    pub lost: u64,
    /// For how long since its first event no sensor ran, nanoseconds; what was done in that time was not seen. Absent: a
    /// sensor ran all the time.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unwatched_ns: u64,
}
