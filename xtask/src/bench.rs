//! `cargo xtask bench`: the table of costs.

use anyhow::Result;
use clap::Args;

use crate::{command, packages, run, setup, system};

/// The section that needs a laboratory, and is a program of its own.
const FLOOD: &str = "flood";
/// What the sensor is compared with.
const PACKAGES: &[&str] = &["auditd", "bpftrace"];

/// Measures what the sensor costs, side by side with no programs, with empty ones and with other tools, and what flood it
/// takes; needs root.
#[derive(Args)]
pub struct Options {
    /// Measure these only: slowdown, per-run, idle, latency, tables, chains, throughput, peers, flood.
    sections: Vec<String>,
}

/// Runs the subcommand.
pub fn run(options: &Options) -> Result<()> {
    system::require_root("cargo xtask bench")?;
    let is_all = options.sections.is_empty();
    let (floods, costs): (Vec<_>, Vec<_>) = options.sections.iter().partition(|section| *section == FLOOD);
    let with_flood = is_all || !floods.is_empty();
    setup::run(&setup::Options { tests: with_flood })?;
    if is_all || !costs.is_empty() {
        packages::ensure(PACKAGES)?;
        let mut bench = command::cargo();
        bench.args(["bench", "--locked", "--package", "sensor-user", "--bench", "cost", "--"]);
        command::check(bench.args(costs))?;
    }
    if with_flood {
        let mut bench = command::cargo();
        bench.args(["bench", "--locked", "--package", "sensor-tests", "--bench", FLOOD]);
        command::check(bench.env("QUAYWATCH_BIN", run::build_release()?))?;
    }
    Ok(())
}
