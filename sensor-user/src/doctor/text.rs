//! The report for people: aligned, calm, one remedy per line.

use std::fmt::{self, Write};

use super::{CheckState, Report, Verdict};
use crate::table::{clean, continued, row};
use crate::wire::{CoverageState, HookState};

pub(super) fn write(report: &Report, out: &mut impl Write) -> fmt::Result {
    writeln!(out, "{}", in_words(report.verdict))?;
    let absent = report.coverage.iter().filter(|(_, entry)| entry.state != CoverageState::Live);
    let absent: Vec<&str> = absent.map(|(capability, _)| capability.name()).collect();
    if report.verdict == Verdict::Ready && !absent.is_empty() {
        writeln!(out, "  optional, and not fully here: {}", absent.join(", "))?;
    }
    if let Some(problem) = &report.problem {
        writeln!(out, "  {}", clean(problem))?;
    }

    writeln!(out, "\nHost")?;
    for check in &report.checks {
        let state = match check.state {
            CheckState::Ok => "ok",
            CheckState::Note => "note",
            CheckState::Missing => "missing",
        };
        row(out, &check.name, state, &check.found)?;
        remedy(out, check.remedy.as_deref())?;
    }

    if !report.coverage.is_empty() {
        writeln!(out, "\nWhat would be seen")?;
    }
    for (capability, entry) in &report.coverage {
        row(out, capability.name(), entry.state.name(), entry.reason.as_deref().unwrap_or_default())?;
        if entry.state != CoverageState::Live {
            remedy(out, entry.remedy.as_deref())?;
        }
    }

    let unused = report.hooks.iter().filter(|hook| hook.state != HookState::Attached);
    if unused.clone().next().is_some() {
        writeln!(out, "\nHooks not in use")?;
    }
    for hook in unused {
        row(out, &hook.name, hook.state.name(), hook.reason.as_deref().unwrap_or("a better one is in use"))?;
    }

    writeln!(out, "\nRuntimes")?;
    for runtime in &report.runtimes {
        let pids: Vec<String> = runtime.pids.iter().map(|pid| format!("pid {pid}")).collect();
        let found = pids.iter().chain(&runtime.sockets).chain(&runtime.state);
        let found = found.map(String::as_str).collect::<Vec<_>>().join(", ");
        row(out, &runtime.name, if runtime.pids.is_empty() { "not running" } else { "running" }, &found)?;
    }
    if report.runtimes.is_empty() {
        writeln!(out, "  none found")?;
    }

    writeln!(out, "\nManagement listeners")?;
    for listener in &report.listeners {
        let holder = match (&listener.comm, listener.pid) {
            (Some(comm), Some(pid)) => format!("{comm} (pid {pid})"),
            _ => "holder not known without the right to look".to_owned(),
        };
        let found = format!("{}, {holder}", listener.scope.name());
        row(out, &listener.address.to_string(), listener.service.name(), &found)?;
    }
    if report.listeners.is_empty() {
        writeln!(out, "  none")?;
    }
    Ok(())
}

const fn in_words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ready => "ready: what every host can show would be seen",
        Verdict::Limited => {
            "limited: the sensor runs, and something would not be seen that every host can show"
        }
        Verdict::CannotRun => "cannot run: not on this system, or not as this user",
    }
}

fn remedy(out: &mut impl Write, remedy: Option<&str>) -> fmt::Result {
    match remedy {
        Some(remedy) => continued(out, &format!("-> {remedy}")),
        None => Ok(()),
    }
}
