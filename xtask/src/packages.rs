//! Debian packages: which are missing, and installing them without a question asked.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::{self, say};
use crate::exit::unsupported;
use crate::system;

/// Installs those of the packages that are not installed; does nothing, and asks for no right, when all are.
///
/// # Errors
/// When this user may not install, or a package cannot be found or installed.
pub fn ensure(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    system::require_apt(&list)?;
    if !system::is_root() {
        return Err(unsupported(format!(
            "these packages are missing and only root can install them: {list}"
        )));
    }
    say(format!("installing Debian packages: {list}"));
    // The lists of a new machine are often empty or old. A third-party source that fails to answer is not fatal as long
    // as the packages are found after all.
    if let Err(error) = command::check(apt_get().args(["update", "--quiet"])) {
        say(format!("going on without a full update of the package lists: {error:#}"));
    }
    let mut install = apt_get();
    install.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(&missing);
    command::check(&mut install).with_context(|| format!("cannot install {list}"))
}

/// Whether dpkg has the package fully installed.
pub fn is_installed(package: &str) -> bool {
    let mut query = command::program("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    command::output(&mut query).is_some_and(|status| status == "installed")
}

fn apt_get() -> Command {
    let mut command = command::program("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    // Another apt may be at work, as on a machine that has just booted.
    command.args(["--option", "DPkg::Lock::Timeout=300"]);
    command
}
