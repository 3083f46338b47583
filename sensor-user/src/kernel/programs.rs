//! The programs of the object: loads those that this kernel takes, attaches the best of each feature, and keeps why the
//! others are not in use.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::sync::Arc;

use aya::programs::{BtfTracePoint, CgroupSkb, FEntry, FExit, Iter, Lsm, Program, ProgramError};
use aya::sys::SyscallError;
use aya::{Btf as AyaBtf, Ebpf};
use sensor_core::health::{Hook, HookState};

use super::cgroup_root::{Absence, CgroupRoot};
use super::hooks::{Attach, Feature, HookSpec, Need, SOCKETS, TABLE};
use super::link::Link;
use super::lockdown::Lockdown;
use super::{KernelError, security_modules};

/// What tells the usable hooks from the others beside the kernel's answer.
pub(super) struct Surroundings<'a> {
    /// The kernel's types.
    pub(super) btf: &'a AyaBtf,
    /// The number of parameters of a kernel function.
    pub(super) parameters: &'a dyn Fn(&str) -> Option<u32>,
    /// The list of active security modules.
    pub(super) security_modules: &'a Path,
    /// What the kernel's lockdown allows.
    pub(super) lockdown: Lockdown,
    /// Where the root of the version 2 cgroups is.
    pub(super) cgroups: CgroupRoot,
}

/// Why a program rests.
const NOTHING_TO_SEE: &str = "no management listener is open";

/// The programs and their links.
pub(super) struct Programs {
    ebpf: Ebpf,
    entries: Vec<Entry>,
    cgroups: CgroupRoot,
}

/// A row of the hook table in this kernel.
#[derive(Debug)]
struct Entry {
    spec: &'static HookSpec,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Loaded; an iterator needs no more.
    Loaded,
    Attached(Link),
    /// It was attached and rests: there is nothing for it to see.
    Resting,
    /// It was attached and is no more, and why it could not be attached anew; that is tried again.
    Lost(Arc<str>),
    /// Not in use, and why.
    Unusable(Arc<str>),
}

impl Programs {
    /// Loads every program that the kernel takes.
    ///
    /// # Errors
    /// When it does not take a required one; in a kernel that is locked down only the one for sockets is.
    pub(super) fn load(mut ebpf: Ebpf, around: Surroundings<'_>) -> Result<Self, KernelError> {
        let mut entries = Vec::with_capacity(TABLE.len());
        for spec in TABLE {
            let state = match load(&mut ebpf, spec, &around) {
                Ok(()) => State::Loaded,
                Err(Refusal::Error(error)) => State::Unusable(bear(spec, around.lockdown.explain(error))?),
                Err(Refusal::Reason(reason)) => State::Unusable(reason),
            };
            entries.push(Entry { spec, state });
        }
        Ok(Self { ebpf, entries, cgroups: around.cgroups })
    }

    /// Attaches what is not attached: every program, of those that share a feature the first that the kernel accepts.
    ///
    /// # Errors
    /// When a required program cannot be attached; the others are attached all the same.
    pub(super) fn attach(&mut self) -> Result<(), KernelError> {
        let mut result = Ok(());
        while let Some(index) = next_to_attach(&self.entries) {
            let spec = self.entries[index].spec;
            self.entries[index].state = match self.link(spec) {
                Ok(link) => State::Attached(link),
                Err(error) if spec.need == Need::Required => {
                    let reason = Arc::from(error.to_string());
                    result = result.and(Err(error));
                    State::Unusable(reason)
                }
                Err(error) => State::Unusable(in_words(error)),
            };
        }
        result
    }

    /// Attaches a program anew that was attached before, whatever has become of its link; where the kernel refuses, another
    /// one with its feature. Returns whether it was attached: one that never was is left alone.
    ///
    /// # Errors
    /// When the kernel refuses it. It stays attached if it still is; otherwise the next call tries again.
    pub(super) fn reattach(&mut self, program: &str) -> Result<bool, KernelError> {
        let Some(index) = self.entries.iter().position(|entry| entry.spec.program == program) else {
            return Ok(false);
        };
        let spec = self.entries[index].spec;
        let old = match std::mem::replace(&mut self.entries[index].state, State::Loaded) {
            State::Attached(link) => Some(link),
            State::Lost(_) => None,
            other => {
                self.entries[index].state = other;
                return Ok(false);
            }
        };
        let (state, result) = renew(old, || self.link(spec));
        let is_lost = matches!(state, State::Lost(_));
        self.entries[index].state = state;
        if is_lost && let Need::OneOf(feature) = spec.need {
            self.attach()?;
            if self.serves(feature) {
                // The other one took its place.
                self.entries[index].state = State::Loaded;
            }
        }
        result.map(|()| true)
    }

    /// Attaches the programs on packets that rest, or lets those rest that are attached. One that the kernel refuses now
    /// counts as lost, and is tried again like any other.
    pub(super) fn watch_packets(&mut self, wanted: bool) {
        for index in 0..self.entries.len() {
            let Entry { spec, state } = &self.entries[index];
            if !matches!(spec.attach, Attach::CgroupSkb(_)) {
                continue;
            }
            self.entries[index].state = match (state, wanted) {
                (State::Attached(_) | State::Lost(_), false) => State::Resting,
                (State::Resting, true) => {
                    self.link(spec).map_or_else(|error| State::Lost(in_words(error)), State::Attached)
                }
                _ => continue,
            };
        }
    }

    /// Whether a program with this feature is attached.
    pub(super) fn serves(&self, feature: Feature) -> bool {
        serves(&self.entries, feature)
    }

    /// Every program that we have attached, and whether it still is.
    pub(super) fn attached_state(&self) -> Vec<(&'static str, bool)> {
        let links = self.entries.iter().filter_map(|entry| match &entry.state {
            State::Attached(link) => Some((entry.spec.program, link.is_attached())),
            State::Lost(_) => Some((entry.spec.program, false)),
            State::Loaded | State::Resting | State::Unusable(_) => None,
        });
        links.collect()
    }

    /// Detaches every program. Those that are running may go on for a moment.
    pub(super) fn detach(&mut self) {
        for entry in &mut self.entries {
            if !matches!(entry.state, State::Unusable(_)) {
                entry.state = State::Unusable(Arc::from("detached"));
            }
        }
    }

    /// Every hook and whether it is in place.
    pub(super) fn hooks(&self) -> Vec<Hook> {
        let hook = |Entry { spec, state }: &Entry| {
            let (state, reason) = match state {
                State::Attached(_) => (HookState::Attached, None),
                State::Loaded if matches!(spec.attach, Attach::Iterator(_)) => (HookState::Attached, None),
                State::Loaded => (HookState::Standby, None),
                State::Resting => (HookState::Standby, Some(NOTHING_TO_SEE.into())),
                State::Lost(reason) | State::Unusable(reason) => {
                    (HookState::Unavailable, Some(reason.clone()))
                }
            };
            Hook { name: spec.name.into(), program: spec.program.into(), state, reason }
        };
        self.entries.iter().map(hook).collect()
    }

    /// Starts an iterator; reading the file runs it.
    pub(super) fn open_iterator(&mut self, name: &'static str) -> Result<File, KernelError> {
        let hook = TABLE.iter().find(|spec| spec.program == name).map_or(name, |spec| spec.name);
        let program: &mut Iter = program(&mut self.ebpf, name)?;
        let open = |program: &mut Iter| {
            let link = program.attach()?;
            let link = program.take_link(link)?;
            link.into_file().map_err(|error| ProgramError::IOError(io::Error::other(error)))
        };
        open(program).map_err(|error| KernelError::from_program(hook, error))
    }

    /// Runs the kernel did not start because the program was running on that CPU already; the kernel tells them in
    /// procfs only, and not before 5.12.
    pub(super) fn recursion_misses(&self, proc: &Path) -> u64 {
        let fds = self.ebpf.programs().filter_map(|(_, program)| program.fd().ok());
        let paths = fds.map(|fd| proc.join(format!("self/fdinfo/{}", fd.as_fd().as_raw_fd())));
        paths.filter_map(|path| parse_recursion_misses(&fs::read_to_string(path).ok()?)).sum()
    }

    fn link(&self, spec: &HookSpec) -> Result<Link, KernelError> {
        let missing = KernelError::Incomplete { kind: "program", name: spec.program };
        let program = self.ebpf.program(spec.program).ok_or(missing)?;
        let refused = |call: &'static str| {
            move |io_error| {
                let error = ProgramError::SyscallError(SyscallError { call, io_error });
                KernelError::from_program(spec.name, error)
            }
        };
        let program = program.fd().map_err(|error| KernelError::from_program(spec.name, error))?.as_fd();
        match spec.attach {
            Attach::CgroupSkb(direction) => {
                let root = self.cgroups.open().map_err(|absence| match absence {
                    Absence::Unreadable(path, source) => {
                        KernelError::Read { what: path.display().to_string(), source }
                    }
                    Absence::Nowhere(reason) => KernelError::NoCgroups { hook: spec.name, reason },
                })?;
                Link::attach_to_cgroup(program, root.as_fd(), direction).map_err(refused("bpf_link_create"))
            }
            _ => Link::attach(program).map_err(refused("bpf_raw_tracepoint_open")),
        }
    }
}

/// Attaches a program anew before its old link is given up, so that it misses nothing in between; only where the kernel
/// takes a program no more than once in its place, the old link goes first. Returns what has become of the program.
fn renew(
    mut old: Option<Link>,
    mut link: impl FnMut() -> Result<Link, KernelError>,
) -> (State, Result<(), KernelError>) {
    let anew = match link() {
        Err(error) if old.is_some() && error.is_in_place() => {
            old = None;
            link()
        }
        anew => anew,
    };
    match (anew, old.filter(Link::is_attached)) {
        (Ok(link), _) => (State::Attached(link), Ok(())),
        (Err(error), Some(old)) => (State::Attached(old), Err(error)),
        (Err(error), None) => (State::Lost(error.to_string().into()), Err(error)),
    }
}

/// Whether a program with this feature is attached.
fn serves(entries: &[Entry], feature: Feature) -> bool {
    entries.iter().any(|Entry { spec, state }| {
        let has_feature = spec.need == Need::OneOf(feature) || spec.also == Some(feature);
        has_feature && matches!(state, State::Attached(_))
    })
}

/// Which program to attach next: one that is loaded and no iterator, unless its feature is there already.
fn next_to_attach(entries: &[Entry]) -> Option<usize> {
    let is_served = |need: Need| matches!(need, Need::OneOf(feature) if serves(entries, feature));
    entries.iter().position(|Entry { spec, state }| {
        matches!(state, State::Loaded) && !matches!(spec.attach, Attach::Iterator(_)) && !is_served(spec.need)
    })
}

/// Why the sensor does without a program.
///
/// # Errors
/// When it does not. What lockdown leaves are the programs that follow typed pointers only: enough to see who connects to
/// whom, as long as the one for sockets is among them.
fn bear(spec: &HookSpec, error: KernelError) -> Result<Arc<str>, KernelError> {
    let is_lockdown = matches!(error, KernelError::LockedDown { .. } | KernelError::PerhapsLockedDown { .. });
    match spec.need {
        Need::Required if spec.program == SOCKETS || !is_lockdown => Err(error),
        _ => Ok(in_words(error)),
    }
}

/// Why a program was not loaded.
enum Refusal {
    Error(KernelError),
    Reason(Arc<str>),
}

impl From<KernelError> for Refusal {
    fn from(error: KernelError) -> Self {
        Self::Error(error)
    }
}

fn load(ebpf: &mut Ebpf, spec: &HookSpec, around: &Surroundings<'_>) -> Result<(), Refusal> {
    let (name, btf) = (spec.program, around.btf);
    let loaded = match spec.attach {
        Attach::Tracepoint(tracepoint) => program::<BtfTracePoint>(ebpf, name)?.load(tracepoint, btf),
        Attach::Iterator(target) => program::<Iter>(ebpf, name)?.load(target, btf),
        Attach::FEntry(function) => program::<FEntry>(ebpf, name)?.load(function, btf),
        Attach::FExit { function, parameters } => {
            let found = (around.parameters)(function);
            if let Some(found) = found.filter(|found| *found != parameters) {
                let reason =
                    format!("{function} has {found} parameters here, this program expects {parameters}");
                return Err(Refusal::Reason(reason.into()));
            }
            program::<FExit>(ebpf, name)?.load(function, btf)
        }
        Attach::Lsm(hook) => {
            security_modules::check(around.security_modules).map_err(Refusal::Reason)?;
            program::<Lsm>(ebpf, name)?.load(hook, btf)
        }
        Attach::CgroupSkb(_) => program::<CgroupSkb>(ebpf, name)?.load(),
    };
    loaded.map_err(|error| match KernelError::from_program(spec.name, error) {
        // The required programs, which need the same rights, have been loaded before.
        KernelError::NoPermission { source, .. } if needs_trampoline(spec.attach) => {
            Refusal::Reason(format!("the kernel refuses programs on {} ({source})", spec.name).into())
        }
        error => Refusal::Error(error),
    })
}

/// Whether the kernel calls the program through code that it generates, which some configurations do not allow.
const fn needs_trampoline(attach: Attach) -> bool {
    matches!(attach, Attach::FEntry(_) | Attach::FExit { .. } | Attach::Lsm(_))
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, KernelError>
where
    &'a mut P: TryFrom<&'a mut Program>,
{
    let program = ebpf.program_mut(name).and_then(|program| program.try_into().ok());
    program.ok_or(KernelError::Incomplete { kind: "program", name })
}

/// An error with its causes.
fn in_words(error: KernelError) -> Arc<str> {
    format!("{:#}", anyhow::Error::new(error)).into()
}

fn parse_recursion_misses(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_required_program_is_done_without_under_lockdown_only_and_never_the_one_for_sockets() {
        let spec = |program, need| HookSpec {
            name: "tp_btf/x",
            program,
            attach: Attach::Tracepoint("x"),
            need,
            also: None,
        };
        let (required, optional) = (spec("x", Need::Required), spec("x", Need::Optional));
        let sockets = spec(SOCKETS, Need::Required);
        let refused = || KernelError::Refused { hook: "tp_btf/x", source: ProgramError::NotLoaded };
        let said = String::new;
        assert!(bear(&required, refused()).is_err());
        assert!(bear(&optional, refused()).is_ok());
        assert!(bear(&required, KernelError::LockedDown { hook: "tp_btf/x", said: said() }).is_ok());
        assert!(bear(&required, KernelError::PerhapsLockedDown { hook: "tp_btf/x", said: said() }).is_ok());
        assert!(bear(&sockets, KernelError::LockedDown { hook: "tp_btf/x", said: said() }).is_err());
    }

    #[test]
    fn recursion_misses_are_read_from_fdinfo() {
        let fdinfo = "pos:\t0\nprog_type:\t26\nrecursion_misses:\t7\nverified_insns:\t223\n";
        assert_eq!(parse_recursion_misses(fdinfo), Some(7));
        assert_eq!(parse_recursion_misses("pos:\t0\n"), None);
        assert_eq!(parse_recursion_misses("recursion_misses:\tx\n"), None);
    }

    fn entry(program: &'static str, attach: Attach, need: Need, state: State) -> Entry {
        let spec = Box::leak(Box::new(HookSpec { name: program, program, attach, need, also: None }));
        Entry { spec, state }
    }

    /// The programs that are attached, in order, where the kernel accepts all but `refused`.
    fn attached(mut entries: Vec<Entry>, refused: &[&str]) -> Vec<&'static str> {
        let mut order = Vec::new();
        while let Some(index) = next_to_attach(&entries) {
            let program = entries[index].spec.program;
            entries[index].state = if refused.contains(&program) {
                State::Unusable(Arc::from("refused"))
            } else {
                order.push(program);
                State::Attached(Link::dummy())
            };
        }
        order
    }

    fn refusal(number: i32) -> KernelError {
        let io_error = io::Error::from_raw_os_error(number);
        let error = SyscallError { call: "bpf_raw_tracepoint_open", io_error };
        KernelError::from_program("tp_btf/a", ProgramError::SyscallError(error))
    }

    /// Renews a link where the kernel answers so, call by call; returns also the number of calls.
    fn renewed(old: Option<Link>, answers: &[Option<i32>]) -> (State, Result<(), KernelError>, usize) {
        let mut calls = 0;
        let (state, result) = renew(old, || {
            calls += 1;
            answers[calls - 1].map_or_else(|| Ok(Link::dummy()), |number| Err(refusal(number)))
        });
        (state, result, calls)
    }

    #[test]
    fn a_program_is_attached_anew_before_or_after_its_old_link_as_the_kernel_wants() {
        for in_place in [libc::EEXIST, libc::EBUSY] {
            let (state, result, calls) = renewed(Some(Link::dummy()), &[Some(in_place), None]);
            assert!(matches!(state, State::Attached(_)) && result.is_ok(), "{state:?}");
            assert_eq!(calls, 2);
        }
        let (state, result, calls) = renewed(Some(Link::dummy()), &[None]);
        assert!(matches!(state, State::Attached(_)) && result.is_ok(), "{state:?}");
        assert_eq!(calls, 1);
    }

    #[test]
    fn a_program_that_cannot_be_attached_anew_is_lost_and_tried_again() {
        for (old, answers) in [
            (Some(Link::dummy()), &[Some(libc::EEXIST), Some(libc::ENOMEM)][..]),
            (Some(Link::dummy()), &[Some(libc::EPERM)]),
            (None, &[Some(libc::EBUSY)]),
        ] {
            let (state, result, calls) = renewed(old, answers);
            assert!(matches!(state, State::Lost(_)) && result.is_err(), "{state:?}");
            assert_eq!(calls, answers.len());
        }
        let (state, ..) = renewed(None, &[None]);
        assert!(matches!(state, State::Attached(_)), "{state:?}");
    }

    fn alternatives() -> Vec<Entry> {
        let one_of = Need::OneOf(Feature::SocketConnects);
        vec![
            entry("required", Attach::Tracepoint("a"), Need::Required, State::Loaded),
            entry("walk", Attach::Iterator("b"), Need::Optional, State::Loaded),
            entry("unloadable", Attach::Lsm("c"), one_of, State::Unusable(Arc::from("inactive"))),
            entry("better", Attach::FEntry("d"), one_of, State::Loaded),
            entry("worse", Attach::Tracepoint("e"), one_of, State::Loaded),
            entry("other", Attach::FEntry("f"), Need::OneOf(Feature::AcceptTasks), State::Loaded),
            entry("optional", Attach::FEntry("g"), Need::Optional, State::Loaded),
        ]
    }

    #[test]
    fn a_program_with_two_features_spares_another_one() {
        let mut entries = alternatives();
        let both = HookSpec { also: Some(Feature::SocketRequests), ..*entries[4].spec };
        entries[4].spec = Box::leak(Box::new(both));
        let one_of = Need::OneOf(Feature::SocketRequests);
        entries.push(entry("requests", Attach::Tracepoint("e"), one_of, State::Loaded));
        assert!(!attached(entries, &["better"]).contains(&"requests"));
        let mut entries = alternatives();
        entries.push(entry("requests", Attach::Tracepoint("e"), one_of, State::Loaded));
        assert!(attached(entries, &[]).contains(&"requests"));
    }

    #[test]
    fn of_each_feature_the_first_program_that_is_accepted_is_attached() {
        assert_eq!(attached(alternatives(), &[]), ["required", "better", "other", "optional"]);
        assert_eq!(attached(alternatives(), &["better"]), ["required", "worse", "other", "optional"]);
        assert_eq!(attached(alternatives(), &["better", "worse"]), ["required", "other", "optional"]);
    }
}
