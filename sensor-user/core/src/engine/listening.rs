//! Listeners on watched ports and of daemons: opened, found, passed on, reached, closed; and when to look again who
//! holds them.

use std::net::IpAddr;
use std::sync::Arc;

use sensor_common::record::ListenerItem;

use crate::bounded::Index;
use crate::daemons;
use crate::engine::{Depth, Engine, Request};
use crate::event::{Ends, ListenerEvent};
use crate::exposure::{EndpointKey, Listening, Withheld};
use crate::fact::{ExecRole, FactKind, LeadsTo, ListenerState, Net, Reach, Service};
use crate::ids::ProcessKey;
use crate::listeners::{Holder, Listener, Traits, holder_at, present_holder, scope_of};
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

/// Ports of daemons that the probes were told to watch beside the configured ones.
#[derive(Debug, Default)]
pub(super) struct LearnedPorts {
    ports: Index<u16, Depth>,
    /// How many of them were expected before anything listened there.
    expected: usize,
}

impl LearnedPorts {
    /// Every port, in order.
    pub(super) fn ports(&self) -> impl Iterator<Item = (u16, Depth)> {
        let mut ports: Vec<_> = self.ports.iter().map(|(port, depth)| (*port, *depth)).collect();
        ports.sort_unstable();
        ports.into_iter()
    }

    /// Whether accepts at a port are watched.
    pub(super) fn has_accepts(&self, port: u16) -> bool {
        self.ports.get(&port).is_some_and(|depth| *depth >= Depth::Accepts)
    }

    /// Enters a port at which a listener is expected, unless it is known or there are as many as may be.
    pub(super) fn expect(&mut self, port: u16, most: usize) -> bool {
        if self.expected >= most || self.ports.contains_key(&port) {
            return false;
        }
        self.expected += 1;
        self.ports.insert(port, Depth::Listeners);
        true
    }

    /// Enters a port with a listener. Returns whether that is news.
    fn learn(&mut self, port: u16, depth: Depth) -> bool {
        let is_news = self.ports.get(&port).is_none_or(|known| *known < depth);
        if is_news {
            self.ports.insert(port, depth);
        }
        is_news
    }
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
                let traits = self.traits_of(item.ends.local_port, None);
                found.push((item.sock, listener_of(item, traits, now)));
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
                self.listeners.lose_holders(sock, now.boot_ns);
            }
        }
        for (sock, listener) in found {
            if self.listeners.peek(sock).is_some() {
                self.listeners.set_holders(sock, listener.holders);
            } else if self.is_of_interest(&listener) {
                self.listeners.insert(sock, listener);
            }
            self.announce_if_changed(now, sock, is_first);
        }
        if is_first {
            for id in self.containers.keys() {
                self.follow_published(now, &id);
            }
        }
    }

    /// Whether it has been looked what listens.
    pub(super) fn knows_listeners(&self) -> bool {
        self.refresh.answered_ns.is_some()
    }

    /// Whether a listener is on a watched port, a daemon's, or leads to a watched port.
    fn is_of_interest(&self, listener: &Listener) -> bool {
        let port = listener.local.port;
        self.configured_service(port).is_some()
            || listener.holders.iter().any(|Holder { task, .. }| {
                let role = self.processes.peek(task.key).and_then(|entry| entry.image.role);
                let traits = self.traits_of(port, Some(task.key));
                role == Some(ExecRole::Daemon) || traits.service != Service::Other
            })
    }

    /// What is served at a port: by the configuration, else by what its holder was told to serve there.
    fn traits_of(&self, port: u16, holder: Option<ProcessKey>) -> Traits {
        let image = holder.and_then(|key| self.processes.peek(key)).map(|entry| &entry.image);
        let configured = self.configured_service(port);
        let options = holder.and_then(|key| self.daemon_options.peek(&key));
        let question = daemons::Question { port, configured, options };
        let known = image.map_or(daemons::UNKNOWN, |image| {
            daemons::port(image.exe.as_deref(), image.args.as_deref().unwrap_or_default(), &question)
        });
        let leads_to = known.leads_to.map(|(ip, port)| LeadsTo { ip, port, service: self.service_of(port) });
        // A runtime keeps a port that the packet filter publishes from others by listening at it.
        let is_daemon = image.is_some_and(|image| image.role == Some(ExecRole::Daemon));
        let leads_to = leads_to.or_else(|| self.published_at(port).filter(|_| is_daemon));
        let service = configured.or(known.service);
        let service = service.or(leads_to.map(|to| to.service)).unwrap_or(Service::Other);
        Traits { service, tls: known.tls, leads_to }
    }

    /// Tells of a listener that was found, or whose holder is another one than the output named last or executes another
    /// program.
    pub(super) fn announce_if_changed(&mut self, now: Timestamp, sock: u64, is_first: bool) {
        let Some(listener) = self.listeners.peek(sock) else { return };
        let holder = present_holder(listener, &self.processes).map(|holder| holder.task.key);
        let is_told =
            |announced| holder == announced && self.traits_of(listener.local.port, holder) == listener.traits;
        let state = match listener.announced {
            None if is_first => ListenerState::Snapshot,
            // Its own record is most likely on its way.
            None if listener.known_ns.saturating_add(ANNOUNCE_NS) > now.boot_ns => return,
            Some(announced) if holder.is_none() || is_told(announced) => return,
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
                    traits: self.traits_of(event.ends.local.port, Some(opener)),
                    cgroup: event.cgroup,
                    opener: Some(opener),
                    holders: vec![holder],
                    unheld_ns: None,
                    announced: None,
                    known_ns: at.boot_ns,
                };
                if !self.is_of_interest(&listener) {
                    return;
                }
                self.listeners.insert(event.sock, listener);
            }
        }
        self.send_listener(at, event.sock, ListenerState::Opened);
        self.ask_for_holders(at.boot_ns);
    }

    fn on_listener_closed(&mut self, at: Timestamp, event: &ListenerEvent) {
        let known = self.listeners.remove(event.sock);
        if known.is_none() && self.configured_service(event.ends.local.port).is_none() {
            return;
        }
        let holder = known
            .as_ref()
            .and_then(|listener| holder_at(listener, at.boot_ns, &self.processes).copied())
            .unwrap_or(Holder { task: event.task, cgroup: event.task_cgroup });
        let listener = known.unwrap_or_else(|| Listener {
            local: event.ends.local,
            netns: event.ends.netns,
            traits: self.traits_of(event.ends.local.port, Some(holder.task.key)),
            cgroup: event.cgroup,
            opener: None,
            holders: Vec::new(),
            unheld_ns: None,
            announced: None,
            known_ns: at.boot_ns,
        });
        let reach = self.exposure.close(at, listener.endpoint()).unwrap_or_default();
        let subject = self.socket_subject(listener.cgroup, Some(holder));
        let (net, kind) = listener_fact(&listener, ListenerState::Closed, reach);
        self.send(at, subject, Some(net), kind, None);
    }

    fn send_listener(&mut self, at: Timestamp, sock: u64, state: ListenerState) {
        let Some(listener) = self.listeners.peek(sock) else { return };
        let holder = present_holder(listener, &self.processes).copied();
        let key = holder.map(|holder| holder.task.key);
        let traits = self.traits_of(listener.local.port, key);
        let Some(listener) = self.listeners.get_mut(sock) else { return };
        listener.announced = Some(key);
        // Nobody left to ask: what was known before holds.
        if key.is_some() {
            listener.traits = traits;
        }
        let (cgroup, endpoint, traits) = (listener.cgroup, listener.endpoint(), listener.traits);
        let subject = self.socket_subject(cgroup, holder);
        let listening = Listening {
            service: traits.service,
            tls: traits.tls,
            leads_to: traits.leads_to,
            process: subject.process.clone(),
            container: subject.container.clone(),
        };
        let reach = self.exposure.listen(at, endpoint, state, listening);
        self.learn_port(endpoint.local.port, traits.service, self.is_host_cgroup(cgroup));
        let Some(listener) = self.listeners.peek(sock) else { return };
        if self.is_served_by_packets(listener) {
            self.want_packets(at);
        }
        let Some(listener) = self.listeners.peek(sock) else { return };
        let (net, kind) = listener_fact(listener, state, reach);
        self.send(at, subject, Some(net), kind, None);
    }

    /// Lets the probes watch a port that no configuration names: for the end of the listener, and for who comes to a
    /// management service. What is said there is read for the host's daemons only: in a container anybody may call himself
    /// one, and name a port that others serve something else on.
    fn learn_port(&mut self, port: u16, service: Service, is_hosts: bool) {
        let depth = match service {
            Service::Other => Depth::Listeners,
            _ if is_hosts && service.is_plaintext() => Depth::Requests,
            _ if is_hosts && service.is_encrypted() => Depth::Hellos,
            _ => Depth::Accepts,
        };
        if self.configured_service(port).is_none() && self.learned.learn(port, depth) {
            self.outbox.request(Request::WatchPort { port, depth });
        }
    }

    /// Enters a connection in the ledger and tells of the first peer from outside.
    pub(super) fn note_reach(&mut self, at: Timestamp, sock: u64, peer: IpAddr) {
        let Some(listener) = self.listeners.peek(sock) else { return };
        let is_outside = self.inside.is_outside(peer);
        if self.exposure.accept(at, listener.endpoint(), peer, is_outside) {
            self.send_listener(at, sock, ListenerState::Changed);
        }
    }

    /// Enters connections of a flood in the ledger, and tells of their peer if it is one and the first from outside.
    pub(super) fn note_withheld(
        &mut self,
        at: Timestamp,
        sock: u64,
        withheld: &Withheld,
        peer: Option<IpAddr>,
    ) {
        let Some(listener) = self.listeners.peek(sock) else { return };
        let outside = peer.filter(|peer| self.inside.is_outside(*peer));
        if self.exposure.add_withheld(at, listener.endpoint(), withheld, outside) {
            self.send_listener(at, sock, ListenerState::Changed);
        }
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

fn listener_of(item: &ListenerItem, traits: Traits, now: Timestamp) -> Listener {
    let ends = Ends::from(item.ends);
    Listener {
        local: ends.local,
        netns: ends.netns,
        traits,
        cgroup: item.cgroup.into(),
        opener: None,
        holders: Vec::new(),
        unheld_ns: None,
        announced: None,
        known_ns: now.boot_ns,
    }
}

fn listener_fact(listener: &Listener, state: ListenerState, reach: Reach) -> (Net, FactKind) {
    let &Listener { local, netns, traits: Traits { service, tls, leads_to }, .. } = listener;
    let net = Net { direction: None, peer: None, local: Some(local), service, conn: None };
    let reach = (reach.accepts > 0).then(|| Arc::new(reach));
    (net, FactKind::Listener { state, scope: scope_of(local), tls, netns, leads_to, reach })
}

impl Listener {
    fn endpoint(&self) -> EndpointKey {
        EndpointKey { netns: self.netns, local: self.local }
    }
}
