//! What every container may always say: its first lines, and then a few.
//!
//! The lines that containers can make as many of as they like share one half of a queue. Without a share of its own the
//! container of an attack would be told nothing of while another one floods.

use std::sync::Arc;

use hashlink::LruCache;

/// Lines that a container has at first, and at most.
const LINES: u32 = 32;
/// It gets another one after this time, nanoseconds.
const REFILL_NS: u64 = 1_000_000_000;
/// Containers that are kept account of. One that had to go begins anew, and a new container is told of in lines that are
/// not shed for others.
const CONTAINERS: usize = 4096;

#[derive(Clone, Copy)]
struct Account {
    lines: u32,
    /// Up to when lines were given, on the boot clock.
    refilled_ns: u64,
}

/// The accounts of all containers.
pub(super) struct Allowance {
    accounts: LruCache<Arc<str>, Account>,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { accounts: LruCache::new(CONTAINERS) }
    }
}

impl Allowance {
    /// Whether a container has a line left at this time on the boot clock; takes it.
    pub(super) fn take(&mut self, container: &Arc<str>, boot_ns: u64) -> bool {
        let new = Account { lines: LINES, refilled_ns: boot_ns };
        let mut account = self.accounts.get(container).copied().unwrap_or(new);
        let due = boot_ns.saturating_sub(account.refilled_ns) / REFILL_NS;
        account.lines = u32::try_from(due).unwrap_or(LINES).saturating_add(account.lines).min(LINES);
        account.refilled_ns += due * REFILL_NS;
        let has_line = account.lines > 0;
        account.lines -= u32::from(has_line);
        self.accounts.insert(Arc::clone(container), account);
        has_line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(allowance: &mut Allowance, container: &str, boot_ns: u64) -> u32 {
        let container = container.into();
        (0..1000).map(|_| u32::from(allowance.take(&container, boot_ns))).sum()
    }

    #[test]
    fn each_container_has_its_own_lines() {
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
        for number in 0..2 * CONTAINERS {
            assert!(allowance.take(&number.to_string().into(), 0));
        }
        assert_eq!(allowance.accounts.len(), CONTAINERS);
    }
}
