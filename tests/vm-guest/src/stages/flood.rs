//! Many connections of one peer, of which most get no record, and attempts that come to nothing. None is unaccounted for.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpListener};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sensor_tests::record::Record;
use sensor_tests::sensor::{RECORD_TIMEOUT, Sensor};
use sensor_tests::traffic::SynSender;

use super::kinds::Row;
use super::sockets::{DOCKER, UNLISTED, address, connect_between};
use crate::report::Outcome;

pub const ROWS: &[Row] = &[("flood", flood)];
/// What needs version 2 cgroups, at whose root packets are looked at: a scan that completes no connection, and requests on
/// connections that are withheld.
pub const HALF_OPEN: &[Row] = &[("half-open", half_open), ("flood-request", flood_request)];

/// Of no other stage that comes after, like [`DOCKER`]: what is left of its budget is nothing.
const FLOODED: u16 = 2376;
const SCANNED: u16 = 10_250;
/// Longer than the sensor waits between two summaries.
const SUMMARY_INTERVAL: Duration = Duration::from_millis(1500);
/// More than the budget, however slow the machine is.
const CONNECTIONS: u64 = 200;
/// The one among them that brings a request.
const AUTHOR: u64 = 150;
/// Connections beyond the budget with a request: more than the budget bears again in the meantime.
const AUTHORS: usize = 20;
/// Attempts that are never completed.
const ATTEMPTS: u16 = 40;
/// Where they come from: no port that the kernel chooses by itself, because what is left of an earlier connection would
/// answer in the listener's stead.
const FIRST_SOURCE: u16 = 20_000;

fn flood(sensor: &Sensor) -> Result<Outcome> {
    let listener = TcpListener::bind(address(UNLISTED[0], FLOODED)?)?;
    sensor.wait_for_packets(false)?;
    let before = sensor.mark();
    let mut author = None;
    for number in 0..CONNECTIONS {
        let mut client = connect_between(UNLISTED, FLOODED)?;
        let mut server = listener.accept()?;
        if number == AUTHOR {
            const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
            client.write_all(REQUEST)?;
            // It must be there before the connection ends.
            server.0.read_exact(&mut [0; REQUEST.len()])?;
            author = Some(client.local_addr()?.port());
        }
        drop((server, client));
    }
    sensor.wait_after(before, "the accept of the connection with a request", |record| {
        is_accept(record) && record.number("net.peer.port") == author.map(u64::from)
    })?;
    let seen = settled(sensor, before, |seen| seen.accepts + seen.suppressed == CONNECTIONS + seen.resumed);
    ensure!(seen.suppressed > CONNECTIONS / 2, "most of {CONNECTIONS} withheld: {seen:?}");
    ensure!(seen.resumed > 0, "the connection with a request was never withheld: {seen:?}");
    ensure!(seen.accepts + seen.suppressed == CONNECTIONS + seen.resumed, "{CONNECTIONS}, but {seen:?}");
    Ok(Outcome::Seen)
}

fn half_open(sensor: &Sensor) -> Result<Outcome> {
    let _listener = TcpListener::bind(address(UNLISTED[0], SCANNED)?)?;
    sensor.wait_for_packets(false)?;
    let before = sensor.mark();
    let sender = SynSender::new(SocketAddrV4::new(UNLISTED[0].parse()?, SCANNED))?;
    for number in 0..ATTEMPTS {
        sender.send(SocketAddrV4::new(UNLISTED[1].parse()?, FIRST_SOURCE + number), 7)?;
    }
    let seen = settled(sensor, before, |seen| seen.half_open == u64::from(ATTEMPTS));
    ensure!(seen.half_open == u64::from(ATTEMPTS), "{ATTEMPTS} attempts, but {seen:?}");
    Ok(Outcome::Seen)
}

/// Requests of a peer whose budget is spent are read while their connections are open.
fn flood_request(sensor: &Sensor) -> Result<Outcome> {
    const REQUEST: &[u8] = b"GET /info HTTP/1.1\r\nHost: h\r\n\r\n";
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    let listener = TcpListener::bind(address(UNLISTED[0], DOCKER)?)?;
    sensor.wait_for_packets(false)?;
    let before = sensor.mark();
    for _ in 0..AUTHOR {
        drop((connect_between(UNLISTED, DOCKER)?, listener.accept()?));
    }
    let mut open = Vec::with_capacity(AUTHORS);
    for _ in 0..AUTHORS {
        let mut client = connect_between(UNLISTED, DOCKER)?;
        let (mut server, _) = listener.accept()?;
        client.write_all(REQUEST)?;
        server.read_exact(&mut [0; REQUEST.len()])?;
        server.write_all(ANSWER)?;
        client.read_exact(&mut [0; ANSWER.len()])?;
        open.push((client, server));
    }
    let docker = DOCKER.to_string();
    for (client, _) in &open {
        let port = client.local_addr()?.port().to_string();
        let ends = [("net.peer.ip", UNLISTED[1]), ("net.peer.port", &*port), ("net.local.port", &*docker)];
        let request = [("api.route", "/info"), ("api.class", "discovery"), ("api.status", "200")];
        let is_its = |kind: &str, more: &[(&str, &str)]| {
            sensor.wait_after(before, kind, |record| record.is(kind, &ends) && record.is(kind, more))
        };
        let (accept, request) = (is_its("accept", &[])?, is_its("api_request", &request)?);
        ensure!(accept.text("net.conn") == request.text("net.conn"), "{accept}\n{request}");
    }
    sensor.wait_after(before, "that the accepts of some were withheld", |record| {
        is_summary(record, "flood")
            && record.is("scan", &[("net.local.port", &*docker)])
            && record.number("scan.resumed") > Some(0)
    })?;
    Ok(Outcome::Seen)
}

/// What the sensor has said of connections and attempts.
#[derive(Debug)]
struct Seen {
    /// Accepts with a record.
    accepts: u64,
    /// Accepts withheld, by the summaries.
    suppressed: u64,
    /// Of those, how many have a record after all.
    resumed: u64,
    /// Attempts that came to nothing, by the summaries.
    half_open: u64,
}

impl Seen {
    fn since(sensor: &Sensor, mark: usize) -> Self {
        let records = sensor.records();
        let records = &records[mark..];
        let sum = |shape: &str, path: &str| {
            let summaries = records.iter().filter(|record| is_summary(record, shape));
            summaries.filter_map(|record| record.number(path)).sum()
        };
        Self {
            accepts: records.iter().filter(|record| is_accept(record)).count() as u64,
            suppressed: sum("flood", "scan.suppressed"),
            resumed: sum("flood", "scan.resumed"),
            half_open: sum("half-open", "scan.count"),
        }
    }
}

/// What the sensor has said since a mark, once it is as wanted and the next summary could have added to it; or when that
/// takes too long.
fn settled(sensor: &Sensor, mark: usize, is_wanted: impl Fn(&Seen) -> bool) -> Seen {
    let deadline = Instant::now() + RECORD_TIMEOUT;
    while !is_wanted(&Seen::since(sensor, mark)) && Instant::now() < deadline {
        sleep(SUMMARY_INTERVAL / 10);
    }
    sleep(SUMMARY_INTERVAL);
    Seen::since(sensor, mark)
}

fn is_accept(record: &Record) -> bool {
    let port = FLOODED.to_string();
    record.is("accept", &[("net.peer.ip", UNLISTED[1]), ("net.local.port", &port)])
}

fn is_summary(record: &Record, shape: &str) -> bool {
    record.is("scan", &[("scan.shape", shape), ("net.peer.ip", UNLISTED[1])])
}
