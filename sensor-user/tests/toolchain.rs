//! The build script's choice of a toolchain; its unit tests run here, because build scripts have none.

#[path = "../build/toolchain.rs"]
#[allow(dead_code, reason = "the build script and xtask use the rest")]
mod toolchain;

use toolchain::{Compiler, Missing, Toolchain};

#[test]
fn the_toolchain_of_this_build_is_found_again() {
    let found =
        Toolchain::detect(std::env::consts::ARCH, "little").expect("the probes were built, so there is one");
    assert_eq!(found.target, "bpfel-unknown-none");
    assert!(found.linker.is_file());
    if let Compiler::Prebuilt { rustc } = &found.compiler {
        assert!(rustc.is_file());
    }
    let command = found.cargo("build");
    let flags = command.get_envs().find(|(name, _)| *name == "CARGO_ENCODED_RUSTFLAGS");
    let flags = flags.and_then(|(_, value)| value?.to_str()).expect("flags");
    assert!(flags.contains("bpf_target_arch"), "{flags}");
}

#[test]
fn what_is_missing_is_said_with_the_remedy() {
    for missing in [Missing::Linker, Missing::Compiler(None), Missing::Compiler(Some((22, 1)))] {
        let text = missing.to_string();
        assert!(text.contains("cargo xtask setup"), "{text}");
        assert!(!text.contains('\n'), "one sentence: {text}");
    }
}
