//! What is covered: the table of what each capability needs, and how well it is served since when.
//!
//! A capability needs hooks in place and, where the sensor can do the act itself, the signs of its canaries. Owns the
//! state of every capability; knows nothing of how a hook is attached or a canary is made.

use std::sync::Arc;

use crate::canary::{Canaries, Sign};
use crate::health::{Blind, Capability, Coverage, CoverageState, Hook, HookState};
use crate::time::Timestamp;

/// Something that a capability needs, and what its absence costs.
struct Need {
    what: What,
    capability: Capability,
    without: CoverageState,
    cost: &'static str,
}

/// What is needed.
enum What {
    /// A program in place.
    Hook(&'static str),
    /// One of several programs in place: those that see most first, each with what it does not see.
    OneOf(&'static [(&'static str, Option<&'static str>)]),
    /// A record of the sensor's own acts; asked for only while the program that makes it is in place.
    Sign(Sign),
}

const fn hook(
    program: &'static str,
    capability: Capability,
    without: CoverageState,
    cost: &'static str,
) -> Need {
    Need { what: What::Hook(program), capability, without, cost }
}

const fn sign(sign: Sign, capability: Capability, without: CoverageState, cost: &'static str) -> Need {
    Need { what: What::Sign(sign), capability, without, cost }
}

const fn one_of(
    programs: &'static [(&'static str, Option<&'static str>)],
    capability: Capability,
    cost: &'static str,
) -> Need {
    Need { what: What::OneOf(programs), capability, without: CoverageState::Blind, cost }
}

use Capability::{
    AcceptTasks, Accepts, Connects, Containers, CredentialFiles, Execs, Listeners, RuntimeSockets, Scans,
};
use CoverageState::{Blind as IsBlind, Degraded};

const NEEDS: &[Need] = &[
    hook("inet_sock_set_state", Listeners, IsBlind, "no listener is seen"),
    hook("inet_sock_set_state", Accepts, IsBlind, "no accept is seen"),
    hook("inet_sock_set_state", Connects, IsBlind, "no connect is seen"),
    hook("walk_listeners", Listeners, Degraded, "listeners from before the start are unknown"),
    hook("walk_listeners", Accepts, Degraded, "the holder of a listening socket is not refreshed"),
    hook("sched_process_exec", Execs, IsBlind, "no exec is seen"),
    hook("sched_process_fork", Execs, Degraded, "the true parent of a process may be unknown"),
    hook("sched_process_exit", Execs, Degraded, "exits are not seen"),
    hook("walk_tasks", Execs, Degraded, "processes from before the start are unknown"),
    hook("sched_process_exec", Containers, Degraded, "starts of containers are not seen"),
    hook("cgroup_mkdir", Containers, IsBlind, "new containers are not recognised"),
    hook("cgroup_rmdir", Containers, Degraded, "the end of a container may be missed"),
    hook("inet_sock_set_state", Scans, IsBlind, "no flood is seen"),
    hook(
        "packets_in",
        Scans,
        Degraded,
        "half-open attempts are not seen; a request on a connection whose accept was withheld is reported when it ends",
    ),
    one_of(
        &[
            ("lsm_unix_connect", None),
            ("fentry_unix_connect", None),
            ("unix_data_ready", Some("connects that a security module refuses are not seen")),
        ],
        RuntimeSockets,
        "no connect to the socket of a runtime is seen",
    ),
    one_of(
        &[
            ("lsm_file_open", None),
            ("fentry_file_open", None),
            (
                FANOTIFY,
                Some(
                    "who opened is known only if the process lives long enough, and whether it was for reading is not",
                ),
            ),
        ],
        CredentialFiles,
        "no open of a credential file is seen",
    ),
    one_of(
        &[("accept_task", None), ("accept_task_of_four", None)],
        AcceptTasks,
        "which task takes a connection is not seen",
    ),
    sign(Sign::ListenerOpened, Listeners, IsBlind, "no listener is seen"),
    sign(Sign::ListenerClosed, Listeners, Degraded, "the end of a listener is not seen"),
    sign(Sign::Accept, Accepts, IsBlind, "no accept is seen"),
    sign(Sign::InboundClose, Accepts, Degraded, "the end of an accepted connection is not seen"),
    sign(Sign::Connect, Connects, IsBlind, "no connect is seen"),
    sign(Sign::OutboundClose, Connects, Degraded, "the end of a connect is not seen"),
    sign(Sign::Exec, Execs, IsBlind, "no exec is seen"),
    sign(Sign::Fork, Execs, Degraded, "the true parent of a process may be unknown"),
    sign(Sign::Exit, Execs, Degraded, "exits are not seen"),
    sign(Sign::Exec, Containers, Degraded, "starts of containers are not seen"),
    sign(Sign::CgroupMade, Containers, IsBlind, "new containers are not recognised"),
    sign(Sign::CgroupRemoved, Containers, Degraded, "the end of a container may be missed"),
];

/// The programs that a capability needs, or of which it needs one.
#[must_use]
pub fn programs_of(capability: Capability) -> Vec<&'static str> {
    let needs = NEEDS.iter().filter(|need| need.capability == capability);
    let programs = needs.flat_map(|need| match need.what {
        What::Hook(program) => vec![program],
        What::OneOf(programs) => programs.iter().map(|(program, _)| *program).collect(),
        What::Sign(_) => Vec::new(),
    });
    programs.collect()
}

/// Stands for a program in [`Hook::program`] where there is none: the kernel's own notifications of opened files.
pub const FANOTIFY: &str = "fanotify";

/// Added to a cost where it is a canary that tells.
const SILENT: &str = "the hook is in place and does not report the sensor's own canary";

/// Why a capability is not live while a hook that is in place has never reported a canary.
const UNPROVED: &str = "not proved yet";

/// What a capability lacks for a cause other than its hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Which capability.
    pub capability: Capability,
    /// What is missing.
    pub reason: &'static str,
}

/// How a capability is served now.
#[derive(Debug, PartialEq, Eq)]
struct Assessment {
    state: CoverageState,
    reason: Option<Arc<str>>,
    /// Since when, where a canary tells.
    since: Option<Timestamp>,
}

/// The coverage of a run. Empty until hooks are told of, as in a replay.
#[derive(Debug, Default)]
pub(crate) struct CoverageLedger {
    hooks: Vec<Hook>,
    /// Programs that were detached by others and are not in place again.
    lost: Vec<&'static str>,
    gaps: Vec<Gap>,
    entries: Vec<Coverage>,
}

impl CoverageLedger {
    /// Replaces what is known of the hooks.
    pub(crate) fn set_hooks(&mut self, hooks: Vec<Hook>) {
        self.hooks = hooks;
        let mut lost = std::mem::take(&mut self.lost);
        lost.retain(|program| !self.is_in_use(program));
        self.lost = lost;
    }

    /// Notes that somebody else has detached a program; returns whether that is news.
    pub(crate) fn set_detached(&mut self, program: &'static str) -> bool {
        if !self.lost.contains(&program) {
            self.lost.push(program);
        }
        self.set_failed(program, "detached by another program")
    }

    /// Programs to be attached again.
    pub(crate) fn lost(&self) -> &[&'static str] {
        &self.lost
    }

    /// Notes that a hook that was in place does not work, as an iterator that fails when it is read; returns whether that
    /// is news. One that is not in place has a reason that says more.
    pub(crate) fn set_failed(&mut self, program: &str, reason: &str) -> bool {
        let attached = |hook: &&mut Hook| &*hook.program == program && hook.state == HookState::Attached;
        let failed = self.hooks.iter_mut().filter(attached).map(|hook| {
            hook.state = HookState::Unavailable;
            hook.reason = Some(reason.into());
        });
        failed.count() > 0
    }

    /// Notes something else that is missing.
    pub(crate) fn add_gap(&mut self, gap: Gap) {
        self.gaps.push(gap);
    }

    pub(crate) fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    pub(crate) fn entries(&self) -> &[Coverage] {
        &self.entries
    }

    /// Whether every capability is live.
    pub(crate) fn is_complete(&self) -> bool {
        self.entries.iter().all(|entry| entry.state == CoverageState::Live)
    }

    /// Assesses every capability anew. Returns the blind intervals that end with that, or `None` when nothing changed.
    pub(crate) fn update(&mut self, now: Timestamp, canaries: &Canaries) -> Option<Vec<Blind>> {
        if self.hooks.is_empty() {
            return None;
        }
        if self.entries.is_empty() {
            let initial =
                |capability| Coverage { capability, state: CoverageState::Live, reason: None, since: now };
            self.entries = Capability::ALL.map(initial).into();
        }
        let mut changed = false;
        let mut ended = Vec::new();
        for index in 0..self.entries.len() {
            let assessed = self.assess(self.entries[index].capability, canaries);
            let entry = &mut self.entries[index];
            if (entry.state, &entry.reason) == (assessed.state, &assessed.reason) {
                continue;
            }
            changed = true;
            if entry.state != assessed.state {
                if entry.state == CoverageState::Blind {
                    ended.push(Blind { capability: entry.capability, from: entry.since, to: now });
                }
                entry.since = assessed.since.unwrap_or(now);
            }
            entry.state = assessed.state;
            entry.reason = assessed.reason;
        }
        changed.then_some(ended)
    }

    /// The intervals of those that are blind at the end of the run.
    pub(crate) fn still_blind(&self, now: Timestamp) -> Vec<Blind> {
        let blind = self.entries.iter().filter(|entry| entry.state == CoverageState::Blind);
        blind.map(|entry| Blind { capability: entry.capability, from: entry.since, to: now }).collect()
    }

    fn assess(&self, capability: Capability, canaries: &Canaries) -> Assessment {
        let mut state = CoverageState::Live;
        let mut silences: Vec<(CoverageState, Timestamp)> = Vec::new();
        let mut reasons: Vec<String> = Vec::new();
        let mut untested: Vec<String> = Vec::new();
        let mut unproved = false;
        for need in NEEDS.iter().filter(|need| need.capability == capability) {
            match need.what {
                What::Hook(program) if self.is_attached(program) => continue,
                What::Hook(_) => {}
                What::OneOf(programs) => {
                    match programs.iter().find(|(program, _)| self.is_attached(program)) {
                        Some((_, None)) => {}
                        Some((_, Some(unseen))) => {
                            state = state.max(Degraded);
                            reasons.push((*unseen).to_owned());
                        }
                        None => {
                            state = state.max(need.without);
                            reasons.push(need.cost.to_owned());
                            reasons.extend(programs.iter().filter_map(|(program, _)| self.refusal(program)));
                        }
                    }
                    continue;
                }
                What::Sign(sign) if !self.is_attached(sign.program()) => continue,
                What::Sign(sign) => match canaries.silent_since(sign) {
                    Some(at) => silences.push((need.without, at)),
                    None => {
                        unproved |= canaries.is_unproved(sign);
                        let reason = canaries.failure(sign).map(|reason| format!("not tested: {reason}"));
                        untested.extend(reason.filter(|reason| !untested.contains(reason)));
                        continue;
                    }
                },
            }
            state = state.max(need.without);
            reasons.push(need.cost.to_owned());
        }
        if !silences.is_empty() {
            reasons.push(SILENT.to_owned());
        }
        if unproved {
            state = state.max(Degraded);
            reasons.push(UNPROVED.to_owned());
        }
        for gap in self.gaps.iter().filter(|gap| gap.capability == capability) {
            state = state.max(Degraded);
            reasons.push(gap.reason.to_owned());
        }
        reasons.extend(untested);
        let reason = (!reasons.is_empty()).then(|| Arc::from(reasons.join("; ")));
        // What costs less than the state says nothing of when that began.
        let since = silences.into_iter().filter(|(without, _)| *without == state).map(|(_, at)| at).min();
        Assessment { state, reason, since }
    }

    /// Why a program is not in place.
    fn refusal(&self, program: &str) -> Option<String> {
        let hook = self.hooks.iter().find(|hook| &*hook.program == program)?;
        Some(format!("{}: {}", hook.name, hook.reason.as_ref()?))
    }

    /// Whether a program is in place, or another one stands in for it.
    fn is_in_use(&self, program: &str) -> bool {
        let used = |hook: &Hook| &*hook.program == program && hook.state != HookState::Unavailable;
        self.hooks.iter().any(used)
    }

    /// An iterator is attached each time it runs; it counts as in place when its program is loaded.
    pub(crate) fn is_attached(&self, program: &str) -> bool {
        self.hooks.iter().any(|hook| &*hook.program == program && hook.state == HookState::Attached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(without: &[&str]) -> CoverageLedger {
        let mut programs: Vec<&str> = Capability::ALL.into_iter().flat_map(programs_of).collect();
        programs.sort_unstable();
        programs.dedup();
        let hook = |program: &str| Hook {
            name: program.into(),
            program: program.into(),
            state: if without.contains(&program) { HookState::Unavailable } else { HookState::Attached },
            reason: None,
        };
        let mut ledger = CoverageLedger::default();
        ledger.set_hooks(programs.into_iter().map(hook).collect());
        ledger
    }

    fn at(boot_ns: u64) -> Timestamp {
        Timestamp { boot_ns, unix_ns: boot_ns }
    }

    fn found(ledger: &mut CoverageLedger, capability: Capability) -> (CoverageState, Option<String>) {
        let _ = ledger.update(at(1), &Canaries::new(None));
        let entry = ledger.entries().iter().find(|entry| entry.capability == capability).unwrap();
        (entry.state, entry.reason.as_ref().map(ToString::to_string))
    }

    #[test]
    fn a_fallback_degrades_by_what_it_does_not_see() {
        let mut with_fallback = ledger(&["lsm_unix_connect", "fentry_unix_connect"]);
        let (state, reason) = found(&mut with_fallback, Capability::RuntimeSockets);
        assert_eq!(state, CoverageState::Degraded);
        assert!(reason.is_some_and(|reason| reason.contains("refuses")));
        let mut with_second = ledger(&["lsm_file_open", "fanotify"]);
        assert_eq!(found(&mut with_second, Capability::CredentialFiles), (CoverageState::Live, None));
    }

    #[test]
    fn without_any_alternative_the_reason_of_each_is_told() {
        let mut blind = ledger(&["accept_task", "accept_task_of_four"]);
        for hook in blind.hooks.iter_mut().filter(|hook| hook.state == HookState::Unavailable) {
            hook.reason = Some(format!("no {}", hook.program).into());
        }
        let (state, reason) = found(&mut blind, Capability::AcceptTasks);
        assert_eq!(state, CoverageState::Blind);
        assert_eq!(
            reason.as_deref(),
            Some(
                "which task takes a connection is not seen; accept_task: no accept_task; \
                 accept_task_of_four: no accept_task_of_four"
            )
        );
    }

    #[test]
    fn everything_attached_is_live_everywhere() {
        for capability in Capability::ALL {
            assert_eq!(found(&mut ledger(&[]), capability), (CoverageState::Live, None));
        }
    }

    #[test]
    fn a_missing_iterator_degrades_and_says_what_is_lost() {
        let (state, reason) = found(&mut ledger(&["walk_listeners"]), Accepts);
        assert_eq!(state, Degraded);
        assert_eq!(reason.as_deref(), Some("the holder of a listening socket is not refreshed"));
    }

    #[test]
    fn a_hook_that_fails_later_is_missing_from_then_on() {
        let mut ledger = ledger(&["walk_tasks"]);
        assert!(ledger.set_failed("walk_listeners", "cannot read it"));
        assert!(!ledger.set_failed("walk_listeners", "cannot read it"), "it is told once");
        assert!(!ledger.set_failed("walk_tasks", "cannot read it either"));
        let reason = |program: &str| {
            let hook = ledger.hooks().iter().find(|hook| &*hook.program == program).unwrap();
            (hook.state, hook.reason.as_deref())
        };
        assert_eq!(reason("walk_listeners"), (HookState::Unavailable, Some("cannot read it")));
        assert_eq!(reason("walk_tasks"), (HookState::Unavailable, None), "why it was refused stays");
        let _ = ledger.update(at(1), &Canaries::new(None));
        let degraded = ledger.entries().iter().filter(|entry| entry.state == Degraded);
        let degraded: Vec<_> = degraded.map(|entry| entry.capability).collect();
        assert_eq!(degraded, [Listeners, Accepts, Execs]);
    }

    #[test]
    fn gaps_degrade_and_add_their_reason() {
        let mut ledger = ledger(&["cgroup_rmdir", "inet_sock_set_state"]);
        for capability in [Execs, Containers, Connects] {
            ledger.add_gap(Gap { capability, reason: "something is unknown" });
        }
        let mut expect = |capability, state, reason: &str| {
            assert_eq!(found(&mut ledger, capability), (state, Some(reason.to_owned())));
        };
        expect(Execs, Degraded, "something is unknown");
        expect(Containers, Degraded, "the end of a container may be missed; something is unknown");
        expect(Connects, IsBlind, "no connect is seen; something is unknown");
    }

    #[test]
    fn blind_outweighs_degraded() {
        let (state, reason) = found(&mut ledger(&["cgroup_mkdir", "cgroup_rmdir"]), Containers);
        assert_eq!(state, IsBlind);
        assert_eq!(
            reason.as_deref(),
            Some("new containers are not recognised; the end of a container may be missed")
        );
    }

    #[test]
    fn a_blind_interval_ends_with_the_state_and_lasts_from_its_beginning() {
        let mut ledger = ledger(&["sched_process_exec"]);
        let canaries = Canaries::new(None);
        assert_eq!(ledger.update(at(5), &canaries), Some(Vec::new()));
        assert_eq!(ledger.update(at(6), &canaries), None, "nothing changed");
        assert_eq!(ledger.still_blind(at(7)), [Blind { capability: Execs, from: at(5), to: at(7) }]);
        let mut hooks = ledger.hooks().to_vec();
        hooks.iter_mut().for_each(|hook| hook.state = HookState::Attached);
        ledger.set_hooks(hooks);
        let ended = ledger.update(at(9), &canaries);
        assert_eq!(ended, Some(vec![Blind { capability: Execs, from: at(5), to: at(9) }]));
        assert!(ledger.is_complete() && ledger.still_blind(at(9)).is_empty());
    }

    #[test]
    fn every_sign_is_needed_for_something_and_made_by_a_hook_of_the_same_capability() {
        for sign in Sign::ALL {
            let need = NEEDS.iter().find(|need| matches!(need.what, What::Sign(known) if known == sign));
            let capability = need.expect("it is needed").capability;
            let of_hook =
                |need: &&Need| matches!(need.what, What::Hook(program) if program == sign.program());
            let hook = NEEDS.iter().filter(of_hook).find(|need| need.capability == capability);
            assert!(hook.is_some(), "{sign:?}");
        }
    }
}
