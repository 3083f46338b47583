//! Requests on plaintext ports, and the causes that they prove.

use sensor_common::record::{CgroupId, Endpoints, Ring};

use super::{CONTAINERD, DOCKERD, HOST, RUNC, SHIM, Sensor, long_id};
use crate::fact::{Fact, FactKind, Origin, OriginClass, Service};
use crate::http::route::ApiClass;
use crate::records::{self, Exec, bound, ends, v2};
use crate::risks::Risks;

mod lives;

/// A connection from a port of a peer.
struct Client {
    conn: u64,
    cgroup: CgroupId,
    ends: Endpoints,
    sent: [u64; 2],
}

impl Client {
    /// Connects to dockerd.
    fn new(sensor: &mut Sensor, conn: u64) -> Self {
        Self::of(sensor, conn, v2(HOST))
    }

    /// Connects to whoever serves in a cgroup.
    fn of(sensor: &mut Sensor, conn: u64, cgroup: CgroupId) -> Self {
        let ends = ends(("10.0.0.1", 2375), ("198.18.0.9", 40_000 + conn as u16));
        sensor.see(|now| records::accept(now, conn, cgroup, ends));
        Self { conn, cgroup, ends, sent: [0; 2] }
    }

    fn say(&mut self, sensor: &mut Sensor, to_peer: bool, text: &str) {
        let offset = &mut self.sent[usize::from(to_peer)];
        let now = sensor.tick();
        let record =
            records::payload(now, self.conn, self.cgroup, self.ends, to_peer, *offset, text.as_bytes());
        *offset += text.len() as u64;
        sensor.record(Ring::Bulk, &record);
    }

    fn ask(&mut self, sensor: &mut Sensor, method: &str, path: &str, body: &str) {
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: h\r\nUser-Agent: Test/1\r\nX-Registry-Auth: c2VjcmV0\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.say(sensor, false, &text);
    }

    fn answer(&mut self, sensor: &mut Sensor, status: &str, body: &str) {
        let text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        self.say(sensor, true, &text);
    }

    fn close(&self, sensor: &mut Sensor) {
        sensor.see(|now| records::close(now, self.conn, None, v2(10), self.ends));
    }
}

/// A sensor that knows who listens.
fn with_dockerd() -> Sensor {
    let mut sensor = Sensor::ready();
    sensor.see(|now| records::listener(now, true, 77, DOCKERD, v2(HOST), bound("0.0.0.0", 2375)));
    sensor.facts();
    sensor
}

/// Docker makes and starts a container that was asked for before.
pub(super) fn run_container(sensor: &mut Sensor, id: &str, cgroup: u64) {
    let path = format!("/system.slice/docker-{id}.scope");
    sensor.see(|now| {
        let args = ["runc", "--root", "/run/docker/runtime-runc/moby", "create", "--bundle", "/b", id];
        Exec { ancestors: &[SHIM, CONTAINERD], ..Exec::new(now, RUNC, v2(10), "/usr/bin/runc", &args) }
            .bytes()
    });
    sensor.see(|now| records::cgroup(now, true, v2(cgroup), RUNC, &path));
}

pub(super) fn origins(facts: &[Fact]) -> Vec<(String, Origin)> {
    let steps = facts.iter().filter_map(|fact| match &fact.kind {
        FactKind::Container { origin, .. } => {
            Some((fact.container.as_ref().expect("its container").id.to_string(), origin.clone()))
        }
        _ => None,
    });
    steps.collect()
}

pub(super) fn later(sensor: &mut Sensor) -> Vec<Fact> {
    let mut facts = sensor.facts();
    sensor.pass(super::HOLD_NS + 1000);
    facts.extend(sensor.read_facts());
    facts
}

#[test]
fn a_request_is_a_record_with_its_answer_and_without_secrets() {
    let mut sensor = with_dockerd();
    let mut client = Client::new(&mut sensor, 1);
    let body = r#"{"Image":"x","Env":["A=secret"],"HostConfig":{"Privileged":true,"Binds":["/:/h"]}}"#;
    client.ask(&mut sensor, "POST", "/v1.41/containers/create?name=secret", body);
    client.answer(&mut sensor, "400 Bad Request", "");
    let facts = sensor.facts();
    let accept = facts.iter().find(|fact| matches!(fact.kind, FactKind::Accept { .. })).expect("an accept");
    let fact = facts.iter().find(|fact| matches!(fact.kind, FactKind::ApiRequest(_))).expect("a request");
    let FactKind::ApiRequest(api) = &fact.kind else { unreachable!("just found") };
    assert_eq!(fact.net, accept.net);
    assert_eq!((api.class, api.status, api.version.as_deref()), (ApiClass::Create, Some(400), Some("1.41")));
    assert_eq!(api.route.as_deref(), Some("/containers/create"));
    assert_eq!(api.user_agent.as_deref(), Some("Test/1"));
    assert_eq!(
        api.body_flags.iter().map(|risk| risk.name()).collect::<Vec<_>>(),
        ["mount:/:rw", "privileged"]
    );
    assert!(!format!("{facts:?}").contains("secret") && !format!("{facts:?}").contains("c2VjcmV0"));
}

#[test]
fn the_answer_to_a_create_request_proves_the_cause() {
    let mut sensor = with_dockerd();
    let ids: Vec<String> = ["ab", "cd", "ef", "01"].map(long_id).into();
    let mut clients: Vec<Client> = (1..=4).map(|conn| Client::new(&mut sensor, conn)).collect();
    // All ask before anyone is answered, and are answered in another order.
    for client in &mut clients {
        client.ask(&mut sensor, "POST", "/containers/create", r#"{"Image":"x"}"#);
    }
    for index in [2, 0, 3, 1] {
        clients[index].answer(&mut sensor, "201 Created", &format!(r#"{{"Id":"{}"}}"#, ids[index]));
    }
    for (index, id) in ids.iter().enumerate().rev() {
        run_container(&mut sensor, id, 100 + index as u64);
    }
    let facts = later(&mut sensor);
    let request_of = |conn: &crate::ids::ConnId| {
        let of_conn = |fact: &&Fact| {
            matches!(fact.kind, FactKind::ApiRequest(_))
                && fact.net.as_ref().and_then(|net| net.conn.as_ref()) == Some(conn)
        };
        facts.iter().find(of_conn).expect("its request")
    };
    let origins = origins(&facts);
    assert_eq!(origins.len(), 4);
    for (id, origin) in origins {
        let index = ids.iter().position(|known| *known == id).expect("one of ours");
        let conn = origin.conn.expect("a connection");
        let request = request_of(&conn);
        assert_eq!(
            request.net.as_ref().and_then(|net| net.peer).expect("a peer").port,
            40_001 + index as u16
        );
        assert_eq!((origin.class, origin.request.as_ref()), (OriginClass::Proved, Some(&request.id)));
    }
}

#[test]
fn a_start_is_of_whoever_asks_for_it() {
    let mut sensor = with_dockerd();
    let id = long_id("ab");
    let mut client = Client::new(&mut sensor, 7);
    client.ask(&mut sensor, "POST", &format!("/containers/{id}/start"), "");
    run_container(&mut sensor, &id, 100);
    client.answer(&mut sensor, "204 No Content", "");
    let facts = later(&mut sensor);
    let (_, origin) = origins(&facts).remove(0);
    assert_eq!(origin.class, OriginClass::Proved);
    let conn = facts[0].net.as_ref().and_then(|net| net.conn.clone());
    assert_eq!(origin.conn, conn);
    // Made by another request, of which nothing was read.
    let other = long_id("cd");
    run_container(&mut sensor, &other, 101);
    assert_eq!(origins(&later(&mut sensor)), [(other, Origin::none())]);
}

#[test]
fn a_rival_whose_answer_was_not_read_is_a_candidate_too() {
    let mut sensor = with_dockerd();
    let id = long_id("ab");
    let mut clients = [1, 2].map(|conn| Client::new(&mut sensor, conn));
    for client in &mut clients {
        client.ask(&mut sensor, "POST", &format!("/containers/{id}/start"), "");
    }
    // It does not wait for the answer; the daemon starts the container all the same.
    clients[0].close(&mut sensor);
    run_container(&mut sensor, &id, 100);
    let (_, origin) = origins(&later(&mut sensor)).remove(0);
    let candidates = [1, 2].map(|number| conn_of(&mut sensor, number));
    assert_eq!((origin.class, origin.conn), (OriginClass::Inferred, None));
    assert_eq!(*origin.candidates, candidates);
}

#[test]
fn a_daemon_in_a_container_is_not_believed() {
    let mut sensor = with_dockerd();
    let (fake, victim) = (long_id("ab"), long_id("cd"));
    run_container(&mut sensor, &fake, 100);
    later(&mut sensor);
    let mut client = Client::of(&mut sensor, 8, v2(100));
    client.ask(&mut sensor, "POST", "/containers/create", r#"{"Image":"x"}"#);
    client.answer(&mut sensor, "201 Created", &format!(r#"{{"Id":"{victim}"}}"#));
    client.ask(&mut sensor, "POST", &format!("/containers/{victim}/start"), "");
    run_container(&mut sensor, &victim, 101);
    let facts = later(&mut sensor);
    assert!(facts.iter().any(|fact| matches!(fact.kind, FactKind::ApiRequest(_))), "told all the same");
    assert_eq!(origins(&facts), [(victim, Origin::none())]);
}

#[test]
fn the_word_of_another_user_proves_nothing() {
    let mut sensor = Sensor::ready();
    // Nobody knows who listens.
    let id = long_id("ab");
    let mut client = Client::new(&mut sensor, 8);
    client.ask(&mut sensor, "POST", "/containers/create", r#"{"Image":"x"}"#);
    client.answer(&mut sensor, "201 Created", &format!(r#"{{"Id":"{id}"}}"#));
    run_container(&mut sensor, &id, 101);
    let (_, origin) = origins(&later(&mut sensor)).remove(0);
    assert_eq!(origin.class, OriginClass::Inferred);
}

#[test]
fn an_exec_is_of_whoever_had_it_made() {
    let mut sensor = with_dockerd();
    let (id, exec) = (long_id("ab"), long_id("cd"));
    run_container(&mut sensor, &id, 100);
    later(&mut sensor);
    let mut client = Client::new(&mut sensor, 3);
    client.ask(&mut sensor, "POST", &format!("/containers/{id}/exec"), r#"{"Cmd":["id"]}"#);
    client.answer(&mut sensor, "201 Created", &format!(r#"{{"Id":"{exec}"}}"#));
    let pid_file = format!("/run/task/moby/{id}/{exec}.pid");
    sensor.see(|now| {
        let args = ["runc", "exec", "--process", "/tmp/p", "--detach", "--pid-file", &pid_file, &id];
        Exec { ancestors: &[SHIM], ..Exec::new(now, RUNC, v2(10), "/usr/bin/runc", &args) }.bytes()
    });
    let facts = later(&mut sensor);
    let request = facts.iter().find(|fact| matches!(fact.kind, FactKind::ApiRequest(_))).expect("a request");
    let (_, origin) = origins(&facts).remove(0);
    assert_eq!((origin.class, &origin.request), (OriginClass::Proved, &Some(request.id.clone())));
    // What amends its record is of the same cause.
    sensor.engine.handle_process_risks(super::at(sensor.now), 1, Some(Risks::default()));
    assert_eq!(origins(&sensor.read_facts()), [(id, origin)]);
}

#[test]
fn what_came_before_the_accept_belongs_to_it() {
    let mut sensor = with_dockerd();
    let ends = ends(("10.0.0.1", 2375), ("198.18.0.9", 40_001));
    let request = b"GET /info HTTP/1.1\r\nHost: h\r\n\r\n";
    let now = sensor.tick();
    sensor.record(Ring::Bulk, &records::payload(now, 0, v2(HOST), ends, false, 0, request));
    sensor.see(|now| records::accept(now, 1, v2(10), ends));
    sensor.see(|now| records::close(now, 1, None, v2(10), ends));
    let kinds: Vec<_> = sensor.facts().into_iter().map(|fact| fact.kind).collect();
    assert!(
        matches!(&kinds[..], [FactKind::Accept { .. }, FactKind::ApiRequest(api), FactKind::Close { .. }]
            if api.route.as_deref() == Some("/info") && api.status.is_none()),
        "{kinds:?}"
    );
}

#[test]
fn half_sent_heads_do_not_push_out_the_requests_of_others() {
    let mut sensor = with_dockerd();
    let mut other = Client::new(&mut sensor, 1);
    other.ask(&mut sensor, "GET", "/info", "");
    let mut slow: Vec<Client> = (2..10_002).map(|conn| Client::new(&mut sensor, conn)).collect();
    for client in &mut slow {
        client.say(&mut sensor, false, "GET /_ping HTTP/1.1\r\nX-Slow: ");
    }
    other.answer(&mut sensor, "200 OK", "{}");
    let answered = |facts: &[Fact]| {
        facts
            .iter()
            .filter(|fact| matches!(&fact.kind, FactKind::ApiRequest(api) if api.status == Some(200)))
            .count()
    };
    assert_eq!(answered(&sensor.facts()), 1);
    for client in &slow {
        client.close(&mut sensor);
    }
    let facts = sensor.facts();
    let told = facts.iter().filter(|fact| matches!(fact.kind, FactKind::ApiRequest(_))).count();
    assert_eq!(told, 10_000);
    assert_eq!(sensor.engine.requests.evicted(), 0);
}

#[test]
fn memory_is_bounded_and_what_goes_is_told() {
    let mut sensor = with_dockerd();
    let head = format!("GET /info HTTP/1.1\r\nX: {}", "x".repeat(4000));
    for conn in 1..=10_000 {
        let mut client = Client::new(&mut sensor, conn);
        client.say(&mut sensor, false, &head);
    }
    let facts = sensor.facts();
    let told = facts.iter().filter(|fact| matches!(fact.kind, FactKind::ApiRequest(_))).count();
    assert!(told > 0 && told as u64 == sensor.engine.requests.evicted(), "{told}");
}

/// What a client says that speaks TLS, as far as it tells that.
const HELLO: &str = "\u{16}\u{3}\u{1}\0\u{4}\u{1}\0\0\0";

/// Clients whose requests cannot be read.
fn with_tls_clients(sensor: &mut Sensor, count: u64) -> Vec<Client> {
    let clients = (1..=count).map(|conn| {
        let mut client = Client::new(sensor, conn);
        client.say(sensor, false, HELLO);
        client
    });
    clients.collect()
}

/// The cause of what happens next: of the container's making and of its start.
fn origins_of(sensor: &mut Sensor, id: &str, cgroup: u64) -> Origin {
    run_container(sensor, id, cgroup);
    let (_, origin) = origins(&later(sensor)).remove(0);
    origin
}

fn conn_of(sensor: &mut Sensor, number: u64) -> crate::ids::ConnId {
    sensor.engine.outbox.conn_id(number)
}

#[test]
fn the_only_client_whose_requests_cannot_be_read_is_inferred() {
    let mut sensor = with_dockerd();
    with_tls_clients(&mut sensor, 1);
    // Whoever said nothing, or what was read, did not ask for it.
    let _silent = Client::new(&mut sensor, 2);
    let mut read = Client::new(&mut sensor, 3);
    read.ask(&mut sensor, "GET", "/info", "");
    read.answer(&mut sensor, "200 OK", "{}");
    let origin = origins_of(&mut sensor, &long_id("ab"), 100);
    let expected = Origin::of_conn(OriginClass::Inferred, conn_of(&mut sensor, 1), None);
    assert_eq!(origin, expected);
}

#[test]
fn of_several_that_cannot_be_read_all_are_named_and_none_is_blamed() {
    let mut sensor = with_dockerd();
    with_tls_clients(&mut sensor, 3);
    let origin = origins_of(&mut sensor, &long_id("ab"), 100);
    let candidates = [1, 2, 3].map(|number| conn_of(&mut sensor, number));
    assert_eq!((origin.class, origin.conn), (OriginClass::Inferred, None));
    assert_eq!(*origin.candidates, candidates);
}

#[test]
fn what_is_proved_goes_before_what_is_inferred() {
    let mut sensor = with_dockerd();
    with_tls_clients(&mut sensor, 2);
    let mut client = Client::new(&mut sensor, 3);
    let id = long_id("ab");
    client.ask(&mut sensor, "POST", "/containers/create", "{}");
    client.answer(&mut sensor, "201 Created", &format!(r#"{{"Id":"{id}"}}"#));
    let origin = origins_of(&mut sensor, &id, 100);
    assert_eq!((origin.class, origin.conn), (OriginClass::Proved, Some(conn_of(&mut sensor, 3))));
}

#[test]
fn a_client_that_has_gone_counts_for_a_while() {
    let mut sensor = with_dockerd();
    let clients = with_tls_clients(&mut sensor, 1);
    clients[0].close(&mut sensor);
    assert_eq!(origins_of(&mut sensor, &long_id("ab"), 100).class, OriginClass::Inferred);
    sensor.pass(11_000_000_000);
    assert_eq!(origins_of(&mut sensor, &long_id("cd"), 101), Origin::none());
}

#[test]
fn a_thread_that_was_lost_makes_a_candidate() {
    let mut sensor = with_dockerd();
    let mut client = Client::new(&mut sensor, 1);
    client.ask(&mut sensor, "GET", "/info", "");
    client.sent[0] += 100_000;
    client.say(&mut sensor, false, "POST /x HTTP/1.1\r\n");
    let origin = origins_of(&mut sensor, &long_id("ab"), 100);
    let expected = Origin::of_conn(OriginClass::Inferred, conn_of(&mut sensor, 1), None);
    assert_eq!(origin, expected);
}

#[test]
fn a_daemon_in_a_container_has_no_candidates_for_the_hosts_containers() {
    let mut sensor = with_dockerd();
    run_container(&mut sensor, &long_id("ab"), 100);
    later(&mut sensor);
    let mut client = Client::of(&mut sensor, 8, v2(100));
    client.say(&mut sensor, false, HELLO);
    assert_eq!(origins_of(&mut sensor, &long_id("cd"), 101), Origin::none());
}

#[test]
fn what_a_daemon_does_by_itself_is_nobodys_old_connections() {
    let mut sensor = with_dockerd();
    let id = long_id("ab");
    run_container(&mut sensor, &id, 100);
    later(&mut sensor);
    with_tls_clients(&mut sensor, 1);
    let health_check = |sensor: &mut Sensor, runc: super::P| {
        sensor.see(|now| {
            let args = ["runc", "exec", "--process", "/tmp/p", "--detach", "--pid-file", "/p", &id];
            Exec { ancestors: &[SHIM], ..Exec::new(now, runc, v2(10), "/usr/bin/runc", &args) }.bytes()
        });
        origins(&later(sensor)).remove(0).1
    };
    assert_eq!(health_check(&mut sensor, RUNC).class, OriginClass::Inferred);
    sensor.pass(11_000_000_000);
    assert_eq!(health_check(&mut sensor, super::P(201, "runc")), Origin::none());
    // Nor is it theirs that what has ended is started again.
    sensor.see(|now| records::cgroup(now, false, v2(100), RUNC, &format!("/system.slice/docker-{id}.scope")));
    later(&mut sensor);
    assert_eq!(origins_of(&mut sensor, &id, 102), Origin::none());
}

#[test]
fn whoever_uses_the_socket_on_the_node_is_the_better_explanation() {
    use crate::credentials::RuntimeSocket;
    use crate::fact::Runtime;
    use crate::ids::FileKey;

    let mut sensor = with_dockerd();
    let key = FileKey { device: 7, inode: 77 };
    let socket =
        RuntimeSocket { key, path: "/run/docker.sock".into(), service: Runtime::Docker, is_roots: true };
    sensor.engine.handle_runtime_sockets(vec![socket]);
    with_tls_clients(&mut sensor, 1);
    sensor.see(|now| records::socket_connect(now, super::CURL, v2(HOST), 77));
    assert_eq!(origins_of(&mut sensor, &long_id("ab"), 100), Origin::none());
    sensor.pass(11_000_000_000);
    assert_eq!(origins_of(&mut sensor, &long_id("cd"), 101).class, OriginClass::Inferred);
}

#[test]
fn what_an_endpoint_is_follows_from_the_service_of_its_port() {
    for (port, path, class) in [
        (2375, "/info", ApiClass::Discovery),
        (10255, "/pods", ApiClass::Discovery),
        (10250, "/exec/ns/pod/c", ApiClass::Exec),
        (6443, "/api/v1/namespaces/a/secrets/b", ApiClass::Credential),
        (6443, "/info", ApiClass::Other),
    ] {
        let mut sensor = Sensor::ready();
        sensor.engine.ports = vec![
            (2375, Service::Docker),
            (6443, Service::KubeApiserver),
            (10250, Service::Kubelet),
            (10255, Service::KubeletReadonly),
        ];
        let ends = ends(("10.0.0.1", port), ("198.18.0.9", 40_001));
        sensor.see(|now| records::accept(now, 1, v2(HOST), ends));
        let mut client = Client { conn: 1, cgroup: v2(HOST), ends, sent: [0; 2] };
        client.ask(&mut sensor, "GET", path, "");
        client.close(&mut sensor);
        let classes: Vec<ApiClass> = (sensor.facts().iter())
            .filter_map(|fact| match &fact.kind {
                FactKind::ApiRequest(api) => Some(api.class),
                _ => None,
            })
            .collect();
        assert_eq!(classes, [class], "{port} {path}");
    }
}
