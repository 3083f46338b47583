//! `cargo xtask bench`: the table of costs.

use anyhow::Result;
use clap::Args;

use crate::{command, packages, setup, system};

/// What the sensor is compared with.
const PACKAGES: &[&str] = &["auditd", "bpftrace"];

/// Measures what the sensor costs, side by side with no programs, with empty ones and with other tools; needs root.
#[derive(Args)]
pub struct Options {
    /// Measure these only: slowdown, per-run, idle, latency, throughput, peers.
    sections: Vec<String>,
}

/// Runs the subcommand.
pub fn run(options: &Options) -> Result<()> {
    system::require_root("cargo xtask bench")?;
    setup::run(&setup::Options { tests: false })?;
    packages::ensure(PACKAGES)?;
    let mut bench = command::cargo();
    bench.args(["bench", "--locked", "--package", "sensor-user", "--bench", "cost", "--"]);
    command::check(bench.args(&options.sections))
}
