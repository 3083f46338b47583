//! How long after the last necessary event a finding is told of; run by `cargo xtask bench findings`.
//!
//! Each round is a real attack on a real Docker daemon: a privileged container by somebody unexpected, which then reaches for
//! another node. It gives two lines: the finding when the container is there, and its update when the container moves.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sensor_tests::dockerd::{IMAGE, TOLERANT, remote};
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::netns::{CLIENT_OUTSIDE, NODE_OUTSIDE};
use sensor_tests::sensor::Sensor;

const ROUNDS: usize = 25;

fn main() -> Result<()> {
    // `cargo test --benches` calls benchmarks with this flag, to see that they start.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let lab = Lab::build()?;
    let mut latencies = Vec::new();
    for _ in 0..ROUNDS {
        latencies.extend(attack(&lab)?);
        lab.dockerd.remove_containers();
    }
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!("last necessary event to finding, {} lines of {ROUNDS} attacks", latencies.len());
    println!("  p50 {:8.2} ms", at(50));
    println!("  p99 {:8.2} ms   aim <= 100", at(99));
    println!("  max {:8.2} ms", at(100));
    Ok(())
}

/// An attack, seen by a sensor that has seen none before. Returns the latency of each finding line.
fn attack(lab: &Lab) -> Result<Vec<Duration>> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let reach = format!("sleep 0.2; nc -w 1 {CLIENT_OUTSIDE} 22; sleep 600");
    let run = ["run", "--detach", "--privileged", "--runtime", TOLERANT, "--network", "host", IMAGE];
    let arguments: Vec<&str> = run.into_iter().chain(["/bin/sh", "-c", &reach]).collect();
    remote(&lab.network, NODE_OUTSIDE, &arguments)?;
    sensor.wait_is("finding", &[("finding.analytic", "AN1007"), ("finding.severity", "critical")])?;
    let recording = sensor.stop()?;
    let told = recording.records.iter().zip(&recording.read_at_ns);
    let findings = told.filter(|(record, _)| record.kind() == "finding");
    let latencies: Vec<Duration> = findings
        .map(|(record, read_at_ns)| {
            // A finding bears the time of the event that made it.
            let happened_ns = record.number("boot_ns").context("a finding without boot_ns")?;
            Ok(Duration::from_nanos(read_at_ns.saturating_sub(happened_ns)))
        })
        .collect::<Result<_>>()?;
    ensure!(latencies.len() >= 2, "{} findings of a whole chain", latencies.len());
    Ok(latencies)
}
