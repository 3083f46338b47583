//! How well each capability is served, and since when.
//!
//! A capability needs hooks in place and, where the sensor can do the act itself, the signs of its canaries; `needs` says
//! which. Owns the state of every capability; knows nothing of how a hook is attached or a canary is made.

use std::sync::Arc;

use crate::canary::{Canaries, Standing};
use crate::health::{AuditInput, Blind, Capability, Coverage, CoverageState, Hook, HookState};
use crate::time::Timestamp;

mod needs;
mod tables;

pub use needs::{FANOTIFY, programs_of};
use needs::{NEEDS, Need, What};
use tables::Tables;
pub use tables::{Table, TableState};

/// Added to a cost where it is a canary that tells.
const SILENT: &str = "the hook is in place and does not report the sensor's own canary";
/// Added to a cost where the hook was lost and is back.
const ATTACHED_ANEW: &str = "the hook is attached again and has not reported a canary yet";
/// Why a capability is not live while a hook that is in place has never reported a canary.
const UNPROVED: &str = "not proved yet";
/// Added where a hook rests.
const RESTS: &str = "idle: no management listener is open; the hook is attached when one opens";
/// Why it is not while the last proof is too old.
const STALE: &str = "no longer proved: no canary has come back for three intervals";

/// What a capability lacks for a cause other than its hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Which capability.
    pub capability: Capability,
    /// What is missing.
    pub reason: &'static str,
    /// The last moment at which it was not, where somebody knows better than by the look before.
    pub since: Option<Timestamp>,
}

impl Gap {
    /// A gap that began some time after the last look that did not find it.
    #[must_use]
    pub const fn new(capability: Capability, reason: &'static str) -> Self {
        Self { capability, reason, since: None }
    }
}

/// What was looked at to find out what is missing. What is looked at again replaces what was found before: only what is
/// looked at once stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// How the sensor started.
    Start,
    /// Sockets of runtimes and credential files.
    Files,
    /// Whether these are still looked for.
    FilesLooked,
    /// The tables that only the sensor writes.
    Tables,
    /// What an earlier run has left, and whether there is a place for open chains.
    State,
    /// Whether they are written there.
    StateKept,
}

impl Look {
    const COUNT: usize = 6;

    /// Whether it is told of each time it is done, so that what it finds began after the one before; else only when it finds
    /// something new.
    const fn is_told_always(self) -> bool {
        matches!(self, Self::FilesLooked | Self::Tables | Self::StateKept)
    }
}

/// A hook, and what has become of it since it was attached.
#[derive(Debug)]
struct Known {
    hook: Hook,
    /// The last moment at which it is known to have been in place; `None` if it never was.
    good: Option<Timestamp>,
    /// Its program, while somebody else has detached it and it is not in place again.
    lost: Option<&'static str>,
    /// Why its last walk failed, for an iterator; a walk that succeeds takes it back.
    walk_failure: Option<Arc<str>>,
}

impl Known {
    fn is_attached(&self) -> bool {
        self.hook.state == HookState::Attached && self.walk_failure.is_none()
    }

    /// The hook as it works, which is not always as it was attached.
    fn hook(&self) -> Hook {
        match &self.walk_failure {
            Some(reason) if self.hook.state == HookState::Attached => {
                let reason = Some(reason.clone());
                Hook { state: HookState::Unavailable, reason, ..self.hook.clone() }
            }
            _ => self.hook.clone(),
        }
    }
}

/// A capability, and the best state it was ever in: what this host has promised.
#[derive(Debug)]
struct Entry {
    coverage: Coverage,
    best: CoverageState,
}

impl Entry {
    /// The worst state in which nothing is missing: a core capability is owed by every host, another one only as far as
    /// this host has had it.
    fn owed(&self) -> CoverageState {
        if self.coverage.capability.is_core() { CoverageState::Live } else { self.best }
    }
}

/// How a capability is served now.
#[derive(Debug)]
struct Assessment {
    state: CoverageState,
    reason: Option<Arc<str>>,
    /// The beginning of that state, where something tells.
    since: Option<Timestamp>,
}

/// What is found of a capability while its needs are gone through.
#[derive(Debug, Default)]
struct Findings {
    /// What each lack costs, and the last moment at which it is known not to have been one.
    costs: Vec<(CoverageState, Option<Timestamp>)>,
    reasons: Vec<String>,
    /// What explains the reasons, or is worth knowing and costs nothing.
    notes: Vec<String>,
}

impl Findings {
    fn add(&mut self, state: CoverageState, since: Option<Timestamp>, reason: &str) {
        self.costs.push((state, since));
        push_new(&mut self.reasons, reason);
    }

    fn note(&mut self, note: &str) {
        push_new(&mut self.notes, note);
    }

    fn conclude(mut self) -> Assessment {
        let state = self.costs.iter().map(|(state, _)| *state).max().unwrap_or(CoverageState::Live);
        // What costs less than the state says nothing of when that began.
        let since =
            self.costs.iter().filter(|(cost, _)| *cost == state).filter_map(|(_, since)| *since).min();
        self.reasons.append(&mut self.notes);
        let reason = (!self.reasons.is_empty()).then(|| Arc::from(self.reasons.join("; ")));
        Assessment { state, reason, since }
    }
}

fn push_new(texts: &mut Vec<String>, text: &str) {
    if !texts.iter().any(|known| known == text) {
        texts.push(text.to_owned());
    }
}

/// The coverage of a run. Empty until hooks are told of, as in a replay.
#[derive(Debug, Default)]
pub(crate) struct CoverageLedger {
    hooks: Vec<Known>,
    gaps: Vec<(Look, Gap)>,
    /// When each was done last, by [`Look`].
    looked: [Option<Timestamp>; Look::COUNT],
    tables: Tables,
    /// What the inputs of audit events lack; `None` where none was asked for.
    audit: Option<Vec<(CoverageState, Arc<str>)>>,
    entries: Vec<Entry>,
}

impl CoverageLedger {
    /// Replaces what is known of the hooks' places. Walks that failed stay failed: being loaded is no proof of the contrary.
    pub(crate) fn set_hooks(&mut self, now: Timestamp, hooks: Vec<Hook>) {
        let mut before = std::mem::take(&mut self.hooks);
        let know = |hook: Hook| {
            let index = before.iter().position(|known| known.hook.program == hook.program);
            let old = index.map(|index| before.swap_remove(index));
            let good = old.as_ref().and_then(|old| old.good);
            Known {
                good: if hook.state == HookState::Attached { Some(now) } else { good },
                lost: old.as_ref().and_then(|old| old.lost).filter(|_| hook.state == HookState::Unavailable),
                walk_failure: old.and_then(|old| old.walk_failure),
                hook,
            }
        };
        self.hooks = hooks.into_iter().map(know).collect();
    }

    /// Notes that a program was found in its place.
    pub(crate) fn set_in_place(&mut self, now: Timestamp, program: &str) {
        if let Some(known) = self.known_mut(program).filter(|known| known.hook.state == HookState::Attached) {
            known.good = Some(now);
        }
    }

    /// Notes that somebody else has detached a program; returns whether that is news.
    pub(crate) fn set_detached(&mut self, program: &'static str) -> bool {
        let Some(known) = self.known_mut(program) else { return false };
        known.lost = Some(program);
        let was_attached = known.hook.state == HookState::Attached;
        if was_attached {
            known.hook.state = HookState::Unavailable;
            known.hook.reason = Some("detached by another program".into());
        }
        was_attached
    }

    /// Programs to be attached again.
    pub(crate) fn lost(&self) -> impl Iterator<Item = &'static str> {
        self.hooks.iter().filter_map(|known| known.lost)
    }

    /// The last moment at which a program is known to have been in its place.
    pub(crate) fn last_good(&self, program: &str) -> Option<Timestamp> {
        self.known(program)?.good
    }

    /// Notes how the walk of an iterator ended, `failure` being why it failed; returns whether that is news. One that is
    /// not loaded has a reason that says more.
    pub(crate) fn set_walked(&mut self, now: Timestamp, program: &str, failure: Option<&str>) -> bool {
        let attached = |known: &&mut Known| known.hook.state == HookState::Attached;
        let Some(known) = self.known_mut(program).filter(attached) else { return false };
        if failure.is_none() {
            known.good = Some(now);
        }
        let is_news = known.walk_failure.is_some() != failure.is_some();
        known.walk_failure = failure.map(Arc::from);
        is_news
    }

    /// Notes something else that is missing, for good.
    pub(crate) fn add_gap(&mut self, gap: Gap) {
        self.gaps.push((Look::Start, gap));
    }

    /// Notes what else is missing as of a look, in place of what was missing as of the one before.
    pub(crate) fn set_gaps(&mut self, now: Timestamp, look: Look, gaps: &[Gap]) {
        let before = self.looked[look as usize].replace(now).filter(|_| look.is_told_always());
        let (known, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.gaps).into_iter().partition(|(found_by, _)| *found_by == look);
        let dated = |gap: &Gap| {
            let same = |(_, old): &&(Look, Gap)| (old.capability, old.reason) == (gap.capability, gap.reason);
            match known.iter().find(same) {
                Some((_, old)) => (look, *old),
                None => (look, Gap { since: gap.since.or(before), ..*gap }),
            }
        };
        self.gaps = others;
        self.gaps.extend(gaps.iter().map(dated));
    }

    /// Notes how a table was found.
    pub(crate) fn set_table(&mut self, now: Timestamp, table: Table, state: TableState) {
        self.tables.set(now, table, state);
    }

    /// Notes how audit events are read. While one of several inputs is, the capability is not blind.
    pub(crate) fn set_audit(&mut self, inputs: &[AuditInput]) {
        let lacks = inputs.iter().filter_map(|input| input.lack.as_ref());
        let all_blind = lacks.clone().filter(|lack| lack.is_blind).count() == inputs.len();
        let state = |is_blind: bool| {
            if is_blind && all_blind { CoverageState::Blind } else { CoverageState::Degraded }
        };
        self.audit = Some(lacks.map(|lack| (state(lack.is_blind), lack.reason.clone())).collect());
    }

    pub(crate) fn hooks(&self) -> Vec<Hook> {
        self.hooks.iter().map(Known::hook).collect()
    }

    pub(crate) fn entries(&self) -> Vec<Coverage> {
        self.entries.iter().map(|entry| entry.coverage.clone()).collect()
    }

    /// How well a capability is served; `None` while nothing is known of hooks.
    pub(crate) fn state_of(&self, capability: Capability) -> Option<CoverageState> {
        let entry = self.entries.iter().find(|entry| entry.coverage.capability == capability)?;
        Some(entry.coverage.state)
    }

    /// Whether every capability is as good as it has to be here.
    pub(crate) fn is_as_promised(&self) -> bool {
        self.entries.iter().all(|entry| entry.coverage.state <= entry.owed())
    }

    /// Assesses every capability anew. Returns the blind intervals that end with that, or `None` when nothing changed.
    pub(crate) fn update(&mut self, now: Timestamp, canaries: &Canaries) -> Option<Vec<Blind>> {
        if self.hooks.is_empty() {
            return None;
        }
        if self.entries.is_empty() {
            self.entries =
                Capability::ALL.map(|capability| self.first_entry(now, capability, canaries)).into();
            self.enter_audit(now, canaries);
            return Some(Vec::new());
        }
        let mut changed = self.enter_audit(now, canaries);
        let mut ended = Vec::new();
        for index in 0..self.entries.len() {
            let assessed = self.assess(self.entries[index].coverage.capability, canaries);
            let Entry { coverage: entry, best } = &mut self.entries[index];
            if (entry.state, &entry.reason) == (assessed.state, &assessed.reason) {
                continue;
            }
            changed = true;
            if entry.state == CoverageState::Blind && assessed.state < entry.state {
                ended.push(Blind { capability: entry.capability, from: entry.since, to: now });
            }
            if entry.state < assessed.state {
                entry.since = assessed.since.unwrap_or(now);
            } else if entry.state > assessed.state {
                entry.since = now;
            }
            entry.state = assessed.state;
            entry.reason = assessed.reason;
            *best = entry.state.min(*best);
        }
        changed.then_some(ended)
    }

    /// Enters audit events among the capabilities once they are asked for; returns whether that is news.
    fn enter_audit(&mut self, now: Timestamp, canaries: &Canaries) -> bool {
        if self.audit.is_none() || self.state_of(Capability::Audit).is_some() {
            return false;
        }
        let entry = self.first_entry(now, Capability::Audit, canaries);
        // Who asks for them is owed all of them, from the start.
        self.entries.push(Entry { best: CoverageState::Live, ..entry });
        true
    }

    fn first_entry(&self, now: Timestamp, capability: Capability, canaries: &Canaries) -> Entry {
        let Assessment { state, reason, since } = self.assess(capability, canaries);
        let since = since.unwrap_or(now);
        Entry { coverage: Coverage { capability, state, reason, since }, best: state }
    }

    /// The intervals of those that are blind at the end of the run and need not be.
    pub(crate) fn still_blind(&self, now: Timestamp) -> Vec<Blind> {
        let is_blind = |entry: &&Entry| {
            entry.coverage.state == CoverageState::Blind && entry.owed() < CoverageState::Blind
        };
        let blind = self.entries.iter().filter(is_blind).map(|entry| &entry.coverage);
        blind.map(|entry| Blind { capability: entry.capability, from: entry.since, to: now }).collect()
    }

    fn assess(&self, capability: Capability, canaries: &Canaries) -> Assessment {
        let mut findings = Findings::default();
        for need in NEEDS.iter().filter(|need| need.capability == capability) {
            match need.what {
                What::Hook(program) if self.is_attached(program) => {}
                What::Hook(program) if self.rests(program) => findings.note(RESTS),
                What::Hook(program) => {
                    findings.add(need.without, self.last_proof(program, canaries), need.cost);
                }
                What::OneOf(programs) => self.assess_one_of(programs, need, &mut findings),
                What::Sign(sign) if !sign.programs().iter().any(|program| self.is_attached(program)) => {}
                What::Sign(sign) => assess_sign(&canaries.standing(sign), need, &mut findings),
            }
        }
        for lack in self.tables.lacks_of(capability) {
            findings.add(lack.state, lack.since, &lack.reason);
        }
        for (_, gap) in self.gaps.iter().filter(|(_, gap)| gap.capability == capability) {
            findings.add(CoverageState::Degraded, gap.since, gap.reason);
        }
        if capability == Capability::Audit {
            for (state, reason) in self.audit.iter().flatten() {
                findings.add(*state, None, reason);
            }
            return findings.conclude();
        }
        findings.conclude()
    }

    fn assess_one_of(
        &self,
        programs: &[(&'static str, Option<&'static str>)],
        need: &Need,
        findings: &mut Findings,
    ) {
        match programs.iter().find(|(program, _)| self.is_attached(program)) {
            Some((_, None)) => {}
            Some((_, Some(unseen))) => findings.add(CoverageState::Degraded, None, unseen),
            None => {
                let since = programs.iter().filter_map(|(program, _)| self.last_good(program)).max();
                findings.add(need.without, since, need.cost);
                let refusals = programs.iter().filter_map(|(program, _)| self.refusal(program));
                refusals.for_each(|refusal| findings.note(&refusal));
            }
        }
    }

    /// The last moment at which a program that is missing now is known to have done its work.
    fn last_proof(&self, program: &str, canaries: &Canaries) -> Option<Timestamp> {
        let proofs = [self.last_good(program), canaries.last_seen(program)];
        proofs.into_iter().flatten().max()
    }

    /// Why a program is not in place.
    fn refusal(&self, program: &str) -> Option<String> {
        let hook = self.known(program)?.hook();
        Some(format!("{}: {}", hook.name, hook.reason?))
    }

    /// An iterator is attached each time it runs; it counts as in place when its program is loaded.
    pub(crate) fn is_attached(&self, program: &str) -> bool {
        self.known(program).is_some_and(Known::is_attached)
    }

    /// Whether a program is not attached because there is nothing for it to see.
    pub(crate) fn rests(&self, program: &str) -> bool {
        self.known(program).is_some_and(|known| known.hook.state == HookState::Standby)
    }

    fn known(&self, program: &str) -> Option<&Known> {
        self.hooks.iter().find(|known| &*known.hook.program == program)
    }

    fn known_mut(&mut self, program: &str) -> Option<&mut Known> {
        self.hooks.iter_mut().find(|known| &*known.hook.program == program)
    }
}

fn assess_sign(standing: &Standing<'_>, need: &Need, findings: &mut Findings) {
    match *standing {
        Standing::Proved => {}
        Standing::Untested { reason } => findings.note(&format!("not tested: {reason}")),
        Standing::Unproved => findings.add(CoverageState::Degraded, None, UNPROVED),
        Standing::Stale { since, obstacle } => {
            findings.add(CoverageState::Degraded, Some(since), STALE);
            obstacle.into_iter().for_each(|obstacle| findings.note(obstacle));
        }
        Standing::Silent { since, anew } => {
            findings.add(need.without, Some(since), need.cost);
            findings.note(if anew { ATTACHED_ANEW } else { SILENT });
        }
    }
}

#[cfg(test)]
mod tests;
