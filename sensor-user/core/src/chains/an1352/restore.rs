//! What an earlier run has left of the analytic.

use std::sync::Arc;

use super::{An1352, Burst, CALLS_OF_ONE, Context, Watch, tell};
use crate::chains::FindingState;
use crate::fact::Node;
use crate::state::Unreadable;
use crate::state::kept::{Keep, is_plausible_time};
use crate::time::Timestamp;

impl An1352 {
    pub(in crate::chains) fn tables(&mut self) -> [&mut dyn Keep; 1] {
        [&mut self.principals]
    }

    /// How late it is, boot clock.
    pub(in crate::chains) const fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Takes what an earlier run has left. Returns how much of it could not be read.
    pub(in crate::chains) fn restore(&mut self, principals: &[&[u8]], node: &Arc<Node>, now_ns: u64) -> u64 {
        let unreadable = self.principals.restore(principals, |_, watch| watch.settle_in(node));
        self.now_ns = now_ns;
        let bursts = self.principals.iter().filter_map(|(principal, watch)| {
            watch.burst.as_ref().map(|burst| (burst.deadline_ns, principal.clone()))
        });
        self.deadlines = bursts.collect();
        unreadable
    }

    /// Tells that nothing more will be known of any burst.
    pub(in crate::chains) fn abandon(mut self, at: Timestamp, context: &mut Context<'_>) {
        while let Some((principal, watch)) = self.principals.pop() {
            if let Some(mut burst) = watch.burst {
                tell(&principal, &mut burst, FindingState::Closed, at, context);
            }
        }
    }
}

impl Watch {
    /// Takes the place that it had, if it can be what was kept.
    fn settle_in(&mut self, node: &Arc<Node>) -> Result<(), Unreadable> {
        let is_plausible = self.calls.len() <= CALLS_OF_ONE
            && self.calls.iter().all(|made| is_plausible_time(made.at))
            && self.calls.is_sorted_by_key(|made| made.at.boot_ns)
            && self.burst.as_ref().is_none_or(Burst::is_plausible);
        if !is_plausible {
            return Err(Unreadable);
        }
        if let Some(burst) = &mut self.burst {
            burst.node = node.clone();
        }
        Ok(())
    }
}
