//! What the kernel says of a process elsewhere, to compare records with.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result, ensure};
use sensor_tests::record::Record;

/// Nanoseconds per unit of times in `/proc/<pid>/stat`.
const TICK_NS: u64 = 10_000_000;

/// A living process.
pub struct Truth {
    pid: u32,
    /// Start on the boot clock, in ticks.
    start_ticks: u64,
    comm: String,
}

impl Truth {
    /// Looks at a process.
    pub fn of(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (head, tail) = stat.rsplit_once(") ").context("no name in stat")?;
        let comm = head.split_once(" (").context("no name in stat")?.1.to_owned();
        // The 22nd field of the line, the third being the first behind the name.
        let start_ticks = tail.split(' ').nth(19).context("no start time in stat")?.parse()?;
        Ok(Self { pid, start_ticks, comm })
    }

    /// Looks at this process.
    pub fn of_self() -> Result<Self> {
        Self::of(std::process::id())
    }

    /// Demands that a record names this process.
    pub fn check(&self, record: &Record) -> Result<()> {
        let fields = [("process.pid", &*self.pid.to_string()), ("process.comm", self.comm.as_str())];
        ensure!(record.is(record.kind(), &fields), "not {fields:?}: {record}");
        let start = record.number("process.start_ns").with_context(|| format!("no start: {record}"))?;
        ensure!(start / TICK_NS == self.start_ticks, "not started at tick {}: {record}", self.start_ticks);
        Ok(())
    }
}

/// Number of this process's network namespace.
pub fn network_namespace() -> Result<u64> {
    Ok(fs::metadata("/proc/self/ns/net")?.ino())
}
