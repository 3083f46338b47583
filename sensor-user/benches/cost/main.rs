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

use std::path::Path;

use anyhow::Context as _;

/// A table: its name on the command line, and what measures and prints it.
type Section = (&'static str, fn(&Path) -> anyhow::Result<()>);

/// Every table, in the order in which they are measured.
const SECTIONS: [Section; 8] = [
    ("slowdown", slowdown::print),
    ("per-run", per_run::print),
    ("idle", idle::print),
    ("latency", latency::print),
    // Before others fill the allocator of this process, which would hide what the tables take.
    ("tables", tables::print),
    ("chains", chains::print),
    ("throughput", throughput::print),
    ("peers", peers::print),
];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` calls benchmarks with this flag, to see that they start.
    if arguments.iter().any(|argument| argument == "--test") {
        return Ok(());
    }
    if let [flag, load] = &arguments[..]
        && flag == peers::LOAD_FLAG
    {
        return peers::run_load(load);
    }
    // `cargo bench` adds a flag of its own.
    let wanted: Vec<&String> = arguments.iter().filter(|argument| *argument != "--bench").collect();
    for name in &wanted {
        let names = SECTIONS.map(|(name, _)| name).join(", ");
        let is_known = SECTIONS.iter().any(|(known, _)| known == name);
        anyhow::ensure!(is_known, "there is no section `{name}`; there are: {names}");
    }
    let scratch = tempfile::tempdir()?;
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    println!("quaywatch cost on {kernel} ({} processors)\n", std::thread::available_parallelism()?);
    for (name, print) in SECTIONS {
        if wanted.is_empty() || wanted.iter().any(|wanted| *wanted == name) {
            print(scratch.path()).with_context(|| format!("section `{name}`"))?;
        }
    }
    Ok(())
}
