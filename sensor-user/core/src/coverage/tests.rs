//! What costs what, since when, and what is owed.

use super::needs::{NEEDS, What};
use super::*;
use crate::canary::Sign;
use Capability::{Accepts, Connects, Containers, Execs, Listeners};
use CoverageState::{Blind as IsBlind, Degraded};

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
    ledger.set_hooks(at(0), programs.into_iter().map(hook).collect());
    ledger
}

fn at(boot_ns: u64) -> Timestamp {
    Timestamp { boot_ns, unix_ns: boot_ns }
}

fn entry(ledger: &CoverageLedger, capability: Capability) -> Coverage {
    ledger.entries().into_iter().find(|entry| entry.capability == capability).unwrap()
}

fn found(ledger: &mut CoverageLedger, capability: Capability) -> (CoverageState, Option<String>) {
    let _ = ledger.update(at(1), &Canaries::new(None));
    let entry = entry(ledger, capability);
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
    for known in blind.hooks.iter_mut().filter(|known| known.hook.state == HookState::Unavailable) {
        known.hook.reason = Some(format!("no {}", known.hook.program).into());
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
fn a_walk_that_fails_degrades_until_one_succeeds_whatever_becomes_of_the_hooks() {
    let mut ledger = ledger(&["walk_tasks"]);
    assert!(ledger.set_walked(at(1), "walk_listeners", Some("cannot read it")));
    assert!(!ledger.set_walked(at(1), "walk_listeners", Some("cannot read it")), "it is told once");
    assert!(!ledger.set_walked(at(1), "walk_tasks", Some("cannot read it either")));
    let hook = |ledger: &CoverageLedger, program: &str| {
        let hook = ledger.hooks().into_iter().find(|hook| &*hook.program == program).unwrap();
        (hook.state, hook.reason.as_deref().map(str::to_owned))
    };
    let failed = (HookState::Unavailable, Some("cannot read it".to_owned()));
    assert_eq!(hook(&ledger, "walk_listeners"), failed);
    assert_eq!(hook(&ledger, "walk_tasks"), (HookState::Unavailable, None), "why it was refused stays");
    let _ = ledger.update(at(1), &Canaries::new(None));
    let degraded = ledger.entries().into_iter().filter(|entry| entry.state == Degraded);
    let degraded: Vec<_> = degraded.map(|entry| entry.capability).collect();
    assert_eq!(degraded, [Listeners, Accepts, Execs]);

    // As the shell tells them after another program was attached anew: loaded, which they were before.
    let attached = ledger.hooks.iter().map(|known| known.hook.clone()).collect();
    ledger.set_hooks(at(2), attached);
    assert_eq!(hook(&ledger, "walk_listeners"), failed, "nothing has proved the contrary");
    assert!(ledger.set_walked(at(3), "walk_listeners", None));
    assert!(!ledger.set_walked(at(4), "walk_listeners", None), "it is told once");
    assert_eq!(hook(&ledger, "walk_listeners"), (HookState::Attached, None));
    assert_eq!(found(&mut ledger, Accepts), (CoverageState::Live, None));
}

#[test]
fn a_walk_that_fails_is_dated_by_the_last_that_succeeded() {
    let mut ledger = ledger(&[]);
    let canaries = Canaries::new(None);
    let _ = ledger.update(at(1), &canaries);
    assert!(!ledger.set_walked(at(3), "walk_listeners", None));
    assert!(ledger.set_walked(at(8), "walk_listeners", Some("cannot read it")));
    let _ = ledger.update(at(8), &canaries);
    assert_eq!((entry(&ledger, Accepts).state, entry(&ledger, Accepts).since), (Degraded, at(3)));
}

#[test]
fn gaps_degrade_and_add_their_reason() {
    let mut ledger = ledger(&["cgroup_rmdir", "inet_sock_set_state"]);
    for capability in [Execs, Containers, Connects] {
        ledger.add_gap(Gap::new(capability, "something is unknown"));
    }
    let mut expect = |capability, state, reason: &str| {
        assert_eq!(found(&mut ledger, capability), (state, Some(reason.to_owned())));
    };
    expect(Execs, Degraded, "something is unknown");
    expect(Containers, Degraded, "the end of a container may be missed; something is unknown");
    expect(Connects, IsBlind, "no connect is seen; something is unknown");
}

#[test]
fn what_a_later_look_finds_in_place_is_missing_no_more() {
    let mut ledger = ledger(&[]);
    let gap = |capability| Gap::new(capability, "something is unknown");
    ledger.add_gap(gap(Accepts));
    ledger.set_gaps(at(1), Look::Files, &[gap(Execs), gap(Containers)]);
    ledger.set_gaps(at(1), Look::FilesLooked, &[gap(Connects)]);
    ledger.set_gaps(at(1), Look::Files, &[gap(Containers)]);
    let mut state = |capability| found(&mut ledger, capability).0;
    assert_eq!(state(Execs), CoverageState::Live);
    for capability in [Accepts, Containers, Connects] {
        assert_eq!(state(capability), Degraded, "{capability:?}");
    }
}

#[test]
fn a_gap_is_dated_by_who_knows_best() {
    let canaries = Canaries::new(None);
    let since = |look: Look, gap: Gap| {
        let mut ledger = ledger(&[]);
        let _ = ledger.update(at(1), &canaries);
        ledger.set_gaps(at(5), look, &[]);
        for now in [8, 9] {
            ledger.set_gaps(at(now), look, &[gap]);
            let _ = ledger.update(at(now), &canaries);
        }
        entry(&ledger, Execs).since
    };
    let gap = Gap::new(Execs, "something hangs");
    assert_eq!(since(Look::Tables, gap), at(5), "the last look that did not find it");
    assert_eq!(since(Look::FilesLooked, Gap { since: Some(at(3)), ..gap }), at(3), "the last sign of life");
    assert_eq!(since(Look::Files, gap), at(8), "told of once, when it is found");
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
    let mut hooks = ledger.hooks();
    hooks.iter_mut().for_each(|hook| hook.state = HookState::Attached);
    ledger.set_hooks(at(8), hooks);
    let ended = ledger.update(at(9), &canaries);
    assert_eq!(ended, Some(vec![Blind { capability: Execs, from: at(5), to: at(9) }]));
    assert!(ledger.is_as_promised() && ledger.still_blind(at(9)).is_empty());
    assert_eq!(entry(&ledger, Execs).since, at(9));
}

#[test]
fn a_detached_hook_is_missing_since_it_was_found_in_place_last() {
    let mut ledger = ledger(&[]);
    let canaries = Canaries::new(None);
    let _ = ledger.update(at(1), &canaries);
    for (now, program) in [(4, "cgroup_mkdir"), (5, "cgroup_rmdir"), (5, "packets_in")] {
        ledger.set_in_place(at(now), program);
    }
    for program in ["cgroup_rmdir", "packets_in"] {
        assert!(ledger.set_detached(program));
    }
    let _ = ledger.update(at(8), &canaries);
    assert_eq!((entry(&ledger, Containers).state, entry(&ledger, Containers).since), (Degraded, at(5)));
    assert!(ledger.set_detached("cgroup_mkdir"));
    let _ = ledger.update(at(9), &canaries);
    // Not since the lack that costs less.
    assert_eq!((entry(&ledger, Containers).state, entry(&ledger, Containers).since), (IsBlind, at(4)));
    assert_eq!(ledger.lost().collect::<Vec<_>>(), ["cgroup_mkdir", "cgroup_rmdir", "packets_in"]);
    assert_eq!(ledger.update(at(10), &canaries), None, "a detached hook that is looked at again");
}

#[test]
fn what_a_host_never_had_is_told_and_not_owed() {
    let accepting = ["accept_task", "accept_task_of_four"];
    let mut without = ledger(&accepting);
    let canaries = Canaries::new(None);
    let _ = without.update(at(1), &canaries);
    assert_eq!(entry(&without, Capability::AcceptTasks).state, IsBlind);
    assert!(without.is_as_promised() && without.still_blind(at(2)).is_empty());

    let mut with = ledger(&[]);
    let _ = with.update(at(1), &canaries);
    for program in accepting {
        assert!(with.set_detached(program));
    }
    let _ = with.update(at(2), &canaries);
    assert!(!with.is_as_promised(), "this host has had it");
    assert_eq!(with.still_blind(at(3)).len(), 1);
}

#[test]
fn a_core_capability_is_owed_by_every_host() {
    let mut ledger = ledger(&["cgroup_rmdir"]);
    let _ = ledger.update(at(1), &Canaries::new(None));
    assert!(!ledger.is_as_promised());
}

#[test]
fn every_sign_is_needed_for_something_and_made_by_a_hook_of_the_same_capability() {
    for sign in Sign::ALL {
        let need = NEEDS.iter().find(|need| matches!(need.what, What::Sign(known) if known == sign));
        let capability = need.expect("it is needed").capability;
        let hooks = programs_of(capability);
        for program in sign.programs() {
            assert!(hooks.contains(program), "{sign:?}: {program}");
        }
    }
}

#[test]
fn whatever_hooks_serve_is_proved_by_a_canary() {
    for need in NEEDS.iter().filter(|need| matches!(need.what, What::Hook(_) | What::OneOf(_))) {
        let is_proof =
            |proof: &&Need| proof.capability == need.capability && matches!(proof.what, What::Sign(_));
        assert!(NEEDS.iter().any(|proof| is_proof(&proof)), "{:?}", need.capability);
    }
}

fn audit_input(lack: Option<(bool, &str)>) -> AuditInput {
    let lack = lack.map(|(is_blind, reason)| crate::health::AuditLack { is_blind, reason: reason.into() });
    AuditInput { lack, ..AuditInput::default() }
}

#[test]
fn an_audit_log_that_nobody_asked_for_is_not_covered_and_one_that_is_not_there_is_missed() {
    let mut ledger = ledger(&[]);
    let _ = ledger.update(at(1), &Canaries::new(None));
    assert_eq!(ledger.state_of(Capability::Audit), None);
    ledger.set_audit(&[audit_input(Some((true, "not there")))]);
    assert_eq!(found(&mut ledger, Capability::Audit), (IsBlind, Some("not there".to_owned())));
    assert!(!ledger.is_as_promised(), "whoever asks for it is owed it");
    ledger.set_audit(&[audit_input(None)]);
    let ended = ledger.update(at(7), &Canaries::new(None)).expect("that is news");
    assert_eq!(ended, [Blind { capability: Capability::Audit, from: at(1), to: at(7) }]);
    assert_eq!(found(&mut ledger, Capability::Audit), (CoverageState::Live, None));
    assert!(ledger.is_as_promised());
}

#[test]
fn of_several_audit_logs_one_that_is_read_is_better_than_none() {
    let mut ledger = ledger(&[]);
    ledger.set_audit(&[audit_input(Some((true, "a"))), audit_input(None)]);
    assert_eq!(found(&mut ledger, Capability::Audit), (Degraded, Some("a".to_owned())));
    ledger.set_audit(&[audit_input(Some((true, "a"))), audit_input(Some((true, "b")))]);
    assert_eq!(found(&mut ledger, Capability::Audit), (IsBlind, Some("a; b".to_owned())));
    ledger.set_audit(&[audit_input(Some((false, "a"))), audit_input(Some((true, "b")))]);
    assert_eq!(found(&mut ledger, Capability::Audit).0, Degraded);
}
