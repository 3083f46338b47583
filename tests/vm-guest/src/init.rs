//! The first process: file systems, network, stages, power off. Of a machine with a disk it is first only until the service
//! manager there takes its place, which runs the stages and switches the machine off.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount, mount_bind, mount_move};
use rustix::process::{Pid, WaitOptions, chdir, chroot, wait};
use rustix::system::{RebootCommand, reboot};

use crate::report::Report;
use crate::{PROGRAM, cgroups, disk, stages};

/// Name of the machine.
const HOST_NAME: &[u8] = b"guest";

/// Kinds and places of file systems that every host has. Neither tracefs nor bpffs: the sensor has to do without.
const MOUNTS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
    ("securityfs", "/sys/kernel/security"),
];

/// Runs as the first process; does not return unless the machine cannot even be switched off.
pub fn run() -> ExitCode {
    if let Err(error) = prepare_and_work() {
        eprintln!("{error:#}");
    }
    rustix::fs::sync();
    let error = reboot(RebootCommand::PowerOff);
    eprintln!("cannot power off: {error:?}");
    ExitCode::FAILURE
}

/// Runs the stages, in a process other than the first one, which buries orphans.
pub fn work() -> Result<()> {
    let parameters = Parameters::read()?;
    let mut report = Report::open()?;
    report.line(&["kernel", &rustix::system::uname().release().to_string_lossy()])?;
    stages::run(&parameters.stages, &mut report)?;
    report.line(&["end"])?;
    Ok(())
}

fn prepare_and_work() -> Result<()> {
    leave_initial_root().context("leaving the initial root file system")?;
    for (kind, at) in MOUNTS {
        fs::create_dir_all(at)?;
        mount(*kind, *at, *kind, MountFlags::empty(), None).with_context(|| format!("cannot mount {at}"))?;
    }
    // The console is for panics and for this program's own words.
    fs::write("/proc/sys/kernel/printk", "1 1 1 1")?;
    rustix::system::sethostname(HOST_NAME)?;
    set_up_loopback()?;
    let parameters = Parameters::read()?;
    if let Some(device) = parameters.disk {
        return disk::start(&device).map(|never| match never {});
    }
    cgroups::mount_layout(&parameters.cgroups)?;

    let worker = Command::new(PROGRAM)
        .arg("work")
        .env("PATH", "/bin:/usr/bin:/usr/sbin")
        .env("QUAYWATCH_BIN", "/bin/quaywatch")
        .spawn()
        .context("starting the stages")?;
    let worker = Pid::from_child(&worker);
    // Orphans become children of the first process, and stay in their cgroups until they are waited for.
    while let Some((ended, _)) = wait(WaitOptions::empty())? {
        if ended == worker {
            break;
        }
    }
    Ok(())
}

/// Makes the root a mount that is not the initial one: that cannot be pivoted away from, as container runtimes do.
fn leave_initial_root() -> Result<()> {
    const PLACE: &str = "/newroot";
    fs::create_dir_all(PLACE)?;
    mount_bind("/", PLACE)?;
    chdir(PLACE)?;
    mount_move(".", "/")?;
    chroot(".")?;
    chdir("/")?;
    Ok(())
}

/// Gives the loopback interface the addresses of both ends of every connection.
fn set_up_loopback() -> Result<()> {
    let ip = |arguments: &[&str]| {
        sensor_tests::process::run(Command::new("/bin/busybox").arg("ip").args(arguments)).map(drop)
    };
    ip(&["link", "set", "lo", "up"])?;
    for address in stages::ADDRESSES {
        ip(&["address", "add", address, "dev", "lo"])?;
    }
    Ok(())
}

/// What the kernel command line says to us.
struct Parameters {
    /// Cgroup layout.
    cgroups: String,
    /// Device of the root file system, of a machine that has one.
    disk: Option<String>,
    /// Names of stages.
    stages: Vec<String>,
}

impl Parameters {
    fn read() -> Result<Self> {
        let line = fs::read_to_string(Path::new("/proc/cmdline"))?;
        let given = |key: &str| {
            let found = line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            found.map(str::to_owned)
        };
        let value = |key: &str| given(key).with_context(|| format!("the kernel command line has no {key}"));
        let stages = value("vm_guest.stages")?.split(',').map(str::to_owned).collect();
        Ok(Self { cgroups: value("vm_guest.cgroups")?, disk: given("vm_guest.disk"), stages })
    }
}
