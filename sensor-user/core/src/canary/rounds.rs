//! Rounds of canaries: when one is due, what is owed for it, and what follows when that does not come.

use std::sync::Arc;

use sensor_common::flood::{Port, PortKey};

use super::identity::Identity;
use super::{Act, CanaryNotice, Sign, Tallies};
use crate::event::Event;
use crate::time::Timestamp;

/// What keeps the end of a connection, and the result of a connect, from being reported.
const TABLE_FULL: &str = "the table of connections is full";
/// How long after the end of a round its last record may be made: the far end of a connection is served in softirq, which
/// a busy CPU puts off.
const GRACE_NS: u64 = 1_000_000_000;
/// A round that takes longer than this hangs; it takes milliseconds, and what is known to hold it up is given up sooner.
const HANG_NS: u64 = 20_000_000_000;
/// A sign that was missed once is asked for again at once; missed so many times in a row, its hook is silent.
const MISSES_MAX: u32 = 2;
/// A sign that was not seen for so many intervals no longer proves anything, whatever the cause.
const STALE_INTERVALS: u64 = 3;
/// Most time that one look at the canaries counts for: while the sensor was stopped or the machine asleep, nothing could
/// come back.
const LOOK_MAX_NS: u64 = 1_000_000_000;

/// What is known of one sign.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    /// The program by which it is owed for the present round.
    expected: Option<&'static str>,
    /// It was seen for the present round.
    fresh: bool,
    /// Records of its kind that were dropped before.
    dropped_before: u64,
    /// Connections that did not find room in the table before, see [`TABLE_FULL`].
    untracked_before: u64,
    /// Some did not in the last round, in which it was owed and not seen.
    untracked: bool,
    /// When it was owed for the first time; `None` once it was seen.
    owed: Option<Timestamp>,
    /// When it was seen last.
    seen: Option<Timestamp>,
    /// [`Canaries::watched_ns`] at that moment.
    seen_at_ns: u64,
    /// Times in a row that it was owed and not seen.
    misses: u32,
    /// Since when nothing proves that its hook works; `None` while something does.
    silent: Option<Timestamp>,
}

/// How a sign stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing<'a> {
    /// It was seen lately, or there are no canaries at all.
    Proved,
    /// Its act cannot be done, now or from the start: its hook is taken at its word.
    Untested {
        /// Why.
        reason: &'a str,
    },
    /// It was never seen, and nothing is known to keep its act from being done.
    Unproved,
    /// It was seen, and that is too long ago.
    Stale {
        /// When.
        since: Timestamp,
        /// What is known to be in the way.
        obstacle: Option<&'a str>,
    },
    /// It does not come back although its act is done.
    Silent {
        /// The last moment at which it did, or its hook was in place.
        since: Timestamp,
        /// Its hook was lost and attached again, and was not heard of since.
        anew: bool,
    },
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
    /// Time for which the canaries were looked at, which is less than has passed.
    watched_ns: u64,
    /// When they were looked at last.
    looked_ns: Option<u64>,
    /// The rings have not been read as far as the end of the round.
    undrained: bool,
    /// Attempts that were counted at the port of the canaries, by anybody.
    attempts: u64,
    /// Up to when they were.
    counted_ns: u64,
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
            watched_ns: 0,
            looked_ns: None,
            undrained: false,
            attempts: 0,
            counted_ns: 0,
            failures: [const { None }; Act::ALL.len()],
            identity: Identity::default(),
        }
    }

    /// Takes a notice of the shell; `tallies` are the latest known. Nothing is owed by a program that is not attached.
    pub(crate) fn notice(
        &mut self,
        now: Timestamp,
        notice: CanaryNotice,
        tallies: &Tallies<'_>,
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
                self.watches_of(act).for_each(|watch| watch.fresh = false);
                for sign in Sign::ALL.into_iter().filter(|sign| sign.act() == act) {
                    let attached = sign.programs().iter().find(|program| is_attached(program));
                    let Some(program) = attached else { continue };
                    let watch = &mut self.watches[sign as usize];
                    watch.expected = Some(program);
                    if watch.seen.is_none() {
                        watch.owed.get_or_insert(now);
                    }
                    watch.dropped_before = sign.dropped(tallies);
                    watch.untracked_before = sign.untracked(tallies);
                }
                self.identity.announce(canary);
            }
            CanaryNotice::Failed(act, reason) => {
                self.begun[act as usize] = false;
                self.failures[act as usize] = Some(reason);
                self.watches_of(act).for_each(|watch| watch.expected = None);
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

    fn watches_of(&mut self, act: Act) -> impl Iterator<Item = &mut Watch> {
        let of_act = move |(sign, watch): (Sign, _)| (sign.act() == act).then_some(watch);
        Sign::ALL.into_iter().zip(&mut self.watches).filter_map(of_act)
    }

    /// Returns whether a record is one of the present canary's; `revived` is set when its sign proves something anew.
    pub(crate) fn claim(&mut self, at: Timestamp, event: &Event, revived: &mut bool) -> bool {
        let Some(sign) = self.identity.sign_of(event) else { return false };
        let Some(sign) = sign else { return true };
        *revived |= self.see(at, sign);
        true
    }

    /// Takes how many attempts were counted at each port, in the order of its key, some time after `at`. Those at the port of the
    /// canaries prove that they are, whosever they were. Returns whether that is news.
    pub(crate) fn count_attempts(&mut self, at: Timestamp, ports: &[(PortKey, Port)]) -> bool {
        let Some(places) = self.identity.places() else { return false };
        let found = places.map(|place| ports.binary_search_by_key(&place, |(place, _)| *place));
        let attempts = found.into_iter().flatten().map(|index| ports[index].1.counts.attempts).sum();
        self.counted_ns = at.boot_ns;
        let more = attempts > std::mem::replace(&mut self.attempts, attempts);
        more && self.see(at, Sign::Attempt)
    }

    /// Takes that a sign was seen; returns whether it proves something anew.
    fn see(&mut self, at: Timestamp, sign: Sign) -> bool {
        let is_news = self.standing(sign) != Standing::Proved;
        self.watches[sign as usize] =
            Watch { fresh: true, seen: Some(at), seen_at_ns: self.watched_ns, ..Watch::default() };
        is_news
    }

    /// What tells the records of the present canaries.
    pub(crate) const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Looks whether a round is due, and at what is still owed of one that has ended. `drained_ns` is the time up to which
    /// the rings have been read: before that a record is not late but on its way.
    pub(crate) fn judge(&mut self, now: Timestamp, drained_ns: u64, tallies: &Tallies<'_>) -> Judgement {
        let now_ns = now.boot_ns;
        let looked_ns = self.looked_ns.replace(now_ns).unwrap_or(now_ns);
        self.watched_ns += now_ns.saturating_sub(looked_ns).min(LOOK_MAX_NS);
        self.undrained = matches!(self.round, Round::Ended { at_ns } if drained_ns < at_ns);
        match self.round {
            Round::Idle { due_ns } if self.interval_ns.is_some() && (self.hurried || now_ns >= due_ns) => {
                self.hurried = false;
                self.ask(now_ns)
            }
            Round::Running { since_ns } if now_ns >= since_ns.saturating_add(HANG_NS) => {
                self.give_up();
                // Once more: whoever does not do it any more is found out by that.
                self.ask(now_ns)
            }
            Round::Ended { at_ns } if !self.is_owed() => {
                self.round = Round::Idle { due_ns: at_ns.saturating_add(self.interval_ns.unwrap_or(0)) };
                Judgement::default()
            }
            Round::Ended { at_ns } if now_ns >= at_ns.saturating_add(GRACE_NS) && !self.undrained => {
                self.end_round(at_ns, tallies)
            }
            _ => Judgement::default(),
        }
    }

    const fn ask(&mut self, now_ns: u64) -> Judgement {
        self.round = Round::Running { since_ns: now_ns };
        Judgement { run: true, silent: Vec::new() }
    }

    fn is_owed(&self) -> bool {
        self.watches.iter().any(|watch| watch.expected.is_some())
    }

    fn end_round(&mut self, at_ns: u64, tallies: &Tallies<'_>) -> Judgement {
        let mut judgement = Judgement::default();
        let mut again = false;
        for sign in Sign::ALL {
            let can_be_told = self.can_be_told(sign, at_ns);
            let watch = &mut self.watches[sign as usize];
            let Some(program) = watch.expected.take() else { continue };
            // One that was dropped was most likely made, and is reported as loss; one of a connection that the probes could not
            // enter in their table is not made at all. Of one that is told by others, nothing is known without these.
            watch.untracked = sign.untracked(tallies) > watch.untracked_before;
            if sign.dropped(tallies) > watch.dropped_before || watch.untracked || !can_be_told {
                continue;
            }
            watch.misses += 1;
            if watch.misses < MISSES_MAX {
                again = true;
                continue;
            }
            watch.silent = watch.silent.or(watch.seen).or(watch.owed);
            // What did not help before is tried again ever more seldom.
            if watch.misses.is_power_of_two() && !judgement.silent.contains(&program) {
                judgement.silent.push(program);
            }
        }
        let pause = if again { 0 } else { self.interval_ns.unwrap_or(0) };
        self.round = Round::Idle { due_ns: at_ns.saturating_add(pause) };
        judgement
    }

    /// Whether a sign can be told from what others do, given those that came before it in this round, and was looked for since
    /// that ended.
    fn can_be_told(&self, sign: Sign, ended_ns: u64) -> bool {
        let is_fresh = |sign: Sign| self.watches[sign as usize].fresh;
        match sign {
            Sign::CgroupRemoved => is_fresh(Sign::CgroupMade),
            Sign::Exit => is_fresh(Sign::Fork) || is_fresh(Sign::Exec),
            Sign::Attempt => self.counted_ns >= ended_ns,
            // Without the accept nobody knows whose connection it is.
            Sign::AcceptTask => is_fresh(Sign::Accept) && self.identity.knows_itself(),
            Sign::Fork
            | Sign::CgroupMade
            | Sign::SocketConnect
            | Sign::SocketRequest
            | Sign::SocketAnswer
            | Sign::FileOpen => self.identity.knows_itself(),
            _ => true,
        }
    }

    /// Expects nothing more of a round that hangs.
    fn give_up(&mut self) {
        for act in Act::ALL {
            self.watches_of(act).for_each(|watch| watch.expected = None);
            if std::mem::take(&mut self.begun[act as usize]) {
                self.failures[act as usize] = Some(Arc::from("the canary hangs"));
            }
        }
    }

    /// Takes that the program behind some signs was lost, and the last moment at which it was known to be in place: the
    /// hook counts as working again when it is heard of again, not when it is attached again.
    pub(crate) fn distrust(&mut self, program: &str, good: Option<Timestamp>) {
        for sign in Sign::ALL.into_iter().filter(|sign| sign.is_made_by(program)) {
            let watch = &mut self.watches[sign as usize];
            watch.misses = 0;
            watch.silent = watch.silent.or(watch.seen.max(good));
        }
    }

    /// Takes that a program rests: it owes nothing meanwhile, and what it missed before is not held against it.
    pub(crate) fn rest(&mut self, program: &str) {
        for sign in Sign::ALL.into_iter().filter(|sign| sign.is_made_by(program)) {
            let watch = &mut self.watches[sign as usize];
            (watch.expected, watch.misses) = (None, 0);
        }
    }

    /// Takes that a program is attached again that rested: the time in which it could not prove anything does not count.
    pub(crate) fn wake(&mut self, program: &str) {
        for sign in Sign::ALL.into_iter().filter(|sign| sign.is_made_by(program)) {
            self.watches[sign as usize].seen_at_ns = self.watched_ns;
        }
    }

    /// Wants a round as soon as there is none under way.
    pub(crate) const fn hurry(&mut self) {
        self.hurried = true;
    }

    /// When a sign of a program was seen last.
    pub(crate) fn last_seen(&self, program: &str) -> Option<Timestamp> {
        let signs = Sign::ALL.into_iter().filter(|sign| sign.is_made_by(program));
        signs.filter_map(|sign| self.watches[sign as usize].seen).max()
    }

    /// How a sign stands whose program is in place.
    pub(crate) fn standing(&self, sign: Sign) -> Standing<'_> {
        let Some(interval_ns) = self.interval_ns else { return Standing::Proved };
        let watch = &self.watches[sign as usize];
        let failure = self.failures[sign.act() as usize].as_deref();
        let anew = watch.misses < MISSES_MAX;
        match (watch.silent, watch.seen, failure) {
            // Without its act the hook cannot be heard of again.
            (Some(since), _, failure) if !(anew && failure.is_some()) => Standing::Silent { since, anew },
            (_, Some(since), failure) if self.is_stale(watch, interval_ns) => {
                let full = watch.untracked.then_some(TABLE_FULL);
                Standing::Stale { since, obstacle: failure.or(full).or_else(|| self.obstacle()) }
            }
            (_, _, Some(reason)) => Standing::Untested { reason },
            (_, None, None) => Standing::Unproved,
            (_, Some(_), None) => Standing::Proved,
        }
    }

    const fn is_stale(&self, watch: &Watch, interval_ns: u64) -> bool {
        let limit_ns = interval_ns.saturating_mul(STALE_INTERVALS).saturating_add(GRACE_NS);
        self.watched_ns.saturating_sub(watch.seen_at_ns) > limit_ns
    }

    /// What is known to keep rounds from coming to their end.
    const fn obstacle(&self) -> Option<&'static str> {
        match self.round {
            Round::Running { .. } => Some("a round of canaries has not ended"),
            Round::Ended { .. } if self.undrained => Some("the rings are not read to their end"),
            _ => None,
        }
    }

    /// Whether every sign has been seen or found missing that could be: its act could be done, and its program is in place.
    pub(crate) fn is_settled(&self, is_attached: impl Fn(&str) -> bool) -> bool {
        let is_open = |sign: &Sign| {
            self.standing(*sign) == Standing::Unproved
                && sign.programs().iter().any(|program| is_attached(program))
        };
        !Sign::ALL.iter().any(is_open)
    }
}
