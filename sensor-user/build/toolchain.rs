//! Finds the compiler and the linker for the probes.
//!
//! Owns the choice of toolchain and the environment of the nested cargo; knows nothing of what is built. It depends on
//! the standard library only, so that the build script and `cargo xtask` share this one file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt, fs};

/// Directory of the linker that `cargo xtask setup` installs, below the cache directory.
pub const LINKER_DIR: &str = "quaywatch/bpf-linker-0.13.0-llvm22";
/// Names another linker.
pub const LINKER_ENV: &str = "QUAYWATCH_BPF_LINKER";
/// Names another compiler with a prebuilt `core` for the target.
pub const RUSTC_ENV: &str = "QUAYWATCH_BPF_RUSTC";
/// The crates that use inline assembly, which stable compilers gate.
const BOOTSTRAP_CRATES: &str = "aya_ebpf,quaywatch_probes";

/// Major and minor version of an LLVM.
pub type LlvmVersion = (u32, u32);

/// What compiles the probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// A rustup nightly with the source of `core`, which is compiled along.
    Nightly {
        /// Name of the rustup toolchain.
        toolchain: String,
    },
    /// A compiler that has `core` for the target.
    Prebuilt {
        /// Path of rustc.
        rustc: PathBuf,
    },
}

/// A compiler and a linker that fit each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler.
    pub compiler: Compiler,
    /// Path of bpf-linker.
    pub linker: PathBuf,
    /// `bpfel-unknown-none` or `bpfeb-unknown-none`.
    pub target: String,
    /// Architecture of the kernel the probes are for, as in `target_arch`.
    pub arch: String,
}

/// Why there is no toolchain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No bpf-linker.
    Linker,
    /// No compiler whose LLVM the linker understands; the LLVM of the linker.
    Compiler(Option<LlvmVersion>),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linker => write!(f, "no bpf-linker found")?,
            Self::Compiler(None) => write!(f, "no Rust compiler for eBPF found")?,
            Self::Compiler(Some((major, minor))) => {
                write!(f, "no Rust compiler for eBPF with LLVM {major}.{minor} or older found")?;
            }
        }
        write!(f, ": run `cargo xtask setup` to install the eBPF build toolchain")
    }
}

impl Toolchain {
    /// Looks for a toolchain that builds probes for kernels of `arch` with byte order `endian` (`little` or `big`).
    ///
    /// # Errors
    /// When the linker or every compiler is missing.
    pub fn detect(arch: &str, endian: &str) -> Result<Self, Missing> {
        let target = if endian == "big" { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };
        let linker = find_linker().ok_or(Missing::Linker)?;
        let newest = linker_llvm(&linker);
        let fits = |llvm: Option<LlvmVersion>| match (llvm, newest) {
            (Some(llvm), Some(newest)) => llvm <= newest,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let nightly = nightlies()
            .into_iter()
            .find(|toolchain| fits(nightly_llvm(toolchain)) && has_core_source(toolchain))
            .map(|toolchain| Compiler::Nightly { toolchain });
        let prebuilt = || {
            rustc_candidates()
                .into_iter()
                .find(|rustc| has_prebuilt_core(rustc, target) && fits(rustc_llvm(Command::new(rustc))))
                .map(|rustc| Compiler::Prebuilt { rustc })
        };
        let compiler = nightly.or_else(prebuilt).ok_or(Missing::Compiler(newest))?;
        Ok(Self { compiler, linker, target: target.to_owned(), arch: arch.to_owned() })
    }

    /// Returns a cargo command with this toolchain, `--target` included, that ignores the flags and wrappers of an
    /// outer cargo, clippy or rust-analyzer.
    #[must_use]
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut command = match &self.compiler {
            Compiler::Nightly { toolchain } => {
                let mut command = Command::new("rustup");
                command.args(["run", toolchain, "cargo"]);
                command
            }
            Compiler::Prebuilt { .. } => Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
        };
        command.arg(subcommand).args(["--target", &self.target]);
        for (name, _) in env::vars_os().filter(|(name, _)| belongs_to_outer_build(name)) {
            command.env_remove(name);
        }
        match &self.compiler {
            Compiler::Nightly { .. } => {
                command.args(["-Z", "build-std=core"]);
                command.env_remove("RUSTUP_TOOLCHAIN");
            }
            Compiler::Prebuilt { rustc } => {
                command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", BOOTSTRAP_CRATES);
            }
        }
        let flags = [
            format!("--cfg=bpf_target_arch=\"{}\"", self.arch),
            format!("-Clinker={}", self.linker.display()),
            "-Cdebuginfo=2".to_owned(),
            "-Clink-arg=--btf".to_owned(),
            // By default the linker turns copies of more than a few words into calls of a loop over bytes.
            "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        ];
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        command
    }
}

/// Tells whether a variable was set by or for an outer build and would leak into the nested one.
fn belongs_to_outer_build(name: &std::ffi::OsStr) -> bool {
    const NAMES: [&str; 10] = [
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_BOOTSTRAP",
        "RUSTFLAGS",
        "RUSTDOCFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_TARGET_DIR",
        "CLIPPY_ARGS",
        "TARGET",
    ];
    const PREFIXES: [&str; 6] =
        ["CARGO_BUILD_", "CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PKG_", "CARGO_PROFILE_", "CARGO_TARGET_"];
    let Some(name) = name.to_str() else { return false };
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Returns the cache directory of the user.
#[must_use]
pub fn cache_dir() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))
}

/// Returns the places where bpf-linker is looked for, best first.
#[must_use]
pub fn linker_candidates() -> Vec<PathBuf> {
    if let Some(named) = env::var_os(LINKER_ENV) {
        return vec![named.into()];
    }
    let installed = cache_dir().map(|cache| cache.join(LINKER_DIR).join("bin/bpf-linker"));
    let path = env::var_os("PATH").unwrap_or_default();
    installed.into_iter().chain(env::split_paths(&path).map(|dir| dir.join("bpf-linker"))).collect()
}

fn find_linker() -> Option<PathBuf> {
    linker_candidates().into_iter().find(|path| path.is_file())
}

fn rustc_candidates() -> Vec<PathBuf> {
    match env::var_os(RUSTC_ENV) {
        Some(named) => vec![named.into()],
        None => vec![PathBuf::from("/usr/bin/rustc")],
    }
}

/// Reads the LLVM version out of a linker: from the name of the shared library it needs, or, when LLVM is linked in,
/// from the producer string that every LLVM writes into bitcode. bpf-linker itself does not tell.
fn linker_llvm(linker: &Path) -> Option<LlvmVersion> {
    llvm_in_binary(&fs::read(linker).ok()?)
}

/// Finds the newest LLVM version named in the bytes of a program.
#[must_use]
pub fn llvm_in_binary(bytes: &[u8]) -> Option<LlvmVersion> {
    const MARKS: [&[u8]; 3] = [b"libLLVM.so.", b"libLLVM-", b"LLVM"];
    let versions = MARKS.iter().map(|mark| {
        let hits = bytes.windows(mark.len()).enumerate().filter(|(_, window)| window == mark);
        hits.filter_map(|(at, _)| leading_version(&bytes[at + mark.len()..])).max()
    });
    versions.flatten().next()
}

/// Parses `MAJOR[.MINOR]` at the start of some bytes; a library of an old LLVM has no minor version in its name.
fn leading_version(bytes: &[u8]) -> Option<LlvmVersion> {
    let number = |bytes: &[u8]| -> Option<(u32, usize)> {
        let len = bytes.iter().take(4).take_while(|byte| byte.is_ascii_digit()).count();
        Some((std::str::from_utf8(&bytes[..len]).ok()?.parse().ok()?, len))
    };
    let (major, len) = number(bytes)?;
    let minor = bytes[len..].strip_prefix(b".").and_then(number).map_or(0, |(minor, _)| minor);
    Some((major, minor))
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// Returns the installed nightly toolchains, the rolling one first, then the newest by date.
fn nightlies() -> Vec<String> {
    let list = output(Command::new("rustup").args(["toolchain", "list", "--quiet"]))
        .or_else(|| output(Command::new("rustup").args(["toolchain", "list"])));
    let mut names: Vec<String> = list
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("nightly-"))
        .map(ToOwned::to_owned)
        .collect();
    let dated = |name: &str| name["nightly-".len()..].starts_with(|first: char| first.is_ascii_digit());
    names.sort_by(|a, b| dated(a).cmp(&dated(b)).then_with(|| b.cmp(a)));
    names
}

fn nightly_rustc(toolchain: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", toolchain, "rustc"]).env_remove("RUSTUP_TOOLCHAIN");
    command
}

fn nightly_llvm(toolchain: &str) -> Option<LlvmVersion> {
    rustc_llvm(nightly_rustc(toolchain))
}

fn has_core_source(toolchain: &str) -> bool {
    sysroot(nightly_rustc(toolchain))
        .is_some_and(|root| root.join("lib/rustlib/src/rust/library/core").is_dir())
}

fn has_prebuilt_core(rustc: &Path, target: &str) -> bool {
    let libraries =
        sysroot(Command::new(rustc)).map(|root| root.join("lib/rustlib").join(target).join("lib"));
    let Some(Ok(mut entries)) = libraries.map(fs::read_dir) else { return false };
    entries.any(|entry| entry.is_ok_and(|entry| is_core(&entry.file_name())))
}

fn is_core(name: &OsString) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("libcore-") && name.ends_with(".rlib"))
}

fn sysroot(mut rustc: Command) -> Option<PathBuf> {
    output(rustc.args(["--print", "sysroot"])).map(|root| PathBuf::from(root.trim_end()))
}

fn rustc_llvm(mut rustc: Command) -> Option<LlvmVersion> {
    llvm_in_verbose_version(&output(rustc.arg("-Vv"))?)
}

/// Finds the LLVM version in the output of `rustc -Vv`.
#[must_use]
pub fn llvm_in_verbose_version(text: &str) -> Option<LlvmVersion> {
    let version = text.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    leading_version(version.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_of_a_shared_library_is_read_from_its_name() {
        assert_eq!(llvm_in_binary(b"\0libc.so.6\0libLLVM.so.22.1\0"), Some((22, 1)));
        assert_eq!(llvm_in_binary(b"\0libLLVM-16.so.1\0"), Some((16, 0)));
    }

    #[test]
    fn llvm_that_is_linked_in_is_read_from_its_producer_string() {
        assert_eq!(llvm_in_binary(b"LLVM ERROR\0LLVM22.1.4-rust-1.97.0-nightly\0"), Some((22, 1)));
        assert_eq!(llvm_in_binary(b"LLVM ERROR: no version here"), None);
    }

    #[test]
    fn the_name_of_the_library_counts_more_than_strings_about_llvm() {
        assert_eq!(llvm_in_binary(b"LLVM99.9\0libLLVM.so.22.1\0"), Some((22, 1)));
    }

    #[test]
    fn llvm_of_a_compiler_is_read_from_its_verbose_version() {
        assert_eq!(llvm_in_verbose_version("rustc 1.96.0\nhost: x\nLLVM version: 22.1.8\n"), Some((22, 1)));
        assert_eq!(llvm_in_verbose_version("rustc 1.96.0\n"), None);
    }

    #[test]
    fn variables_of_the_outer_build_are_recognised() {
        for name in ["RUSTC_WORKSPACE_WRAPPER", "CARGO_ENCODED_RUSTFLAGS", "CARGO_CFG_TARGET_OS", "RUSTFLAGS"]
        {
            assert!(belongs_to_outer_build(name.as_ref()), "{name}");
        }
        for name in ["PATH", "CARGO_HOME", "CARGO", "CARGO_MAKEFLAGS", "RUSTUP_HOME", "CARGO_NET_OFFLINE"] {
            assert!(!belongs_to_outer_build(name.as_ref()), "{name}");
        }
    }
}
