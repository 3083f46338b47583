//! Who takes a connection, and what a credential is good for.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Direction, End, Fact, FactKind, Service};
use crate::ids::ConnId;

/// The task that took an accepted connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptingTask {
    /// Thread group id in the initial pid namespace.
    pub pid: u32,
    /// Start of the process, boot clock, nanoseconds.
    pub start_ns: u64,
    /// Name, at most 15 bytes.
    pub comm: Arc<str>,
    /// Path of the executable, when known.
    pub exe: Option<Arc<str>>,
}

/// What a credential file is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CredentialClass {
    /// A token of a Kubernetes service account, as pods have it.
    ServiceAccountToken,
    /// A kubeconfig.
    Kubeconfig,
    /// Keys and certificates of the cluster's own authority.
    ClusterPki,
    /// The client certificate of the kubelet.
    KubeletCertificate,
    /// Keys and certificates for the Docker API.
    DockerCertificate,
    /// The Docker client's configuration, which holds the logins of registries.
    DockerConfig,
}

impl CredentialClass {
    /// Every class.
    pub const ALL: [Self; 6] = [
        Self::ServiceAccountToken,
        Self::Kubeconfig,
        Self::ClusterPki,
        Self::KubeletCertificate,
        Self::DockerCertificate,
        Self::DockerConfig,
    ];
}

/// The far end of a connection that a program of the node passes on over another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Who opened it.
    pub end: End,
    /// The connection, if it is one that is told of.
    pub conn: Option<ConnId>,
}

impl Fact {
    /// Who is behind the connection, when a program of the node passes on what that one says.
    #[must_use]
    pub fn client(&self) -> Option<&Client> {
        match &self.kind {
            FactKind::Accept { client, .. } => client.as_deref(),
            FactKind::ApiRequest(api) => api.client.as_deref(),
            _ => None,
        }
    }

    /// Who has come to a management service by this fact, to which, and on which connection: its far end, over whatever hops.
    #[must_use]
    pub fn access(&self) -> Option<(IpAddr, Service, &ConnId)> {
        let net = self.net.as_ref();
        match &self.kind {
            FactKind::ApiRequest(api) if let Some(used) = &api.socket => {
                Some((self.far_peer()?, api.service(net), &used.conn))
            }
            FactKind::Accept { .. } | FactKind::ApiRequest(_) | FactKind::TlsHello(_) => {
                let net = net.filter(|net| net.direction == Some(Direction::Inbound))?;
                Some((self.far_peer()?, net.service, net.conn.as_ref()?))
            }
            _ => None,
        }
    }

    /// The address of whoever is at the far end of the connection, over any number of hops, as far as they are known.
    #[must_use]
    pub fn far_peer(&self) -> Option<IpAddr> {
        let last_hop = || self.net.as_ref()?.peer;
        let end = self.client().map(|client| client.end).or_else(last_hop)?;
        Some(end.ip.to_canonical())
    }
}
