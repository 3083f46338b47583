//! Loss is reported, and everything is accounted for.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::netns::NODE_OUTSIDE;
use sensor_tests::record::Record;
use sensor_tests::sensor::Sensor;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("loss_in_tiny_rings_is_reported_within_a_second_and_balances", tiny_rings),
    ("lines_that_a_slow_reader_misses_are_reported", slow_reader),
    ("nothing_is_lost_under_an_ordinary_burst", ordinary_burst),
];

const PORT: u16 = 10250;

/// Connects and closes, one connection after the other, and returns how many there were.
fn connections(lab: &Lab, count: usize) -> Result<()> {
    let listener = lab.network.node.within(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
    let server = SocketAddr::new(NODE_OUTSIDE.parse()?, PORT);
    lab.network.client.within(|| {
        for _ in 0..count {
            let client = TcpStream::connect_timeout(&server, Duration::from_secs(5))?;
            drop(listener.accept()?);
            drop(client);
        }
        Ok(())
    })
}

/// Records lost in the kernel that a health record reports.
fn lost(record: &Record) -> u64 {
    record.list("health.loss").iter().filter_map(|entry| entry["lost"].as_u64()).sum()
}

fn tiny_rings(lab: &Lab) -> Result<()> {
    /// Far more than fits into the smallest ring.
    const CONNECTIONS: usize = 400;
    let sensor = Sensor::start(&format!("{CONFIGURATION}rings: {{management: 4KiB, bulk: 4KiB}}\n"))?;
    let before = sensor.mark();
    // A reader that does not run is the worst case of a slow one.
    let process = rustix::process::Pid::from_raw(sensor.id().cast_signed()).context("no process id")?;
    rustix::process::kill_process(process, Signal::STOP)?;
    let made = connections(lab, CONNECTIONS);
    rustix::process::kill_process(process, Signal::CONT)?;
    let resumed = Instant::now();
    made?;
    let report = sensor.wait_after(before, "a health record with loss", |record| {
        record.is("health", &[("health.state", "degraded")]) && lost(record) > 0
    })?;
    ensure!(resumed.elapsed() < Duration::from_secs(1), "the report took {:?}", resumed.elapsed());
    let entry = &report.list("health.loss")[0];
    ensure!(entry["ring"] == "management", "connections are on the management ring: {report}");

    // The harness has checked the balance of every ring and kind; here it must have something to say.
    let recording = sensor.stop()?;
    let last = recording.last();
    ensure!(lost(last) >= lost(&report), "the totals have less than one report:\n{report}\n{last}");
    let accepts = last
        .list("health.balance")
        .iter()
        .find(|entry| entry["kind"] == "accept")
        .with_context(|| format!("no balance of accepts: {last}"))?;
    ensure!(accepts["produced"].as_u64() >= Some(CONNECTIONS as u64), "{accepts}");
    ensure!(accepts["lost"].as_u64() > Some(0), "{accepts}");
    let seen = recording.of_kind("accept").count() as u64;
    let shown = accepts["received"].as_u64().map(|all| all - accepts["canaries"].as_u64().unwrap_or(0));
    ensure!(shown == Some(seen), "{seen} accepts were written: {accepts}");
    Ok(())
}

fn slow_reader(lab: &Lab) -> Result<()> {
    /// Each gives two lines of several hundred bytes; the queue for a slow reader has 16 MiB.
    const CONNECTIONS: usize = 20_000;
    // Each of them is to be reported.
    let all = "flood: {burst: 100000, per_second: 100000}\n";
    let sensor = Sensor::start(&format!("{CONFIGURATION}{all}"))?;
    sensor.pause_reading(true);
    connections(lab, CONNECTIONS)?;
    sensor.pause_reading(false);
    let report = sensor.wait("a health record with lost output", |record| {
        record.list("health.loss").iter().any(|loss| loss["kind"] == "output")
    })?;
    ensure!(report.is("health", &[("health.state", "degraded")]), "{report}");
    // That the sequence lacks as many records as the totals say, the harness checks.
    let recording = sensor.stop()?;
    ensure!(recording.shed() > 0, "the totals lack what was reported:\n{report}\n{}", recording.last());
    let kernel = recording.last().list("health.loss").iter().filter(|loss| !loss["ring"].is_null()).count();
    ensure!(kernel == 0, "a slow reader must not cost records of the kernel: {}", recording.last());
    Ok(())
}

fn ordinary_burst(lab: &Lab) -> Result<()> {
    /// Fewer than flood control would withhold.
    const CONNECTIONS: usize = 60;
    let sensor = Sensor::start(CONFIGURATION)?;
    connections(lab, CONNECTIONS)?;
    let of_port = |record: &Record, kind: &str| record.is(kind, &[("net.local.port", "10250")]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while sensor.records().iter().filter(|record| of_port(record, "close")).count() < CONNECTIONS {
        ensure!(Instant::now() < deadline, "not all connections were reported as closed");
        std::thread::sleep(Duration::from_millis(20));
    }
    let recording = sensor.stop()?;
    ensure!(lost(recording.last()) == 0, "{}", recording.last());
    for kind in ["accept", "close"] {
        let count = recording.records.iter().filter(|record| of_port(record, kind)).count();
        ensure!(count == CONNECTIONS, "{count} {kind} records of {CONNECTIONS} connections");
    }
    Ok(())
}
