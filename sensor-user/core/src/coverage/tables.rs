//! The tables of the probes that only the sensor writes: whether they are still as it wrote them.

use crate::health::{Capability, CoverageState};
use crate::time::Timestamp;

/// Such a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// What is watched of each port.
    Ports,
    /// Names of runtimes and tools.
    Tools,
    /// Which cgroups are containers'.
    Cgroups,
    /// The files that sockets of runtimes are bound to.
    RuntimeSockets,
    /// Where credential files are.
    CredentialPlaces,
}

/// How a table was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableState {
    /// As it was written.
    Same,
    /// Otherwise; it was written again.
    Repaired,
    /// Otherwise, and the kernel does not let it be written.
    Stuck,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 5] =
        [Self::Ports, Self::Tools, Self::Cgroups, Self::RuntimeSockets, Self::CredentialPlaces];

    /// What it holds.
    const fn contents(self) -> &'static str {
        match self {
            Self::Ports => "watched ports",
            Self::Tools => "runtimes and tools",
            Self::Cgroups => "cgroups",
            Self::RuntimeSockets => "runtimes' sockets",
            Self::CredentialPlaces => "places of credential files",
        }
    }

    /// What cannot be relied on while it is not as it was written: whoever changes it chooses what is not seen.
    const fn costs(self) -> &'static [(Capability, CoverageState)] {
        use Capability::{Accepts, Connects, CredentialFiles, Listeners, Requests, RuntimeSockets, Scans};
        use CoverageState::{Blind, Degraded};
        match self {
            // Connects of containers are seen whatever the port; those of the host and those that fail are not.
            Self::Ports => &[
                (Listeners, Blind),
                (Accepts, Blind),
                (Scans, Blind),
                (Requests, Blind),
                (Connects, Degraded),
            ],
            // Runtimes' listeners on any port, and their connects.
            Self::Tools => &[(Listeners, Degraded), (Connects, Degraded)],
            Self::Cgroups => &[(Connects, Blind)],
            Self::RuntimeSockets => &[(RuntimeSockets, Blind)],
            Self::CredentialPlaces => &[(CredentialFiles, Blind)],
        }
    }
}

/// What is known of one table.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// When it was found as it was written, last.
    good: Option<Timestamp>,
    /// How it was found at the last look, unless it was that.
    changed: Option<TableState>,
}

/// How all tables were found.
#[derive(Debug, Default)]
pub(super) struct Tables([Known; Table::ALL.len()]);

/// What a changed table costs a capability.
pub(super) struct Lack {
    pub(super) state: CoverageState,
    pub(super) since: Option<Timestamp>,
    pub(super) reason: String,
}

impl Tables {
    pub(super) fn set(&mut self, now: Timestamp, table: Table, state: TableState) {
        let known = &mut self.0[table as usize];
        known.changed = (state != TableState::Same).then_some(state);
        if known.changed.is_none() {
            known.good = Some(now);
        }
    }

    /// What a capability lacks because of tables that were changed.
    pub(super) fn lacks_of(&self, capability: Capability) -> impl Iterator<Item = Lack> {
        Table::ALL.into_iter().zip(&self.0).filter_map(move |(table, known)| {
            let changed = known.changed?;
            let (_, state) = *table.costs().iter().find(|(of, _)| *of == capability)?;
            let written = if changed == TableState::Stuck { " and cannot be written again" } else { "" };
            let reason = format!("the table of {} was changed by another program{written}", table.contents());
            Some(Lack { state, since: known.good, reason })
        })
    }
}
