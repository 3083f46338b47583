//! The records behind a stage.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::StageSeen;
use crate::ids::RecordId;
use crate::state::kept::{COUNT_MAX, is_plausible_time};
use crate::time::Timestamp;

/// Most records that are named for one stage.
const EVENTS_MAX: usize = 16;

/// The records that say that a stage was seen: the first ones by name, the rest by number.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Evidence {
    pub(super) seen: Option<Timestamp>,
    pub(super) last: Timestamp,
    pub(super) events: Vec<RecordId>,
    further: u64,
}

impl Evidence {
    pub(super) fn add(&mut self, event: &RecordId, at: Timestamp) {
        if self.events.contains(event) {
            return;
        }
        self.seen = Some(self.seen.map_or(at, |seen| seen.min(at)));
        self.last = self.last.max(at);
        if self.events.len() < EVENTS_MAX {
            self.events.push(event.clone());
        } else {
            self.further += 1;
        }
    }

    /// Takes what another stage of the same name is made of.
    pub(super) fn take_from(&mut self, other: &Self) {
        let (seen, last) = (other.seen, other.last);
        let known = self.events.len();
        other.events.iter().for_each(|event| self.add(event, seen.unwrap_or(last)));
        if self.events.len() > known || other.further > 0 {
            self.last = self.last.max(last);
        }
        self.further += other.further;
    }

    /// Whether it can be what was kept.
    pub(super) fn is_plausible(&self) -> bool {
        self.events.len() <= EVENTS_MAX && self.further <= COUNT_MAX && is_plausible_time(self.last)
    }

    pub(super) fn of_stage(&self, name: &'static str) -> StageSeen {
        StageSeen {
            name: Cow::Borrowed(name),
            seen: self.seen,
            events: self.events.clone(),
            further: self.further,
        }
    }
}
