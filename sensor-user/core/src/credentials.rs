//! Where credentials lie, and what a file there is good for.
//!
//! The probes select by file system and directory, because files in them are replaced all the time; what is not a
//! credential is told by its name here. Knows no file system: the shell finds the places.

use std::sync::Arc;

use crate::fact::{CredentialClass, Runtime};
use crate::ids::FileKey;
use crate::text::basename;

/// The unix socket of a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeSocket {
    /// The file it is bound to.
    pub key: FileKey,
    /// Path of that file on the host.
    pub path: Arc<str>,
    /// Who listens.
    pub service: Runtime,
    /// It is root's: whoever listens is root on the host.
    pub is_roots: bool,
}

impl RuntimeSocket {
    /// Whether what is said there is the Docker API or podman's, over HTTP.
    #[must_use]
    pub const fn speaks_http(&self) -> bool {
        matches!(self.service, Runtime::Docker | Runtime::Podman)
    }
}

/// What is kept in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PlaceKind {
    /// File system of a projected or secret volume of a pod.
    PodVolume,
    /// `/etc/kubernetes`.
    Kubernetes,
    /// `/etc/kubernetes/pki` and what is below.
    ClusterPki,
    /// `/var/lib/kubelet`.
    Kubelet,
    /// `/var/lib/kubelet/pki`.
    KubeletPki,
    /// `.kube` in a home directory.
    KubeHome,
    /// `.docker` in a home directory.
    DockerHome,
    /// `/etc/docker/certs.d` and what is below.
    DockerCerts,
}

/// A file system or a directory with credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CredentialPlace {
    /// Which; inode 0 for a file system.
    pub key: FileKey,
    /// What is kept there.
    pub kind: PlaceKind,
}

impl PlaceKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::PodVolume,
        Self::Kubernetes,
        Self::ClusterPki,
        Self::Kubelet,
        Self::KubeletPki,
        Self::KubeHome,
        Self::DockerHome,
        Self::DockerCerts,
    ];

    /// What a file in such a place is good for; `None` for one that is no credential. A path that is not known counts as
    /// one.
    #[must_use]
    pub fn class_of(self, path: Option<&str>) -> Option<CredentialClass> {
        let name = path.map(basename);
        let is = |matches: fn(&str) -> bool| name.is_none_or(matches);
        let ends = |name: &str, ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        match self {
            Self::PodVolume => {
                is(|name| name.contains("token")).then_some(CredentialClass::ServiceAccountToken)
            }
            Self::Kubernetes => name
                .is_none_or(|name| ends(name, &[".conf", ".kubeconfig"]))
                .then_some(CredentialClass::Kubeconfig),
            Self::Kubelet => is(|name| name == "kubeconfig").then_some(CredentialClass::Kubeconfig),
            Self::KubeHome => name
                .is_none_or(|name| {
                    name.starts_with("config") && !name.ends_with(".lock")
                        || ends(name, &[".conf", ".kubeconfig", ".yaml", ".yml"])
                })
                .then_some(CredentialClass::Kubeconfig),
            Self::ClusterPki => Some(CredentialClass::ClusterPki),
            Self::KubeletPki => Some(CredentialClass::KubeletCertificate),
            Self::DockerHome if name == Some("config.json") => Some(CredentialClass::DockerConfig),
            Self::DockerHome | Self::DockerCerts => name
                .is_none_or(|name| ends(name, &[".pem", ".key", ".cert", ".crt"]))
                .then_some(CredentialClass::DockerCertificate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: PlaceKind, path: &str, expected: Option<CredentialClass>) {
        assert_eq!(kind.class_of(Some(path)), expected, "{kind:?} {path}");
    }

    #[test]
    fn a_file_is_known_by_its_place_and_name() {
        use CredentialClass as Class;
        let run = "/var/run/secrets/kubernetes.io/serviceaccount";
        check(PlaceKind::PodVolume, &format!("{run}/..2026_11_22/token"), Some(Class::ServiceAccountToken));
        check(PlaceKind::PodVolume, &format!("{run}/ca.crt"), None);
        check(PlaceKind::Kubernetes, "/etc/kubernetes/admin.conf", Some(Class::Kubeconfig));
        check(PlaceKind::Kubernetes, "/etc/kubernetes/audit-policy.yaml", None);
        check(PlaceKind::ClusterPki, "/etc/kubernetes/pki/sa.key", Some(Class::ClusterPki));
        check(PlaceKind::Kubelet, "/var/lib/kubelet/kubeconfig", Some(Class::Kubeconfig));
        check(PlaceKind::Kubelet, "/var/lib/kubelet/config.yaml", None);
        check(
            PlaceKind::KubeletPki,
            "/var/lib/kubelet/pki/kubelet-client-current.pem",
            Some(Class::KubeletCertificate),
        );
        check(PlaceKind::KubeHome, "/root/.kube/config", Some(Class::Kubeconfig));
        check(PlaceKind::KubeHome, "/kc/prod.yaml", Some(Class::Kubeconfig));
        check(PlaceKind::KubeHome, "/root/.kube/config.lock", None);
        check(PlaceKind::DockerHome, "/root/.docker/config.json", Some(Class::DockerConfig));
        check(PlaceKind::DockerHome, "/root/.docker/key.pem", Some(Class::DockerCertificate));
        check(PlaceKind::DockerHome, "/root/.docker/contexts", None);
        check(
            PlaceKind::DockerCerts,
            "/etc/docker/certs.d/r:5000/client.key",
            Some(Class::DockerCertificate),
        );
    }

    #[test]
    fn a_path_that_is_too_long_to_tell_does_not_hide_the_file() {
        assert_eq!(PlaceKind::PodVolume.class_of(None), Some(CredentialClass::ServiceAccountToken));
        assert_eq!(PlaceKind::Kubernetes.class_of(None), Some(CredentialClass::Kubeconfig));
        assert_eq!(PlaceKind::DockerHome.class_of(None), Some(CredentialClass::DockerCertificate));
    }
}
