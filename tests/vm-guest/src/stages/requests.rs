//! Requests on a plaintext port, and what they prove.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use anyhow::{Result, ensure};
use sensor_tests::record::Record;
use sensor_tests::sensor::Sensor;

use super::CONFIGURATION;
use super::kinds::Row;
use super::sockets::{DOCKER, UNLISTED, UNLISTED_V6, address, connect_between};
use crate::cgroups::Container;
use crate::report::{Outcome, Report};

/// The rows of the stage. Needs version 2 cgroups, at whose root packets are looked at.
pub const ROWS: &[Row] = &[
    ("requests", |sensor| requests(sensor, UNLISTED)),
    ("requests-ipv6", |sensor| requests(sensor, UNLISTED_V6)),
    ("requests-cause", cause),
    ("requests-foreign", foreign),
];

/// Rests and is called back. Has a sensor of its own, which rests soon, and no management listener but its own.
pub fn run_idle(report: &mut Report) -> Result<()> {
    let sensor = Sensor::start(&format!("{CONFIGURATION}coverage: {{rest: 1s}}\n"))?;
    report.row("requests-idle", || idle(&sensor))?;
    sensor.stop().map(drop)
}

const BODY: &str = r#"{"Image":"alpine","Cmd":["id"],"Env":["KEY=secret"],"HostConfig":{"Privileged":true}}"#;

/// The id of the container that is asked for, in short.
const DIGITS: &str = "ca";

/// Both ends of a connection to a daemon that says what the test wants.
struct Dialogue {
    client: TcpStream,
    server: TcpStream,
}

impl Dialogue {
    fn open(sensor: &Sensor, between: [&str; 2]) -> Result<Self> {
        let listener = TcpListener::bind(address(between[0], DOCKER)?)?;
        sensor.wait_for_packets(false)?;
        let client = connect_between(between, DOCKER)?;
        let (server, _) = listener.accept()?;
        // Each write is a segment of its own.
        client.set_nodelay(true)?;
        Ok(Self { client, server })
    }

    /// Asks in pieces of this many bytes.
    fn ask(&mut self, request: impl AsRef<[u8]>, piece: usize) -> Result<()> {
        let request = request.as_ref();
        request.chunks(piece).try_for_each(|piece| self.client.write_all(piece))?;
        self.server.read_exact(&mut vec![0; request.len()])?;
        Ok(())
    }

    fn answer(&mut self, answer: &str) -> Result<()> {
        self.server.write_all(answer.as_bytes())?;
        self.client.read_exact(&mut vec![0; answer.len()])?;
        Ok(())
    }

    /// The record of what was said on this connection.
    fn said(&self, sensor: &Sensor, kind: &str, fields: &[(&str, &str)]) -> Result<Record> {
        let local = self.client.local_addr()?;
        let (ip, port) = (local.ip().to_string(), local.port().to_string());
        let mut all = vec![("net.peer.ip", &*ip), ("net.peer.port", &*port), ("net.service", "docker")];
        all.extend(fields);
        sensor.wait_is(kind, &all)
    }
}

fn create(path: &str) -> String {
    format!(
        "POST {path}?name=x HTTP/1.1\r\nHost: h\r\nUser-Agent: guest/1\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
}

fn created(id: &str) -> String {
    let body = format!(r#"{{"Id":"{id}"}}"#);
    format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn requests(sensor: &Sensor, between: [&str; 2]) -> Result<Outcome> {
    let mut dialogue = Dialogue::open(sensor, between)?;
    dialogue.ask(create("/v1.41/containers/create"), 1)?;
    dialogue.answer("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
    dialogue.ask("GET /info HTTP/1.1\r\nHost: h\r\n\r\n", usize::MAX)?;
    dialogue.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")?;
    let create = dialogue.said(
        sensor,
        "api_request",
        &[
            ("api.method", "POST"),
            ("api.path", "/v1.41/containers/create"),
            ("api.route", "/containers/create"),
            ("api.class", "create"),
            ("api.version", "1.41"),
            ("api.status", "404"),
            ("api.user_agent", "guest/1"),
            ("api.image", "alpine"),
            ("verdict.listed", "false"),
        ],
    )?;
    ensure!(create.at("api.body_flags") == &serde_json::json!(["privileged"]), "{create}");
    let info = [("api.route", "/info"), ("api.class", "discovery"), ("api.status", "200")];
    dialogue.said(sensor, "api_request", &info)?;
    let leak = sensor.records().into_iter().find(|record| record.line.contains("secret"));
    ensure!(leak.is_none(), "an environment value: {leak:?}");
    Ok(Outcome::Seen)
}

fn cause(sensor: &Sensor) -> Result<Outcome> {
    let id = DIGITS.repeat(32);
    let mut dialogue = Dialogue::open(sensor, UNLISTED)?;
    dialogue.ask(create("/containers/create"), usize::MAX)?;
    dialogue.answer(&created(&id))?;
    let request = dialogue.said(sensor, "api_request", &[("api.status", "201")])?;
    let _container = Container::create(DIGITS)?;
    let step = sensor.wait("its creation", |record| record.is_container("created", &id))?;
    let expected = [
        ("origin.class", "proved"),
        ("origin.request", request.text("id")),
        ("origin.conn", request.text("net.conn")),
    ];
    ensure!(step.is("container", &expected), "{step}, by {request}");
    Ok(Outcome::Seen)
}

fn foreign(sensor: &Sensor) -> Result<Outcome> {
    let mut dialogue = Dialogue::open(sensor, UNLISTED)?;
    dialogue.ask(hello("node.example"), usize::MAX)?;
    let said = dialogue.said(sensor, "tls_hello", &[("tls.sni", "node.example")])?;
    ensure!(!said.text("tls.ja4").is_empty(), "{said}");
    Ok(Outcome::Seen)
}

/// A ClientHello (RFC 8446, section 4.1.2) in one record that asks for a host name.
fn hello(name: &str) -> Vec<u8> {
    let vector = |len: usize, body: &[u8]| [&body.len().to_be_bytes()[8 - len..], body].concat();
    // Of type `host_name`, in a list, in an extension of type `server_name`.
    let name = vector(2, &[&[0], &*vector(2, name.as_bytes())].concat());
    let extensions = vector(2, &[&[0, 0], &*vector(2, &name)].concat());
    // Version, random, no session, one cipher suite, no compression.
    let head = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0]].concat();
    let handshake = [&[1], &*vector(3, &[head, extensions].concat())].concat();
    [&[0x16, 3, 1], &*vector(2, &handshake)].concat()
}

/// Without a management listener the programs on packets rest; one calls them, and what it could have missed is said.
fn idle(sensor: &Sensor) -> Result<Outcome> {
    let resting = sensor.wait_for_packets(true)?;
    ensure!(resting.text("health.coverage.requests.state") == "live", "{resting}");
    ensure!(resting.text("health.coverage.requests.reason").starts_with("idle"), "{resting}");

    let before = sensor.mark();
    let mut dialogue = Dialogue::open(sensor, UNLISTED)?;
    let back = sensor.wait_after(before, "hooks that are back", |record| {
        record.is("health", &[("health.blind.capability", "requests")])
    })?;
    ensure!(back.text("health.blind.from") < back.text("health.blind.to"), "{back}");
    dialogue.ask("GET /version HTTP/1.1\r\nHost: h\r\n\r\n", usize::MAX)?;
    dialogue.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")?;
    dialogue.said(sensor, "api_request", &[("api.route", "/version"), ("api.status", "200")])?;
    Ok(Outcome::Seen)
}
