//! What everybody may always have said of himself: his first lines, and then a few.
//!
//! The lines that somebody can make as many of as he likes share one half of a queue. Without a share of its own the
//! container of an attack would be told nothing of while another one floods.

use std::net::IpAddr;
use std::sync::Arc;

use hashlink::LruCache;

/// Whose lines they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Author {
    /// What a container does.
    Container(Arc<str>),
    /// Who listens on the host: anybody may, in a network namespace of his own.
    Listener { uid: Option<u32>, netns: u32 },
    /// Who asks for changes.
    Peer(IpAddr),
}

/// Lines that an author has at first, and at most.
const LINES: u32 = 32;
/// He gets another one after this time, nanoseconds.
const REFILL_NS: u64 = 1_000_000_000;
/// Authors that are kept account of. One that had to go begins anew; a new container or peer is told of in lines that are
/// not shed for others.
const AUTHORS: usize = 4096;

#[derive(Clone, Copy)]
struct Account {
    lines: u32,
    /// Up to when lines were given, on the boot clock.
    refilled_ns: u64,
}

/// The accounts of all authors.
pub(super) struct Allowance {
    accounts: LruCache<Author, Account>,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { accounts: LruCache::new(AUTHORS) }
    }
}

impl Allowance {
    /// Whether an author has a line left at this time on the boot clock; takes it.
    pub(super) fn take(&mut self, author: Author, boot_ns: u64) -> bool {
        let new = Account { lines: LINES, refilled_ns: boot_ns };
        let mut account = self.accounts.get(&author).copied().unwrap_or(new);
        let due = boot_ns.saturating_sub(account.refilled_ns) / REFILL_NS;
        account.lines = u32::try_from(due).unwrap_or(LINES).saturating_add(account.lines).min(LINES);
        account.refilled_ns += due * REFILL_NS;
        let has_line = account.lines > 0;
        account.lines -= u32::from(has_line);
        self.accounts.insert(author, account);
        has_line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(allowance: &mut Allowance, container: &str, boot_ns: u64) -> u32 {
        (0..1000).map(|_| u32::from(allowance.take(Author::Container(container.into()), boot_ns))).sum()
    }

    #[test]
    fn each_author_has_his_own_lines() {
        let mut allowance = Allowance::default();
        assert_eq!(taken(&mut allowance, "floods", 5), LINES);
        assert_eq!(taken(&mut allowance, "attacked", 5), LINES);
    }

    #[test]
    fn lines_come_back_with_time_and_are_not_saved_up() {
        let mut allowance = Allowance::default();
        assert_eq!(taken(&mut allowance, "c", 0), LINES);
        assert_eq!(taken(&mut allowance, "c", REFILL_NS - 1), 0);
        assert_eq!(taken(&mut allowance, "c", 3 * REFILL_NS), 3);
        assert_eq!(taken(&mut allowance, "c", u64::MAX), LINES);
        assert_eq!(taken(&mut allowance, "c", 0), 0, "records of several processors may be out of order");
    }

    #[test]
    fn there_are_not_more_accounts_than_fit() {
        let mut allowance = Allowance::default();
        for number in 0..2 * AUTHORS {
            assert!(allowance.take(Author::Container(number.to_string().into()), 0));
        }
        assert_eq!(allowance.accounts.len(), AUTHORS);
    }
}
