//! Settings: the configuration as the rest of the program uses it. What is here is valid.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use sensor_core::allow_list::{Actor, AllowEntry, AllowList, IMPLIED_LOCAL, Schedule, Shows, Source, Target};
use sensor_core::chains::{An1007Limits, An1352Limits, An1547Limits, Limits};
use sensor_core::engine::{Cluster, Policy};
use sensor_core::fact::Runtime;

use super::allow::AllowSection;
use super::detect::{An1007Section, An1352Section};
use super::file::{ConfigFile, OutputSection, OutputType};
use super::values::{AnyOr, At, Network};
use super::when;
use crate::kernel::FloodLimits;
use crate::wire::KindFilter;

/// The validated configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Configured name of the node; `None`: the host name.
    pub node_name: Option<Arc<str>>,
    /// Configured cluster.
    pub cluster: Option<Arc<str>>,
    /// What the engine judges by; replaced as a whole on reload.
    pub policy: Policy,
    /// Unix sockets of runtimes beside the built-in ones.
    pub sockets: Vec<(Arc<str>, Runtime)>,
    /// Ports towards which connects are reported when attempted.
    pub lateral_ports: Vec<u16>,
    /// The ring buffers.
    pub rings: RingSettings,
    /// What flood control lets through.
    pub flood: FloodLimits,
    /// How long a container record waits for its metadata.
    pub hold: Duration,
    /// Distance between two rounds of canaries.
    pub canary_interval: Duration,
    /// How long the hooks on packets outlast the last management listener.
    pub packets_rest: Duration,
    /// Where open chains are kept; `None`: nowhere.
    pub state: Option<StateSettings>,
    /// Where requests to the Kubernetes API server are told.
    pub audit: AuditSettings,
    /// Where records go; never empty.
    pub outputs: Vec<OutputSettings>,
}

/// The ring buffers between kernel and agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSettings {
    /// Bytes of the management ring: a power of two of at least 4096; the loader rounds up to the page size.
    pub management_bytes: u32,
    /// Bytes of the bulk ring, likewise.
    pub bulk_bytes: u32,
    /// How often the rings are read.
    pub poll: Duration,
    /// How long a record waits for an earlier one of the other ring.
    pub merge_window: Duration,
}

/// Where open chains are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSettings {
    /// The file.
    pub path: PathBuf,
    /// Bytes that it may have.
    pub max: u64,
}

/// Where requests to the Kubernetes API server are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// Logs, and `-` for standard input.
    pub files: Vec<PathBuf>,
    /// Where it is kept how far they were read.
    pub positions: PathBuf,
}

/// One place where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSettings {
    /// Where.
    pub place: OutputPlace,
    /// Which records.
    pub kinds: KindFilter,
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputPlace {
    /// Standard output.
    Stdout,
    /// A file.
    File(PathBuf),
}

impl Settings {
    /// Builds the settings from a file that [`super::validate::validate`] found no error in.
    pub(super) fn new(file: &ConfigFile) -> Self {
        let shared = |name: &Option<String>| name.as_deref().map(Arc::from);
        Self {
            node_name: shared(&file.node.name),
            cluster: shared(&file.node.cluster),
            policy: Policy {
                ports: file.watch.ports.iter().map(|(port, service)| (port.0, service.value.0)).collect(),
                tools: file.watch.runtimes.iter().map(|name| Arc::from(name.as_str())).collect(),
                networks: networks(
                    (file.networks.nodes.members.values().flatten())
                        .chain(file.networks.named.values().flat_map(|networks| &networks.value)),
                ),
                allow: allow_list(file),
                limits: limits(file),
                cluster: cluster(file),
            },
            sockets: file
                .watch
                .sockets
                .iter()
                .map(|(path, runtime)| (Arc::from(path.as_str()), runtime.value.0))
                .collect(),
            lateral_ports: file.detect.an1007.lateral_ports.iter().map(|port| port.0).collect(),
            rings: RingSettings {
                management_bytes: ring_bytes(file.rings.management.value.0),
                bulk_bytes: ring_bytes(file.rings.bulk.value.0),
                poll: file.rings.poll.value.0,
                merge_window: file.rings.merge_window.value.0,
            },
            flood: FloodLimits { burst: file.flood.burst.value, per_second: file.flood.per_second.value },
            hold: file.enrich.hold.value.0,
            canary_interval: file.coverage.interval.value.0,
            packets_rest: file.coverage.rest.value.0,
            state: file
                .state
                .path
                .as_ref()
                .map(|path| StateSettings { path: PathBuf::from(&path.value), max: file.state.max.value.0 }),
            audit: AuditSettings {
                files: file.audit.files.iter().map(|path| PathBuf::from(&path.value)).collect(),
                positions: PathBuf::from(&file.audit.positions.value),
            },
            outputs: file.output.iter().map(output).collect(),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new(&ConfigFile::default())
    }
}

fn ring_bytes(bytes: u64) -> u32 {
    u32::try_from(bytes.next_power_of_two()).expect("invariant: validation keeps rings at or below 1 GiB")
}

fn networks<'a>(written: impl IntoIterator<Item = &'a At<Network>>) -> Vec<IpNetwork> {
    written.into_iter().map(|network| network.value.network()).collect()
}

/// What the file says of a Kubernetes cluster: its nodes, and the network that is named `pods`.
fn cluster(file: &ConfigFile) -> Cluster {
    let members = &file.networks.nodes.members;
    let pods = file.networks.named.get("pods");
    Cluster {
        nodes: members.iter().map(|(name, addresses)| (name.as_str().into(), networks(addresses))).collect(),
        pods: networks(pods.iter().flat_map(|pods| &pods.value)),
        trusted_proxies: networks(&file.audit.trusted_proxies),
    }
}

/// What tunes the analytics.
fn limits(file: &ConfigFile) -> Limits {
    let (detect, state) = (&file.detect, &file.state);
    let An1007Section { access_window, lateral_window, lateral_ports, metadata } = &detect.an1007;
    let An1352Section { distinct_calls, window, sweep_targets } = &detect.an1352;
    Limits {
        an1007: An1007Limits {
            access_window_ns: access_window.value.as_ns(),
            lateral_window_ns: lateral_window.value.as_ns(),
            lateral_ports: lateral_ports.iter().map(|port| port.0).collect(),
            metadata: *metadata,
        },
        an1352: An1352Limits {
            distinct_calls: distinct_calls.value,
            window_ns: window.value.as_ns(),
            sweep_targets: sweep_targets.value,
        },
        an1547: An1547Limits {
            window_ns: detect.an1547.window.value.as_ns(),
            api: networks(file.networks.named.get("kube-api").iter().flat_map(|api| &api.value)),
        },
        // A database takes more than what is in it.
        state_bytes: state.max.value.0 / 2,
    }
}

/// The allow-list that a file without errors stands for.
pub(super) fn allow_list(file: &ConfigFile) -> AllowList {
    let mut entries: Vec<AllowEntry> = file.allow.iter().map(|entry| allow_entry(file, entry)).collect();
    if file.implied_local {
        entries.push(AllowEntry {
            name: IMPLIED_LOCAL.into(),
            from: Source { local: true, ..Source::default() },
            to: Target::default(),
            when: Schedule::default(),
            until_unix_ns: None,
        });
    }
    let nodes = networks(file.networks.nodes.members.values().flatten());
    AllowList { entries, nodes, local: Vec::new() }
}

fn allow_entry(file: &ConfigFile, entry: &AllowSection) -> AllowEntry {
    let (from, to) = (&entry.from.value, &entry.to.value);
    let named = from.networks.iter().filter_map(|name| file.networks.named.get(&name.value));
    let mut services = Vec::with_capacity(to.services.len());
    let mut any = false;
    for service in &to.services {
        match service.value {
            AnyOr::Any => any = true,
            AnyOr::One(service) => services.push(service),
        }
    }
    let to = match any {
        // An empty target is any.
        true => Target::default(),
        false => Target { services, ports: to.ports.iter().map(|port| port.value.0).collect() },
    };
    AllowEntry {
        name: entry.name.value.as_str().into(),
        from: Source {
            networks: networks(from.cidr.iter().chain(named.flat_map(|networks| &networks.value))),
            except: networks(&from.except),
            nodes: from.nodes,
            local: from.local,
            shows: shows(entry),
            actor: actor(entry),
        },
        to,
        when: when::schedule(entry),
        until_unix_ns: when::until_unix_ns(entry),
    }
}

fn texts(texts: &[At<String>]) -> Vec<Arc<str>> {
    texts.iter().map(|text| text.value.as_str().into()).collect()
}

/// The members of a closed list that are named; none for any.
fn members<T: Copy>(named: &[At<AnyOr<T>>]) -> Vec<T> {
    let members: Option<Vec<T>> = named
        .iter()
        .map(|one| match one.value {
            AnyOr::Any => None,
            AnyOr::One(one) => Some(one),
        })
        .collect();
    members.unwrap_or_default()
}

fn shows(entry: &AllowSection) -> Shows {
    let (from, to) = (&entry.from.value, &entry.to.value);
    Shows { classes: members(&to.classes), fingerprints: texts(&from.fingerprint), tools: texts(&from.tool) }
}

fn actor(entry: &AllowSection) -> Actor {
    let (from, to) = (&entry.from.value, &entry.to.value);
    let acts = members(&to.acts);
    Actor {
        images: texts(&from.image),
        namespaces: texts(&from.namespace),
        containers: texts(&from.container),
        acts,
    }
}

fn output(section: &OutputSection) -> OutputSettings {
    let mut kinds = KindFilter::NONE;
    for kind in &section.kinds {
        match kind.value {
            AnyOr::Any => kinds = KindFilter::ANY,
            AnyOr::One(kind) => kinds.add(kind),
        }
    }
    let place = match (section.output_type.value, &section.path) {
        (OutputType::File, Some(path)) => OutputPlace::File(PathBuf::from(path)),
        (OutputType::File, None) => unreachable!("validation asks for the path of a file"),
        (OutputType::Stdout, _) => OutputPlace::Stdout,
    };
    OutputSettings { place, kinds }
}
