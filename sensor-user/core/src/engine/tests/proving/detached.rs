//! Hooks that another program detaches.

use super::*;

/// What the shell says of a program that is not in its place, as often as it looks.
fn detach(proving: &mut Proving, program: &'static str) {
    let now = at(proving.sensor.now);
    proving.sensor.engine.handle_links(now, &[(program, false)]);
}

#[test]
fn a_detached_hook_is_told_attached_again_and_told_when_it_is_heard_of_again() {
    let mut proving = Proving::ready();
    let good = proving.sensor.tick();
    proving.sensor.engine.handle_links(at(good), &[("cgroup_mkdir", true), ("cgroup_rmdir", true)]);
    proving.sensor.now += SECOND / 2;
    detach(&mut proving, "cgroup_mkdir");
    detach(&mut proving, "cgroup_mkdir");
    let told = proving.healths();
    assert_eq!(told.len(), 1, "told once");
    let containers = entry(&told[0], Capability::Containers);
    assert_eq!((containers.state, containers.since), (CoverageState::Blind, at(good)));
    let hook = told[0].hooks.iter().find(|hook| &*hook.program == "cgroup_mkdir").expect("it is named");
    assert_eq!(
        (hook.state, hook.reason.as_deref()),
        (HookState::Unavailable, Some("detached by another program"))
    );
    assert_eq!(proving.sensor.requests(), [Request::Reattach("cgroup_mkdir")]);

    let later = proving.sensor.tick();
    proving.sensor.engine.handle_hooks(at(later), hooks(&[]));
    let told = proving.healths();
    assert_eq!((told.len(), told[0].state, told[0].blind), (1, HealthState::Degraded, None));
    let containers = entry(&told[0], Capability::Containers);
    assert_eq!((containers.state, containers.since), (CoverageState::Blind, at(good)));
    let reason =
        "new containers are not recognised; the hook is attached again and has not reported a canary yet";
    assert_eq!(containers.reason.as_deref(), Some(reason));

    proving.pass(SECOND);
    assert!(proving.is_asked_to_run(), "what is attached anew is tested at once");
    let before = proving.sensor.now;
    proving.round(&[]);
    let told = proving.healths();
    assert_eq!((told.len(), told[0].state, states_of(&told[0])), (1, HealthState::Running, Vec::new()));
    let blind = told[0].blind.expect("its end");
    assert_eq!((blind.capability, blind.from), (Capability::Containers, at(good)));
    assert!(
        before < blind.to.boot_ns && blind.to.boot_ns < proving.sensor.now,
        "at its own record: {blind:?}"
    );
}

#[test]
fn a_hook_that_cannot_be_attached_again_is_tried_at_every_round() {
    let mut proving = Proving::ready();
    detach(&mut proving, "cgroup_rmdir");
    proving.sensor.engine.handle_hooks(at(proving.sensor.now), hooks(&["cgroup_rmdir"]));
    let told = proving.healths();
    assert_eq!(
        states_of(told.last().expect("a change")),
        [(Capability::Containers, CoverageState::Degraded)]
    );
    assert_eq!(proving.sensor.requests(), [Request::Reattach("cgroup_rmdir")]);
    for _ in 0..2 {
        detach(&mut proving, "cgroup_rmdir");
        proving.pass(INTERVAL_NS);
        let retries = [Request::RunCanaries, Request::Reattach("cgroup_rmdir")];
        assert_eq!(proving.sensor.requests(), retries);
        proving.round(&[Sign::CgroupRemoved]);
        proving.pass(SECOND);
    }
    assert_eq!(proving.healths(), [], "it is told once");
    proving.sensor.engine.handle_hooks(at(proving.sensor.now), hooks(&[]));
    proving.pass(INTERVAL_NS);
    assert!(!proving.sensor.requests().contains(&Request::Reattach("cgroup_rmdir")));
}

#[test]
fn a_hook_whose_canary_cannot_be_made_is_taken_at_its_word_again() {
    let mut proving = Proving::ready();
    proving.notice(CanaryNotice::Failed(Act::Cgroup, "no cgroup can be made".into()));
    detach(&mut proving, "cgroup_mkdir");
    proving.healths();
    let now = proving.sensor.tick();
    proving.sensor.engine.handle_hooks(at(now), hooks(&[]));
    let told = proving.healths();
    assert_eq!(told[0].blind.map(|blind| blind.to), Some(at(now)));
    let containers = entry(&told[0], Capability::Containers);
    assert_eq!(
        (containers.state, containers.reason.as_deref()),
        (CoverageState::Live, Some("not tested: no cgroup can be made"))
    );
}

#[test]
fn a_hook_that_is_told_by_another_is_not_silent_with_it() {
    let mut proving = Proving::ready();
    detach(&mut proving, "cgroup_mkdir");
    proving.sensor.engine.handle_hooks(at(proving.sensor.now), hooks(&["cgroup_mkdir"]));
    proving.healths();
    proving.sensor.requests();
    // Which cgroup it is that goes is known from its beginning only.
    proving.miss(&[Sign::CgroupMade]);
    let reattached = proving.sensor.requests();
    assert!(!reattached.contains(&Request::Reattach("cgroup_rmdir")), "{reattached:?}");
    assert_eq!(proving.healths(), []);
}

#[test]
fn several_times_of_blindness_end_in_a_record_each() {
    let mut proving = Proving::ready();
    detach(&mut proving, "inet_sock_set_state");
    proving.healths();
    proving.sensor.engine.handle_hooks(at(proving.sensor.now), hooks(&[]));
    let ended = |proving: &mut Proving| -> Vec<_> {
        proving.healths().iter().filter_map(|health| Some(health.blind?.capability)).collect()
    };
    assert_eq!(ended(&mut proving), [], "in its place, and not heard of");
    proving.round(&[]);
    let all = [Capability::Listeners, Capability::Accepts, Capability::Scans, Capability::Connects];
    assert_eq!(ended(&mut proving), all);
}
