//! Builds the probes and leaves them in `OUT_DIR` for `kernel::load` to embed; the only place that builds them.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;

#[path = "build/toolchain.rs"]
#[allow(dead_code, reason = "shared with xtask, which uses other parts of it")]
mod toolchain;

use toolchain::{Compiler, LINKER_ENV, RUSTC_ENV, Toolchain};

/// Names of the programs in `sensor-ebpf` and of their files in `OUT_DIR`: the probes, and for benchmarks the empty ones.
const PROGRAMS: [&str; 2] = ["quaywatch-probes", "quaywatch-baseline"];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let workspace = path_from_env("CARGO_MANIFEST_DIR")?.join("..");
    let out_dir = path_from_env("OUT_DIR")?;
    let arch =
        env::var("CARGO_CFG_TARGET_ARCH").map_err(|error| format!("CARGO_CFG_TARGET_ARCH: {error}"))?;
    let endian =
        env::var("CARGO_CFG_TARGET_ENDIAN").map_err(|error| format!("CARGO_CFG_TARGET_ENDIAN: {error}"))?;
    watch_inputs(&workspace);

    let toolchain = Toolchain::detect(&arch, &endian).map_err(|missing| missing.to_string())?;
    println!("cargo::rerun-if-changed={}", toolchain.linker.display());
    if let Compiler::Prebuilt { rustc } = &toolchain.compiler {
        println!("cargo::rerun-if-changed={}", rustc.display());
    }

    // Beside cargo's own directories (`<target>/<profile>/build/<package>/out` is ours), so that every profile of the
    // agent shares one build of the probes, which does not depend on it.
    let target_dir = out_dir.ancestors().nth(4).unwrap_or(&out_dir).join("probes");
    let status = toolchain
        .cargo("build")
        .args(["--package", "sensor-ebpf", "--profile", "probes", "--manifest-path"])
        .arg(workspace.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir)
        .status()
        .map_err(|error| format!("cannot start cargo for the probes: {error}"))?;
    if !status.success() {
        return Err(format!(
            "building the probes failed ({status}), see the messages of the nested cargo above"
        ));
    }

    for program in PROGRAMS {
        let built = target_dir.join(&toolchain.target).join("probes").join(program);
        let embedded = out_dir.join(program);
        copy_without_dwarf(&built, &embedded)
            .map_err(|error| format!("cannot copy {} to {}: {error}", built.display(), embedded.display()))?;
    }
    Ok(())
}

/// Copies an object without its DWARF. That is nine tenths of the file, was there for the linker to make BTF of, and would
/// take up memory wherever the agent runs.
fn copy_without_dwarf(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    let data = fs::read(from)?;
    let mut object = Builder::read(&*data)?;
    for section in &mut object.sections {
        section.delete =
            [".debug_", ".rel.debug_"].iter().any(|prefix| section.name.starts_with(prefix.as_bytes()));
    }
    object.delete_orphans();
    // LLVM keeps the names of sections with those of symbols; the writer wants a section of their own.
    let names = object.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    object.write(&mut stripped)?;
    Ok(fs::write(to, stripped)?)
}

/// Names everything the probes are made of, so that an unrelated change does not rebuild them.
fn watch_inputs(workspace: &Path) {
    for input in [
        "Cargo.toml",
        "Cargo.lock",
        "sensor-ebpf/Cargo.toml",
        "sensor-ebpf/src",
        "sensor-common/Cargo.toml",
        "sensor-common/src",
        "sensor-user/build.rs",
        "sensor-user/build/toolchain.rs",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    for variable in [LINKER_ENV, RUSTC_ENV, "XDG_CACHE_HOME"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
}

fn path_from_env(name: &str) -> Result<PathBuf, String> {
    env::var_os(name).map(PathBuf::from).ok_or_else(|| format!("{name} is not set: run this through cargo"))
}
