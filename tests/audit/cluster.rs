//! What the owner of the fixtures' cluster says, as a sensor's configuration would have it.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use sensor_core::allow_list::{AllowEntry, AllowList, Schedule, Source, Target};
use sensor_core::audit::AuditPolicy;
use sensor_core::fact::Service;
use serde_json::Value;

/// The policy made from `cluster.json`.
pub fn policy(fixtures: &Path) -> AuditPolicy {
    let text = std::fs::read(fixtures.join("cluster.json")).expect("the cluster is described");
    let cluster: Value = serde_json::from_slice(&text).expect("JSON");
    let networks = |key: &str| -> Vec<IpNetwork> {
        cluster[key].as_array().unwrap_or_else(|| panic!("no {key}")).iter().map(network).collect()
    };
    let map = |key: &str| cluster[key].as_object().unwrap_or_else(|| panic!("no {key}")).clone();
    let control_plane = network(&cluster["apiserver"]["address"]);
    let mut nodes: Vec<(Arc<str>, Vec<IpNetwork>)> = vec![("control-plane".into(), vec![control_plane])];
    nodes.extend(map("nodes").iter().map(|(name, address)| (name.as_str().into(), vec![network(address)])));
    let pods: Vec<IpNetwork> = map("pod_cidrs").values().map(network).collect();
    let people = [networks("admin_networks"), networks("ci_networks")].concat();
    let inside = nodes.iter().flat_map(|(_, networks)| networks).chain(&pods).chain(&people).copied();
    AuditPolicy {
        networks: inside.chain([network(&cluster["service_cidr"])]).collect(),
        allow: AllowList {
            entries: vec![AllowEntry {
                name: "people and CI".into(),
                from: Source { networks: people.clone(), ..Source::default() },
                to: Target { services: vec![Service::KubeApiserver], ports: Vec::new() },
                when: Schedule::default(),
                until_unix_ns: None,
            }],
            ..AllowList::default()
        },
        nodes,
        pods,
        trusted_proxies: Vec::new(),
    }
}

fn network(text: &Value) -> IpNetwork {
    let text = text.as_str().expect("a text");
    text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNetwork::from)).expect("a network")
}
