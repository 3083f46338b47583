//! Nanoseconds per run of each program, by the kernel's own statistics.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use crate::loops::{self, FORK_EXEC, Load, UNIX_TALK, UNWATCHED, UNWATCHED_TCP, WATCHED_TCP};
use crate::programs::{Runs, Statistics};
use crate::sensor::{EMPTIES, PROBES, Running, Variant};
use crate::statistics::median;

/// Rounds, each with both variants.
const ROUNDS: usize = 6;
/// Samples of each row per round.
const SAMPLES: usize = 5;
/// Time per sample.
const SLICE: Duration = Duration::from_millis(60);

/// A line of the table: which probe, under which load.
struct Row {
    label: &'static str,
    /// Index in [`PROBES`].
    probe: usize,
    load: Load,
    aim: &'static str,
}

const fn row(label: &'static str, probe: usize, load: Load, aim: &'static str) -> Row {
    Row { label, probe, load, aim }
}

const ROWS: [Row; 9] = [
    row("inet_sock_set_state, transition on an unwatched port", 0, UNWATCHED_TCP, "<=45"),
    row("inet_sock_set_state, transition on a watched port", 0, WATCHED_TCP, ""),
    row("sched_process_exec, short arguments, emitted", 1, FORK_EXEC, "<=1300"),
    row("sched_process_fork, emitted", 2, FORK_EXEC, ""),
    row("sched_process_exit, emitted", 3, FORK_EXEC, ""),
    row("packets_in, packet to an unwatched port", 6, UNWATCHED_TCP, "<=52"),
    row("packets_in, packet to a watched port", 6, WATCHED_TCP, "<=133"),
    row("unix_data_ready, wakeup of a TCP socket", 7, UNWATCHED_TCP, ""),
    row("unix_data_ready, wakeup of another unix socket", 7, UNIX_TALK, ""),
];

/// Measures and prints the table.
pub fn print(scratch: &Path) -> anyhow::Result<()> {
    let statistics = Statistics::enable()?;
    // [variant][row], one mean per sample.
    let mut means = [(); 2].map(|()| ROWS.map(|_| Vec::new()));
    for _ in 0..ROUNDS {
        for (means, (variant, names)) in
            means.iter_mut().zip([(Variant::Empty, EMPTIES), (Variant::Telling, PROBES)])
        {
            let _running = Running::start(variant, scratch)?;
            for (means, row) in means.iter_mut().zip(&ROWS) {
                for _ in 0..SAMPLES {
                    means.push(sample(&statistics, names[row.probe], &row.load)?);
                }
            }
        }
    }
    let [empty, sensor] = means.map(|rows| rows.map(|means| median(&means)));
    println!("nanoseconds per run, kernel statistics; median of {} samples", ROUNDS * SAMPLES);
    println!("  {:<54} {:>8} {:>8} {:>7}", "program and load", "empty", "sensor", "aim");
    for ((row, empty), sensor) in ROWS.iter().zip(empty).zip(sensor) {
        println!("  {:<54} {empty:>8.0} {sensor:>8.0} {:>7}", row.label, row.aim);
    }
    // A watched loop makes the same transitions as an unwatched one, and two records: the accept and its end.
    let [unwatched, watched, ..] = sensor;
    let record = unwatched + (watched - unwatched) * transitions_per_iteration(&statistics)? / 2.0;
    println!(
        "  {:<54} {:>8} {record:>8.0} {:>7}\n",
        "inet_sock_set_state, transition that emits a record", "", "<=160"
    );
    Ok(())
}

/// Mean nanoseconds per run of a program during a load.
fn sample(statistics: &Statistics, program: &'static str, load: &Load) -> anyhow::Result<f64> {
    let before = runs(statistics, program)?;
    load.run(SLICE)?;
    Ok(runs(statistics, program)?.since(before).mean())
}

fn runs(statistics: &Statistics, program: &'static str) -> anyhow::Result<Runs> {
    let runs = statistics.read(&[program])?;
    runs.get(program).copied().with_context(|| format!("no program `{program}` is loaded"))
}

/// Transitions of one connect+accept+close, counted.
fn transitions_per_iteration(statistics: &Statistics) -> anyhow::Result<f64> {
    const ITERATIONS: u32 = 2_000;
    let _running = Running::start(Variant::Empty, Path::new("/"))?;
    let listener = TcpListener::bind(("127.0.0.1", UNWATCHED))?;
    let before = runs(statistics, EMPTIES[0])?;
    for _ in 0..ITERATIONS {
        loops::tcp_once(&listener)?;
    }
    let made = runs(statistics, EMPTIES[0])?.since(before);
    Ok(made.count as f64 / f64::from(ITERATIONS))
}
