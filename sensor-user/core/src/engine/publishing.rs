//! Ports of the host that a runtime publishes for containers, without a program of its own that passes bytes on.
//!
//! Where the packet filter leads into the container, nothing need listen on the host (or the runtime does, to keep the port
//! for itself), and what docker-proxy says in its arguments is said by the container's state alone. Only ports that lead to
//! a watched one count.

use std::sync::Arc;

use super::subject::{Subject, View, Whereabouts};
use crate::containers::Life;
use crate::engine::Engine;
use crate::exposure::{EndpointKey, Listening};
use crate::fact::{
    End, Enrichment, ExecRole, FactKind, LeadsTo, ListenerState, Net, Published, Reach, Scope, Tls,
};
use crate::listeners::{Listener, present_holder};
use crate::time::Timestamp;

/// Most published ports that are followed; the one used longest ago goes first.
pub(super) const PUBLISHED_MAX: usize = 1024;

/// Where a published port leads.
#[derive(Debug)]
pub(super) struct Lead {
    id: Arc<str>,
    to: LeadsTo,
    /// Nothing listens there: the output tells of it for the container.
    told: bool,
}

impl Engine {
    /// Takes the network namespace of the host, in which ports are published.
    pub fn handle_host_network(&mut self, netns: u32) {
        self.host_netns = netns;
    }

    /// Where a port that a runtime itself holds leads.
    pub(super) fn published_at(&self, port: u16) -> Option<LeadsTo> {
        self.published.iter().find(|(host, _)| host.port == port).map(|(_, lead)| lead.to)
    }

    /// Follows the published ports of a container that runs, once it is known what listens on the host.
    pub(super) fn follow_published(&mut self, at: Timestamp, id: &Arc<str>) {
        let Some(entry) = self.containers.peek(id) else { return };
        let state = match entry.life {
            Life::Known => ListenerState::Snapshot,
            Life::Running => ListenerState::Opened,
            Life::Created | Life::Stopped | Life::Removed => return,
        };
        if entry.published.is_empty() || self.host_netns == 0 || !self.knows_listeners() {
            return;
        }
        let published = entry.published.clone();
        for Published { host, inner } in published {
            let Some(service) = self.configured_service(inner.port) else { continue };
            let to = LeadsTo { ip: inner.ip, port: inner.port, service };
            if self.published.peek(&host).is_some_and(|lead| lead.id == *id && lead.to == to) {
                continue;
            }
            let socks = self.kept_by_runtimes(host);
            let lead = Lead { id: Arc::clone(id), to, told: socks.is_empty() };
            if let Some((host, lead)) = self.published.insert(host, lead) {
                self.close_published(at, host, &lead);
            }
            for &sock in &socks {
                self.announce_if_changed(at, sock, false);
            }
            if socks.is_empty() {
                self.send_published(at, host, id, to, state);
            }
        }
    }

    /// Listeners by which a runtime keeps or serves a port that it publishes. It may live in a network namespace of its own.
    fn kept_by_runtimes(&self, host: End) -> Vec<u64> {
        let is_runtimes = |listener: &Listener| {
            let holder = present_holder(listener, &self.processes);
            let entry = holder.and_then(|holder| self.processes.peek(holder.task.key));
            let role = entry.and_then(|entry| entry.image.role);
            matches!(role, Some(ExecRole::Daemon | ExecRole::Shim))
                && !matches!(self.place(listener.cgroup), Whereabouts::Container(_))
        };
        let found = self.listeners.at(host).into_iter().filter(|(_, listener)| is_runtimes(listener));
        found.map(|(sock, _)| sock).collect()
    }

    /// A container runs no more, and its ports lead nowhere.
    pub(super) fn forget_published(&mut self, at: Timestamp, id: &str) {
        let own = self.published.iter().filter(|(_, lead)| *lead.id == *id).map(|(host, _)| *host);
        for host in own.collect::<Vec<_>>() {
            if let Some(lead) = self.published.remove(&host) {
                self.close_published(at, host, &lead);
            }
        }
    }

    fn close_published(&mut self, at: Timestamp, host: End, lead: &Lead) {
        if lead.told {
            self.send_published(at, host, &lead.id, lead.to, ListenerState::Closed);
        }
    }

    fn send_published(&mut self, at: Timestamp, host: End, id: &Arc<str>, to: LeadsTo, state: ListenerState) {
        let View { container, k8s, enriched, truncated } = self.view_container(id);
        let key = EndpointKey { netns: self.host_netns, local: host };
        let reach = if state == ListenerState::Closed {
            self.exposure.close(at, key).unwrap_or_default()
        } else {
            let listening = Listening {
                service: to.service,
                tls: Tls::Unknown,
                leads_to: Some(to),
                process: None,
                container: Some(container.clone()),
            };
            self.exposure.listen(at, key, state, listening)
        };
        let enrichment = if enriched { Enrichment::Ok } else { Enrichment::Partial };
        let subject = Subject { process: None, container: Some(container), k8s, enrichment, truncated };
        let net = Net { direction: None, peer: None, local: Some(host), service: to.service, conn: None };
        let kind = FactKind::Listener {
            state,
            scope: Scope::of(host.ip),
            tls: Tls::Unknown,
            netns: self.host_netns,
            leads_to: Some(to),
            reach: (reach != Reach::default()).then(|| Arc::new(reach)),
        };
        self.send(at, subject, Some(net), kind, None);
    }
}
