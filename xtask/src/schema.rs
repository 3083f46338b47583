//! `cargo xtask schema`: the JSON Schemas in docs/, as the program prints them.

use std::fs;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::command::{self, say};

/// Writes docs/quaywatch-<name>.schema.json, or checks that they are up to date.
#[derive(Args)]
pub struct Options {
    /// Only compare; a difference is a failure.
    #[arg(long)]
    pub check: bool,
}

/// Arguments of `quaywatch schema` and the file that holds the answer.
const SCHEMAS: &[&str] = &["event", "config", "doctor", "exposure"];

/// Runs the subcommand.
pub fn run(options: &Options) -> Result<()> {
    let mut stale = Vec::new();
    for name in SCHEMAS {
        let mut quaywatch = command::cargo();
        quaywatch.args(["run", "--quiet", "--package=sensor-user", "--bin=quaywatch", "--", "schema", name]);
        let schema =
            command::output(&mut quaywatch).with_context(|| format!("`quaywatch schema {name}` failed"))?;
        let path = command::repository().join(format!("docs/quaywatch-{name}.schema.json"));
        if fs::read_to_string(&path).is_ok_and(|present| present == schema) {
            continue;
        }
        if options.check {
            stale.push(format!("docs/quaywatch-{name}.schema.json"));
        } else {
            fs::write(&path, schema).with_context(|| format!("cannot write {}", path.display()))?;
            say(format!("wrote {}", path.display()));
        }
    }
    if !stale.is_empty() {
        bail!("out of date, run `cargo xtask schema`: {}", stale.join(", "));
    }
    Ok(())
}
