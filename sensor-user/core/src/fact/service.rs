//! Management services.

/// A management service, known by the configured port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// Docker API, plaintext by convention.
    Docker,
    /// Docker API over TLS.
    DockerTls,
    /// Kubernetes API server.
    KubeApiserver,
    /// kubelet API.
    Kubelet,
    /// Read-only kubelet port.
    KubeletReadonly,
    /// Any other port.
    Other,
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 6] = [
        Self::Docker,
        Self::DockerTls,
        Self::KubeApiserver,
        Self::Kubelet,
        Self::KubeletReadonly,
        Self::Other,
    ];

    /// The name in configuration and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::DockerTls => "docker-tls",
            Self::KubeApiserver => "kube-apiserver",
            Self::Kubelet => "kubelet",
            Self::KubeletReadonly => "kubelet-readonly",
            Self::Other => "other",
        }
    }

    /// The service with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.name() == name)
    }

    /// Whether its requests are made in plaintext, so that they can be read.
    #[must_use]
    pub const fn is_plaintext(self) -> bool {
        matches!(self, Self::Docker | Self::KubeletReadonly)
    }

    /// Whether it is spoken in TLS, so that only what clients say first can be read.
    #[must_use]
    pub const fn is_encrypted(self) -> bool {
        matches!(self, Self::DockerTls | Self::KubeApiserver | Self::Kubelet)
    }
}
