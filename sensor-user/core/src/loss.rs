//! What did not reach the output, and the proof that everything else did.
//!
//! Owns the comparison of the kernel's counters with what the agent received: produced = received + lost + suppressed.
//! Knows nothing of what the records said.

use sensor_common::counters::{Event, Fate};
use sensor_common::record::{RecordKind, Ring};

use crate::canary::Tallies;
use crate::health::{AUDIT_LOSSES, AuditInput, Balance, KernelCounters, Loss, ShellLosses, record_kind_name};
use crate::time::Timestamp;

/// A fact within this distance of a management loss says so.
const AROUND_NS: u64 = 1_000_000_000;

/// Count of one thing the agent or the kernel dropped outside the rings, under the name printed for it.
pub(crate) type Tally = (&'static str, u64);

/// Name of the records that were released before their turn because too many waited: out of order at worst, not lost.
pub(crate) const RELEASED_EARLY: &str = "released-early";

/// Name of the peers that flood control lost sight of before they could be named: their connections are in the summary of
/// the port.
pub(crate) const FLOOD_PEERS: &str = "flood-peers";

/// Name of the bursts of connections that were told of before they had ended, to make room for others.
pub(crate) const SCAN_BURSTS: &str = "scan-bursts";

/// Name of the connections of ports that found no place of their own in the table of flood control: they share budgets.
pub(crate) const FLOOD_PORTS: &str = "flood-ports";

/// Name of the programs whose file could not be read before they were gone: their names alone say what they are.
pub(crate) const PROGRAM_FILES: &str = "program-files";

/// Counts since the start and what was reported of them.
#[derive(Debug, Default)]
pub(crate) struct LossLedger {
    received: [[u64; RecordKind::COUNT]; Ring::COUNT],
    /// Of these, the sensor's own canaries.
    canaries: [[u64; RecordKind::COUNT]; Ring::COUNT],
    undecodable: u64,
    undecodable_reported: u64,
    /// As of the last comparison.
    kernel: KernelCounters,
    /// Likewise, but what was reported as withheld never shrinks.
    reported: KernelCounters,
    tables: Vec<Tally>,
    shell: ShellLosses,
    shell_reported: ShellLosses,
    /// In the order of [`AUDIT_LOSSES`].
    audit: [u64; AUDIT_LOSSES.len()],
    audit_reported: [u64; AUDIT_LOSSES.len()],
    /// The last span of time in which management records were lost, and how many.
    management: Option<(u64, u64, u64)>,
    compared_ns: u64,
}

impl LossLedger {
    /// A record was taken from a ring; its kind is unknown when its header is damaged.
    pub(crate) fn count_received(&mut self, ring: Ring, kind: Option<RecordKind>) {
        if let Some(kind) = kind {
            self.received[ring as usize][kind as usize] += 1;
        }
    }

    /// A record that was received is of the sensor's own making.
    pub(crate) fn count_canary(&mut self, ring: Ring, kind: Option<RecordKind>) {
        if let Some(kind) = kind {
            self.canaries[ring as usize][kind as usize] += 1;
        }
    }

    /// A record could not be decoded.
    pub(crate) fn count_undecodable(&mut self) {
        self.undecodable += 1;
    }

    /// The kernel's counters as of the last comparison.
    pub(crate) const fn counters(&self) -> &KernelCounters {
        &self.kernel
    }

    /// What was lost as of these counters, as far as it can be a canary's.
    pub(crate) const fn tallies<'a>(&self, counters: &'a KernelCounters) -> Tallies<'a> {
        Tallies { counters, file_opens: self.shell.file_opens }
    }

    /// The shell tells what it could not do since the start.
    pub(crate) fn set_shell(&mut self, shell: ShellLosses) {
        self.shell = shell;
    }

    /// Takes what was lost of audit logs since the start.
    pub(crate) fn set_audit(&mut self, inputs: &[AuditInput]) {
        let counts = inputs.iter().map(|input| [input.invalid, input.oversize, input.gaps]);
        self.audit =
            counts.fold([0; _], |sums, counts| std::array::from_fn(|index| sums[index] + counts[index]));
    }

    /// Compares with the counters and tallies of the last time; returns the loss since then and the number of
    /// undecodable records.
    pub(crate) fn compare(
        &mut self,
        now: Timestamp,
        kernel: &KernelCounters,
        tables: Vec<Tally>,
    ) -> (Vec<Loss>, u64) {
        let mut loss = ring_loss(&self.reported, kernel);
        self.reported = with_most_suppressed(&self.reported, kernel);
        let management = loss.iter().filter(|entry| entry.ring == Some(Ring::Management));
        let lost = management.map(|entry| entry.lost).sum::<u64>();
        if lost > 0 {
            self.management = Some((self.compared_ns, now.boot_ns, lost));
        }
        let before = kernel_tallies(&self.kernel).chain(shell_tallies(self.shell_reported));
        loss.extend(
            (kernel_tallies(kernel).chain(shell_tallies(self.shell)))
                .zip(before)
                .filter_map(|((kind, now), (_, before))| outside_rings(kind, now.saturating_sub(before), 0)),
        );
        loss.extend(tables.iter().filter_map(|(kind, evicted)| {
            let before = self.tables.iter().find(|(known, _)| known == kind).map_or(0, |(_, count)| *count);
            of_table(kind, evicted.saturating_sub(before))
        }));
        loss.extend(audit_loss(&self.audit, &self.audit_reported));
        self.audit_reported = self.audit;
        let undecodable = self.undecodable - self.undecodable_reported;
        self.undecodable_reported = self.undecodable;
        self.kernel = *kernel;
        self.shell_reported = self.shell;
        self.tables = tables;
        self.compared_ns = now.boot_ns;
        (loss, undecodable)
    }

    /// The loss since the start and the number of undecodable records.
    pub(crate) fn totals(&self, kernel: &KernelCounters, tables: &[Tally]) -> (Vec<Loss>, u64) {
        let mut loss = ring_loss(&KernelCounters::default(), kernel);
        let tallies = kernel_tallies(kernel).chain(shell_tallies(self.shell));
        loss.extend(tallies.filter_map(|(kind, lost)| outside_rings(kind, lost, 0)));
        loss.extend(tables.iter().filter_map(|(kind, evicted)| of_table(kind, *evicted)));
        loss.extend(audit_loss(&self.audit, &[0; AUDIT_LOSSES.len()]));
        (loss, self.undecodable)
    }

    /// The balance of the run, entries with something produced only.
    pub(crate) fn balance(&self, kernel: &KernelCounters) -> Vec<Balance> {
        let cells = Ring::ALL.into_iter().flat_map(|ring| RecordKind::ALL.map(|kind| (ring, kind)));
        cells
            .map(|(ring, kind)| {
                let fates = kernel.records[ring as usize][kind as usize];
                let [submitted, lost, suppressed] = Fate::ALL.map(|fate| fates[fate as usize]);
                let received = self.received[ring as usize][kind as usize];
                let canaries = self.canaries[ring as usize][kind as usize];
                let produced = submitted + lost + suppressed;
                Balance { ring, kind, produced, received, canaries, lost, suppressed }
            })
            .filter(|balance| balance.produced > 0 || balance.received > 0)
            .collect()
    }

    /// Management records lost in the second around this time, as far as the counters have told.
    pub(crate) fn lost_around(&self, boot_ns: u64) -> u64 {
        match self.management {
            Some((from, to, lost))
                if boot_ns.saturating_add(AROUND_NS) >= from && boot_ns <= to.saturating_add(AROUND_NS) =>
            {
                lost
            }
            _ => 0,
        }
    }

    /// Records received since the start.
    pub(crate) fn received(&self) -> u64 {
        self.received.iter().flatten().sum()
    }

    /// Records that could not be decoded since the start.
    pub(crate) fn undecodable(&self) -> u64 {
        self.undecodable
    }
}

/// The counters, with as many records withheld as ever. An accept that is reported after all is taken back from those; what
/// is withheld after that must not be told a second time in its stead.
fn with_most_suppressed(before: &KernelCounters, now: &KernelCounters) -> KernelCounters {
    let mut most = *now;
    for (most, before) in most.records.iter_mut().flatten().zip(before.records.iter().flatten()) {
        let suppressed = &mut most[Fate::Suppressed as usize];
        *suppressed = before[Fate::Suppressed as usize].max(*suppressed);
    }
    most
}

fn ring_loss(before: &KernelCounters, now: &KernelCounters) -> Vec<Loss> {
    let cells = Ring::ALL.into_iter().flat_map(|ring| RecordKind::ALL.map(|kind| (ring, kind)));
    cells
        .map(|(ring, kind)| {
            let now = now.records[ring as usize][kind as usize];
            let before = before.records[ring as usize][kind as usize];
            let grown = |fate: Fate| now[fate as usize].saturating_sub(before[fate as usize]);
            Loss {
                ring: Some(ring),
                kind: record_kind_name(kind),
                lost: grown(Fate::Lost),
                suppressed: grown(Fate::Suppressed),
                evicted: 0,
            }
        })
        .filter(|loss| loss.lost > 0 || loss.suppressed > 0)
        .collect()
}

/// What the kernel side dropped outside the rings.
fn kernel_tallies(kernel: &KernelCounters) -> impl Iterator<Item = Tally> {
    let events = kernel.events;
    let events = Event::ALL
        .into_iter()
        .filter_map(move |event| loss_name(event).map(|name| (name, events[event as usize])));
    std::iter::once(("probe-recursion", kernel.recursion_misses)).chain(events)
}

/// The name of an event in loss entries; `None` for those that are no loss.
const fn loss_name(event: Event) -> Option<&'static str> {
    match event {
        Event::UntrackedConnection => Some("untracked-connection"),
        Event::ReadFailed => Some("read-failed"),
        Event::UntrackedProcess => Some("untracked-process"),
        Event::ConnectionShare => Some("connection-share"),
        // The end of a connection whose first record was never owed: it is older than the sensor. What was evicted or
        // not entered is counted as an untracked connection when that happens.
        Event::UnknownClose => None,
        // They are in the counts of the records.
        Event::Resumed | Event::ResumedLost | Event::ResumedOnBulk | Event::ResumedOnBulkLost => None,
    }
}

fn shell_tallies(shell: ShellLosses) -> [Tally; 5] {
    [
        ("output", shell.output_lines),
        ("container-state", shell.container_questions),
        ("container-spec", shell.container_specs),
        ("credential-opens", shell.file_opens),
        ("state-writes", shell.state_writes),
    ]
}

/// What was lost of audit logs since the last time.
fn audit_loss(
    now: &[u64; AUDIT_LOSSES.len()],
    before: &[u64; AUDIT_LOSSES.len()],
) -> impl Iterator<Item = Loss> {
    let grown: [u64; AUDIT_LOSSES.len()] =
        std::array::from_fn(|index| now[index].saturating_sub(before[index]));
    AUDIT_LOSSES.into_iter().zip(grown).filter_map(|(kind, lost)| outside_rings(kind, lost, 0))
}

/// What was dropped from a table; files that were not read were never in one.
fn of_table(kind: &'static str, count: u64) -> Option<Loss> {
    if kind == PROGRAM_FILES { outside_rings(kind, count, 0) } else { outside_rings(kind, 0, count) }
}

fn outside_rings(kind: &'static str, lost: u64, evicted: u64) -> Option<Loss> {
    (lost > 0 || evicted > 0).then_some(Loss { ring: None, kind, lost, suppressed: 0, evicted })
}

#[cfg(test)]
mod tests;
