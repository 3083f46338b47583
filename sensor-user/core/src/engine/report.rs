//! What the sensor says of itself: ready, loss, and the balance at the end.

use crate::engine::Engine;
use crate::health::{Coverage, CoverageState, Health, HealthState, Hook, KernelCounters, Loss, ShellLosses};
use crate::loss::{RELEASED_EARLY, Tally};
use crate::time::Timestamp;

/// Without loss for this long the sensor is in order again.
const RECOVERY_NS: u64 = 10_000_000_000;

/// Whether something was lost lately.
#[derive(Debug, Default)]
pub(super) struct Condition {
    /// When loss was last reported, while the sensor is not in order again.
    degraded_ns: Option<u64>,
    /// Some capability is not live.
    uncovered: bool,
}

impl Condition {
    fn set_coverage(&mut self, coverage: &[Coverage]) {
        self.uncovered = coverage.iter().any(|entry| entry.state != CoverageState::Live);
    }

    /// The state while nothing is lost.
    fn covered_state(&self) -> HealthState {
        if self.uncovered { HealthState::Degraded } else { HealthState::Running }
    }
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
    /// Cgroups known.
    pub cgroups: usize,
    /// Containers known.
    pub containers: usize,
    /// Listeners known.
    pub listeners: usize,
    /// Connections whose end is still to come.
    pub connections: usize,
}

impl Engine {
    /// Sends the ready record, then the facts that waited for it. Seeds are to be handed in before.
    pub fn handle_ready(&mut self, now: Timestamp, hooks: Vec<Hook>, coverage: Vec<Coverage>) {
        self.settle_seeds();
        self.condition.set_coverage(&coverage);
        let addresses = self.allow.local.clone();
        self.outbox.open(now, Health { hooks, coverage, addresses, ..Health::new(HealthState::Ready) });
    }

    /// Takes hooks and coverage that changed after the ready record and reports them; all of them, not the changed ones
    /// only. Before the ready record there is nothing to do: it bears the state of its moment.
    pub fn handle_hooks(&mut self, now: Timestamp, hooks: Vec<Hook>, coverage: Vec<Coverage>) {
        if self.outbox.is_early() {
            return;
        }
        self.condition.set_coverage(&coverage);
        let state = self.condition.covered_state();
        self.outbox.send_health(now, Health { hooks, coverage, ..Health::new(state) });
    }

    /// Compares the kernel's counters with those of the last time and reports what was lost since.
    pub fn handle_counters(&mut self, now: Timestamp, counters: &KernelCounters) {
        if self.outbox.is_early() {
            // Reported with the next comparison, after the ready record.
            return;
        }
        let tallies = self.tallies();
        let (loss, undecodable) = self.loss.compare(now, counters, tallies);
        let is_dropped = |entry: &Loss| entry.lost > 0 || (entry.evicted > 0 && entry.kind != RELEASED_EARLY);
        let degraded = undecodable > 0 || loss.iter().any(is_dropped);
        let state = if degraded {
            self.condition.degraded_ns = Some(now.boot_ns);
            HealthState::Degraded
        } else if !loss.is_empty() {
            // Flood control at work, of which a summary tells, or records out of order: nothing is missing.
            self.condition.covered_state()
        } else if self.condition.degraded_ns.is_some_and(|since| now.boot_ns >= since + RECOVERY_NS) {
            self.condition.degraded_ns = None;
            self.condition.covered_state()
        } else {
            return;
        };
        self.outbox.send_health(now, Health { loss, undecodable, ..Health::new(state) });
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
        self.expire_holds(Timestamp { boot_ns: u64::MAX, ..now });
        let (loss, undecodable) = self.loss.totals(counters, &self.tallies());
        let balance = self.loss.balance(counters);
        let emitted = Some(0);
        let health = Health { loss, balance, emitted, undecodable, ..Health::new(HealthState::Stopping) };
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
            cgroups: self.inventory.len(),
            containers: self.containers.len(),
            listeners: self.listeners.len(),
            connections: self.connections.len(),
        }
    }

    /// What was dropped from each bounded table since the start.
    fn tallies(&self) -> Vec<Tally> {
        vec![
            (RELEASED_EARLY, self.released_early),
            ("processes", self.processes.evicted()),
            ("cgroups", self.inventory.evicted()),
            ("containers", self.containers.evicted()),
            ("runtime-calls", self.calls.evicted()),
            ("listeners", self.listeners.evicted()),
            ("connections", self.connections.evicted()),
            ("before-ready", self.outbox.evicted()),
        ]
    }
}
