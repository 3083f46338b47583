//! `cargo xtask vm-test`: the sensor on the kernels people run, in virtual machines.
//!
//! Each machine boots a kernel of Debian's archive with the released binary and a guest program as its whole user space
//! (`tests/vm-guest`). The guest provokes what the rows of the matrix promise, compares the sensor's records with what
//! really happened, and reports a verdict per row.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::command::say;
use crate::exit::{Reported, unsupported};
use crate::summary::Tally;
use crate::{packages, run, system};

mod disk;
mod initramfs;
mod kernels;
mod machine;
mod matrix;
mod media;
mod report;
mod table;
mod unpack;
mod verdict;
mod verifier;

use matrix::{KERNELS, MACHINES, Machine, Root};
use media::Media;
use report::Report;

/// What the machines are made of: an emulator, a shell for containers, real runtimes, what installs a disk and what unpacks
/// kernels.
pub const PACKAGES: &[&str] = &[
    "qemu-system-x86",
    "busybox-static",
    "runc",
    "crun",
    "debian-archive-keyring",
    "mmdebstrap",
    "e2fsprogs",
    "lz4",
    "zstd",
];
/// Machines without a disk at a time: they wait half of the time, so that these keep one core of a small builder busy, and no
/// machine gets less than two thirds of one when those with engines are left.
const SMALL_AT_A_TIME: usize = 2;
/// Machines with engines beside these, from the other end of the queue: they never wait, and keep the other core busy.
const LARGE_AT_A_TIME: usize = 1;

/// Boots Debian kernels in QEMU and checks on each that the sensor does what it promises; needs no root.
#[derive(Args)]
pub struct Options {
    /// Only machines with this kernel (may be repeated).
    #[arg(long, value_name = "NAME", value_parser = kernel_names())]
    kernel: Vec<String>,
    /// Only this machine, by its name in the list, such as "6.1 v2 disk" (may be repeated).
    #[arg(long, value_name = "NAME")]
    machine: Vec<String>,
    /// Test this binary instead of building one, such as one from a package.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Print the machines and what they try, and do nothing.
    #[arg(long)]
    list: bool,
    /// Record what was seen: the matrix in docs/kernel-hooks.md and the counts in docs/verifier.md. Needs the whole
    /// matrix, and writes nothing unless every row kept its promise.
    #[arg(long, conflicts_with_all = ["kernel", "machine", "binary", "list"])]
    write_docs: bool,
}

fn kernel_names() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(KERNELS.iter().map(|kernel| kernel.name))
}

/// Runs the subcommand.
pub fn run(options: &Options) -> Result<()> {
    if options.list {
        for machine in MACHINES {
            println!("{machine}: {}", machine.stages.join(", "));
        }
        return Ok(());
    }
    let is_machine = |name: &&String| MACHINES.iter().any(|machine| machine.to_string() == **name);
    if let Some(unknown) = options.machine.iter().find(|name| !is_machine(name)) {
        bail!("there is no machine {unknown:?}: `--list` names them");
    }
    let wanted = |machine: &&Machine| {
        (options.kernel.is_empty() || options.kernel.iter().any(|name| name == machine.kernel))
            && (options.machine.is_empty() || options.machine.contains(&machine.to_string()))
    };
    let machines: Vec<&Machine> = MACHINES.iter().filter(wanted).collect();
    let binary = options.binary.clone().map_or_else(run::build_release, Ok)?;
    let matrix = boot_all(&machines, &binary)?;
    let tally = judge(&matrix.finished, options.write_docs)?;
    if options.write_docs && tally.failed == 0 {
        table::write(&matrix)?;
        verifier::write(&matrix.finished)?;
    }
    print!("{}", slowest_stages(&matrix.finished));
    println!("{tally}; the machines were on for {}", matrix.cost());
    if tally.failed > 0 { Err(Reported.into()) } else { Ok(()) }
}

/// Where the time went: the stages that took longest.
fn slowest_stages(results: &[Finished]) -> String {
    const SHOWN: usize = 8;
    let reports: Vec<(&Machine, &Report)> = results
        .iter()
        .filter_map(|Finished { machine, result }| Some((*machine, result.as_ref().ok()?)))
        .collect();
    let mut stages: Vec<(Duration, String)> = reports
        .iter()
        .flat_map(|(machine, report)| {
            report.stages.iter().map(move |(name, duration)| (*duration, format!("{machine} {name}")))
        })
        .collect();
    stages.sort_unstable_by(|one, other| other.cmp(one));
    let stages: Vec<String> = stages
        .iter()
        .take(SHOWN)
        .map(|(duration, name)| format!("{name} {:.0} s", duration.as_secs_f32()))
        .collect();
    format!("the slowest stages: {}\n", stages.join(", "))
}

/// What `cargo xtask test` runs of the matrix.
///
/// # Errors
/// When the machines cannot be prepared; what they find is in the tally.
pub fn test(binary: &Path) -> Result<Tally> {
    let machines: Vec<&Machine> = MACHINES.iter().filter(|machine| matrix::is_tested(machine)).collect();
    judge(&boot_all(&machines, binary)?.finished, false)
}

/// Demands that the documents have the tables of the matrix as it is.
///
/// # Errors
/// When one of them is out of date.
pub fn check_documents() -> Result<()> {
    table::check()?;
    verifier::Budgets::read().map(drop)
}

/// A machine and what became of it.
pub struct Finished {
    machine: &'static Machine,
    result: Result<Report>,
}

/// Machines that are off again.
pub struct Matrix {
    finished: Vec<Finished>,
    /// From the first power on to the last power off: nothing that was built, fetched or prepared before.
    duration: Duration,
}

impl Matrix {
    /// Processor time of all emulators.
    fn work(&self) -> Duration {
        let reports = self.finished.iter().filter_map(|finished| finished.result.as_ref().ok());
        reports.map(|report| report.work).sum()
    }

    /// How long it took and how much work that was.
    fn cost(&self) -> String {
        format!("{:.0} s, {:.0} s of work", self.duration.as_secs_f32(), self.work().as_secs_f32())
    }
}

/// A machine that has not been booted yet, and what it boots from.
type Waiting = (&'static Machine, Media);

/// Prepares all that the machines need and boots them, some at a time.
fn boot_all(machines: &[&'static Machine], binary: &Path) -> Result<Matrix> {
    if !cfg!(target_arch = "x86_64") {
        return Err(unsupported(
            "the machines are x86-64 ones and run this system's programs: use an x86-64 system",
        ));
    }
    system::require_apt("a kernel to boot")?;
    packages::ensure(PACKAGES)?;
    let directory = run::target_directory().join("vm-test");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let media = media::prepare(machines, binary, &directory)?;

    let started = Instant::now();
    say(format!("{} machines; their consoles are in {}", machines.len(), directory.display()));
    let mut waiting: Vec<Waiting> = machines.iter().copied().zip(media).collect();
    // Of each kind the longest is taken first, so that none is left to run alone at the end.
    waiting.sort_by_key(|(machine, _)| match machine.root {
        Root::Initramfs => (0, Reverse(machine.stages.len())),
        Root::Disk => (machine.stages.len(), Reverse(0)),
    });
    let waiting = Mutex::new(VecDeque::from(waiting));
    let finished = Mutex::new(Vec::new());
    let run_all = |next: fn(&mut VecDeque<Waiting>) -> Option<Waiting>| {
        loop {
            let next = next(&mut waiting.lock().expect("invariant: no thread panics with it"));
            let Some((machine, media)) = next else { break };
            let result = machine::run(machine, &media, &directory);
            finished.lock().expect("invariant: no thread panics with it").push(Finished { machine, result });
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..SMALL_AT_A_TIME {
            scope.spawn(|| run_all(VecDeque::pop_front));
        }
        for _ in 0..LARGE_AT_A_TIME {
            scope.spawn(|| run_all(VecDeque::pop_back));
        }
    });
    let duration = started.elapsed();
    let mut finished = finished.into_inner().expect("invariant: no thread panics with it");
    finished
        .sort_by_key(|finished| MACHINES.iter().position(|machine| std::ptr::eq(machine, finished.machine)));
    Ok(Matrix { finished, duration })
}

/// Prints a verdict per machine and row and adds them up.
fn judge(results: &[Finished], renew: bool) -> Result<Tally> {
    let mut tally = Tally::default();
    let budgets = if renew { None } else { Some(verifier::Budgets::read()?) };
    for Finished { machine, result } in results {
        let report = match result {
            Ok(report) => report,
            Err(error) => {
                println!("{machine}: FAILED: {error:#}");
                tally.failed += 1;
                continue;
            }
        };
        println!("{machine}: {}, {report}", report.release);
        if report.attempts > 1 {
            println!("{machine}: it did not boot at the first attempt");
            tally.repeated += 1;
        }
        if !report.complete {
            println!("{machine}: FAILED: it did not come to the end of its stages");
            tally.failed += 1;
        }
        let mut verdicts = verdict::of_rows(machine, report);
        if let Some(budgets) = &budgets {
            verdicts.extend(budgets.judge(machine, &report.programs));
        }
        for verdict in verdicts {
            println!("{machine} {verdict}");
            match verdict.problem {
                None => tally.passed += 1,
                Some(_) => tally.failed += 1,
            }
        }
    }
    if results.is_empty() {
        bail!("no machine was run");
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_that_of_all_machines_and_the_slowest_stage_comes_first() {
        let report = |work: u64, stages: &[(&str, u64)]| Finished {
            machine: &MACHINES[0],
            result: Ok(Report {
                work: Duration::from_secs(work),
                stages: stages
                    .iter()
                    .map(|(name, seconds)| ((*name).to_owned(), Duration::from_secs(*seconds)))
                    .collect(),
                ..Report::default()
            }),
        };
        let finished = vec![report(10, &[("kinds", 4), ("loss", 6)]), report(5, &[("idle", 31)])];
        let machine = &MACHINES[0];
        let expected =
            format!("the slowest stages: {machine} idle 31 s, {machine} loss 6 s, {machine} kinds 4 s\n");
        assert_eq!(slowest_stages(&finished), expected);
        assert_eq!(Matrix { finished, duration: Duration::from_secs(9) }.cost(), "9 s, 15 s of work");
    }
}
