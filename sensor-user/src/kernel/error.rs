//! Why the probes cannot run, in words that name the remedy.

use std::io;
use std::path::PathBuf;

use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::{BtfError as AyaBtfError, EbpfError};
use thiserror::Error;

use super::btf::BtfError;
use super::constants::Mismatch;

/// What the probes need beside a kernel that has them.
const RIGHTS: &str = "run as root, or with the capabilities BPF, PERFMON and NET_ADMIN (in a container: privileged, or these added)";

/// How lines begin with which a verifier ends its log, whatever came of it.
const FIGURES: [&str; 3] = ["processed ", "stack depth ", "verification time "];

/// A failure to load, attach or use the probes.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The kernel is older than its ring buffer.
    #[error("the kernel is Linux {found}, the probes need 5.8 or newer: update the kernel")]
    TooOld {
        /// Its release.
        found: String,
    },
    /// The kernel offers no type information.
    #[error(
        "the kernel offers no type information at {path}: use a kernel built with CONFIG_DEBUG_INFO_BTF=y"
    )]
    NoTypeInformation {
        /// Where it should be.
        path: PathBuf,
        /// What reading it said.
        source: io::Error,
    },
    /// The kernel's type information is not understood.
    #[error("the kernel's type information is not understood: report this kernel, or use another one")]
    TypeInformation(#[from] BtfError),
    /// A structure of the kernel has changed.
    #[error("the kernel has no {member}: its structures are unknown to this version, update quaywatch")]
    NoMember {
        /// What was looked for.
        member: &'static str,
    },
    /// A right is missing.
    #[error("no permission to {what}: {RIGHTS}")]
    NoPermission {
        /// What was refused.
        what: String,
        /// The refusal.
        source: io::Error,
    },
    /// A hook that everything else depends on is not there.
    #[error("the kernel has no {hook}: use a kernel with this hook")]
    NoHook {
        /// Which.
        hook: &'static str,
        /// What the kernel said.
        source: ProgramError,
    },
    /// The kernel refuses programs that read its memory.
    #[error(
        "the kernel is locked down (confidentiality) and refuses the program on {hook} ({said}): boot with lockdown=integrity or without lockdown"
    )]
    LockedDown {
        /// On which hook.
        hook: &'static str,
        /// In the kernel's own words.
        said: String,
    },
    /// The kernel refused a program, and nobody knows whether lockdown is the cause.
    #[error(
        "the kernel refused the program on {hook} ({said}); perhaps it is locked down (confidentiality), which cannot be read: mount securityfs, and boot with lockdown=integrity if it is"
    )]
    PerhapsLockedDown {
        /// On which hook.
        hook: &'static str,
        /// In the kernel's own words.
        said: String,
    },
    /// The kernel refused a program.
    #[error("the kernel refused the program on {hook}")]
    Refused {
        /// On which hook.
        hook: &'static str,
        /// Why.
        source: ProgramError,
    },
    /// There is nothing to attach a packet program to.
    #[error("no cgroup hierarchy of version 2 is mounted, the program on {hook} needs its root; {reason}")]
    NoCgroups {
        /// On which hook.
        hook: &'static str,
        /// Why it is not mounted for the sensor only.
        reason: String,
    },
    /// The embedded object cannot be loaded.
    #[error("cannot load the probes")]
    Object(#[source] Box<EbpfError>),
    /// The embedded object lacks a part: the build went wrong.
    #[error("the embedded probes have no {kind} `{name}`: rebuild quaywatch")]
    Incomplete {
        /// `map` or `program`.
        kind: &'static str,
        /// Which.
        name: &'static str,
    },
    /// The embedded object is of another version.
    #[error("the embedded probes do not fit this program: rebuild quaywatch")]
    Mismatch(#[from] Mismatch),
    /// A map cannot be used.
    #[error("cannot {what}")]
    Map {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: MapError,
    },
    /// Something that the kernel shows in a file cannot be read.
    #[error("cannot read {what}")]
    Read {
        /// What.
        what: String,
        /// Why not.
        source: io::Error,
    },
}

impl KernelError {
    /// Whether this system cannot run the probes at all, as opposed to a failure of one that can. Such an error ends the
    /// program with exit code 3.
    #[must_use]
    pub const fn is_unsupported(&self) -> bool {
        matches!(
            self,
            Self::TooOld { .. }
                | Self::NoTypeInformation { .. }
                | Self::TypeInformation(_)
                | Self::NoMember { .. }
                | Self::NoPermission { .. }
                | Self::NoHook { .. }
                | Self::LockedDown { .. }
                | Self::PerhapsLockedDown { .. }
        )
    }

    /// Explains a failure to load the object and to create its maps.
    pub(super) fn from_object(error: EbpfError) -> Self {
        match error {
            EbpfError::MapError(MapError::CreateError { name, io_error }) if is_refusal(&io_error) => {
                Self::NoPermission { what: format!("create the map {name}"), source: io_error }
            }
            EbpfError::BtfError(AyaBtfError::LoadError { io_error, .. }) if is_refusal(&io_error) => {
                Self::NoPermission { what: "load type information".to_owned(), source: io_error }
            }
            error => Self::Object(Box::new(error)),
        }
    }

    /// What the kernel said at last, in one line: its verifier writes pages.
    pub(super) fn last_words(error: &ProgramError) -> String {
        let ProgramError::LoadError { io_error, verifier_log } = error else { return error.to_string() };
        match last_reason(&verifier_log.to_string()) {
            Some(line) => format!("{io_error}: {line}"),
            None => io_error.to_string(),
        }
    }

    /// Whether the kernel refused to attach a program because it is attached there already.
    pub(super) fn is_in_place(&self) -> bool {
        let Self::Refused { source: ProgramError::SyscallError(error), .. } = self else { return false };
        matches!(error.io_error.raw_os_error(), Some(libc::EEXIST | libc::EBUSY))
    }

    /// Explains a failure to load or attach a program.
    pub(super) fn from_program(hook: &'static str, error: ProgramError) -> Self {
        match error {
            // The verifier says EACCES too, but then it says why.
            ProgramError::LoadError { io_error, verifier_log }
                if is_refusal(&io_error) && verifier_log.to_string().trim().is_empty() =>
            {
                Self::NoPermission { what: format!("load the program on {hook}"), source: io_error }
            }
            ProgramError::SyscallError(error) if is_refusal(&error.io_error) => {
                Self::NoPermission { what: format!("attach the program on {hook}"), source: error.io_error }
            }
            source @ ProgramError::Btf(AyaBtfError::UnknownBtfTypeName { .. }) => {
                Self::NoHook { hook, source }
            }
            source => Self::Refused { hook, source },
        }
    }
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// The last line of a verifier's log that is no figure.
fn last_reason(log: &str) -> Option<&str> {
    let is_figure = |line: &str| FIGURES.iter().any(|begin| line.starts_with(begin));
    log.lines().map(str::trim).rfind(|line| !line.is_empty() && !is_figure(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal() -> io::Error {
        io::Error::from_raw_os_error(libc::EPERM)
    }

    #[test]
    fn the_figures_at_the_end_of_a_verifiers_log_are_not_why_it_refused() {
        let log = "func#0 @0\n85: (85) call bpf_probe_read#4\nunknown func bpf_probe_read#4\n\
            verification time 1520 usec\nstack depth 0+8+0\n\
            processed 161 insns (limit 1000000) max_states_per_insn 1\n\n";
        assert_eq!(last_reason(log), Some("unknown func bpf_probe_read#4"));
        assert_eq!(last_reason("processed 1 insns\n"), None);
        assert_eq!(last_reason(""), None);
    }

    #[test]
    fn a_missing_right_is_told_from_a_failure_and_names_the_remedy() {
        let error = KernelError::from_object(EbpfError::MapError(MapError::CreateError {
            name: "PORTS".to_owned(),
            io_error: refusal(),
        }));
        assert!(error.is_unsupported());
        assert!(
            error.to_string().starts_with("no permission to create the map PORTS: run as root"),
            "{error}"
        );

        let error = KernelError::from_object(EbpfError::MapError(MapError::CreateError {
            name: "PORTS".to_owned(),
            io_error: io::Error::from_raw_os_error(libc::ENOMEM),
        }));
        assert!(!error.is_unsupported(), "{error}");
    }

    #[test]
    fn a_missing_hook_is_told_from_a_refused_program() {
        let unknown = AyaBtfError::UnknownBtfTypeName { type_name: "btf_trace_x".to_owned() };
        let error = KernelError::from_program("tp_btf/x", ProgramError::Btf(unknown));
        assert!(matches!(error, KernelError::NoHook { hook: "tp_btf/x", .. }));
        assert!(error.is_unsupported());

        let error = KernelError::from_program("tp_btf/x", ProgramError::NotLoaded);
        assert!(matches!(error, KernelError::Refused { .. }));
        assert!(!error.is_unsupported());
    }
}
