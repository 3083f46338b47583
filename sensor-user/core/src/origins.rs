//! What asked for which container.
//!
//! Owns the joins: an id in the answer to a request proves who had it made, a request under way that names a container
//! proves who had it started. The first answer that gives an id counts: nobody can know the id before that.

use std::sync::Arc;

use crate::bounded::Bounded;
use crate::fact::{Origin, OriginClass};
use crate::ids::{ConnId, RecordId};

/// Most ids that were given; the one used longest ago goes first.
pub(crate) const MADE_MAX: usize = 8192;
/// Most containers whose start is asked for and not answered.
pub(crate) const STARTING_MAX: usize = 4096;
/// Most connections that ask for the same start at a time.
const RIVALS_MAX: usize = 4;

/// Digits of an id in its short form.
const SHORT_ID: usize = 12;

/// The table.
#[derive(Debug)]
pub(crate) struct Origins {
    /// By the id of a container or an exec.
    made: Bounded<Arc<str>, Origin>,
    /// Connections that ask for the start of a container, by how the request names it.
    starting: Bounded<Arc<str>, Vec<Starter>>,
}

/// A connection that asks for a start.
#[derive(Debug)]
struct Starter {
    origin: Origin,
    /// It was told that this has started the container, whose first program may come after that all the same.
    succeeded: bool,
}

impl Default for Origins {
    fn default() -> Self {
        Self { made: Bounded::new(MADE_MAX), starting: Bounded::new(STARTING_MAX) }
    }
}

impl Origins {
    /// An answer gave this id; `exact` when it is certain whose answer it was.
    pub(crate) fn made(&mut self, id: Arc<str>, conn: ConnId, request: Option<RecordId>, exact: bool) {
        if !self.made.contains(&id) {
            self.made.insert(id, Origin::of_conn(class_of(exact), conn, request));
        }
    }

    /// A connection asks for the start of a container.
    pub(crate) fn starts(&mut self, reference: Arc<str>, conn: ConnId, exact: bool) {
        let origin = Origin::of_conn(class_of(exact), conn, None);
        let starter = Starter { origin, succeeded: false };
        match self.starting.get_mut(&reference) {
            Some(rivals) => {
                let is_new =
                    rivals.iter().all(|rival| !rival.succeeded && rival.origin.conn != starter.origin.conn);
                if is_new && rivals.len() < RIVALS_MAX {
                    rivals.push(starter);
                }
            }
            None => {
                self.starting.insert(reference, vec![starter]);
            }
        }
    }

    /// It was answered, or will not be.
    pub(crate) fn start_ended(
        &mut self,
        reference: &str,
        conn: &ConnId,
        request: Option<RecordId>,
        succeeded: bool,
    ) {
        let Some(rivals) = self.starting.get_mut(reference) else { return };
        let is_this = |rival: &Starter| rival.origin.conn.as_ref() == Some(conn);
        if succeeded {
            // Of several only one has started it; what the others are told is that it runs.
            rivals.retain(is_this);
            rivals.iter_mut().for_each(|rival| {
                rival.succeeded = true;
                rival.origin.request.clone_from(&request);
            });
        } else {
            rivals.retain(|rival| !is_this(rival));
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
    pub(crate) fn of_container(&self, id: &str, name: Option<&str>) -> Origin {
        match self.of_made(id) {
            Origin { class: OriginClass::None, .. } => self.of_start(id, name),
            made => made,
        }
    }

    /// Who had a container started, which has happened: whoever asks for it, else who had it made. When several ask, it is
    /// one of them.
    pub(crate) fn take_start(&mut self, id: &str, name: Option<&str>) -> Origin {
        let origin = self.of_start(id, name);
        for reference in references(id, name) {
            self.starting.remove(reference);
        }
        origin
    }

    fn of_start(&self, id: &str, name: Option<&str>) -> Origin {
        let made = self.of_made(id);
        let rivals: Vec<&Starter> =
            references(id, name).filter_map(|reference| self.starting.peek(reference)).flatten().collect();
        match *rivals {
            [] => made,
            [only] if made.conn == only.origin.conn => made,
            [only] => only.origin.clone(),
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
        assert_eq!(origins.of_start("x", None).conn, Some(conn("a")));
        origins.starts("x".into(), conn("b"), true);
        assert_eq!(origins.of_start("x", None).conn, Some(conn("b")));
        origins.starts("x".into(), conn("c"), true);
        assert_eq!(origins.of_start("x", None), Origin::one_of(vec![conn("b"), conn("c")]));
        origins.start_ended("x", &conn("c"), None, false);
        assert_eq!(origins.of_start("x", None).conn, Some(conn("b")));
        origins.start_ended("x", &conn("b"), None, false);
        assert_eq!(origins.of_start("x", None).conn, Some(conn("a")));
    }

    #[test]
    fn a_start_that_was_answered_before_it_is_seen_is_of_whoever_was_told_so() {
        let mut origins = Origins::default();
        let request = Some(RecordId("r".into()));
        origins.starts("x".into(), conn("b"), true);
        origins.starts("x".into(), conn("c"), true);
        origins.start_ended("x", &conn("b"), request.clone(), true);
        let origin = origins.take_start("x", None);
        assert_eq!((origin.conn, origin.request), (Some(conn("b")), request));
        // The next start is another matter, whenever the second one is answered.
        origins.start_ended("x", &conn("c"), None, true);
        assert_eq!(origins.take_start("x", None), Origin::none());
    }

    #[test]
    fn a_container_is_named_in_several_ways() {
        let id = "0123456789abcdef".repeat(4);
        for reference in [&*id, &id[..12], "web"] {
            let mut origins = Origins::default();
            origins.starts(reference.into(), conn("b"), true);
            assert_eq!(origins.take_start(&id, Some("web")).conn, Some(conn("b")), "{reference}");
            assert_eq!(origins.take_start(&id, Some("web")), Origin::none(), "{reference}");
        }
    }

    #[test]
    fn what_is_not_exact_is_inferred() {
        let mut origins = Origins::default();
        origins.made("x".into(), conn("a"), None, false);
        assert_eq!(origins.of_made("x").class, OriginClass::Inferred);
    }
}
