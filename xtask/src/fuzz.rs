//! `cargo xtask fuzz`: everything that reads bytes from outside, fed with what libFuzzer finds.
//!
//! The targets are compiled by the stable compiler with the instrumentation that libFuzzer needs; no sanitizer, because
//! they contain no unsafe code worth one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::command::{self, say};
use crate::summary::Tally;
use crate::{packages, setup};

/// Runs the fuzz targets. What they find stays in `tests/fuzz/artifacts`, what they learned in `tests/fuzz/corpus`.
#[derive(Args)]
pub struct Options {
    /// Run only these targets.
    #[arg(value_name = "TARGET", value_parser = target_names())]
    targets: Vec<String>,
    /// Seconds per target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// A binary of `tests/fuzz`.
struct Target {
    /// Its name.
    name: &'static str,
    /// A directory to start from: sound input, and what was found once.
    seeds: &'static str,
}

/// Every target.
const TARGETS: [Target; 10] = [
    Target { name: "records", seeds: "tests/fuzz/seeds/records" },
    Target { name: "requests", seeds: "tests/fuzz/seeds/requests" },
    Target { name: "identity", seeds: "tests/fuzz/seeds/identity" },
    Target { name: "recording", seeds: "tests/fixtures/replay" },
    Target { name: "config", seeds: "deploy/config" },
    Target { name: "spec", seeds: "tests/fuzz/seeds/spec" },
    Target { name: "hello", seeds: "tests/fixtures/tls" },
    Target { name: "btf", seeds: "tests/fuzz/seeds/btf" },
    Target { name: "audit", seeds: "tests/fuzz/seeds/audit" },
    Target { name: "state", seeds: "sensor-user/core/tests/fixtures" },
];

fn target_names() -> PossibleValuesParser {
    PossibleValuesParser::new(TARGETS.iter().map(|target| target.name))
}

/// Time per target in `cargo xtask test`: long enough to see that it works and to try some ten thousand inputs.
const TEST_SECONDS: u32 = 10;

/// libFuzzer is C++.
pub const PACKAGES: &[&str] = &["g++"];

/// Coverage counters and traced comparisons for libFuzzer; `fuzzing` is what crates that know fuzzers look for.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // The counters of a function must not be thrown away with a section of their own.
    "-Ccodegen-units=1",
];

/// Runs the subcommand.
pub fn run(options: &Options) -> Result<()> {
    setup::run(&setup::Options { tests: false })?;
    let built = build()?;
    let is_wanted = |target: &&Target| {
        options.targets.is_empty() || options.targets.iter().any(|name| name == target.name)
    };
    TARGETS.iter().filter(is_wanted).try_for_each(|target| attack(&built, target, options.seconds))
}

/// Attacks every target for a short time; each counts as a test.
///
/// # Errors
/// When they cannot be built.
pub fn test() -> Result<Tally> {
    let built = build()?;
    let mut tally = Tally::default();
    for target in &TARGETS {
        match attack(&built, target, TEST_SECONDS) {
            Ok(()) => tally.passed += 1,
            Err(error) => {
                say(format!("{error:#}"));
                tally.failed += 1;
            }
        }
    }
    Ok(tally)
}

/// Builds all targets and returns the directory of their binaries.
fn build() -> Result<PathBuf> {
    packages::ensure(PACKAGES)?;
    let host = command::output(command::program("rustc").args(["--print", "host-tuple"]))
        .context("rustc does not say what it compiles for")?;
    let target = host.trim();
    // Named, so that the flags do not reach build scripts and macros.
    let target_directory = directory().join("target");
    let mut cargo = command::cargo();
    cargo.args(["build", "--locked", "--release", "--bins", "--target", target]);
    cargo.arg("--manifest-path").arg(manifest());
    cargo.arg("--target-dir").arg(&target_directory).env("RUSTFLAGS", FLAGS.join(" "));
    command::check(&mut cargo).context("building the fuzz targets")?;
    Ok(target_directory.join(target).join("release"))
}

/// Runs one target for some seconds.
///
/// # Errors
/// When it finds an input that it does not survive; the message says where that is.
fn attack(built: &Path, target: &Target, seconds: u32) -> Result<()> {
    let Target { name, seeds } = target;
    say(format!("fuzzing {name} for {seconds} s"));
    let corpus = directory().join("corpus").join(name);
    let artifacts = directory().join("artifacts").join(name);
    for directory in [&corpus, &artifacts] {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let mut fuzzer = command::program(built.join(name));
    fuzzer
        .arg(&corpus)
        .arg(command::repository().join(seeds))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        // A reader that hangs or swallows memory has failed, too.
        .args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1", "-verbosity=0"]);
    if let Err(error) = command::check(&mut fuzzer) {
        bail!("{name} did not survive an input, see {}: {error:#}", artifacts.display());
    }
    Ok(())
}

/// Manifest of the fuzz targets.
pub fn manifest() -> PathBuf {
    directory().join("Cargo.toml")
}

fn directory() -> PathBuf {
    command::repository().join("tests/fuzz")
}
