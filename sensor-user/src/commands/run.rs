//! `quaywatch run`.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sensor_common::settings::port_flags;
use sensor_core::coverage::Gap;
use sensor_core::engine::{Engine, Request, Settings as EngineSettings};
use sensor_core::fact::Node;
use sensor_core::health::Capability;
use sensor_core::ids::CgroupKey;
use sensor_core::role;
use sensor_core::time::ClockMap;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{debug, info, warn};

use crate::canary::{Canaries, Loopback};
use crate::cli::RunArgs;
use crate::config::{OutputPlace, Settings};
use crate::exit::Unsupported;
use crate::kernel::hooks::{Feature, WALK_LISTENERS, WALK_TASKS};
use crate::kernel::{self, KernelError, Probes};
use crate::lookups::cgroupfs::Hierarchies;
use crate::lookups::procfs::Processes;
use crate::lookups::runtime::Containers;
use crate::lookups::{Roots, addresses, clock, node};
use crate::output::OutputQueue;
use crate::pipeline::{End, Pipeline, all_hooks, hand_over_files, run_canaries};
use crate::sinks::{LineFile, Overflow, Reopen};
use crate::sources::container_state::ContainerState;
use crate::sources::files::FileWatch;
use crate::sources::programs::Programs;
use crate::sources::ring_buffer::RingSource;
use crate::telemetry::LogLevel;

/// How long the start waits for the first canaries; longer than a busy CPU may put a record off.
const PROOF_LIMIT: Duration = Duration::from_millis(1500);
/// Room in each ring for the canaries and whatever else happens within the time of a brief look.
const BRIEF_RING_BYTES: u32 = 1 << 20;
/// Distance between the rounds of canaries then; there is one where everything comes back.
const BRIEF_CANARY_INTERVAL: Duration = Duration::from_secs(1);
/// How often it looks for them.
const PROOF_STEP: Duration = Duration::from_millis(1);
/// Two rounds that are judged, each after its grace, and some room.
const SETTLE_LIMIT: Duration = Duration::from_secs(6);
/// Distance between two looks at them.
const SETTLE_STEP: Duration = Duration::from_millis(20);

/// Watches this machine until SIGINT or SIGTERM.
///
/// # Errors
/// Whatever ended it; [`Unsupported`] when this system lacks something.
pub async fn run(args: RunArgs, settings: Settings) -> anyhow::Result<()> {
    // Registered first: a signal during the start must end the program in order, too.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let roots = Roots::default();
    let hierarchies = Hierarchies::find(&roots).context("finding the cgroup hierarchies")?;
    let mut output = OutputQueue::default();
    let reopen = Reopen::default();
    for destination in &settings.outputs {
        match &destination.place {
            OutputPlace::Stdout => output.add(io::stdout(), destination.kinds, Overflow::Shed)?,
            OutputPlace::File(path) => {
                let file = LineFile::open(path.clone(), reopen.clone());
                let file =
                    file.with_context(|| format!("cannot write the output file {}", path.display()))?;
                output.add_file(file, destination.kinds)?;
            }
        }
    }

    let debug = args.probe_log != LogLevel::Off;
    let mut started = attach(&roots, &hierarchies, &settings, debug).await?;

    let containers = Containers::new(roots.clone(), hierarchies.clone(), settings.sockets.clone());
    started.seed(&roots, &hierarchies, &containers, &settings.policy.tools);
    let Started { mut engine, probes, rings, files, canaries } = started;
    engine.handle_ready(clock::now());
    info!("ready");

    let containers = ContainerState::start(containers)?;
    let programs = Programs::start(&roots)?;
    let pipeline = Pipeline { engine, probes, rings, containers, programs, files, canaries, output, roots };
    let end = pipeline
        .run(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => break info!("SIGINT"),
                    _ = terminate.recv() => break info!("SIGTERM"),
                    _ = hangup.recv() => {
                        info!("SIGHUP: output files are opened anew");
                        reopen.ask();
                    }
                }
            }
        })
        .await?;
    match end {
        End::Signal => Ok(()),
        End::OutputClosed => bail!("nobody reads the output any more"),
    }
}

/// The sensor with its probes attached and proved as far as that went, before it has looked at what was there before.
pub(super) struct Started {
    pub(super) engine: Engine,
    pub(super) probes: Probes,
    rings: RingSource,
    files: FileWatch,
    pub(super) canaries: Canaries,
}

impl Started {
    /// Tells the engine what was there before the sensor.
    pub(super) fn seed(
        &mut self,
        roots: &Roots,
        hierarchies: &Hierarchies,
        containers: &Containers,
        tools: &[Arc<str>],
    ) {
        seed(&mut self.engine, &mut self.probes, roots, hierarchies, containers, tools);
    }

    /// Lets the first canaries come back, so that the ready record says what is proved; if they do not in time, the sensor
    /// starts all the same and says that.
    async fn prove(&mut self) {
        run_canaries(&mut self.engine, &self.canaries);
        let deadline = Instant::now() + PROOF_LIMIT;
        while !self.engine.is_settled() && Instant::now() < deadline {
            tokio::time::sleep(PROOF_STEP).await;
            self.take_records();
        }
    }

    /// Goes on until every canary has come back or is known not to, within a limit, and forgets what else is seen. For a
    /// sensor that has said that it is ready.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub(super) async fn settle(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        while !self.engine.is_settled() && Instant::now() < deadline {
            tokio::time::sleep(SETTLE_STEP).await;
            self.take_records();
            let counters = self.probes.counters().context("reading the probes' counters")?;
            let now = clock::now();
            self.engine.handle_links(now, &self.probes.attached_state());
            self.engine.handle_counters(now, &counters);
            while let Some(request) = self.engine.next_request() {
                if request == Request::RunCanaries {
                    run_canaries(&mut self.engine, &self.canaries);
                }
            }
            while self.engine.next_output().is_some() {}
        }
        Ok(())
    }

    fn take_records(&mut self) {
        let drained_ns = self.rings.drained_ns();
        // What is here now was there before the notices that are taken next; so it is announced by them.
        let batches: Vec<_> = std::iter::from_fn(|| self.rings.try_recv()).collect();
        while let Some((now, notice)) = self.canaries.try_notice() {
            self.engine.handle_canary(now, notice);
        }
        for batch in &batches {
            batch.records().for_each(|(ring, bytes)| self.engine.handle_record(ring, bytes));
        }
        self.engine.handle_drained(drained_ns);
    }
}

/// Attaches for a look of a few seconds.
pub(super) async fn attach_briefly(
    roots: &Roots,
    hierarchies: &Hierarchies,
    settings: &Settings,
) -> anyhow::Result<Started> {
    let mut settings = settings.clone();
    settings.rings.management_bytes = settings.rings.management_bytes.min(BRIEF_RING_BYTES);
    settings.rings.bulk_bytes = settings.rings.bulk_bytes.min(BRIEF_RING_BYTES);
    settings.canary_interval = BRIEF_CANARY_INTERVAL;
    attach(roots, hierarchies, &settings, false).await
}

/// Loads and attaches the probes and lets the first canaries come back.
pub(super) async fn attach(
    roots: &Roots,
    hierarchies: &Hierarchies,
    settings: &Settings,
    debug: bool,
) -> anyhow::Result<Started> {
    let mut engine = Engine::new(engine_settings(roots, settings)?);
    let mut probes = load(settings, hierarchies, debug)?;
    let watched: Vec<u16> = settings.policy.ports.iter().map(|(port, _)| *port).collect();
    let loopback = Loopback::reserve(roots, &watched);
    set_ports(&mut probes, settings, loopback.as_ref().ok())?;
    let canaries = Canaries::start(roots, hierarchies, loopback)?;
    let rings = RingSource::start(probes.take_rings(), settings.rings.poll)?;
    // Attached before anything is listed: what changes meanwhile waits in the rings.
    probes.attach().map_err(kernel_error)?;
    let mut files = FileWatch::start(roots, &settings.sockets, !probes.serves(Feature::CredentialFiles))?;
    engine.handle_hooks(clock::now(), all_hooks(&probes, &files));
    match files.first() {
        Some(found) => hand_over_files(&mut engine, &mut probes, found),
        None => warn!("sockets of runtimes and credential files are looked for longer than a start may take"),
    }
    let mut started = Started { engine, probes, rings, files, canaries };
    started.prove().await;
    Ok(started)
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
        canary_interval_ns: Some(nanoseconds(settings.canary_interval)),
    })
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn load(settings: &Settings, hierarchies: &Hierarchies, debug: bool) -> anyhow::Result<Probes> {
    let options = kernel::Options {
        management_bytes: settings.rings.management_bytes,
        bulk_bytes: settings.rings.bulk_bytes,
        flood: settings.flood,
        debug,
        cgroups: hierarchies.unified.as_ref().map(|unified| unified.mount_point.clone()),
        ..kernel::Options::default()
    };
    let mut probes = Probes::load(&options).map_err(kernel_error)?;
    let configured = settings.policy.tools.iter().map(|name| &**name);
    probes.set_tools(role::BUILT_IN.iter().copied().chain(configured))?;
    Ok(probes)
}

/// Tells the probes which ports matter; that of the canaries counts as watched.
fn set_ports(
    probes: &mut Probes,
    settings: &Settings,
    loopback: Option<&Loopback>,
) -> Result<(), KernelError> {
    let watched = settings.policy.ports.iter().map(|(port, _)| (*port, port_flags::WATCHED));
    let lateral = settings.lateral_ports.iter().map(|port| (*port, port_flags::LATERAL));
    let canary = loopback.map(|own| (own.port(), port_flags::WATCHED | port_flags::CANARY));
    probes.set_ports(watched.chain(lateral).chain(canary))
}

/// Keeps apart what this system cannot do and what went wrong.
fn kernel_error(error: KernelError) -> anyhow::Error {
    if error.is_unsupported() {
        Unsupported(format!("{:#}", anyhow::Error::new(error))).into()
    } else {
        error.into()
    }
}

/// Tells the engine what was there before the sensor, and what of that could not be listed.
fn seed(
    engine: &mut Engine,
    probes: &mut Probes,
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
            engine.handle_gap(now, Gap { capability: Capability::Accepts, reason });
        }
    }
    let walk = hierarchies.walk();
    if walk.truncated {
        let reason = "more cgroups than can be listed; the rest is learned as it is used";
        warn!(cgroups = walk.cgroups.len(), "{reason}");
        engine.handle_gap(now, Gap { capability: Capability::Containers, reason });
    }
    if !probes.marks_sockets() {
        let reason =
            "a request on a connection whose accept was withheld is reported when the connection ends";
        engine.handle_gap(now, Gap { capability: Capability::Scans, reason });
    }
    for metadata in containers.existing() {
        engine.handle_container_metadata(now, metadata);
    }
    engine.handle_cgroups(walk.cgroups);
    let processes = Processes::new(roots);
    engine.handle_host_namespaces(processes.host_namespaces(roots));
    let mut unmarked = 0_u32;
    // Without an iterator the sensor runs on and its coverage says so.
    for item in listed(probes.tasks(), engine, WALK_TASKS).unwrap_or_default() {
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
        engine.handle_gap(now, Gap { capability: Capability::Connects, reason });
    }
    // An empty answer would say that nobody listens, and what a later walk finds would count as new.
    if let Some(listeners) = listed(probes.listeners(), engine, WALK_LISTENERS) {
        engine.handle_listeners(clock::now(), &listeners);
    }
}

/// What an iterator listed; when it failed, its hook says so until it succeeds.
fn listed<T>(walk: Result<Vec<T>, KernelError>, engine: &mut Engine, program: &str) -> Option<Vec<T>> {
    match walk {
        Ok(items) => {
            engine.handle_walk(clock::now(), program, None);
            Some(items)
        }
        Err(error) => {
            let reason = format!("{:#}", anyhow::Error::new(error));
            warn!(program, reason, "what was there before the start is not listed");
            engine.handle_walk(clock::now(), program, Some(&reason));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sensor_core::engine::Output;
    use sensor_core::fact::Node;
    use sensor_core::health::{CoverageState, Hook, HookState};

    #[test]
    fn an_iterator_that_fails_is_no_empty_answer_and_degrades_the_coverage() {
        let program = WALK_LISTENERS;
        let hook = Hook {
            name: "iter/task_file".into(),
            program: program.into(),
            state: HookState::Attached,
            reason: None,
        };
        let mut engine = Engine::new(EngineSettings {
            run: sensor_core::ids::RunId(1),
            node: Arc::new(Node { name: "n".into(), boot_id: "b".into(), cluster: None }),
            policy: sensor_core::engine::Policy::default(),
            merge_window_ns: 0,
            hold_ns: 0,
            canary_interval_ns: None,
        });
        engine.handle_hooks(clock::now(), vec![hook]);
        assert_eq!(listed(Ok(vec![1]), &mut engine, program), Some(vec![1]));
        let failure =
            KernelError::Read { what: "iter/task_file".to_owned(), source: io::ErrorKind::Other.into() };
        assert_eq!(listed::<u32>(Err(failure), &mut engine, program), None);
        engine.handle_ready(clock::now());
        let Some(Output::Health { health, .. }) = engine.next_output() else { panic!("the ready record") };
        assert_eq!(health.hooks[0].state, HookState::Unavailable);
        assert!(health.hooks[0].reason.as_deref().is_some_and(|reason| reason.contains("iter/task_file")));
        let listeners = health
            .coverage
            .iter()
            .find(|entry| entry.capability == Capability::Listeners)
            .expect("it is there");
        assert_ne!(listeners.state, CoverageState::Live);
    }
}
