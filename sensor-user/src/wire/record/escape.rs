//! The object of the records that say what of the host a program of a container is in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::lists::HostNamespace;

/// What of the host a program of a container is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// Namespaces of the host that its container has not.
    pub namespaces: Vec<HostNamespace>,
    /// Its root directory is the host's. Absent: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub root: bool,
}
