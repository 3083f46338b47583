//! Who has come to management services unexpectedly: the first stage.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fact::Service;
use crate::ids::{ConnId, RecordId};
use crate::state::kept::{Kept, is_plausible_time};
use crate::state::{STATE_BYTES, Table};
use crate::time::Timestamp;

/// Most connections of unlisted peers that are remembered; the one used longest ago goes first.
pub(crate) const CONNECTIONS_MAX: usize = 131_072;
/// Most pairs of peer and service whose requests cannot be read; likewise.
const VEILED_MAX: usize = 16_384;
/// Most of these that are looked at for one container, the latest first.
const LOOKED_AT_MAX: usize = 256;
/// Most candidates that are named for one container.
pub(super) const CANDIDATES_MAX: usize = 8;
/// Times that are kept of one connection.
const TIMES: usize = 4;

/// A record of an access, and when it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Access {
    pub(super) peer: IpAddr,
    pub(super) service: Service,
    /// The record that told of it first.
    pub(super) event: RecordId,
    pub(super) at: Timestamp,
    times: Times,
}

/// The latest times at which something was heard of somebody, in order, boot clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Times([u64; TIMES]);

impl Times {
    fn note(&mut self, boot_ns: u64) {
        // The smallest makes room, and is the first in order.
        if boot_ns > self.0[0] {
            self.0[0] = boot_ns;
            self.0.sort_unstable();
        }
    }

    fn count(&self) -> usize {
        self.0.iter().filter(|time| **time != 0).count()
    }

    /// Drops those of others. Returns whether any is left.
    fn take_back(&mut self, others: &Self) -> bool {
        self.0.iter_mut().filter(|time| others.0.contains(time)).for_each(|time| *time = 0);
        self.0.sort_unstable();
        self.0.iter().any(|time| *time != 0)
    }

    /// The last one up to a time; `None` when there is none, as far as times are kept.
    fn last_until(&self, boot_ns: u64) -> Option<u64> {
        self.0.into_iter().rev().find(|time| *time != 0 && *time <= boot_ns)
    }
}

impl Access {
    /// Whether something was heard of it up to this time and no longer before it than the window.
    fn is_in_window(&self, boot_ns: u64, window_ns: u64) -> bool {
        self.times.last_until(boot_ns).is_some_and(|last| boot_ns - last <= window_ns)
    }
}

/// The tables of the first stage.
#[derive(Debug)]
pub(super) struct Accesses {
    pub(super) by_conn: Kept<Arc<str>, Access>,
    /// Where requests cannot be read, blame is a matter of time, and of the peer alone.
    pub(super) veiled: Kept<(IpAddr, Service), Access>,
}

impl Default for Accesses {
    fn default() -> Self {
        Self {
            by_conn: Kept::new(Table::Accesses, CONNECTIONS_MAX, STATE_BYTES),
            veiled: Kept::new(Table::Veiled, VEILED_MAX, STATE_BYTES),
        }
    }
}

impl Accesses {
    /// An unlisted peer did something on a connection. `veiled`: what it asks for cannot be read, and after this long what
    /// it did before is another matter.
    pub(super) fn note(
        &mut self,
        conn: &Arc<str>,
        peer: (IpAddr, Service),
        event: &RecordId,
        at: Timestamp,
        is_request: bool,
        veiled: Option<u64>,
    ) {
        let (ip, service) = peer;
        let mut new = Access { peer: ip, service, event: event.clone(), at, times: Times::default() };
        new.times.note(at.boot_ns);
        match self.by_conn.get_mut(conn) {
            Some(known) => known.hear(&new),
            None => {
                if is_request {
                    // Of its opening nothing was told; that was before.
                    new.times.note(at.boot_ns.saturating_sub(1));
                }
                self.by_conn.insert(conn.clone(), new.clone());
            }
        }
        self.by_conn.shrink();
        if let Some(window_ns) = veiled {
            match self.veiled.get_mut(&peer) {
                Some(known) if at.boot_ns <= known.last().saturating_add(window_ns) => known.hear(&new),
                _ => {
                    self.veiled.insert(peer, new);
                }
            }
            self.veiled.shrink();
        }
    }

    /// Whether somebody else than whoever has this address is behind a connection.
    pub(super) fn is_behind(&self, conn: &str, last_hop: IpAddr) -> bool {
        self.by_conn.peek(conn).is_some_and(|access| access.peer != last_hop.to_canonical())
    }

    /// An entry of the allow-list expects the peer of this connection after all. What he did on others stays.
    pub(super) fn forget(&mut self, conn: &str) {
        let Some(known) = self.by_conn.remove(conn) else { return };
        let key = (known.peer, known.service);
        if self.veiled.get_mut(&key).is_some_and(|veiled| !veiled.times.take_back(&known.times)) {
            self.veiled.remove(&key);
        }
    }

    /// An entry expects what the peer of this connection shows just now, which says nothing of what he did before: only that
    /// the connection was opened is taken back, if that is all.
    pub(super) fn forget_opening(&mut self, conn: &str) {
        if self.by_conn.peek(conn).is_some_and(|known| known.times.count() == 1) {
            self.forget(conn);
        }
    }

    /// The unlisted peer behind a connection, if it did something on it within the window before this time.
    pub(super) fn behind(&self, conn: &str, boot_ns: u64, window_ns: u64) -> Option<&Access> {
        self.by_conn.peek(conn).filter(|access| access.is_in_window(boot_ns, window_ns))
    }

    /// The unlisted peers that may have asked for something at this time where nobody could read it, in order of their
    /// addresses, and whether there were more.
    pub(super) fn candidates(
        &self,
        boot_ns: u64,
        window_ns: u64,
        serves: impl Fn(Service) -> bool,
    ) -> (Vec<&Access>, bool) {
        let recent = self.veiled.iter().rev().take(LOOKED_AT_MAX).map(|(_, access)| access);
        by_peer(recent.filter(|access| serves(access.service) && access.is_in_window(boot_ns, window_ns)))
    }

    /// Likewise, the unlisted ones of peers that have these connections.
    pub(super) fn among(&self, conns: &[ConnId], boot_ns: u64, window_ns: u64) -> (Vec<&Access>, bool) {
        by_peer(conns.iter().filter_map(|conn| self.behind(&conn.0, boot_ns, window_ns)))
    }

    pub(super) fn len(&self) -> usize {
        self.by_conn.len()
    }

    pub(super) fn evicted(&self) -> u64 {
        self.by_conn.evicted() + self.veiled.evicted()
    }
}

/// One access of each peer, in order of their addresses, and whether there were more than are named.
fn by_peer<'a>(accesses: impl Iterator<Item = &'a Access>) -> (Vec<&'a Access>, bool) {
    let mut found: Vec<&Access> = accesses.collect();
    found.sort_unstable_by_key(|access| (access.peer, access.at.boot_ns));
    found.dedup_by_key(|access| access.peer);
    let more = found.len() > CANDIDATES_MAX;
    found.truncate(CANDIDATES_MAX);
    (found, more)
}

impl Access {
    /// Whether it can be what was kept.
    pub(super) fn is_plausible(&self) -> bool {
        is_plausible_time(self.at) && self.times.0.is_sorted()
    }

    fn last(&self) -> u64 {
        self.times.0[TIMES - 1]
    }

    /// Something more, in whatever order it is told. What is told last of an earlier time is the beginning.
    fn hear(&mut self, other: &Self) {
        self.times.note(other.at.boot_ns);
        if (other.at.boot_ns, &*other.event.0) < (self.at.boot_ns, &*self.event.0) {
            self.event = other.event.clone();
            self.at = other.at;
        }
    }
}
