//! Who takes a connection, and what a credential is good for.

use std::sync::Arc;

use super::End;
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
