//! What the kernel's verifier had to do for each program.

use anyhow::{Context as _, Result, ensure};
use aya::programs::{ProgramInfo, loaded_programs};
use sensor_tests::sensor::Sensor;

use crate::report::Report;

/// Bytes of a name that the kernel keeps.
const NAME_MAX: usize = 15;
/// In the list of hooks, but no program.
const USER_SPACE: &str = "fanotify";
/// Bytes of an instruction.
const INSTRUCTION: u32 = 8;

/// Reports, for each program of the sensor, how many instructions the verifier walked through; kernels before 5.16 do not
/// tell, there it is the program's length after their rewriting.
pub fn report(sensor: &Sensor, report: &mut Report) -> Result<()> {
    let ready = sensor.wait_is("health", &[("health.state", "ready")])?;
    let mut loaded: Vec<ProgramInfo> = loaded_programs().collect::<Result<_, _>>()?;
    // Ids ascend, and the sensor loads its programs in the order in which it lists them. Names are cut.
    loaded.sort_by_key(ProgramInfo::id);
    let mut loaded = loaded.into_iter();
    for hook in ready.list("health.hooks") {
        let name = hook["program"].as_str().context("a hook without a program")?;
        // A program in reserve is loaded too; what works in user space is none of the kernel's programs.
        if hook["state"] == "unavailable" || name == USER_SPACE {
            continue;
        }
        let cut = &name[..name.len().min(NAME_MAX)];
        let program = loaded
            .find(|program| program.name_as_str() == Some(cut))
            .with_context(|| format!("the kernel has no program {name}"))?;
        let count = match program.verified_instruction_count() {
            Some(count) if count > 0 => count,
            _ => program.size_translated().context("no length")? / INSTRUCTION,
        };
        ensure!(count > 0, "no count for {name}");
        report.line(&["program", name, &count.to_string()])?;
    }
    Ok(())
}
