//! A table with a bound: when it is full the entry that was used longest ago goes, and that is counted.
//!
//! Owns the eviction order and the count; knows nothing of what it holds. Iteration is in order of use, so that no
//! hash order can reach the output.

use std::borrow::Borrow;
use std::hash::Hash;

use hashlink::{DefaultHashBuilder, LruCache};

/// A map that is looked up for every record and never iterated: its order would differ from run to run.
pub(crate) type Index<K, V> = std::collections::HashMap<K, V, DefaultHashBuilder>;

/// A least-recently-used table of at most `capacity` entries.
#[derive(Debug)]
pub(crate) struct Bounded<K, V> {
    entries: LruCache<K, V>,
    capacity: usize,
    evicted: u64,
}

impl<K: Clone + Eq + Hash, V: Clone> Clone for Bounded<K, V> {
    fn clone(&self) -> Self {
        Self { entries: self.entries.clone(), capacity: self.capacity, evicted: self.evicted }
    }
}

impl<K: Eq + Hash, V> Bounded<K, V> {
    /// An empty table; memory is taken as it fills.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { entries: LruCache::new_unbounded(), capacity: capacity.max(1), evicted: 0 }
    }

    /// Adds or replaces an entry and returns the one that had to go for it.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        if self.entries.insert(key, value).is_some() || self.entries.len() <= self.capacity {
            return None;
        }
        self.evict_oldest()
    }

    /// Drops the entry that was used longest ago, and counts it.
    pub(crate) fn evict_oldest(&mut self) -> Option<(K, V)> {
        let evicted = self.entries.remove_lru();
        self.evicted += u64::from(evicted.is_some());
        evicted
    }

    /// An entry, without counting as a use.
    pub(crate) fn peek<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.peek(key)
    }

    /// An entry, marked as used now.
    pub(crate) fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.entries.get_mut(key)
    }

    /// Takes an entry out, which is no eviction.
    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.entries.remove(key)
    }

    /// Whether there is an entry with this key.
    pub(crate) fn contains<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.entries.contains_key(key)
    }

    /// Entries, the one used longest ago first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.entries.iter()
    }

    /// Entries to change, the one used longest ago first.
    pub(crate) fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (&K, &mut V)> {
        self.entries.iter_mut()
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Entries evicted since the start.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_table_evicts_what_was_used_longest_ago_and_counts_it() {
        let mut table = Bounded::new(2);
        assert_eq!(table.insert("a", 1), None);
        assert_eq!(table.insert("b", 2), None);
        assert_eq!(table.get_mut("a"), Some(&mut 1));
        assert_eq!(table.insert("c", 3), Some(("b", 2)));
        assert_eq!((table.len(), table.evicted()), (2, 1));
    }

    #[test]
    fn replacing_and_removing_are_no_evictions() {
        let mut table = Bounded::new(1);
        table.insert("a", 1);
        assert_eq!(table.insert("a", 2), None);
        assert_eq!(table.remove("a"), Some(2));
        assert_eq!(table.evicted(), 0);
    }
}
