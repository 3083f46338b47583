//! The one loop: it owns the engine, gives it bytes, time and answers, and writes what it says.
//!
//! Invariant: it never waits for a disk, a sink or a runtime. The rings are drained by a thread of their own, state
//! files are read by another, lines are written by a third.

use std::time::Duration;

use anyhow::Context as _;
use sensor_core::canary::{Act, CanaryNotice};
use sensor_core::coverage::{FANOTIFY, Gap, Look, TableState};
use sensor_core::engine::{Engine, Request};
use sensor_core::health::{Capability, Hook, ShellLosses};
use sensor_core::scans::FloodReading;
use sensor_core::time::ClockMap;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, error, warn};

use crate::canary::Canaries;
use crate::config::Settings;
use crate::kernel::hooks::WALK_LISTENERS;
use crate::kernel::{KernelError, Probes};
use crate::lookups::{Roots, addresses, clock};
use crate::output::OutputQueue;
use crate::sources::audit_log::{AuditLogs, Piece, Positions};
use crate::sources::config_file::ConfigWatch;
use crate::sources::container_state::{Answer, ContainerState};
use crate::sources::fanotify::FileOpen;
use crate::sources::files::{FileNews, FileWatch, Files};
use crate::sources::programs::Programs;
use crate::sources::ring_buffer::{Batch, RingSource};
use crate::state::Keeper;

mod reload;
mod state;

/// Distance between two looks at the kernel's counters: loss shows within a second.
const COUNTERS_INTERVAL: Duration = Duration::from_millis(500);
/// Looks at the counters per look at what flood control has counted: one summary a second.
const FLOOD_EVERY: u32 = 2;
/// Looks at the counters per look at the node's addresses.
const ADDRESSES_EVERY: u32 = 10;
/// A listener walk of this length is followed by a pause of `LISTENER_PAUSE` times as long: 5 % of one CPU at most.
const LISTENER_PAUSE: u32 = 20;
/// Room in the output for what follows from one piece of an audit log: many times the piece.
const AUDIT_ROOM: usize = 1 << 20;
/// Pause before the output is asked again whether it has that room.
const AUDIT_PAUSE: Duration = Duration::from_millis(20);

/// Resolution of the timer.
const TIMER_STEP: Duration = Duration::from_millis(1);

/// What is missing while nobody knows whether the probes look for what they were told to.
const UNCHECKED: [Gap; 3] = {
    const REASON: &str = "the tables of the probes cannot be read back";
    [
        Gap::new(Capability::Listeners, REASON),
        Gap::new(Capability::Accepts, REASON),
        Gap::new(Capability::Connects, REASON),
    ]
};

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// SIGTERM or SIGINT.
    Signal,
    /// The reader of the output went away.
    OutputClosed,
}

/// Everything the loop owns.
pub struct Pipeline {
    /// The core.
    pub engine: Engine,
    /// Programs and maps in the kernel.
    pub probes: Probes,
    /// Records from the rings.
    pub rings: RingSource,
    /// Answers about containers.
    pub containers: ContainerState,
    /// Answers about programs.
    pub programs: Programs,
    /// Sockets of runtimes and credential files.
    pub files: FileWatch,
    /// Audit logs.
    pub audit: AuditLogs,
    /// How far they were read.
    pub positions: Positions,
    /// The sensor's own acts, by which it sees whether it sees.
    pub canaries: Canaries,
    /// Open chains on disk; `None`: they are not kept.
    pub keeper: Option<Keeper>,
    /// What it runs with; the policy is that of the latest configuration that could be used.
    pub settings: Settings,
    /// Other configurations.
    pub configuration: ConfigWatch,
    /// Encoded lines on their way out.
    pub output: OutputQueue,
    /// Where the host's file systems are.
    pub roots: Roots,
}

/// When the listener iterator may run again.
#[derive(Debug, Default)]
struct ListenerWalk {
    wanted: bool,
    not_before: Option<Instant>,
}

impl Pipeline {
    /// Runs until `stop` is ready or the reader of the output is gone, then detaches, drains and writes the last record.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read or the output cannot be flushed.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<End> {
        let mut walk = ListenerWalk::default();
        let mut counters = interval(COUNTERS_INTERVAL);
        counters.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        tokio::pin!(stop);
        self.turn(&mut walk);
        let end = loop {
            // A log can wait; lines that find no room are lost.
            let has_room = self.output.has_bulk_room(AUDIT_ROOM);
            tokio::select! {
                biased;
                // In this order: rings that never run dry must not starve the report of what they lose.
                () = &mut stop => break End::Signal,
                _ = counters.tick() => {
                    ticks = ticks.wrapping_add(1);
                    self.look_around(ticks)?;
                }
                Some((now, notice)) = self.canaries.notice() => self.engine.handle_canary(now, notice),
                Some(answer) = self.containers.answer() => self.answered(answer),
                Some(answer) = self.programs.answer() => self.engine.handle_program(clock::now(), answer),
                news = self.files.next() => self.hear_of_files(news),
                outcome = self.configuration.next() => self.reload(outcome),
                batch = self.rings.recv() => match batch {
                    Some(batch) => self.take(&batch),
                    None => anyhow::bail!("the thread that reads the ring buffers ended"),
                },
                piece = self.audit.recv(), if has_room => self.take_audit(piece),
                () = sleep(AUDIT_PAUSE), if !has_room => {}
                () = sleep_until_due(self.engine.poll_timeout(), &walk) => {}
            }
            self.turn(&mut walk);
            if self.output.is_closed() {
                break End::OutputClosed;
            }
        };
        self.shut_down()?;
        Ok(end)
    }

    fn take(&mut self, batch: &Batch) {
        // What is announced is announced before it is done, so that it is known before its records are looked at.
        self.hear_canaries();
        for (ring, bytes) in batch.records() {
            self.engine.handle_record(ring, bytes);
        }
    }

    fn hear_canaries(&mut self) {
        while let Some((now, notice)) = self.canaries.try_notice() {
            self.engine.handle_canary(now, notice);
        }
    }

    fn take_audit(&mut self, piece: Piece) {
        if let Some((log, position)) = self.audit.feed(piece, &mut self.engine) {
            self.positions.reach(log, position);
        }
    }

    fn look_at_audit(&mut self) {
        let unkept = self.positions.problem();
        self.engine.handle_audit_inputs(clock::now(), self.audit.look(unkept.as_ref()));
    }

    fn hear_of_files(&mut self, news: FileNews) {
        match news {
            FileNews::Files(files) => hand_over_files(&mut self.engine, &mut self.probes, files),
            FileNews::Open(open) => self.take_opens(Some(open)),
        }
    }

    fn take_opens(&mut self, first: Option<FileOpen>) {
        let mut next = first.or_else(|| self.files.try_open());
        self.hear_canaries();
        while let Some(open) = next {
            self.engine.handle_file_open(open.boot_ns, open.event);
            next = self.files.try_open();
            self.hear_canaries();
        }
    }

    fn answered(&mut self, answer: Answer) {
        let now = clock::now();
        let mut next = Some(answer);
        while let Some(answer) = next {
            match answer {
                Answer::Metadata(metadata) => self.engine.handle_container_metadata(now, metadata),
                Answer::Process(number, risks) => self.engine.handle_process_risks(now, number, risks),
                Answer::Daemon(process, options) => {
                    self.engine.handle_daemon_options(now, process, options);
                }
                Answer::Removed(id) => self.engine.handle_container_removed(now, &id),
            }
            next = self.containers.try_answer();
        }
    }

    fn look_around(&mut self, ticks: u32) -> anyhow::Result<()> {
        self.hear_canaries();
        let now = clock::now();
        self.engine.handle_clock(ClockMap::from_sample(now));
        self.engine.handle_links(now, &self.probes.attached_state());
        let stuck = self.files.stuck(now);
        self.engine.handle_gaps(now, Look::FilesLooked, &stuck);
        let counters = self.probes.counters().context("reading the probes' counters")?;
        self.keep_state(now);
        self.engine.handle_shell_losses(self.shell_losses());
        self.look_at_audit();
        self.positions.keep(&self.output);
        self.engine.handle_counters(now, &counters);
        if ticks.is_multiple_of(FLOOD_EVERY) {
            self.look_at_flood(false)?;
        }
        if ticks.is_multiple_of(ADDRESSES_EVERY) {
            match addresses::local(&self.roots) {
                Ok(addresses) => self.engine.handle_addresses(now, addresses),
                Err(error) => warn!(%error, "the node's addresses could not be read; the previous ones stay"),
            }
        }
        self.probes.flush_log();
        Ok(())
    }

    fn look_at_flood(&mut self, is_last: bool) -> anyhow::Result<()> {
        let now = clock::now();
        let read = || -> Result<_, KernelError> {
            let before = self.probes.flood_ports()?;
            if !self.engine.wants_flood_peers(&before) {
                return Ok((before.clone(), Vec::new(), before));
            }
            let peers = self.probes.flood_peers()?;
            Ok((before, peers, self.probes.flood_ports()?))
        };
        let (before, peers, after) = read().context("reading the tables of flood control")?;
        let reading = FloodReading { before: &before, peers: &peers, after: &after, is_last };
        self.engine.handle_flood(now, &reading);
        Ok(())
    }

    /// Lets the engine work, serves its requests and writes its output.
    fn turn(&mut self, walk: &mut ListenerWalk) {
        // Asked before the waiting batches are taken: what the rings held at that moment is in them.
        let drained_ns = self.rings.drained_ns();
        while let Some(batch) = self.rings.try_recv() {
            self.take(&batch);
        }
        self.engine.handle_drained(drained_ns);
        let now = clock::now();
        self.engine.poll(now);
        while let Some(request) = self.engine.next_request() {
            self.serve(request, walk);
        }
        if walk.wanted && walk.not_before.is_none_or(|not_before| Instant::now() >= not_before) {
            self.walk_listeners(walk);
            self.engine.poll(now);
            while let Some(request) = self.engine.next_request() {
                self.serve(request, walk);
            }
        }
        self.write();
    }

    fn serve(&mut self, request: Request, walk: &mut ListenerWalk) {
        match request {
            Request::ReadContainer(query) => self.containers.read(query),
            Request::ReadAhead(query) => self.containers.read_ahead(query),
            Request::ReadProcess(query) => self.containers.read_process(query),
            Request::ReadDaemonOptions(query) => self.containers.read_daemon(query),
            Request::WatchRemoval(query) => self.containers.watch(query),
            Request::ForgetRemoval(id) => self.containers.forget(id),
            Request::ClassifyCgroup(cgroup, class) => {
                if let Err(error) = self.probes.classify_cgroup(cgroup, class) {
                    // The cgroup stays unclassified, which reports too much and misses nothing.
                    debug!(%error, ?cgroup, "cgroup not classified");
                }
            }
            Request::ForgetCgroup(cgroup) => self.probes.forget_cgroup(cgroup),
            Request::ForgetFloodPort(port) => self.probes.forget_flood_port(port),
            Request::RefreshListeners => walk.wanted = true,
            Request::ReadProgram { process, contents, path, urgency } => {
                if let Some(refusal) = self.programs.ask(process, contents, path, urgency) {
                    self.engine.handle_program(clock::now(), refusal);
                }
            }
            Request::WatchPort { port, depth } => {
                if let Err(error) = self.probes.watch_port(port, depth) {
                    warn!(%error, port, "a daemon's port is not watched: its connections and its end are not seen");
                }
            }
            Request::WatchPackets(wanted) => {
                self.probes.watch_packets(wanted);
                self.engine.handle_hooks(clock::now(), all_hooks(&self.probes, &self.files));
            }
            Request::RunCanaries => {
                check_tables(&mut self.engine, &mut self.probes);
                run_canaries(&mut self.engine, &self.canaries);
            }
            Request::Reattach(program) => self.reattach(program),
        }
    }

    /// Attaches a program anew and says how the hooks stand now, if that has changed.
    fn reattach(&mut self, program: &str) {
        if program == FANOTIFY {
            return self.mark_anew();
        }
        let before = self.probes.hooks();
        let result = self.probes.reattach(program);
        let attached = matches!(result, Ok(true));
        let is_news = attached || self.probes.hooks() != before;
        match result {
            Ok(true) => warn!(program, "a hook did not report what it should and was attached again"),
            Ok(false) => debug!(program, "a hook that was never attached is not attached again"),
            Err(error) => {
                let error = anyhow::Error::new(error);
                if is_news {
                    error!(program, error = format!("{error:#}"), "a hook cannot be attached again");
                } else {
                    debug!(program, error = format!("{error:#}"), "a hook still cannot be attached again");
                }
            }
        }
        if is_news {
            self.engine.handle_hooks(clock::now(), all_hooks(&self.probes, &self.files));
        }
    }

    /// Makes the marks of fanotify anew, of which somebody may have had the groups in hand.
    fn mark_anew(&mut self) {
        match self.files.renew() {
            Ok(true) => {
                warn!("fanotify did not report what it should, and everything is marked anew");
                self.engine.handle_hooks(clock::now(), all_hooks(&self.probes, &self.files));
            }
            Ok(false) => debug!("fanotify is not in use"),
            Err(error) => error!(%error, "fanotify reports nothing and cannot be used anew"),
        }
    }

    fn walk_listeners(&mut self, walk: &mut ListenerWalk) {
        let started = Instant::now();
        let listeners = self.probes.listeners();
        // A socket that is not listed was held until some time of the walk: what came to it before is its last holder's.
        let now = clock::now();
        match listeners {
            Ok(items) => {
                self.engine.handle_walk(now, WALK_LISTENERS, None);
                self.engine.handle_listeners(now, &items);
            }
            Err(error) => {
                let reason = format!("{:#}", anyhow::Error::new(error));
                warn!(reason, "the listener iterator failed; the known holders stay");
                self.engine.handle_walk(now, WALK_LISTENERS, Some(&reason));
            }
        }
        walk.wanted = false;
        walk.not_before = Some(Instant::now() + started.elapsed() * LISTENER_PAUSE);
    }

    fn shell_losses(&self) -> ShellLosses {
        ShellLosses {
            output_lines: self.output.shed(),
            container_questions: self.containers.refused(),
            container_specs: self.containers.unusable_specs(),
            file_opens: self.files.lost(),
            state_writes: self.keeper.as_ref().map_or(0, Keeper::failures),
        }
    }

    fn write(&mut self) {
        while let Some(output) = self.engine.next_output() {
            self.output.push(&output);
        }
        self.output.flush();
    }

    fn shut_down(mut self) -> anyhow::Result<()> {
        self.canaries.stop();
        self.audit.stop();
        self.probes.detach();
        self.output.begin_finish();
        for batch in self.rings.stop() {
            self.take(&batch);
        }
        self.take_opens(None);
        let counters = self.probes.counters().context("reading the probes' counters")?;
        while let Some(answer) = self.containers.try_answer() {
            self.answered(answer);
        }
        while let Some(piece) = self.audit.try_recv() {
            self.take_audit(piece);
            self.write();
        }
        self.look_at_audit();
        self.look_at_flood(true)?;
        self.engine.handle_shell_losses(self.shell_losses());
        self.engine.finish(clock::now(), &counters);
        self.write();
        self.end_state();
        self.output.finish()?;
        self.positions.finish();
        Ok(())
    }
}

/// Looks whether the probes still look for what they were told to.
pub(crate) fn check_tables(engine: &mut Engine, probes: &mut Probes) {
    let now = clock::now();
    let mut gaps: &[Gap] = &[];
    match probes.check_tables() {
        Ok(found) => {
            for (table, state) in found.iter().filter(|(_, state)| *state != TableState::Same) {
                warn!(?table, ?state, "another program has changed what the probes look for");
            }
            engine.handle_tables(now, &found);
        }
        Err(error) => {
            warn!(error = format!("{:#}", anyhow::Error::new(error)), "the probes' tables are not checked");
            gaps = &UNCHECKED;
        }
    }
    engine.handle_gaps(now, Look::Tables, gaps);
}

/// Asks for a round of canaries; without anybody to do it, tells the engine that no act can be done.
pub(crate) fn run_canaries(engine: &mut Engine, canaries: &Canaries) {
    if canaries.run() {
        return;
    }
    error!("the thread of the canaries has ended; coverage is not tested any more");
    let now = clock::now();
    for act in Act::ALL {
        engine.handle_canary(now, CanaryNotice::Failed(act, "the thread of the canaries has ended".into()));
    }
    engine.handle_canary(now, CanaryNotice::Ended);
}

/// The programs and fanotify.
pub(crate) fn all_hooks(probes: &Probes, files: &FileWatch) -> Vec<Hook> {
    let mut hooks = probes.hooks();
    hooks.push(files.hook().clone());
    hooks
}

/// Tells engine and probes which files matter.
pub(crate) fn hand_over_files(engine: &mut Engine, probes: &mut Probes, files: Files) {
    let Files { sockets, places, mut gaps, problem } = files;
    if let Some(problem) = problem {
        warn!(%problem, "not every place of credential files is watched");
    }
    // The engine first: what the probes report is known to it then.
    let keys: Vec<_> = sockets.iter().map(|socket| (socket.key, socket.speaks_http())).collect();
    engine.handle_runtime_sockets(sockets);
    if let Err(error) = probes.set_runtime_sockets(keys) {
        warn!(%error, "not every socket of a runtime is watched");
        let reason = "some sockets of runtimes cannot be watched";
        gaps.push(Gap::new(Capability::RuntimeSockets, reason));
    }
    let keys: Vec<_> = places.iter().map(|found| found.place.key).collect();
    engine.handle_credential_places(places.into_iter().map(|found| found.place).collect());
    if let Err(error) = probes.set_credential_places(keys) {
        warn!(%error, "not every place of credential files is watched");
        let reason = "some places of credential files cannot be watched";
        gaps.push(Gap::new(Capability::CredentialFiles, reason));
    }
    engine.handle_gaps(clock::now(), Look::Files, &gaps);
}

/// Sleeps until the engine or the listener walk has something to do, and no shorter than the timer can tell: what is due
/// may still wait for the rings to be looked at.
async fn sleep_until_due(engine_due_boot_ns: Option<u64>, walk: &ListenerWalk) {
    let engine = engine_due_boot_ns.map(|due| {
        let wait = Duration::from_nanos(due.saturating_sub(clock::now().boot_ns));
        Instant::now() + wait.max(TIMER_STEP)
    });
    let walk = walk.wanted.then_some(walk.not_before).flatten();
    match [engine, walk].into_iter().flatten().min() {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
