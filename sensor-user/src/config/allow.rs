//! The `allow` section: who may be expected to do what, and when.

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::file::Port;
use super::values::times::Date;
use super::values::{ActMatch, At, ClassMatch, Network, ServiceMatch};
use super::when::WhenSection;

/// One reviewed expectation: who may be expected at which endpoint, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AllowSection {
    /// Unique name, printed in the verdict.
    #[garde(custom(entry_name))]
    #[schemars(length(min = 1, max = 63))]
    pub name: At<String>,
    /// Who: peers, or containers of the node.
    #[garde(custom(from_lengths))]
    pub from: At<FromSection>,
    /// What: endpoints for peers, acts for containers.
    #[garde(custom(to_lengths))]
    pub to: At<ToSection>,
    /// When it holds; always if nothing is given.
    #[garde(custom(when_lengths))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<At<WhenSection>>,
    /// The last day on which it holds, in the zone of `when`.
    #[garde(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<At<Date>>,
    /// Who answers for the entry.
    #[garde(inner(length(max = 200)))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Why the access is expected.
    #[garde(inner(length(max = 1000)))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

fn entry_name(name: &At<String>, (): &()) -> garde::Result {
    if (1..=63).contains(&name.value.len()) && !name.value.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(garde::Error::new("not a name for an entry; write 1 to 63 bytes on one line"))
    }
}

fn from_lengths(from: &At<FromSection>, (): &()) -> garde::Result {
    let from = &from.value;
    at_most(10_000, "networks", from.cidr.len().max(from.except.len()).max(from.networks.len()))?;
    at_most(1000, "names", from.image.len().max(from.namespace.len()).max(from.container.len()))?;
    at_most(1000, "fingerprints or tools", from.fingerprint.len().max(from.tool.len()))
}

fn to_lengths(to: &At<ToSection>, (): &()) -> garde::Result {
    at_most(1024, "services or ports", to.value.services.len().max(to.value.ports.len()))
}

fn when_lengths(when: &Option<At<WhenSection>>, (): &()) -> garde::Result {
    at_most(7, "spans of days", when.as_ref().map_or(0, |when| when.value.days.len()))
}

fn at_most(max: usize, what: &str, len: usize) -> garde::Result {
    if len <= max {
        Ok(())
    } else {
        Err(garde::Error::new(format!(
            "{len} {what} in one entry; at most {max} are possible, split the entry"
        )))
    }
}

/// Whom an entry speaks of. Peers: any of `cidr`, `networks`, `nodes` and `local`, none of `except`. Containers of the node
/// instead: all of `image`, `namespace` and `container` that are given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FromSection {
    /// Networks that match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cidr: Vec<At<Network>>,
    /// Networks that do not match, whatever else does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<At<Network>>,
    /// Names under `networks` that match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<At<String>>,
    /// Whether the addresses of `networks.nodes.members` match.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub nodes: bool,
    /// Whether loopback and the node's own addresses match.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub local: bool,
    /// Fingerprints (JA4) of the peers' TLS clients: narrows what is said of peers, and agrees with `tls_hello` records only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fingerprint: Vec<At<String>>,
    /// Programs of the peers, by the first product of their `User-Agent`, as in `Docker-Client`: narrows likewise, and agrees
    /// with `api_request` records only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool: Vec<At<String>>,
    /// Containers of these images, as the runtime was told to use them; without tag and digest, of any of the repository.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image: Vec<At<String>>,
    /// Containers in these namespaces of Kubernetes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespace: Vec<At<String>>,
    /// Containers of these names: within their pods, where they are of one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub container: Vec<At<String>>,
}

/// What an entry speaks of: any of the services, any of the ports; for containers any of the acts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ToSection {
    /// Services, or `any`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<At<ServiceMatch>>,
    /// Local ports beside the services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<At<Port>>,
    /// What peers ask for, or `any`: agrees with requests that were read only, never with the mere opening of a connection.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<At<ClassMatch>>,
    /// What containers do, or `any`. `discovery`: they run tools of container management or scanners, connect to the socket
    /// of a runtime, or go through endpoints of others. `credentials`: they open credential files. `start`: they are created
    /// or started, which counts with a `namespace` only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub acts: Vec<At<ActMatch>>,
}
