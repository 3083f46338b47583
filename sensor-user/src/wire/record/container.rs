//! Containers in records.

use schemars::JsonSchema;
use sensor_core::risks::Risk;
use serde::{Deserialize, Serialize};

use super::Text;
use crate::wire::lists::{ContainerAction, Runtime};
use crate::wire::risk::RiskName;
use crate::wire::seq::List;

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Container<'a> {
    /// Of kind `container`: what happened to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<ContainerAction>,
    /// The runtime's full id: 64 hex digits for most, free text for ctr and runc.
    #[serde(borrow)]
    pub id: Text<'a>,
    /// Which of several containers of this free-text id it is, which namespaces of containerd or root directories of a runtime
    /// may give at the same time. Absent: the first of them, or the only one. Counted by each run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namesake: Option<u64>,
    /// Its runtime.
    pub runtime: Runtime,
    /// Its name, from the runtime's state on disk.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Text<'a>>,
    /// Its image reference, from the runtime's state on disk.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Text<'a>>,
    /// Its creation time (RFC 3339), from the runtime's state on disk.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Text<'a>>,
    /// What tells of it, the heaviest first; empty: it was looked at and nothing does. Absent: not known (yet).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risks: Option<List<'a, Risk, RiskName>>,
    /// Path of its cgroup from the root of the hierarchy.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Text<'a>>,
}

/// Kubernetes identity of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct K8s<'a> {
    /// Namespace.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Text<'a>>,
    /// Name of the pod.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Text<'a>>,
    /// Uid of the pod.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<Text<'a>>,
    /// Name of the container within the pod.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Text<'a>>,
    /// Service account.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<Text<'a>>,
}
