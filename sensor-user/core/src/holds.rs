//! Container records that wait for their metadata.
//!
//! Owns deadlines only. Everything here is due at a boot-clock time and goes in that order.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::fact::{Container, ContainerAction, K8s, Origin, Process};
use crate::risks::Risks;
use crate::time::Timestamp;

/// Most records that wait; more go out early, without metadata.
const HELD_MAX: usize = 1024;
/// What is known of the process that a runtime puts into a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Entrant {
    /// The record is of no such process, or there is nothing more to know of it.
    #[default]
    None,
    /// The answer to the query of this number is still to come.
    Awaited(u64),
    /// What tells of it.
    Known(Risks),
    /// What it may do cannot be found out.
    Unknown,
}

/// A container record that waits.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) id: Arc<str>,
    pub(crate) at: Timestamp,
    pub(crate) action: ContainerAction,
    pub(crate) process: Option<Arc<Process>>,
    pub(crate) origin: Origin,
    /// What was known of the container when the record was made; printed if it is forgotten meanwhile.
    pub(crate) container: Arc<Container>,
    pub(crate) k8s: Option<Arc<K8s>>,
    pub(crate) entrant: Entrant,
}

/// The queue, by (due, order of arrival).
#[derive(Debug, Default)]
pub(crate) struct Holds {
    held: BTreeMap<(u64, u64), Held>,
    arrivals: u64,
}

impl Holds {
    /// Holds a record; returns one that must go now because too many wait.
    pub(crate) fn hold(&mut self, due_ns: u64, held: Held) -> Option<Held> {
        self.arrivals += 1;
        self.held.insert((due_ns, self.arrivals), held);
        (self.held.len() > HELD_MAX).then(|| self.held.pop_first()).flatten().map(|(_, held)| held)
    }

    /// Takes a record whose time has come.
    pub(crate) fn take_due(&mut self, now_ns: u64) -> Option<Held> {
        let first = self.held.first_entry()?;
        (first.key().0 <= now_ns).then(|| first.remove())
    }

    /// Takes the records of one container, in order.
    pub(crate) fn take_of(&mut self, id: &str) -> Vec<Held> {
        self.take(|held| *held.id == *id)
    }

    /// Takes the records of one container that wait for nothing but the container's own metadata, in order.
    pub(crate) fn take_ready_of(&mut self, id: &str) -> Vec<Held> {
        self.take(|held| *held.id == *id && !matches!(held.entrant, Entrant::Awaited(_)))
    }

    fn take(&mut self, is_wanted: impl Fn(&Held) -> bool) -> Vec<Held> {
        let wanted = self.held.iter().filter(|(_, held)| is_wanted(held)).map(|(key, _)| *key);
        let keys: Vec<_> = wanted.collect();
        keys.iter().filter_map(|key| self.held.remove(key)).collect()
    }

    /// Enters the answer to a query; returns the container of the record that waited for it, if it still does.
    pub(crate) fn answer(&mut self, number: u64, entrant: Entrant) -> Option<Arc<str>> {
        let held = self.held.values_mut().find(|held| held.entrant == Entrant::Awaited(number))?;
        held.entrant = entrant;
        Some(held.id.clone())
    }

    /// When the next record is due.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.held.first_key_value().map(|(key, _)| key.0)
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
            namesake: 0,
            runtime: Runtime::Runc,
            name: None,
            image: None,
            created: None,
            risks: None,
            cgroup: None,
        };
        Held {
            id,
            at: Timestamp::default(),
            action: ContainerAction::Created,
            process: None,
            origin: Origin::none(),
            container: Arc::new(container),
            k8s: None,
            entrant: Entrant::None,
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
    fn records_of_one_container_are_taken_in_order_and_the_others_stay() {
        let mut holds = Holds::default();
        for (due, id) in [(30, "a"), (10, "b"), (20, "a")] {
            assert!(holds.hold(due, held(id)).is_none());
        }
        assert_eq!(holds.take_of("a").len(), 2);
        assert_eq!(holds.next_due(), Some(10));
        assert!(holds.take_of("a").is_empty());
    }

    #[test]
    fn a_record_that_waits_for_its_process_is_not_ready() {
        let mut holds = Holds::default();
        assert!(holds.hold(10, Held { entrant: Entrant::Awaited(7), ..held("a") }).is_none());
        assert!(holds.take_ready_of("a").is_empty());
        assert_eq!(holds.answer(8, Entrant::None), None);
        assert_eq!(holds.answer(7, Entrant::Known(Risks::default())).as_deref(), Some("a"));
        assert_eq!(holds.answer(7, Entrant::None), None, "it is answered");
        assert_eq!(holds.take_ready_of("a").len(), 1);
    }
}
