//! Attempts to connect, which are counted and make no record.

use super::*;

/// Hands in what was counted of attempts at the port of the canaries, in this network namespace.
fn count(proving: &mut Proving, netns: u32, attempts: u64) {
    let counts = Counts { attempts, ..Counts::default() };
    let place = PortKey { netns, port: u32::from(PORT) };
    let now = at(proving.sensor.tick());
    proving.sensor.engine.handle_attempts(now, &[(place, Port { counts, ..Port::default() })]);
}

/// A round of which nothing was counted, and the time until it is judged, in which nobody looks at the counts.
fn uncounted_round(proving: &mut Proving) {
    proving.notice(CanaryNotice::Begins(Canary::Connection(proving.connection())));
    proving.signs(&[Sign::Attempt]);
    proving.notice(CanaryNotice::Ended);
    for _ in 0..4 {
        proving.sensor.pass(SECOND / 2);
        proving.sensor.engine.handle_counters(at(proving.sensor.now), &proving.counters);
    }
}

fn state_of_scans(proving: &Proving) -> CoverageState {
    entry(&proving.sensor.engine.health(), Capability::Scans).state
}

#[test]
fn an_attempt_is_missed_only_where_its_count_was_looked_at() {
    let mut proving = Proving::ready();
    (0..2).for_each(|_| uncounted_round(&mut proving));
    assert_eq!(state_of_scans(&proving), CoverageState::Live, "nobody has looked");
    for _ in 0..2 {
        proving.round(&[Sign::Attempt]);
        proving.pass(2 * SECOND);
    }
    assert_eq!(state_of_scans(&proving), CoverageState::Degraded);
    assert!(proving.sensor.requests().contains(&Request::Reattach("packets_in")));
}

#[test]
fn only_a_count_that_grows_at_the_port_of_the_canaries_proves_anything() {
    let mut proving = Proving::ready();
    proving.miss(&[Sign::Attempt]);
    let told = proving.attempts;
    count(&mut proving, 1, told);
    count(&mut proving, 2, told + 1);
    assert_eq!(
        state_of_scans(&proving),
        CoverageState::Degraded,
        "as before, and of another network namespace"
    );
    count(&mut proving, 0, told + 1);
    assert_eq!(state_of_scans(&proving), CoverageState::Live, "where those are counted that found no place");
}
