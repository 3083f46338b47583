//! Ports that docker publishes for a container: `NetworkSettings` of `config.v2.json`.
//!
//! Docker writes them there before the container's first process runs; `hostconfig.json` says whether there are any to
//! wait for.

use std::fmt;
use std::net::IpAddr;

use sensor_core::fact::{End, Published};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use super::super::json::Limited;

/// Most published ports of a container: each port of either family.
const PORTS_MAX: usize = 131_072;
/// Most networks of a container, and bindings of a port.
const NETWORKS_MAX: usize = 1024;

/// What a container was given.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct NetworkSettings {
    ports: Bindings,
    networks: Limited<Network, NETWORKS_MAX>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Network {
    #[serde(rename = "IPAddress")]
    ip: String,
}

/// Bindings of TCP ports, by the port of the container: of `Ports`, and of `PortBindings` in `hostconfig.json`.
#[derive(Default)]
pub(super) struct Bindings(Vec<(u16, Binding)>);

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Binding {
    host_ip: String,
    host_port: String,
}

impl NetworkSettings {
    /// The published ports, once the container has an address; the first one counts where it has several.
    pub(super) fn published(&self) -> Vec<Published> {
        let Some(ip) = self.networks.0.iter().find_map(|network| network.ip.parse::<IpAddr>().ok()) else {
            return Vec::new();
        };
        let end = |(port, binding): &(u16, Binding)| {
            let host = End { ip: binding.host_ip.parse().ok()?, port: binding.host_port.parse().ok()? };
            Some(Published { host, inner: End { ip, port: *port } })
        };
        self.ports.0.iter().filter_map(end).collect()
    }
}

impl Bindings {
    /// Whether any port is to be published.
    pub(super) fn is_any(&self) -> bool {
        !self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Bindings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Bindings;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "bindings of at most {PORTS_MAX} ports")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Bindings::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut kept = Vec::new();
                while let Some((port, bindings)) =
                    entries.next_entry::<String, Limited<Binding, NETWORKS_MAX>>()?
                {
                    let Some(port) = port.strip_suffix("/tcp").and_then(|port| port.parse().ok()) else {
                        continue;
                    };
                    kept.extend(bindings.0.into_iter().map(|binding| (port, binding)));
                    if kept.len() > PORTS_MAX {
                        return Err(A::Error::invalid_length(kept.len(), &self));
                    }
                }
                Ok(Bindings(kept))
            }
        }
        deserializer.deserialize_any(Entries)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tcp_ports_are_published_at_the_address_of_the_container() {
        let settings = json!({
            "Ports": {
                "2375/tcp": [{"HostIp": "0.0.0.0", "HostPort": "12375"}, {"HostIp": "::", "HostPort": "12375"}],
                "53/udp": [{"HostIp": "0.0.0.0", "HostPort": "53"}], "80/tcp": null,
                "81/tcp": [{"HostIp": "nowhere", "HostPort": "81"}, {"HostIp": "::", "HostPort": ""}]
            },
            "Networks": {"none": {"IPAddress": ""}, "bridge": {"IPAddress": "172.17.0.2"}}
        });
        let settings: NetworkSettings = serde_json::from_value(settings).unwrap();
        let end = |ip: &str, port| End { ip: ip.parse().unwrap(), port };
        let inner = end("172.17.0.2", 2375);
        let expected = ["0.0.0.0", "::"].map(|ip| Published { host: end(ip, 12375), inner });
        assert_eq!(settings.published(), expected);
    }

    #[test]
    fn what_is_missing_or_odd_is_no_port() {
        for text in ["{}", r#"{"Ports": null, "Networks": null}"#, r#"{"Ports": {"x": [], "/tcp": [{}]}}"#] {
            let settings: NetworkSettings = serde_json::from_str(text).unwrap();
            assert_eq!(settings.published(), [], "{text}");
        }
        let no_address = r#"{"Ports": {"1/tcp": [{"HostIp": "::", "HostPort": "1"}]}, "Networks": {}}"#;
        assert_eq!(serde_json::from_str::<NetworkSettings>(no_address).unwrap().published(), []);
        assert!(serde_json::from_str::<NetworkSettings>(r#"{"Ports": 7}"#).is_err());
        assert!(!serde_json::from_str::<Bindings>(r#"{"1/udp": [{}]}"#).unwrap().is_any());
        assert!(serde_json::from_str::<Bindings>(r#"{"1/tcp": [{}]}"#).unwrap().is_any());
    }
}
