//! Throughput with programs as a share of the throughput without, load by load.

use std::path::Path;
use std::time::Duration;

use crate::loops::{
    FORK_EXEC, GETPPID, Load, OPEN_CLOSE, UNIX_TALK, UNWATCHED_TALK, UNWATCHED_TCP, WATCHED_TCP,
};
use crate::sensor::{Running, Variant};
use crate::statistics::{median, median_ratio};

/// Every load, in table order.
const LOADS: [Load; 7] =
    [WATCHED_TCP, UNWATCHED_TCP, UNWATCHED_TALK, UNIX_TALK, FORK_EXEC, OPEN_CLOSE, GETPPID];
/// Time per load, variant and round.
const SLICE: Duration = Duration::from_millis(250);
/// Rounds; each has every variant once.
const ROUNDS: usize = 20;

/// Measures and prints the table.
pub fn print(scratch: &Path) -> anyhow::Result<()> {
    // [load][variant][round], nanoseconds per iteration.
    let mut times = vec![vec![Vec::with_capacity(ROUNDS); Variant::ALL.len()]; LOADS.len()];
    for round in 0..ROUNDS {
        for step in 0..Variant::ALL.len() {
            let index = (round + step) % Variant::ALL.len();
            let _running = Running::start(Variant::ALL[index], scratch)?;
            for (load, times) in LOADS.iter().zip(&mut times) {
                times[index].push(load.run(SLICE)?.iteration_ns);
            }
        }
        eprint!("\rround {} of {ROUNDS}", round + 1);
    }
    eprintln!();
    println!("speed with programs, bare = 1; median of the ratios of {ROUNDS} interleaved rounds");
    println!(
        "  {:<36} {:>10} {:>8} {:>8} {:>14} {:>14} {:>13}",
        "load", "bare", "empty", "sensor", "sensor/empty", "aim", "all are told"
    );
    for (load, times) in LOADS.iter().zip(&times) {
        let [bare, empty, sensor, telling] = &times[..] else { anyhow::bail!("four variants are expected") };
        println!(
            "  {:<36} {:>7.2} us {:>8.3} {:>8.3} {:>14.3} {:>14} {:>13.3}",
            load.name,
            median(bare) / 1e3,
            median_ratio(bare, empty),
            median_ratio(bare, sensor),
            median_ratio(empty, sensor),
            load.aim,
            median_ratio(bare, telling),
        );
    }
    println!(
        "  all are told: flood control off, so that the watched loop makes two records per connection\n"
    );
    Ok(())
}
