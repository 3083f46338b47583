//! `cargo xtask bench`: the table of costs.

use anyhow::Result;
use clap::Args;

use crate::{command, setup, system};

/// Measures what the sensor costs, side by side with no programs and with empty ones; needs root.
#[derive(Args)]
pub struct Options {}

/// Runs the subcommand.
pub fn run(_options: &Options) -> Result<()> {
    system::require_root("cargo xtask bench")?;
    setup::run(&setup::Options { tests: false })?;
    command::check(command::cargo().args([
        "bench",
        "--locked",
        "--package",
        "sensor-user",
        "--bench",
        "cost",
    ]))
}
