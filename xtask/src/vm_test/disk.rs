//! The disk of the machines that have one: Debian with its service manager and its container engines.
//!
//! It is installed from packages once for each set of versions, which apt checks against the archive's signatures. A machine of
//! its own puts an image into the store of every engine, which in an emulated machine takes longer than all that the sensor
//! does. It is never written to again: what a machine of the matrix writes is thrown away with it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::kernels::{Archive, KEYRING};
use crate::command::{self, say};
use crate::exit::unsupported;
use crate::system;

/// What is installed on it, and all that these depend on.
const CONTENTS: &[&str] = &[
    "systemd-sysv",
    "dbus",
    "dbus-user-session",
    "libpam-systemd",
    "apparmor",
    "docker.io",
    "containerd",
    "runc",
    "crun",
    "podman",
    "uidmap",
    "busybox-static",
];
/// The suite that it is of, with its updates.
const SUITE: &str = "bookworm";
const SOURCES: &[&str] = &[
    "http://deb.debian.org/debian bookworm main",
    "http://deb.debian.org/debian-security bookworm-security main",
];
/// Nobody reads these in a machine.
const LEFT_OUT: &[&str] = &["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"];
/// A user with ranges of user ids of its own, whose containers have no root, and whose service manager runs without a login.
/// Profiles of security modules that take seconds to load are loaded by the engines that use them.
const SETTINGS: &str = "useradd --create-home --uid 1000 --shell /bin/sh guest && \
    mkdir -p /var/lib/systemd/linger && touch /var/lib/systemd/linger/guest && \
    systemctl mask apparmor.service";
/// What the machine that prepares it does; to be counted up when that changes.
const PREPARATION: &str = "stores 1";
/// Twice what is on it.
const SIZE: &str = "1G";

/// The disk, made anew when the archive has other versions than those that are on it. `fill` fills the stores of its engines.
///
/// # Errors
/// When it has to be made and cannot be, as by a user other than root.
pub fn prepare(
    archive: &Archive,
    directory: &Path,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let (image, record) = (directory.join("disk.ext4"), directory.join("disk.packages"));
    let recorded = fs::read_to_string(&record).ok().filter(|_| image.exists());
    // The commands belong to it: they decide what is on the disk, too.
    let wanted = archive
        .closure(CONTENTS)?
        .map(|versions| format!("{SETTINGS}\n{LEFT_OUT:?}\n{SIZE}\n{PREPARATION}\n{versions}\n"));
    match (wanted, recorded) {
        (None, Some(_)) => say("the archive cannot be asked: using the disk that was made before"),
        (wanted, recorded) if wanted.is_some() && wanted == recorded => {}
        (wanted, _) => {
            if image.exists() {
                fs::remove_file(&image)?;
            }
            say("making a disk, which takes minutes and is no part of the matrix's time");
            let partial = image.with_extension("partial");
            make(directory, &partial)?;
            fill(&partial)?;
            repair(&partial)?;
            fs::rename(partial, &image)?;
            fs::write(&record, wanted.unwrap_or_default())?;
        }
    }
    Ok(image)
}

/// Installs the packages in a directory and packs that.
fn make(directory: &Path, partial: &Path) -> Result<()> {
    if !system::is_root() {
        return Err(unsupported(
            "the disk of some machines has to be made, which takes root once: run it with sudo -E or as root",
        ));
    }
    let root = directory.join("disk.root");
    remove(&root)?;
    let mut install = command::program("mmdebstrap");
    install.args(["--quiet", "--mode=root", "--variant=essential"]);
    install.arg(format!("--include={}", CONTENTS.join(",")));
    install.args(["--aptopt=APT::Install-Recommends \"false\"", "--aptopt=Acquire::Languages \"none\""]);
    install.arg("--dpkgopt=force-unsafe-io");
    install.args(LEFT_OUT.iter().map(|path| format!("--dpkgopt=path-exclude={path}")));
    install.arg(format!("--customize-hook=chroot \"$1\" sh -c '{SETTINGS}'"));
    install.arg(SUITE).arg(&root);
    install.args(SOURCES.iter().map(|source| format!("deb [signed-by={KEYRING}] {source}")));
    command::check(&mut install).context("cannot install the disk's packages")?;
    remove(partial)?;
    let mut pack = command::program("mke2fs");
    // Lost at the end of the run anyway: no journal, nothing initialised that is never used.
    pack.args(["-q", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1", "-m", "0", "-d"]);
    command::check(pack.arg(&root).arg(partial).arg(SIZE)).context("cannot pack the disk")?;
    remove(&root)
}

/// Mends what a machine leaves that is switched off without unmounting its disk.
fn repair(image: &Path) -> Result<()> {
    /// Everything that was wrong has been mended.
    const MENDED: i32 = 1;
    let mut check = command::program("e2fsck");
    let status = check.args(["-f", "-p"]).arg(image).status().context("cannot start e2fsck")?;
    ensure!(status.code().is_some_and(|code| code <= MENDED), "e2fsck of the disk: {status}");
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
