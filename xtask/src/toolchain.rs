//! What compiles the probes, installed where it is missing.
//!
//! Two ways exist: a rustup nightly with the component rust-src, or Debian's rustc with its prebuilt library for the bpf
//! target. Both hand LLVM bitcode to bpf-linker, whose LLVM must therefore not be older than the compiler's. Which of
//! them is there is decided in one file, shared with the build script.

use std::process::Command;

use anyhow::{Context as _, Result, anyhow};

use crate::detection::{self, Compiler, Missing, Toolchain};
use crate::{command, packages};

/// Version of bpf-linker that is installed when there is none; [`detection::LINKER_DIR`] has it in its name.
const LINKER_VERSION: &str = "0.13.0";
/// Feature of bpf-linker that links it with the LLVM of `llvm-22-dev`.
const LINKER_FEATURE: &str = "llvm-22";
/// Where Debian keeps that LLVM.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// Debian's compiler with a library for `bpfel-unknown-none`.
const DEBIAN_COMPILER: &[&str] = &["rustc-web", "libstd-rust-web-dev-bpf"];
/// What building bpf-linker takes.
const LINKER_BUILD: &[&str] = &["llvm-22-dev", "zlib1g-dev", "libzstd-dev", "libxml2-dev"];

/// Installs what is missing for compiling the probes.
///
/// # Errors
/// When something cannot be installed, or does not do after that.
pub fn ensure() -> Result<Toolchain> {
    let mut found = detect();
    if matches!(found, Err(Missing::Linker)) {
        install_linker()?;
        found = detect();
    }
    if matches!(found, Err(Missing::Compiler(_))) {
        packages::ensure(DEBIAN_COMPILER)?;
        found = detect();
    }
    let toolchain = found.map_err(|missing| anyhow!("{missing}, although it was just installed"))?;
    command::say(match &toolchain.compiler {
        Compiler::Nightly { toolchain } => format!("the probes are compiled by rustup's {toolchain}"),
        Compiler::Prebuilt { rustc } => format!("the probes are compiled by {}", rustc.display()),
    });
    Ok(toolchain)
}

/// What the build script will find, except that a linker that cannot be started counts as missing.
fn detect() -> Result<Toolchain, Missing> {
    let endian = if cfg!(target_endian = "big") { "big" } else { "little" };
    let toolchain = Toolchain::detect(std::env::consts::ARCH, endian)?;
    // Its LLVM is a shared library, which may have been removed since.
    match command::output(Command::new(&toolchain.linker).arg("--version")) {
        Some(_) => Ok(toolchain),
        None => Err(Missing::Linker),
    }
}

fn install_linker() -> Result<()> {
    let root = detection::cache_dir()
        .context("neither XDG_CACHE_HOME nor HOME is an absolute path: no place to keep bpf-linker")?
        .join(detection::LINKER_DIR);
    packages::ensure(LINKER_BUILD)?;
    command::say(format!("building bpf-linker {LINKER_VERSION} into {}", root.display()));
    let mut install = command::cargo();
    install
        .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force", "--root"])
        .arg(&root)
        .args(["--no-default-features", "--features", LINKER_FEATURE])
        .env("LLVM_PREFIX", LLVM_PREFIX);
    command::check(&mut install)
}
