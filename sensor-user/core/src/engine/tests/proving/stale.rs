//! Proofs grow old: nothing stays live by having worked once.

use super::*;

const STALE: &str = "no longer proved: no canary has come back for three intervals";

/// Goes on for so many intervals with this happening after each.
fn intervals(proving: &mut Proving, count: u32, mut each: impl FnMut(&mut Proving)) {
    for _ in 0..count {
        proving.pass(INTERVAL_NS);
        each(proving);
    }
}

/// What the last record with coverage says of a capability.
fn told(proving: &mut Proving, capability: Capability) -> Coverage {
    entry(&last_told(proving), capability).clone()
}

fn last_told(proving: &mut Proving) -> Health {
    let last = proving.healths().into_iter().rfind(|health| !health.coverage.is_empty());
    last.expect("a change is told")
}

#[test]
fn rounds_that_go_well_never_grow_old() {
    let mut proving = Proving::ready();
    intervals(&mut proving, 8, |proving| proving.round(&[]));
    assert_eq!(proving.healths(), []);
}

#[test]
fn without_any_round_everything_degrades_after_three_intervals_and_says_since_when() {
    let mut proving = Proving::ready();
    let seen = proving.sensor.now;
    intervals(&mut proving, 3, |_| {});
    assert_eq!(proving.healths(), [], "not before");
    proving.pass(2 * SECOND);
    let stale = proving.healths().pop().expect("a change is told");
    assert_eq!(stale.state, HealthState::Degraded);
    use Capability::{Accepts, ChainState};
    // Of this nothing is proved by a canary.
    let expected = Capability::ALL.into_iter().filter(|capability| *capability != ChainState);
    let expected: Vec<_> = expected.map(|capability| (capability, CoverageState::Degraded)).collect();
    assert_eq!(states_of(&stale), expected);
    let accepts = entry(&stale, Accepts);
    assert_eq!(accepts.reason.as_deref(), Some(&*format!("{STALE}; a round of canaries has not ended")));
    assert!(accepts.since.boot_ns <= seen, "{accepts:?}");

    proving.round(&[]);
    let accepts = told(&mut proving, Accepts);
    assert_eq!((accepts.state, accepts.reason), (CoverageState::Live, None));
}

#[test]
fn an_act_that_worked_and_fails_since_degrades_with_its_reason() {
    let mut proving = Proving::ready();
    let fail = |proving: &mut Proving| {
        proving.notice(CanaryNotice::Begins(Canary::Connection(proving.connection())));
        proving.notice(CanaryNotice::Begins(Canary::Process { token: TOKEN.into() }));
        proving.notice(CanaryNotice::Failed(Act::Cgroup, "read-only file system".into()));
        proving.signs(&[Sign::CgroupMade, Sign::CgroupRemoved]);
        proving.notice(CanaryNotice::Ended);
    };
    intervals(&mut proving, 2, fail);
    let containers = told(&mut proving, Capability::Containers);
    assert_eq!(
        (containers.state, containers.reason.as_deref()),
        (CoverageState::Live, Some("not tested: read-only file system"))
    );
    intervals(&mut proving, 2, fail);
    let containers = told(&mut proving, Capability::Containers);
    assert_eq!(
        (containers.state, containers.reason),
        (CoverageState::Degraded, Some(format!("{STALE}; read-only file system").into()))
    );
}

#[test]
fn a_thread_that_has_ended_is_found_out_when_it_is_asked_again() {
    let mut proving = Proving::ready();
    // Asked for and never begun.
    intervals(&mut proving, 2, |_| {});
    assert!(proving.is_asked_to_run());
    intervals(&mut proving, 2, |_| {});
    assert!(proving.is_asked_to_run(), "asked again");
    for act in Act::ALL {
        proving.notice(CanaryNotice::Failed(act, "the thread has ended".into()));
    }
    proving.notice(CanaryNotice::Ended);
    let execs = told(&mut proving, Capability::Execs);
    assert_eq!(execs.reason, Some(format!("{STALE}; the thread has ended").into()));
}

#[test]
fn rings_that_are_not_read_to_their_end_prove_nothing() {
    let mut proving = Proving::ready();
    proving.sensor.engine.handle_drained(proving.sensor.now);
    proving.pass(INTERVAL_NS);
    proving.round(&[Sign::Accept]);
    intervals(&mut proving, 3, |_| {});
    let accepts = told(&mut proving, Capability::Accepts);
    assert_eq!(
        (accepts.state, accepts.reason),
        (CoverageState::Degraded, Some(format!("{STALE}; the rings are not read to their end").into()))
    );
}

#[test]
fn loss_without_end_proves_nothing_either() {
    let mut proving = Proving::ready();
    for _ in 0..4 {
        proving.pass(INTERVAL_NS);
        proving.round(&[Sign::Exec]);
        proving.counters.records[Ring::Bulk as usize][RecordKind::Exec as usize][Fate::Lost as usize] += 1;
        proving.pass(2 * SECOND);
    }
    assert_eq!(told(&mut proving, Capability::Execs).state, CoverageState::Degraded);
}

#[test]
fn a_full_table_of_connections_is_named_and_not_held_against_the_hook() {
    let mut proving = Proving::ready();
    for _ in 0..4 {
        proving.pass(INTERVAL_NS);
        proving.round(&[Sign::Connect, Sign::OutboundClose]);
        proving.counters.events[ProbeEvent::UntrackedConnection as usize] += 1;
        proving.pass(2 * SECOND);
    }
    let told = last_told(&mut proving);
    assert_eq!(states_of(&told), [(Capability::Connects, CoverageState::Degraded)]);
    assert_eq!(
        entry(&told, Capability::Connects).reason,
        Some(format!("{STALE}; the table of connections is full").into())
    );
}

#[test]
fn a_spent_share_of_that_table_is_no_excuse() {
    let mut proving = Proving::ready();
    for _ in 0..2 {
        proving.pass(INTERVAL_NS);
        proving.round(&[Sign::Connect, Sign::OutboundClose]);
        proving.counters.events[ProbeEvent::ConnectionShare as usize] += 1;
        proving.pass(2 * SECOND);
    }
    assert_eq!(told(&mut proving, Capability::Connects).state, CoverageState::Blind);
}

#[test]
fn time_in_which_the_sensor_did_not_run_makes_nothing_old() {
    let mut proving = Proving::ready();
    // Suspended over night; the boot clock went on.
    proving.sensor.now += 8 * 3600 * SECOND;
    proving.pass(SECOND);
    assert!(proving.is_asked_to_run());
    proving.round(&[]);
    assert_eq!(proving.healths(), []);
}

#[test]
fn a_sign_that_was_never_seen_is_silent_since_it_was_owed_first() {
    let mut proving = Proving::start();
    let owed = proving.sensor.now;
    proving.round(&[Sign::Exec]);
    proving.sensor.now += SECOND;
    proving.sensor.engine.handle_ready(at(proving.sensor.now));
    assert!(!proving.sensor.engine.is_settled());
    proving.pass(2 * SECOND);
    proving.round(&[Sign::Exec]);
    proving.pass(2 * SECOND);
    assert!(proving.sensor.engine.is_settled());
    let execs = told(&mut proving, Capability::Execs);
    assert_eq!(
        execs.reason.as_deref(),
        Some("no exec is seen; the hook is in place and does not report the sensor's own canary")
    );
    assert_eq!(execs.state, CoverageState::Blind);
    assert!(execs.since.boot_ns < owed + SECOND, "{execs:?}");
}
