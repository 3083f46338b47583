//! What the hooks in place cover: the table between hooks and capabilities.

use std::sync::Arc;

use sensor_core::health::{Capability, Coverage, CoverageState, Hook, HookState};
use sensor_core::time::Timestamp;

/// A program, and what its absence costs.
struct Need {
    program: &'static str,
    capability: Capability,
    without: CoverageState,
    cost: &'static str,
}

const fn need(
    program: &'static str,
    capability: Capability,
    without: CoverageState,
    cost: &'static str,
) -> Need {
    Need { program, capability, without, cost }
}

const NEEDS: &[Need] = &[
    need("inet_sock_set_state", Capability::Listeners, CoverageState::Blind, "no listener is seen"),
    need("inet_sock_set_state", Capability::Accepts, CoverageState::Blind, "no accept is seen"),
    need("inet_sock_set_state", Capability::Connects, CoverageState::Blind, "no connect is seen"),
    need(
        "walk_listeners",
        Capability::Listeners,
        CoverageState::Degraded,
        "listeners from before the start are unknown",
    ),
    need(
        "walk_listeners",
        Capability::Accepts,
        CoverageState::Degraded,
        "the holder of a listening socket is not refreshed",
    ),
    need("sched_process_exec", Capability::Execs, CoverageState::Blind, "no exec is seen"),
    need(
        "sched_process_fork",
        Capability::Execs,
        CoverageState::Degraded,
        "the true parent of a process may be unknown",
    ),
    need("sched_process_exit", Capability::Execs, CoverageState::Degraded, "exits are not seen"),
    need(
        "walk_tasks",
        Capability::Execs,
        CoverageState::Degraded,
        "processes from before the start are unknown",
    ),
    need(
        "sched_process_exec",
        Capability::Containers,
        CoverageState::Degraded,
        "starts of containers are not seen",
    ),
    need("cgroup_mkdir", Capability::Containers, CoverageState::Blind, "new containers are not recognised"),
    need(
        "cgroup_rmdir",
        Capability::Containers,
        CoverageState::Degraded,
        "the end of a container may be missed",
    ),
];

/// The hooks and gaps of a run: what its coverage follows from.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Every hook and whether it is in place.
    pub hooks: Vec<Hook>,
    /// What is missing for another cause.
    pub gaps: Vec<Gap>,
}

impl Standing {
    /// Coverage of every capability.
    #[must_use]
    pub fn coverage(&self, since: Timestamp) -> Vec<Coverage> {
        let mut coverage = of_hooks(&self.hooks, since);
        degrade(&mut coverage, &self.gaps);
        coverage
    }

    /// Whether a program works as far as is known.
    #[must_use]
    pub fn is_in_place(&self, program: &str) -> bool {
        is_attached(&self.hooks, program)
    }

    /// Notes that a hook that was in place does not work, as an iterator that fails when it is read.
    pub fn mark_failed(&mut self, program: &str, reason: &str) {
        mark_failed(&mut self.hooks, program, reason);
    }
}

/// Derives the coverage of every capability from the state of the hooks.
fn of_hooks(hooks: &[Hook], since: Timestamp) -> Vec<Coverage> {
    Capability::ALL
        .into_iter()
        .map(|capability| {
            let missing: Vec<&Need> = NEEDS
                .iter()
                .filter(|need| need.capability == capability && !is_attached(hooks, need.program))
                .collect();
            let state = if missing.iter().any(|need| need.without == CoverageState::Blind) {
                CoverageState::Blind
            } else if missing.is_empty() {
                CoverageState::Live
            } else {
                CoverageState::Degraded
            };
            let reasons: Vec<&str> = missing.iter().map(|need| need.cost).collect();
            let reason = (!reasons.is_empty()).then(|| Arc::from(reasons.join("; ")));
            Coverage { capability, state, reason, since }
        })
        .collect()
}

fn mark_failed(hooks: &mut [Hook], program: &str, reason: &str) {
    let attached = |hook: &&mut Hook| &*hook.program == program && hook.state == HookState::Attached;
    // One that is not in place has a reason that says more.
    for hook in hooks.iter_mut().filter(attached) {
        hook.state = HookState::Unavailable;
        hook.reason = Some(reason.into());
    }
}

/// What a capability lacks for a cause other than its hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Which capability.
    pub capability: Capability,
    /// What is missing.
    pub reason: &'static str,
}

/// Adds what else is missing to the coverage.
fn degrade(coverage: &mut [Coverage], gaps: &[Gap]) {
    for gap in gaps {
        for entry in coverage.iter_mut().filter(|entry| entry.capability == gap.capability) {
            if entry.state == CoverageState::Live {
                entry.state = CoverageState::Degraded;
            }
            entry.reason = Some(match entry.reason.take() {
                Some(reason) => format!("{reason}; {}", gap.reason).into(),
                None => gap.reason.into(),
            });
        }
    }
}

/// An iterator is attached each time it runs; it counts as in place when its program is loaded.
fn is_attached(hooks: &[Hook], program: &str) -> bool {
    hooks.iter().any(|hook| &*hook.program == program && hook.state == HookState::Attached)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hooks(without: &[&str]) -> Vec<Hook> {
        let mut programs: Vec<&str> = NEEDS.iter().map(|need| need.program).collect();
        programs.sort_unstable();
        programs.dedup();
        programs
            .into_iter()
            .map(|program| Hook {
                name: program.into(),
                program: program.into(),
                state: if without.contains(&program) { HookState::Unavailable } else { HookState::Attached },
                reason: None,
            })
            .collect()
    }

    fn state(without: &[&str], capability: Capability) -> (CoverageState, Option<String>) {
        let coverage = of_hooks(&hooks(without), Timestamp::default());
        let found = coverage.into_iter().find(|coverage| coverage.capability == capability).unwrap();
        (found.state, found.reason.map(|reason| reason.to_string()))
    }

    #[test]
    fn everything_attached_is_live_everywhere() {
        for capability in Capability::ALL {
            assert_eq!(state(&[], capability), (CoverageState::Live, None));
        }
    }

    #[test]
    fn a_missing_iterator_degrades_and_says_what_is_lost() {
        let (state, reason) = state(&["walk_listeners"], Capability::Accepts);
        assert_eq!(state, CoverageState::Degraded);
        assert_eq!(reason.as_deref(), Some("the holder of a listening socket is not refreshed"));
    }

    #[test]
    fn a_hook_that_fails_later_is_missing_from_then_on() {
        let mut hooks = hooks(&["walk_tasks"]);
        mark_failed(&mut hooks, "walk_listeners", "cannot read it");
        mark_failed(&mut hooks, "walk_tasks", "cannot read it either");
        let reason = |program: &str| {
            let hook = hooks.iter().find(|hook| &*hook.program == program).unwrap();
            (hook.state, hook.reason.as_deref())
        };
        assert_eq!(reason("walk_listeners"), (HookState::Unavailable, Some("cannot read it")));
        assert_eq!(reason("walk_tasks"), (HookState::Unavailable, None), "why it was refused stays");
        let coverage = of_hooks(&hooks, Timestamp::default());
        let degraded = coverage.iter().filter(|entry| entry.state == CoverageState::Degraded);
        let degraded: Vec<_> = degraded.map(|entry| entry.capability).collect();
        assert_eq!(degraded, [Capability::Listeners, Capability::Accepts, Capability::Execs]);
    }

    #[test]
    fn gaps_degrade_and_add_their_reason() {
        let mut coverage = of_hooks(&hooks(&["cgroup_rmdir", "inet_sock_set_state"]), Timestamp::default());
        let gap = |capability| Gap { capability, reason: "something is unknown" };
        degrade(&mut coverage, &[Capability::Execs, Capability::Containers, Capability::Connects].map(gap));
        let found = |capability| {
            let entry = coverage.iter().find(|entry| entry.capability == capability).unwrap();
            (entry.state, entry.reason.as_deref().unwrap())
        };
        assert_eq!(found(Capability::Execs), (CoverageState::Degraded, "something is unknown"));
        assert_eq!(
            found(Capability::Containers),
            (CoverageState::Degraded, "the end of a container may be missed; something is unknown")
        );
        assert_eq!(
            found(Capability::Connects),
            (CoverageState::Blind, "no connect is seen; something is unknown")
        );
    }

    #[test]
    fn blind_outweighs_degraded() {
        let (state, reason) = state(&["cgroup_mkdir", "cgroup_rmdir"], Capability::Containers);
        assert_eq!(state, CoverageState::Blind);
        assert_eq!(
            reason.as_deref(),
            Some("new containers are not recognised; the end of a container may be missed")
        );
    }
}
