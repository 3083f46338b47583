//! Rounds of canaries: when one is due, what is owed for it, and what follows when that does not come.

use std::sync::Arc;

use super::identity::Identity;
use super::{Act, CanaryNotice, Sign};
use crate::event::Event;
use crate::health::KernelCounters;
use crate::time::Timestamp;

/// How long after the end of a round its last record may be made: the far end of a connection is served in softirq, which
/// a busy CPU puts off.
const GRACE_NS: u64 = 1_000_000_000;
/// A round that takes longer than this hangs; it takes milliseconds.
const HANG_NS: u64 = 60_000_000_000;
/// A sign that was missed once is asked for again at once; missed so many times in a row, its hook is silent.
const MISSES_MAX: u32 = 2;

/// What is known of one sign.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    /// It is owed for the present round.
    expected: bool,
    /// Records of its kind that were dropped before.
    dropped_before: u64,
    /// When it was seen last.
    seen: Option<Timestamp>,
    /// Times in a row that it was owed and not seen.
    misses: u32,
    /// Since when nothing proves that its hook works; `None` while something does.
    silent: Option<Timestamp>,
}

/// Where the present round is.
#[derive(Clone, Copy, Debug)]
enum Round {
    /// There is none; the next one is due then.
    Idle { due_ns: u64 },
    /// It was asked for, or has begun.
    Running { since_ns: u64 },
    /// Its acts are done.
    Ended { at_ns: u64 },
}

/// What to do after looking at the canaries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// A round is due.
    pub(crate) run: bool,
    /// Programs that do not report what they should, to be attached again.
    pub(crate) silent: Vec<&'static str>,
}

/// The canaries of a run.
#[derive(Debug)]
pub(crate) struct Canaries {
    /// Distance between two rounds; `None`: there are none, as in a replay.
    interval_ns: Option<u64>,
    round: Round,
    /// The next round is wanted at once.
    hurried: bool,
    watches: [Watch; Sign::COUNT],
    /// Acts of the present round that were begun and did not fail, by [`Act`].
    begun: [bool; Act::ALL.len()],
    /// Why an act could not be done the last time, by [`Act`].
    failures: [Option<Arc<str>>; Act::ALL.len()],
    identity: Identity,
}

impl Canaries {
    pub(crate) fn new(interval_ns: Option<u64>) -> Self {
        Self {
            interval_ns,
            round: Round::Idle { due_ns: 0 },
            hurried: false,
            begun: [false; Act::ALL.len()],
            watches: [Watch::default(); Sign::COUNT],
            failures: [const { None }; Act::ALL.len()],
            identity: Identity::default(),
        }
    }

    /// Takes a notice of the shell; `counters` are the latest known. Nothing is owed by a program that is not attached.
    pub(crate) fn notice(
        &mut self,
        now: Timestamp,
        notice: CanaryNotice,
        counters: &KernelCounters,
        is_attached: impl Fn(&str) -> bool,
    ) {
        match notice {
            CanaryNotice::Begins(canary) => {
                let act = canary.act();
                if !matches!(self.round, Round::Running { .. }) {
                    self.round = Round::Running { since_ns: now.boot_ns };
                    self.hurried = false;
                }
                self.begun[act as usize] = true;
                let owed = |sign: &Sign| sign.act() == act && is_attached(sign.program());
                for sign in Sign::ALL.into_iter().filter(owed) {
                    let watch = &mut self.watches[sign as usize];
                    watch.expected = true;
                    watch.dropped_before = sign.dropped(counters);
                }
                self.identity.announce(canary);
            }
            CanaryNotice::Failed(act, reason) => {
                self.begun[act as usize] = false;
                self.failures[act as usize] = Some(reason);
                self.expected_of(act).for_each(|watch| watch.expected = false);
            }
            CanaryNotice::Ended => {
                self.round = Round::Ended { at_ns: now.boot_ns };
                for (begun, failure) in self.begun.iter_mut().zip(&mut self.failures) {
                    if std::mem::take(begun) {
                        *failure = None;
                    }
                }
            }
        }
    }

    fn expected_of(&mut self, act: Act) -> impl Iterator<Item = &mut Watch> {
        let of_act = move |(sign, watch): (Sign, _)| (sign.act() == act).then_some(watch);
        Sign::ALL.into_iter().zip(&mut self.watches).filter_map(of_act)
    }

    /// Returns whether a record is one of the present canary's; `revived` is set when its sign had been missing.
    pub(crate) fn claim(&mut self, at: Timestamp, event: &Event, revived: &mut bool) -> bool {
        let Some(sign) = self.identity.sign_of(event) else { return false };
        let Some(sign) = sign else { return true };
        let watch = &mut self.watches[sign as usize];
        *revived |= watch.silent.is_some() || watch.seen.is_none();
        *watch = Watch { seen: Some(at), ..Watch::default() };
        true
    }

    /// What tells the records of the present canaries.
    pub(crate) const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Looks whether a round is due, and at what is still owed of one that has ended. `drained_ns` is the time up to which
    /// the rings have been read: before that a record is not late but on its way.
    pub(crate) fn judge(&mut self, now: Timestamp, drained_ns: u64, counters: &KernelCounters) -> Judgement {
        let now_ns = now.boot_ns;
        match self.round {
            Round::Idle { due_ns } if self.interval_ns.is_some() && (self.hurried || now_ns >= due_ns) => {
                self.hurried = false;
                self.round = Round::Running { since_ns: now_ns };
                Judgement { run: true, silent: Vec::new() }
            }
            Round::Running { since_ns } if now_ns >= since_ns.saturating_add(HANG_NS) => {
                self.give_up();
                Judgement::default()
            }
            Round::Ended { at_ns } if !self.is_owed() => {
                self.round = Round::Idle { due_ns: at_ns.saturating_add(self.interval_ns.unwrap_or(0)) };
                Judgement::default()
            }
            Round::Ended { at_ns } if now_ns >= at_ns.saturating_add(GRACE_NS) && drained_ns >= at_ns => {
                self.end_round(now, at_ns, counters)
            }
            _ => Judgement::default(),
        }
    }

    fn is_owed(&self) -> bool {
        self.watches.iter().any(|watch| watch.expected)
    }

    fn end_round(&mut self, now: Timestamp, at_ns: u64, counters: &KernelCounters) -> Judgement {
        let mut judgement = Judgement::default();
        let mut again = false;
        for (sign, watch) in Sign::ALL.into_iter().zip(&mut self.watches) {
            if !std::mem::take(&mut watch.expected) {
                continue;
            }
            if sign.dropped(counters) > watch.dropped_before {
                // It was most likely made and dropped, which is reported as loss.
                continue;
            }
            watch.misses += 1;
            if watch.misses < MISSES_MAX {
                again = true;
                continue;
            }
            watch.silent.get_or_insert_with(|| watch.seen.unwrap_or(now));
            // What did not help before is tried again ever more seldom.
            if watch.misses.is_power_of_two() && !judgement.silent.contains(&sign.program()) {
                judgement.silent.push(sign.program());
            }
        }
        let pause = if again { 0 } else { self.interval_ns.unwrap_or(0) };
        self.round = Round::Idle { due_ns: at_ns.saturating_add(pause) };
        judgement
    }

    /// Expects nothing more of a round that hangs.
    fn give_up(&mut self) {
        for act in Act::ALL {
            let owed = self.expected_of(act).any(|watch| std::mem::take(&mut watch.expected));
            if owed {
                self.failures[act as usize] = Some(Arc::from("the canary hangs"));
            }
        }
    }

    /// Wants a round as soon as there is none under way.
    pub(crate) const fn hurry(&mut self) {
        self.hurried = true;
    }

    /// Since when nothing proves that the hook behind a sign works.
    pub(crate) fn silent_since(&self, sign: Sign) -> Option<Timestamp> {
        self.watches[sign as usize].silent
    }

    /// Why the act of a sign could not be done; `None` when it could, or when there are no canaries at all.
    pub(crate) fn failure(&self, sign: Sign) -> Option<&str> {
        self.interval_ns?;
        self.failures[sign.act() as usize].as_deref()
    }

    /// Whether a sign was never seen although nothing is known to keep its act from being done.
    pub(crate) fn is_unproved(&self, sign: Sign) -> bool {
        self.interval_ns.is_some()
            && self.watches[sign as usize].seen.is_none()
            && self.failures[sign.act() as usize].is_none()
    }

    /// Whether every sign was seen at least once that could be: its act could be done, and its program is in place.
    pub(crate) fn is_proved(&self, is_attached: impl Fn(&str) -> bool) -> bool {
        Sign::ALL.into_iter().all(|sign| !self.is_unproved(sign) || !is_attached(sign.program()))
    }
}
