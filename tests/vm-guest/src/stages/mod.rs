//! What is tried in a machine. Each stage runs sensors of its own and gives verdicts on rows of the matrix, whose names
//! `xtask/src/vm_test/matrix.rs` knows.

use anyhow::{Result, bail};

use crate::report::Report;

mod actor;
mod degrade;
mod flood;
mod hooks;
mod kinds;
mod loss;
mod processes;
mod runtimes;
mod sockets;
mod truth;
mod verifier;

/// Addresses of the loopback interface, both ends of every connection. 198.18.0.0/15 is set aside for tests.
pub const ADDRESSES: &[&str] = &[
    "10.77.0.1/24",
    "10.77.0.2/24",
    "198.18.0.1/24",
    "198.18.0.2/24",
    "fd00:77::1/64",
    "fd00:77::2/64",
    "fd00:99::1/64",
    "fd00:99::2/64",
];

/// Configuration of the sensors: one expected network of each family, and the machine's own addresses are no exception.
pub const CONFIGURATION: &str = "\
implied_local: false
allow:
  - name: lab
    from: {cidr: [10.77.0.0/24, \"fd00:77::/64\"]}
    to: {services: [any]}
";

type Stage = fn(&mut Report) -> Result<()>;

const STAGES: &[(&str, Stage)] = &[
    ("kinds", kinds::run),
    ("runc", runtimes::runc),
    ("crun", runtimes::crun),
    ("loss", loss::run),
    ("flood", flood::run),
    ("half-open", flood::run_half_open),
    ("rights", degrade::rights),
    ("no-btf", degrade::no_type_information),
    ("lockdown", degrade::lockdown),
];

/// Runs stages, in the order of the table.
pub fn run(names: &[String], report: &mut Report) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| STAGES.iter().all(|(known, _)| known != name)) {
        bail!("unknown stage {unknown}");
    }
    for (_, stage) in STAGES.iter().filter(|(name, _)| names.iter().any(|wanted| wanted == name)) {
        stage(report)?;
    }
    Ok(())
}
