//! Memory and processor time of a sensor that has nothing to do.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::sensor::Sensor;

/// How long the processor time is watched.
const SPAN: Duration = Duration::from_secs(5);

/// Measures and prints the table.
pub fn print(scratch: &Path) -> anyhow::Result<()> {
    let sensor = Sensor::start(scratch)?;
    sleep(Duration::from_secs(2));
    let before = sensor.cpu()?;
    sleep(SPAN);
    let share = (sensor.cpu()? - before).as_secs_f64() / SPAN.as_secs_f64();
    println!("idle");
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (resident, rings) = (sensor.resident()?, sensor.resident_rings()?);
    println!("  resident memory {:8.1} MiB   aim <= 20", mib(resident));
    println!("    ring buffers  {:8.1} MiB   each page counted twice", mib(rings));
    println!("    all else      {:8.1} MiB", mib(resident - rings));
    println!("  processor time  {:8.2} % of one processor\n", share * 100.0);
    let last = sensor.stop()?;
    anyhow::ensure!(last.contains(r#""state":"stopping""#), "the sensor did not end in order: {last}");
    Ok(())
}
