//! What counts as taking a credential and as going to the cluster with one, and who did it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::An1547Limits;
use crate::allow_list::in_any;
use crate::chains::analytic::{AN1547, CLUSTER_CONNECT, CREDENTIAL_READ, UNLISTED_CLUSTER_PEER};
use crate::chains::{Signal, SignalKey};
use crate::fact::{
    ConnectResult, CredentialClass, Direction, ExecRole, Fact, FactKind, Net, Process, Service, Verdict,
};
use crate::ids::RecordId;
use crate::role;
use crate::time::Timestamp;

/// What somebody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Opens a credential of the cluster.
    Read,
    /// Connects to the API server or a kubelet.
    Use,
}

/// An act in a container of somebody who is not its workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Act {
    pub(super) at: Timestamp,
    pub(super) event: RecordId,
    /// Name of the program.
    pub(super) program: Arc<str>,
    /// The file, or the address.
    pub(super) object: Arc<str>,
    /// Management records lost around it.
    pub(super) lost: u64,
}

impl Act {
    /// The act that a fact of a container tells of. `first`: process id of the container's first program.
    pub(super) fn of(
        fact: &Fact,
        verdict: Option<&Verdict>,
        first: Option<u32>,
        limits: &An1547Limits,
    ) -> Option<(Kind, Self)> {
        let (kind, object) = match &fact.kind {
            FactKind::FileRead { path, class } if is_clusters(*class) => {
                (Kind::Read, path.clone().unwrap_or_else(|| "a credential file".into()))
            }
            FactKind::Connect { result: ConnectResult::Established } => {
                (Kind::Use, cluster_of(fact.net.as_ref()?, limits)?)
            }
            _ => return None,
        };
        let is_listed = matches!(verdict, Some(Verdict::Listed(_)));
        let is_odd =
            |process: &&Process| is_hidden_tool(process) || (!is_listed && is_brought_in(process, first));
        let process = fact.process.as_deref().filter(is_odd)?;
        let (at, event, lost) = (fact.at, fact.id.clone(), fact.quality.lost);
        Some((kind, Self { at, event, program: process.comm.clone(), object, lost }))
    }

    /// Whether another one says nothing new beside it.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.program == other.program && self.object == other.object
    }

    /// The act as it is offered to correlation: by connection, container and target.
    pub(super) fn signal(&self, kind: Kind, container: &Arc<str>, fact: &Fact) -> Signal {
        let mut keys = Vec::new();
        if let Some(conn) = fact.net.as_ref().and_then(|net| net.conn.as_ref()) {
            keys.push((SignalKey::Conn, conn.0.clone()));
        }
        keys.push((SignalKey::Container, container.clone()));
        keys.push((SignalKey::Event, fact.id.0.clone()));
        let (name, stage) = match kind {
            Kind::Read => (CREDENTIAL_READ, 0),
            Kind::Use => {
                keys.push((SignalKey::Target, self.object.clone()));
                (CLUSTER_CONNECT, 1)
            }
        };
        signal(name, stage, keys)
    }
}

/// A peer that nobody expects at the API server or the kubelet of this node. By itself it is no chain: it may have any
/// credential, or none.
pub(super) fn unlisted_peer(fact: &Fact, verdict: Option<&Verdict>) -> Option<Signal> {
    let net = fact.net.as_ref()?;
    let is_access = matches!(fact.kind, FactKind::Accept { .. })
        && matches!(net.service, Service::KubeApiserver | Service::Kubelet)
        && verdict == Some(&Verdict::Unlisted);
    let peer = net.peer.filter(|_| is_access)?;
    let mut keys = Vec::new();
    if let Some(conn) = &net.conn {
        keys.push((SignalKey::Conn, conn.0.clone()));
    }
    keys.push((SignalKey::Event, fact.id.0.clone()));
    keys.push((SignalKey::Peer, Arc::from(peer.ip.to_canonical().to_string())));
    keys.push((SignalKey::Service, net.service.name().into()));
    Some(signal(UNLISTED_CLUSTER_PEER, 1, keys))
}

fn signal(name: &'static str, stage: usize, keys: Vec<(SignalKey, Arc<str>)>) -> Signal {
    let stage = AN1547.stages[stage].name.into();
    Signal { name: name.into(), analytic: AN1547.id.into(), stage, keys }
}

/// Whether a process goes by another name than its program's, which is a tool of container management.
fn is_hidden_tool(process: &Process) -> bool {
    process.program.renamed && process.program.tool.is_some()
}

/// Whether a process in a container is none that its first program has started, but one that a runtime put there, which
/// shows by its descent. Where that is not known as far as the runtime nobody is accused.
fn is_brought_in(process: &Process, first: Option<u32>) -> bool {
    first.is_some_and(|first| {
        let ancestors = &process.ancestors;
        let is_descendant = process.pid == first || ancestors.iter().any(|ancestor| ancestor.pid == first);
        !is_descendant && ancestors.iter().any(|ancestor| is_runtimes(&ancestor.comm))
    })
}

fn is_runtimes(comm: &str) -> bool {
    matches!(role::of_name(comm, &[]), Some(ExecRole::Runtime | ExecRole::Shim | ExecRole::Daemon))
}

const fn is_clusters(class: CredentialClass) -> bool {
    match class {
        CredentialClass::ServiceAccountToken
        | CredentialClass::Kubeconfig
        | CredentialClass::ClusterPki
        | CredentialClass::KubeletCertificate => true,
        CredentialClass::DockerCertificate | CredentialClass::DockerConfig => false,
    }
}

/// The API server or kubelet that a connection goes to.
fn cluster_of(net: &Net, limits: &An1547Limits) -> Option<Arc<str>> {
    let peer = net.peer.filter(|_| net.direction == Some(Direction::Outbound))?;
    let ip = peer.ip.to_canonical();
    let is_clusters =
        matches!(net.service, Service::KubeApiserver | Service::Kubelet) || in_any(&limits.api, ip);
    is_clusters.then(|| std::net::SocketAddr::new(ip, peer.port).to_string().into())
}
