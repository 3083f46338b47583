//! `cargo xtask lint`: formatting and clippy, the host crates and the probes in passes of their own.
//!
//! Cargo unifies features over all packages of one call, and the probes are compiled for another target by another
//! compiler; one pass over everything would check neither.

use anyhow::{Result, bail};
use clap::Args;

use crate::detection::Compiler;
use crate::{command, fuzz, packages, run, toolchain};

/// Checks formatting and runs clippy; every warning is an error.
#[derive(Args)]
pub struct Options {}

/// Clippy for Debian's compiler, which is another release than rustup's.
const DEBIAN_CLIPPY: &str = "rust-web-clippy";

/// Runs the subcommand. Every pass is made, also after one that failed, so that one run shows all there is to mend.
pub fn run(_: &Options) -> Result<()> {
    let cargo = |arguments: &[&str]| command::check(command::cargo().args(arguments));
    let deny = "--deny=warnings";
    let passes = [
        ("formatting", cargo(&["fmt", "--all", "--check"])),
        ("host crates", cargo(&["clippy", "--locked", "--all-targets", "--", deny])),
        // Not among all targets, because a plain `cargo test` leaves them out.
        ("e2e tests", cargo(&["clippy", "--locked", "--package=sensor-tests", "--test=e2e", "--", deny])),
        ("fuzz targets", lint_fuzz_targets()),
        ("probes", lint_probes()),
    ];
    let failed: Vec<String> = passes
        .into_iter()
        .filter_map(|(name, result)| Some(format!("{name}: {:#}", result.err()?)))
        .collect();
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(())
}

/// The fuzz targets are a workspace of their own, which no pass over this one sees.
fn lint_fuzz_targets() -> Result<()> {
    packages::ensure(fuzz::PACKAGES)?;
    let mut clippy = command::cargo();
    clippy.args(["clippy", "--locked", "--all-targets", "--manifest-path"]).arg(fuzz::manifest());
    clippy.arg("--target-dir").arg(run::target_directory()).args(["--", "--deny=warnings"]);
    command::check(&mut clippy)
}

/// The probes are linted by the compiler that builds them, for their own target.
fn lint_probes() -> Result<()> {
    let toolchain = toolchain::ensure()?;
    let arguments = ["--locked", "--package=sensor-ebpf"];
    let mut clippy = match &toolchain.compiler {
        Compiler::Nightly { .. } => {
            let mut clippy = toolchain.cargo("clippy");
            clippy.args(arguments).args(["--", "--deny=warnings"]);
            clippy
        }
        Compiler::Prebuilt { rustc } => {
            packages::ensure(&[DEBIAN_CLIPPY])?;
            // `cargo clippy` would take rustup's clippy-driver; this is what it does, with the one beside rustc.
            let mut clippy = toolchain.cargo("check");
            clippy
                .args(arguments)
                .env("RUSTC_WORKSPACE_WRAPPER", rustc.with_file_name("clippy-driver"))
                .env("CLIPPY_ARGS", "--deny=warnings__CLIPPY_HACKERY__");
            clippy
        }
    };
    // A directory of its own: another compiler's artefacts would displace those of the host build.
    clippy.env("CARGO_TARGET_DIR", run::target_directory().join("lint-probes"));
    command::check(clippy.current_dir(command::repository()))
}
