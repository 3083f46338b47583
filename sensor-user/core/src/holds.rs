//! Container records that wait for their metadata, and queries that will be asked again.
//!
//! Owns deadlines only. Everything here is due at a boot-clock time and goes in that order.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::fact::{Container, ContainerAction, K8s, Process};
use crate::time::Timestamp;

/// Most records that wait; more go out early, without metadata.
const HELD_MAX: usize = 1024;
/// Most queries that will be repeated; the one due first is given up for a further one.
const QUERIES_MAX: usize = 4096;
/// Pauses before a query is repeated: the runtime writes some of its state after the cgroup is made.
const PAUSES_NS: [u64; 4] = [20_000_000, 200_000_000, 1_000_000_000, 5_000_000_000];

/// A container record that waits.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) id: Arc<str>,
    pub(crate) at: Timestamp,
    pub(crate) action: ContainerAction,
    pub(crate) process: Option<Arc<Process>>,
    /// What was known of the container when the record was made; printed if it is forgotten meanwhile.
    pub(crate) container: Arc<Container>,
    pub(crate) k8s: Option<Arc<K8s>>,
}

/// A query that will be repeated.
#[derive(Clone, Debug)]
struct Query {
    id: Arc<str>,
    repeated: usize,
}

/// Both queues. Keys are (due, order of arrival).
#[derive(Debug, Default)]
pub(crate) struct Holds {
    held: BTreeMap<(u64, u64), Held>,
    queries: BTreeMap<(u64, u64), Query>,
    arrivals: u64,
    abandoned: u64,
}

impl Holds {
    /// Holds a record; returns one that must go now because too many wait.
    pub(crate) fn hold(&mut self, due_ns: u64, held: Held) -> Option<Held> {
        let key = self.key(due_ns);
        self.held.insert(key, held);
        (self.held.len() > HELD_MAX).then(|| self.held.pop_first()).flatten().map(|(_, held)| held)
    }

    /// Takes a record whose time has come.
    pub(crate) fn take_due(&mut self, now_ns: u64) -> Option<Held> {
        let first = self.held.first_entry()?;
        (first.key().0 <= now_ns).then(|| first.remove())
    }

    /// Takes the records of one container, in order.
    pub(crate) fn take_of(&mut self, id: &str) -> Vec<Held> {
        let keys: Vec<_> =
            self.held.iter().filter(|(_, held)| *held.id == *id).map(|(key, _)| *key).collect();
        keys.iter().filter_map(|key| self.held.remove(key)).collect()
    }

    /// Asks to be reminded of a query that was just made.
    pub(crate) fn query_again(&mut self, now_ns: u64, id: Arc<str>) {
        self.schedule(now_ns, Query { id, repeated: 0 });
    }

    /// Takes the container of a query whose time has come, and schedules it anew as often as it is worth it.
    pub(crate) fn take_due_query(&mut self, now_ns: u64) -> Option<Arc<str>> {
        let first = self.queries.first_entry()?;
        if first.key().0 > now_ns {
            return None;
        }
        let query = first.remove();
        self.schedule(now_ns, Query { id: query.id.clone(), repeated: query.repeated + 1 });
        Some(query.id)
    }

    /// No need to ask for this container again.
    pub(crate) fn answered(&mut self, id: &str) {
        self.queries.retain(|_, query| *query.id != *id);
    }

    /// When the next thing is due.
    pub(crate) fn next_due(&self) -> Option<u64> {
        let held = self.held.first_key_value().map(|(key, _)| key.0);
        let query = self.queries.first_key_value().map(|(key, _)| key.0);
        [held, query].into_iter().flatten().min()
    }

    /// Queries given up because too many were open.
    pub(crate) fn evicted(&self) -> u64 {
        self.abandoned
    }

    fn schedule(&mut self, now_ns: u64, query: Query) {
        let Some(pause) = PAUSES_NS.get(query.repeated) else { return };
        if self.queries.len() >= QUERIES_MAX {
            self.queries.pop_first();
            self.abandoned += 1;
        }
        let key = self.key(now_ns.saturating_add(*pause));
        self.queries.insert(key, query);
    }

    fn key(&mut self, due_ns: u64) -> (u64, u64) {
        self.arrivals += 1;
        (due_ns, self.arrivals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::Runtime;

    fn held(id: &str) -> Held {
        let id: Arc<str> = id.into();
        let container = Container {
            id: id.clone(),
            runtime: Runtime::Runc,
            name: None,
            image: None,
            created: None,
            cgroup: None,
        };
        Held {
            id,
            at: Timestamp::default(),
            action: ContainerAction::Created,
            process: None,
            container: Arc::new(container),
            k8s: None,
        }
    }

    #[test]
    fn records_go_in_the_order_they_are_due() {
        let mut holds = Holds::default();
        assert!(holds.hold(30, held("late")).is_none());
        assert!(holds.hold(10, held("soon")).is_none());
        assert_eq!(holds.next_due(), Some(10));
        assert!(holds.take_due(9).is_none());
        assert_eq!(&*holds.take_due(30).expect("due").id, "soon");
        assert_eq!(&*holds.take_due(30).expect("due").id, "late");
        assert!(holds.take_due(u64::MAX).is_none());
    }

    #[test]
    fn too_many_records_push_out_the_one_due_first() {
        let mut holds = Holds::default();
        for due in 0..HELD_MAX as u64 {
            assert!(holds.hold(due, held(&due.to_string())).is_none());
        }
        assert_eq!(&*holds.hold(u64::MAX, held("last")).expect("over the bound").id, "0");
    }

    #[test]
    fn query_is_repeated_with_growing_pauses_and_then_given_up() {
        let mut holds = Holds::default();
        holds.query_again(0, "a".into());
        let mut now = 0;
        let mut repeats = 0;
        while let Some(due) = holds.next_due() {
            assert!(due > now);
            now = due;
            assert_eq!(holds.take_due_query(now).as_deref(), Some("a"));
            repeats += 1;
        }
        assert_eq!(repeats, PAUSES_NS.len());
    }

    #[test]
    fn answered_query_is_not_repeated() {
        let mut holds = Holds::default();
        holds.query_again(0, "a".into());
        holds.query_again(0, "b".into());
        holds.answered("a");
        assert_eq!(holds.take_due_query(u64::MAX).as_deref(), Some("b"));
    }
}
