//! What asked for which container.
//!
//! Owns the joins: an id in the answer to a request proves who had it made, a request under way that names a container
//! proves who had it started. The first answer that gives an id counts: nobody can know the id before that.

use std::sync::Arc;

use crate::bounded::Bounded;
use crate::fact::{Origin, OriginClass};
use crate::ids::{ConnId, RecordId};
use crate::state::kept::{Keep, Kept};
use crate::state::{STATE_BYTES, Table};
use crate::time::Timestamp;

/// Most ids that were given; the one used longest ago goes first.
pub(crate) const MADE_MAX: usize = 8192;
/// Most containers whose start is asked for and not answered.
pub(crate) const STARTING_MAX: usize = 4096;
/// Most connections that ask for the same start at a time.
const RIVALS_MAX: usize = 4;
/// How long a daemon may work on a request after its client has gone, nanoseconds.
pub(crate) const LINGER_NS: u64 = 10_000_000_000;

/// Digits of an id in its short form.
const SHORT_ID: usize = 12;

/// The table.
#[derive(Debug)]
pub(crate) struct Origins {
    /// By the id of a container or an exec.
    made: Kept<Arc<str>, Origin>,
    /// Connections that ask for the start of a container, by how the request names it.
    starting: Bounded<Arc<str>, Vec<Starter>>,
}

/// A connection that asks for a start.
#[derive(Debug)]
struct Starter {
    origin: Origin,
    state: StartState,
}

/// How far that request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartState {
    /// It waits for its answer.
    Asking,
    /// It was told that this has started the container, whose first program may come after that all the same.
    Succeeded,
    /// Nobody knows what it was told, since this time of the boot clock: the daemon may still be working on it.
    Unread(u64),
}

/// What became of a request for a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartOutcome {
    /// Its answer says that it has started the container.
    Started,
    /// Its answer says that it has not.
    Refused,
    /// No answer was read that is certain to be its own.
    Unread,
}

impl Starter {
    fn is_of(&self, conn: &ConnId) -> bool {
        self.origin.conn.as_ref() == Some(conn)
    }

    /// Whether it may be what starts a container now.
    fn counts(&self, at: Timestamp) -> bool {
        match self.state {
            StartState::Asking | StartState::Succeeded => true,
            StartState::Unread(since_ns) => at.boot_ns.saturating_sub(since_ns) <= LINGER_NS,
        }
    }

    /// The cause of a start that nobody else asks for.
    fn alone(&self) -> Origin {
        let class = match self.state {
            StartState::Asking | StartState::Succeeded => self.origin.class,
            StartState::Unread(_) => OriginClass::Inferred,
        };
        Origin { class, ..self.origin.clone() }
    }
}

impl Default for Origins {
    fn default() -> Self {
        Self { made: Kept::new(Table::Origins, MADE_MAX, STATE_BYTES), starting: Bounded::new(STARTING_MAX) }
    }
}

impl Origins {
    /// An answer gave this id; `exact` when it is certain whose answer it was.
    pub(crate) fn made(&mut self, id: Arc<str>, conn: ConnId, request: Option<RecordId>, exact: bool) {
        if !self.made.contains(&id) {
            self.made.insert(id, Origin::of_conn(class_of(exact), conn, request));
            self.made.shrink();
        }
    }

    /// A connection asks for the start of a container.
    pub(crate) fn starts(&mut self, at: Timestamp, reference: Arc<str>, conn: ConnId, exact: bool) {
        let origin = Origin::of_conn(class_of(exact), conn.clone(), None);
        let starter = Starter { origin, state: StartState::Asking };
        let Some(rivals) = self.starting.get_mut(&reference) else {
            self.starting.insert(reference, vec![starter]);
            return;
        };
        rivals.retain(|rival| rival.counts(at));
        // Whoever asks again may have the answer read this time.
        rivals.retain(|rival| !rival.is_of(&conn) || !matches!(rival.state, StartState::Unread(_)));
        let is_entered = rivals.iter().any(|rival| rival.is_of(&conn));
        let is_over = rivals.iter().any(|rival| rival.state == StartState::Succeeded);
        if !is_entered && !is_over && rivals.len() < RIVALS_MAX {
            rivals.push(starter);
        }
    }

    /// It was answered, or will not be.
    pub(crate) fn start_ended(
        &mut self,
        at: Timestamp,
        reference: &str,
        conn: &ConnId,
        request: Option<RecordId>,
        outcome: StartOutcome,
    ) {
        let Some(rivals) = self.starting.get_mut(reference) else { return };
        match outcome {
            // Of several only one has started it; what the others are told is that it runs.
            StartOutcome::Started => rivals.retain(|rival| rival.is_of(conn)),
            StartOutcome::Refused => rivals.retain(|rival| !rival.is_of(conn)),
            StartOutcome::Unread => {}
        }
        for rival in rivals.iter_mut().filter(|rival| rival.is_of(conn)) {
            rival.origin.request.clone_from(&request);
            rival.state = match outcome {
                StartOutcome::Started => StartState::Succeeded,
                StartOutcome::Refused | StartOutcome::Unread => StartState::Unread(at.boot_ns),
            };
        }
        if rivals.is_empty() {
            self.starting.remove(reference);
        }
    }

    /// Who had a container, or an exec, made.
    pub(crate) fn of_made(&self, id: &str) -> Origin {
        self.made.peek(id).cloned().unwrap_or_else(Origin::none)
    }

    /// Who had a container made, as far as is known, else who has it started: some runtimes make nothing before that.
    pub(crate) fn of_container(&self, at: Timestamp, id: &str, name: Option<&str>) -> Origin {
        match self.of_made(id) {
            Origin { class: OriginClass::None, .. } => self.of_start(at, id, name),
            made => made,
        }
    }

    /// Who had a container started, which has happened: whoever asks for it, else who had it made. When several ask, it is
    /// one of them.
    pub(crate) fn take_start(&mut self, at: Timestamp, id: &str, name: Option<&str>) -> Origin {
        let origin = self.of_start(at, id, name);
        for reference in references(id, name) {
            self.starting.remove(reference);
        }
        origin
    }

    fn of_start(&self, at: Timestamp, id: &str, name: Option<&str>) -> Origin {
        let made = self.of_made(id);
        let asked = references(id, name).filter_map(|reference| self.starting.peek(reference)).flatten();
        let rivals: Vec<&Starter> = asked.filter(|rival| rival.counts(at)).collect();
        match *rivals {
            [] => made,
            [only] if made.conn == only.origin.conn => made,
            [only] => only.alone(),
            _ => Origin::one_of(conns_of(&rivals)),
        }
    }

    /// A container has stopped: whatever starts it again was asked for anew.
    pub(crate) fn forget(&mut self, id: &str, name: Option<&str>) {
        self.made.remove(id);
        for reference in references(id, name) {
            self.starting.remove(reference);
        }
    }

    /// What of it is kept: who had what made. Who asks for a start is answered within seconds.
    pub(crate) fn table(&mut self) -> &mut dyn Keep {
        &mut self.made
    }

    /// Takes what an earlier run has left. Returns how much of it could not be read.
    pub(crate) fn restore(&mut self, made: &[&[u8]]) -> u64 {
        self.made.restore(made, |_, _| Ok(()))
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.made.evicted() + self.starting.evicted()
    }
}

/// Each connection once, in order.
fn conns_of(rivals: &[&Starter]) -> Vec<ConnId> {
    let mut conns: Vec<ConnId> = Vec::new();
    for conn in rivals.iter().filter_map(|rival| rival.origin.conn.as_ref()) {
        if !conns.contains(conn) {
            conns.push(conn.clone());
        }
    }
    conns
}

/// How requests name a container: by its id, by the short form that everybody is shown, by its name. Shorter beginnings of
/// an id are anybody's.
fn references<'a>(id: &'a str, name: Option<&'a str>) -> impl Iterator<Item = &'a str> {
    [Some(id), id.get(..SHORT_ID), name].into_iter().flatten()
}

/// Whose answer or request it is may be certain, or concluded from the turns of the connection.
const fn class_of(exact: bool) -> OriginClass {
    if exact { OriginClass::Proved } else { OriginClass::Inferred }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(name: &str) -> ConnId {
        ConnId(name.into())
    }

    fn at(boot_ns: u64) -> Timestamp {
        Timestamp { boot_ns, ..Timestamp::default() }
    }

    #[test]
    fn the_first_answer_counts() {
        let mut origins = Origins::default();
        origins.made("x".into(), conn("a"), None, true);
        origins.made("x".into(), conn("b"), None, true);
        assert_eq!(origins.of_made("x").conn, Some(conn("a")));
        origins.forget("x", None);
        assert_eq!(origins.of_made("x"), Origin::none());
    }

    #[test]
    fn a_start_is_of_the_only_one_who_asks_for_it() {
        let mut origins = Origins::default();
        origins.made("x".into(), conn("a"), None, true);
        assert_eq!(origins.of_start(at(0), "x", None).conn, Some(conn("a")));
        origins.starts(at(0), "x".into(), conn("b"), true);
        assert_eq!(origins.of_start(at(0), "x", None).conn, Some(conn("b")));
        origins.starts(at(0), "x".into(), conn("c"), true);
        assert_eq!(origins.of_start(at(0), "x", None), Origin::one_of(vec![conn("b"), conn("c")]));
        origins.start_ended(at(0), "x", &conn("c"), None, StartOutcome::Refused);
        assert_eq!(origins.of_start(at(0), "x", None).conn, Some(conn("b")));
        origins.start_ended(at(0), "x", &conn("b"), None, StartOutcome::Refused);
        assert_eq!(origins.of_start(at(0), "x", None).conn, Some(conn("a")));
    }

    #[test]
    fn a_start_that_was_answered_before_it_is_seen_is_of_whoever_was_told_so() {
        let mut origins = Origins::default();
        let request = Some(RecordId("r".into()));
        origins.starts(at(0), "x".into(), conn("b"), true);
        origins.starts(at(0), "x".into(), conn("c"), true);
        origins.start_ended(at(0), "x", &conn("b"), request.clone(), StartOutcome::Started);
        let origin = origins.take_start(at(0), "x", None);
        assert_eq!((origin.conn, origin.request), (Some(conn("b")), request));
        // The next start is another matter, whenever the second one is answered.
        origins.start_ended(at(0), "x", &conn("c"), None, StartOutcome::Started);
        assert_eq!(origins.take_start(at(0), "x", None), Origin::none());
    }

    #[test]
    fn whoever_was_not_heard_to_fail_stays_a_candidate() {
        let mut origins = Origins::default();
        origins.starts(at(0), "x".into(), conn("b"), true);
        origins.start_ended(at(1), "x", &conn("b"), None, StartOutcome::Unread);
        let alone = origins.of_start(at(1), "x", None);
        assert_eq!((alone.class, alone.conn), (OriginClass::Inferred, Some(conn("b"))));
        origins.starts(at(2), "x".into(), conn("c"), true);
        let rivals = Origin::one_of(vec![conn("b"), conn("c")]);
        assert_eq!(origins.of_start(at(2), "x", None), rivals);
        // No daemon works that long for a client that has gone.
        let later = origins.of_start(at(LINGER_NS + 2), "x", None);
        assert_eq!((later.class, later.conn), (OriginClass::Proved, Some(conn("c"))));
        // Whoever is told that he has started it has.
        origins.start_ended(at(3), "x", &conn("c"), None, StartOutcome::Started);
        assert_eq!(origins.of_start(at(3), "x", None).conn, Some(conn("c")));
    }

    #[test]
    fn whoever_asks_again_counts_again() {
        let mut origins = Origins::default();
        origins.starts(at(0), "x".into(), conn("b"), true);
        origins.start_ended(at(0), "x", &conn("b"), None, StartOutcome::Unread);
        origins.starts(at(LINGER_NS), "x".into(), conn("b"), false);
        let origin = origins.of_start(at(2 * LINGER_NS), "x", None);
        assert_eq!((origin.class, origin.conn), (OriginClass::Inferred, Some(conn("b"))));
    }

    #[test]
    fn a_container_is_named_in_several_ways() {
        let id = "0123456789abcdef".repeat(4);
        for reference in [&*id, &id[..12], "web"] {
            let mut origins = Origins::default();
            origins.starts(at(0), reference.into(), conn("b"), true);
            assert_eq!(origins.take_start(at(0), &id, Some("web")).conn, Some(conn("b")), "{reference}");
            assert_eq!(origins.take_start(at(0), &id, Some("web")), Origin::none(), "{reference}");
        }
    }

    #[test]
    fn what_is_not_exact_is_inferred() {
        let mut origins = Origins::default();
        origins.made("x".into(), conn("a"), None, false);
        assert_eq!(origins.of_made("x").class, OriginClass::Inferred);
    }
}
