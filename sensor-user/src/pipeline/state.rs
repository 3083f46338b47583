//! Has open chains kept for the next run.

use std::time::Duration;

use sensor_core::coverage::{Gap, Look};
use sensor_core::engine::Occasion;
use sensor_core::health::Capability;
use sensor_core::time::Timestamp;
use tokio::time::Instant;

use super::Pipeline;
use crate::lookups::clock;
use crate::state::Wish;

/// How long the end of the run waits for the state file.
const LAST_WRITE: Duration = Duration::from_secs(2);

impl Pipeline {
    /// Has what has changed in open chains written, unless the write before is still under way.
    pub(super) fn keep_state(&mut self, now: Timestamp) {
        let Some(keeper) = &mut self.keeper else { return };
        if let Some(Wish { anew, sign_of_life }) = keeper.wish() {
            if anew {
                self.engine.keep_state();
            }
            let occasion = if sign_of_life { Occasion::SignOfLife } else { Occasion::Change };
            keeper.write(self.engine.take_changes(now, occasion));
        }
        let gap = keeper.problem().map(|reason| Gap::new(Capability::ChainState, reason));
        self.engine.handle_gaps(now, Look::StateKept, gap.as_slice());
    }

    /// The last word of this run, after everything else.
    pub(super) fn end_state(&mut self) {
        let Some(keeper) = &mut self.keeper else { return };
        let deadline = Instant::now() + LAST_WRITE;
        if keeper.settle(LAST_WRITE)
            && let Some(Wish { anew, .. }) = keeper.wish()
        {
            if anew {
                self.engine.keep_state();
            }
            keeper.write(self.engine.take_changes(clock::now(), Occasion::End));
            keeper.settle(deadline.saturating_duration_since(Instant::now()));
        }
    }
}
