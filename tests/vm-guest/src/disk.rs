//! From what the kernel unpacked to an installed system on a disk, whose service manager runs the stages.

use std::convert::Infallible;
use std::ffi::CStr;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{chdir, chroot};
use rustix::system::finit_module;

use crate::PROGRAM;

/// Where the packer puts modules.
const MODULES: &str = "/modules";
/// `MODULE_INIT_COMPRESSED_FILE`, of kernels that have compressed modules.
const COMPRESSED: i32 = 4;
const ROOT: &str = "/root";
/// What is the machine's and not the disk's.
const KEPT: &[&str] = &["/proc", "/sys", "/dev"];
/// The sensor's binary, at the same place on the disk as before it.
const SENSOR: &str = "/bin/quaywatch";
/// The first program of the installed system.
const SERVICE_MANAGER: &str = "/sbin/init";
const SERVICE: &str = "vm-guest.service";

/// Units of the disk that prepare what nothing in the machine uses.
const MASKED: &[&str] = &[
    "modprobe@configfs.service",
    "modprobe@dm_mod.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "modprobe@loop.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-journal-flush.service",
    "systemd-modules-load.service",
    "systemd-random-seed.service",
    "systemd-sysctl.service",
    "systemd-sysusers.service",
    "systemd-update-utmp.service",
];
/// An id of the machine: without one the service manager takes this for the first start of a new system, and looks at every
/// unit there is.
const MACHINE_ID: &str = "6d0f3a3c5b1e4e0f8a7c2d9e1b4f6a58\n";

/// Starts the service manager of the system on a disk in place of this process, with the stages as its only goal.
///
/// # Errors
/// When the disk cannot be reached or has no such system.
pub fn start(device: &str) -> Result<Infallible> {
    load_modules()?;
    mount(device, ROOT, "ext4", MountFlags::empty(), None)
        .with_context(|| format!("cannot mount {device}"))?;
    let on_disk = |path: &str| PathBuf::from(format!("{ROOT}{path}"));
    for program in [PROGRAM, SENSOR] {
        fs::copy(program, on_disk(program)).with_context(|| format!("cannot copy {program}"))?;
    }
    let unit = |name: &str| on_disk(&format!("/etc/systemd/system/{name}"));
    fs::write(unit(SERVICE), service())?;
    for name in MASKED {
        // From the preparation of the disk on it is.
        if fs::symlink_metadata(unit(name)).is_err() {
            symlink("/dev/null", unit(name)).with_context(|| format!("cannot mask {name}"))?;
        }
    }
    fs::write(on_disk("/etc/machine-id"), MACHINE_ID)?;
    for place in KEPT {
        mount_move(*place, on_disk(place)).with_context(|| format!("cannot move {place}"))?;
    }
    chdir(ROOT)?;
    mount_move(".", "/")?;
    chroot(".")?;
    chdir("/")?;
    let error = Command::new(SERVICE_MANAGER).arg(format!("--unit={SERVICE}")).env_clear().exec();
    Err(error).with_context(|| format!("cannot execute {SERVICE_MANAGER}"))
}

/// The stages as a service. Runtimes ask for scopes over the bus. The machine has nothing to say after them, and
/// nothing to write.
fn service() -> String {
    format!(
        "[Unit]\n\
         Wants=dbus.socket\n\
         After=dbus.socket\n\
         SuccessAction=poweroff-immediate\n\
         FailureAction=poweroff-immediate\n\
         [Service]\n\
         Type=oneshot\n\
         Environment=QUAYWATCH_BIN={SENSOR}\n\
         ExecStart={PROGRAM} work\n\
         StandardOutput=tty\n\
         StandardError=tty\n\
         TTYPath=/dev/console\n"
    )
}

/// Loads the modules for the disk, whose names are in the order in which they depend on each other.
fn load_modules() -> Result<()> {
    let mut modules =
        fs::read_dir(MODULES)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    modules.sort_unstable();
    for module in modules {
        load(&module).with_context(|| format!("cannot load {}", module.display()))?;
    }
    Ok(())
}

fn load(module: &Path) -> Result<()> {
    const NO_PARAMETERS: &CStr = c"";
    let flags = if module.extension().is_some_and(|extension| extension == "ko") { 0 } else { COMPRESSED };
    Ok(finit_module(File::open(module)?, NO_PARAMETERS, flags)?)
}
