//! `quaywatch doctor`: would it work here?

use sensor_core::fact::Service;
use sensor_core::health::Health;
use tracing::debug;

use super::print;
use crate::cli::DoctorArgs;
use crate::config::Settings;
use crate::doctor::{Listener, Report, Trial, Verdict, host, listeners, runtimes};
use crate::exit::Exit;
use crate::lookups::cgroupfs::Hierarchies;
use crate::lookups::runtime::Containers;
use crate::lookups::{Roots, clock};
use crate::start;

/// Looks at this host and prints what the sensor would see.
///
/// # Errors
/// When the answer cannot be printed. What is wrong with the host is the answer.
pub async fn doctor(args: &DoctorArgs, settings: &Settings) -> anyhow::Result<Exit> {
    let roots = Roots::default();
    let ports = &settings.policy.ports;
    let (trial, found) = match attempt(&roots, settings).await {
        Ok((ready, found)) => (Trial::Ran(Box::new(ready)), found),
        Err(error) => (Trial::Refused(format!("{error:#}")), None),
    };
    let listeners = found.unwrap_or_else(|| listeners::of_procfs(&roots, ports));
    let report = Report::new(host::checks(&roots), &trial, runtimes::find(&roots), listeners);
    if args.json {
        print(&(serde_json::to_string(&report)? + "\n"))?;
    } else {
        print(&report.text())?;
    }
    Ok(match report.verdict {
        Verdict::Ready => Exit::Done,
        Verdict::Limited => Exit::Found,
        Verdict::CannotRun => Exit::Unsupported,
    })
}

/// Starts as `run` does, says ready, waits for a judgement on every canary, and detaches again.
async fn attempt(roots: &Roots, settings: &Settings) -> anyhow::Result<(Health, Option<Vec<Listener>>)> {
    let hierarchies = Hierarchies::find(roots)?;
    let mut started = start::attach_briefly(roots, &hierarchies, settings).await?;
    let containers = Containers::new(roots.clone(), hierarchies.clone(), settings.sockets.clone());
    started.seed(roots, &hierarchies, &containers, &settings.policy.tools);
    started.engine.handle_ready(clock::now());
    started.settle().await?;
    let found = started.probes.listeners();
    started.canaries.stop();
    started.probes.detach();
    let ports: &[(u16, Service)] = &settings.policy.ports;
    let found = found.inspect_err(|error| debug!(%error, "the listener iterator failed")).ok();
    Ok((started.engine.health(), found.map(|items| listeners::of_items(&items, ports))))
}
