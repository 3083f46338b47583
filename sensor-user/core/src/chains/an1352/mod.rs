//! AN1352: somebody goes through what there is.
//!
//! Owns what each principal has asked for within the window, which is of event time and ends with its latest call. So many
//! different calls are a burst, and a burst is one finding until its principal has been quiet for a window. Whoever is
//! expected never gets here: peers that an entry lists, and tools that go by their names on the host.

mod burst;
mod call;
mod restore;
mod tools;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use burst::Burst;
use call::{Call, Principal};

use super::analytic::{AN1352, SignalName};
use super::loss_log::LossLog;
use super::{FindingState, REORDER_NS, Sender, Signal, SignalKey};
use crate::exposure::Inside;
use crate::fact::{Fact, Verdict};
use crate::ids::RecordId;
use crate::state::kept::Kept;
use crate::state::{STATE_BYTES, Table};
use crate::time::Timestamp;

/// Most principals whose calls are remembered; the one that called longest ago goes first, and its burst is closed.
const PRINCIPALS_MAX: usize = 4096;
/// Most different calls of one principal, the latest ones.
const CALLS_OF_ONE: usize = 32;

/// What tunes the analytic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct An1352Limits {
    /// Different calls that are a burst: 2 to 32.
    pub distinct_calls: u32,
    /// The time within which they are made, nanoseconds of event time.
    pub window_ns: u64,
    /// Endpoints of others that a container goes through before that is a burst by itself.
    pub sweep_targets: u32,
}

impl Default for An1352Limits {
    fn default() -> Self {
        Self { distinct_calls: 6, window_ns: 120_000_000_000, sweep_targets: 8 }
    }
}

/// What a fact is judged with.
pub(super) struct Context<'a> {
    pub(super) limits: &'a An1352Limits,
    pub(super) inside: &'a Inside,
    pub(super) losses: &'a LossLog,
    pub(super) sender: &'a mut Sender,
}

/// The analytic on one node.
#[derive(Debug)]
pub(super) struct An1352 {
    principals: Kept<Principal, Watch>,
    /// When bursts end if nothing more happens, boot clock.
    deadlines: BTreeSet<(u64, Principal)>,
    now_ns: u64,
}

/// What one principal does.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Watch {
    /// Different calls within the window, in order of time.
    calls: Vec<Made>,
    burst: Option<Burst>,
}

/// A call that was made, the last time that it was.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Made {
    hash: u64,
    at: Timestamp,
    event: RecordId,
    signal: SignalName,
    text: Arc<str>,
    lost: u64,
}

impl Default for An1352 {
    fn default() -> Self {
        Self {
            principals: Kept::new(Table::Principals, PRINCIPALS_MAX, STATE_BYTES),
            deadlines: BTreeSet::new(),
            now_ns: 0,
        }
    }
}

impl An1352 {
    pub(super) fn handle(&mut self, fact: &Fact, verdict: Option<&Verdict>, context: &mut Context<'_>) {
        self.pass(fact.at.boot_ns, context);
        self.on_fact(fact, verdict, context);
        self.shrink(context);
    }

    fn on_fact(&mut self, fact: &Fact, verdict: Option<&Verdict>, context: &mut Context<'_>) {
        let Some(call) = Call::of(fact, verdict, context.limits) else { return };
        let principal = &call.principal;
        let open = self.principals.peek(principal).and_then(|watch| watch.burst.as_ref());
        if open.is_some_and(|burst| fact.at.boot_ns > burst.deadline_ns) {
            self.close(principal, context);
        }
        if !self.principals.contains(principal)
            && let Some((evicted, watch)) = self.principals.insert(principal.clone(), Watch::default())
            && let Some(mut burst) = watch.burst
        {
            burst.cut = true;
            self.end(&evicted, burst, context);
        }
        let Some(watch) = self.principals.get_mut(principal) else { return };
        let made = Made::of(fact, &call);
        let Some(is_new) = watch.note(&made, context.limits.window_ns) else { return };
        if is_new {
            context.sender.signal(fact, signal_of(fact, &call));
        }
        let is_enough = call.is_burst || watch.calls.len() >= context.limits.distinct_calls as usize;
        let Watch { calls, burst } = watch;
        let burst = match burst {
            Some(burst) => {
                burst.add(&made, is_new);
                burst
            }
            None if is_enough => {
                let burst = burst.insert(Burst::of(fact));
                calls.iter().for_each(|made| burst.add(made, true));
                burst
            }
            None => return,
        };
        let deadline_ns = burst.last().boot_ns.saturating_add(context.limits.window_ns);
        if burst.deadline_ns != deadline_ns {
            self.deadlines.remove(&(burst.deadline_ns, principal.clone()));
            self.deadlines.insert((deadline_ns, principal.clone()));
            burst.deadline_ns = deadline_ns;
        }
        if let Some(state) = burst.news() {
            tell(principal, burst, state, fact.at, context);
        }
    }

    fn shrink(&mut self, context: &mut Context<'_>) {
        while let Some((principal, watch)) = self.principals.evict_excess() {
            if let Some(mut burst) = watch.burst {
                burst.cut = true;
                self.end(&principal, burst, context);
            }
        }
    }

    /// Time has passed: closes the bursts of which the window has ended, at the time of that end.
    pub(super) fn pass(&mut self, boot_ns: u64, context: &mut Context<'_>) {
        self.now_ns = self.now_ns.max(boot_ns);
        while let Some((deadline_ns, principal)) = self.deadlines.first() {
            if deadline_ns.saturating_add(REORDER_NS) >= self.now_ns {
                break;
            }
            let principal = principal.clone();
            self.close(&principal, context);
        }
    }

    /// Principals whose calls are remembered.
    pub(super) fn open(&self) -> usize {
        self.principals.len()
    }

    pub(super) fn evicted(&self) -> u64 {
        self.principals.evicted()
    }

    fn close(&mut self, principal: &Principal, context: &mut Context<'_>) {
        let watch = self.principals.remove(principal);
        if let Some(burst) = watch.and_then(|watch| watch.burst) {
            self.end(principal, burst, context);
        }
    }

    fn end(&mut self, principal: &Principal, mut burst: Burst, context: &mut Context<'_>) {
        self.deadlines.remove(&(burst.deadline_ns, principal.clone()));
        let last = burst.last();
        let deadline_ns = burst.deadline_ns.max(last.boot_ns);
        let unix_ns = last.unix_ns.saturating_add(deadline_ns - last.boot_ns);
        let at = Timestamp { boot_ns: deadline_ns, unix_ns };
        tell(principal, &mut burst, FindingState::Closed, at, context);
    }
}

impl Watch {
    /// Takes a call; returns whether it is a new one, `None` when it comes too late to count.
    fn note(&mut self, made: &Made, window_ns: u64) -> Option<bool> {
        let boot_ns = made.at.boot_ns;
        let newest_ns = self.calls.last().map_or(boot_ns, |last| last.at.boot_ns.max(boot_ns));
        let since_ns = newest_ns.saturating_sub(window_ns);
        if boot_ns < since_ns {
            return None;
        }
        self.calls.retain(|known| known.at.boot_ns >= since_ns);
        let known = self.calls.iter().position(|known| known.hash == made.hash);
        match known {
            Some(known) if self.calls[known].at.boot_ns >= boot_ns => return Some(false),
            Some(known) => {
                self.calls.remove(known);
            }
            None if self.calls.len() == CALLS_OF_ONE => {
                self.calls.remove(0);
            }
            None => {}
        }
        let place = self.calls.partition_point(|known| known.at.boot_ns <= boot_ns);
        self.calls.insert(place, made.clone());
        Some(known.is_none())
    }
}

impl Made {
    fn of(fact: &Fact, call: &Call) -> Self {
        Self {
            hash: call.hash,
            at: fact.at,
            event: fact.id.clone(),
            signal: SignalName(call.signal),
            text: call.text.clone(),
            lost: fact.quality.lost,
        }
    }
}

fn tell(
    principal: &Principal,
    burst: &mut Burst,
    state: FindingState,
    at: Timestamp,
    context: &mut Context<'_>,
) {
    let Some(evidence) = burst.first_evidence().cloned() else { return };
    let record = context.sender.finding_id("an1352", &evidence);
    let id = burst.id.get_or_insert_with(|| record.0.clone()).clone();
    let finding = burst
        .finding(id, state, principal, context.inside, |first, last| context.losses.missed(first, last, at));
    context.sender.finding(record, at, burst.node.clone(), finding);
}

fn signal_of(fact: &Fact, call: &Call) -> Signal {
    let mut keys = Vec::new();
    if let Principal::Container(id) = &call.principal {
        keys.push((SignalKey::Container, id.clone()));
    }
    keys.push((SignalKey::Event, fact.id.0.clone()));
    if let Principal::Peer(ip) = &call.principal {
        keys.push((SignalKey::Peer, Arc::from(ip.to_string())));
    }
    let stage = AN1352.stages[0].name.into();
    Signal { name: call.signal.into(), analytic: AN1352.id.into(), stage, keys }
}

#[cfg(test)]
mod tests;
