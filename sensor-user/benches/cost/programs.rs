//! What the kernel itself counts: run time and runs per program.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context as _;
use aya::programs::loaded_programs;

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Time and runs of one program.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runs {
    /// Nanoseconds in the program.
    pub time_ns: u64,
    /// Runs.
    pub count: u64,
}

impl Runs {
    /// What happened since an earlier reading.
    pub fn since(self, earlier: Self) -> Self {
        Self { time_ns: self.time_ns - earlier.time_ns, count: self.count - earlier.count }
    }

    /// Nanoseconds per run.
    pub fn mean(self) -> f64 {
        self.time_ns as f64 / self.count.max(1) as f64
    }
}

/// The kernel's statistics, switched on while this lives.
pub struct Statistics {
    before: String,
}

impl Statistics {
    /// Switches the statistics on.
    pub fn enable() -> anyhow::Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| SWITCH.to_owned())?;
        fs::write(SWITCH, "1").with_context(|| SWITCH.to_owned())?;
        Ok(Self { before })
    }

    /// Reads the programs with the given names. Kernel names are cut to 15 bytes.
    pub fn read(&self, names: &[&'static str]) -> anyhow::Result<BTreeMap<&'static str, Runs>> {
        let mut found = BTreeMap::new();
        for program in loaded_programs() {
            let program = program?;
            let name = program.name_as_str().unwrap_or_default();
            if let Some(full) = names.iter().find(|full| full[..full.len().min(15)] == *name) {
                let runs: &mut Runs = found.entry(*full).or_default();
                runs.time_ns += program.run_time().as_nanos() as u64;
                runs.count += program.run_count();
            }
        }
        Ok(found)
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, self.before.trim()) {
            eprintln!("{SWITCH}: {error}");
        }
    }
}
