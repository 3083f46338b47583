//! `cargo xtask run`: from a clean clone to a running sensor.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::command::{self, say};
use crate::{setup, system};

/// Installs what is missing, builds probes and agent in release, and starts the sensor; needs root.
#[derive(Args)]
pub struct Options {
    /// Arguments of `quaywatch run`.
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

/// Runs the subcommand.
pub fn run(options: &Options) -> Result<()> {
    system::require_root("cargo xtask run")?;
    setup::run(&setup::Options { tests: false })?;
    let binary = build_release()?;
    say(format!("{} run {}", binary.display(), options.arguments.join(" ")));
    // In place of this process, so that signals and the exit code are the sensor's own.
    let error = std::process::Command::new(&binary).arg("run").args(&options.arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", binary.display()))
}

/// Builds the sensor with its probes and returns the binary.
pub fn build_release() -> Result<std::path::PathBuf> {
    command::check(command::cargo().args(["build", "--locked", "--release", "--package", "sensor-user"]))?;
    Ok(target_directory().join("release/quaywatch"))
}

/// Builds the sensor with its probes as it is built for development, and returns the binary.
pub fn build_debug() -> Result<std::path::PathBuf> {
    command::check(command::cargo().args(["build", "--package", "sensor-user", "--bin", "quaywatch"]))?;
    Ok(target_directory().join("debug/quaywatch"))
}

/// Cargo's target directory.
pub fn target_directory() -> std::path::PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => command::repository().join(directory),
        None => command::repository().join("target"),
    }
}
