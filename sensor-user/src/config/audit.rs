//! The `audit` section: where requests to the Kubernetes API server are told.

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{At, Network};

/// Where requests to the Kubernetes API server are told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuditSection {
    /// Audit logs that are followed while they are written, by path; `-` is standard input.
    #[garde(length(max = 16))]
    #[schemars(with = "Vec<String>", length(max = 16))]
    pub files: Vec<At<String>>,
    /// Where it is kept how far each file was read.
    #[garde(skip)]
    #[schemars(with = "String")]
    pub positions: At<String>,
    /// Proxies in front of the API server that are believed when they say for whom they speak (`X-Forwarded-For`).
    #[garde(length(max = 1000))]
    pub trusted_proxies: Vec<At<Network>>,
}

impl Default for AuditSection {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            positions: "/var/lib/quaywatch/audit.positions".to_owned().into(),
            trusted_proxies: Vec::new(),
        }
    }
}
