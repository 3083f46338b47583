//! Kernel lockdown.
//!
//! At the level `confidentiality` the kernel refuses every program that reads its memory through a helper, as strings can
//! only be read; programs that only follow typed pointers load. The level `integrity` forbids nothing of ours.

use std::fs;
use std::path::Path;

use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};

use super::KernelError;

/// Where securityfs tells the level: all levels in a line, the one in force in brackets.
pub const PATH: &str = "/sys/kernel/security/lockdown";

/// What the kernel's lockdown means for programs that read its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lockdown {
    /// They are allowed.
    Open,
    /// They are refused.
    Confidential,
    /// The level cannot be read.
    Unknown,
}

/// Whether programs may call the helper that reads memory of the kernel. Where the level cannot be read, the kernel is asked
/// to load a program that does.
pub(super) fn may_read_kernel(path: &Path) -> bool {
    match Lockdown::read(path) {
        Lockdown::Open => true,
        Lockdown::Confidential => false,
        Lockdown::Unknown => {
            is_helper_supported(ProgramType::RawTracePoint, BpfHelper::BPF_FUNC_probe_read_kernel)
                .unwrap_or(false)
        }
    }
}

impl Lockdown {
    /// Reads the level. A kernel whose securityfs is there and does not tell one has no lockdown.
    pub(super) fn read(path: &Path) -> Self {
        match fs::read_to_string(path) {
            Ok(levels) if levels.contains("[confidentiality]") => Self::Confidential,
            Ok(_) => Self::Open,
            Err(_) if path.with_file_name("lsm").exists() && !path.exists() => Self::Open,
            Err(_) => Self::Unknown,
        }
    }

    /// Names lockdown as the cause of a failure as far as it is one: a missing right or hook is none of its doing.
    pub(super) fn explain(self, error: KernelError) -> KernelError {
        match (self, error) {
            (Self::Confidential, KernelError::Refused { hook, source }) => {
                KernelError::LockedDown { hook, said: KernelError::last_words(&source) }
            }
            (Self::Unknown, KernelError::Refused { hook, source }) => {
                KernelError::PerhapsLockedDown { hook, said: KernelError::last_words(&source) }
            }
            (_, error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use aya::programs::ProgramError;

    use super::*;

    #[test]
    fn the_level_in_brackets_is_in_force() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lockdown");
        assert_eq!(Lockdown::read(&path), Lockdown::Unknown, "no securityfs is mounted");
        fs::write(directory.path().join("lsm"), "capability").expect("writable");
        assert_eq!(Lockdown::read(&path), Lockdown::Open, "it tells of no lockdown");
        let in_force = |levels: &str| {
            fs::write(&path, levels).expect("writable");
            Lockdown::read(&path)
        };
        assert_eq!(in_force("none integrity [confidentiality]\n"), Lockdown::Confidential);
        assert_eq!(in_force("none [integrity] confidentiality\n"), Lockdown::Open);
        assert_eq!(in_force("[none] integrity confidentiality\n"), Lockdown::Open);
    }

    fn refused() -> KernelError {
        KernelError::Refused { hook: "tp_btf/x", source: ProgramError::NotLoaded }
    }

    #[test]
    fn only_what_lockdown_refuses_is_blamed_on_it_and_what_the_kernel_said_is_kept() {
        let blamed = Lockdown::Confidential.explain(refused()).to_string();
        let said = ProgramError::NotLoaded.to_string();
        assert!(blamed.contains("locked down (confidentiality)") && blamed.contains(&said), "{blamed}");
        let no_right =
            KernelError::NoPermission { what: "load".to_owned(), source: io::ErrorKind::Other.into() };
        assert!(matches!(Lockdown::Confidential.explain(no_right), KernelError::NoPermission { .. }));
        let absent = KernelError::NoHook { hook: "tp_btf/x", source: ProgramError::NotLoaded };
        assert!(matches!(Lockdown::Confidential.explain(absent), KernelError::NoHook { .. }));
        assert!(matches!(Lockdown::Open.explain(refused()), KernelError::Refused { .. }));
    }

    #[test]
    fn where_the_level_cannot_be_read_both_causes_are_named() {
        let text = Lockdown::Unknown.explain(refused()).to_string();
        for part in ["refused the program on tp_btf/x", "locked down (confidentiality)", "securityfs"] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    }
}
