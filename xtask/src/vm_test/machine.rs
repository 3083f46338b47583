//! One virtual machine: QEMU's software emulation, two serial ports, a time limit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use super::matrix::{Cgroups, Machine, PREPARATION, Root};
use super::media::Media;
use super::report::Report;
use crate::command;

/// The emulator.
const QEMU: &str = "qemu-system-x86_64";
/// Without `cx16` and `la57` the emulated instructions crash some kernels now and then, or slow them down. Without `erms` a
/// copy takes 8 bytes at a step and not 1; without `smap` and `smep` a copy to or from a program is no switch of modes, each
/// of which ends what is translated at once. Together the three are a fifth of the work.
const CPU: &str = "max,-cx16,-la57,-erms,-smap,-smep";
/// From 7.0 on probes get memory for marks of sockets only where the processor has `cmpxchg16b`, as every real one does.
const CPU_FROM_7: &str = "max,-la57,-erms,-smap,-smep";
const MEMORY: &str = "768M";
/// Memory of a machine with engines in it.
const MEMORY_WITH_DISK: &str = "2G";
/// What no machine needs: tests of ciphers and of the timer, pages that are cleared before they are used, and defences
/// against programs that watch the processor.
const QUICK: &str = "cryptomgr.notests no_timer_check init_on_alloc=0 mitigations=off";
/// The stage in which a machine goes to sleep.
const SLEEPS: &str = "time";
/// The disk in the machine.
const DISK: &str = "/dev/vda";
/// A boot and all stages take a sixth of this on an idle machine.
const TIME_LIMIT: Duration = Duration::from_secs(300);
/// The same of a machine with engines in it.
const TIME_LIMIT_WITH_DISK: Duration = Duration::from_secs(900);
/// A machine that does not boot is given another try; once its guest has said a word, its report is final.
const ATTEMPTS: u32 = 2;
const POLL: Duration = Duration::from_millis(50);

/// Boots a machine, waits until it is off, and reads what it reported, however far it came. Console and report stay in
/// `directory`.
///
/// # Errors
/// When QEMU cannot be started, or no attempt came as far as the first word of the guest; with the end of the last console.
pub fn run(machine: &Machine, media: &Media, directory: &Path) -> Result<Report> {
    let mut last = None;
    for attempt in 1..=ATTEMPTS {
        let files = Files::new(directory, machine, attempt);
        let (report, ended) = boot(machine, media, &files)?;
        let report = Report { attempts: attempt, ..report };
        let Err(error) = ended else { return Ok(report) };
        command::say(format!("{machine}, attempt {attempt}: {error:#}"));
        if report.has_begun() {
            return Ok(report);
        }
        last = Some(error);
    }
    Err(last.expect("invariant: there is at least one attempt"))
}

fn cpu(machine: &Machine) -> &'static str {
    if machine.kernel == "7.x" { CPU_FROM_7 } else { CPU }
}

/// Where the serial ports of a machine end.
struct Files {
    console: PathBuf,
    report: PathBuf,
}

impl Files {
    fn new(directory: &Path, machine: &Machine, attempt: u32) -> Self {
        let file = |what: &str| directory.join(format!("{}-{attempt}.{what}", machine.slug()));
        Self { console: file("console"), report: file("report") }
    }
}

/// Boots a machine once: what it reported, and whether it ended as it should.
fn boot(machine: &Machine, media: &Media, files: &Files) -> Result<(Report, Result<()>)> {
    let (memory, time_limit) = match media.disk {
        None => (MEMORY, TIME_LIMIT),
        Some(_) => (MEMORY_WITH_DISK, TIME_LIMIT_WITH_DISK),
    };
    let mut command = Command::new(QEMU);
    command
        .args(["-accel", "tcg", "-cpu", cpu(machine), "-m", memory, "-smp", "1"])
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .arg("-serial")
        .arg(format!("file:{}", files.console.display()))
        .arg("-serial")
        .arg(format!("file:{}", files.report.display()))
        .arg("-kernel")
        .arg(kernel_file(machine, media))
        .arg("-initrd")
        .arg(&media.initramfs)
        .args(["-append", &command_line(machine)])
        .stdin(Stdio::null());
    if let Some(disk) = &media.disk {
        // What a machine of the matrix writes goes to a temporary file.
        let snapshot = if std::ptr::eq(machine, &raw const PREPARATION) { "off" } else { "on" };
        command.arg("-drive");
        command.arg(format!("file={},format=raw,if=virtio,snapshot={snapshot}", disk.display()));
    }
    let started = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot start {QEMU}"))?;
    let mut work = Duration::ZERO;
    let outcome = wait(child, started, time_limit, &mut work);
    let text = fs::read(&files.report).unwrap_or_default();
    let report = Report::parse(&String::from_utf8_lossy(&text), started.elapsed())?;
    let report = Report { work, ..report };
    let ended = match outcome {
        Ok(()) if report.complete => return Ok((report, Ok(()))),
        Ok(()) => anyhow!("it ended before its stages did"),
        Err(error) => error,
    };
    let ended = anyhow!("{ended:#}; its console ends with:\n{}", end_of(&files.console));
    Ok((report, Err(ended)))
}

/// The kernel as it starts soonest. One that QEMU starts without firmware's boot loader cannot go on after a sleep.
fn kernel_file<'a>(machine: &Machine, media: &'a Media) -> &'a Path {
    if machine.stages.contains(&SLEEPS) { &media.kernel.vmlinuz } else { &media.kernel.vmlinux }
}

/// The kernel command line. What begins with `vm_guest` is for the guest program, which mounts the cgroups of a machine
/// without a service manager; the rest of a machine with a disk is for its service manager.
fn command_line(machine: &Machine) -> String {
    let mut line = format!(
        "console=ttyS0 panic=-1 quiet {QUICK} vm_guest.stages={} vm_guest.cgroups=",
        machine.stages.join(",")
    );
    line += machine.cgroups.name();
    if machine.root == Root::Disk {
        line += &format!(" vm_guest.disk={DISK} systemd.show_status=0");
        line += match machine.cgroups {
            Cgroups::V2 => "",
            Cgroups::Hybrid => " systemd.unified_cgroup_hierarchy=0",
            Cgroups::V1 => " systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1",
        };
    }
    line
}

/// Waits until the machine is off; ends it when it takes too long. `work` becomes the processor time that it has taken, as
/// of the last look at it.
fn wait(mut child: Child, started: Instant, time_limit: Duration, work: &mut Duration) -> Result<()> {
    loop {
        *work = processor_time(child.id()).unwrap_or(*work);
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                bail!("{QEMU}: {status}");
            }
            return Ok(());
        }
        if started.elapsed() > time_limit {
            child.kill()?;
            child.wait()?;
            bail!("it was not done within {time_limit:?}");
        }
        std::thread::sleep(POLL);
    }
}

/// Processor time of a process, of all its threads.
fn processor_time(pid: u32) -> Option<Duration> {
    /// Milliseconds per unit of times in `/proc/<pid>/stat`, on every system.
    const TICK_MS: u64 = 10;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The third field is the first behind the name; 14 and 15 are the times in user and in kernel mode.
    let mut times = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut next = || times.next()?.parse::<u64>().ok();
    Some(Duration::from_millis((next()? + next()?) * TICK_MS))
}

fn end_of(console: &Path) -> String {
    const LINES: usize = 25;
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
