//! What an earlier run has left of the analytic.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::access::Accesses;
use super::{An1007, Context, LOOSE_OF_ONE, RECENT_MAX, STEPS_OF_ONE, tell};
use crate::chains::FindingState;
use crate::fact::Node;
use crate::state::kept::{COUNT_MAX, Keep, is_plausible_time};
use crate::state::{Entries, Table, Unreadable};
use crate::time::Timestamp;

/// What is in no table.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::chains) struct Rest {
    recent: VecDeque<(u64, Arc<str>)>,
    opened: u64,
}

impl Rest {
    pub(in crate::chains) fn is_plausible(&self) -> bool {
        self.recent.len() <= RECENT_MAX && self.opened <= COUNT_MAX
    }
}

impl An1007 {
    pub(in crate::chains) fn tables(&mut self) -> [&mut dyn Keep; 5] {
        let Accesses { by_conn, veiled } = &mut self.accesses;
        [by_conn, veiled, &mut self.steps, &mut self.loose, &mut self.cases]
    }

    /// How late it is, boot clock.
    pub(in crate::chains) const fn now_ns(&self) -> u64 {
        self.now_ns
    }

    pub(in crate::chains) fn rest(&self) -> Rest {
        Rest { recent: self.recent.clone(), opened: self.opened }
    }

    /// Takes what there is. Returns how much of it could not be read.
    pub(in crate::chains) fn restore(
        &mut self,
        entries: &Entries<'_>,
        rest: Rest,
        node: &Arc<Node>,
        now_ns: u64,
    ) -> u64 {
        let check = |is_plausible: bool| if is_plausible { Ok(()) } else { Err(Unreadable) };
        let of = |table| entries.of(table);
        let mut unreadable =
            self.accesses.by_conn.restore(of(Table::Accesses), |_, access| check(access.is_plausible()));
        unreadable +=
            self.accesses.veiled.restore(of(Table::Veiled), |_, access| check(access.is_plausible()));
        unreadable += self.steps.restore(of(Table::Steps), |_, steps| {
            check(steps.len() <= STEPS_OF_ONE && steps.iter().all(|step| is_plausible_time(step.at)))
        });
        unreadable += self.loose.restore(of(Table::Loose), |_, acts| {
            check(acts.len() <= LOOSE_OF_ONE && acts.iter().all(|act| is_plausible_time(act.at)))
        });
        unreadable += self.cases.restore(of(Table::Cases), |number, case| {
            case.node = node.clone();
            check(*number <= COUNT_MAX && case.is_plausible())
        });
        self.recent = rest.recent;
        self.opened = rest.opened;
        self.now_ns = now_ns;
        for (number, case) in self.cases.iter() {
            self.opened = self.opened.max(*number);
            self.by_key.insert(case.key.clone(), *number);
            self.by_container.extend(case.containers().map(|container| (container.clone(), *number)));
            self.deadlines.extend(case.deadline_ns.map(|deadline_ns| (deadline_ns, *number)));
        }
        unreadable
    }

    /// Tells that nothing more will be known of any chain.
    pub(in crate::chains) fn abandon(mut self, at: Timestamp, context: &mut Context<'_>) {
        while let Some((_, mut case)) = self.cases.pop() {
            tell(&mut case, FindingState::Closed, at, context);
        }
    }
}
