//! What the sensor says of itself: ready, loss, and the balance at the end.

use crate::engine::Engine;
use crate::health::{Health, HealthState, KernelCounters, Loss, ShellLosses};
use crate::loss::{FLOOD_PEERS, FLOOD_PORTS, PROGRAM_FILES, RELEASED_EARLY, SCAN_BURSTS, Tally};
use crate::time::Timestamp;

/// Programs that could not be read are told of this often at most: short-lived ones are many.
const UNREAD_NS: u64 = 60_000_000_000;
/// Without loss for this long the sensor is in order again.
const RECOVERY_NS: u64 = 10_000_000_000;

/// Whether something was lost lately.
#[derive(Debug, Default)]
pub(super) struct Condition {
    /// When loss was last reported, while the sensor is not in order again.
    degraded_ns: Option<u64>,
    /// Programs that could not be read, as of the last time that this may have been reported, and when that was.
    unread: (u64, u64),
}

/// Sizes and counts for the metrics of the shell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Records taken from the rings.
    pub received: u64,
    /// Records that could not be decoded.
    pub undecodable: u64,
    /// Records that wait for earlier ones.
    pub waiting: usize,
    /// Records released before their turn because too many waited.
    pub released_early: u64,
    /// Processes known.
    pub processes: usize,
    /// Files of programs that could not be read, because their process was gone.
    pub unread_programs: u64,
    /// Cgroups known.
    pub cgroups: usize,
    /// Containers known.
    pub containers: usize,
    /// Listeners known.
    pub listeners: usize,
    /// Connections whose end is still to come.
    pub connections: usize,
    /// Chains of which something was seen.
    pub chains: usize,
}

impl Engine {
    /// Sends the ready record, then the facts that waited for it. Seeds and hooks are to be handed in before.
    pub fn handle_ready(&mut self, now: Timestamp) {
        self.settle_seeds();
        self.scans.begin(now);
        self.want_packets(now);
        // Nothing was reported before, so nothing can have ended.
        let _ = self.coverage.update(now, &self.canaries);
        let (hooks, coverage) = (self.coverage.hooks(), self.coverage.entries());
        let addresses = self.allow.local.clone();
        let resumed = self.resumed.take().map(Box::new);
        let health = Health { hooks, coverage, addresses, resumed, ..Health::new(HealthState::Ready) };
        self.outbox.open(now, health);
    }

    /// The state while nothing is lost.
    pub(super) fn covered_state(&self) -> HealthState {
        if self.coverage.is_as_promised() { HealthState::Running } else { HealthState::Degraded }
    }

    /// Compares the kernel's counters with those of the last time and reports what was lost since.
    pub fn handle_counters(&mut self, now: Timestamp, counters: &KernelCounters) {
        if self.outbox.is_early() {
            // Reported with the next comparison, after the ready record.
            return;
        }
        self.judge_canaries(now, counters);
        self.judge_packets(now, counters);
        let (_, told_ns) = self.condition.unread;
        if now.boot_ns >= told_ns.saturating_add(UNREAD_NS) {
            self.condition.unread = (self.programs.unread(), now.boot_ns);
        }
        let tallies = self.tallies(self.condition.unread.0);
        let (loss, undecodable) = self.loss.compare(now, counters, tallies);
        self.callers.note_losses(now, &loss);
        let is_harmless = |kind| [RELEASED_EARLY, FLOOD_PEERS, SCAN_BURSTS, PROGRAM_FILES].contains(&kind);
        let is_dropped = |entry: &Loss| (entry.lost > 0 || entry.evicted > 0) && !is_harmless(entry.kind);
        let degraded = undecodable > 0 || loss.iter().any(is_dropped);
        if degraded {
            self.condition.degraded_ns = Some(now.boot_ns);
        }
        let lost_lately = self.condition.degraded_ns.is_some_and(|since| now.boot_ns < since + RECOVERY_NS);
        let recovered = !lost_lately && self.condition.degraded_ns.take().is_some();
        if loss.is_empty() && undecodable == 0 && !recovered {
            return;
        }
        // Flood control at work, of which a summary tells, or records out of order: nothing is missing by that.
        let state = if lost_lately { HealthState::Degraded } else { self.covered_state() };
        let audit = self.audit_inputs.clone();
        self.outbox.send_health(now, Health { loss, undecodable, audit, ..Health::new(state) });
    }

    /// Takes what the shell could not do since the start; reported with the next comparison of the counters.
    pub fn handle_shell_losses(&mut self, losses: ShellLosses) {
        self.loss.set_shell(losses);
    }

    /// Releases everything that waits, whatever its time, and sends the last record of the run.
    pub fn finish(&mut self, now: Timestamp, counters: &KernelCounters) {
        while !self.merge.is_empty() {
            self.release_next();
        }
        self.end_conversations(now);
        let end = Timestamp { boot_ns: u64::MAX, ..now };
        self.expire_holds(end);
        self.expire_bursts(end);
        self.report_still_blind(now);
        let (loss, undecodable) = self.loss.totals(counters, &self.tallies(self.programs.unread()));
        let balance = self.loss.balance(counters);
        let emitted = Some(0);
        let audit = std::mem::take(&mut self.audit_inputs);
        let health =
            Health { loss, balance, audit, emitted, undecodable, ..Health::new(HealthState::Stopping) };
        self.outbox.open_silently();
        self.outbox.send_health(now, health);
    }

    /// Sizes and counts at this moment.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            received: self.loss.received(),
            undecodable: self.loss.undecodable(),
            waiting: self.merge.len(),
            released_early: self.released_early,
            processes: self.processes.len(),
            unread_programs: self.programs.unread(),
            cgroups: self.inventory.len(),
            containers: self.containers.len(),
            listeners: self.listeners.len(),
            connections: self.connections.len(),
            chains: self.outbox.chains().open(),
        }
    }

    /// What was dropped from each bounded table since the start, and how many programs could not be read.
    fn tallies(&self, unread: u64) -> Vec<Tally> {
        [
            (PROGRAM_FILES, unread),
            (RELEASED_EARLY, self.released_early),
            ("processes", self.processes.evicted()),
            ("cgroups", self.inventory.evicted()),
            ("containers", self.containers.evicted()),
            ("runtime-calls", self.calls.evicted()),
            ("listeners", self.listeners.evicted()),
            ("programs", self.programs.evicted()),
            ("late-execs", self.late_entrants.evicted()),
            ("daemons", self.daemon_options.evicted()),
            ("published-ports", self.published.evicted()),
            ("endpoints", self.exposure.evicted()),
            ("connections", self.connections.evicted()),
            ("accept-tasks", self.takers.evicted()),
            (SCAN_BURSTS, self.bursts.evicted()),
            ("requests", self.requests.evicted()),
            ("origins", self.origins.evicted()),
            ("callers", self.callers.evicted()),
            ("hops", self.hops.evicted()),
            ("peer-stacks", self.stacks.evicted()),
            ("before-ready", self.outbox.evicted()),
            (FLOOD_PEERS, self.scans.evicted()),
            (FLOOD_PORTS, self.scans.shared()),
            ("audit-tables", self.auditor.counts().evicted),
        ]
        .into_iter()
        .chain(self.outbox.chains().evicted())
        .collect()
    }
}
