//! `cargo xtask bench`: the table of costs.

use anyhow::{Result, bail};
use clap::Args;

use crate::exit::Verdict;
use crate::{command, packages, run, setup, system};

/// The sections that need a laboratory; each is a program of its own.
const OF_LABORATORY: [&str; 3] = ["docker", "findings", "flood"];
/// What the sensor is compared with.
const PACKAGES: &[&str] = &["auditd", "bpftrace"];

/// Measures what the sensor costs, side by side with no programs, with empty ones and with other tools, and what flood it
/// takes; needs root.
#[derive(Args)]
pub struct Options {
    /// Measure these only: slowdown, per-run, idle, latency, tables, chains, throughput, peers, docker, findings, flood.
    sections: Vec<String>,
}

/// Runs the subcommand.
pub fn run(options: &Options) -> Result<()> {
    system::require_root("cargo xtask bench")?;
    let is_all = options.sections.is_empty();
    let (in_laboratory, costs): (Vec<&str>, Vec<&str>) =
        options.sections.iter().map(String::as_str).partition(|section| OF_LABORATORY.contains(section));
    let in_laboratory = if is_all { OF_LABORATORY.to_vec() } else { in_laboratory };
    setup::run(&setup::Options { tests: !in_laboratory.is_empty() })?;
    let mut verdict = None;
    if is_all || !costs.is_empty() {
        packages::ensure(PACKAGES)?;
        let mut bench = command::cargo();
        bench.args(["bench", "--locked", "--package", "sensor-user", "--bench", "cost", "--"]);
        verdict = measure(bench.args(costs))?;
    }
    for section in in_laboratory {
        let mut bench = command::cargo();
        bench.args(["bench", "--locked", "--package", "sensor-tests", "--bench", section]);
        command::check(bench.env("QUAYWATCH_BIN", run::build_release()?))?;
    }
    verdict.map_or(Ok(()), |verdict| Err(verdict.into()))
}

/// Runs a benchmark; returns the verdict that it came to, unless that is the promised one.
fn measure(bench: &mut std::process::Command) -> Result<Option<Verdict>> {
    let status = command::status(bench)?;
    match status.code() {
        Some(0) => Ok(None),
        Some(code @ (4 | 5)) => Ok(Some(Verdict(code as u8))),
        _ => bail!("the benchmark failed: {status}"),
    }
}
