//! `cargo xtask bless`: rewrites the expected outputs of the tests; review the difference it makes.

use anyhow::Result;
use clap::Args;

use crate::{command, duties, run, schema};

/// Rewrites golden files, schemas and generated documents from what the program does now.
#[derive(Args)]
pub struct Options {}

/// Runs the subcommand.
pub fn run(_: &Options) -> Result<()> {
    // The program as it is now, and not the one that was released last.
    let binary = run::build_debug()?;
    let mut test = command::cargo();
    test.args(["test", "--package=sensor-tests", "--test=cli", "--test=replay", "--test=audit"])
        .env("QUAYWATCH_BIN", binary)
        .env("QUAYWATCH_BLESS", "1");
    command::check(&mut test)?;
    duties::write(&command::repository())?;
    schema::run(&schema::Options { check: false })
}
