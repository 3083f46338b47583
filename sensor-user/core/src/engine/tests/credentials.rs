use super::*;
use crate::credentials::{CredentialPlace, PlaceKind, RuntimeSocket};
use crate::event::{Actor, FileOpenEvent, FilePlace, PROC_TICK_NS};
use crate::fact::{CredentialClass, Enrichment};
use crate::ids::FileKey;
use crate::records::{Exec, cgroup, file_open, fork, socket_connect, v2};

const SOCKET: u64 = 40;
const GONE: u64 = 41;
const VOLUME: u64 = 0;
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// Started in the third hundredth of a second.
const CAT: P = P(30_000, "cat");

fn key(inode: u64) -> FileKey {
    FileKey { device: 7, inode }
}

/// With a container in cgroup 50, docker's socket and a volume of tokens.
fn with_files() -> (Sensor, String) {
    let id = long_id("ab");
    let mut sensor = Sensor::ready();
    sensor.see(|now| cgroup(now, true, v2(50), RUNC, &format!("/docker/{id}")));
    sensor.facts();
    sensor.metadata(&id, "web");
    let socket = RuntimeSocket {
        key: key(SOCKET),
        path: "/run/docker.sock".into(),
        service: Runtime::Docker,
        is_roots: true,
    };
    sensor.engine.handle_runtime_sockets(vec![socket]);
    let place = CredentialPlace { key: key(VOLUME), kind: PlaceKind::PodVolume };
    sensor.engine.handle_credential_places(vec![place]);
    sensor.read_facts();
    (sensor, id)
}

/// An open as fanotify tells it.
fn told(sensor: &mut Sensor, pid: u32, started: Option<u64>) -> Vec<Fact> {
    let now = sensor.tick();
    let place = FilePlace::Kind(PlaceKind::PodVolume);
    let event = FileOpenEvent { actor: Actor::Pid { pid, started }, place, path: TOKEN.as_bytes().into() };
    sensor.engine.handle_file_open(now, event);
    sensor.facts()
}

#[test]
fn a_container_that_uses_the_socket_of_a_runtime_is_told_with_the_daemons_path() {
    let (mut sensor, id) = with_files();
    sensor.see(|now| socket_connect(now, CURL, v2(50), SOCKET));
    sensor.see(|now| socket_connect(now, CURL, v2(50), GONE));
    let facts = sensor.facts();
    let kinds: Vec<_> = facts.iter().map(|fact| &fact.kind).collect();
    let expected = FactKind::SocketConnect {
        path: Some("/run/docker.sock".into()),
        inode: SOCKET,
        service: Some(Runtime::Docker),
    };
    // A socket that was bound anew meanwhile is still one of a runtime.
    let of_gone = FactKind::SocketConnect { path: None, inode: GONE, service: None };
    assert_eq!(kinds, [&expected, &of_gone]);
    assert!(facts.iter().all(|fact| container_id(fact) == Some(&id) && comm(fact) == Some("curl")));
}

#[test]
fn runtimes_of_the_host_keep_to_themselves_and_nobody_else_does() {
    let (mut sensor, id) = with_files();
    sensor.see(|now| socket_connect(now, DOCKERD, v2(HOST), SOCKET));
    sensor.see(|now| file_open(now, DOCKERD, v2(HOST), VOLUME, TOKEN));
    assert!(sensor.facts().is_empty());
    sensor.see(|now| socket_connect(now, P(310, "docker"), v2(HOST), SOCKET));
    // A container can give a program any name.
    sensor.see(|now| socket_connect(now, P(311, "dockerd"), v2(50), SOCKET));
    let facts = sensor.facts();
    let callers: Vec<_> = facts.iter().map(|fact| (comm(fact), container_id(fact))).collect();
    assert_eq!(callers, [(Some("docker"), None), (Some("dockerd"), Some(&*id))]);
}

#[test]
fn a_token_is_told_with_its_reader_and_what_lies_beside_it_is_not() {
    let (mut sensor, id) = with_files();
    sensor.see(|now| file_open(now, CURL, v2(50), VOLUME, TOKEN));
    sensor.see(|now| file_open(now, CURL, v2(50), VOLUME, "/var/run/secrets/ca.crt"));
    sensor.see(|now| file_open(now, CURL, v2(50), GONE, TOKEN));
    let facts = sensor.facts();
    let [fact] = &facts[..] else { panic!("one fact, not {facts:?}") };
    let class = CredentialClass::ServiceAccountToken;
    assert_eq!(fact.kind, FactKind::FileRead { path: Some(TOKEN.into()), class });
    assert_eq!((comm(fact), container_id(fact)), (Some("curl"), Some(&*id)));
}

#[test]
fn a_process_id_is_enough_while_nobody_else_can_have_it() {
    let (mut sensor, id) = with_files();
    sensor.see(|now| Exec::new(now, CURL, v2(50), "/usr/bin/curl", &["curl"]).bytes());
    sensor.see(|now| fork(now, CURL, CAT));
    sensor.facts();
    let started = CAT.start_ns() / PROC_TICK_NS;
    for (started, enrichment, known) in [
        (Some(started), Enrichment::Ok, true),
        (None, Enrichment::Partial, true),
        (Some(started + 1), Enrichment::None, false),
    ] {
        let facts = told(&mut sensor, CAT.0, started);
        let [fact] = &facts[..] else { panic!("one fact, not {facts:?}") };
        assert_eq!(fact.quality.enrichment, enrichment, "{started:?}");
        assert_eq!(fact.process.as_ref().map(|process| process.pid), known.then_some(CAT.0));
        assert_eq!(container_id(fact), known.then_some(&*id));
    }
    let facts = told(&mut sensor, 31_000, None);
    assert_eq!((facts.len(), facts[0].quality.enrichment), (1, Enrichment::None));
}

#[test]
fn who_opened_by_process_id_follows_the_rule_for_runtimes() {
    let (mut sensor, _) = with_files();
    let started = DOCKERD.start_ns() / PROC_TICK_NS;
    assert!(told(&mut sensor, DOCKERD.0, Some(started)).is_empty());
}
