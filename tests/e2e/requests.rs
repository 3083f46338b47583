//! Requests to the Docker API: each is a record, and proves the cause of what it makes.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sensor_tests::dockerd::{Dockerd, IMAGE, PORT, remote};
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::netns::{CLIENT_OUTSIDE, NODE_INSIDE, NODE_OUTSIDE};
use sensor_tests::process::run;
use sensor_tests::record::Record;
use sensor_tests::sensor::{Recording, Sensor};

use crate::Test;

pub const TESTS: &[Test] = &[
    ("docker_requests_are_records_with_route_class_status_and_client", docker_requests),
    ("a_volume_of_the_hosts_tree_is_told_where_it_is_made_and_where_it_is_mounted", volume),
    ("the_cause_of_a_container_and_of_an_exec_is_proved", proved),
    ("eight_clients_at_once_are_told_apart", eight_clients),
    ("neither_many_requests_nor_small_segments_hide_a_cause", hidden),
    ("other_protocols_on_a_plaintext_port_are_said", other_protocols),
    ("what_a_daemon_is_asked_on_a_port_of_its_own_is_read", other_port),
    ("ten_thousand_half_sent_heads_hide_nobody_elses_requests", half_sent),
];

/// Longest wait for an answer of dockerd.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Requests on one connection before the one that counts.
const MANY: usize = 300;
/// Connections on which a head begins and does not end.
const HALF_SENT: usize = 10_000;

fn docker_requests(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let docker = |arguments: &[&str]| remote(&lab.network, NODE_OUTSIDE, arguments);
    docker(&[
        "run",
        "--detach",
        "--name",
        "asked",
        "--security-opt",
        "seccomp=unconfined",
        "--pid",
        "host",
        "--volume",
        "/:/host",
        "--env",
        "TOKEN=secret-value",
        IMAGE,
        "/bin/sleep",
        "600",
    ])?;
    docker(&["ps"])?;
    docker(&["inspect", "asked"])?;
    docker(&["rm", "--force", "asked"])?;
    sensor.wait("the removal", |record| is_request(record, "/containers/{id}", "destructive", "204"))?;
    let recording = sensor.stop()?;
    let expected = [
        ("/_ping", "probe", "200"),
        ("/containers/create", "create", "201"),
        ("/containers/{id}/start", "start", "204"),
        ("/containers/json", "discovery", "200"),
        ("/containers/{id}/json", "discovery", "200"),
        ("/containers/{id}", "destructive", "204"),
    ];
    for (route, class, status) in expected {
        let request = find(&recording, |record| is_request(record, route, class, status))
            .with_context(|| format!("no {class} request {route} with {status}"))?;
        ensure!(request.text("api.user_agent").starts_with("Docker-Client/"), "{request}");
        let fields =
            [("net.peer.ip", CLIENT_OUTSIDE), ("process.comm", "dockerd"), ("verdict.listed", "false")];
        ensure!(request.is("api_request", &fields), "{request}");
        let accept =
            find(&recording, |record| record.is("accept", &[("net.conn", request.text("net.conn"))]));
        ensure!(accept.is_some(), "no accept of its connection: {request}");
    }
    let create = find(&recording, |record| is_request(record, "/containers/create", "create", "201"));
    let create = create.context("just found")?;
    let flags = create.list("api.body_flags");
    for flag in ["seccomp-off", "host-pid", "mount:/:rw"] {
        ensure!(flags.iter().any(|found| found == flag), "no {flag}: {create}");
    }
    ensure!(create.text("api.image") == IMAGE, "{create}");
    ensure!(create.at("api.command") == &serde_json::json!(["/bin/sleep", "600"]), "{create}");
    ensure!(!create.text("api.version").is_empty(), "{create}");
    let leak = recording.of_kind("api_request").find(|record| record.line.contains("secret-value"));
    ensure!(leak.is_none(), "an environment value: {leak:?}");
    Ok(())
}

fn volume(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let docker = |arguments: &[&str]| remote(&lab.network, NODE_OUTSIDE, arguments);
    docker(&[
        "volume",
        "create",
        "--opt",
        "type=none",
        "--opt",
        "o=bind",
        "--opt",
        "device=/etc",
        "backdoor",
    ])?;
    let made = sensor.wait("the volume", |record| is_request(record, "/volumes/create", "other", "201"))?;
    ensure!(made.at("api.body_flags") == &serde_json::json!(["mount:/etc:rw"]), "{made}");
    let id = docker(&["run", "--detach", "--rm", "--volume", "backdoor:/x", IMAGE, "/bin/sleep", "600"])?;
    let created = sensor.wait_container("created", &id)?;
    docker(&["rm", "--force", &id])?;
    docker(&["volume", "rm", "--force", "backdoor"])?;
    ensure!(created.at("container.risks") == &serde_json::json!(["mount:/etc:rw"]), "{created}");
    sensor.stop().map(drop)
}

fn is_request(record: &Record, route: &str, class: &str, status: &str) -> bool {
    record.is("api_request", &[("api.route", route), ("api.class", class), ("api.status", status)])
}

fn find(recording: &Recording, is_wanted: impl Fn(&Record) -> bool) -> Option<&Record> {
    recording.records.iter().find(|record| is_wanted(record))
}

/// The request that a container's step names as its cause, which must be proved and of the connection it names.
fn cause<'a>(recording: &'a Recording, step: &Record) -> Result<&'a Record> {
    ensure!(step.text("origin.class") == "proved", "not proved: {step}");
    let cause = find(recording, |record| record.text("id") == step.text("origin.request"));
    let cause = cause.with_context(|| format!("no such request: {step}"))?;
    ensure!(cause.text("net.conn") == step.text("origin.conn"), "two connections:\n{step}\n{cause}");
    Ok(cause)
}

fn step<'a>(recording: &'a Recording, action: &str, id: &str) -> Result<&'a Record> {
    find(recording, |record| record.is_container(action, id))
        .with_context(|| format!("{id} was not {action}"))
}

fn proved(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let id = remote(
        &lab.network,
        NODE_OUTSIDE,
        &["run", "--detach", "--name", "caused", IMAGE, "/bin/sleep", "600"],
    )?;
    remote(&lab.network, NODE_OUTSIDE, &["exec", "caused", "/bin/echo", "x"])?;
    remote(&lab.network, NODE_OUTSIDE, &["rm", "--force", "caused"])?;
    let local = lab.dockerd.docker(&["run", "--detach", "--name", "local", IMAGE, "/bin/sleep", "600"])?;
    sensor.wait("the exec", |record| record.is_container("exec", &id))?;
    sensor.wait("the other container", |record| record.is_container("started", &local))?;
    sensor.wait("its removal", |record| record.is_container("removed", &id))?;
    let recording = sensor.stop()?;
    let made = step(&recording, "created", &id)?;
    let created = cause(&recording, made)?;
    ensure!(is_request(created, "/containers/create", "create", "201"), "{created}");
    for action in ["stopped", "removed"] {
        let end = step(&recording, action, &id)?;
        ensure!(end.at("origin") == made.at("origin"), "the end is of another cause: {end}\n{made}");
    }
    // The client starts it on another connection, where the answer comes when it is running.
    let started = step(&recording, "started", &id)?;
    let start = find(&recording, |record| is_request(record, "/containers/{id}/start", "start", "204"));
    let conn = start.context("no start")?.text("net.conn");
    ensure!(started.is("container", &[("origin.class", "proved"), ("origin.conn", conn)]), "{started}");
    for action in ["created", "started"] {
        // Asked for over the unix socket, where nothing is read.
        let other = step(&recording, action, &local)?;
        ensure!(other.is("container", &[("origin.class", "none")]), "{other}");
    }
    let cause = cause(&recording, step(&recording, "exec", &id)?)?;
    ensure!(is_request(cause, "/containers/{id}/exec", "exec", "201"), "{cause}");
    Ok(())
}

fn eight_clients(lab: &Lab) -> Result<()> {
    /// Containers that each client makes, one after the other.
    const ROUNDS: usize = 3;
    let sensor = Sensor::start(CONFIGURATION)?;
    let run = |client: usize, round: usize| {
        let seconds = format!("{}", 600 + client * 10 + round);
        remote(&lab.network, NODE_OUTSIDE, &["run", "--detach", IMAGE, "/bin/sleep", &seconds])
            .map(|id| (id, seconds))
    };
    let made = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|client| {
                scope.spawn(move || (0..ROUNDS).map(|round| run(client, round)).collect::<Result<Vec<_>>>())
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().expect("a client panicked"))
            .collect::<Result<Vec<_>>>()
    })?;
    let made = made.concat();
    for (id, _) in &made {
        sensor.wait("its start", |record| record.is_container("started", id))?;
    }
    let recording = sensor.stop()?;
    for (id, seconds) in &made {
        let cause = cause(&recording, step(&recording, "created", id)?)?;
        let command = cause.at("api.command");
        ensure!(
            *command == serde_json::json!(["/bin/sleep", seconds]),
            "{id} is of sleep {seconds}: {cause}"
        );
        let started = step(&recording, "started", id)?;
        let path = format!("/{id}/start");
        let start =
            find(&recording, |record| record.text("api.path").ends_with(&path)).context("no start")?;
        let expected = [("origin.class", "proved"), ("origin.conn", start.text("net.conn"))];
        ensure!(started.is("container", &expected), "{started}\n{start}");
    }
    Ok(())
}

/// A connection to the API, without Docker's client.
struct Raw(TcpStream);

impl Raw {
    fn connect(lab: &Lab) -> Result<Self> {
        let address = SocketAddr::new(NODE_OUTSIDE.parse::<IpAddr>()?, PORT);
        let stream = lab.network.client.within(|| {
            let stream = TcpStream::connect(address)?;
            // Each write is a segment of its own.
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            Ok(stream)
        })?;
        Ok(Self(stream))
    }

    /// Writes in pieces of this many bytes.
    fn send(&mut self, text: &str, piece: usize) -> Result<()> {
        text.as_bytes().chunks(piece).try_for_each(|piece| self.0.write_all(piece))?;
        Ok(())
    }

    /// Reads until the body of known length has come; returns it.
    fn receive(&mut self) -> Result<String> {
        let mut answer = String::new();
        let mut buffer = [0; 4096];
        loop {
            let count = self.0.read(&mut buffer)?;
            ensure!(count > 0, "closed after {answer}");
            answer.push_str(std::str::from_utf8(&buffer[..count])?);
            let Some((head, body)) = answer.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            if length.map_or(Ok(0), str::parse)? <= body.len() {
                return Ok(body.to_owned());
            }
        }
    }
}

fn hidden(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let mut raw = Raw::connect(lab)?;
    for _ in 0..MANY {
        raw.send("GET /_ping HTTP/1.1\r\nHost: h\r\n\r\n", usize::MAX)?;
        raw.receive()?;
    }
    let body = format!(
        "{{\"Labels\":{{\"x\":\"{}\"}},\"Image\":\"{IMAGE}\",\"Cmd\":[\"/bin/sleep\",\"600\"]}}",
        "x".repeat(1500)
    );
    let request = format!(
        "POST /v1.41/containers/%63reate HTTP/1.1\r\nHost: h\r\nX-Padding: {}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        "x".repeat(1000),
        body.len()
    );
    raw.send(&request, 1)?;
    let answer: serde_json::Value = serde_json::from_str(&raw.receive()?)?;
    let id = answer["Id"].as_str().context("no id")?.to_owned();
    raw.send(&format!("POST /containers/{id}/start HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"), 7)?;
    sensor.wait("its start", |record| record.is_container("started", &id))?;
    drop(raw);
    let recording = sensor.stop()?;
    let cause = cause(&recording, step(&recording, "created", &id)?)?;
    ensure!(is_request(cause, "/containers/create", "create", "201"), "{cause}");
    let conn = cause.text("net.conn");
    let pings = recording
        .of_kind("api_request")
        .filter(|record| record.text("net.conn") == conn && is_request(record, "/_ping", "probe", "200"));
    ensure!(pings.count() == MANY, "not {MANY} requests before it");
    Ok(())
}

fn other_port(lab: &Lab) -> Result<()> {
    const OTHER: u16 = 4243;
    let endpoint = format!("tcp://{NODE_OUTSIDE}:{OTHER}");
    let directory = lab.directory().join("docker-other");
    let hosts = std::slice::from_ref(&endpoint);
    let _dockerd = Dockerd::start_bare(&lab.network.node, directory, hosts)?;
    let sensor = Sensor::start(CONFIGURATION)?;
    run(lab.network.client.command("docker").args(["--host", &endpoint, "ps"]))?;
    let request = sensor.wait("the request", |record| {
        is_request(record, "/containers/json", "discovery", "200")
            && record.number("net.local.port") == Some(OTHER.into())
    })?;
    ensure!(request.is("api_request", &[("net.service", "docker"), ("net.peer.ip", CLIENT_OUTSIDE)]));
    sensor.stop().map(drop)
}

fn half_sent(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let address = SocketAddr::new(NODE_OUTSIDE.parse::<IpAddr>()?, PORT);
    let slow = lab.network.client.within(|| {
        let begin = |_| {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(b"GET /_ping HTTP/1.1\r\nX-Slow: ")?;
            Ok(stream)
        };
        (0..HALF_SENT).map(begin).collect::<io::Result<Vec<_>>>()
    })?;
    // From another address, while all of them wait.
    let id = remote(&lab.network, NODE_INSIDE, &["run", "--detach", IMAGE, "/bin/sleep", "600"])?;
    sensor.wait("its start", |record| record.is_container("started", &id))?;
    drop(slow);
    let recording = sensor.stop()?;
    let created = cause(&recording, step(&recording, "created", &id)?)?;
    ensure!(is_request(created, "/containers/create", "create", "201"), "{created}");
    let given_up = recording.last().list("health.loss").iter().find(|entry| entry["kind"] == "requests");
    ensure!(given_up.is_none(), "connections were given up: {given_up:?}");
    let is_slow = |record: &&Record| {
        record.is("api_request", &[("api.path", "/_ping"), ("net.peer.ip", CLIENT_OUTSIDE)])
    };
    let told = recording.records.iter().filter(is_slow).count() as u64;
    // They end all at once: what the reader of the output is too slow for is counted.
    let shed = recording.shed();
    ensure!(told + shed >= HALF_SENT as u64, "{told} of {HALF_SENT} half-sent requests, {shed} lines shed");
    Ok(())
}

fn other_protocols(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    for (bytes, protocol) in [("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2"), ("\0\0\n\n", "unknown")] {
        let mut raw = Raw::connect(lab)?;
        raw.send(bytes, usize::MAX)?;
        let said = sensor
            .wait("what it speaks", |record| record.is("api_request", &[("api.protocol", protocol)]))?;
        ensure!(said.at("api.method").is_null() && said.text("net.peer.ip") == CLIENT_OUTSIDE, "{said}");
    }
    sensor.stop().map(drop)
}
