//! Many connections of one peer, of which most get no record, and attempts that come to nothing. None is unaccounted for.

use std::io::Write as _;
use std::net::{SocketAddrV4, TcpListener};

use anyhow::{Result, ensure};
use sensor_tests::record::Record;
use sensor_tests::sensor::{Recording, Sensor};
use sensor_tests::traffic::SynSender;

use super::CONFIGURATION;
use super::sockets::{UNLISTED, address, connect_between};
use crate::report::{Outcome, Report};

const PORT: u16 = 10_250;
/// However slow the machine is, most connections are beyond this.
const LIMITS: &str = "flood: {burst: 4, per_second: 1}\n";
const CONNECTIONS: u64 = 200;
/// The one among them that brings a request.
const AUTHOR: u64 = 150;
/// Attempts that are never completed.
const ATTEMPTS: u16 = 40;
/// Where they come from: no port that the kernel chooses by itself, because what is left of an earlier connection would
/// answer in the listener's stead.
const FIRST_SOURCE: u16 = 20_000;

/// A flood of connections.
pub fn run(report: &mut Report) -> Result<()> {
    report.row("flood", flood)?;
    Ok(())
}

/// A scan that completes no connection. Needs version 2 cgroups, at whose root packets are looked at.
pub fn run_half_open(report: &mut Report) -> Result<()> {
    report.row("half-open", half_open)?;
    Ok(())
}

fn flood() -> Result<Outcome> {
    let listener = TcpListener::bind(address(UNLISTED[0], PORT)?)?;
    let sensor = Sensor::start(&format!("{CONFIGURATION}{LIMITS}"))?;
    let mut author = None;
    for number in 0..CONNECTIONS {
        let mut client = connect_between(UNLISTED, PORT)?;
        let server = listener.accept()?;
        if number == AUTHOR {
            client.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
            author = Some(client.local_addr()?.port());
        }
        drop((server, client));
    }
    let is_author = |record: &Record| {
        record.is("accept", &[("net.peer.ip", UNLISTED[1])])
            && record.number("net.peer.port") == author.map(u64::from)
    };
    sensor.wait("the accept of the connection with a request", is_author)?;
    sensor.wait("the summary of the flood", |record| is_summary(record, "flood"))?;
    let recording = sensor.stop()?;
    let is_accept = |record: &&Record| record.is("accept", &[("net.peer.ip", UNLISTED[1])]);
    let accepts = recording.records.iter().filter(is_accept).count() as u64;
    let [suppressed, resumed] =
        ["scan.suppressed", "scan.resumed"].map(|path| sum(&recording, "flood", path));
    ensure!(suppressed > CONNECTIONS / 2, "{suppressed} of {CONNECTIONS} withheld, {accepts} accepts");
    ensure!(resumed > 0, "the connection with a request was never withheld");
    ensure!(
        accepts + suppressed == CONNECTIONS + resumed,
        "{CONNECTIONS} connections, but {accepts} accepts, {suppressed} withheld, {resumed} reported after all"
    );
    Ok(Outcome::Seen)
}

fn half_open() -> Result<Outcome> {
    let _listener = TcpListener::bind(address(UNLISTED[0], PORT)?)?;
    let sensor = Sensor::start(CONFIGURATION)?;
    let sender = SynSender::new(SocketAddrV4::new(UNLISTED[0].parse()?, PORT))?;
    for number in 0..ATTEMPTS {
        sender.send(SocketAddrV4::new(UNLISTED[1].parse()?, FIRST_SOURCE + number), 7)?;
    }
    sensor.wait("the summary of the scan", |record| is_summary(record, "half-open"))?;
    let recording = sensor.stop()?;
    let count = sum(&recording, "half-open", "scan.count");
    ensure!(count == u64::from(ATTEMPTS), "{count} attempts, not {ATTEMPTS}");
    Ok(Outcome::Seen)
}

fn is_summary(record: &Record, shape: &str) -> bool {
    record.is("scan", &[("scan.shape", shape), ("net.peer.ip", UNLISTED[1])])
}

fn sum(recording: &Recording, shape: &str, path: &str) -> u64 {
    let summaries = recording.records.iter().filter(|record| is_summary(record, shape));
    summaries.filter_map(|record| record.number(path)).sum()
}
