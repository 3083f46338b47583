//! The configuration file as written. Everything in it has a default; comments here are the descriptions of the
//! generated JSON Schema.

use std::collections::BTreeMap;
use std::fmt;

use garde::Validate;
use schemars::JsonSchema;
use sensor_core::fact::Service;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use super::allow::AllowSection;
use super::audit::AuditSection;
use super::detect::DetectSection;
use super::state::StateSection;
use super::values::{At, KindMatch, Network, Period, RuntimeName, ServiceName, Size};
use crate::kernel::FloodLimits;

/// Configuration of quaywatch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "quaywatch configuration", extend("$id" = "https://github.com/quaywatch/quaywatch/docs/quaywatch-config.schema.json"))]
pub struct ConfigFile {
    /// What this node is called in the output.
    #[garde(dive)]
    pub node: NodeSection,
    /// What is watched.
    #[garde(dive)]
    pub watch: WatchSection,
    /// Named networks, for use in `allow`.
    #[garde(dive)]
    pub networks: NetworksSection,
    /// Expected access, in order: the first entry that matches decides and is named in the verdict.
    #[garde(length(max = 1000), dive)]
    pub allow: Vec<AllowSection>,
    /// Whether loopback and the node's own addresses are expected, as if by a last entry `implied-local`.
    #[garde(skip)]
    pub implied_local: bool,
    /// The ring buffers between kernel and agent.
    #[garde(skip)]
    pub rings: RingsSection,
    /// How many accepts of one peer at one port are reported one by one.
    #[garde(skip)]
    pub flood: FloodSection,
    /// How records are completed.
    #[garde(skip)]
    pub enrich: EnrichSection,
    /// How the sensor proves that it sees.
    #[garde(skip)]
    pub coverage: CoverageSection,
    /// Settings of the analytics.
    #[garde(dive)]
    pub detect: DetectSection,
    /// What outlives a restart.
    #[garde(dive)]
    pub state: StateSection,
    /// Where requests to the Kubernetes API server are told.
    #[garde(dive)]
    pub audit: AuditSection,
    /// Where records go.
    #[garde(length(min = 1, max = 8), dive)]
    pub output: Vec<OutputSection>,
}

impl Default for ConfigFile {
    fn default() -> Self {
        Self {
            node: NodeSection::default(),
            watch: WatchSection::default(),
            networks: NetworksSection::default(),
            allow: Vec::new(),
            implied_local: true,
            rings: RingsSection::default(),
            flood: FloodSection::default(),
            enrich: EnrichSection::default(),
            coverage: CoverageSection::default(),
            detect: DetectSection::default(),
            state: StateSection::default(),
            audit: AuditSection::default(),
            output: vec![OutputSection::default()],
        }
    }
}

/// What this node is called in the output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSection {
    /// Name of the node; null: the host name.
    #[garde(inner(length(min = 1, max = 253)))]
    pub name: Option<String>,
    /// Name of the cluster; null: none.
    #[garde(inner(length(min = 1, max = 253)))]
    pub cluster: Option<String>,
}

/// What is watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WatchSection {
    /// TCP ports whose listeners and accepts are reported, each with the service behind it.
    #[garde(length(max = 1024))]
    #[schemars(with = "PortsSchema")]
    pub ports: BTreeMap<Port, At<ServiceName>>,
    /// Names of runtimes or tools beside the built-in list; their execs are reported from anywhere.
    #[garde(length(max = 64), inner(custom(program_name)))]
    #[schemars(inner(length(min = 1, max = 63)))]
    pub runtimes: Vec<String>,
    /// Unix sockets of runtimes beside the built-in list, by path, each with the runtime that serves it.
    #[garde(length(max = 64), custom(socket_paths))]
    #[schemars(with = "BTreeMap<String, RuntimeName>")]
    pub sockets: BTreeMap<String, At<RuntimeName>>,
}

impl Default for WatchSection {
    fn default() -> Self {
        let ports = [
            (2375, Service::Docker),
            (2376, Service::DockerTls),
            (6443, Service::KubeApiserver),
            (10250, Service::Kubelet),
            (10255, Service::KubeletReadonly),
        ];
        Self {
            ports: ports.map(|(port, service)| (Port(port), ServiceName(service).into())).into(),
            runtimes: Vec::new(),
            sockets: BTreeMap::new(),
        }
    }
}

/// Keys of a JSON object are strings: the schema of `watch.ports`.
#[derive(JsonSchema)]
#[schemars(transparent, inline)]
struct PortsSchema(
    #[schemars(extend("propertyNames" = {"pattern": "^[0-9]{1,5}$"}))]
    #[expect(dead_code, reason = "the schema is made from the type")]
    BTreeMap<String, ServiceName>,
);

/// A TCP port; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Port(#[schemars(range(min = 1))] pub u16);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        match text.parse() {
            Ok(port) if port > 0 => Ok(Self(port)),
            _ => Err(serde::de::Error::custom(format_args!(
                "{text:?} is not a port; write a number between 1 and 65535"
            ))),
        }
    }
}

/// Programs are recognised by the last part of their path.
fn program_name(name: &str, (): &()) -> garde::Result {
    if (1..=63).contains(&name.len()) && !name.contains(['/', '\0']) {
        Ok(())
    } else {
        Err(garde::Error::new(
            "not the name of a program; write 1 to 63 bytes without a slash, as in \"runsc\"",
        ))
    }
}

fn socket_paths(sockets: &BTreeMap<String, At<RuntimeName>>, (): &()) -> garde::Result {
    let is_path = |path: &str| path.starts_with('/') && path.len() < 4096 && !path.contains('\0');
    match sockets.keys().find(|path| !is_path(path)) {
        None => Ok(()),
        Some(path) => {
            Err(garde::Error::new(format!("{path:?} is not the path of a socket; begin it with a slash")))
        }
    }
}

/// Named networks. `nodes` is special: it holds the addresses of each node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Validate, JsonSchema)]
#[garde(allow_unvalidated)]
#[schemars(with = "NetworksSchema")]
pub struct NetworksSection {
    /// The cluster's nodes.
    #[garde(dive)]
    pub nodes: NodesSection,
    /// Networks under a name of the operator's choice.
    #[garde(length(max = 1000), custom(network_names))]
    pub named: BTreeMap<String, At<Vec<At<Network>>>>,
}

/// The same with free keys beside the fixed one, which serde can only read at the price of the positions.
#[derive(JsonSchema)]
#[schemars(inline)]
#[expect(dead_code, reason = "the schema is made from the type")]
struct NetworksSchema {
    /// The cluster's nodes.
    #[schemars(default)]
    nodes: NodesSection,
    /// Networks under a name of the operator's choice.
    #[schemars(flatten)]
    named: BTreeMap<String, Vec<Network>>,
}

/// The cluster's nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NodesSection {
    /// Addresses by name of the node.
    #[garde(length(max = 10_000))]
    pub members: BTreeMap<String, Vec<At<Network>>>,
}

fn network_names(named: &BTreeMap<String, At<Vec<At<Network>>>>, (): &()) -> garde::Result {
    match named.keys().find(|name| name.is_empty() || name.len() > 63) {
        None => Ok(()),
        Some(name) => Err(garde::Error::new(format!("{name:?} is not a name; write 1 to 63 bytes"))),
    }
}

impl<'de> Deserialize<'de> for NetworksSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Networks;

        impl<'de> Visitor<'de> for Networks {
            type Value = NetworksSection;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of names to lists of networks")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NetworksSection, A::Error> {
                let mut networks = NetworksSection::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "nodes" {
                        networks.nodes = map.next_value()?;
                    } else {
                        networks.named.insert(name, map.next_value()?);
                    }
                }
                Ok(networks)
            }
        }

        deserializer.deserialize_map(Networks)
    }
}

impl Serialize for NetworksSection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + self.named.len()))?;
        map.serialize_entry("nodes", &self.nodes)?;
        for (name, networks) in &self.named {
            map.serialize_entry(name, networks)?;
        }
        map.end()
    }
}

/// The ring buffers between kernel and agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RingsSection {
    /// Size of the ring of listeners, accepts, runtime execs and cgroup changes: 4KiB to 1GiB, rounded up to a power
    /// of two.
    pub management: At<Size>,
    /// Size of the ring of everything else: 4KiB to 1GiB, rounded up to a power of two.
    pub bulk: At<Size>,
    /// How often the rings are read: 1ms to 1s.
    pub poll: At<Period>,
    /// How long a record waits for an earlier one of the other ring: 0s to 1s.
    pub merge_window: At<Period>,
}

impl Default for RingsSection {
    fn default() -> Self {
        Self {
            management: Size::from_mib(2).into(),
            bulk: Size::from_mib(2).into(),
            poll: Period::from_millis(5).into(),
            merge_window: Period::from_millis(5).into(),
        }
    }
}

/// How many accepts of one peer at one port are reported one by one. Those beyond are counted in `scan` records, unless a
/// request follows. All peers of a port together have 16 times as much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FloodSection {
    /// In a row: 1 to 100000.
    #[schemars(range(min = 1, max = 100_000))]
    pub burst: At<u32>,
    /// Per second after that: 1 to 100000.
    #[schemars(range(min = 1, max = 100_000))]
    pub per_second: At<u32>,
}

impl Default for FloodSection {
    fn default() -> Self {
        let FloodLimits { burst, per_second } = FloodLimits::default();
        Self { burst: burst.into(), per_second: per_second.into() }
    }
}

/// How records are completed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EnrichSection {
    /// How long a `container` record waits for name and image: 0s to 10s.
    pub hold: At<Period>,
}

impl Default for EnrichSection {
    fn default() -> Self {
        Self { hold: Period::from_millis(50).into() }
    }
}

/// How the sensor proves that it sees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CoverageSection {
    /// How often the sensor connects to itself, runs a program and makes a cgroup to see whether it sees that: 1s to 1h.
    pub interval: At<Period>,
    /// How long the hooks on packets stay in place without a management listener, so that a daemon that is started anew
    /// finds them there: 1s to 24h.
    pub rest: At<Period>,
}

impl Default for CoverageSection {
    fn default() -> Self {
        Self { interval: Period::from_millis(10_000).into(), rest: Period::from_millis(30_000).into() }
    }
}

/// One place where records go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputSection {
    /// What kind of place.
    #[garde(skip)]
    #[serde(rename = "type")]
    pub output_type: At<OutputType>,
    /// Path of the file; for `file` only, and needed there.
    #[garde(inner(length(min = 1, max = 4095)))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Kinds of records that go there, or `any`.
    #[garde(length(min = 1, max = 64))]
    #[serde(default = "any_kind")]
    pub kinds: Vec<At<KindMatch>>,
}

impl Default for OutputSection {
    fn default() -> Self {
        Self { output_type: OutputType::Stdout.into(), path: None, kinds: any_kind() }
    }
}

fn any_kind() -> Vec<At<KindMatch>> {
    vec![KindMatch::Any.into()]
}

/// What kind of place records go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum OutputType {
    /// Standard output, one JSON object per line.
    Stdout,
    /// A file, likewise; opened anew when it was moved away, and on SIGHUP.
    File,
}
