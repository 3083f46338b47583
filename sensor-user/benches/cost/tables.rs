//! What the core's tables take when they are full, and what a record takes with them: processor time of the whole core but
//! its decoding, so queues, judging and numbering included. The worst case, because no two records in a row are of the same
//! process or container, so that nothing of the tables is in the processor's caches; and records of a single container.

use std::hint::black_box;
use std::path::Path;

use procfs::process::Process;
use sensor_common::record::Ring;
use sensor_core::decode::decode;
use sensor_core::engine::Engine;
use sensor_core::time::ClockMap;
use zerocopy::IntoBytes as _;

use crate::statistics::median;
use crate::throughput::{Container, engine, fork, processor_time, write_exec};

const CONTAINERS: u64 = 10_000;
/// Each has executed a program of its own: forks that execute nothing share their parent's.
const PROCESSES: u64 = 100_000;
const START_NS: u64 = 2_000_000_000_000;
const STEP_NS: u64 = 2_000;
/// Times that all of them execute something once more.
const PASSES: usize = 5;
/// Records between two looks at the output.
const BATCH: u64 = 100;

/// Measures and prints the table.
pub fn print(_scratch: &Path) -> anyhow::Result<()> {
    let containers: Vec<Container> = (0..CONTAINERS).map(Container::numbered).collect();
    let spread = |number: u64| (number, &containers[(number % CONTAINERS) as usize]);
    let near = |number: u64| (number % (PROCESSES / CONTAINERS) * CONTAINERS, &containers[0]);
    let execs = |which: &dyn Fn(u64) -> _, take: &mut dyn FnMut(&[u8], u64, bool)| each(which, false, take);
    let decoded = &mut |bytes: &[u8], _, _| _ = black_box(decode(bytes));
    let decoding_pairs = per_process(|| each(&spread, true, decoded)) / 2.0;
    let decoding = per_process(|| execs(&spread, decoded));
    let decoding_near = per_process(|| execs(&near, decoded));

    let before = resident()?;
    let mut engine = engine(containers.iter().map(Container::seed).collect());
    let fed = &mut |bytes: &[u8], at_ns, is_last| feed(&mut engine, bytes, at_ns, is_last);
    let filling = per_process(|| each(&spread, true, fed)) / 2.0;
    let taken = resident()?.saturating_sub(before);
    let mut passes = |which: &dyn Fn(u64) -> _| {
        let times: Vec<f64> = (0..PASSES).map(|_| per_process(|| execs(which, fed))).collect();
        median(&times)
    };
    let (again, one) = (passes(&spread), passes(&near));
    let held = engine.statistics();
    anyhow::ensure!(
        held.processes as u64 >= PROCESSES && held.containers as u64 >= CONTAINERS,
        "the tables hold {} processes and {} containers only",
        held.processes,
        held.containers
    );

    println!("tables with {} containers and {} processes", held.containers, held.processes);
    println!("  memory                     {:8.1} MiB   aim < 64", taken as f64 / f64::from(1 << 20));
    println!("  enrichment, fork and exec  {:8.0} ns    aim < 2000, mean of both", filling - decoding_pairs);
    println!("  enrichment, exec           {:8.0} ns    aim < 2000", again - decoding);
    println!("  the same of one container  {:8.0} ns    aim < 2000", one - decoding_near);
    println!("  making and decoding exec   {decoding:8.0} ns\n");
    Ok(())
}

/// Makes an exec of each of the processes and containers that `which` names, and the fork before it if `forks`, one after the
/// other in the same place, as records lie in a ring that is small and warm, and hands each to `take` with its time and whether
/// a batch ends with it.
fn each<'a>(
    which: &dyn Fn(u64) -> (u64, &'a Container),
    forks: bool,
    take: &mut dyn FnMut(&[u8], u64, bool),
) {
    let mut bytes = Vec::new();
    for number in 0..PROCESSES {
        let (process, container) = which(number);
        let at_ns = START_NS + process * STEP_NS;
        if forks {
            let fork = fork(process, at_ns);
            take(black_box(fork.as_bytes()), at_ns, false);
        }
        write_exec(&mut bytes, process, at_ns, container);
        take(black_box(&bytes), at_ns, (number + 1).is_multiple_of(BATCH));
    }
}

/// Nanoseconds for each of [`PROCESSES`], of processor time: what else the machine does is not counted.
fn per_process(all: impl FnOnce()) -> f64 {
    let start = processor_time();
    all();
    (processor_time() - start).as_nanos() as f64 / PROCESSES as f64
}

/// From an encoded record to judged facts, which nobody writes.
fn feed(engine: &mut Engine, record: &[u8], at_ns: u64, is_last: bool) {
    engine.handle_record(Ring::Bulk, record);
    if is_last {
        // Later than the merge window, so that nothing of the batch waits.
        engine.poll(ClockMap { offset_ns: 1 << 60 }.at(at_ns + START_NS));
        while engine.next_request().is_some() {}
        while let Some(output) = engine.next_output() {
            black_box(output);
        }
    }
}

/// Resident memory of this process, bytes.
pub fn resident() -> anyhow::Result<u64> {
    let statm = Process::myself()?.statm()?;
    Ok(statm.resident * procfs::page_size())
}
