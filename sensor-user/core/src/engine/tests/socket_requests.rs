//! Requests on the sockets of runtimes, and the causes that they prove.

use sensor_common::record::{CgroupId, Endpoints, Ring, UNKNOWN_BYTES};

use super::requests::{later, origins, run_container};
use super::{HOST, Sensor, WINDOW_NS, long_id};
use crate::credentials::RuntimeSocket;
use crate::engine::Output;
use crate::fact::{ApiRequest, Fact, FactKind, Origin, OriginClass, Runtime, Verdict};
use crate::ids::FileKey;
use crate::records::{self, Exec, P, v2};

const DOCKER: P = P(4000, "docker");
const SOCKET: u64 = 77;
const SERVER: P = P(4100, "dockerd");

/// A sensor that knows of a socket, which is root's or not.
fn with_socket(is_roots: bool) -> Sensor {
    let mut sensor = Sensor::ready();
    let key = FileKey::from(records::file(SOCKET));
    let path = "/run/docker.sock".into();
    sensor.engine.handle_runtime_sockets(vec![RuntimeSocket {
        key,
        path,
        service: Runtime::Docker,
        is_roots,
    }]);
    for program in [DOCKER, SERVER] {
        let name = format!("/usr/bin/{}", program.1);
        sensor.see(|now| Exec::new(now, program, v2(HOST), &name, &[program.1]).bytes());
    }
    sensor.facts();
    sensor
}

/// A connection of a process.
struct Talk {
    conn: u64,
    client: (P, CgroupId),
    said: [u64; 2],
}

impl Talk {
    fn new(conn: u64) -> Self {
        Self { conn, client: (DOCKER, v2(HOST)), said: [0; 2] }
    }

    fn say(&mut self, sensor: &mut Sensor, to_peer: bool, text: &str) {
        let offset = &mut self.said[usize::from(to_peer)];
        let writer = if to_peer { (SERVER, v2(HOST)) } else { self.client };
        let now = sensor.tick();
        let record =
            records::socket_payload(now, self.conn, writer, SOCKET, to_peer, *offset, text.as_bytes());
        *offset += text.len() as u64;
        sensor.record(Ring::Bulk, &record);
    }

    fn ask(&mut self, sensor: &mut Sensor, method: &str, path: &str, body: &str) {
        let length = body.len();
        self.say(
            sensor,
            false,
            &format!("{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}"),
        );
    }

    fn answer(&mut self, sensor: &mut Sensor, status: &str, body: &str) {
        self.say(sensor, true, &format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    }
}

fn requests(facts: &[Fact]) -> Vec<(&Fact, &ApiRequest)> {
    let mut requests = Vec::new();
    for fact in facts {
        if let FactKind::ApiRequest(api) = &fact.kind {
            requests.push((fact, &**api));
        }
    }
    requests
}

/// The cause of a container that somebody has asked for on a socket.
fn origin_of_made(sensor: &mut Sensor, talk: &mut Talk) -> (Vec<Fact>, Origin) {
    let id = long_id("ab");
    talk.ask(sensor, "POST", "/containers/create", r#"{"Image":"x","Env":["A=secret"]}"#);
    talk.answer(sensor, "201 Created", &format!(r#"{{"Id":"{id}"}}"#));
    run_container(sensor, &id, 100);
    let facts = later(sensor);
    assert!(!format!("{facts:?}").contains("secret"));
    let (_, origin) = origins(&facts).remove(0);
    (facts, origin)
}

#[test]
fn a_request_tells_who_asks_and_proves_what_it_makes() {
    let mut sensor = with_socket(true);
    let (facts, origin) = origin_of_made(&mut sensor, &mut Talk::new(7));
    let [(fact, api)] = requests(&facts)[..] else { panic!("one request: {facts:?}") };
    let socket = api.socket.as_deref().expect("its socket");
    assert_eq!((socket.path.as_deref(), socket.inode), (Some("/run/docker.sock"), SOCKET));
    assert_eq!(fact.process.as_ref().map(|process| process.pid), Some(DOCKER.0));
    assert_eq!((api.status, api.image.as_deref(), &fact.net), (Some(201), Some("x"), &None));
    let expected = Origin::of_conn(OriginClass::Proved, socket.conn.clone(), Some(fact.id.clone()));
    assert_eq!(origin, expected);
}

#[test]
fn where_bytes_were_missed_or_the_socket_is_not_roots_nothing_is_proved() {
    let mut sensor = with_socket(false);
    assert_eq!(origin_of_made(&mut sensor, &mut Talk::new(7)).1.class, OriginClass::Inferred);
    // It was there before the sensor.
    let mut sensor = with_socket(true);
    let mut old = Talk { said: [UNKNOWN_BYTES; 2], ..Talk::new(8) };
    let (facts, origin) = origin_of_made(&mut sensor, &mut old);
    assert_eq!(requests(&facts)[0].1.status, Some(201));
    assert_eq!(origin.class, OriginClass::Inferred);
}

#[test]
fn who_asks_from_a_container_is_named_with_it() {
    let mut sensor = with_socket(true);
    let id = long_id("cd");
    run_container(&mut sensor, &id, 100);
    later(&mut sensor);
    let inside = P(5000, "docker");
    sensor.see(|now| Exec::new(now, inside, v2(100), "/docker", &["docker", "ps"]).bytes());
    let mut talk = Talk { client: (inside, v2(100)), ..Talk::new(7) };
    talk.ask(&mut sensor, "GET", "/v1.41/containers/json", "");
    talk.answer(&mut sensor, "200 OK", "[]");
    let facts = sensor.facts();
    let (fact, api) = requests(&facts)[0];
    assert_eq!(fact.container.as_ref().map(|container| &*container.id), Some(&*id));
    assert_eq!(api.route.as_deref(), Some("/containers/json"));
}

#[test]
fn what_is_not_answered_is_told_when_whoever_asked_exits_or_after_a_minute() {
    let mut sensor = with_socket(true);
    let mut talk = Talk::new(7);
    talk.ask(&mut sensor, "POST", "/containers/x/start", "");
    assert!(requests(&sensor.facts()).is_empty());
    sensor.see(|now| records::exit(now, DOCKER, v2(HOST), 0));
    assert_eq!(requests(&sensor.facts()).len(), 1);

    let mut talk = Talk { client: (P(4001, "docker"), v2(HOST)), ..Talk::new(8) };
    talk.ask(&mut sensor, "POST", "/containers/x/wait", "");
    sensor.pass(40_000_000_000);
    talk.answer(&mut sensor, "200 OK", "{}");
    talk.ask(&mut sensor, "POST", "/containers/x/wait", "");
    assert_eq!(requests(&sensor.facts()).len(), 1, "the one that was answered");
    sensor.pass(40_000_000_000);
    assert!(requests(&sensor.facts()).is_empty(), "it was asked 40 seconds ago");
    sensor.pass(40_000_000_000);
    assert_eq!(requests(&sensor.read_facts()).len(), 1);
    assert_eq!(sensor.engine.requests.sockets.next_due(), None);
}

#[test]
fn who_is_behind_a_forwarder_to_the_socket_is_kept_and_judged() {
    let mut sensor = with_socket(true);
    let behind = |port| records::ends(("10.0.0.1", 9999), ("198.18.0.9", port));
    let connected = |sensor: &mut Sensor, behind: Option<Endpoints>| {
        let now = sensor.tick();
        sensor.record(Ring::Bulk, &records::socket_connect(now, DOCKER, v2(HOST), SOCKET));
        if let Some(behind) = behind {
            sensor.record(Ring::Bulk, &records::hop(now, 0, DOCKER, v2(HOST), behind));
        }
    };
    let ask = |sensor: &mut Sensor, talk: &mut Talk| {
        talk.ask(sensor, "GET", "/containers/json", "");
        talk.answer(sensor, "200 OK", "[]");
    };
    let (mut first, mut second, mut third) = (Talk::new(7), Talk::new(8), Talk::new(9));
    connected(&mut sensor, Some(behind(1)));
    ask(&mut sensor, &mut first);
    connected(&mut sensor, Some(behind(2)));
    ask(&mut sensor, &mut second);
    ask(&mut sensor, &mut first);
    connected(&mut sensor, None);
    ask(&mut sensor, &mut third);
    sensor.pass(WINDOW_NS + 1000);
    let told = sensor.outputs().into_iter().filter_map(|output| match output {
        Output::Fact { fact, verdict, .. } if matches!(fact.kind, FactKind::ApiRequest(_)) => {
            Some((fact.client().map(|client| client.end.port), verdict))
        }
        _ => None,
    });
    let unlisted = Some(Verdict::Unlisted);
    let expected =
        [(Some(1), unlisted.clone()), (Some(2), unlisted.clone()), (Some(1), unlisted), (None, None)];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}
