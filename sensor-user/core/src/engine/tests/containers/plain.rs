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

/// What is said of the container of a record: its cgroup, its name, and whether that is all.
fn said(fact: &Fact) -> (Option<&str>, Option<&str>, Enrichment) {
    let container = fact.container.as_ref().expect("a container");
    (container.cgroup.as_deref(), container.name.as_deref(), fact.quality.enrichment)
}

/// Answers every question for a container with a name made of what was asked.
fn answer(sensor: &mut Sensor) {
    for query in queries(&sensor.requests()) {
        let name =
            format!("{}:{}", query.root.as_deref().unwrap_or("-"), query.bundle.as_deref().unwrap_or("-"));
        let metadata = ContainerMetadata {
            key: Some(query.key.clone()),
            id: query.id.clone(),
            name: Some(name.into()),
            risks: Some(Risks::default()),
            ..ContainerMetadata::default()
        };
        sensor.engine.handle_container_metadata(at(sensor.now), metadata);
    }
}

#[test]
fn two_living_containers_of_one_name_are_told_apart() {
    let mut sensor = Sensor::ready();
    let delete = P(220, "runc");
    // Both are asked for before either is made.
    for (number, root) in [(200, "/one"), (201, "/two")] {
        let bundle = format!("/b{root}");
        let args = ["--root", root, "run", "--bundle", &bundle, "web"];
        sensor.see(|now| plain_runc(now, P(number, "runc"), &args));
    }
    for (number, path) in [(50, "/one/web"), (51, "/two/web")] {
        sensor.see(|now| cgroup(now, true, v2(number), P(150 + number as u32, "runc"), path));
        sensor.see(|now| program(now, P(450 + number as u32, "sh"), number));
    }
    sensor.facts();
    answer(&mut sensor);
    let facts = sensor.read_facts();
    let one = (Some("/one/web"), Some("/one:/b/one"), Enrichment::Ok);
    let two = (Some("/two/web"), Some("/two:/b/two"), Enrichment::Ok);
    let steps: Vec<_> = facts
        .iter()
        .filter_map(|fact| match fact.kind {
            FactKind::Container { action, .. } if action != Enriched => Some((action, said(fact))),
            _ => None,
        })
        .collect();
    assert_eq!(steps.len(), 4, "{facts:?}");
    for expected in [(Created, one), (Started, one), (Created, two), (Started, two)] {
        assert!(steps.contains(&expected), "{expected:?} in {steps:?}");
    }
    assert!(facts.iter().all(|fact| container_id(fact) == Some("web")), "{facts:?}");
    for container in facts.iter().filter_map(|fact| fact.container.as_ref()) {
        assert_eq!(
            container.namesake,
            u64::from(container.cgroup.as_deref() == Some("/two/web")),
            "{facts:?}"
        );
    }

    // Calls are about the one whose directory they name.
    sensor.see(|now| plain_runc(now, P(210, "runc"), &["--root", "/two", "exec", "web", "id"]));
    let facts = sensor.facts();
    let exec = facts.iter().find(|fact| matches!(fact.kind, FactKind::Container { .. })).expect("told");
    assert_eq!((actions(&facts), said(exec)), (vec![(ExecInto, "web")], two));

    // Each has an end of its own.
    sensor.see(|now| cgroup(now, false, v2(50), RUNC, "/one/web"));
    sensor.see(|now| plain_runc(now, delete, &["--root", "/one", "delete", "web"]));
    sensor.see(|now| exit(now, delete, v2(HOST), 0));
    let facts = sensor.facts();
    assert_eq!(actions(&facts), [(Stopped, "web"), (Removed, "web")]);
    let ends = facts.iter().filter(|fact| matches!(fact.kind, FactKind::Container { .. }));
    assert!(ends.map(said).all(|said| said == one), "{facts:?}");
    sensor.see(|now| cgroup(now, false, v2(51), RUNC, "/two/web"));
    let facts = sensor.facts();
    assert_eq!((actions(&facts), said(&facts[0])), (vec![(Stopped, "web")], two));
    let watched = sensor.requests().into_iter().rev().find_map(|request| match request {
        Request::WatchRemoval(query) => Some(query),
        _ => None,
    });
    let watched = watched.expect("its removal is watched for");
    assert_eq!((&*watched.id, watched.root.as_deref()), ("web", Some("/two")));
    sensor.engine.handle_container_removed(at(sensor.now), &watched.key);
    let facts = sensor.read_facts();
    assert_eq!((actions(&facts), said(&facts[0])), (vec![(Removed, "web")], two));
    assert_eq!(sensor.engine.statistics().containers, 0);
}

#[test]
fn the_next_life_of_a_container_is_not_its_namesakes() {
    let mut sensor = Sensor::ready();
    let run = |sensor: &mut Sensor, root: &str, number: u64, path: &str| {
        sensor.see(|now| plain_runc(now, RUNC, &["--root", root, "run", "--bundle", root, "web"]));
        sensor.see(|now| cgroup(now, true, v2(number), RUNC, path));
        sensor.facts();
        answer(sensor);
        sensor.read_facts().into_iter().next().expect("created")
    };
    let one = run(&mut sensor, "/one", 50, "/one/web");
    assert_eq!(said(&one), (Some("/one/web"), Some("/one:/one"), Enrichment::Ok));
    sensor.see(|now| cgroup(now, false, v2(50), RUNC, "/one/web"));
    // It has stopped, and its runtime keeps its state: another one is not its next life.
    let two = run(&mut sensor, "/two", 51, "/two/web");
    assert_eq!(said(&two), (Some("/two/web"), Some("/two:/two"), Enrichment::Ok));
    let again = run(&mut sensor, "/one", 52, "/elsewhere/web");
    assert_eq!(said(&again), (Some("/elsewhere/web"), Some("/one:/one"), Enrichment::Ok));
    assert_eq!(sensor.engine.statistics().containers, 2);
}

#[test]
fn cgroups_of_other_names_keep_namesakes_apart() {
    let mut sensor = Sensor::ready();
    for (number, root) in [(50, "/one"), (51, "/two")] {
        let place = format!("/custom{root}");
        sensor.see(|now| plain_runc(now, RUNC, &["--root", root, "run", "--bundle", root, "web"]));
        sensor.see(|now| cgroup(now, true, v2(number), RUNC, &place));
        sensor.see(|now| program(now, P(450 + number as u32, "sh"), number));
        sensor.facts();
        answer(&mut sensor);
        let facts = sensor.read_facts();
        let started = facts
            .iter()
            .find(|fact| matches!(fact.kind, FactKind::Container { action: Started, .. }))
            .expect("started");
        let name = format!("{root}:{root}");
        assert_eq!(said(started), (Some(&*place), Some(&*name), Enrichment::Ok));
    }
}

#[test]
fn namesakes_that_were_there_before_are_told_apart() {
    let mut sensor = Sensor::seeded();
    let places = [(60, "/one"), (61, "/two")];
    let seeds =
        places.map(|(id, path)| SeedCgroup { key: CgroupKey { hierarchy: 0, id }, path: path.into() });
    sensor.engine.handle_cgroups(seeds.into());
    for (_, path) in places {
        let metadata = ContainerMetadata {
            id: "web".into(),
            root: Some(path.into()),
            name: Some(path.into()),
            cgroups: vec![path.into()],
            risks: Some(Risks::default()),
            ..ContainerMetadata::default()
        };
        sensor.engine.handle_container_metadata(at(900), metadata);
    }
    sensor.engine.handle_ready(at(1000));
    sensor.outputs();
    for (number, path) in places {
        sensor.see(|now| plain_runc(now, RUNC, &["--root", path, "exec", "web", "id"]));
        sensor.see(|now| cgroup(now, false, v2(number), RUNC, path));
        let facts = sensor.facts();
        assert_eq!(actions(&facts), [(ExecInto, "web"), (Stopped, "web")], "{path}");
        let steps = facts.iter().filter(|fact| matches!(fact.kind, FactKind::Container { .. }));
        assert!(steps.map(said).all(|said| said == (Some(path), Some(path), Enrichment::Ok)), "{facts:?}");
    }
}

#[test]
fn of_more_namesakes_than_are_told_apart_nothing_wrong_is_said() {
    let mut sensor = Sensor::ready();
    let mut told = Vec::new();
    for number in 0..20 {
        let root = format!("/root{number}");
        sensor.see(|now| plain_runc(now, RUNC, &["--root", &root, "run", "--bundle", &root, "web"]));
        sensor.see(|now| cgroup(now, true, v2(100 + number), RUNC, &format!("{root}/web")));
        sensor.facts();
        answer(&mut sensor);
        sensor.pass(HOLD_NS);
        let created = sensor.read_facts().into_iter().next().expect("created");
        told.push(said(&created).2);
    }
    assert_eq!(told.iter().filter(|quality| **quality == Enrichment::Ok).count(), 16);
    assert_eq!(sensor.engine.statistics().containers, 16);
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
