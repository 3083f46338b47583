//! What the sensor costs, as a table; run by `cargo xtask bench`.
//!
//! Slowdowns are ratios of rounds that alternate between no programs, empty programs on the same hooks, and the sensor,
//! so that a machine that changes its speed changes all three. Absolute times are those of this machine.

mod latency;
mod loops;
mod programs;
mod sensor;
mod throughput;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use loops::{LOADS, UNWATCHED, WATCHED};
use programs::{Runs, Statistics};
use sensor::{EMPTIES, HOOKS, Running, Sensor, Variant};

/// Time per load, variant and round.
const SLICE: Duration = Duration::from_millis(250);
/// Rounds; each has every variant once.
const ROUNDS: usize = 15;
/// Accepts whose latency is measured.
const LATENCIES: usize = 1_000;

fn main() -> anyhow::Result<()> {
    // `cargo test --benches` calls benchmarks with this flag, to see that they start.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let scratch = tempfile::tempdir()?;
    println!("quaywatch cost on {} ({} processors)\n", kernel(), processors()?);
    slowdown(scratch.path())?;
    per_run(scratch.path())?;
    idle(scratch.path())?;
    let latency = latency::measure(LATENCIES)?;
    println!("kernel to line, {} accepts", latency.samples);
    println!("  p50 {:8.2} ms", latency.p50.as_secs_f64() * 1e3);
    println!("  p99 {:8.2} ms   aim <= 12\n", latency.p99.as_secs_f64() * 1e3);
    let throughput = throughput::measure(Duration::from_secs(3));
    println!("encoded records to JSON lines, one thread, accept : close : exec = 1 : 1 : 1");
    println!("  {:8.0} records/s   aim >= 500000", throughput.records_per_s);
    println!("  {:8.0} bytes of JSON per record", throughput.bytes_per_record);
    Ok(())
}

fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn processors() -> anyhow::Result<usize> {
    Ok(std::thread::available_parallelism()?.get())
}

/// Throughput with programs as a share of the throughput without, per load.
fn slowdown(scratch: &Path) -> anyhow::Result<()> {
    // [load][variant][round], nanoseconds per iteration.
    let mut times = vec![vec![Vec::with_capacity(ROUNDS); Variant::ALL.len()]; LOADS.len()];
    for round in 0..ROUNDS {
        for step in 0..Variant::ALL.len() {
            let index = (round + step) % Variant::ALL.len();
            let _running = Running::start(Variant::ALL[index], scratch)?;
            for (load, times) in LOADS.iter().zip(&mut times) {
                times[index].push(load.run(SLICE)?);
            }
        }
        eprint!("\rround {} of {ROUNDS}", round + 1);
    }
    eprintln!();
    println!("speed with programs, bare = 1; median of the ratios of {ROUNDS} interleaved rounds");
    println!(
        "  {:<36} {:>10} {:>8} {:>8} {:>14} {:>7}",
        "load", "bare", "empty", "sensor", "sensor/empty", "aim"
    );
    for (load, times) in LOADS.iter().zip(&times) {
        let [bare, empty, sensor] = &times[..] else { anyhow::bail!("three variants are expected") };
        println!(
            "  {:<36} {:>7.2} us {:>8.3} {:>8.3} {:>14.3} {:>7}",
            load.name,
            median(bare) / 1e3,
            ratio(bare, empty),
            ratio(bare, sensor),
            ratio(empty, sensor),
            load.aim.map_or_else(String::new, |aim| format!(">={aim}")),
        );
    }
    println!();
    Ok(())
}

/// Median over the rounds of a / b.
fn ratio(a: &[f64], b: &[f64]) -> f64 {
    let ratios: Vec<f64> = a.iter().zip(b).map(|(a, b)| a / b).collect();
    median(&ratios)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}

/// Nanoseconds per run by the kernel's own statistics.
fn per_run(scratch: &Path) -> anyhow::Result<()> {
    let statistics = Statistics::enable()?;
    println!("nanoseconds per run, kernel statistics");
    println!("  {:<54} {:>8} {:>8} {:>7}", "program and load", "empty", "sensor", "aim");
    let state = |runs: &BTreeMap<&str, Runs>| runs.values().copied().next().unwrap_or_default();
    let mut rows = Vec::new();
    for (variant, names) in [(Variant::Empty, EMPTIES), (Variant::Sensor, HOOKS)] {
        let running = Running::start(variant, scratch)?;
        let during = |name: &'static str, load: &dyn Fn() -> anyhow::Result<f64>| -> anyhow::Result<Runs> {
            let before = state(&statistics.read(&[name])?);
            load()?;
            Ok(state(&statistics.read(&[name])?).since(before))
        };
        let [sockets, exec, fork, exit, ..] = names;
        let slice = SLICE * 4;
        rows.push([
            during(sockets, &|| loops::tcp(UNWATCHED, slice))?,
            during(sockets, &|| loops::tcp(WATCHED, slice))?,
            during(exec, &|| LOADS[2].run(slice))?,
            during(fork, &|| LOADS[2].run(slice))?,
            during(exit, &|| LOADS[2].run(slice))?,
        ]);
        drop(running);
    }
    let [empty, sensor] = &rows[..] else { anyhow::bail!("two variants are expected") };
    let labels = [
        ("inet_sock_set_state, transition on an unwatched port", "<=45"),
        ("inet_sock_set_state, transition on a watched port", ""),
        ("sched_process_exec, short arguments, emitted", "<=1300"),
        ("sched_process_fork, emitted", ""),
        ("sched_process_exit, emitted", ""),
    ];
    for (index, (label, aim)) in labels.into_iter().enumerate() {
        println!("  {label:<54} {:>8.0} {:>8.0} {aim:>7}", empty[index].mean(), sensor[index].mean());
    }
    // A watched loop makes the same transitions as an unwatched one, and two records: the accept and its end.
    let (unwatched, watched) = (sensor[0], sensor[1]);
    let per_iteration = transitions_per_iteration()?;
    let record = unwatched.mean() + (watched.mean() - unwatched.mean()) * per_iteration / 2.0;
    println!(
        "  {:<54} {:>8} {record:>8.0} {:>7}\n",
        "inet_sock_set_state, transition that emits a record", "", "<=160"
    );
    Ok(())
}

/// Transitions of one connect+accept+close, counted.
fn transitions_per_iteration() -> anyhow::Result<f64> {
    let statistics = Statistics::enable()?;
    let running = Running::start(Variant::Empty, Path::new("/"))?;
    let listener = std::net::TcpListener::bind(("127.0.0.1", UNWATCHED))?;
    let count = |names: &[&'static str]| -> anyhow::Result<u64> {
        Ok(statistics.read(names)?.values().next().context("the empty program is not loaded")?.count)
    };
    const ITERATIONS: u32 = 2_000;
    let before = count(&EMPTIES[..1])?;
    for _ in 0..ITERATIONS {
        loops::tcp_once(&listener)?;
    }
    let after = count(&EMPTIES[..1])?;
    drop(running);
    Ok((after - before) as f64 / f64::from(ITERATIONS))
}

/// Memory and processor time of a sensor that has nothing to do.
fn idle(scratch: &Path) -> anyhow::Result<()> {
    let sensor = Sensor::start(scratch)?;
    std::thread::sleep(Duration::from_secs(2));
    let before = sensor.cpu()?;
    const SPAN: Duration = Duration::from_secs(5);
    std::thread::sleep(SPAN);
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
