//! From settings to a sensor that is attached and proved; shared by the commands that look at this machine.
//!
//! Owns the order of the start: attach first, then prove, then (in [`seed`]) look at what was there before, so that nothing
//! falls in between. Knows nothing of output.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sensor_common::settings::port_flags;
use sensor_core::coverage::{Gap, Look};
use sensor_core::engine::{Engine, Request, Settings as EngineSettings};
use sensor_core::fact::Node;
use sensor_core::health::Capability;
use sensor_core::role;
use sensor_core::state::{Restored, Resumed};
use sensor_core::time::Timestamp;
use tracing::{info, warn};

use crate::canary::{self, Canaries, Loopback};
use crate::config::Settings;
use crate::exit::Unsupported;
use crate::kernel::hooks::Feature;
use crate::kernel::{self, KernelError, Probes};
use crate::lookups::cgroupfs::Hierarchies;
use crate::lookups::runtime::Containers;
use crate::lookups::{Roots, clock, node};
use crate::pipeline::{all_hooks, check_tables, hand_over_files, run_canaries};
use crate::sources::files::FileWatch;
use crate::sources::ring_buffer::RingSource;
use crate::state::{self, Keeper, Left};

mod seed;

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
/// How long the start waits for what an earlier run has left.
const STATE_LIMIT: Duration = Duration::from_secs(5);
/// Distance between two looks at them.
const SETTLE_STEP: Duration = Duration::from_millis(20);

/// The sensor with its probes attached and proved as far as that went, before it has looked at what was there before.
pub(crate) struct Started {
    pub(crate) engine: Engine,
    pub(crate) probes: Probes,
    pub(crate) rings: RingSource,
    pub(crate) files: FileWatch,
    pub(crate) canaries: Canaries,
}

impl Started {
    /// Tells the engine what was there before the sensor.
    pub(crate) fn seed(
        &mut self,
        roots: &Roots,
        hierarchies: &Hierarchies,
        containers: &Containers,
        tools: &[Arc<str>],
    ) {
        seed::seed(&mut self.engine, &mut self.probes, roots, hierarchies, containers, tools);
    }

    /// Lets the first canaries come back, so that the ready record says what is proved; if they do not in time, the sensor
    /// starts all the same and says that.
    ///
    /// # Errors
    /// When what the kernel has counted cannot be read.
    async fn prove(&mut self) -> anyhow::Result<()> {
        // From here on they are as they were written.
        check_tables(&mut self.engine, &mut self.probes);
        run_canaries(&mut self.engine, &self.canaries);
        let deadline = Instant::now() + PROOF_LIMIT;
        while !self.engine.is_settled() && Instant::now() < deadline {
            tokio::time::sleep(PROOF_STEP).await;
            self.take_records();
            self.look_at_attempts()?;
        }
        Ok(())
    }

    /// Goes on until every canary has come back or is known not to, within a limit, and forgets what else is seen. For a
    /// sensor that has said that it is ready.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub(crate) async fn settle(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        while !self.engine.is_settled() && Instant::now() < deadline {
            tokio::time::sleep(SETTLE_STEP).await;
            self.take_records();
            self.look_at_attempts()?;
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

    fn look_at_attempts(&mut self) -> anyhow::Result<()> {
        let now = clock::now();
        let ports = self.probes.flood_ports().context("reading the tables of flood control")?;
        self.engine.handle_attempts(now, &ports);
        Ok(())
    }

    fn take_records(&mut self) {
        let drained_ns = self.rings.drained_ns();
        // What is here now was there before the notices that are taken next; so it is announced by them.
        let batches: Vec<_> = std::iter::from_fn(|| self.rings.try_recv()).collect();
        let opens: Vec<_> = std::iter::from_fn(|| self.files.try_open()).collect();
        while let Some((now, notice)) = self.canaries.try_notice() {
            self.engine.handle_canary(now, notice);
        }
        for batch in &batches {
            batch.records().for_each(|(ring, bytes)| self.engine.handle_record(ring, bytes));
        }
        for open in opens {
            self.engine.handle_file_open(open.boot_ns, open.event);
        }
        self.engine.handle_drained(drained_ns);
    }
}

/// Attaches for a look of a few seconds.
pub(crate) async fn attach_briefly(
    roots: &Roots,
    hierarchies: &Hierarchies,
    settings: &Settings,
) -> anyhow::Result<Started> {
    let mut settings = settings.clone();
    settings.rings.management_bytes = settings.rings.management_bytes.min(BRIEF_RING_BYTES);
    settings.rings.bulk_bytes = settings.rings.bulk_bytes.min(BRIEF_RING_BYTES);
    settings.canary_interval = BRIEF_CANARY_INTERVAL;
    attach(roots, hierarchies, &settings, false, Keeping::Brief).await
}

/// Loads and attaches the probes and lets the first canaries come back.
pub(crate) async fn attach(
    roots: &Roots,
    hierarchies: &Hierarchies,
    settings: &Settings,
    debug: bool,
    keeping: Keeping<'_>,
) -> anyhow::Result<Started> {
    let mut engine = Engine::new(engine_settings(roots, settings)?);
    let mut probes = load(settings, hierarchies, debug)?;
    let watched: Vec<u16> = settings.policy.ports.iter().map(|(port, _)| *port).collect();
    let loopback = Loopback::reserve(roots, &watched);
    set_ports(&mut probes, settings, loopback.as_ref().ok())?;
    let hideaway = canary::hide(roots);
    let own = hideaway.as_ref().ok().map(|hideaway| hideaway.keys().clone());
    if let Some(own) = &own {
        probes.set_own_files(own.socket, own.place)?;
    }
    let canaries = Canaries::start(roots, hierarchies, loopback, hideaway)?;
    let rings = RingSource::start(probes.take_rings(), settings.rings.poll)?;
    let left = keeping.left();
    // Attached before anything is listed: what changes meanwhile waits in the rings.
    probes.attach().map_err(kernel_error)?;
    let since = clock::now();
    engine.handle_gaps(since, Look::State, &left.gaps);
    if !left.entries.is_empty() {
        resume(&mut engine, since, &left.entries);
    }
    let opens = !probes.serves(Feature::CredentialFiles);
    let mut files = FileWatch::start(roots, &settings.sockets, opens, own)?;
    engine.handle_hooks(clock::now(), all_hooks(&probes, &files));
    match files.first() {
        Some(found) => hand_over_files(&mut engine, &mut probes, found),
        None => {
            warn!("sockets of runtimes and credential files are looked for longer than a start may take");
            let now = clock::now();
            engine.handle_gaps(now, Look::FilesLooked, &files.stuck(now));
        }
    }
    let mut started = Started { engine, probes, rings, files, canaries };
    started.prove().await?;
    Ok(started)
}

/// Whether open chains outlive this run.
pub(crate) enum Keeping<'a> {
    /// It is too short for that.
    Brief,
    /// Nobody wants them to.
    TurnedOff,
    /// They are kept.
    By(&'a mut Keeper),
}

/// What an earlier run has left.
#[derive(Default)]
struct Before {
    entries: Vec<Left>,
    gaps: Vec<Gap>,
}

impl Keeping<'_> {
    fn left(self) -> Before {
        let gap = |reason| Gap::new(Capability::ChainState, reason);
        match self {
            Self::Brief => Before { gaps: vec![gap(state::BRIEF)], ..Before::default() },
            Self::TurnedOff => Before { gaps: vec![gap(state::TURNED_OFF)], ..Before::default() },
            Self::By(keeper) => {
                let (entries, is_lost) = keeper.found(STATE_LIMIT);
                let lost = is_lost.then(|| gap(state::PUT_ASIDE));
                Before { entries, gaps: keeper.problem().map(gap).into_iter().chain(lost).collect() }
            }
        }
    }
}

fn resume(engine: &mut Engine, since: Timestamp, left: &[Left]) {
    let left = left.iter().map(|(table, number, entry)| (*table, *number, entry.as_slice()));
    let Restored { unreadable, resumed } = engine.restore(since, left);
    match resumed {
        Some(Resumed { run, entries, outdated, clean, rebooted, .. }) => {
            info!(%run, entries, unreadable, outdated, clean, rebooted, "goes on from an earlier run");
        }
        None => warn!(unreadable, "nothing of what an earlier run has left can be used"),
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
        canary_interval_ns: Some(nanoseconds(settings.canary_interval)),
        packets_rest_ns: nanoseconds(settings.packets_rest),
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
        private_cgroups: true,
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
    let watched = settings.policy.ports.iter().map(|(port, service)| {
        let read = match service {
            _ if service.is_plaintext() => port_flags::PLAINTEXT,
            _ if service.is_encrypted() => port_flags::ENCRYPTED,
            _ => 0,
        };
        (*port, port_flags::WATCHED | read)
    });
    let lateral = settings.lateral_ports.iter().map(|port| (*port, port_flags::LATERAL));
    let canary =
        loopback.map(|own| (own.port(), port_flags::WATCHED | port_flags::PLAINTEXT | port_flags::CANARY));
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
