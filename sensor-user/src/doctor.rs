//! What this host lets the sensor see, found out without installing anything.
//!
//! Two kinds of evidence: files of the kernel and of the runtimes, which say most of it to anybody, and a trial, which
//! loads the probes, lets the canaries come back and detaches again. Every path is below injected roots, and a file that
//! is missing or makes no sense is an answer, never an error.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemars::JsonSchema;
use sensor_core::coverage;
use sensor_core::health::{self, Health, HealthState};
use serde::{Deserialize, Serialize};

use crate::wire::{Capability, CoverageState, HookState};

pub mod host;
pub mod listeners;
pub mod runtimes;
mod text;

pub use listeners::Listener;
pub use runtimes::Runtime;

/// The answer of `quaywatch doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "quaywatch doctor", extend("$id" = "https://github.com/quaywatch/quaywatch/docs/quaywatch-doctor.schema.json"))]
pub struct Report {
    /// `quaywatch-doctor/1`; changes with every incompatible change.
    pub schema: String,
    /// The answer in a word.
    pub verdict: Verdict,
    /// Why the sensor cannot run, and the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What was looked at, in order.
    pub checks: Vec<Check>,
    /// Every hook of the sensor; empty when the trial was not possible.
    pub hooks: Vec<Hook>,
    /// What would be seen, by capability; empty when the trial was not possible.
    pub coverage: BTreeMap<Capability, Coverage>,
    /// Container runtimes of this host.
    pub runtimes: Vec<Runtime>,
    /// Listeners on watched ports.
    pub listeners: Vec<Listener>,
}

/// The answer in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything would be seen that the sensor owes to every host; what of the rest this host lacks is in `coverage`.
    Ready,
    /// The sensor runs, and something that it owes to every host would not be seen, or not be proved to be.
    Limited,
    /// The sensor does not run, here or as this user.
    CannotRun,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What.
    pub name: String,
    /// How it stands.
    pub state: CheckState,
    /// What was found.
    pub found: String,
    /// The one thing to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckState {
    /// As it should be.
    Ok,
    /// Worth knowing; costs nothing, or only what is optional.
    Note,
    /// Missing, and the sensor sees less or nothing without it.
    Missing,
}

impl Check {
    fn ok(name: &str, found: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state: CheckState::Ok, found: found.into(), remedy: None }
    }

    fn note(name: &str, found: impl Into<String>, remedy: Option<&str>) -> Self {
        let remedy = remedy.map(str::to_owned);
        Self { name: name.to_owned(), state: CheckState::Note, found: found.into(), remedy }
    }

    fn missing(name: &str, found: impl Into<String>, remedy: &str) -> Self {
        let remedy = Some(remedy.to_owned());
        Self { name: name.to_owned(), state: CheckState::Missing, found: found.into(), remedy }
    }
}

/// A hook of the sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hook {
    /// Kernel hook.
    pub name: String,
    /// Our program on it.
    pub program: String,
    /// Whether it can be used.
    pub state: HookState,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What would be seen of a capability.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Coverage {
    /// How well.
    pub state: CoverageState,
    /// Why it is not live, or what of it was not tested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The one thing to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What came of loading the probes.
#[derive(Debug)]
pub enum Trial {
    /// They ran; this is how hooks and coverage stood at the end.
    Ran(Box<Health>),
    /// They could not, and why, with the remedy.
    Refused(String),
}

impl Report {
    /// Puts the evidence together.
    #[must_use]
    pub fn new(checks: Vec<Check>, trial: &Trial, runtimes: Vec<Runtime>, listeners: Vec<Listener>) -> Self {
        let (problem, hooks, coverage) = match trial {
            Trial::Refused(problem) => (Some(problem.clone()), Vec::new(), BTreeMap::new()),
            Trial::Ran(ready) => (None, hooks(ready), coverage(ready)),
        };
        let verdict = match trial {
            Trial::Refused(_) => Verdict::CannotRun,
            Trial::Ran(health) if health.state == HealthState::Degraded => Verdict::Limited,
            Trial::Ran(_) => Verdict::Ready,
        };
        let schema = "quaywatch-doctor/1".to_owned();
        Self { schema, verdict, problem, checks, hooks, coverage, runtimes, listeners }
    }

    /// The report for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        text::write(self, &mut text).expect("invariant: a string can be written");
        text
    }
}

fn hooks(ready: &Health) -> Vec<Hook> {
    let hook = |hook: &health::Hook| Hook {
        name: hook.name.to_string(),
        program: hook.program.to_string(),
        state: hook.state.into(),
        reason: hook.reason.as_ref().map(ToString::to_string),
    };
    ready.hooks.iter().map(hook).collect()
}

fn coverage(ready: &Health) -> BTreeMap<Capability, Coverage> {
    let entry = |entry: &health::Coverage| {
        let state = CoverageState::from(entry.state);
        let reason = entry.reason.as_ref().map(ToString::to_string);
        let remedy = (state != CoverageState::Live).then(|| remedy(ready, entry.capability));
        (entry.capability.into(), Coverage { state, reason, remedy })
    };
    // Nothing is kept of a trial.
    let seen = ready.coverage.iter().filter(|entry| entry.capability != health::Capability::ChainState);
    seen.map(entry).collect()
}

/// What the kernel said of the hooks that a capability lacks: those words name what to do.
fn remedy(ready: &Health, capability: health::Capability) -> String {
    let mut remedy = String::new();
    for program in coverage::programs_of(capability) {
        let hook = ready.hooks.iter().find(|hook| &*hook.program == program);
        let reason = hook.filter(|hook| hook.state == health::HookState::Unavailable);
        if let Some(health::Hook { name, reason: Some(reason), .. }) = reason {
            let separator = if remedy.is_empty() { "" } else { "; " };
            write!(remedy, "{separator}{name}: {reason}").expect("invariant: a string can be written");
        }
    }
    if remedy.is_empty() { "run `quaywatch run` and look at `health.coverage`".to_owned() } else { remedy }
}

#[cfg(test)]
mod tests {
    use sensor_core::time::Timestamp;

    use super::*;

    fn ready(state: health::CoverageState, hook: health::HookState) -> Trial {
        let live = state == health::CoverageState::Live;
        let mut ready = Health::new(if live { HealthState::Running } else { HealthState::Degraded });
        ready.hooks = vec![health::Hook {
            name: "tp_btf/sched_process_exec".into(),
            program: "sched_process_exec".into(),
            state: hook,
            reason: (hook == health::HookState::Unavailable)
                .then(|| "no such hook: update the kernel".into()),
        }];
        ready.coverage = vec![health::Coverage {
            capability: health::Capability::Execs,
            state,
            reason: (state != health::CoverageState::Live).then(|| "no exec is seen".into()),
            since: Timestamp::default(),
        }];
        Trial::Ran(Box::new(ready))
    }

    fn report(trial: &Trial) -> Report {
        let checks = vec![Check::missing("btf", "none", "another kernel"), Check::ok("lockdown", "none")];
        Report::new(checks, trial, Vec::new(), Vec::new())
    }

    #[test]
    fn the_verdict_is_that_of_the_trial() {
        let live = report(&ready(health::CoverageState::Live, health::HookState::Attached));
        assert_eq!((live.verdict, &live.problem), (Verdict::Ready, &None));
        let blind = report(&ready(health::CoverageState::Blind, health::HookState::Unavailable));
        assert_eq!(blind.verdict, Verdict::Limited);
        let execs = &blind.coverage[&Capability::Execs];
        assert_eq!(
            execs.remedy.as_deref(),
            Some("tp_btf/sched_process_exec: no such hook: update the kernel")
        );
        let refused = report(&Trial::Refused("no permission: run as root".to_owned()));
        assert_eq!(refused.verdict, Verdict::CannotRun);
        assert!(refused.coverage.is_empty() && refused.hooks.is_empty());
    }

    #[test]
    fn what_this_kernel_cannot_have_is_told_and_costs_no_verdict() {
        let Trial::Ran(mut found) = ready(health::CoverageState::Live, health::HookState::Attached) else {
            panic!("it ran")
        };
        found.coverage.push(health::Coverage {
            capability: health::Capability::AcceptTasks,
            state: health::CoverageState::Blind,
            reason: Some("which task takes a connection is not seen".into()),
            since: Timestamp::default(),
        });
        let report = report(&Trial::Ran(found));
        assert_eq!(report.verdict, Verdict::Ready);
        assert_eq!(report.coverage[&Capability::AcceptTasks].state, CoverageState::Blind);
        let text = report.text();
        assert!(text.contains("optional, and not fully here: accept-tasks"), "{text}");
        assert!(text.contains("which task takes a connection is not seen"), "{text}");
    }

    #[test]
    fn people_read_every_remedy() {
        let text = report(&ready(health::CoverageState::Blind, health::HookState::Unavailable)).text();
        for part in ["another kernel", "no exec is seen", "update the kernel", "something would not be seen"]
        {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let text = report(&Trial::Refused("no permission: run as root".to_owned())).text();
        assert!(text.contains("no permission: run as root"), "{text}");
    }

    #[test]
    fn what_hostile_files_say_does_not_reach_the_terminal_raw() {
        let checks = vec![Check::ok("lsm", "a\u{1b}[2J\nb")];
        let refused = Trial::Refused("x".to_owned());
        let text = Report::new(checks, &refused, Vec::new(), Vec::new()).text();
        assert!(!text.contains('\u{1b}') && text.contains("a\u{fffd}[2J\u{fffd}b"), "{text:?}");
    }
}
