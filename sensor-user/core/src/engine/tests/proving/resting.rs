//! The programs on packets are in place while there is something for them to see.

use super::*;

const SOCK: u64 = 0xffff_9000;
const LINGER_NS: u64 = 30 * SECOND;
const PACKETS: [&str; 2] = ["packets_in", "packets_out"];
const RESTS: &str = "idle: no management listener is open; the hook is attached when one opens";

/// The hooks as the shell tells them while the programs on packets rest.
fn resting() -> Vec<Hook> {
    let mut hooks = hooks(&[]);
    for hook in hooks.iter_mut().filter(|hook| PACKETS.contains(&&*hook.program)) {
        hook.state = HookState::Standby;
    }
    hooks
}

/// What was asked of the programs on packets since the last call.
fn asked(proving: &mut Proving) -> Vec<bool> {
    let requests = proving.sensor.requests().into_iter();
    let asked = requests.filter_map(|request| match request {
        Request::WatchPackets(wanted) => Some(wanted),
        _ => None,
    });
    asked.collect()
}

fn opened(now: u64, is_open: bool, port: u16) -> Vec<u8> {
    listener(now, is_open, SOCK, DOCKERD, v2(HOST), bound("0.0.0.0", port))
}

/// Ready, and it was looked what listens: nothing.
fn quiet() -> Proving {
    let mut proving = Proving::ready();
    proving.sensor.engine.handle_listeners(at(proving.sensor.now), &[]);
    proving
}

/// The same, after the programs were told to rest and do.
fn idle() -> Proving {
    let mut proving = quiet();
    proving.pass(LINGER_NS + SECOND);
    assert_eq!(asked(&mut proving), [false]);
    proving.sensor.engine.handle_hooks(at(proving.sensor.now), resting());
    proving.healths();
    proving
}

#[test]
fn they_rest_after_a_while_without_a_listener_and_the_coverage_says_so() {
    let mut proving = quiet();
    proving.pass(LINGER_NS - SECOND);
    assert!(asked(&mut proving).is_empty(), "not at once");
    proving.round(&[]);
    proving.pass(2 * SECOND);
    assert_eq!(asked(&mut proving), [false]);
    proving.healths();
    proving.sensor.engine.handle_hooks(at(proving.sensor.now), resting());
    let told = proving.healths();
    assert_eq!((told[0].state, states_of(&told[0])), (HealthState::Running, Vec::new()));
    for capability in [Capability::Requests, Capability::Scans] {
        assert_eq!(entry(&told[0], capability).reason.as_deref(), Some(RESTS));
    }
    for _ in 0..5 {
        proving.round(&[Sign::Request, Sign::Answer]);
        proving.pass(INTERVAL_NS);
    }
    assert_eq!(proving.healths(), [], "they owe no canary meanwhile");
    assert!(asked(&mut proving).is_empty(), "it is asked for once");
}

#[test]
fn a_listener_calls_them_before_its_own_record_is_told_and_what_was_missed_is_said() {
    let mut proving = idle();
    let before = proving.sensor.now;
    proving.sensor.see(|now| opened(now, true, 2375));
    assert_eq!(asked(&mut proving), [true], "without waiting for the merge window");
    let back = proving.sensor.tick();
    proving.sensor.engine.handle_hooks(at(back), hooks(&[]));
    let told = proving.healths();
    let Some(Blind { capability: Capability::Requests, from, to }) = told[0].blind else {
        panic!("{told:#?}")
    };
    assert!(before < from.boot_ns && from.boot_ns < to.boot_ns && to.boot_ns == back, "{from:?} {to:?}");
    assert_eq!((told[0].state, states_of(&told[0])), (HealthState::Running, Vec::new()), "rest is no doubt");
    assert_eq!(entry(&told[0], Capability::Requests).reason, None);
    proving.pass(2 * LINGER_NS);
    assert!(asked(&mut proving).is_empty(), "the listener is still there");

    proving.sensor.see(|now| opened(now, false, 2375));
    proving.pass(LINGER_NS - SECOND);
    assert!(asked(&mut proving).is_empty());
    proving.pass(2 * SECOND);
    assert_eq!(asked(&mut proving), [false], "it is gone for a while");
}

#[test]
fn a_listener_that_comes_while_they_are_told_to_rest_is_not_forgotten() {
    let mut proving = quiet();
    proving.pass(LINGER_NS + SECOND);
    proving.sensor.see(|now| opened(now, true, 2375));
    assert_eq!(asked(&mut proving), [false, true], "in this order");
    proving.sensor.engine.handle_hooks(at(proving.sensor.now), resting());
    let back = at(proving.sensor.tick());
    proving.sensor.engine.handle_hooks(back, hooks(&[]));
    assert!(proving.healths().iter().any(|health| health.blind.is_some()));
}

#[test]
fn what_nobody_watches_does_not_call_them_and_the_canaries_do_not() {
    let mut proving = idle();
    proving.sensor.see(|now| opened(now, true, 12_375));
    proving.round(&[Sign::Request, Sign::Answer]);
    proving.pass(SECOND);
    assert!(asked(&mut proving).is_empty());
}

#[test]
fn a_daemon_on_a_port_of_its_own_calls_them() {
    let mut proving = idle();
    proving.sensor.see(|now| {
        Exec::new(
            now,
            DOCKERD,
            v2(HOST),
            "/usr/bin/dockerd",
            &["dockerd", "-H", "tcp://0.0.0.0:4243", "--tls=false"],
        )
        .bytes()
    });
    proving.sensor.see(|now| opened(now, true, 4243));
    proving.pass(SECOND);
    assert_eq!(asked(&mut proving), [true]);
}

#[test]
fn they_stay_while_it_is_not_known_that_nobody_listens() {
    let mut proving = Proving::ready();
    proving.pass(2 * LINGER_NS);
    assert!(asked(&mut proving).is_empty(), "it was not looked what listens");
    let mut proving = quiet();
    let inbound = ends(("10.0.0.1", 2375), ("198.18.0.9", 1));
    proving.sensor.see(|now| accept(now, 31, v2(HOST), inbound));
    proving.pass(2 * LINGER_NS);
    assert!(asked(&mut proving).is_empty(), "a connection is open");
    proving.sensor.see(|now| close(now, 31, None, v2(HOST), inbound));
    proving.pass(2 * LINGER_NS);
    assert_eq!(asked(&mut proving), [false]);
}

#[test]
fn a_lost_record_of_a_listener_calls_them_and_asks_who_listens() {
    let mut proving = idle();
    let kind = RecordKind::ListenerOpened as usize;
    proving.counters.records[Ring::Management as usize][kind][Fate::Lost as usize] = 1;
    proving.pass(SECOND / 2);
    let requests = proving.sensor.requests();
    assert!(requests.contains(&Request::WatchPackets(true)), "{requests:?}");
    assert!(requests.contains(&Request::RefreshListeners), "{requests:?}");
}

#[test]
fn one_that_cannot_be_attached_again_is_told_by_the_coverage() {
    let mut proving = idle();
    proving.sensor.see(|now| opened(now, true, 2375));
    let refused = at(proving.sensor.tick());
    proving.sensor.engine.handle_hooks(refused, hooks(&PACKETS));
    let told = proving.healths();
    assert_eq!(told[0].blind, None, "it is not over");
    let expected =
        [(Capability::Scans, CoverageState::Degraded), (Capability::Requests, CoverageState::Blind)];
    assert_eq!((told[0].state, states_of(&told[0])), (HealthState::Degraded, expected.into()));
}
