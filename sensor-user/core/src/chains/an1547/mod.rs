//! AN1547 as a node's kernel sees it: somebody who came into a container takes its credential and goes to the cluster.
//!
//! Owns what those who are not the workload did in each container within the window. The workload is what the container's
//! first program has started: it reads its own credentials and talks to the API server all day, and is never told of. Whether
//! the credential was accepted, and for what, only an audit log can say; so this half infers, and offers its keys.

mod act;
mod case;
mod restore;

use std::sync::Arc;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use act::{Act, Kind, unlisted_peer};
use case::Case;

use super::loss_log::LossLog;
use super::{FindingState, REORDER_NS, Sender};
use crate::fact::{ContainerAction, Fact, FactKind, Verdict};
use crate::state::kept::Kept;
use crate::state::{STATE_BYTES, Table};
use crate::time::Timestamp;

/// Most containers whose first program is known; the one that did something longest ago goes first, and its chain is closed.
const CONTAINERS_MAX: usize = 4096;
/// Most acts of one kind in one container, the latest ones.
const ACTS_MAX: usize = 16;

/// A read may be told of with a time so much later than its own: where fanotify stands in for a hook, the time is that of
/// hearing of it, and who reads and connects in one go would have connected first.
const HEARD_LATE_NS: u64 = 500_000_000;

/// What tunes the analytic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct An1547Limits {
    /// How long after one stage another one belongs to the same chain, nanoseconds of event time.
    pub window_ns: u64,
    /// Where the API server is reached beside its own port: the addresses of its service.
    pub api: Vec<IpNetwork>,
}

impl Default for An1547Limits {
    fn default() -> Self {
        Self { window_ns: 600_000_000_000, api: Vec::new() }
    }
}

/// What a fact is judged with.
pub(super) struct Context<'a> {
    pub(super) limits: &'a An1547Limits,
    pub(super) losses: &'a LossLog,
    pub(super) sender: &'a mut Sender,
}

/// The analytic on one node.
#[derive(Debug)]
pub(super) struct An1547 {
    containers: Kept<Arc<str>, Watch>,
    /// No chain ends before this, boot clock.
    next_due_ns: u64,
    now_ns: u64,
}

/// What is known of one container.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Watch {
    /// Process id of its first program; `None` before it runs, and where that was before the sensor.
    first: Option<u32>,
    /// Credentials that were read, in order of time.
    reads: Vec<Act>,
    /// Connections to the cluster, likewise.
    uses: Vec<Act>,
    case: Option<Case>,
}

impl Default for An1547 {
    fn default() -> Self {
        Self {
            containers: Kept::new(Table::Entered, CONTAINERS_MAX, STATE_BYTES),
            next_due_ns: u64::MAX,
            now_ns: 0,
        }
    }
}

impl An1547 {
    pub(super) fn handle(&mut self, fact: &Fact, verdict: Option<&Verdict>, context: &mut Context<'_>) {
        self.pass(fact.at.boot_ns, context);
        if let Some(signal) = unlisted_peer(fact, verdict) {
            return context.sender.signal(fact, signal);
        }
        let Some(container) = fact.container.as_ref().map(|container| container.key()) else { return };
        match &fact.kind {
            FactKind::Container { action: ContainerAction::Started, .. } => {
                let first = fact.process.as_ref().map(|process| process.pid);
                self.enter(&container, context);
                if let Some(watch) = self.containers.get_mut(&container) {
                    watch.first = first;
                }
            }
            FactKind::Container { action: ContainerAction::Stopped | ContainerAction::Removed, .. } => {
                self.note_end(&container);
            }
            FactKind::FileRead { .. } | FactKind::Connect { .. } => {
                self.on_act(&container, fact, verdict, context);
            }
            _ => return,
        }
        self.shrink(context);
    }

    fn on_act(&mut self, id: &Arc<str>, fact: &Fact, verdict: Option<&Verdict>, context: &mut Context<'_>) {
        let first = self.containers.peek(id).and_then(|watch| watch.first);
        let Some((kind, act)) = Act::of(fact, verdict, first, context.limits) else { return };
        let open = self.containers.peek(id).and_then(|watch| watch.case.as_ref());
        if open.is_some_and(|case| act.at.boot_ns > case.deadline_ns) {
            self.close(id, false, context);
        }
        self.enter(id, context);
        let Some(watch) = self.containers.get_mut(id) else { return };
        let window_ns = context.limits.window_ns;
        let Some(is_new) = watch.note(kind, &act, window_ns) else { return };
        if is_new {
            context.sender.signal(fact, act.signal(kind, id, fact));
        }
        let Watch { reads, uses, case, .. } = watch;
        // Whatever was used was read before: the order is that of event time, whichever is heard of first.
        let Some(first_read) = reads.first().map(|read| read.at.boot_ns.saturating_sub(HEARD_LATE_NS)) else {
            return;
        };
        let is_after = |used: &&Act| used.at.boot_ns >= first_read;
        if !uses.iter().any(|used| is_after(&used)) {
            return;
        }
        let case = match case {
            Some(case) => {
                if kind == Kind::Read || is_after(&&act) {
                    case.add(kind, &act);
                }
                case
            }
            None => {
                let case = case.insert(Case::of(fact));
                reads.iter().for_each(|read| case.add(Kind::Read, read));
                uses.iter().filter(is_after).for_each(|used| case.add(Kind::Use, used));
                case
            }
        };
        case.deadline_ns = case.last().boot_ns.saturating_add(window_ns);
        self.next_due_ns = self.next_due_ns.min(case.deadline_ns.saturating_add(REORDER_NS));
        if let Some(state) = case.news() {
            case.tell(id, state, fact.at, context);
        }
    }

    /// Time has passed: closes the chains of which the window has ended, at the time of that end.
    pub(super) fn pass(&mut self, boot_ns: u64, context: &mut Context<'_>) {
        self.now_ns = self.now_ns.max(boot_ns);
        if self.now_ns <= self.next_due_ns {
            return;
        }
        let mut past: Vec<(u64, Arc<str>)> = Vec::new();
        self.next_due_ns = u64::MAX;
        for (id, watch) in self.containers.iter() {
            let Some(case) = &watch.case else { continue };
            let due_ns = case.deadline_ns.saturating_add(REORDER_NS);
            if due_ns < self.now_ns {
                past.push((due_ns, id.clone()));
            } else {
                self.next_due_ns = self.next_due_ns.min(due_ns);
            }
        }
        past.sort_unstable();
        past.iter().for_each(|(_, id)| self.close(id, false, context));
    }

    /// Chains that may still grow.
    pub(super) fn open(&self) -> usize {
        self.containers.iter().filter(|(_, watch)| watch.case.is_some()).count()
    }

    pub(super) fn evicted(&self) -> u64 {
        self.containers.evicted()
    }

    fn enter(&mut self, id: &Arc<str>, context: &mut Context<'_>) {
        if !self.containers.contains(id)
            && let Some((evicted, watch)) = self.containers.insert(id.clone(), Watch::default())
        {
            end(&evicted, watch, true, context);
        }
    }

    /// A container has ended: its next first program is another one, and of one that did nothing there is nothing to know.
    fn note_end(&mut self, id: &Arc<str>) {
        let is_idle = |watch: &Watch| watch.case.is_none() && watch.reads.is_empty() && watch.uses.is_empty();
        match self.containers.peek(id).map(is_idle) {
            Some(true) => {
                self.containers.remove(id);
            }
            Some(false) => {
                if let Some(watch) = self.containers.get_mut(id) {
                    watch.first = None;
                }
            }
            None => {}
        }
    }

    fn shrink(&mut self, context: &mut Context<'_>) {
        while let Some((id, watch)) = self.containers.evict_excess() {
            end(&id, watch, true, context);
        }
    }

    /// Tells the end of a chain. The container goes on.
    fn close(&mut self, id: &Arc<str>, cut: bool, context: &mut Context<'_>) {
        let Some(watch) = self.containers.get_mut(id) else { return };
        let first = watch.first;
        let ended = std::mem::replace(watch, Watch { first, ..Watch::default() });
        end(id, ended, cut, context);
        if first.is_none() {
            self.containers.remove(id);
        }
    }
}

fn end(id: &Arc<str>, watch: Watch, cut: bool, context: &mut Context<'_>) {
    let Some(mut case) = watch.case else { return };
    case.cut |= cut;
    let last = case.last();
    let deadline_ns = case.deadline_ns.max(last.boot_ns);
    let unix_ns = last.unix_ns.saturating_add(deadline_ns - last.boot_ns);
    case.tell(id, FindingState::Closed, Timestamp { boot_ns: deadline_ns, unix_ns }, context);
}

impl Watch {
    /// Takes an act; returns whether it is a new one, `None` when it comes too late to count.
    fn note(&mut self, kind: Kind, act: &Act, window_ns: u64) -> Option<bool> {
        let boot_ns = act.at.boot_ns;
        let acts = self.reads.iter().chain(&self.uses);
        let newest_ns = acts.map(|known| known.at.boot_ns).max().unwrap_or(0).max(boot_ns);
        let since_ns = newest_ns.saturating_sub(window_ns);
        if boot_ns < since_ns {
            return None;
        }
        self.reads.retain(|known| known.at.boot_ns >= since_ns);
        self.uses.retain(|known| known.at.boot_ns >= since_ns);
        let acts = match kind {
            Kind::Read => &mut self.reads,
            Kind::Use => &mut self.uses,
        };
        let is_new = !acts.iter().any(|known| known.is_like(act));
        // Of what is done again and again the first time stays, which others are after, and the last one, which they are
        // before.
        let others = acts.iter().enumerate().filter(|(_, known)| known.is_like(act)).skip(1);
        if let Some(known) = others.map(|(index, _)| index).last().or((acts.len() == ACTS_MAX).then_some(1)) {
            acts.remove(known);
        }
        let place = acts.partition_point(|known| known.at.boot_ns <= boot_ns);
        acts.insert(place, act.clone());
        Some(is_new)
    }
}

#[cfg(test)]
mod tests;
