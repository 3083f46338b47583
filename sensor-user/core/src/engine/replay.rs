//! Facts that were recorded: the same core behind another source.
//!
//! Ids and subjects are those of the recording, verdicts are recomputed with the present policy. No clock is involved:
//! the last record bears the time of the last fact, so two replays are the same byte for byte.

use std::net::IpAddr;
use std::sync::Arc;

use crate::allow_list::Shown;
use crate::engine::Engine;
use crate::fact::{Fact, FactKind, Node};
use crate::health::{Health, HealthState};
use crate::ids::RecordId;
use crate::time::Timestamp;

/// What the last record of a replay is made of.
#[derive(Debug)]
pub(super) struct Replay {
    last: Option<RecordId>,
    latest: Timestamp,
    node: Arc<Node>,
}

impl Replay {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { last: None, latest: Timestamp::default(), node }
    }
}

impl Engine {
    /// Takes a recorded fact and sends it under its own id with a verdict of the present policy.
    pub fn handle_fact(&mut self, fact: Fact) {
        if matches!(fact.kind, FactKind::Audit(_)) {
            return self.handle_recorded_audit(fact);
        }
        let verdict = match &fact.kind {
            FactKind::Accept { .. } | FactKind::ApiRequest(_) | FactKind::TlsHello(_) => {
                self.verdict_on(fact.at, fact.net.as_ref(), fact.client(), Shown::by(&fact.kind))
            }
            kind => self.allow.judge_act(fact.at, fact.container.as_deref(), fact.k8s.as_deref(), kind),
        };
        self.note_replayed(&fact);
        self.outbox.send_recorded(fact, verdict);
    }

    /// Takes note of a fact that is about to be sent.
    pub(super) fn note_replayed(&mut self, fact: &Fact) {
        self.replay.last = Some(fact.id.clone());
        self.replay.latest = self.replay.latest.max(fact.at);
        self.replay.node = fact.node.clone();
        self.outbox.open_silently();
    }

    /// Takes the node's own addresses from a recorded health record.
    pub fn handle_replayed_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.set_addresses(addresses);
    }

    /// Takes note of the time between two recorded runs. `in_doubt`: what ids of the second one begin with, when the first
    /// one has not ended in order.
    pub fn handle_replayed_resume(&mut self, node: &Node, from_ns: u64, to_ns: u64, in_doubt: Option<&str>) {
        self.outbox.note_gap(node, from_ns, to_ns);
        if let Some(own) = in_doubt {
            self.outbox.doubt_numbers(own);
        }
    }

    /// Takes the rest of a recorded health record that correlation knew at that time: how late it was, and how many
    /// management records and lines of audit logs had been lost since the one before.
    pub fn handle_replayed_health(&mut self, node: &Node, boot_ns: u64, lost: u64, lost_audit: u64) {
        self.outbox.pass_recorded(node, boot_ns, lost, lost_audit);
    }

    /// Sends the last record of a replay, at the time of the latest fact.
    pub fn finish_replay(&mut self) {
        let evidence = self.replay.last.as_ref().map_or("replay", |id| &*id.0);
        let id = RecordId(format!("health-{evidence}-1").into());
        let health = Health { emitted: Some(0), ..Health::new(HealthState::Stopping) };
        let (at, node) = (self.replay.latest, self.replay.node.clone());
        self.outbox.open_silently();
        self.outbox.send_health_as(id, at, node, health);
    }
}
