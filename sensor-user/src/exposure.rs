//! The answer of `quaywatch exposure`: every management endpoint of this host, or of recordings, the worst first.
//!
//! Feeds facts to a ledger for each node and turns the ledgers into a report. Where the facts come from is not known here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use schemars::JsonSchema;
use sensor_core::exposure::{self, EndpointKey, Inside, Ledger};
use sensor_core::fact::{self, Fact};
use serde::{Deserialize, Serialize};

use crate::doctor;
use crate::wire::{Exposure, LeadsTo, ListenerTls, PeerSeen, Runtime, Scope, Service, UtcTime};

mod text;

/// The answer of `quaywatch exposure`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "quaywatch exposure", extend("$id" = "https://github.com/quaywatch/quaywatch/docs/quaywatch-exposure.schema.json"))]
pub struct Report {
    /// `quaywatch-exposure/1`; changes with every incompatible change.
    pub schema: String,
    /// Where it comes from.
    pub source: Source,
    /// Why the probes could not look, and the remedy. The endpoints are then those of the caller's network namespace only,
    /// without their holders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Endpoints that found no room in the ledger. Absent: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub evicted: u64,
    /// Every endpoint: reached above exposed above the rest.
    pub endpoints: Vec<Endpoint>,
}

/// Where a report comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// This host at this moment: who has connected before is not known.
    Host,
    /// Recorded output, which knows who has connected.
    Recordings,
}

/// One management endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Endpoint {
    /// The node it is on; absent when only procfs could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// How much it asks for attention.
    pub exposure: Exposure,
    /// Where it listens.
    pub address: SocketAddr,
    /// Inode of its network namespace; absent: that of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
    /// What is served there.
    pub service: Service,
    /// Reach of its address, in its network namespace.
    pub scope: Scope,
    /// Whether it speaks TLS.
    pub tls: ListenerTls,
    /// Where it leads, when a runtime publishes it for a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leads_to: Option<LeadsTo>,
    /// A process that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The container it is in; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// When it opened last, or was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<UtcTime>,
    /// It was found listening: it opened at `since` or before. Absent: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub or_before: bool,
    /// When it closed; absent: it listens, as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<UtcTime>,
    /// Connections, those withheld by flood control included. Absent: none, or not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub accepts: u64,
    /// Different outside peers; 64 stands for so many or more. Absent: none, or not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub outside_peers: u64,
    /// The first peer from outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_peer: Option<PeerSeen>,
    /// The latest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_peer: Option<PeerSeen>,
}

/// A process that holds an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// Thread group id in the initial pid namespace.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// Path of the executable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
}

/// A container that an endpoint is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// The runtime's full id.
    pub id: String,
    /// Its runtime.
    pub runtime: Runtime,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its image reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A ledger for each node.
#[derive(Debug)]
pub struct Ledgers {
    networks: Vec<IpNetwork>,
    nodes: BTreeMap<Arc<str>, (Ledger, Inside)>,
}

impl Ledgers {
    /// Ledgers for which these networks are not outside.
    #[must_use]
    pub const fn new(networks: Vec<IpNetwork>) -> Self {
        Self { networks, nodes: BTreeMap::new() }
    }

    /// Takes a fact of any node.
    pub fn take(&mut self, fact: &Fact) {
        let (ledger, inside) = self.of(&fact.node.name);
        ledger.take(fact, inside);
    }

    /// Takes a node's own addresses.
    pub fn take_addresses(&mut self, node: &Arc<str>, addresses: &[IpAddr]) {
        addresses.clone_into(&mut self.of(node).1.own);
    }

    fn of(&mut self, node: &Arc<str>) -> &mut (Ledger, Inside) {
        let inside = || Inside { networks: self.networks.clone(), own: Vec::new() };
        self.nodes.entry(node.clone()).or_insert_with(|| (Ledger::default(), inside()))
    }
}

impl Report {
    /// What the ledgers hold.
    #[must_use]
    pub fn of_ledgers(source: Source, ledgers: &Ledgers) -> Self {
        let endpoints = ledgers.nodes.iter().flat_map(|(node, (ledger, _))| {
            ledger.endpoints().into_iter().map(|(key, endpoint)| Endpoint::new(node, &key, endpoint))
        });
        let evicted = ledgers.nodes.values().map(|(ledger, _)| ledger.evicted()).sum();
        Self::sorted(source, None, evicted, endpoints.collect())
    }

    /// What procfs shows, when the probes could not look.
    #[must_use]
    pub fn of_procfs(problem: String, found: Vec<doctor::Listener>) -> Self {
        let endpoints = found.into_iter().map(Endpoint::of_procfs).collect();
        Self::sorted(Source::Host, Some(problem), 0, endpoints)
    }

    fn sorted(source: Source, problem: Option<String>, evicted: u64, mut endpoints: Vec<Endpoint>) -> Self {
        let tls = |endpoint: &Endpoint| match endpoint.tls {
            ListenerTls::Plaintext => 0,
            ListenerTls::Unknown => 1,
            ListenerTls::Tls => 2,
        };
        // Within an exposure the widest scope first.
        endpoints
            .sort_by_key(|endpoint| (endpoint.exposure, std::cmp::Reverse(endpoint.scope), tls(endpoint)));
        Self { schema: "quaywatch-exposure/1".to_owned(), source, problem, evicted, endpoints }
    }

    /// The report for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        text::write(self, &mut text).expect("invariant: a string can be written");
        text
    }
}

impl Endpoint {
    fn new(node: &str, key: &EndpointKey, endpoint: &exposure::Endpoint) -> Self {
        let exposure::Listening { service, tls, leads_to, process, container } = &endpoint.listening;
        let owned = |text: &Option<Arc<str>>| text.as_ref().map(ToString::to_string);
        let reach = endpoint.reach();
        Self {
            node: Some(node.to_owned()),
            exposure: exposure::Exposure::of(key, endpoint).into(),
            address: SocketAddr::new(key.local.ip, key.local.port),
            netns: Some(key.netns),
            service: (*service).into(),
            scope: fact::Scope::of(key.local.ip).into(),
            tls: (*tls).into(),
            leads_to: leads_to.map(Into::into),
            process: process.as_deref().map(|process| Process {
                pid: process.pid,
                comm: process.comm.to_string(),
                exe: owned(&process.exe),
            }),
            container: container.as_deref().map(|container| Container {
                id: container.id.to_string(),
                runtime: container.runtime.into(),
                name: owned(&container.name),
                image: owned(&container.image),
            }),
            since: Some(UtcTime(endpoint.since.unix_ns)),
            or_before: endpoint.is_older,
            closed: endpoint.closed.map(|at| UtcTime(at.unix_ns)),
            accepts: reach.accepts,
            outside_peers: reach.outside_peers.into(),
            first_peer: reach.first.map(Into::into),
            last_peer: reach.last.map(Into::into),
        }
    }

    fn of_procfs(found: doctor::Listener) -> Self {
        let exposure = match found.scope {
            Scope::Loopback => Exposure::Local,
            Scope::Private | Scope::Any => Exposure::Exposed,
        };
        Self {
            node: None,
            exposure,
            address: found.address,
            netns: found.netns,
            service: found.service,
            scope: found.scope,
            tls: ListenerTls::Unknown,
            leads_to: None,
            process: None,
            container: None,
            since: None,
            or_before: false,
            closed: None,
            accepts: 0,
            outside_peers: 0,
            first_peer: None,
            last_peer: None,
        }
    }
}

#[cfg(test)]
mod tests;
