//! Tests of [`super`]: how a new cgroup finds its place.

use super::*;
use crate::calls::Call;
use crate::fact::Process;

const ID: &str = "4f1c5ea2b9d87306e1a4c8f2d5b0937a6c1e8f4d2b5a7093c6e1f8d4a2b57093";

/// The cgroup that finds its place.
const NEW: CgroupKey = CgroupKey { hierarchy: 0, id: 999 };

fn key(id: u64) -> CgroupKey {
    CgroupKey { hierarchy: 0, id }
}

fn call(command: OciCommand, id: &str) -> OciCall {
    OciCall { command, id: Some(id.into()), bundle: None, root: None, exec: None, exec_id: None }
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
        program: Default::default(),
        ancestors: Arc::from([]),
        truncated: false,
    });
    let mut calls = Calls::new(8);
    for id in ids {
        let call = Call {
            at: crate::time::Timestamp::default(),
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

fn attribute(inventory: &mut Inventory, path: &str, maker: Maker<'_>, recent: &[&str]) -> Attribution {
    inventory.attribute(NEW, path, maker, &calls(recent), &Containers::new(8))
}

/// A container known with this own cgroup of the inventory.
fn known(id: &str, home: Option<&str>, own: Option<CgroupKey>, life: Life) -> Containers {
    let mut containers = Containers::new(8);
    let naming =
        Naming { id: id.into(), runtime: Runtime::Docker, namespace: None, path: home.map(Arc::from) };
    containers.enter(&naming.id, &naming);
    let entry = containers.get_mut(id).expect("just entered");
    entry.life = life;
    entry.cgroups.extend(own);
    containers
}

fn user(uid: u32) -> Maker<'static> {
    Maker { call: None, comm: "mkdir", uid: Some(uid), contained: false }
}

fn own_id(attribution: Attribution) -> Option<String> {
    match attribution {
        Attribution::Own(naming) => Some(naming.id.to_string()),
        _ => None,
    }
}

#[test]
fn name_that_tells_needs_no_maker() {
    let mut inventory = Inventory::new(8);
    let path = format!("/docker/{ID}");
    let Attribution::Own(naming) = attribute(&mut inventory, &path, Maker::UNKNOWN, &[]) else {
        panic!("own")
    };
    assert_eq!((&*naming.id, naming.runtime, naming.path.as_deref()), (ID, Runtime::Docker, Some(&*path)));
}

#[test]
fn free_text_id_is_known_by_the_runtime_that_makes_it() {
    let mut inventory = Inventory::new(8);
    for (path, command, id, expected) in [
        ("/my-box", OciCommand::Create, "my-box", Some("my-box")),
        ("/lab/t1", OciCommand::Run, "t1", Some("t1")),
        ("/system.slice/x-my-box.scope", OciCommand::Create, "my-box", Some("my-box")),
        // Parents are made on the way; `a` is in `lab`, but does not name it.
        ("/lab", OciCommand::Create, "a", None),
        ("/my-box", OciCommand::Exec, "my-box", None),
    ] {
        let call = call(command, id);
        let maker = Maker { call: Some(&call), comm: "runc", ..Maker::UNKNOWN };
        assert_eq!(own_id(attribute(&mut inventory, path, maker, &[])).as_deref(), expected, "{path}");
    }
}

#[test]
fn unit_that_systemd_makes_is_known_by_a_recent_call() {
    let mut inventory = Inventory::new(8);
    let maker = Maker { call: None, comm: "systemd", ..Maker::UNKNOWN };
    let mut unit = |leaf: &str| {
        own_id(attribute(&mut inventory, &format!("/system.slice/{leaf}"), maker, &["my-box", "box"]))
    };
    assert_eq!(unit("pre-my-box.scope").as_deref(), Some("my-box"), "the longest id wins");
    assert_eq!(unit("pre-box.scope").as_deref(), Some("box"));
    assert_eq!(unit("pre-other.scope"), None);
    assert_eq!(unit("my-box.service"), None);
}

#[test]
fn runtimes_cgroup_of_another_name_is_a_candidate() {
    let mut inventory = Inventory::new(8);
    let call = call(OciCommand::Create, "my-box");
    let maker = Maker { call: Some(&call), comm: "runc", ..Maker::UNKNOWN };
    let named = Attribution::Candidate(Some("my-box".into()));
    assert_eq!(attribute(&mut inventory, "/custom/place", maker, &[]), named);
    let unknown_call = Maker { call: None, comm: "crun", ..Maker::UNKNOWN };
    assert_eq!(attribute(&mut inventory, "/custom/place", unknown_call, &[]), Attribution::Candidate(None));
    let ordinary = Maker { call: None, comm: "mkdir", ..Maker::UNKNOWN };
    assert_eq!(attribute(&mut inventory, "/custom/place", ordinary, &[]), Attribution::Host);
}

#[test]
fn nearest_known_parent_decides_for_what_has_no_name() {
    let mut inventory = Inventory::new(8);
    inventory.insert(key(5), Some("/free".into()), Place::Container("free".into()));
    inventory.insert(key(6), Some("/host".into()), Place::Host);
    let nested = Attribution::Nested("free".into());
    assert_eq!(attribute(&mut inventory, "/free/a/b", Maker::UNKNOWN, &[]), nested);
    assert_eq!(attribute(&mut inventory, "/host/a", Maker::UNKNOWN, &[]), Attribution::Host);
    assert_eq!(attribute(&mut inventory, "/freedom", Maker::UNKNOWN, &[]), Attribution::Host);
    let inside = attribute(&mut inventory, &format!("/docker/{ID}/init"), Maker::UNKNOWN, &[]);
    assert!(matches!(inside, Attribution::Inside(naming) if *naming.id == *ID));
}

#[test]
fn id_that_lives_elsewhere_cannot_be_claimed_from_inside_a_container() {
    let mut inventory = Inventory::new(8);
    inventory.insert(key(5), Some("/free".into()), Place::Container("free".into()));
    let path = format!("/free/docker/{ID}");
    let mut claim =
        |containers: &Containers| inventory.attribute(NEW, &path, Maker::UNKNOWN, &calls(&[]), containers);
    for life in [Life::Running, Life::Stopped] {
        let elsewhere = known(ID, Some("/docker/x"), None, life);
        assert_eq!(claim(&elsewhere), Attribution::Nested("free".into()), "{life:?}");
        assert!(own_id(claim(&known(ID, Some(&path), None, life))).is_some(), "its own next life, {life:?}");
    }
    assert!(own_id(claim(&Containers::new(8))).is_some(), "a new one");
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
    assert_eq!(attribute(&mut inventory, "/a/b", Maker::UNKNOWN, &[]), Attribution::Host);
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

#[test]
fn container_that_lives_cannot_be_impersonated_from_the_host() {
    let mut inventory = Inventory::new(8);
    let home = format!("/system.slice/docker-{ID}.scope");
    inventory.insert(key(5), Some(home.as_str().into()), Place::Container(ID.into()));
    inventory.insert(key(6), Some("/user.slice/user-1000.slice".into()), Place::Host);
    let running = known(ID, Some(&home), Some(key(5)), Life::Running);
    let fake = format!("/user.slice/user-1000.slice/docker-{ID}.scope");
    let forged = call(OciCommand::Create, ID);
    let forger = Maker { call: Some(&forged), comm: "runc", ..user(1000) };
    for maker in [user(1000), user(0), forger] {
        let claimed = inventory.attribute(NEW, &fake, maker, &calls(&[]), &running);
        assert_eq!(claimed, Attribution::Host, "{maker:?}");
    }
    let elsewhere = "/user.slice/user-1000.slice/x";
    assert_eq!(inventory.attribute(NEW, elsewhere, forger, &calls(&[]), &running), Attribution::Host);
    inventory.insert(NEW, Some(fake.as_str().into()), Place::Host);
    let below = format!("{fake}/below");
    assert_eq!(inventory.attribute(key(7), &below, user(1000), &calls(&[]), &running), Attribution::Host);
    // The other hierarchy's cgroup of the same container is its own.
    let other = CgroupKey { hierarchy: 8, id: 5 };
    assert!(own_id(inventory.attribute(other, &home, user(0), &calls(&[]), &running)).is_some());
}

#[test]
fn user_names_his_own_containers_only() {
    let mut inventory = Inventory::new(8);
    let leaf = format!("user@1000.service/user.slice/libpod-{ID}.scope");
    let own_slice = format!("/user.slice/user-1000.slice/{leaf}");
    let nobody = Containers::new(8);
    assert!(own_id(inventory.attribute(NEW, &own_slice, user(1000), &calls(&[]), &nobody)).is_some());
    let others = [format!("/user.slice/user-1001.slice/{leaf}"), format!("/delegated/libpod-{ID}.scope")];
    for path in &others {
        assert_eq!(inventory.attribute(NEW, path, user(1000), &calls(&[]), &nobody), Attribution::Host);
    }
    // A runtime he called himself, as a service without a slice of its own does.
    let called = call(OciCommand::Create, ID);
    let runtime = Maker { call: Some(&called), comm: "crun", ..user(1000) };
    assert!(own_id(inventory.attribute(NEW, &others[1], runtime, &calls(&[]), &nobody)).is_some());
    // Stopped, but root's.
    let roots = known(ID, Some("/docker/x"), None, Life::Stopped);
    assert_eq!(inventory.attribute(NEW, &own_slice, user(1000), &calls(&[]), &roots), Attribution::Host);
    let his = known(ID, Some(&own_slice), None, Life::Stopped);
    assert!(
        own_id(inventory.attribute(NEW, &own_slice, user(1000), &calls(&[]), &his)).is_some(),
        "restarted"
    );
}

#[test]
fn user_shares_a_name_in_use_among_his_own_containers_only() {
    let called = call(OciCommand::Create, "web");
    let runtime = Maker { call: Some(&called), comm: "crun", ..user(1000) };
    let his = "/user.slice/user-1000.slice/other/web";
    for (home, may) in [("/system.slice/web", false), (his, true)] {
        let mut inventory = Inventory::new(8);
        inventory.insert(key(5), Some(home.into()), Place::Container("web".into()));
        let lives = known("web", Some(home), Some(key(5)), Life::Running);
        let path = "/user.slice/user-1000.slice/web";
        let claimed = inventory.attribute(NEW, path, runtime, &calls(&[]), &lives);
        assert_eq!(own_id(claimed).as_deref(), may.then_some("web"), "beside {home}");
        let uncalled = inventory.attribute(NEW, path, user(1000), &calls(&[]), &lives);
        assert_eq!(uncalled, Attribution::Host, "beside {home}, by a name alone");
    }
}

#[test]
fn maker_in_a_container_speaks_of_no_container_outside() {
    let mut inventory = Inventory::new(8);
    let maker = Maker { contained: true, ..user(0) };
    let stopped = known(ID, Some("/docker/x"), None, Life::Stopped);
    let fake = format!("/docker-{ID}.scope");
    assert_eq!(inventory.attribute(NEW, &fake, maker, &calls(&[]), &stopped), Attribution::Host);
}

#[test]
fn cgroup_in_use_is_not_the_one_to_go() {
    let mut inventory = Inventory::new(2);
    inventory.insert(key(5), Some("/a".into()), Place::Container("a".into()));
    inventory.insert(key(6), Some("/b".into()), Place::Host);
    inventory.touch(key(5));
    assert_eq!(inventory.insert(key(7), None, Place::Host), Some(key(6)));
    attribute(&mut inventory, "/a/x", Maker::UNKNOWN, &[]);
    assert_eq!(inventory.insert(key(8), None, Place::Host), Some(key(7)), "a parent is in use, too");
}

#[test]
fn container_cannot_push_out_the_cgroups_of_others() {
    let mut inventory = Inventory::new(HELD_MAX + 2);
    inventory.insert(key(2), Some("/other".into()), Place::Container("other".into()));
    for id in 10..10 + 2 * HELD_MAX as u64 {
        assert_eq!(inventory.insert(key(id), None, Place::Container("greedy".into())), None);
    }
    assert_eq!(inventory.place(key(2)), Some(&Place::Container("other".into())));
    assert_eq!((inventory.len(), inventory.evicted()), (HELD_MAX + 1, HELD_MAX as u64));
    // What it gives back it may use again.
    let last = key(9 + 2 * HELD_MAX as u64);
    assert_eq!(inventory.place(last), None);
    inventory.remove(key(10));
    inventory.insert(last, None, Place::Container("greedy".into()));
    assert!(inventory.place(last).is_some());
}
