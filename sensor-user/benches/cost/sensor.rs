//! The sensor under measurement, as a child process, and the empty programs it is compared with.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aya::programs::{BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType};
use aya::{Btf, Ebpf, EbpfLoader};
use rustix::process::{Pid, Signal, kill_process};

/// The empty counterparts of the probes, built with them.
static EMPTY: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/quaywatch-baseline"));

/// The probes. Those on tracepoints bear the names of their hooks, but for [`WAKEUPS`].
pub const PROBES: [&str; 8] = [
    "inet_sock_set_state",
    "sched_process_exec",
    "sched_process_fork",
    "sched_process_exit",
    "cgroup_mkdir",
    "cgroup_rmdir",
    PACKETS,
    WAKEUPS,
];

/// The empty programs, in the order of [`PROBES`].
pub const EMPTIES: [&str; 8] = [
    "empty_state",
    "empty_exec",
    "empty_fork",
    "empty_exit",
    "empty_mkdir",
    "empty_rmdir",
    "empty_packets_in",
    "empty_wakeup",
];

/// The probe on the packets that come in.
const PACKETS: &str = "packets_in";

/// The probe on what is put into the queue of a socket.
const WAKEUPS: &str = "unix_data_ready";

/// What runs while a load is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Nothing.
    Bare,
    /// Empty programs on the sensor's hooks.
    Empty,
    /// The sensor as it is by default: flood control withholds most accepts of a loop.
    Sensor,
    /// The sensor with budgets so large that it tells of every accept.
    Telling,
}

impl Variant {
    /// Every variant.
    pub const ALL: [Self; 4] = [Self::Bare, Self::Empty, Self::Sensor, Self::Telling];
}

/// A running variant; ends when dropped.
pub enum Running {
    /// Nothing runs.
    Bare,
    /// Programs stay attached while this lives.
    Empty(#[expect(dead_code, reason = "held for its links")] Box<Ebpf>),
    /// The child process.
    Sensor(#[expect(dead_code, reason = "held for the process, which ends with it")] Sensor),
}

impl Running {
    /// Starts a variant and waits until it is in place.
    pub fn start(variant: Variant, scratch: &Path) -> anyhow::Result<Self> {
        Ok(match variant {
            Variant::Bare => Self::Bare,
            Variant::Empty => Self::Empty(Box::new(attach_empty()?)),
            Variant::Sensor => Self::Sensor(Sensor::start_as(&mut Sensor::command(), scratch)?),
            Variant::Telling => Self::Sensor(Sensor::start(scratch)?),
        })
    }
}

fn attach_empty() -> anyhow::Result<Ebpf> {
    let btf = Btf::from_sys_fs().context("reading the kernel's BTF")?;
    let mut object = EbpfLoader::new().btf(Some(&btf)).load(EMPTY).context("loading the empty programs")?;
    for (probe, name) in PROBES.into_iter().zip(EMPTIES) {
        let program = object.program_mut(name).with_context(|| format!("no program `{name}`"))?;
        if probe == PACKETS {
            let program: &mut CgroupSkb = program.try_into()?;
            program.load()?;
            program.attach(root_cgroup()?, CgroupSkbAttachType::Ingress, CgroupAttachMode::Single)?;
        } else {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(if probe == WAKEUPS { "sk_data_ready" } else { probe }, &btf)?;
            program.attach()?;
        }
    }
    Ok(object)
}

/// The root of the version 2 cgroups.
fn root_cgroup() -> anyhow::Result<File> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let mut lines = mounts.lines().map(|line| line.split(' '));
    let path = lines
        .find_map(|mut fields| {
            let path = fields.nth(1)?;
            (fields.next()? == "cgroup2").then_some(path)
        })
        .context("cgroup2 is not mounted")?;
    File::open(path).with_context(|| path.to_owned())
}

/// A sensor writing to a file, so that no reader of its output takes processor time.
pub struct Sensor {
    child: Child,
    /// Where its lines go.
    pub output: PathBuf,
}

impl Sensor {
    /// Starts a sensor that tells of every accept and waits for its `ready` record. What a record costs is measured
    /// nearly everywhere, not what it costs to withhold one.
    pub fn start(scratch: &Path) -> anyhow::Result<Self> {
        Self::start_as(&mut Self::telling(), scratch)
    }

    fn start_as(command: &mut Command, scratch: &Path) -> anyhow::Result<Self> {
        let output = scratch.join("sensor.ndjson");
        let file = File::create(&output)?;
        let child = command.stdout(file).spawn().context("starting the sensor")?;
        let mut sensor = Self { child, output };
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let mut head = vec![0; 65_536];
            let read = File::open(&sensor.output)?.read(&mut head)?;
            if head[..read].windows(15).any(|window| window == br#""state":"ready""#) {
                return Ok(sensor);
            }
            if let Some(status) = sensor.child.try_wait()? {
                anyhow::bail!("the sensor ended before it was ready ({status})");
            }
            anyhow::ensure!(Instant::now() < deadline, "the sensor was not ready within 20 s");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The command that runs the sensor with its defaults.
    fn command() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quaywatch"));
        command.arg("run").stdin(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// The command that runs a sensor which withholds nothing.
    pub fn telling() -> Command {
        let mut command = Self::command();
        command.envs([("QUAYWATCH_FLOOD_BURST", "100000"), ("QUAYWATCH_FLOOD_PER_SECOND", "100000")]);
        command
    }

    /// Resident memory, bytes.
    pub fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS line")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// The part of the resident memory that is the kernel's ring buffers, bytes: they are mapped twice in a row, so that
    /// no record is cut at their end, and the kernel counts every page both times.
    pub fn resident_rings(&self) -> anyhow::Result<u64> {
        let maps = std::fs::read_to_string(format!("/proc/{}/smaps", self.child.id()))?;
        let mut is_ring = false;
        let mut kib = 0;
        for line in maps.lines() {
            if let Some(resident) = line.strip_prefix("Rss:") {
                kib += if is_ring { resident.trim().trim_end_matches(" kB").parse::<u64>()? } else { 0 };
            } else if line.contains('-') && line.contains(' ') && !line.ends_with("kB") {
                is_ring = line.contains("bpf-map");
            }
        }
        Ok(kib * 1024)
    }

    /// Processor time used so far, user and system.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(self.child.id())
    }

    /// Stops the sensor and returns its last line.
    pub fn stop(mut self) -> anyhow::Result<String> {
        self.terminate()?;
        let text = std::fs::read_to_string(&self.output)?;
        Ok(text.lines().last().unwrap_or_default().to_owned())
    }

    fn terminate(&mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_none() {
            let pid = Pid::from_child(&self.child);
            kill_process(pid, Signal::TERM)?;
        }
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        if let Err(error) = self.terminate() {
            eprintln!("stopping the sensor: {error:#}");
        }
    }
}

/// Processor time a process has used so far, user and system.
pub fn cpu_of(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path)?;
    let after_name = stat.rsplit_once(')').with_context(|| format!("no process name in {path}"))?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks =
        || -> anyhow::Result<u64> { Ok(fields.next().with_context(|| format!("{path} is short"))?.parse()?) };
    let ticks = ticks()? + ticks()?;
    Ok(Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second()))
}
