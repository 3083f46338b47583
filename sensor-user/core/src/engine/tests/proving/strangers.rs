//! Others who look like canaries, and the port of the canaries.

use super::*;
use crate::health::Balance;
use crate::records::listener_item;

#[test]
fn imitations_are_shown() {
    let mut proving = Proving::ready();
    proving.round(&[Sign::Fork, Sign::Exec, Sign::CgroupMade]);
    let made = proving.sensor.tick();
    // The name and the token are seen as soon as they are used; the maker and the parent cannot be chosen.
    let elsewhere = cgroup(made, true, v2(42), CURL, &format!("/docker/{NAME}"));
    proving.sensor.record(Ring::Management, &elsewhere);
    let args = ["quaywatch", "canary", TOKEN];
    let mut alike = Exec::new(made + 1, P(900, "quaywatch"), v2(4711), "/proc/self/exe", &args);
    alike.ancestors = &[CURL];
    proving.sensor.record(Ring::Bulk, &alike.bytes());
    let facts = proving.sensor.facts();
    assert!(facts.iter().any(|fact| matches!(fact.kind, FactKind::Exec { .. })), "{facts:#?}");
    assert!(proving.sensor.engine.statistics().cgroups > 0, "the cgroup was entered");
}

#[test]
fn the_token_counts_once_and_for_an_unseen_fork() {
    let mut proving = Proving::ready();
    proving.notice(CanaryNotice::Begins(Canary::Process { token: TOKEN.into() }));
    // In a container the exec of an unknown program would be shown.
    let exec = |now, task: P| {
        let args = ["quaywatch", "canary", TOKEN];
        let mut exec = Exec::new(now, task, v2(4711), "/proc/self/exe", &args);
        exec.ancestors = &[OWN];
        exec.bytes()
    };
    proving.sensor.see(|now| exec(now, P(601, "quaywatch")));
    assert_eq!(proving.sensor.facts(), []);
    proving.sensor.see(|now| exec(now, P(602, "quaywatch")));
    assert_eq!(proving.sensor.facts().len(), 1, "whoever comes second is not the canary");
}

#[test]
fn strangers_at_the_port_of_the_canaries_are_no_canaries() {
    let mut proving = Proving::ready();
    proving.sensor.see(|now| accept(now, 5, v2(HOST), ends(("127.0.0.1", PORT), ("127.0.0.1", 7))));
    proving.sensor.facts();
    proving.counters.records[0][RecordKind::Accept as usize][Fate::Submitted as usize] = 2;
    proving.sensor.engine.finish(at(proving.sensor.now), &proving.counters);
    let last = proving.healths().pop().expect("the last record");
    let of_accepts =
        |balance: &&Balance| (balance.ring, balance.kind) == (Ring::Management, RecordKind::Accept);
    let balance = last.balance.iter().find(of_accepts).expect("some were made");
    assert_eq!((balance.received, balance.canaries), (1, 0), "{balance:?}");
}

#[test]
fn the_port_of_the_canaries_is_watched_for_nobody_else() {
    let mut proving = Proving::ready();
    proving.sensor.see(|now| {
        let elsewhere = crate::records::netns(bound("0.0.0.0", PORT), 2);
        listener(now, true, 78, CURL, v2(HOST), elsewhere)
    });
    proving.sensor.see(|now| accept(now, 5, v2(HOST), ends(("127.0.0.1", PORT), ("127.0.0.1", 7))));
    assert_eq!(proving.sensor.facts(), []);
    // A connect towards the port is an event like any other.
    let strange = P(300, "runc");
    proving.sensor.see(|now| {
        let ends = ends(("127.0.0.1", 7), ("127.0.0.1", PORT));
        connect(now, 6, strange, v2(4711), ends, ConnectStage::Established, 0)
    });
    assert_eq!(proving.sensor.facts().len(), 1);
}

#[test]
fn the_listener_of_a_canary_is_not_found_by_a_walk() {
    let mut proving = Proving::ready();
    let own = listener_item(77, OWN, v2(HOST), bound("127.0.0.1", PORT));
    let other = listener_item(78, DOCKERD, v2(HOST), bound("127.0.0.1", 2375));
    proving.sensor.engine.handle_listeners(at(proving.sensor.now), &[own, other]);
    assert_eq!(proving.sensor.engine.statistics().listeners, 1);
}
