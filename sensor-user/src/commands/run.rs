//! `quaywatch run`.

use std::io;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use sensor_common::settings::port_flags;
use sensor_core::engine::{Engine, Settings as EngineSettings};
use sensor_core::fact::Node;
use sensor_core::health::Capability;
use sensor_core::ids::CgroupKey;
use sensor_core::role;
use sensor_core::time::ClockMap;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{debug, info, warn};

use crate::cli::RunArgs;
use crate::config::Settings;
use crate::coverage::{Gap, Standing};
use crate::exit::Unsupported;
use crate::kernel::hooks::{WALK_LISTENERS, WALK_TASKS};
use crate::kernel::{self, KernelError, Probes};
use crate::lookups::cgroupfs::Hierarchies;
use crate::lookups::procfs::Processes;
use crate::lookups::runtime::Containers;
use crate::lookups::{Roots, addresses, clock, node};
use crate::output::OutputQueue;
use crate::pipeline::{End, Pipeline};
use crate::sinks::Overflow;
use crate::sources::container_state::ContainerState;
use crate::sources::ring_buffer::RingSource;
use crate::telemetry::LogLevel;

/// Watches this machine until SIGINT or SIGTERM.
///
/// # Errors
/// Whatever ended it; [`Unsupported`] when this system lacks something.
pub async fn run(args: RunArgs, settings: Settings) -> anyhow::Result<()> {
    // Registered first: a signal during the start must end the program in order, too.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;

    let roots = Roots::default();
    let hierarchies = Hierarchies::find(&roots).context("finding the cgroup hierarchies")?;
    let mut engine = Engine::new(engine_settings(&roots, &settings)?);
    let mut output = OutputQueue::default();
    for destination in &settings.outputs {
        output.add(io::stdout(), destination.kinds, Overflow::Shed)?;
    }

    let mut probes = load(&args, &settings, &hierarchies)?;
    let rings = RingSource::start(probes.take_rings(), settings.rings.poll)?;
    // Attached before anything is listed: what changes meanwhile waits in the rings.
    probes.attach().map_err(kernel_error)?;

    let containers = Containers::new(roots.clone(), hierarchies.clone());
    let tools = &settings.policy.tools;
    let mut standing = Standing { hooks: probes.hooks(), gaps: Vec::new() };
    seed(&mut engine, &mut probes, &mut standing, &roots, &hierarchies, &containers, tools);
    let now = clock::now();
    engine.handle_ready(now, standing.hooks.clone(), standing.coverage(now));
    info!("ready");

    let containers = ContainerState::start(containers)?;
    let pipeline = Pipeline { engine, probes, rings, containers, standing, output, roots };
    let end = pipeline
        .run(async {
            tokio::select! {
                _ = interrupt.recv() => info!("SIGINT"),
                _ = terminate.recv() => info!("SIGTERM"),
            }
        })
        .await?;
    match end {
        End::Signal => Ok(()),
        End::OutputClosed => bail!("nobody reads the output any more"),
    }
}

fn engine_settings(roots: &Roots, settings: &Settings) -> anyhow::Result<EngineSettings> {
    let name = match &settings.node_name {
        Some(name) => Arc::clone(name),
        None => node::host_name(roots).context("the host has no usable name; set node.name")?,
    };
    Ok(EngineSettings {
        run: node::draw_run_id().context("drawing the id of this run")?,
        node: Arc::new(Node { name, boot_id: node::boot_id(roots)?, cluster: settings.cluster.clone() }),
        policy: settings.policy.clone(),
        merge_window_ns: nanoseconds(settings.rings.merge_window),
        hold_ns: nanoseconds(settings.hold),
    })
}

fn nanoseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn load(args: &RunArgs, settings: &Settings, hierarchies: &Hierarchies) -> anyhow::Result<Probes> {
    let options = kernel::Options {
        management_bytes: settings.rings.management_bytes,
        bulk_bytes: settings.rings.bulk_bytes,
        debug: args.probe_log != LogLevel::Off,
        cgroups: hierarchies.unified.as_ref().map(|unified| unified.mount_point.clone()),
        ..kernel::Options::default()
    };
    let mut probes = Probes::load(&options).map_err(kernel_error)?;
    let watched = settings.policy.ports.iter().map(|(port, _)| (*port, port_flags::WATCHED));
    let lateral = settings.lateral_ports.iter().map(|port| (*port, port_flags::LATERAL));
    probes.set_ports(watched.chain(lateral))?;
    let configured = settings.policy.tools.iter().map(|name| &**name);
    probes.set_tools(role::BUILT_IN.iter().copied().chain(configured))?;
    Ok(probes)
}

/// Keeps apart what this system cannot do and what went wrong.
fn kernel_error(error: KernelError) -> anyhow::Error {
    if error.is_unsupported() {
        Unsupported(format!("{:#}", anyhow::Error::new(error))).into()
    } else {
        error.into()
    }
}

/// Tells the engine what was there before the sensor. What could not be listed is marked in `hooks` or returned.
fn seed(
    engine: &mut Engine,
    probes: &mut Probes,
    standing: &mut Standing,
    roots: &Roots,
    hierarchies: &Hierarchies,
    containers: &Containers,
    tools: &[Arc<str>],
) {
    let now = clock::now();
    engine.handle_clock(ClockMap::from_sample(now));
    match addresses::local(roots) {
        Ok(addresses) => engine.handle_addresses(now, addresses),
        Err(error) => {
            let reason = "the node's own addresses are unknown, so that the allow-list does not imply them";
            warn!(%error, "{reason}");
            standing.gaps.push(Gap { capability: Capability::Accepts, reason });
        }
    }
    let walk = hierarchies.walk();
    if walk.truncated {
        let reason = "more cgroups than can be listed; the rest is learned as it is used";
        warn!(cgroups = walk.cgroups.len(), "{reason}");
        standing.gaps.push(Gap { capability: Capability::Containers, reason });
    }
    for metadata in containers.existing() {
        engine.handle_container_metadata(now, metadata);
    }
    engine.handle_cgroups(walk.cgroups);
    let processes = Processes::new(roots);
    let mut unmarked = 0_u32;
    // Without an iterator the sensor runs on and its coverage says so.
    for item in listed(probes.tasks(), standing, WALK_TASKS).unwrap_or_default() {
        let process = processes.seed(item);
        let arg0 = process.args.as_deref().and_then(|args| args.first()).map(|arg| &**arg);
        // The name alone would let whoever is in a container choose the ring of his children's execs.
        let is_tool = engine.is_host_cgroup(CgroupKey::from(item.cgroup))
            && role::of_program(process.exe.as_deref(), arg0, tools).is_some();
        if is_tool && let Err(error) = probes.mark_runtime_process(item.task.pid) {
            debug!(%error, pid = item.task.pid, "not marked");
            unmarked += 1;
        }
        engine.handle_process(process);
    }
    if unmarked > 0 {
        let reason = "more runtime processes than the probes can mark; connects of some are not reported";
        warn!(unmarked, "{reason}");
        standing.gaps.push(Gap { capability: Capability::Connects, reason });
    }
    // An empty answer would say that nobody listens, and what a later walk finds would count as new.
    if let Some(listeners) = listed(probes.listeners(), standing, WALK_LISTENERS) {
        engine.handle_listeners(clock::now(), &listeners);
    }
}

/// What an iterator listed; when it failed, its hook says so from now on.
fn listed<T>(walk: Result<Vec<T>, KernelError>, standing: &mut Standing, program: &str) -> Option<Vec<T>> {
    walk.map_err(|error| {
        let reason = format!("{:#}", anyhow::Error::new(error));
        warn!(program, reason, "what was there before the start is not listed");
        standing.mark_failed(program, &reason);
    })
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sensor_core::health::{CoverageState, Hook, HookState};
    use sensor_core::time::Timestamp;

    #[test]
    fn an_iterator_that_fails_is_no_empty_answer_and_degrades_the_coverage() {
        let program = WALK_LISTENERS;
        let hook = Hook {
            name: "iter/task_file".into(),
            program: program.into(),
            state: HookState::Attached,
            reason: None,
        };
        let mut standing = Standing { hooks: vec![hook], gaps: Vec::new() };
        assert_eq!(listed(Ok(vec![1]), &mut standing, program), Some(vec![1]));
        assert!(standing.is_in_place(program));
        let failure =
            KernelError::Read { what: "iter/task_file".to_owned(), source: io::ErrorKind::Other.into() };
        assert_eq!(listed::<u32>(Err(failure), &mut standing, program), None);
        assert_eq!(standing.hooks[0].state, HookState::Unavailable);
        assert!(standing.hooks[0].reason.as_deref().is_some_and(|reason| reason.contains("iter/task_file")));
        let coverage = standing.coverage(Timestamp::default());
        let listeners =
            coverage.iter().find(|entry| entry.capability == Capability::Listeners).expect("it is there");
        assert_ne!(listeners.state, CoverageState::Live);
    }
}
