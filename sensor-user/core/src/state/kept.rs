//! A bounded table that is kept beyond the end of the program.
//!
//! Beside the eviction order of [`Bounded`] it owns the count of bytes, and knows which entries have changed. Order of use
//! is order of change: whoever was used last is at the end, so that what has changed is found from there, and nothing is
//! written down for each change.

use std::borrow::Borrow;
use std::hash::Hash;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Change, Table, Unreadable, decode, encode, size_of};
use crate::bounded::Bounded;
use crate::time::Timestamp;

/// More of anything than there ever is; what is kept and says more is no such thing.
pub(crate) const COUNT_MAX: u64 = 1 << 48;

/// Whether a time can be one: it leaves room for every window.
pub(crate) const fn is_plausible_time(at: Timestamp) -> bool {
    at.boot_ns < i64::MAX as u64 && at.unix_ns < i64::MAX as u64
}

/// Bytes that keeping an entry takes beside its own.
const OVERHEAD: u64 = 16;

/// A table that is kept, whatever is in it.
pub(crate) trait Keep {
    /// From now on what changes is to be asked for; what is there counts as changed.
    fn keep(&mut self);

    /// Takes another bound, as a share of so many bytes; what is too much goes with the next look at it.
    fn set_bytes(&mut self, bytes: u64);

    /// Hands out what has changed since the last time.
    fn take_changes(&mut self, out: &mut Vec<Change>);

    /// Number of entries.
    fn entries(&self) -> u64;
}

impl<K: Clone + Eq + Hash + Serialize + DeserializeOwned, V: Serialize + DeserializeOwned> Keep
    for Kept<K, V>
{
    fn keep(&mut self) {
        self.gone = Some(Vec::new());
        (self.saved, self.known) = (0, 0);
    }

    fn set_bytes(&mut self, bytes: u64) {
        self.bytes_max = self.table.bytes(bytes);
    }

    fn take_changes(&mut self, out: &mut Vec<Change>) {
        let Some(gone) = &mut self.gone else { return };
        let table = self.table;
        out.extend(gone.drain(..).map(|number| Change { table, number, entry: None }));
        let changed = self.entries.iter().rev().take_while(|(_, slot)| slot.changed > self.saved);
        out.extend(changed.map(|(key, slot)| {
            let entry = Some(encode(&(slot.changed, key, &slot.value)));
            Change { table, number: slot.number, entry }
        }));
        self.saved = self.changes;
        self.known = self.entered;
    }

    fn entries(&self) -> u64 {
        self.entries.len() as u64
    }
}

/// A least-recently-used table with a bound of entries and one of bytes.
#[derive(Debug)]
pub(crate) struct Kept<K, V> {
    entries: Bounded<K, Slot<V>>,
    table: Table,
    bytes_max: u64,
    bytes: u64,
    /// Number of the last change; every use counts as one.
    changes: u64,
    /// The last change that was weighed, and the last one that was handed out.
    weighed: u64,
    saved: u64,
    /// Number of the last entry, and of the last one that was handed out.
    entered: u64,
    known: u64,
    /// Entries that were handed out and are gone. Empty unless somebody keeps them.
    gone: Option<Vec<u64>>,
}

#[derive(Debug)]
struct Slot<V> {
    number: u64,
    changed: u64,
    bytes: u64,
    value: V,
}

impl<K: Clone + Eq + Hash + Serialize + DeserializeOwned, V: Serialize + DeserializeOwned> Kept<K, V> {
    /// An empty table of so many entries and its share of so many bytes.
    pub(crate) fn new(table: Table, capacity: usize, bytes: u64) -> Self {
        Self {
            entries: Bounded::new(capacity),
            table,
            bytes_max: table.bytes(bytes),
            bytes: 0,
            changes: 0,
            weighed: 0,
            saved: 0,
            entered: 0,
            known: 0,
            gone: None,
        }
    }

    /// Adds or replaces an entry and returns the one that had to go for it.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        self.remove(&key);
        self.changes += 1;
        self.entered += 1;
        let slot = Slot { number: self.entered, changed: self.changes, bytes: 0, value };
        let (key, slot) = self.entries.insert(key, slot)?;
        self.count_out(&slot);
        Some((key, slot.value))
    }

    /// Drops the entry that was used longest ago when all together have too many bytes, and counts it. To be asked for
    /// after every change, as often as it has an answer.
    pub(crate) fn evict_excess(&mut self) -> Option<(K, V)> {
        self.weigh();
        // One entry alone is bounded by what it is.
        if self.bytes <= self.bytes_max || self.entries.len() <= 1 {
            return None;
        }
        let (key, slot) = self.entries.evict_oldest()?;
        self.count_out(&slot);
        Some((key, slot.value))
    }

    /// Drops what is too much, where nobody has to be told.
    pub(crate) fn shrink(&mut self) {
        while self.evict_excess().is_some() {}
    }

    /// An entry, without counting as a use.
    pub(crate) fn peek<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.peek(key).map(|slot| &slot.value)
    }

    /// An entry, marked as used and changed now.
    pub(crate) fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let slot = self.entries.get_mut(key)?;
        self.changes += 1;
        slot.changed = self.changes;
        Some(&mut slot.value)
    }

    /// Takes an entry out, which is no eviction.
    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let slot = self.entries.remove(key)?;
        self.count_out(&slot);
        Some(slot.value)
    }

    /// Takes out the entry that was used longest ago, which is no eviction.
    pub(crate) fn pop(&mut self) -> Option<(K, V)> {
        let key = self.entries.iter().next()?.0.clone();
        let value = self.remove(&key)?;
        Some((key, value))
    }

    /// Whether there is an entry with this key.
    pub(crate) fn contains<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.entries.contains(key)
    }

    /// Entries, the one used longest ago first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, slot)| (key, &slot.value))
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Entries evicted since the start.
    pub(crate) fn evicted(&self) -> u64 {
        self.entries.evicted()
    }

    /// Bytes of all entries.
    #[cfg(test)]
    pub(crate) fn bytes(&mut self) -> u64 {
        self.weigh();
        self.bytes
    }

    /// Puts back what was handed out, in whatever order; all of it counts as changed. Returns how many could not be read.
    pub(crate) fn restore(
        &mut self,
        entries: &[&[u8]],
        mut adapt: impl FnMut(&K, &mut V) -> Result<(), Unreadable>,
    ) -> u64 {
        let mut readable: Vec<(u64, K, V)> = Vec::with_capacity(entries.len());
        for bytes in entries {
            if let Ok((changed, key, mut value)) = decode::<(u64, K, V)>(bytes)
                && adapt(&key, &mut value).is_ok()
            {
                readable.push((changed, key, value));
            }
        }
        let unreadable = entries.len() - readable.len();
        readable.sort_by_key(|(changed, ..)| *changed);
        for (_, key, value) in readable {
            self.insert(key, value);
        }
        unreadable as u64
    }

    fn weigh(&mut self) {
        let changed = self.entries.iter_mut().rev().take_while(|(_, slot)| slot.changed > self.weighed);
        for (key, slot) in changed {
            let bytes = size_of(&(slot.changed, key, &slot.value)) as u64 + OVERHEAD;
            self.bytes = self.bytes - slot.bytes + bytes;
            slot.bytes = bytes;
        }
        self.weighed = self.changes;
    }

    fn count_out(&mut self, slot: &Slot<V>) {
        self.bytes -= slot.bytes;
        if let Some(gone) = &mut self.gone
            && slot.number <= self.known
        {
            gone.push(slot.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Texts = Kept<u32, String>;

    fn table() -> Texts {
        let mut table = Kept::new(Table::Accesses, 100, 64 << 10);
        table.keep();
        table
    }

    fn changes(table: &mut Texts) -> Vec<Change> {
        let mut out = Vec::new();
        table.take_changes(&mut out);
        out
    }

    fn entries(changes: &[Change]) -> Vec<&[u8]> {
        changes.iter().filter_map(|change| change.entry.as_deref()).collect()
    }

    #[test]
    fn only_what_has_changed_is_handed_out() {
        let mut table = table();
        for key in 0..4 {
            table.insert(key, "a".to_owned());
        }
        assert_eq!(changes(&mut table).len(), 4);
        assert_eq!(changes(&mut table), []);
        table.get_mut(&1).unwrap().push('b');
        table.remove(&2);
        // What came and went in between was never anywhere else.
        table.insert(7, "c".to_owned());
        table.remove(&7);
        let told = changes(&mut table);
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!((told[0].number, &told[0].entry), (3, &None));
        assert_eq!(decode::<(u64, u32, String)>(entries(&told)[0]).unwrap().2, "ab");
    }

    #[test]
    fn what_is_put_back_is_used_in_the_same_order() {
        let mut table = table();
        for key in 0..4 {
            table.insert(key, key.to_string());
        }
        table.get_mut(&0);
        let told = changes(&mut table);
        let mut again = self::table();
        let mut damaged = entries(&told);
        damaged.push(&[1, 2, 3]);
        assert_eq!(again.restore(&damaged, |_, _| Ok(())), 1);
        let order: Vec<_> = again.iter().map(|(key, value)| (*key, value.clone())).collect();
        assert_eq!(order, [1, 2, 3, 0].map(|key| (key, key.to_string())));
        assert_eq!(changes(&mut again).len(), 4, "whoever keeps it begins anew");
    }

    #[test]
    fn bytes_are_bounded_by_what_was_used_longest_ago() {
        let mut table = table();
        let max = Table::Accesses.bytes(64 << 10);
        for key in 0..100 {
            table.insert(key, "x".repeat(1000));
            table.shrink();
            assert!(table.bytes() <= max);
        }
        let told: u64 = entries(&changes(&mut table)).iter().map(|entry| entry.len() as u64 + OVERHEAD).sum();
        assert_eq!(told, table.bytes());
        assert_eq!(table.evicted(), 100 - table.len() as u64);
        assert!(table.contains(&99) && !table.contains(&0));
        table.get_mut(&99).unwrap().clear();
        assert!(table.bytes() < told);
    }

    #[test]
    fn nothing_is_written_down_for_nobody() {
        let mut table: Texts = Kept::new(Table::Accesses, 2, 1 << 20);
        for key in 0..10 {
            table.insert(key, String::new());
        }
        assert_eq!((changes(&mut table), table.evicted()), (Vec::new(), 8));
    }
}
