//! Canaries of the optional capabilities: accepting tasks, sockets of runtimes, credential files.

use super::*;
use crate::credentials::{CredentialPlace, PlaceKind, RuntimeSocket};
use crate::event::{Actor, FileOpenEvent, FilePlace};

const SILENT: &str = "the hook is in place and does not report the sensor's own canary";

/// The hooks of a kernel that has none for opens of files: fanotify serves.
fn with_fanotify() -> Vec<Hook> {
    let mut hooks = hooks(&["lsm_file_open"]);
    let name: std::sync::Arc<str> = "fanotify".into();
    hooks.push(Hook { name: name.clone(), program: name, state: HookState::Attached, reason: None });
    hooks
}

fn tell(proving: &mut Proving, kinds: &[PlaceKind]) {
    for kind in kinds {
        let now = proving.sensor.tick();
        let actor = Actor::Pid { pid: OWN.0, started: None };
        let event = FileOpenEvent { actor, place: FilePlace::Own(*kind), path: Box::default() };
        proving.sensor.engine.handle_file_open(now, event);
    }
}

#[test]
fn a_silent_program_is_found_whichever_of_those_that_serve_it_is() {
    for (attached, sign, capability) in [
        ("unix_data_ready", Sign::SocketConnect, Capability::RuntimeSockets),
        ("fentry_unix_requests", Sign::SocketRequest, Capability::SocketRequests),
        ("fentry_file_open", Sign::FileOpen, Capability::CredentialFiles),
        ("accept_task_of_four", Sign::AcceptTask, Capability::AcceptTasks),
    ] {
        let mut proving = Proving::ready();
        let mut changed = hooks(&PROGRAMS[..4]);
        let (name, state) = (attached.into(), HookState::Attached);
        changed.push(Hook { name, program: attached.into(), state, reason: None });
        let now = at(proving.sensor.tick());
        proving.sensor.engine.handle_hooks(now, changed);
        proving.round(&[]);
        proving.sensor.requests();
        proving.healths();
        proving.miss(&[sign]);
        let told = proving.healths().pop().expect("a change");
        let silent = entry(&told, capability);
        assert_eq!(silent.state, CoverageState::Blind, "{attached}: {told:#?}");
        assert!(silent.reason.as_deref().is_some_and(|reason| reason.contains(SILENT)), "{silent:?}");
        let requests = proving.sensor.requests();
        assert!(requests.contains(&Request::Reattach(attached)), "{attached}: {requests:?}");
        // Heard of again, the time of blindness ends and is told.
        proving.round(&[]);
        let told = proving.healths();
        assert_eq!(told[0].blind.map(|blind| blind.capability), Some(capability), "{told:#?}");
    }
}

#[test]
fn fanotify_is_proved_by_all_its_queues_and_by_no_fewer() {
    let mut proving = Proving::ready();
    let now = at(proving.sensor.tick());
    proving.sensor.engine.handle_hooks(now, with_fanotify());
    let round = |proving: &mut Proving, kinds: &[PlaceKind]| {
        proving.notice(CanaryNotice::Begins(Canary::File { place: key(PLACE) }));
        tell(proving, kinds);
        proving.notice(CanaryNotice::Ended);
        proving.pass(2 * SECOND);
    };
    round(&mut proving, &PlaceKind::ALL);
    proving.healths();
    for _ in 0..2 {
        // One that tells twice does not stand in for another.
        round(&mut proving, &[PlaceKind::ALL[0]; PlaceKind::ALL.len()]);
    }
    let blind = proving.healths().pop().expect("a change");
    assert_eq!(entry(&blind, Capability::CredentialFiles).state, CoverageState::Blind);
    assert!(proving.sensor.requests().contains(&Request::Reattach("fanotify")));
    round(&mut proving, &PlaceKind::ALL);
    let told = proving.healths();
    assert_eq!(told[0].blind.map(|blind| blind.capability), Some(Capability::CredentialFiles));
    // None of these opens is anybody's.
    assert_eq!(proving.sensor.facts(), []);
}

#[test]
fn an_open_that_fanotify_lost_is_no_blindness() {
    let mut proving = Proving::ready();
    let now = at(proving.sensor.tick());
    proving.sensor.engine.handle_hooks(now, with_fanotify());
    proving.healths();
    for lost in 1..5 {
        proving.notice(CanaryNotice::Begins(Canary::File { place: key(PLACE) }));
        let losses = crate::health::ShellLosses { file_opens: lost, ..Default::default() };
        proving.sensor.engine.handle_shell_losses(losses);
        proving.notice(CanaryNotice::Ended);
        proving.pass(2 * SECOND);
    }
    let is_blind = |health: &Health| health.coverage.iter().any(|entry| entry.state == CoverageState::Blind);
    assert!(!proving.healths().iter().any(is_blind));
}

#[test]
fn strangers_at_the_files_of_the_canaries_prove_nothing_and_are_not_shown() {
    let mut proving = Proving::ready();
    proving.pass(INTERVAL_NS);
    let all = [Sign::SocketConnect, Sign::SocketRequest, Sign::SocketAnswer, Sign::FileOpen];
    for _ in 0..2 {
        proving.round(&all);
        proving.sensor.see(|now| socket_connect(now, CURL, v2(50), SOCKET));
        proving.sensor.see(|now| socket_payload(now, 11, (CURL, v2(50)), SOCKET, false, 0, b"GET / "));
        proving.sensor.see(|now| file_open(now, CURL, v2(50), PLACE, "/canary"));
        proving.pass(2 * SECOND);
    }
    let (told, shown) = healths_and_facts(&mut proving);
    assert_eq!(shown, 0);
    let blind: Vec<_> = states_of(told.last().expect("a change"));
    let expected = [Capability::RuntimeSockets, Capability::CredentialFiles, Capability::SocketRequests];
    assert!(expected.iter().all(|one| blind.contains(&(*one, CoverageState::Blind))), "{blind:?}");
}

/// Health records, and the number of all others.
fn healths_and_facts(proving: &mut Proving) -> (Vec<Health>, usize) {
    let outputs = proving.sensor.outputs();
    let all = outputs.len();
    let told = healths(outputs);
    let shown = all - told.len();
    (told, shown)
}

#[test]
fn a_socket_of_a_runtime_is_one_whoever_else_has_its_number() {
    let mut proving = Proving::ready();
    let real = RuntimeSocket {
        key: key(SOCKET),
        path: "/run/docker.sock".into(),
        service: Runtime::Docker,
        is_roots: true,
    };
    proving.sensor.engine.handle_runtime_sockets(vec![real]);
    let place = CredentialPlace { key: key(PLACE), kind: PlaceKind::ClusterPki };
    proving.sensor.engine.handle_credential_places(vec![place]);
    proving.sensor.see(|now| socket_connect(now, CURL, v2(50), SOCKET));
    proving.sensor.see(|now| file_open(now, CURL, v2(50), PLACE, "/etc/kubernetes/pki/ca.key"));
    assert_eq!(proving.sensor.facts().len(), 2);
}

#[test]
fn a_connection_that_the_sensor_accepts_of_others_is_not_the_canarys() {
    let mut proving = Proving::ready();
    for _ in 0..2 {
        proving.pass(INTERVAL_NS);
        proving.round(&[Sign::AcceptTask]);
        // A stranger at the port, accepted by the sensor like anybody who comes.
        proving.sensor.see(|now| accept_task(now, 10, OWN, v2(HOST)));
        proving.pass(2 * SECOND);
    }
    let told = proving.healths().pop().expect("a change");
    assert_eq!(entry(&told, Capability::AcceptTasks).state, CoverageState::Blind);
    assert_eq!(proving.sensor.facts(), []);
}

#[test]
fn without_the_accept_its_task_is_not_missed() {
    let mut proving = Proving::ready();
    proving.miss(&[Sign::Accept, Sign::AcceptTask]);
    let told = proving.healths().pop().expect("a change");
    assert_eq!(entry(&told, Capability::Accepts).state, CoverageState::Blind);
    assert_eq!(entry(&told, Capability::AcceptTasks).state, CoverageState::Live);
}
