//! `cargo xtask test`: everything that proves the sensor, on this machine, in one command.

use std::path::Path;

use anyhow::{Result, anyhow};
use clap::Args;

use crate::command::{self, say};
use crate::exit::Reported;
use crate::summary::Tally;
use crate::{fuzz, lint, run, setup, system, tidy, vm_test};

/// Installs what is missing, then builds, lints and runs every test, end-to-end tests included; needs root.
#[derive(Args)]
pub struct Options {
    /// Leave out `lint` and `tidy`.
    #[arg(long)]
    no_lint: bool,
    /// Run only this suite (may be repeated).
    #[arg(long, value_name = "NAME", value_parser = suite_names())]
    suite: Vec<String>,
}

/// One call of `cargo test`. A suite that executes no test fails: an empty run proves nothing.
struct Suite {
    name: &'static str,
    arguments: &'static [&'static str],
    /// Tests the released binary, so it is pointless when that could not be built.
    binary: bool,
}

const SUITES: &[Suite] = &[
    Suite {
        name: "unit",
        arguments: &[
            "--package=sensor-common",
            "--package=sensor-core",
            "--package=sensor-user",
            "--package=sensor-tests",
            "--package=xtask",
            "--lib",
            "--bins",
        ],
        binary: false,
    },
    Suite { name: "property", arguments: &["--package=sensor-core", "--test", "*"], binary: false },
    Suite { name: "cli", arguments: &["--package=sensor-tests", "--test=cli"], binary: true },
    Suite { name: "replay", arguments: &["--package=sensor-tests", "--test=replay"], binary: true },
    Suite { name: "audit", arguments: &["--package=sensor-tests", "--test=audit"], binary: true },
    Suite { name: "probes", arguments: &["--package=sensor-user", "--test=probes"], binary: false },
    Suite { name: "e2e", arguments: &["--package=sensor-tests", "--test=e2e"], binary: true },
];

/// Name of the suite that is no `cargo test`: the oldest, a middle and the newest kernel of `cargo xtask vm-test`.
const KERNELS: &str = "kernels";
/// Name of the other one that is none: `cargo xtask fuzz`.
const FUZZ: &str = "fuzz";

fn suite_names() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(SUITES.iter().map(|suite| suite.name).chain([KERNELS, FUZZ]))
}

/// Runs the subcommand. The last line it prints is the sum of all suites.
pub fn run(options: &Options) -> Result<()> {
    system::require_root("cargo xtask test")?;
    setup::run(&setup::Options { tests: true })?;

    let mut report = Report::default();
    if !options.no_lint && options.suite.is_empty() {
        report.step("lint", lint::run(&lint::Options {}));
        report.step("tidy", tidy::run(&tidy::Options {}));
    }
    let binary = run::build_release();
    let built = binary.as_ref().map(drop).map_err(|error| anyhow!("{error:#}"));
    report.step("release build", built);
    let is_wanted = |suite: &str| options.suite.is_empty() || options.suite.iter().any(|name| name == suite);
    for suite in SUITES.iter().filter(|suite| is_wanted(suite.name)) {
        match (suite.binary, &binary) {
            (true, Err(_)) => report.step(suite.name, Err(anyhow!("not run: the release build failed"))),
            (true, Ok(binary)) => report.suite(suite, Some(binary)),
            (false, _) => report.suite(suite, None),
        }
    }
    if is_wanted(KERNELS) {
        match &binary {
            Err(_) => report.step(KERNELS, Err(anyhow!("not run: the release build failed"))),
            Ok(binary) => {
                say(format!("suite {KERNELS}"));
                report.counted(KERNELS, vm_test::test(binary));
            }
        }
    }
    if is_wanted(FUZZ) {
        say(format!("suite {FUZZ}"));
        report.counted(FUZZ, fuzz::test());
    }
    report.finish()
}

#[derive(Default)]
struct Report {
    lines: Vec<String>,
    total: Tally,
    failed_steps: usize,
}

impl Report {
    /// Enters a step that is not a test runner: its failure counts as one.
    fn step(&mut self, name: &str, result: Result<()>) {
        match result {
            Ok(()) => self.lines.push(format!("{name}: ok")),
            Err(error) => {
                self.failed_steps += 1;
                self.total.failed += 1;
                self.lines.push(format!("{name}: FAILED: {error:#}"));
            }
        }
    }

    fn suite(&mut self, suite: &Suite, binary: Option<&Path>) {
        say(format!("suite {}", suite.name));
        let mut tally = Tally::default();
        let mut cargo = command::cargo();
        cargo.args(["test", "--locked", "--no-fail-fast"]).args(suite.arguments);
        if let Some(binary) = binary {
            cargo.env("QUAYWATCH_BIN", binary);
        }
        let status = command::stream(&mut cargo, |line| {
            if let Some(summary) = Tally::from_line(line) {
                tally += summary;
            }
        });
        let problem = match status {
            Err(error) => Some(format!("{error:#}")),
            // The runner counted its failures itself; anything else that went wrong counts as one.
            Ok(_) if tally.failed > 0 => None,
            Ok(status) if !status.success() => Some(format!("cargo test: {status}")),
            Ok(_) if tally.executed() == 0 => Some("no test was executed".to_owned()),
            Ok(_) => None,
        };
        self.total += tally;
        self.lines.push(format!("{}: {tally}", suite.name));
        if let Some(problem) = problem {
            self.step(suite.name, Err(anyhow!(problem)));
        } else if tally.failed > 0 {
            self.failed_steps += 1;
        }
    }

    /// Enters a suite that counted its verdicts itself.
    fn counted(&mut self, name: &str, result: Result<Tally>) {
        match result {
            Err(error) => self.step(name, Err(error)),
            Ok(tally) => {
                self.total += tally;
                self.failed_steps += usize::from(tally.failed > 0);
                self.lines.push(format!("{name}: {tally}"));
            }
        }
    }

    /// Prints what became of each step, then, as the last line of all, the sum.
    fn finish(self) -> Result<()> {
        println!();
        for line in &self.lines {
            println!("{line}");
        }
        if self.failed_steps > 0 {
            println!("{} of {} steps failed", self.failed_steps, self.lines.len());
        }
        println!("{}", self.total);
        if self.failed_steps > 0 { Err(Reported.into()) } else { Ok(()) }
    }
}
