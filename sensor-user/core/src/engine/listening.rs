//! Listeners on watched ports: opened, found, passed on, closed; and when to look again who holds them.

use sensor_common::record::ListenerItem;

use crate::bounded::Index;
use crate::engine::{Engine, Request};
use crate::event::{Ends, ListenerEvent};
use crate::fact::{End, FactKind, ListenerState, Net, Tls};
use crate::listeners::{Holder, Listener, present_holder, scope_of};
use crate::time::Timestamp;

/// Most holders of one listening socket that are told apart.
const HOLDERS_MAX: usize = 256;
/// An accept this long after the last look at the holders wants a new one.
const STALE_NS: u64 = 250_000_000;
/// A listener the iterator found has this long for its own record to arrive.
const ANNOUNCE_NS: u64 = 100_000_000;

/// When the holders of the listening sockets were looked at.
#[derive(Debug, Default)]
pub(super) struct Refresh {
    answered_ns: Option<u64>,
    asked_ns: Option<u64>,
    /// An accept has been kept back for one poll.
    waiting: bool,
}

impl Engine {
    /// Takes the result of the listener iterator: the first one tells of the listeners that were there before, later
    /// ones say who holds them now.
    pub fn handle_listeners(&mut self, now: Timestamp, items: &[ListenerItem]) {
        let is_first = self.refresh.answered_ns.is_none();
        self.refresh = Refresh { answered_ns: Some(now.boot_ns), asked_ns: None, waiting: false };
        let mut found: Vec<(u64, Listener)> = Vec::new();
        let mut index = Index::default();
        // The canaries' listener is nobody's endpoint, however briefly it is there.
        let own = |item: &&ListenerItem| self.canaries.identity().is_own_listener(&Ends::from(item.ends));
        let items: Vec<&ListenerItem> = items.iter().filter(|item| !own(item)).collect();
        for item in items {
            let holder = Holder { task: item.task.into(), cgroup: item.task_cgroup.into() };
            self.processes.ensure(&holder.task);
            let position = *index.entry(item.sock).or_insert_with(|| {
                found.push((item.sock, listener_of(item, now)));
                found.len() - 1
            });
            let holders = &mut found[position].1.holders;
            // Threads share their process's files: one holder each.
            if holders.len() < HOLDERS_MAX && !holders.iter().any(|known| known.task.key == holder.task.key) {
                holders.push(holder);
            }
        }
        for sock in self.listeners.socks() {
            if !index.contains_key(&sock) {
                self.listeners.set_holders(sock, Vec::new());
            }
        }
        for (sock, listener) in found {
            if self.listeners.peek(sock).is_some() {
                self.listeners.set_holders(sock, listener.holders);
            } else {
                self.listeners.insert(sock, listener);
            }
            self.announce_if_changed(now, sock, is_first);
        }
    }

    /// Tells of a listener that was found, or whose holder is another one than the output named last.
    fn announce_if_changed(&mut self, now: Timestamp, sock: u64, is_first: bool) {
        let Some(listener) = self.listeners.peek(sock) else { return };
        let holder = present_holder(listener, &self.processes).map(|holder| holder.task.key);
        let state = match listener.announced {
            None if is_first => ListenerState::Snapshot,
            // Its own record is most likely on its way.
            None if listener.known_ns.saturating_add(ANNOUNCE_NS) > now.boot_ns => return,
            Some(announced) if holder.is_none() || holder == announced => return,
            _ => ListenerState::Changed,
        };
        self.send_listener(now, sock, state);
    }

    pub(super) fn on_listener(&mut self, at: Timestamp, event: &ListenerEvent) {
        if event.opened { self.on_listener_opened(at, event) } else { self.on_listener_closed(at, event) }
    }

    fn on_listener_opened(&mut self, at: Timestamp, event: &ListenerEvent) {
        self.processes.ensure(&event.task);
        let opener = event.task.key;
        match self.listeners.get_mut(event.sock) {
            // The iterator was faster than this record.
            Some(known) if known.known_ns >= at.boot_ns => {
                known.opener = Some(opener);
                if known.announced.is_some() {
                    return;
                }
            }
            _ => {
                let holder = Holder { task: event.task, cgroup: event.task_cgroup };
                let listener = Listener {
                    local: event.ends.local,
                    netns: event.ends.netns,
                    cgroup: event.cgroup,
                    opener: Some(opener),
                    holders: vec![holder],
                    announced: None,
                    known_ns: at.boot_ns,
                };
                self.listeners.insert(event.sock, listener);
            }
        }
        self.send_listener(at, event.sock, ListenerState::Opened);
        self.ask_for_holders(at.boot_ns);
    }

    fn on_listener_closed(&mut self, at: Timestamp, event: &ListenerEvent) {
        let known = self.listeners.remove(event.sock);
        let holder = known
            .as_ref()
            .and_then(|listener| present_holder(listener, &self.processes).copied())
            .unwrap_or(Holder { task: event.task, cgroup: event.task_cgroup });
        let (cgroup, local) =
            known.map_or((event.cgroup, event.ends.local), |known| (known.cgroup, known.local));
        let subject = self.socket_subject(cgroup, Some(holder));
        let kind = FactKind::Listener {
            state: ListenerState::Closed,
            scope: scope_of(local),
            tls: Tls::Unknown,
            netns: event.ends.netns,
        };
        let net = self.listener_net(local);
        self.send(at, subject, Some(net), kind, None);
    }

    fn send_listener(&mut self, at: Timestamp, sock: u64, state: ListenerState) {
        let Some(listener) = self.listeners.get_mut(sock) else { return };
        let holder = present_holder(listener, &self.processes).copied();
        listener.announced = Some(holder.map(|holder| holder.task.key));
        let (local, netns, cgroup) = (listener.local, listener.netns, listener.cgroup);
        let subject = self.socket_subject(cgroup, holder);
        let kind = FactKind::Listener { state, scope: scope_of(local), tls: Tls::Unknown, netns };
        let net = self.listener_net(local);
        self.send(at, subject, Some(net), kind, None);
    }

    fn listener_net(&self, local: End) -> Net {
        let service = self.service_of(local.port);
        Net { direction: None, peer: None, local: Some(local), service, conn: None }
    }

    /// Asks for a new look at the holders, unless one was asked for a moment ago or none can be had.
    pub(super) fn ask_for_holders(&mut self, now_ns: u64) {
        let asked = self.refresh.asked_ns.is_some_and(|asked| now_ns < asked.saturating_add(STALE_NS));
        if self.refresh.answered_ns.is_some() && !asked {
            self.refresh.asked_ns = Some(now_ns);
            self.outbox.request(Request::RefreshListeners);
        }
    }

    /// Whether an accept should wait for one poll because the holders were looked at too long ago.
    pub(super) fn wait_for_holders(&mut self, accepted_ns: u64, now: Timestamp) -> bool {
        if std::mem::take(&mut self.refresh.waiting) {
            return false;
        }
        let Some(answered) = self.refresh.answered_ns else { return false };
        let asked_lately =
            self.refresh.asked_ns.is_some_and(|asked| now.boot_ns < asked.saturating_add(STALE_NS));
        if accepted_ns <= answered.saturating_add(STALE_NS) || asked_lately {
            return false;
        }
        self.ask_for_holders(now.boot_ns);
        self.refresh.waiting = true;
        true
    }
}

fn listener_of(item: &ListenerItem, now: Timestamp) -> Listener {
    let ends = Ends::from(item.ends);
    Listener {
        local: ends.local,
        netns: ends.netns,
        cgroup: item.cgroup.into(),
        opener: None,
        holders: Vec::new(),
        announced: None,
        known_ns: now.boot_ns,
    }
}
