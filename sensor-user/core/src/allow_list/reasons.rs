//! Which conditions of an entry agreed, for people who change a policy.

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::{Act, AllowEntry, AllowList, Shown, contains, product_of};
use crate::fact::{Fact, FactKind, Service, Verdict};
use crate::http::route::ApiClass;

/// A condition that agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The peer is in this network of the entry.
    Network(IpNetwork),
    /// The peer is this node.
    Node(IpNetwork),
    /// The peer is the node itself.
    Local,
    /// The peer came to this service.
    Service(Service),
    /// The peer came to this port.
    Port(u16),
    /// Its request is of this class.
    Class(ApiClass),
    /// Its client has this fingerprint.
    Fingerprint(Arc<str>),
    /// It comes with this program.
    Tool(Arc<str>),
    /// The container is of this image, in the words of the entry.
    Image(Arc<str>),
    /// The container is in this namespace.
    Namespace(Arc<str>),
    /// The container has this name.
    Container(Arc<str>),
    /// The container does this.
    Act(Act),
}

impl AllowList {
    /// Why an entry decided about a fact that was judged by this list: one condition of each kind that the entry has. Empty
    /// where none decided.
    #[must_use]
    pub fn reasons(&self, fact: &Fact, verdict: &Verdict) -> Vec<Reason> {
        let Verdict::Listed(name) = verdict else { return Vec::new() };
        let Some(entry) = self.entries.iter().find(|entry| entry.name == *name) else { return Vec::new() };
        match entry.from.actor.is_empty() {
            true => self.of_peer(entry, fact).unwrap_or_default(),
            false => entry.from.actor.reasons(fact).unwrap_or_default(),
        }
    }

    fn of_peer(&self, entry: &AllowEntry, fact: &Fact) -> Option<Vec<Reason>> {
        let (peer, service, port) = judged(fact)?;
        let holder =
            |networks: &[IpNetwork]| networks.iter().find(|network| contains(**network, peer)).copied();
        let node = || entry.from.nodes.then(|| holder(&self.nodes)).flatten();
        let who = holder(&entry.from.networks).map(Reason::Network).or_else(|| node().map(Reason::Node));
        let to = &entry.to;
        let by_service = to.services.contains(&service).then_some(Reason::Service(service));
        let by_port = || to.ports.contains(&port).then_some(Reason::Port(port));
        // Whoever is in none of these is there because the node itself is meant, too.
        let mut reasons = vec![who.unwrap_or(Reason::Local)];
        reasons.extend(by_service.or_else(by_port));
        let (shows, shown) = (&entry.from.shows, Shown::by(&fact.kind));
        reasons.extend(shown.class.filter(|_| !shows.classes.is_empty()).map(Reason::Class));
        let fingerprint = shown.fingerprint.filter(|_| !shows.fingerprints.is_empty());
        reasons.extend(fingerprint.map(|text| Reason::Fingerprint(text.into())));
        let agent = shown.user_agent.filter(|_| !shows.tools.is_empty());
        reasons.extend(agent.map(|text| Reason::Tool(product_of(text).into())));
        Some(reasons)
    }
}

/// Who came to which service and port, as it is judged.
fn judged(fact: &Fact) -> Option<(IpAddr, Service, u16)> {
    let net = fact.net.as_ref();
    match &fact.kind {
        FactKind::Audit(audit) => Some((audit.source.trusted?.to_canonical(), Service::KubeApiserver, 0)),
        FactKind::ApiRequest(api) => Some((fact.far_peer()?, api.service(net), port_of(fact))),
        _ => Some((fact.far_peer()?, net?.service, port_of(fact))),
    }
}

fn port_of(fact: &Fact) -> u16 {
    fact.net.as_ref().and_then(|net| net.local).map_or(0, |local| local.port)
}

#[cfg(test)]
mod tests;
