//! What an earlier run has left of the analytic.

use std::sync::Arc;

use super::{ACTS_MAX, An1547, Case, Context, Watch};
use crate::chains::{FindingState, REORDER_NS};
use crate::fact::Node;
use crate::state::Unreadable;
use crate::state::kept::{Keep, is_plausible_time};
use crate::time::Timestamp;

impl An1547 {
    pub(in crate::chains) fn tables(&mut self) -> [&mut dyn Keep; 1] {
        [&mut self.containers]
    }

    /// Takes what an earlier run has left. Returns how much of it could not be read.
    pub(in crate::chains) fn restore(&mut self, containers: &[&[u8]], node: &Arc<Node>, now_ns: u64) -> u64 {
        let unreadable = self.containers.restore(containers, |_, watch| watch.settle_in(node));
        self.now_ns = now_ns;
        let cases = self.containers.iter().filter_map(|(_, watch)| watch.case.as_ref());
        let due = cases.map(|case| case.deadline_ns.saturating_add(REORDER_NS));
        self.next_due_ns = due.min().unwrap_or(u64::MAX);
        unreadable
    }

    /// Tells that nothing more will be known of any chain.
    pub(in crate::chains) fn abandon(mut self, at: Timestamp, context: &mut Context<'_>) {
        while let Some((id, watch)) = self.containers.pop() {
            if let Some(mut case) = watch.case {
                case.tell(&id, FindingState::Closed, at, context);
            }
        }
    }
}

impl Watch {
    /// Takes the place that it had, if it can be what was kept.
    fn settle_in(&mut self, node: &Arc<Node>) -> Result<(), Unreadable> {
        let is_plausible = [&self.reads, &self.uses].into_iter().all(|acts| {
            acts.len() <= ACTS_MAX
                && acts.iter().all(|act| is_plausible_time(act.at))
                && acts.is_sorted_by_key(|act| act.at.boot_ns)
        }) && self.case.as_ref().is_none_or(Case::is_plausible);
        if !is_plausible {
            return Err(Unreadable);
        }
        if let Some(case) = &mut self.case {
            case.node = node.clone();
        }
        Ok(())
    }
}
