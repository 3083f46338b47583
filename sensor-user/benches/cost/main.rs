//! What the sensor costs, as tables; run by `cargo xtask bench [SECTION…]`.
//!
//! Slowdowns are ratios of rounds that alternate between no programs, empty programs on the same hooks, and the sensor,
//! so that a machine that changes its speed changes all three. Absolute times are those of this machine.

mod chains;
mod idle;
mod latency;
mod loops;
mod peers;
mod per_run;
mod programs;
mod sensor;
mod slowdown;
mod statistics;
mod tables;
mod throughput;
mod verdict;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

/// A table: its name on the command line, and what measures and prints it.
type Section = (&'static str, fn(&Path) -> anyhow::Result<()>);
/// The section with a verdict, which is measured last.
const PEERS: &str = "peers";

/// Every table, in the order in which they are measured.
const SECTIONS: [Section; 7] = [
    ("slowdown", slowdown::print),
    ("per-run", per_run::print),
    ("idle", idle::print),
    ("latency", latency::print),
    // Before others fill the allocator of this process, which would hide what the tables take.
    ("tables", tables::print),
    ("chains", chains::print),
    ("throughput", throughput::print),
];

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` calls benchmarks with this flag, to see that they start.
    if arguments.iter().any(|argument| argument == "--test") {
        return Ok(ExitCode::SUCCESS);
    }
    if let [flag, load] = &arguments[..]
        && flag == peers::LOAD_FLAG
    {
        return peers::run_load(load).map(|()| ExitCode::SUCCESS);
    }
    // `cargo bench` adds a flag of its own.
    let wanted: Vec<&String> = arguments.iter().filter(|argument| *argument != "--bench").collect();
    for name in &wanted {
        let mut names = SECTIONS.iter().map(|(name, _)| *name).chain([PEERS]);
        let is_known = names.clone().any(|known| known == *name);
        let names = names.by_ref().collect::<Vec<_>>().join(", ");
        anyhow::ensure!(is_known, "there is no section `{name}`; there are: {names}");
    }
    let scratch = tempfile::tempdir()?;
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    println!("quaywatch cost on {kernel} ({} processors)\n", std::thread::available_parallelism()?);
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| *wanted == name);
    for (name, print) in SECTIONS.into_iter().filter(|(name, _)| is_wanted(name)) {
        print(scratch.path()).with_context(|| format!("section `{name}`"))?;
    }
    if !is_wanted(PEERS) {
        return Ok(ExitCode::SUCCESS);
    }
    let verdict = peers::print(scratch.path()).with_context(|| format!("section `{PEERS}`"))?;
    Ok(ExitCode::from(verdict.exit_code()))
}
