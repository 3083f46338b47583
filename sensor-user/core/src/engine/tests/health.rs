use sensor_common::counters::{Event, Fate};
use sensor_common::record::{RecordKind, Ring};

use super::*;
use crate::health::{Balance, KernelCounters, Loss, Reload};
use crate::records::{accept, bound, ends, exit, listener, v2};

fn counters(changes: &[(Ring, RecordKind, Fate, u64)]) -> KernelCounters {
    let mut counters = KernelCounters::default();
    for (ring, kind, fate, count) in changes {
        counters.records[*ring as usize][*kind as usize][*fate as usize] = *count;
    }
    counters
}

const LOST: (Ring, RecordKind, Fate, u64) = (Ring::Management, RecordKind::Exec, Fate::Lost, 3);

#[test]
fn ready_is_the_first_record_whatever_was_seen_before() {
    let mut sensor = Sensor::seeded();
    let opened = listener(900, true, 1, DOCKERD, v2(HOST), bound("0.0.0.0", 2375));
    sensor.record(Ring::Management, &opened);
    sensor.engine.poll(at(100_000_000));
    sensor.engine.handle_addresses(at(950), vec!["10.0.0.1".parse().expect("address")]);
    assert!(sensor.outputs().is_empty());
    sensor.engine.handle_ready(at(1000));
    sensor.engine.poll(at(100_000_000));
    let outputs = sensor.outputs();
    let Output::Health { seq: 0, id, health, .. } = &outputs[0] else { panic!("health first: {outputs:?}") };
    assert_eq!(&*id.0, "health-000000000abc-1");
    assert_eq!(health.addresses, ["10.0.0.1".parse::<std::net::IpAddr>().expect("address")]);
    assert!(matches!(outputs[1], Output::Fact { seq: 1, .. }));
}

#[test]
fn loss_is_reported_once_with_ring_and_kind() {
    let mut sensor = Sensor::ready();
    sensor.engine.handle_counters(at(2000), &counters(&[LOST]));
    let healths = healths(sensor.outputs());
    assert_eq!(healths[0].state, HealthState::Degraded);
    let loss = Loss { ring: Some(Ring::Management), kind: "exec", lost: 3, suppressed: 0, evicted: 0 };
    assert_eq!(healths[0].loss, [loss]);
    sensor.engine.handle_counters(at(3000), &counters(&[LOST]));
    assert!(sensor.outputs().is_empty(), "nothing new was lost");
}

#[test]
fn suppression_is_no_degradation() {
    let mut sensor = Sensor::ready();
    let suppressed = (Ring::Management, RecordKind::Accept, Fate::Suppressed, 9);
    sensor.engine.handle_counters(at(2000), &counters(&[suppressed]));
    assert_eq!(states(sensor.outputs()), [HealthState::Running]);
}

#[test]
fn suppression_after_a_loss_does_not_end_the_degradation_before_its_time() {
    const SECOND: u64 = 1_000_000_000;
    let mut sensor = Sensor::ready();
    let flood =
        |withheld: u64| counters(&[LOST, (Ring::Management, RecordKind::Accept, Fate::Suppressed, withheld)]);
    let mut states_at = |seconds: u64| {
        sensor.engine.handle_counters(at(seconds * SECOND), &flood(seconds * 100));
        states(sensor.outputs())
    };
    assert_eq!(states_at(1), [HealthState::Degraded]);
    assert_eq!(states_at(2), [HealthState::Degraded], "a second after the loss");
    assert_eq!(states_at(10), [HealthState::Degraded]);
    assert_eq!(states_at(11), [HealthState::Running]);
}

#[test]
fn losses_outside_the_rings_are_reported_by_name() {
    let mut sensor = Sensor::ready();
    let mut counters = KernelCounters { recursion_misses: 2, ..KernelCounters::default() };
    counters.events[Event::UntrackedConnection as usize] = 1;
    // Connections older than the sensor end unknown: that is no loss.
    counters.events[Event::UnknownClose as usize] = 5;
    sensor.engine.handle_counters(at(2000), &counters);
    let healths = healths(sensor.outputs());
    let named: Vec<_> = healths[0].loss.iter().map(|loss| (loss.ring, loss.kind, loss.lost)).collect();
    assert_eq!(named, [(None, "probe-recursion", 2), (None, "untracked-connection", 1)]);
}

#[test]
fn sensor_says_when_it_is_in_order_again() {
    let mut sensor = Sensor::ready();
    sensor.engine.handle_counters(at(2000), &counters(&[LOST]));
    sensor.engine.handle_counters(at(1_000_000_000), &counters(&[LOST]));
    assert_eq!(states(sensor.outputs()), [HealthState::Degraded]);
    sensor.engine.handle_counters(at(11_000_000_000), &counters(&[LOST]));
    sensor.engine.handle_counters(at(12_000_000_000), &counters(&[LOST]));
    assert_eq!(states(sensor.outputs()), [HealthState::Running]);
}

#[test]
fn facts_around_a_management_loss_say_so() {
    let mut sensor = Sensor::ready();
    sensor.engine.handle_counters(at(sensor.now), &counters(&[LOST]));
    sensor.see(|now| accept(now, 1, v2(HOST), ends(("10.0.0.1", 2375), ("198.18.0.9", 1))));
    assert_eq!(sensor.facts()[0].quality.lost, 3);
    sensor.pass(3_000_000_000);
    sensor.see(|now| accept(now, 2, v2(HOST), ends(("10.0.0.1", 2375), ("198.18.0.9", 1))));
    assert_eq!(sensor.facts()[0].quality.lost, 0);
}

#[test]
fn undecodable_records_are_counted_and_reported() {
    let mut sensor = Sensor::ready();
    let mut wrong_version = exit(1, RUNC, v2(HOST), 0);
    wrong_version[2] = 99;
    sensor.record(Ring::Bulk, &wrong_version);
    sensor.record(Ring::Bulk, &[]);
    sensor.engine.handle_counters(at(2000), &KernelCounters::default());
    let outputs = healths(sensor.outputs());
    assert_eq!((outputs[0].state, outputs[0].undecodable), (HealthState::Degraded, 2));
}

#[test]
fn last_record_balances_produced_with_received_lost_and_suppressed() {
    let mut sensor = Sensor::ready();
    for conn in 0..5 {
        sensor.see(|now| accept(now, conn, v2(HOST), ends(("10.0.0.1", 2375), ("198.18.0.9", 1))));
    }
    let counters = counters(&[
        (Ring::Management, RecordKind::Accept, Fate::Submitted, 5),
        (Ring::Management, RecordKind::Accept, Fate::Lost, 2),
        (Ring::Management, RecordKind::Accept, Fate::Suppressed, 4),
    ]);
    // Nothing was polled: what waits comes out now.
    sensor.engine.finish(at(sensor.now), &counters);
    let outputs = sensor.outputs();
    assert_eq!(outputs.len(), 11, "five accepts, a signal each, health");
    let health = healths(outputs).pop().expect("the last record");
    assert_eq!(health.state, HealthState::Stopping);
    assert_eq!(health.emitted, Some(12), "ready, five accepts with a signal each, this one");
    assert_eq!(
        health.balance,
        [Balance {
            ring: Ring::Management,
            kind: RecordKind::Accept,
            produced: 11,
            received: 5,
            canaries: 0,
            lost: 2,
            suppressed: 4
        }]
    );
}

#[test]
fn changed_addresses_are_reported_and_judged_with() {
    let mut sensor = Sensor::ready();
    let addresses = vec!["10.0.0.2".parse().expect("address"), "10.0.0.1".parse().expect("address")];
    sensor.engine.handle_addresses(at(2000), addresses.clone());
    sensor.engine.handle_addresses(at(3000), addresses.into_iter().rev().collect());
    assert_eq!(states(sensor.outputs()), [HealthState::Running], "the order is no change");
}

#[test]
fn reload_keeps_the_own_addresses_and_says_so() {
    let mut sensor = Sensor::ready();
    sensor.engine.handle_addresses(at(2000), vec!["10.0.0.1".parse().expect("address")]);
    let mut policy = settings().policy;
    policy.allow.entries.remove(0);
    sensor.engine.handle_policy(at(3000), policy, vec!["output"]);
    let outputs = sensor.outputs();
    let reloads: Vec<_> = healths(outputs.clone())
        .into_iter()
        .filter_map(|health| health.reload.map(|reload| *reload))
        .collect();
    assert_eq!(reloads, [Reload { applied: true, problems: Vec::new(), restart: vec!["output"] }]);
    assert_eq!(states(outputs), [HealthState::Running, HealthState::Reloaded]);
    for peer in ["198.18.1.9", "10.0.0.1"] {
        sensor.see(|now| accept(now, 1, v2(HOST), ends(("10.0.0.1", 2375), (peer, 1))));
    }
    assert_eq!(sensor.verdicts(), [Some(Verdict::Unlisted), Some(Verdict::Listed(IMPLIED_LOCAL.into()))]);
}

#[test]
fn a_policy_that_was_refused_changes_nothing_and_is_told_of() {
    let mut sensor = Sensor::ready();
    let judge = |sensor: &mut Sensor| {
        sensor.see(|now| accept(now, now, v2(HOST), ends(("10.0.0.1", 2375), ("198.18.1.9", 1))));
        sensor.verdicts()
    };
    let before = judge(&mut sensor);
    sensor.engine.handle_refused_policy(at(3000), vec!["q.yaml:1:2: error: no".into()]);
    let healths = healths(sensor.outputs());
    let refused =
        Reload { applied: false, problems: vec!["q.yaml:1:2: error: no".into()], restart: Vec::new() };
    assert_eq!(healths.len(), 1);
    assert_eq!((healths[0].state, healths[0].reload.as_deref()), (HealthState::Running, Some(&refused)));
    assert_eq!(judge(&mut sensor), before);
}

#[test]
fn timeout_is_that_of_the_first_thing_due() {
    let mut sensor = Sensor::ready();
    sensor.pass(10_000_000);
    assert_eq!(sensor.engine.poll_timeout(), None);
    let now = sensor.tick();
    sensor.record(Ring::Bulk, &exit(now, RUNC, v2(HOST), 0));
    assert_eq!(sensor.engine.poll_timeout(), Some(now + WINDOW_NS));
}

#[test]
fn records_released_early_are_reported_and_no_degradation() {
    let mut sensor = Sensor::ready();
    let records = crate::merge::MERGE_EVENTS_MAX as u64 + 3;
    for boot_ns in 0..records {
        sensor.record(Ring::Bulk, &exit(boot_ns, RUNC, v2(HOST), 0));
    }
    sensor.engine.handle_counters(at(2000), &KernelCounters::default());
    let healths = healths(sensor.outputs());
    let early = Loss { ring: None, kind: "released-early", lost: 0, suppressed: 0, evicted: 3 };
    assert_eq!((healths[0].state, &*healths[0].loss), (HealthState::Running, &[early][..]));
}

#[test]
fn records_of_a_backlog_come_out_in_order_however_late_they_are_read() {
    let mut sensor = Sensor::ready();
    let see = |sensor: &mut Sensor, boot_ns| {
        let record = accept(boot_ns, boot_ns, v2(HOST), ends(("10.0.0.1", 2375), ("198.18.0.9", 1)));
        sensor.record(Ring::Management, &record);
    };
    see(&mut sensor, 2_000_000);
    sensor.engine.handle_drained(1_500_000);
    sensor.engine.poll(at(1_000_000_000));
    assert!(sensor.read_facts().is_empty(), "older ones may still be in a ring");
    see(&mut sensor, 1_600_000);
    sensor.engine.handle_drained(1_000_000_000);
    sensor.engine.poll(at(1_000_000_000));
    let times: Vec<_> = sensor.read_facts().iter().map(|fact| fact.at.boot_ns).collect();
    assert_eq!(times, [1_600_000, 2_000_000]);
}

#[test]
fn a_step_of_the_wall_clock_moves_later_timestamps_and_nothing_else() {
    const BACK_NS: i64 = -600_000_000_000;
    let mut sensor = Sensor::ready();
    let see = |sensor: &mut Sensor, conn| {
        sensor.see(|now| accept(now, conn, v2(HOST), ends(("10.0.0.1", 2375), ("198.18.0.9", 1))));
        sensor.facts().pop().expect("an accept").at
    };
    let before = see(&mut sensor, 1);
    let offset_ns = before.unix_ns as i64 - before.boot_ns as i64;
    sensor.engine.handle_clock(ClockMap { offset_ns: offset_ns + BACK_NS });
    let after = see(&mut sensor, 2);
    assert!(after.boot_ns > before.boot_ns, "order follows the boot clock");
    assert_eq!(after.unix_ns as i64 - after.boot_ns as i64, offset_ns + BACK_NS);
    // Windows do, too: what holds a record back, or ends a burst of connections, is the boot clock alone.
    sensor.pass(3_000_000_000);
    assert_eq!(sensor.engine.poll_timeout(), None);
}
