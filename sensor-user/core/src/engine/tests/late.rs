//! Accepts that no program was told of when they happened, but the one on packets with the first data.

use sensor_common::record::Ring;

use super::proving::{CLIENT, PORT, Proving, SECOND, entry};
use super::{DOCKERD, HOST, Sensor, healths};
use crate::canary::Sign;
use crate::engine::Output;
use crate::fact::{Fact, FactKind};
use crate::health::{Capability, CoverageState};
use crate::records::{bound, ends, late_accept, listener, payload, v2};

#[test]
fn what_is_asked_on_such_a_connection_is_told_like_on_any_other() {
    let mut sensor = Sensor::ready();
    sensor.see(|now| listener(now, true, 77, DOCKERD, v2(HOST), bound("0.0.0.0", 2375)));
    sensor.facts();
    let ends = ends(("10.0.0.1", 2375), ("198.18.0.9", 40_000));
    sensor.see(|now| late_accept(now, 7, v2(HOST), ends));
    let now = sensor.tick();
    let request = payload(now, 7, v2(HOST), ends, false, 0, b"GET /info HTTP/1.1\r\n\r\n");
    sensor.record(Ring::Bulk, &request);
    let now = sensor.tick();
    let answer = payload(now, 7, v2(HOST), ends, true, 0, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    sensor.record(Ring::Bulk, &answer);

    let facts = sensor.facts();
    let told = |fact: &&Fact| !matches!(fact.kind, FactKind::Listener { .. });
    let told: Vec<&Fact> = facts.iter().filter(told).collect();
    let [accept, request] = told[..] else { panic!("an accept and a request, not {told:?}") };
    assert_eq!(accept.kind, FactKind::Accept { task: None, client: None, late: true });
    assert_eq!(accept.net, request.net);
    let FactKind::ApiRequest(api) = &request.kind else { panic!("a request, not {request:?}") };
    assert_eq!(api.status, Some(200));
}

#[test]
fn a_late_accept_of_the_canary_is_not_shown_and_proves_nothing() {
    let mut proving = Proving::ready();
    for _ in 0..2 {
        proving.round(&[Sign::Accept]);
        let now = proving.sensor.tick();
        let late = late_accept(now, 9, v2(HOST), ends(("127.0.0.1", PORT), ("127.0.0.1", CLIENT)));
        proving.sensor.record(Ring::Management, &late);
        proving.pass(2 * SECOND);
    }
    let outputs = proving.sensor.outputs();
    assert!(!outputs.iter().any(|output| matches!(output, Output::Fact { .. })), "{outputs:?}");
    let healths = healths(outputs);
    let last = healths.last().expect("something is missing");
    assert_eq!(entry(last, Capability::Accepts).state, CoverageState::Blind, "{last:?}");
}
