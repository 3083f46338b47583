//! Risks of containers in records.

use ContainerAction::Created;

use super::*;
use crate::records::{cgroup, v2};
use crate::risks::Risk;

#[test]
fn records_wait_for_the_risks_too() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("/docker/{id}")));
    sensor.facts();
    let name = Some("web".into());
    let metadata = ContainerMetadata { id: id.as_str().into(), name, ..Default::default() };
    sensor.engine.handle_container_metadata(at(sensor.now), metadata.clone());
    assert!(sensor.outputs().is_empty(), "what it may do is still to be read");
    let risks = Some(Risks::new([Risk::SeccompOff, Risk::Privileged]));
    sensor.engine.handle_container_metadata(at(sensor.now), ContainerMetadata { risks, ..metadata });
    let facts = sensor.read_facts();
    assert_eq!(actions(&facts), [(Created, &*id)]);
    let risks = facts[0].container.as_ref().and_then(|container| container.risks.as_deref());
    assert_eq!(risks, Some(&[Risk::Privileged, Risk::SeccompOff][..]));
}

#[test]
fn risks_that_found_no_room_make_a_record_truncated() {
    let mut sensor = Sensor::ready();
    let id = long_id("ab");
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("/docker/{id}")));
    sensor.facts();
    let devices = (0..100).map(|index| Risk::Device(format!("/dev/x{index}").into()));
    let (name, risks) = (Some("web".into()), Some(Risks::new(devices)));
    let metadata = ContainerMetadata { id: id.as_str().into(), name, risks, ..Default::default() };
    sensor.engine.handle_container_metadata(at(sensor.now), metadata);
    let facts = sensor.read_facts();
    assert_eq!((actions(&facts), facts[0].quality.truncated), (vec![(Created, &*id)], true));
}
