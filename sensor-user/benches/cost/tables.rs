//! What the core's tables take when they are full, and what looking into them takes per record.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use procfs::process::Process;
use sensor_common::record::Ring;
use sensor_core::decode::decode;
use sensor_core::engine::Engine;
use sensor_core::time::ClockMap;

use crate::throughput::{Container, engine, exec};

const CONTAINERS: u64 = 10_000;
/// Each has executed a program of its own: forks that execute nothing share their parent's.
const PROCESSES: u64 = 100_000;
const START_NS: u64 = 2_000_000_000_000;
const STEP_NS: u64 = 2_000;
/// Records between two looks at the output.
const BATCH: usize = 100;

/// Measures and prints the table.
pub fn print(_scratch: &Path) -> anyhow::Result<()> {
    let containers: Vec<Container> = (0..CONTAINERS).map(Container::numbered).collect();
    let records: Vec<Vec<u8>> = (0..PROCESSES)
        .map(|number| {
            let container = &containers[(number % CONTAINERS) as usize];
            exec(number, START_NS + number * STEP_NS, container)
        })
        .collect();
    let decoding = per_record(|| {
        for record in &records {
            let _ = black_box(decode(black_box(record)));
        }
    });

    let before = resident()?;
    let mut engine = engine(containers.iter().map(Container::seed).collect());
    let filling = per_record(|| feed(&mut engine, &records));
    let taken = resident()?.saturating_sub(before);
    let again = per_record(|| feed(&mut engine, &records));
    let held = engine.statistics();
    anyhow::ensure!(
        held.processes as u64 >= PROCESSES && held.containers as u64 >= CONTAINERS,
        "the tables hold {} processes and {} containers only",
        held.processes,
        held.containers
    );

    println!("tables with {} containers and {} processes", held.containers, held.processes);
    println!("  memory                     {:8.1} MiB   aim < 64", taken as f64 / f64::from(1 << 20));
    println!("  enrichment, new process    {:8.0} ns    aim < 2000", filling - decoding);
    println!("  enrichment, known process  {:8.0} ns    aim < 2000", again - decoding);
    println!("  decoding                   {decoding:8.0} ns\n");
    Ok(())
}

/// Nanoseconds of each of [`PROCESSES`] records.
fn per_record(all: impl FnOnce()) -> f64 {
    let start = Instant::now();
    all();
    start.elapsed().as_nanos() as f64 / PROCESSES as f64
}

/// From encoded records to judged facts, which nobody writes.
fn feed(engine: &mut Engine, records: &[Vec<u8>]) {
    let mut now_ns = START_NS;
    for batch in records.chunks(BATCH) {
        for record in batch {
            engine.handle_record(Ring::Bulk, record);
            now_ns += STEP_NS;
        }
        // Later than the merge window, so that nothing of the batch waits.
        engine.poll(ClockMap { offset_ns: 1 << 60 }.at(now_ns + START_NS));
        while engine.next_request().is_some() {}
        while let Some(output) = engine.next_output() {
            black_box(output);
        }
    }
}

/// Resident memory of this process, bytes.
fn resident() -> anyhow::Result<u64> {
    let statm = Process::myself()?.statm()?;
    Ok(statm.resident * procfs::page_size())
}
