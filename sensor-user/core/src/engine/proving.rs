//! Coverage that proves itself: hooks and canaries come in, changes of coverage go out.

use crate::canary::CanaryNotice;
use crate::coverage::{Gap, Look, Table, TableState};
use crate::engine::{Engine, Request};
use crate::event::{Ends, Event};
use crate::fact::Direction;
use crate::health::{Blind, Health, HealthState, Hook, KernelCounters};
use crate::time::Timestamp;

impl Engine {
    /// Takes the state of all hooks. After the ready record, which bears that of its moment, every call is reported with
    /// the coverage that follows.
    pub fn handle_hooks(&mut self, now: Timestamp, hooks: Vec<Hook>) {
        let rested = self.do_packets_rest();
        self.coverage.set_hooks(now, hooks);
        let missed = self.follow_packets(now, rested);
        // What is attached anew is proved or disproved soon.
        self.canaries.hurry();
        self.report_coverage_and(now, true, missed);
    }

    /// Hooks and coverage as they are now, and the state that follows: not a record, but what one would say.
    #[must_use]
    pub fn health(&self) -> Health {
        let (hooks, coverage) = (self.coverage.hooks(), self.coverage.entries());
        Health { hooks, coverage, ..Health::new(self.covered_state()) }
    }

    /// Takes how the walk of an iterator ended, `failure` being why it failed. A failure is told once, and so is its end.
    pub fn handle_walk(&mut self, now: Timestamp, program: &str, failure: Option<&str>) {
        if self.coverage.set_walked(now, program, failure) {
            self.report_coverage(now, true);
        }
    }

    /// Takes which of the programs that were attached still are, as often as that is looked at. One that somebody else has
    /// detached is told at once, and asked to be attached again, then and at every round of canaries until it is.
    pub fn handle_links(&mut self, now: Timestamp, links: &[(&'static str, bool)]) {
        let mut is_news = false;
        for &(program, is_attached) in links {
            if is_attached {
                self.coverage.set_in_place(now, program);
            } else if self.coverage.set_detached(program) {
                is_news = true;
                self.canaries.distrust(program, self.coverage.last_good(program));
                self.outbox.request(Request::Reattach(program));
            }
        }
        if is_news {
            self.report_coverage(now, true);
        }
    }

    /// Takes something that is missing for a cause other than a hook, and stays missing.
    pub fn handle_gap(&mut self, now: Timestamp, gap: Gap) {
        self.coverage.add_gap(gap);
        self.report_coverage(now, false);
    }

    /// Takes what is missing as of a look at something that is looked at again and again: what is not among it any more is
    /// there again, and that is told, too.
    pub fn handle_gaps(&mut self, now: Timestamp, look: Look, gaps: &[Gap]) {
        self.coverage.set_gaps(now, look, gaps);
        self.report_coverage(now, false);
    }

    /// Takes how each table was found that only the sensor writes. One that another program had changed counts as in order
    /// when it is found so again; where it was written again, that is looked at soon.
    pub fn handle_tables(&mut self, now: Timestamp, found: &[(Table, TableState)]) {
        for &(table, state) in found {
            self.coverage.set_table(now, table, state);
            if state == TableState::Repaired {
                self.canaries.hurry();
            }
        }
        self.report_coverage(now, false);
    }

    /// Takes a notice of a round of canaries.
    pub fn handle_canary(&mut self, now: Timestamp, notice: CanaryNotice) {
        let is_attached = |program: &str| self.coverage.is_attached(program);
        self.canaries.notice(now, notice, &self.loss.tallies(self.loss.counters()), is_attached);
        self.report_coverage(now, false);
    }

    /// Whether every canary that could be made has come back at least once, or is known not to.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.canaries.is_settled(|program| self.coverage.is_attached(program))
    }

    /// Whether a record is a canary's.
    pub(super) fn is_canary(&mut self, boot_ns: u64, event: &Event) -> bool {
        let at = self.clock.at(boot_ns);
        let mut revived = false;
        let is_canary = self.canaries.claim(at, event, &mut revived);
        if revived {
            self.report_coverage(at, false);
        }
        is_canary
    }

    /// Whether a record is made only because the port or the socket of the canaries is watched: of whoever uses the same
    /// number in another network namespace, or knocks on ours.
    pub(super) fn is_unwatched(&self, event: &Event) -> bool {
        let socket = match event {
            Event::SocketConnect(event) => Some(event.socket),
            Event::SocketPayload(event) => Some(event.socket),
            _ => None,
        };
        if let Some(socket) = socket {
            return self.canaries.identity().is_own_socket(socket) && self.files.socket(socket).is_none();
        }
        let port = inbound_ends(event).map(|ends| ends.local.port);
        port.is_some_and(|port| self.canaries.identity().port() == Some(port) && !self.is_watched(port))
    }

    fn is_watched(&self, port: u16) -> bool {
        self.ports.binary_search_by_key(&port, |(port, _)| *port).is_ok()
    }

    /// Looks at the canaries; to be called with the latest counters, so that a record that was lost is not held against
    /// its hook.
    pub(super) fn judge_canaries(&mut self, now: Timestamp, counters: &KernelCounters) {
        let judgement = self.canaries.judge(now, self.drained_ns, &self.loss.tallies(counters));
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
    pub(super) fn report_coverage(&mut self, now: Timestamp, with_hooks: bool) {
        self.report_coverage_and(now, with_hooks, None);
    }

    /// The same, with a time of blindness that no state of the coverage tells of.
    fn report_coverage_and(&mut self, now: Timestamp, with_hooks: bool, missed: Option<Blind>) {
        if self.outbox.is_early() {
            return;
        }
        let changed = self.coverage.update(now, &self.canaries);
        if changed.is_none() && !with_hooks {
            return;
        }
        let mut ended = changed.unwrap_or_default().into_iter().chain(missed);
        let hooks = if with_hooks { self.coverage.hooks() } else { Vec::new() };
        let coverage = self.coverage.entries();
        let state = self.covered_state();
        let (blind, audit) = (ended.next(), self.audit_inputs.clone());
        self.outbox.send_health(now, Health { hooks, coverage, blind, audit, ..Health::new(state) });
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

pub(super) fn inbound_ends(event: &Event) -> Option<&Ends> {
    match event {
        Event::Listener(event) => Some(&event.ends),
        Event::Accept(event) => Some(&event.ends),
        Event::Payload(event) => Some(&event.ends),
        Event::Close(event) if event.direction == Direction::Inbound => Some(&event.ends),
        _ => None,
    }
}
