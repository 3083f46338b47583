//! Coverage that proves itself: hooks and canaries come in, changes of coverage go out.

use crate::canary::CanaryNotice;
use crate::coverage::Gap;
use crate::engine::{Engine, Request};
use crate::event::{Ends, Event};
use crate::fact::Direction;
use crate::health::{Health, HealthState, Hook, KernelCounters};
use crate::time::Timestamp;

impl Engine {
    /// Takes the state of all hooks. After the ready record, which bears that of its moment, every call is reported with
    /// the coverage that follows.
    pub fn handle_hooks(&mut self, now: Timestamp, hooks: Vec<Hook>) {
        self.coverage.set_hooks(hooks);
        // What is attached anew is proved or disproved soon.
        self.canaries.hurry();
        self.report_coverage(now, true);
    }

    /// Takes that a hook that was in place does not work, as an iterator that fails when it is read.
    pub fn handle_failed_hook(&mut self, now: Timestamp, program: &str, reason: &str) {
        if self.coverage.set_failed(program, reason) {
            self.report_coverage(now, true);
        }
    }

    /// Takes that somebody else has detached a program, as often as that is seen: told at once, and asked to be attached
    /// again, then and at every round of canaries until it is.
    pub fn handle_detached(&mut self, now: Timestamp, program: &'static str) {
        if self.coverage.set_detached(program) {
            self.report_coverage(now, true);
            self.outbox.request(Request::Reattach(program));
        }
    }

    /// Takes something that is missing for a cause other than a hook.
    pub fn handle_gap(&mut self, now: Timestamp, gap: Gap) {
        self.coverage.add_gap(gap);
        self.report_coverage(now, false);
    }

    /// Takes a notice of a round of canaries.
    pub fn handle_canary(&mut self, now: Timestamp, notice: CanaryNotice) {
        let is_attached = |program: &str| self.coverage.is_attached(program);
        self.canaries.notice(now, notice, self.loss.counters(), is_attached);
        self.report_coverage(now, false);
    }

    /// Whether every canary that could be made has come back at least once.
    #[must_use]
    pub fn is_proved(&self) -> bool {
        self.canaries.is_proved(|program| self.coverage.is_attached(program))
    }

    /// Whether a record is of the sensor's own making: a canary's, or one that is made only because the port of the
    /// canaries is watched, by whoever uses the same number in another network namespace or knocks on ours.
    pub(super) fn is_canary(&mut self, boot_ns: u64, event: &Event) -> bool {
        let at = self.clock.at(boot_ns);
        let mut revived = false;
        if self.canaries.claim(at, event, &mut revived) {
            if revived {
                self.report_coverage(at, false);
            }
            return true;
        }
        let port = inbound_ends(event).map(|ends| ends.local.port);
        port.is_some() && port == self.canaries.identity().port() && !self.is_watched(port.unwrap_or(0))
    }

    fn is_watched(&self, port: u16) -> bool {
        self.ports.binary_search_by_key(&port, |(port, _)| *port).is_ok()
    }

    /// Looks at the canaries; to be called with the latest counters, so that a record that was lost is not held against
    /// its hook.
    pub(super) fn judge_canaries(&mut self, now: Timestamp, counters: &KernelCounters) {
        let judgement = self.canaries.judge(now, self.drained_ns, counters);
        self.report_coverage(now, false);
        if judgement.run {
            self.outbox.request(Request::RunCanaries);
            for program in self.coverage.lost() {
                self.outbox.request(Request::Reattach(program));
            }
        }
        for program in judgement.silent {
            self.outbox.request(Request::Reattach(program));
        }
    }

    /// Tells of coverage that has changed, and of the times of blindness that end with that.
    fn report_coverage(&mut self, now: Timestamp, with_hooks: bool) {
        if self.outbox.is_early() {
            return;
        }
        let changed = self.coverage.update(now, &self.canaries);
        if changed.is_none() && !with_hooks {
            return;
        }
        let mut ended = changed.unwrap_or_default().into_iter();
        let hooks = if with_hooks { self.coverage.hooks().to_vec() } else { Vec::new() };
        let coverage = self.coverage.entries().to_vec();
        let state = self.covered_state();
        self.outbox.send_health(now, Health { hooks, coverage, blind: ended.next(), ..Health::new(state) });
        for blind in ended {
            self.outbox.send_health(now, Health { blind: Some(blind), ..Health::new(state) });
        }
    }

    /// Tells of the times of blindness that the end of the run cuts off.
    pub(super) fn report_still_blind(&mut self, now: Timestamp) {
        if self.outbox.is_early() {
            return;
        }
        for blind in self.coverage.still_blind(now) {
            self.outbox.send_health(now, Health { blind: Some(blind), ..Health::new(HealthState::Degraded) });
        }
    }
}

fn inbound_ends(event: &Event) -> Option<&Ends> {
    match event {
        Event::Listener(event) => Some(&event.ends),
        Event::Accept(event) => Some(&event.ends),
        Event::Close(event) if event.direction == Direction::Inbound => Some(&event.ends),
        _ => None,
    }
}
