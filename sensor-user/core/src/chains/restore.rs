//! What is remembered, out and in again.
//!
//! Times of the boot clock mean nothing in another boot: what belongs to one that is over is told of once more, as closed,
//! and forgotten. What goes by the wall clock, or by no clock, goes on in any case.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::an1007::{self, Rest};
use super::an1352;
use super::an1547;
use super::loss_log::LossLog;
use super::{Chains, NodeChains};
use crate::fact::Node;
use crate::state::kept::Keep;
use crate::state::{Change, Entries, Table, decode, encode};
use crate::time::Timestamp;

/// What of a node is in no table.
const OF_NODE: u64 = 1;
/// What of audit logs is in no table.
const OF_AUDIT: u64 = 2;

/// The state of the chains of a node that is in no table.
#[derive(Serialize, Deserialize)]
struct OfNode<L> {
    rest: Rest,
    losses: L,
}

/// The singles as they were handed out last.
#[derive(Debug, Default)]
pub(super) struct Told {
    of_node: Vec<u8>,
    of_audit: Vec<u8>,
}

/// How late it was to each analytic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Clocks {
    an1007_ns: u64,
    an1352_ns: u64,
}

impl Chains {
    /// From now on changes are to be asked for: those of this node, and of what is no node's.
    pub(crate) fn keep(&mut self, node: &Node) {
        self.kept = Some(node.boot_id.clone());
        self.told = Told::default();
        self.enter(node).tables().for_each(Keep::keep);
        self.audit.chains.keep();
        self.sender.findings.keep();
    }

    /// Takes another bound of bytes, for every node by itself.
    pub(super) fn set_bytes(&mut self, bytes: u64) {
        self.nodes.iter_mut().for_each(|(_, node)| node.tables().for_each(|table| table.set_bytes(bytes)));
        self.audit.chains.set_bytes(bytes);
        self.sender.findings.set_bytes(bytes);
    }

    /// Hands out what has changed.
    pub(crate) fn take_changes(&mut self, node: &Node, out: &mut Vec<Change>) {
        self.enter(node);
        let Self { nodes, audit, sender, told, .. } = self;
        let Some(chains) = nodes.get_mut(&*node.boot_id) else { return };
        chains.tables().for_each(|table| table.take_changes(out));
        audit.chains.take_changes(out);
        sender.findings.take_changes(out);
        let NodeChains { an1007, losses, .. } = chains;
        let of_node = encode(&OfNode { rest: an1007.rest(), losses: &*losses });
        take_single(OF_NODE, of_node, &mut told.of_node, out);
        take_single(OF_AUDIT, encode(&audit.forgotten_ns()), &mut told.of_audit, out);
    }

    pub(crate) fn clocks(&self, node: &Node) -> Clocks {
        let node = self.nodes.peek(&*node.boot_id);
        let clocks =
            |node: &NodeChains| Clocks { an1007_ns: node.an1007.now_ns(), an1352_ns: node.an1352.now_ns() };
        node.map(clocks).unwrap_or_default()
    }

    /// Takes what a run has left on this node. Returns how many entries could not be read.
    pub(crate) fn restore(&mut self, entries: &Entries<'_>, node: &Arc<Node>, clocks: Clocks) -> u64 {
        let single = |number| entries.single(number);
        let forgotten = single(OF_AUDIT).map(decode::<u64>);
        let of_node = single(OF_NODE).map(decode::<OfNode<LossLog>>);
        let mut unreadable =
            u64::from(matches!(forgotten, Some(Err(_)))) + u64::from(matches!(of_node, Some(Err(_))));
        let (rest, losses) = match of_node {
            Some(Ok(OfNode { rest, losses })) if rest.is_plausible() && losses.is_plausible() => {
                (rest, losses)
            }
            // Whatever was lost was lost before this: nothing may be taken for complete that is not.
            _ => (Rest::default(), LossLog::unknown(clocks.an1007_ns)),
        };
        let forgotten_ns = forgotten.map_or(Some(0), Result::ok);
        unreadable += self.audit.restore(entries.of(Table::AuditChains), forgotten_ns);
        unreadable += self.sender.findings.restore(entries.of(Table::Numbers), |_, _| Ok(()));
        let chains = self.enter(node);
        chains.losses = losses;
        unreadable += chains.an1007.restore(entries, rest, node, clocks.an1007_ns);
        unreadable += chains.an1352.restore(entries.of(Table::Principals), node, clocks.an1352_ns);
        // Both hear of the same facts.
        unreadable + chains.an1547.restore(entries.of(Table::Entered), node, clocks.an1352_ns)
    }

    /// Nobody watched a node in this time.
    pub(crate) fn note_gap(&mut self, node: &Node, from_ns: u64, to_ns: u64) {
        self.enter(node).losses.note_gap(from_ns, to_ns);
    }

    /// The run before this one has not ended in order: what it told of last may be unknown. `own`: what ids of this run
    /// begin with.
    pub(crate) fn doubt_numbers(&mut self, own: &str) {
        self.sender.doubt(own);
    }

    /// Tells the end of what is known of a node's boot that is over, and forgets it. Returns how many entries that were.
    pub(crate) fn abandon(&mut self, node: &Node, at: Timestamp) -> u64 {
        let Some(mut ended) = self.nodes.remove(&*node.boot_id) else { return 0 };
        ended.losses.end_with_boot();
        let Self { limits, inside, sender, .. } = self;
        let entries = ended.tables().map(|table| table.entries()).sum();
        let NodeChains { an1007, an1352, an1547, losses } = ended;
        let narrowed = &BTreeSet::new();
        an1007
            .abandon(at, &mut an1007::Context { limits: &limits.an1007, narrowed, losses: &losses, sender });
        an1352.abandon(at, &mut an1352::Context { limits: &limits.an1352, inside, losses: &losses, sender });
        an1547.abandon(at, &mut an1547::Context { limits: &limits.an1547, losses: &losses, sender });
        entries
    }
}

impl NodeChains {
    pub(super) fn tables(&mut self) -> impl Iterator<Item = &mut dyn Keep> {
        self.an1007.tables().into_iter().chain(self.an1352.tables()).chain(self.an1547.tables())
    }
}

fn take_single(number: u64, entry: Vec<u8>, told: &mut Vec<u8>, out: &mut Vec<Change>) {
    if *told != entry {
        told.clone_from(&entry);
        out.push(Change { table: Table::Single, number, entry: Some(entry) });
    }
}
