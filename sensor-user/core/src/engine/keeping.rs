//! What outlives this run: handed out as it changes, taken back at the start of the next one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::chains::Clocks;
use crate::engine::Engine;
use crate::fact::Node;
use crate::state::kept::is_plausible_time;
use crate::state::{Change, Entries, Restored, Resumed, Table, decode, encode};
use crate::time::Timestamp;

/// Number of the entry that says whose the others are.
const HEAD: u64 = 0;

/// Who left the entries, and when that was.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Head {
    run: Arc<str>,
    boot_id: Arc<str>,
    at: Timestamp,
    /// Nothing came after it.
    is_last: bool,
    clocks: Clocks,
}

/// Why changes are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// It is time to write down what has changed, if anything has.
    Change,
    /// It is time to say that the sensor still watches.
    SignOfLife,
    /// The run ends.
    End,
}

impl Engine {
    /// From now on what is remembered is handed out by [`Self::take_changes`] as it changes: first all of it, and so
    /// whenever this is asked for again.
    pub fn keep_state(&mut self) {
        self.outbox.keep();
        self.origins.table().keep();
        self.stacks.table().keep();
    }

    /// Hands out what has changed since the last time; empty when nothing has and nothing else is to be said.
    pub fn take_changes(&mut self, now: Timestamp, occasion: Occasion) -> Vec<Change> {
        let mut changes = Vec::new();
        self.outbox.take_changes(&mut changes);
        self.origins.table().take_changes(&mut changes);
        self.stacks.table().take_changes(&mut changes);
        if !changes.is_empty() || occasion != Occasion::Change {
            let head = Head {
                run: self.outbox.run().into(),
                boot_id: self.outbox.node().boot_id.clone(),
                at: now,
                is_last: occasion == Occasion::End,
                clocks: self.outbox.clocks(),
            };
            changes.push(Change { table: Table::Single, number: HEAD, entry: Some(encode(&head)) });
        }
        changes
    }

    /// Takes what an earlier run has left, as code of a table, number and entry; before anything else. What of it is of no
    /// use is counted. `now`: since when this run watches.
    pub fn restore<'a>(
        &mut self,
        now: Timestamp,
        left: impl IntoIterator<Item = (u8, u64, &'a [u8])>,
    ) -> Restored {
        let mut entries = Entries::default();
        let mut unreadable = 0;
        for (code, number, entry) in left {
            match Table::from_code(code) {
                Some(table) => entries.add(table, number, entry),
                None => unreadable += 1,
            }
        }
        let head = entries.single(HEAD).map(decode::<Head>);
        let Some(Ok(head)) = head.filter(|head| head.as_ref().is_ok_and(|head| is_plausible_time(head.at)))
        else {
            // Nothing says whose they are.
            return Restored { unreadable: unreadable + entries.len(), ..Restored::default() };
        };
        let node = self.outbox.node().clone();
        let rebooted = head.boot_id != node.boot_id;
        let left_by = match rebooted {
            true => Arc::new(Node { boot_id: head.boot_id, ..(*node).clone() }),
            false => node.clone(),
        };
        unreadable += self.stacks.restore(entries.of(Table::Stacks));
        unreadable += self.outbox.restore(&entries, &left_by, head.clocks);
        let mut outdated = 0;
        if rebooted {
            outdated = self.outbox.abandon(&left_by, head.at) + entries.of(Table::Origins).len() as u64;
        } else {
            unreadable += self.origins.restore(entries.of(Table::Origins));
            self.outbox.note_gap(&node, head.at.boot_ns, now.boot_ns);
        }
        if !head.is_last {
            let own = format!("{}-", self.outbox.run());
            self.outbox.doubt_numbers(&own);
        }
        let entries = entries.len().saturating_sub(unreadable).saturating_sub(outdated);
        let resumed = Resumed {
            run: head.run,
            from: head.at,
            to: now,
            clean: head.is_last,
            rebooted,
            entries,
            unreadable,
            outdated,
        };
        self.resumed = Some(resumed.clone());
        Restored { unreadable, resumed: Some(resumed) }
    }
}
