//! Tables that another program has changed.

use super::*;
use crate::coverage::{Table, TableState};

const PORTS: &str = "the table of watched ports was changed by another program";

/// A round at whose beginning the tables were found like this; what is told of it.
fn look(proving: &mut Proving, state: TableState) -> Vec<Health> {
    let found = Table::ALL.map(|table| match table {
        Table::Ports => (table, state),
        _ => (table, TableState::Same),
    });
    let now = at(proving.sensor.now);
    proving.sensor.engine.handle_tables(now, &found);
    proving.round(&[]);
    proving.healths()
}

#[test]
fn a_changed_table_is_blindness_from_the_last_look_to_the_next_that_finds_it_in_order() {
    let mut proving = Proving::ready();
    let good = proving.sensor.now;
    assert_eq!(look(&mut proving, TableState::Same), []);
    proving.pass(INTERVAL_NS);
    assert!(proving.is_asked_to_run());
    let blind = look(&mut proving, TableState::Repaired);
    assert_eq!(blind.len(), 1, "canaries that come back prove nothing of other ports: {blind:#?}");
    let expected = [
        (Capability::Listeners, CoverageState::Blind),
        (Capability::Accepts, CoverageState::Blind),
        (Capability::Connects, CoverageState::Degraded),
        (Capability::Scans, CoverageState::Blind),
        (Capability::Requests, CoverageState::Blind),
    ];
    assert_eq!((blind[0].state, states_of(&blind[0])), (HealthState::Degraded, expected.to_vec()));
    let accepts = entry(&blind[0], Capability::Accepts);
    assert_eq!((accepts.since.boot_ns, accepts.reason.as_deref()), (good, Some(PORTS)));

    proving.pass(2 * SECOND);
    assert!(proving.is_asked_to_run(), "it is looked at again soon");
    let over = look(&mut proving, TableState::Same);
    assert_eq!((over[0].state, states_of(&over[0])), (HealthState::Running, Vec::new()));
    let ends: Vec<_> = over.iter().filter_map(|health| health.blind).collect();
    assert_eq!(ends.len(), 4, "{over:#?}");
    assert!(ends.iter().all(|blind| blind.from.boot_ns == good), "{ends:#?}");
    proving.pass(2 * SECOND);
    assert!(!proving.is_asked_to_run(), "every interval again");
}

#[test]
fn a_table_that_cannot_be_written_again_stays_blindness_and_is_looked_at_no_more_often() {
    let mut proving = Proving::ready();
    let blind = look(&mut proving, TableState::Stuck);
    let reason = entry(&blind[0], Capability::Accepts).reason.clone();
    assert_eq!(reason.as_deref(), Some(&*format!("{PORTS} and cannot be written again")));
    proving.pass(2 * SECOND);
    assert!(!proving.is_asked_to_run());
    assert_eq!(look(&mut proving, TableState::Stuck), [], "nothing is new");
}

#[test]
fn every_table_costs_what_it_decides() {
    use Capability::{Accepts, Connects, CredentialFiles, Listeners, RuntimeSockets};
    use CoverageState::{Blind, Degraded};
    for (table, capability, state) in [
        (Table::Ports, Accepts, Blind),
        (Table::Tools, Listeners, Degraded),
        (Table::Cgroups, Connects, Blind),
        (Table::RuntimeSockets, RuntimeSockets, Blind),
        (Table::CredentialPlaces, CredentialFiles, Blind),
    ] {
        let mut proving = Proving::ready();
        proving.sensor.engine.handle_tables(at(proving.sensor.now), &[(table, TableState::Repaired)]);
        let told = proving.healths();
        assert!(states_of(&told[0]).contains(&(capability, state)), "{table:?}: {told:#?}");
    }
}
