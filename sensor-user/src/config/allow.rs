//! The `allow` section: who may be expected to do what, and when.

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::file::Port;
use super::values::times::Date;
use super::values::{At, Network, ServiceMatch};
use super::when::WhenSection;

/// One reviewed expectation: who may be expected at which endpoint, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AllowSection {
    /// Unique name, printed in the verdict.
    #[garde(custom(entry_name))]
    #[schemars(length(min = 1, max = 63))]
    pub name: At<String>,
    /// The peers: any of the kinds given, none of the exceptions.
    #[garde(custom(from_lengths))]
    pub from: At<FromSection>,
    /// The endpoints.
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
    at_most(10_000, "networks", from.cidr.len().max(from.except.len()).max(from.networks.len()))
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

/// The peers an entry speaks of: any of the kinds given, none of the exceptions.
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
}

/// The endpoints an entry speaks of: any of the services, any of the ports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ToSection {
    /// Services, or `any`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<At<ServiceMatch>>,
    /// Local ports beside the services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<At<Port>>,
}
