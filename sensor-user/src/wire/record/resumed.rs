//! What goes on from an earlier run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::time::UtcTime;
use super::{Text, is_zero};

/// The run that this one goes on from, and the time in which nobody watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resumed<'a> {
    /// What ids of its facts begin with.
    #[serde(borrow)]
    pub run: Text<'a>,
    /// Up to when it is known to have watched.
    pub from: UtcTime,
    /// The same, boot clock.
    pub from_boot_ns: u64,
    /// Since when this run watches.
    pub to: UtcTime,
    /// The same, boot clock.
    pub to_boot_ns: u64,
    /// It has ended in order. Otherwise up to a second of what it knew may be missing.
    pub clean: bool,
    /// The node was started anew in between: chains of its earlier boot have ended. Absent: no.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rebooted: bool,
    /// Entries of its state that are in use again.
    pub entries: u64,
    /// Entries that could not be read. Absent: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unreadable: u64,
    /// Entries that say nothing in another boot. Absent: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub outdated: u64,
}
