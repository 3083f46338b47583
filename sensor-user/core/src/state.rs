//! What correlation remembers, as it outlives the program: entries of tables as bytes, out and in.
//!
//! Owns the format and what of it may be used again. Knows no file: the shell keeps the entries wherever it likes, and
//! loses none, or some, or damages them; what cannot be read is counted and forgotten.

pub(crate) mod kept;
mod mirror;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::time::Timestamp;

/// Version of the format of the entries. Another one is not read: whoever changes what is remembered raises it, and a test
/// notices who forgets to.
pub const STATE_VERSION: u32 = 1;
/// Bytes that entries may have together unless something else is configured.
pub const STATE_BYTES: u64 = 32 << 20;
/// Longest entry that is read.
pub const ENTRY_MAX: usize = 1 << 20;

/// A table that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// What there is one of.
    Single,
    /// Connections of unlisted peers.
    Accesses,
    /// Pairs of unlisted peer and service where requests cannot be read.
    Veiled,
    /// Steps in the lives of containers.
    Steps,
    /// Acts of containers that belong to no chain so far.
    Loose,
    /// Chains of AN1007 from their second stage on.
    Cases,
    /// Principals of AN1352.
    Principals,
    /// How many records of each chain there are.
    Numbers,
    /// Chains of audit logs.
    AuditChains,
    /// Who had which container made.
    Origins,
    /// What software each address uses.
    Stacks,
    /// Containers, and what others than their workload did there.
    Entered,
}

impl Table {
    /// Every table, by code.
    pub const ALL: [Self; 12] = [
        Self::Single,
        Self::Accesses,
        Self::Veiled,
        Self::Steps,
        Self::Loose,
        Self::Cases,
        Self::Principals,
        Self::Numbers,
        Self::AuditChains,
        Self::Origins,
        Self::Stacks,
        Self::Entered,
    ];

    /// The number that stands for it.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The table with this number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.code() == code)
    }

    /// Bytes that its entries may have of so many in all. What there is one of is bounded by itself.
    pub(crate) const fn bytes(self, of: u64) -> u64 {
        let of_64 = match self {
            Self::Single => 0,
            Self::Accesses => 18,
            Self::Cases => 14,
            Self::Steps => 8,
            Self::Veiled | Self::Loose | Self::Principals | Self::Numbers => 4,
            Self::AuditChains | Self::Origins | Self::Stacks | Self::Entered => 2,
        };
        of / 64 * of_64
    }
}

/// An entry that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where it is.
    pub table: Table,
    /// Which one of the table.
    pub number: u64,
    /// What it says now; `None`: it is gone.
    pub entry: Option<Vec<u8>>,
}

/// What came of what an earlier run has left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Entries that could not be read.
    pub unreadable: u64,
    /// What they were the state of; `None`: there was nothing that could be used.
    pub resumed: Option<Resumed>,
}

/// A run goes on where another one has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// Id of that run.
    pub run: Arc<str>,
    /// Up to when it is known to have watched.
    pub from: Timestamp,
    /// Since when this one watches.
    pub to: Timestamp,
    /// It came to its end in order: nothing that it knew is missing.
    pub clean: bool,
    /// The node was started anew in between.
    pub rebooted: bool,
    /// Entries that are in use again.
    pub entries: u64,
    /// Entries that could not be read.
    pub unreadable: u64,
    /// Entries that say nothing any more, because the node was started anew.
    pub outdated: u64,
}

/// Entries as an earlier run has left them.
#[derive(Debug, Default)]
pub(crate) struct Entries<'a> {
    singles: Vec<(u64, &'a [u8])>,
    tables: BTreeMap<Table, Vec<&'a [u8]>>,
}

impl<'a> Entries<'a> {
    pub(crate) fn add(&mut self, table: Table, number: u64, entry: &'a [u8]) {
        match table {
            Table::Single => self.singles.push((number, entry)),
            _ => self.tables.entry(table).or_default().push(entry),
        }
    }

    pub(crate) fn of(&self, table: Table) -> &[&'a [u8]] {
        self.tables.get(&table).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn single(&self, number: u64) -> Option<&'a [u8]> {
        self.singles.iter().find(|(known, _)| *known == number).map(|(_, entry)| *entry)
    }

    /// Number of entries in tables.
    pub(crate) fn len(&self) -> u64 {
        self.tables.values().map(|entries| entries.len() as u64).sum()
    }
}

/// Why an entry is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the entry has another form than it should")]
pub(crate) struct Unreadable;

/// An entry as bytes.
pub(crate) fn encode(entry: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(entry).expect("invariant: what is remembered has known lengths")
}

/// Bytes that an entry has.
pub(crate) fn size_of(entry: &impl Serialize) -> usize {
    postcard::serialize_with_flavor(entry, postcard::ser_flavors::Size::default())
        .expect("invariant: what is remembered has known lengths")
}

/// The entry that these bytes are, all of them.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    if bytes.len() > ENTRY_MAX {
        return Err(Unreadable);
    }
    match postcard::take_from_bytes(bytes) {
        Ok((entry, [])) => Ok(entry),
        _ => Err(Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_no_more_than_the_whole() {
        let all = 32 << 20;
        let sum: u64 = Table::ALL.iter().map(|table| table.bytes(all)).sum();
        assert!(sum <= all, "{sum}");
    }

    #[test]
    fn tables_keep_their_numbers() {
        for (code, table) in (0_u8..).zip(Table::ALL) {
            assert_eq!((table.code(), Table::from_code(code)), (code, Some(table)));
        }
        assert_eq!(Table::from_code(12), None);
    }

    #[test]
    fn what_follows_an_entry_makes_it_unreadable() {
        let mut bytes = encode(&(1_u64, "x"));
        assert_eq!(size_of(&(1_u64, "x")), bytes.len());
        assert_eq!(decode::<(u64, String)>(&bytes), Ok((1, "x".to_owned())));
        bytes.push(0);
        assert_eq!(decode::<(u64, String)>(&bytes), Err(Unreadable));
    }
}
