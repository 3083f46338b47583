//! Listening sockets on watched ports, who holds them, and which of them took a connection.
//!
//! Owns the socket table and the choice of the one process to name among several holders. A socket that was passed on
//! (systemd's activation, a fork) is held by others than its opener; the iterator's answers keep the holders current.

use std::sync::Arc;

use crate::bounded::{Bounded, Index};
use crate::event::{Ends, Task};
use crate::exposure::bind_fit;
use crate::fact::{End, ExecRole, LeadsTo, Scope, Service, Tls};
use crate::ids::{CgroupKey, ProcessKey};
use crate::processes::Processes;

/// Most listening sockets in the table; the one used longest ago goes first.
pub(crate) const LISTENERS_MAX: usize = 4096;

/// A process that has the socket open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) task: Task,
    pub(crate) cgroup: CgroupKey,
}

/// What is served at a port, by its number and by the program that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traits {
    pub(crate) service: Service,
    pub(crate) tls: Tls,
    pub(crate) leads_to: Option<LeadsTo>,
}

/// One listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) local: End,
    pub(crate) netns: u32,
    pub(crate) traits: Traits,
    /// Cgroup of the socket.
    pub(crate) cgroup: CgroupKey,
    /// Who began to listen, where that was seen.
    pub(crate) opener: Option<ProcessKey>,
    pub(crate) holders: Vec<Holder>,
    /// Boot-clock time of a look that found no holder any more: those above hold for what happened before.
    pub(crate) unheld_ns: Option<u64>,
    /// The holder the output named last, once it has told of the listener.
    pub(crate) announced: Option<Option<ProcessKey>>,
    /// Boot-clock time at which it was first known of.
    pub(crate) known_ns: u64,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Listeners {
    table: Bounded<u64, Listener>,
    by_port: Index<(u32, u16), Vec<u64>>,
    /// How many sockets each process holds.
    holding: Index<ProcessKey, usize>,
}

impl Listeners {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { table: Bounded::new(capacity), by_port: Index::default(), holding: Index::default() }
    }

    /// Adds or replaces a socket.
    pub(crate) fn insert(&mut self, sock: u64, listener: Listener) {
        self.remove(sock);
        self.by_port.entry((listener.netns, listener.local.port)).or_default().push(sock);
        for holder in &listener.holders {
            *self.holding.entry(holder.task.key).or_default() += 1;
        }
        if let Some((sock, evicted)) = self.table.insert(sock, listener) {
            self.forget(sock, &evicted);
        }
    }

    /// Takes a socket out.
    pub(crate) fn remove(&mut self, sock: u64) -> Option<Listener> {
        let listener = self.table.remove(&sock)?;
        self.forget(sock, &listener);
        Some(listener)
    }

    fn forget(&mut self, sock: u64, listener: &Listener) {
        let key = (listener.netns, listener.local.port);
        if let Some(socks) = self.by_port.get_mut(&key) {
            socks.retain(|known| *known != sock);
            if socks.is_empty() {
                self.by_port.remove(&key);
            }
        }
        for holder in &listener.holders {
            self.let_go(holder.task.key);
        }
    }

    fn let_go(&mut self, process: ProcessKey) {
        if let Some(count) = self.holding.get_mut(&process) {
            *count -= 1;
            if *count == 0 {
                self.holding.remove(&process);
            }
        }
    }

    /// Replaces the holders of a socket.
    pub(crate) fn set_holders(&mut self, sock: u64, holders: Vec<Holder>) {
        let Some(listener) = self.table.get_mut(&sock) else { return };
        for holder in &holders {
            *self.holding.entry(holder.task.key).or_default() += 1;
        }
        listener.unheld_ns = None;
        for holder in std::mem::replace(&mut listener.holders, holders) {
            self.let_go(holder.task.key);
        }
    }

    /// Nobody holds a socket any more, most likely because it was closed a moment ago: records of what happened before are
    /// still on their way.
    pub(crate) fn lose_holders(&mut self, sock: u64, now_ns: u64) {
        if let Some(listener) = self.table.get_mut(&sock) {
            listener.unheld_ns.get_or_insert(now_ns);
        }
    }

    /// Whether a process holds any socket here.
    pub(crate) fn is_holder(&self, process: ProcessKey) -> bool {
        self.holding.contains_key(&process)
    }

    /// A process is gone, and what it held with it.
    pub(crate) fn drop_holder(&mut self, process: ProcessKey) {
        if self.holding.remove(&process).is_none() {
            return;
        }
        for (_, listener) in self.table.iter_mut() {
            listener.holders.retain(|holder| holder.task.key != process);
        }
    }

    /// A socket by its kernel address.
    pub(crate) fn get_mut(&mut self, sock: u64) -> Option<&mut Listener> {
        self.table.get_mut(&sock)
    }

    /// A socket by its kernel address, without counting as a use.
    pub(crate) fn peek(&self, sock: u64) -> Option<&Listener> {
        self.table.peek(&sock)
    }

    /// Every socket, the one used longest ago first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Listener> {
        self.table.iter().map(|(_, listener)| listener)
    }

    /// Kernel addresses of all sockets, the one used longest ago first.
    pub(crate) fn socks(&self) -> Vec<u64> {
        self.table.iter().map(|(sock, _)| *sock).collect()
    }

    /// Sockets that listen at an address, or at all addresses, in whatever network namespace.
    pub(crate) fn at(&self, local: End) -> Vec<(u64, &Listener)> {
        let fits = |listener: &Listener| {
            listener.local.port == local.port && bind_fit(listener.local, local).is_some()
        };
        self.table.iter().filter(|(_, listener)| fits(listener)).map(|(sock, found)| (*sock, found)).collect()
    }

    /// Sockets that a process holds, the one used longest ago first.
    pub(crate) fn held_by(&self, process: ProcessKey) -> Vec<u64> {
        if !self.is_holder(process) {
            return Vec::new();
        }
        let holds = |listener: &Listener| listener.holders.iter().any(|holder| holder.task.key == process);
        self.table.iter().filter(|(_, listener)| holds(listener)).map(|(sock, _)| *sock).collect()
    }

    /// The socket that took a connection: bound to exactly this address, else to all of its family, else an IPv6 one
    /// bound to all, which takes IPv4 too. Of several, one with holders, then the one known last.
    pub(crate) fn find(&self, ends: &Ends) -> Option<(u64, &Listener)> {
        let socks = self.by_port.get(&(ends.netns, ends.local.port))?;
        let listeners = socks.iter().filter_map(|sock| Some((*sock, self.table.peek(sock)?)));
        listeners
            .filter_map(|(sock, listener)| {
                let fit = bind_fit(listener.local, ends.local)?;
                let is_held = listener.unheld_ns.is_none() && !listener.holders.is_empty();
                Some(((fit, is_held, listener.known_ns), (sock, listener)))
            })
            .max_by_key(|(rank, _)| *rank)
            .map(|(_, found)| found)
    }

    /// Sockets evicted since the start.
    pub(crate) fn evicted(&self) -> u64 {
        self.table.evicted()
    }

    /// Number of sockets.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}

/// The holder to name at this moment, see [`holder_at`].
pub(crate) fn present_holder<'a>(listener: &'a Listener, processes: &Processes) -> Option<&'a Holder> {
    holder_at(listener, u64::MAX, processes)
}

/// The holder to name for what happened at this time on the boot clock: one whose program is known before one of which
/// only the name is; a daemon before other runtime programs before the rest; a process before its forks that still run the
/// same program; one that is neither pid 1 nor the opener (both pass sockets on); then the youngest.
pub(crate) fn holder_at<'a>(listener: &'a Listener, at_ns: u64, processes: &Processes) -> Option<&'a Holder> {
    if listener.unheld_ns.is_some_and(|unheld_ns| at_ns > unheld_ns) {
        return None;
    }
    let holders = match &*listener.holders {
        [only] => return Some(only),
        several => several,
    };
    holders.iter().max_by_key(|holder| {
        let key = holder.task.key;
        let entry = processes.peek(key);
        let role = entry.and_then(|entry| entry.image.role);
        let is_known = entry.is_some_and(|entry| entry.image.exe.is_some());
        let passed_on = key.pid == 1 || listener.opener == Some(key);
        let is_copy = is_copy_of_a_holder(key, holders, processes);
        (
            is_known,
            role == Some(ExecRole::Daemon),
            role.is_some(),
            !is_copy,
            !passed_on,
            key.start_ns,
            key.pid,
        )
    })
}

/// Whether a holder was forked by another one and has not executed a program of its own: a worker, or a child on its way
/// to its exec.
fn is_copy_of_a_holder(key: ProcessKey, holders: &[Holder], processes: &Processes) -> bool {
    let Some(entry) = processes.peek(key) else { return false };
    let Some(parent) = entry.parent.filter(|parent| holders.iter().any(|holder| holder.task.key == *parent))
    else {
        return false;
    };
    processes.peek(parent).is_some_and(|parent| Arc::ptr_eq(&parent.image, &entry.image))
}

/// Reach of a bind address.
pub(crate) fn scope_of(local: End) -> Scope {
    Scope::of(local.ip)
}

#[cfg(test)]
mod tests;
