//! What the machines boot from: kernels, the file system that the kernel unpacks, a disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};

use super::disk;
use super::initramfs::Initramfs;
use super::kernels::{Archive, Image};
use super::machine;
use super::matrix::{KERNELS, Machine, PREPARATION, Root};
use crate::command::{self, say};
use crate::{run, system};

/// Programs of the guest that are busybox's.
const APPLETS: &[&str] = &["cp", "echo", "sh"];
/// Runtimes that the machines without a disk have, and where.
const RUNTIMES: &[(&str, &str)] = &[("runc", "usr/sbin/runc"), ("crun", "usr/bin/crun")];

/// What one machine boots from.
#[derive(Clone)]
pub struct Media {
    /// Its kernel.
    pub kernel: Arc<Image>,
    /// What the kernel unpacks and starts.
    pub initramfs: PathBuf,
    /// Its disk, if it has one, which only the machine that prepares it changes.
    pub disk: Option<PathBuf>,
}

/// Fetches, builds and packs what these machines need, in the order of the machines.
///
/// # Errors
/// When something cannot be had.
pub fn prepare(machines: &[&Machine], binary: &Path, directory: &Path) -> Result<Vec<Media>> {
    let archive = Archive::open()?;
    let has = |root: Root| machines.iter().any(|machine| machine.root == root);
    let programs = [("bin/quaywatch", binary), ("bin/vm-guest", &build_guest()?)];
    let fill = |disk: &Path| fill_stores(disk, &archive, &programs, directory);
    let disk = if has(Root::Disk) { Some(disk::prepare(&archive, directory, fill)?) } else { None };
    let shared = directory.join("initramfs");
    if has(Root::Initramfs) {
        pack_root(&shared, &programs)?;
    }
    let mut media = Vec::new();
    for kernel in KERNELS.iter().filter(|kernel| machines.iter().any(|machine| machine.kernel == kernel.name))
    {
        let image = Arc::new(archive.newest(kernel)?);
        say(format!("kernel {} is {}", kernel.name, image.release));
        media.push((
            kernel.name,
            Root::Initramfs,
            Media { kernel: Arc::clone(&image), initramfs: shared.clone(), disk: None },
        ));
        if disk.is_some() {
            let initramfs = directory.join(format!("initramfs-{}", image.release));
            pack_loader(&initramfs, &programs, &image)?;
            media.push((kernel.name, Root::Disk, Media { kernel: image, initramfs, disk: disk.clone() }));
        }
    }
    let of = |machine: &&Machine| {
        let found = media.iter().find(|(kernel, root, _)| *kernel == machine.kernel && *root == machine.root);
        found.map(|(_, _, media)| media.clone()).with_context(|| format!("no kernel {}", machine.kernel))
    };
    machines.iter().map(of).collect()
}

/// Boots the machine that prepares a new disk.
fn fill_stores(disk: &Path, archive: &Archive, programs: &[(&str, &Path)], directory: &Path) -> Result<()> {
    let kernel =
        KERNELS.iter().find(|kernel| kernel.name == PREPARATION.kernel).context("it has no kernel")?;
    let kernel = Arc::new(archive.newest(kernel)?);
    let directory = directory.join("preparation");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let initramfs = directory.join("initramfs");
    pack_loader(&initramfs, programs, &kernel)?;
    let media = Media { kernel, initramfs, disk: Some(disk.to_owned()) };
    let report = machine::run(&PREPARATION, &media, &directory)?;
    ensure!(report.complete, "the disk was not prepared: its console is in {}", directory.display());
    say(format!("the disk is prepared: {report}"));
    Ok(())
}

fn build_guest() -> Result<PathBuf> {
    command::check(command::cargo().args(["build", "--locked", "--release", "--package", "vm-guest"]))?;
    Ok(run::target_directory().join("release/vm-guest"))
}

/// Packs the root file system of the machines without a disk.
fn pack_root(path: &Path, programs: &[(&str, &Path)]) -> Result<()> {
    let mut archive = begin(path, programs)?;
    for (name, at) in RUNTIMES {
        archive.program(at, &find(name)?)?;
    }
    archive.finish()?;
    Ok(())
}

/// Packs what reaches the disk of a machine with this kernel.
fn pack_loader(path: &Path, programs: &[(&str, &Path)], kernel: &Image) -> Result<()> {
    let mut archive = begin(path, programs)?;
    archive.directory("modules")?;
    for module in &kernel.modules {
        let name = module.file_name().and_then(|name| name.to_str()).context("a module without a name")?;
        archive.file(&format!("modules/{name}"), module)?;
    }
    archive.finish()?;
    Ok(())
}

/// Begins a file system with what all have.
fn begin(path: &Path, programs: &[(&str, &Path)]) -> Result<Initramfs<std::io::BufWriter<std::fs::File>>> {
    let mut archive = Initramfs::create(path)?;
    archive.console()?;
    for directory in ["etc", "proc", "sys", "run", "tmp", "root"] {
        archive.directory(directory)?;
    }
    for (at, from) in programs {
        archive.program(at, from)?;
    }
    archive.symlink("init", "bin/vm-guest")?;
    archive.program("bin/busybox", &find("busybox")?)?;
    for applet in APPLETS {
        archive.symlink(&format!("bin/{applet}"), "busybox")?;
    }
    Ok(archive)
}

fn find(program: &str) -> Result<PathBuf> {
    system::find_program(program).with_context(|| format!("{program} is not installed"))
}
