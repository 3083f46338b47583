//! Rings that are far too small: what is lost is counted and said.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sensor_tests::record::Record;
use sensor_tests::sensor::Sensor;

use super::CONFIGURATION;
use crate::report::{Outcome, Report};

const PORT: u16 = 10_250;
/// Far more than fit into the smallest ring.
const CONNECTIONS: u64 = 200;

/// Runs the stage.
pub fn run(report: &mut Report) -> Result<()> {
    report.row("loss", loss)?;
    Ok(())
}

fn loss() -> Result<Outcome> {
    let sensor = Sensor::start(&format!("{CONFIGURATION}rings: {{management: 4KiB, bulk: 4KiB}}\n"))?;
    let process = Pid::from_raw(sensor.id().cast_signed()).context("no process id")?;
    // A reader that does not run is the worst case of a slow one.
    kill_process(process, Signal::STOP)?;
    let connected = connect_often();
    kill_process(process, Signal::CONT)?;
    connected?;
    let report = sensor.wait("a health record with loss", |record| {
        record.is("health", &[("health.state", "degraded")]) && lost(record) > 0
    })?;
    // The harness checks the balance; here it must have something to say.
    let recording = sensor.stop()?;
    let last = recording.last();
    ensure!(lost(last) >= lost(&report), "the totals have less than one report:\n{report}\n{last}");
    // On both rings: what flood control can neither report within the budgets nor mark is on the other one.
    let balance = last.list("health.balance").iter().filter(|entry| entry["kind"] == "accept");
    let count = |fate: &str| -> u64 { balance.clone().filter_map(|entry| entry[fate].as_u64()).sum() };
    // The sensor connects to itself now and then; that is counted and not written.
    ensure!(count("produced") >= CONNECTIONS, "there were {CONNECTIONS} connections: {last}");
    ensure!(count("lost") > 0, "{last}");
    let written = recording.of_kind("accept").count() as u64;
    let unwritten = CONNECTIONS - written;
    ensure!(count("received") >= written, "{written} accepts were written: {last}");
    ensure!(count("lost") + count("suppressed") >= unwritten, "{unwritten} are unaccounted for: {last}");
    Ok(Outcome::Seen)
}

/// Records that found no room in their ring, as a health record tells it.
fn lost(record: &Record) -> u64 {
    let of_rings = record.list("health.loss").iter().filter(|entry| entry["ring"].is_string());
    of_rings.filter_map(|entry| entry["lost"].as_u64()).sum()
}

fn connect_often() -> Result<()> {
    let server = SocketAddr::from((Ipv4Addr::new(198, 18, 0, 1), PORT));
    let listener = TcpListener::bind(server)?;
    for _ in 0..CONNECTIONS {
        let client = TcpStream::connect(server)?;
        drop(listener.accept()?);
        drop(client);
    }
    Ok(())
}
