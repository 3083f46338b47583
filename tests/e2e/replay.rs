//! A recorded run, judged again.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use sensor_tests::dockerd::{IMAGE, remote};
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::netns::{CLIENT_INSIDE, CLIENT_OUTSIDE, NODE_INSIDE, NODE_OUTSIDE};
use sensor_tests::process::run;
use sensor_tests::record::Record;
use sensor_tests::sensor::{self, Sensor};

use crate::Test;

pub const TESTS: &[Test] = &[
    ("replay_of_a_run_gives_the_same_facts_and_verdicts", same_facts),
    ("replay_judges_by_todays_configuration", other_configuration),
];

/// Runs a container from an unlisted and from a listed address and writes the recording.
fn record_run(lab: &Lab, path: &std::path::Path) -> Result<Vec<Record>> {
    let sensor = Sensor::start(CONFIGURATION)?;
    for address in [NODE_OUTSIDE, NODE_INSIDE] {
        remote(&lab.network, address, &["run", "--rm", IMAGE, "/bin/echo", "x"])?;
    }
    sensor.wait("the end of a container", |record| {
        record.is("container", &[("container.action", "removed")])
    })?;
    let recording = sensor.stop()?;
    recording.write(path)?;
    Ok(recording.records)
}

fn replay(recording: &std::path::Path, configuration: &str) -> Result<String> {
    let config = recording.with_extension("yaml");
    std::fs::write(&config, configuration)?;
    run(sensor::command()?.arg("replay").arg("--config").arg(&config).arg(recording))
}

/// Facts by id.
fn facts(records: impl IntoIterator<Item = Record>) -> BTreeMap<String, Record> {
    records
        .into_iter()
        .filter(|record| record.kind() != "health")
        .map(|record| (record.text("id").to_owned(), record))
        .collect()
}

fn parse(output: &str) -> Result<Vec<Record>> {
    output.lines().map(|line| Record::parse(line).map_err(anyhow::Error::msg)).collect()
}

fn same_facts(lab: &Lab) -> Result<()> {
    let path = lab.directory().join("recording.ndjson");
    let recorded = facts(record_run(lab, &path)?);
    let first = replay(&path, CONFIGURATION)?;
    ensure!(first == replay(&path, CONFIGURATION)?, "two replays differ");
    let replayed = facts(parse(&first)?);
    ensure!(
        recorded.keys().eq(replayed.keys()),
        "{} facts were recorded, {} came back",
        recorded.len(),
        replayed.len()
    );
    for (id, record) in &recorded {
        let again = &replayed[id];
        for part in [
            "kind",
            "ts",
            "boot_ns",
            "process",
            "container",
            "k8s",
            "net",
            "verdict",
            "listener",
            "conn",
            "connect",
            "api",
            "exec",
            "exit",
            "origin",
        ] {
            ensure!(record.at(part) == again.at(part), "{part} differs:\n{record}\n{again}");
        }
    }
    Ok(())
}

fn other_configuration(lab: &Lab) -> Result<()> {
    let path = lab.directory().join("recording-2.ndjson");
    record_run(lab, &path)?;
    let configuration =
        "allow:\n  - {name: outside, from: {cidr: [198.18.0.0/15]}, to: {services: [docker]}}\n";
    let replayed = parse(&replay(&path, configuration)?)?;
    for (peer, expected) in
        [(CLIENT_OUTSIDE, ("verdict.entry", "outside")), (CLIENT_INSIDE, ("verdict.listed", "false"))]
    {
        let accepts: Vec<_> =
            replayed.iter().filter(|record| record.is("accept", &[("net.peer.ip", peer)])).collect();
        ensure!(!accepts.is_empty(), "no accept from {peer} came back");
        let other = accepts.iter().find(|record| !record.is("accept", &[expected]));
        ensure!(other.is_none(), "{other:?}\nhas not {expected:?}");
    }
    Ok(())
}
