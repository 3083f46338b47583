//! Tests of [`super`]: how a new cgroup finds its place.

use super::*;
use crate::calls::Call;
use crate::fact::Process;

const ID: &str = "4f1c5ea2b9d87306e1a4c8f2d5b0937a6c1e8f4d2b5a7093c6e1f8d4a2b57093";

fn key(id: u64) -> CgroupKey {
    CgroupKey { hierarchy: 0, id }
}

fn call(command: OciCommand, id: &str) -> OciCall {
    OciCall { command, id: Some(id.into()), bundle: None, root: None }
}

fn calls(ids: &[&str]) -> Calls {
    let process = Arc::new(Process {
        pid: 1,
        ppid: None,
        start_ns: 1,
        comm: "runc".into(),
        exe: None,
        args: None,
        uid: None,
        ancestors: Arc::from([]),
        truncated: false,
    });
    let mut calls = Calls::new(8);
    for id in ids {
        let call = Call {
            process: process.clone(),
            mnt_ns: 1,
            runtime: Runtime::Runc,
            namespace: None,
            bundle: None,
            root: None,
        };
        calls.insert((*id).into(), call);
    }
    calls
}

fn attribute(inventory: &Inventory, path: &str, maker: Maker<'_>, recent: &[&str]) -> Attribution {
    inventory.attribute(0, path, maker, &calls(recent), |_| None)
}

fn own_id(attribution: Attribution) -> Option<String> {
    match attribution {
        Attribution::Own(naming) => Some(naming.id.to_string()),
        _ => None,
    }
}

#[test]
fn name_that_tells_needs_no_maker() {
    let inventory = Inventory::new(8);
    let path = format!("/docker/{ID}");
    let Attribution::Own(naming) = attribute(&inventory, &path, Maker::UNKNOWN, &[]) else { panic!("own") };
    assert_eq!((&*naming.id, naming.runtime, naming.path.as_deref()), (ID, Runtime::Docker, Some(&*path)));
}

#[test]
fn free_text_id_is_known_by_the_runtime_that_makes_it() {
    let inventory = Inventory::new(8);
    for (path, command, id, expected) in [
        ("/my-box", OciCommand::Create, "my-box", Some("my-box")),
        ("/lab/t1", OciCommand::Run, "t1", Some("t1")),
        ("/system.slice/x-my-box.scope", OciCommand::Create, "my-box", Some("my-box")),
        // Parents are made on the way; `a` is in `lab`, but does not name it.
        ("/lab", OciCommand::Create, "a", None),
        ("/my-box", OciCommand::Exec, "my-box", None),
    ] {
        let call = call(command, id);
        let maker = Maker { call: Some(&call), comm: "runc" };
        assert_eq!(own_id(attribute(&inventory, path, maker, &[])).as_deref(), expected, "{path}");
    }
}

#[test]
fn unit_that_systemd_makes_is_known_by_a_recent_call() {
    let inventory = Inventory::new(8);
    let maker = Maker { call: None, comm: "systemd" };
    let unit = |leaf: &str| {
        own_id(attribute(&inventory, &format!("/system.slice/{leaf}"), maker, &["my-box", "box"]))
    };
    assert_eq!(unit("pre-my-box.scope").as_deref(), Some("my-box"), "the longest id wins");
    assert_eq!(unit("pre-box.scope").as_deref(), Some("box"));
    assert_eq!(unit("pre-other.scope"), None);
    assert_eq!(unit("my-box.service"), None);
}

#[test]
fn runtimes_cgroup_of_another_name_is_a_candidate() {
    let inventory = Inventory::new(8);
    let call = call(OciCommand::Create, "my-box");
    let maker = Maker { call: Some(&call), comm: "runc" };
    let named = Attribution::Candidate(Some("my-box".into()));
    assert_eq!(attribute(&inventory, "/custom/place", maker, &[]), named);
    let unknown_call = Maker { call: None, comm: "crun" };
    assert_eq!(attribute(&inventory, "/custom/place", unknown_call, &[]), Attribution::Candidate(None));
    let ordinary = Maker { call: None, comm: "mkdir" };
    assert_eq!(attribute(&inventory, "/custom/place", ordinary, &[]), Attribution::Host);
}

#[test]
fn nearest_known_parent_decides_for_what_has_no_name() {
    let mut inventory = Inventory::new(8);
    inventory.insert(key(5), Some("/free".into()), Place::Container("free".into()));
    inventory.insert(key(6), Some("/host".into()), Place::Host);
    let nested = Attribution::Nested("free".into());
    assert_eq!(attribute(&inventory, "/free/a/b", Maker::UNKNOWN, &[]), nested);
    assert_eq!(attribute(&inventory, "/host/a", Maker::UNKNOWN, &[]), Attribution::Host);
    assert_eq!(attribute(&inventory, "/freedom", Maker::UNKNOWN, &[]), Attribution::Host);
    let inside = attribute(&inventory, &format!("/docker/{ID}/init"), Maker::UNKNOWN, &[]);
    assert!(matches!(inside, Attribution::Inside(naming) if *naming.id == *ID));
}

#[test]
fn id_that_lives_elsewhere_cannot_be_claimed_from_inside_a_container() {
    let mut inventory = Inventory::new(8);
    inventory.insert(key(5), Some("/free".into()), Place::Container("free".into()));
    let claim = |home: Option<&'static str>| {
        inventory.attribute(0, &format!("/free/docker/{ID}"), Maker::UNKNOWN, &calls(&[]), |_| home)
    };
    assert_eq!(claim(Some("/docker/x")), Attribution::Nested("free".into()));
    assert!(own_id(claim(None)).is_some());
}

#[test]
fn hierarchies_do_not_mix() {
    let mut inventory = Inventory::new(8);
    let other = CgroupKey { hierarchy: 8, id: 5 };
    inventory.insert(key(5), Some("/a".into()), Place::Host);
    inventory.insert(other, Some("/a".into()), Place::Container("c".into()));
    assert_eq!(inventory.place(key(5)), Some(&Place::Host));
    assert_eq!(inventory.place(other), Some(&Place::Container("c".into())));
    assert_eq!(inventory.at_path("/a").len(), 2);
    assert_eq!(attribute(&inventory, "/a/b", Maker::UNKNOWN, &[]), Attribution::Host);
}

#[test]
fn removed_cgroup_is_still_known_but_no_longer_at_its_path() {
    let mut inventory = Inventory::new(4096);
    inventory.insert(key(5), Some("/a".into()), Place::Container("c".into()));
    inventory.remove(key(5));
    inventory.remove(key(5));
    assert_eq!(inventory.place(key(5)), Some(&Place::Container("c".into())));
    assert!(inventory.at_path("/a").is_empty());
    for id in 100..100 + REMOVED_MAX as u64 {
        inventory.insert(key(id), None, Place::Host);
        inventory.remove(key(id));
    }
    assert_eq!(inventory.place(key(5)), None);
    assert_eq!((inventory.len(), inventory.evicted()), (REMOVED_MAX, 0));
}

#[test]
fn full_table_gives_up_what_was_used_longest_ago() {
    let mut inventory = Inventory::new(2);
    assert_eq!(inventory.insert(key(5), Some("/a".into()), Place::Host), None);
    assert_eq!(inventory.insert(key(6), Some("/b".into()), Place::Host), None);
    assert_eq!(inventory.insert(key(7), Some("/c".into()), Place::Host), Some(key(5)));
    assert!(inventory.at_path("/a").is_empty());
    assert_eq!(inventory.evicted(), 1);
}

#[test]
fn root_of_every_hierarchy_is_the_hosts() {
    let inventory = Inventory::new(2);
    assert_eq!(inventory.place(key(1)), Some(&Place::Host));
    assert_eq!(inventory.place(CgroupKey { hierarchy: 8, id: 1 }), Some(&Place::Host));
    assert_eq!(inventory.place(key(2)), None);
}

#[test]
fn own_name_is_enough_when_nothing_else_is_there() {
    let naming = named_by_itself(&format!("docker-{ID}.scope"), &calls(&[])).expect("a container");
    assert_eq!((&*naming.id, naming.runtime), (ID, Runtime::Docker));
    assert_eq!(named_by_itself("my-box", &calls(&["my-box"])).map(|naming| naming.id), Some("my-box".into()));
    assert_eq!(named_by_itself("my-box", &calls(&[])), None);
}
