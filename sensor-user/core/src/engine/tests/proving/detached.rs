//! Hooks that another program detaches.

use super::*;

#[test]
fn a_detached_hook_is_told_attached_again_and_told_again() {
    let mut proving = Proving::ready();
    let now = proving.sensor.tick();
    proving.sensor.engine.handle_detached(at(now), "cgroup_mkdir");
    proving.sensor.engine.handle_detached(at(now), "cgroup_mkdir");
    let told = proving.healths();
    assert_eq!(told.len(), 1, "told once");
    assert_eq!(entry(&told[0], Capability::Containers).state, CoverageState::Blind);
    let hook = told[0].hooks.iter().find(|hook| &*hook.program == "cgroup_mkdir").expect("it is named");
    assert_eq!(
        (hook.state, hook.reason.as_deref()),
        (HookState::Unavailable, Some("detached by another program"))
    );
    assert_eq!(proving.sensor.requests(), [Request::Reattach("cgroup_mkdir")]);

    let later = proving.sensor.tick();
    proving.sensor.engine.handle_hooks(at(later), hooks(&[]));
    let told = proving.healths();
    assert_eq!((told.len(), told[0].state, states_of(&told[0])), (1, HealthState::Running, Vec::new()));
    let blind = Blind { capability: Capability::Containers, from: at(now), to: at(later) };
    assert_eq!(told[0].blind, Some(blind));
    proving.pass(SECOND);
    assert!(proving.is_asked_to_run(), "what is attached anew is tested at once");
}

#[test]
fn a_hook_that_cannot_be_attached_again_is_tried_at_every_round() {
    let mut proving = Proving::ready();
    proving.sensor.engine.handle_detached(at(proving.sensor.now), "cgroup_rmdir");
    proving.sensor.engine.handle_hooks(at(proving.sensor.now), hooks(&["cgroup_rmdir"]));
    let told = proving.healths();
    assert_eq!(
        states_of(told.last().expect("a change")),
        [(Capability::Containers, CoverageState::Degraded)]
    );
    assert_eq!(proving.sensor.requests(), [Request::Reattach("cgroup_rmdir")]);
    for _ in 0..2 {
        // The shell says so as often as it looks.
        proving.sensor.engine.handle_detached(at(proving.sensor.now), "cgroup_rmdir");
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
