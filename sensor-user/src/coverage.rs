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

/// Derives the coverage of every capability from the state of the hooks.
#[must_use]
pub fn of_hooks(hooks: &[Hook], since: Timestamp) -> Vec<Coverage> {
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
    fn blind_outweighs_degraded() {
        let (state, reason) = state(&["cgroup_mkdir", "cgroup_rmdir"], Capability::Containers);
        assert_eq!(state, CoverageState::Blind);
        assert_eq!(
            reason.as_deref(),
            Some("new containers are not recognised; the end of a container may be missed")
        );
    }
}
