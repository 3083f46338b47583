//! Containers of plain OCI runtimes, which their caller names.

use super::*;

#[test]
fn free_text_id_of_plain_runc_is_known_from_the_arguments() {
    let mut sensor = Sensor::ready();
    sensor.see(|now| plain_runc(now, RUNC, &["run", "--bundle", "/b", "my-box"]));
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, "/my-box"));
    sensor.see(|now| program(now, SH, 50));
    sensor.facts();
    sensor.metadata("my-box", "x");
    let facts = sensor.read_facts();
    assert_eq!(actions(&facts)[..2], [(Created, "my-box"), (Started, "my-box")]);
    assert_eq!(runtime(&facts[0]), Some(Runtime::Runc));
}

#[test]
fn metadata_of_two_living_containers_of_one_name_is_said_of_neither() {
    let mut sensor = Sensor::ready();
    for (number, path) in [(50, "/one/web"), (51, "/two/web")] {
        sensor.see(|now| plain_runc(now, RUNC, &["run", "--bundle", "/b", "web"]));
        sensor.see(|now| cgroup(now, true, v2(number), RUNC, path));
        sensor.facts();
        sensor.metadata("web", path);
        sensor.read_facts();
    }
    sensor.see(|now| program(now, SH, 50));
    sensor.see(|now| program(now, P(502, "sh"), 51));
    let facts = sensor.facts();
    let said = |fact: &Fact| {
        let container = fact.container.as_ref().expect("a container");
        (container.cgroup.clone(), container.name.clone(), fact.quality.enrichment)
    };
    assert!(!facts.is_empty());
    for fact in &facts {
        assert_eq!(said(fact), (Some("/two/web".into()), None, Enrichment::Partial));
    }
    // The one after them has the name for itself.
    for number in [50, 51] {
        sensor.see(|now| cgroup(now, false, v2(number), RUNC, "/web"));
    }
    sensor.see(|now| plain_runc(now, RUNC, &["run", "--bundle", "/b", "web"]));
    sensor.see(|now| cgroup(now, true, v2(52), RUNC, "/three/web"));
    sensor.facts();
    sensor.metadata("web", "third");
    sensor.read_facts();
    sensor.see(|now| program(now, P(503, "sh"), 52));
    let facts = sensor.facts();
    let expected = (Some("/three/web".into()), Some("third".into()), Enrichment::Ok);
    assert_eq!(said(facts.last().expect("its first program")), expected);
}

#[test]
fn plain_runc_container_is_removed_when_delete_succeeds() {
    let mut sensor = Sensor::ready();
    let delete = P(220, "runc");
    sensor.see(|now| plain_runc(now, RUNC, &["create", "my-box"]));
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, "/my-box"));
    sensor.see(|now| plain_runc(now, delete, &["delete", "my-box"]));
    sensor.see(|now| cgroup(now, false, v2(50), delete, "/my-box"));
    sensor.see(|now| exit(now, delete, v2(HOST), 0));
    let facts = sensor.facts();
    assert_eq!(actions(&facts), [(Created, "my-box"), (Stopped, "my-box"), (Removed, "my-box")]);
}

#[test]
fn failed_delete_removes_nothing() {
    let mut sensor = Sensor::ready();
    let delete = P(220, "runc");
    sensor.see(|now| plain_runc(now, RUNC, &["create", "my-box"]));
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, "/my-box"));
    sensor.see(|now| plain_runc(now, delete, &["delete", "my-box"]));
    sensor.see(|now| exit(now, delete, v2(HOST), 1 << 8));
    assert!(actions(&sensor.facts()).is_empty());
}
