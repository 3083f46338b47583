//! Kernels of Debian's archive: found, fetched, checked and unpacked without installing them.
//!
//! apt does the fetching with a configuration and directories of its own: it checks the signature of each suite against
//! the keyring of this system, and the checksum of each package against the suite. Nothing of this system's package
//! lists is read or changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};

use super::matrix::Kernel;
use super::unpack::unpack;
use crate::command::{self, say};
use crate::detection;

/// Suites of the archive that have the kernels of the matrix.
const SUITES: &[&str] = &[
    "http://deb.debian.org/debian bullseye",
    "http://deb.debian.org/debian-security bullseye-security",
    "http://deb.debian.org/debian bookworm",
    "http://deb.debian.org/debian-security bookworm-security",
    "http://deb.debian.org/debian bookworm-backports",
    "http://deb.debian.org/debian trixie-backports",
];
/// Keys of the archive, from the Debian package `debian-archive-keyring`.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Packages are looked up again when the lists are older than this.
const LISTS_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Ends the names of the packages in question.
const FLAVOUR: &str = "-cloud-amd64";

/// What a disk takes, below `kernel` among a kernel's modules, each behind those that it needs. Newer kernels have all but
/// the last built in.
const MODULES: &[&str] = &[
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
];
/// How files of modules end. Kernels that have compressed ones decompress them.
const MODULE_SUFFIXES: [&str; 2] = [".ko", ".ko.xz"];

/// A kernel that can be booted.
pub struct Image {
    /// As `uname -r` says.
    pub release: String,
    /// The kernel as Debian packs it.
    pub vmlinuz: PathBuf,
    /// The same as an ELF file.
    pub vmlinux: PathBuf,
    /// Modules for a disk, to be loaded in this order.
    pub modules: Vec<PathBuf>,
}

/// The cache: apt's files in `apt`, one directory per kernel release beside it.
pub struct Archive {
    cache: PathBuf,
    /// Whether the lists of packages are there.
    listed: bool,
}

impl Archive {
    /// Opens the cache and brings the lists of packages up to date.
    ///
    /// # Errors
    /// When there is no place for the cache. Lists that cannot be fetched are said, not fatal: what is cached will do.
    pub fn open() -> Result<Self> {
        let cache = detection::cache_dir()
            .context("neither XDG_CACHE_HOME nor HOME is an absolute path: no place to keep kernels")?
            .join("quaywatch/kernels");
        let mut archive = Self { cache, listed: false };
        archive.write_configuration()?;
        archive.listed = archive.update();
        Ok(archive)
    }

    /// The newest kernel of a series, fetched if it is not in the cache.
    ///
    /// # Errors
    /// When the archive has no such kernel, it cannot be fetched or is not what the archive says, and none is cached.
    pub fn newest(&self, kernel: &Kernel) -> Result<Image> {
        let release = if self.listed { self.newest_release(kernel)? } else { None };
        if let Some(release) = release {
            return self.image(release);
        }
        let cached = self.cached_release(kernel)?.with_context(|| {
            format!(
                "no kernel {}: the archive lists none and none is in {}",
                kernel.name,
                self.cache.display()
            )
        })?;
        say(format!("the archive lists no kernel {}: using {cached}, fetched before", kernel.name));
        self.image(cached)
    }

    fn write_configuration(&self) -> Result<()> {
        let apt = self.cache.join("apt");
        for directory in ["lists/partial", "cache/archives/partial"] {
            let directory = apt.join(directory);
            fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let sources: Vec<String> = SUITES
            .iter()
            .map(|suite| format!("deb [arch=amd64 signed-by={KEYRING}] {suite} main\n"))
            .collect();
        fs::write(apt.join("sources.list"), sources.concat())?;
        fs::write(apt.join("status"), "")?;
        let at = apt.display();
        let configuration = format!(
            "Dir::State \"{at}\";\n\
             Dir::State::lists \"{at}/lists\";\n\
             Dir::State::status \"{at}/status\";\n\
             Dir::Cache \"{at}/cache\";\n\
             Dir::Etc::sourcelist \"{at}/sources.list\";\n\
             Dir::Etc::sourceparts \"-\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::Retries \"3\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
             APT::Architecture \"amd64\";\n\
             APT::Sandbox::User \"root\";\n"
        );
        fs::write(apt.join("apt.conf"), configuration)?;
        Ok(())
    }

    /// Fetches the lists unless they are recent, and tells whether there are any.
    fn update(&self) -> bool {
        let stamp = self.cache.join("apt/updated");
        let age =
            |path: &Path| SystemTime::now().duration_since(fs::metadata(path).ok()?.modified().ok()?).ok();
        if age(&stamp).is_some_and(|age| age < LISTS_AGE) {
            return true;
        }
        let updated = command::check(self.apt("apt-get").args(["update", "--quiet", "--error-on=any"]));
        match updated.and_then(|()| Ok(fs::write(&stamp, "")?)) {
            Ok(()) => true,
            Err(error) => {
                say(format!("the lists of kernels cannot be fetched: {error:#}"));
                stamp.exists()
            }
        }
    }

    /// Release of the newest kernel of a series that can be fetched.
    fn newest_release(&self, kernel: &Kernel) -> Result<Option<String>> {
        let prefix = format!("linux-image-{}", kernel.series);
        let names = command::output(self.apt("apt-cache").args(["pkgnames", &prefix]))
            .context("`apt-cache pkgnames` failed")?;
        let mut releases: Vec<&str> = names
            .lines()
            .filter(|name| name.ends_with(FLAVOUR))
            .filter_map(|name| name.strip_prefix("linux-image-"))
            .collect();
        releases.sort_by_key(|release| numbers(release));
        let found = releases.into_iter().rev().find(|release| self.package_of(release).is_some());
        Ok(found.map(str::to_owned))
    }

    /// The package that has the kernel itself. From 6.19 on it is not the one called `linux-image`.
    fn package_of(&self, release: &str) -> Option<String> {
        let packages = [format!("linux-binary-{release}"), format!("linux-image-{release}")];
        packages.into_iter().find(|package| self.has(package))
    }

    /// Whether a package can be fetched. A name may be known only because another package mentions it.
    fn has(&self, package: &str) -> bool {
        let shown = command::output(self.apt("apt-cache").args(["show", "--no-all-versions", package]));
        shown.is_some_and(|text| text.lines().any(|line| line.starts_with("SHA256:")))
    }

    /// Release of the newest kernel of a series in the cache.
    fn cached_release(&self, kernel: &Kernel) -> Result<Option<String>> {
        let mut releases = Vec::new();
        for entry in fs::read_dir(&self.cache)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with(kernel.series) && name.ends_with(FLAVOUR) {
                releases.push(name);
            }
        }
        releases.sort_by_key(|release| numbers(release));
        Ok(releases.pop())
    }

    /// What would be installed with these packages on an empty system: the name and version of each, a line for each.
    /// `None` when there are no lists of packages.
    ///
    /// # Errors
    /// When the archive does not have them.
    pub fn closure(&self, packages: &[&str]) -> Result<Option<String>> {
        if !self.listed {
            return Ok(None);
        }
        let mut install = self.apt("apt-get");
        install.args(["install", "--simulate", "--no-install-recommends", "?essential"]).args(packages);
        let steps = command::output(&mut install)
            .with_context(|| format!("the archive cannot install {}", packages.join(" ")))?;
        let mut lines: Vec<&str> = steps.lines().filter_map(|line| line.strip_prefix("Inst ")).collect();
        lines.sort_unstable();
        Ok(Some(lines.join("\n")))
    }

    /// The kernel of a release, from the cache or the archive.
    fn image(&self, release: String) -> Result<Image> {
        let directory = self.cache.join(&release);
        let (vmlinuz, modules) = (directory.join("vmlinuz"), directory.join("modules"));
        if !vmlinuz.exists() || !modules.exists() {
            let partial = self.cache.join(format!("partial-{release}"));
            if partial.exists() {
                fs::remove_dir_all(&partial)?;
            }
            fs::create_dir_all(&partial)?;
            self.fetch(&release, &partial)?;
            // In one step, so that nothing that is half done looks finished.
            if directory.exists() {
                fs::remove_dir_all(&directory)?;
            }
            fs::rename(partial.join("kernel"), &directory)?;
            fs::remove_dir_all(&partial)?;
        }
        let vmlinux = directory.join("vmlinux");
        if !vmlinux.exists() {
            unpack(&vmlinuz, &vmlinux)?;
        }
        let mut modules =
            fs::read_dir(&modules)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
        modules.sort_unstable();
        Ok(Image { release, vmlinuz, vmlinux, modules })
    }

    /// Makes a directory `kernel` with `vmlinuz` and the modules, whose names sort as they have to be loaded.
    fn fetch(&self, release: &str, into: &Path) -> Result<()> {
        let package =
            self.package_of(release).with_context(|| format!("the archive has no kernel {release}"))?;
        // From 6.19 on the modules have a package of their own.
        let modules = format!("linux-modules-{release}");
        let packages = [Some(package), self.has(&modules).then_some(modules)].into_iter().flatten();
        // Fails when the size or checksum is not the one in the suite's signed list.
        let mut download = self.apt("apt-get");
        command::check(download.args(["download", "--quiet"]).args(packages).current_dir(into))?;
        let root = into.join("root");
        for deb in list(into, |name| name.ends_with(".deb"))? {
            command::check(command::program("dpkg-deb").arg("--extract").arg(&deb).arg(&root))?;
        }
        let places = [format!("usr/lib/modules/{release}"), format!("lib/modules/{release}")];
        let places: Vec<PathBuf> =
            places.iter().map(|place| root.join(place)).filter(|place| place.is_dir()).collect();
        let mut images = Vec::new();
        for place in places.iter().chain([&root.join("boot")]).filter(|place| place.is_dir()) {
            images.extend(list(place, |name| name.starts_with("vmlinuz"))?);
        }
        let [vmlinuz] = &images[..] else { bail!("the packages of {release} have {} kernels", images.len()) };
        let kernel = into.join("kernel");
        fs::create_dir_all(kernel.join("modules"))?;
        fs::rename(vmlinuz, kernel.join("vmlinuz"))?;
        for (index, module) in MODULES.iter().enumerate() {
            let name = module.rsplit('/').next().unwrap_or(module);
            for (place, suffix) in
                places.iter().flat_map(|place| MODULE_SUFFIXES.map(|suffix| (place, suffix)))
            {
                let file = place.join(format!("kernel/{module}{suffix}"));
                if file.is_file() {
                    fs::rename(file, kernel.join(format!("modules/{index}-{name}{suffix}")))?;
                }
            }
        }
        Ok(())
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = command::program(program);
        command.env("APT_CONFIG", self.cache.join("apt/apt.conf"));
        // Images of containers switch these off in a file that is read after ours; without them each call parses all lists.
        command.args(["--option", "Dir::Cache::pkgcache=pkgcache.bin"]);
        command.args(["--option", "Dir::Cache::srcpkgcache=srcpkgcache.bin"]);
        command
    }
}

/// The files of a directory with such names.
fn list(directory: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&wanted) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The numbers of a release, which order releases of one series as Debian does.
fn numbers(release: &str) -> Vec<u64> {
    let version = release.trim_end_matches(FLAVOUR);
    version.split(|char: char| !char.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_ordered_by_their_numbers() {
        let mut releases = [
            "6.12.9+deb12-cloud-amd64",
            "6.12.90+deb12.1-cloud-amd64",
            "6.12.90+deb12-cloud-amd64",
            "6.12.88+deb12-cloud-amd64",
        ];
        releases.sort_by_key(|release| numbers(release));
        assert_eq!(releases[3], "6.12.90+deb12.1-cloud-amd64");
        assert_eq!(releases[0], "6.12.9+deb12-cloud-amd64");
        // Of two builds for one version the one for the suite itself is meant, not the one for an older suite.
        assert!(numbers("6.1.0-50-cloud-amd64") > numbers("6.1.0-0.deb11.52-cloud-amd64"));
    }
}
