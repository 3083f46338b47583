//! The sensor beside what else can be installed from packages: bpftrace on the same tracepoints, auditd with rules for
//! accept and exec. Same load, same run.
//!
//! The loads run in processes of their own, because the kernel's audit knows only processes that began when it was on.
//! A tool that is faster because it tells less has not won: the table says how many of the accepts each one told.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::loops::{FORK_EXEC, Load, Sample, UNWATCHED_TCP, WATCHED, WATCHED_TCP};
use crate::sensor::{Sensor, cpu_of};
use crate::statistics::{median, median_ratio};
use crate::verdict::{self, Verdict};

/// Every load; the accepts of the first are counted.
const LOADS: [Load; 3] = [WATCHED_TCP, UNWATCHED_TCP, FORK_EXEC];
/// Time per load, tool and round.
const SLICE: Duration = Duration::from_millis(400);
/// Rounds; each has every tool once.
const ROUNDS: usize = 8;
/// How long a tool may take to start or to write what it knows.
const PATIENCE: Duration = Duration::from_secs(20);

/// What watches while the loads run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Nothing,
    /// Once more, to see how far a load differs from itself.
    NothingAgain,
    Quaywatch,
    Bpftrace,
    Auditd,
}

impl Tool {
    const ALL: [Self; 5] = [Self::Nothing, Self::NothingAgain, Self::Quaywatch, Self::Bpftrace, Self::Auditd];

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::NothingAgain => "nothing again",
            Self::Quaywatch => "quaywatch",
            Self::Bpftrace => "bpftrace",
            Self::Auditd => "auditd",
        }
    }

    fn start(self, scratch: &Path) -> anyhow::Result<Watch> {
        Ok(match self {
            Self::Nothing | Self::NothingAgain => Watch::Nothing,
            Self::Quaywatch => Watch::Quaywatch(Sensor::start(scratch)?),
            Self::Bpftrace => Watch::Bpftrace(Bpftrace::start(scratch)?),
            Self::Auditd => Watch::Auditd(Auditd::start(scratch)?),
        })
    }
}

/// A running tool.
enum Watch {
    Nothing,
    Quaywatch(Sensor),
    Bpftrace(Bpftrace),
    Auditd(Auditd),
}

/// What a tool has told of the accepts on the watched port.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// One by one.
    accepts: u64,
    /// In sums.
    summarised: u64,
    /// Events that it says it lost.
    lost: u64,
}

impl Watch {
    /// Processor time used so far.
    fn cpu(&self) -> anyhow::Result<Duration> {
        match self {
            Self::Nothing => Ok(Duration::ZERO),
            Self::Quaywatch(sensor) => sensor.cpu(),
            Self::Bpftrace(bpftrace) => cpu_of(bpftrace.child.0.id()),
            // The kernel's thread hands the records over.
            Self::Auditd(auditd) => Ok(cpu_of(auditd.child.0.id())? + cpu_of(auditd.kernel_thread)?),
        }
    }

    fn stop(self) -> anyhow::Result<Told> {
        match self {
            Self::Nothing => Ok(Told::default()),
            Self::Quaywatch(sensor) => told_by_quaywatch(sensor),
            Self::Bpftrace(bpftrace) => bpftrace.stop(),
            Self::Auditd(auditd) => auditd.stop(),
        }
    }
}

/// What is known of one tool.
#[derive(Debug, Default)]
struct Measured {
    /// Nanoseconds per iteration, [load][round].
    times: [Vec<f64>; LOADS.len()],
    accepts: u64,
    told: Told,
    cpu: Duration,
    wall: Duration,
}

impl Measured {
    /// Accepts that were neither told nor summed up.
    const fn untold(&self) -> u64 {
        self.accepts.saturating_sub(self.told.accepts + self.told.summarised)
    }

    fn beside(&self, tool: Tool) -> verdict::Measured<'_> {
        // What a tool says that it lost is in part what it did not tell.
        let missed = self.untold().max(self.told.lost);
        verdict::Measured { name: tool.name(), times: &self.times, accepts: self.accepts, missed }
    }
}

/// Measures and prints the table and the verdict.
pub fn print(scratch: &Path) -> anyhow::Result<Verdict> {
    let mut measured = Tool::ALL.map(|_| Measured::default());
    for round in 0..ROUNDS {
        for step in 0..Tool::ALL.len() {
            let index = (round + step) % Tool::ALL.len();
            let tool = Tool::ALL[index];
            measure(tool, scratch, &mut measured[index]).with_context(|| tool.name())?;
        }
        eprint!("\rround {} of {ROUNDS}", round + 1);
    }
    eprintln!();
    println!("beside others: speed with the tool, without = 1; median of the ratios of {ROUNDS} rounds");
    println!(
        "  {:<10} {:>13} {:>11} {:>10} {:>10} {:>9} {:>11} {:>9} {:>7} {:>9}",
        "tool",
        "watched port",
        "other port",
        "fork+exec",
        "accepts",
        "told",
        "summarised",
        "not told",
        "lost",
        "processor"
    );
    let [nothing, again, tools @ ..] = &measured;
    for (tool, measured) in Tool::ALL[2..].iter().zip(tools) {
        let [watched, other, exec] =
            [0, 1, 2].map(|load| median_ratio(&nothing.times[load], &measured.times[load]));
        let Told { accepts, summarised, lost } = measured.told;
        println!(
            "  {:<10} {watched:>13.3} {other:>11.3} {exec:>10.3} {:>10} {accepts:>9} {summarised:>11} {:>9} {lost:>7} {:>8.1}%",
            tool.name(),
            measured.accepts,
            measured.untold(),
            measured.cpu.as_secs_f64() / measured.wall.as_secs_f64() * 100.0,
        );
    }
    println!(
        "  without any: {} us per connection on the watched port, {} us per fork+exec",
        (median(&nothing.times[0]) / 1e3).round(),
        (median(&nothing.times[2]) / 1e3).round(),
    );
    let loads = LOADS.map(|load| load.name);
    let noise = verdict::noise(&nothing.times, &again.times);
    let percent: Vec<String> = noise.iter().map(|noise| format!("{:.1}", noise * 100.0)).collect();
    println!("  noise: without any, twice in each round, the loads differ by {} %", percent.join(", "));
    let [ours, others @ ..] = tools;
    let others: Vec<_> =
        Tool::ALL[3..].iter().zip(others).map(|(tool, measured)| measured.beside(*tool)).collect();
    let verdict = verdict::judge(&loads, &noise, &ours.beside(Tool::Quaywatch), &others);
    println!("  verdict: {verdict}\n");
    Ok(verdict)
}

/// Name of the flag with which this program runs one load for [`in_child`]; its number follows.
pub const LOAD_FLAG: &str = "--load";

/// Runs a load and tells the result on standard output.
pub fn run_load(number: &str) -> anyhow::Result<()> {
    let load = number.parse().ok().and_then(|number: usize| LOADS.get(number));
    let Sample { iteration_ns, count } = load.context("no such load")?.run(SLICE)?;
    println!("{iteration_ns} {count}");
    Ok(())
}

/// Runs a load in a new process.
fn in_child(number: usize) -> anyhow::Result<Sample> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.args([LOAD_FLAG, &number.to_string()]).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the load failed ({})", output.status);
    let text = String::from_utf8(output.stdout)?;
    let (iteration_ns, count) = text.trim().split_once(' ').context("the load told nothing")?;
    Ok(Sample { iteration_ns: iteration_ns.parse()?, count: count.parse()? })
}

fn measure(tool: Tool, scratch: &Path, measured: &mut Measured) -> anyhow::Result<()> {
    let watch = tool.start(scratch)?;
    let (start, before) = (Instant::now(), watch.cpu()?);
    for index in 0..LOADS.len() {
        let sample = in_child(index)?;
        measured.times[index].push(sample.iteration_ns);
        // Rules of audit know no ports.
        if index == 0 || index == 1 && tool == Tool::Auditd {
            measured.accepts += sample.count;
        }
    }
    measured.wall += start.elapsed();
    measured.cpu += watch.cpu()? - before;
    let told = watch.stop()?;
    measured.told.accepts += told.accepts;
    measured.told.summarised += told.summarised;
    measured.told.lost += told.lost;
    Ok(())
}

fn told_by_quaywatch(sensor: Sensor) -> anyhow::Result<Told> {
    let output = sensor.output.clone();
    let last: Value = serde_json::from_str(&sensor.stop()?).context("the last line of the sensor")?;
    ensure!(last["health"]["state"] == "stopping", "the sensor did not end in order: {last}");
    let losses = last["health"]["loss"].as_array().context("health without loss")?;
    let sum = |key: &str, kind: Option<&str>| -> u64 {
        let of_kind = |loss: &&Value| kind.is_none_or(|kind| loss["kind"] == kind);
        losses.iter().filter(of_kind).filter_map(|loss| loss[key].as_u64()).sum()
    };
    let text = fs::read_to_string(output)?;
    let (kind, port) = (r#""kind":"accept""#, format!(r#""port":{WATCHED}"#));
    let accepts = text.lines().filter(|line| line.contains(kind) && line.contains(&port)).count() as u64;
    Ok(Told { accepts, summarised: sum("suppressed", Some("accept")), lost: sum("lost", None) })
}

/// A child that is ended when it is dropped.
struct Process(Child);

impl Process {
    fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        if self.0.try_wait()?.is_none() {
            kill_process(Pid::from_child(&self.0), signal)?;
        }
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.end(Signal::TERM) {
            eprintln!("stopping a process: {error:#}");
        }
    }
}

/// Waits until `is_so`, or fails.
fn wait_until(what: &str, mut is_so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        if Instant::now() > deadline {
            bail!("{what}: not within {} s", PATIENCE.as_secs());
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// bpftrace with a script that prints what the sensor's probes report.
struct Bpftrace {
    child: Process,
    output: PathBuf,
    messages: PathBuf,
}

/// 3 and 1 are `TCP_SYN_RECV` and `TCP_ESTABLISHED`.
const SCRIPT: &str = r#"
BEGIN { printf("ready\n"); }
tracepoint:sock:inet_sock_set_state
/args->oldstate == 3 && args->newstate == 1 && (args->sport == 2375 || args->sport == 2376 || args->sport == 6443 || args->sport == 10250 || args->sport == 10255)/
{ printf("accept %llu %d %s %d\n", nsecs, args->sport, ntop(args->family, args->daddr), args->dport); }
tracepoint:sched:sched_process_exec { printf("exec %llu %d %d %s %s\n", nsecs, pid, uid, comm, str(args->filename)); }
tracepoint:sched:sched_process_fork { printf("fork %llu %d %d\n", nsecs, args->parent_pid, args->child_pid); }
tracepoint:sched:sched_process_exit { printf("exit %llu %d\n", nsecs, args->pid); }
"#;

impl Bpftrace {
    fn start(scratch: &Path) -> anyhow::Result<Self> {
        let (output, messages) = (scratch.join("bpftrace.txt"), scratch.join("bpftrace.err"));
        let child = Command::new("bpftrace")
            .args(["-e", SCRIPT])
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(File::create(&messages)?)
            .spawn()
            .context("starting bpftrace")?;
        let mut bpftrace = Self { child: Process(child), output, messages };
        wait_until("bpftrace attaches", || {
            if let Some(status) = bpftrace.child.0.try_wait()? {
                bail!("bpftrace ended ({status}): {}", fs::read_to_string(&bpftrace.messages)?);
            }
            Ok(fs::read_to_string(&bpftrace.output)?.contains("ready"))
        })?;
        Ok(bpftrace)
    }

    fn stop(mut self) -> anyhow::Result<Told> {
        self.child.end(Signal::INT)?;
        let told = fs::read_to_string(&self.output)?;
        let watched = format!(" {WATCHED} ");
        let is_ours = |line: &&str| line.starts_with("accept ") && line.contains(&watched);
        let messages = [fs::read_to_string(&self.messages)?, told.clone()].concat();
        let lost = messages
            .lines()
            .filter_map(|line| line.strip_prefix("Lost ")?.split(' ').next()?.parse::<u64>().ok());
        Ok(Told { accepts: told.lines().filter(is_ours).count() as u64, summarised: 0, lost: lost.sum() })
    }
}

/// auditd with its own log, and rules for accept and exec.
struct Auditd {
    child: Process,
    kernel_thread: u32,
    log: PathBuf,
    lost_before: u64,
}

const ACCEPT_KEY: &str = "quaywatch-bench-accept";
const RULES: [&[&str]; 2] = [
    &["-a", "always,exit", "-F", "arch=b64", "-S", "accept,accept4", "-k", ACCEPT_KEY],
    &["-a", "always,exit", "-F", "arch=b64", "-S", "execve,execveat", "-k", "quaywatch-bench-exec"],
];

impl Auditd {
    fn start(scratch: &Path) -> anyhow::Result<Self> {
        let directory = scratch.join("audit");
        fs::create_dir_all(&directory)?;
        let log = directory.join("audit.log");
        // Left by the previous round.
        if log.exists() {
            fs::remove_file(&log)?;
        }
        ensure!(status("pid")? == 0, "another auditd runs on this machine");
        let configuration = [
            format!("log_file = {}", log.display()),
            "log_group = root\nlog_format = RAW\nflush = INCREMENTAL_ASYNC\nfreq = 50".to_owned(),
            "max_log_file = 8\nmax_log_file_action = IGNORE\nspace_left = 75".to_owned(),
            "space_left_action = IGNORE\nadmin_space_left = 50\nadmin_space_left_action = IGNORE".to_owned(),
            "disk_full_action = IGNORE\ndisk_error_action = IGNORE\nlocal_events = yes".to_owned(),
            "write_logs = yes\n".to_owned(),
        ];
        fs::write(directory.join("auditd.conf"), configuration.join("\n"))?;
        let messages = directory.join("messages");
        let child = Command::new("auditd")
            .args(["-n", "-c"])
            .arg(&directory)
            .stdin(Stdio::null())
            .stdout(File::create(&messages)?)
            .stderr(File::options().append(true).open(&messages)?)
            .spawn()
            .context("starting auditd")?;
        let mut child = Process(child);
        let pid = u64::from(child.0.id());
        wait_until("auditd registers with the kernel", || {
            if let Some(status) = child.0.try_wait()? {
                bail!("auditd ended ({status}): {}", fs::read_to_string(&messages)?);
            }
            Ok(status("pid")? == pid)
        })?;
        let auditd = Self { child, kernel_thread: kernel_thread()?, log, lost_before: status("lost")? };
        // The size of the queue that distributions set.
        auditctl(&["-b", "8192"])?;
        auditctl(&["-e", "1"])?;
        RULES.iter().try_for_each(|rule| auditctl(rule).map(drop))?;
        Ok(auditd)
    }

    fn stop(mut self) -> anyhow::Result<Told> {
        auditctl(&["-D"])?;
        wait_until("auditd writes what is queued", || Ok(status("backlog")? == 0))?;
        let lost = status("lost")? - self.lost_before;
        self.child.end(Signal::TERM)?;
        let text = fs::read_to_string(&self.log)?;
        let (kind, key) = ("type=SYSCALL", format!("key=\"{ACCEPT_KEY}\""));
        let accepts = text.lines().filter(|line| line.starts_with(kind) && line.contains(&key)).count();
        Ok(Told { accepts: accepts as u64, summarised: 0, lost })
    }
}

impl Drop for Auditd {
    fn drop(&mut self) {
        for arguments in [["-D"].as_slice(), &["-e", "0"]] {
            if let Err(error) = auditctl(arguments) {
                eprintln!("restoring the kernel's audit: {error:#}");
            }
        }
    }
}

/// A number of `auditctl -s`.
fn status(name: &str) -> anyhow::Result<u64> {
    let text = auditctl(&["-s"])?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("auditctl -s without `{name}`"))?.trim().parse()?)
}

fn auditctl(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("auditctl").args(arguments).output().context("starting auditctl")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "auditctl {}: {text}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

/// The kernel's thread that feeds auditd.
fn kernel_thread() -> anyhow::Result<u32> {
    let processes =
        fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let is_it = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "kauditd")
    };
    processes.into_iter().find(is_it).context("the kernel has no kauditd")
}
