//! An analytic as data: what it is called, what its stages are, and what each of them is made of.

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use super::audit_signals;

/// A detection analytic of MITRE ATT&CK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Analytic {
    /// Its id.
    pub id: &'static str,
    /// Id of the detection strategy that it belongs to.
    pub strategy: &'static str,
    /// Ids of the techniques that it detects.
    pub techniques: &'static [&'static str],
    /// What it is about.
    pub title: &'static str,
    /// Its stages, in order.
    pub stages: &'static [Stage],
    /// How severe a chain is.
    pub severities: &'static [(&'static str, &'static str)],
}

/// A step of an analytic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// What joins it to the stage before.
    pub joined_by: &'static str,
    /// Key of the configuration that says how long after the stage before it may come.
    pub within: Option<&'static str>,
    /// The signals that it is made of: name and meaning.
    pub signals: &'static [(&'static str, &'static str)],
}

/// An exposed container service is used, an abnormal container comes of it, and that reaches for other nodes.
pub const AN1007: Analytic = Analytic {
    id: "AN1007",
    strategy: "DET0354",
    techniques: &["T1133"],
    title: "Container started through an exposed management service",
    stages: &[
        Stage {
            name: "exposed-service-access",
            joined_by: "",
            within: None,
            signals: &[
                (UNLISTED_ACCEPT, "a peer that no entry of the allow-list expects has connected"),
                (UNLISTED_REQUEST, "such a peer asks for more than what is there"),
            ],
        },
        Stage {
            name: "abnormal-container",
            joined_by: "the connection of the request that had the container made or started; where requests cannot be \
                        read, time",
            within: Some("detect.an1007.access_window"),
            signals: &[
                (
                    CONTAINER_BY_UNLISTED,
                    "a container was made, started or entered, and that is joined to such a peer",
                ),
                (
                    CONTAINER_AFTER_UNLISTED,
                    "an ordinary container was made while a connection of such a peer could not be read; no stage is \
                     seen by that",
                ),
                (
                    ABNORMAL_CONTAINER,
                    "a container with risks that nothing joins to such a peer; no stage is seen by that",
                ),
            ],
        },
        Stage {
            name: "lateral-activity",
            joined_by: "the container",
            within: Some("detect.an1007.lateral_window"),
            signals: &[
                (
                    LATERAL_CONNECT,
                    "that container connects to a lateral port or to a metadata service, or tries to",
                ),
                (LATERAL_SWEEP, "it goes through the management endpoints of others"),
                (LATERAL_SOCKET, "it connects to the unix socket of a runtime"),
            ],
        },
    ],
    severities: &[
        ("critical", "all stages, proved"),
        (
            "high",
            "the first two, proved, or all with an inferred link, or all and the container has no risks",
        ),
        ("medium", "the first two, inferred, or proved and the container has no risks"),
    ],
};

/// Somebody goes through what there is: containers, images, pods, nodes.
pub const AN1352: Analytic = Analytic {
    id: "AN1352",
    strategy: "DET0490",
    techniques: &["T1613"],
    title: "Discovery of containers and resources",
    stages: &[Stage {
        name: "discovery",
        joined_by: "the peer, the container, or the program that started renamed tools; detect.an1352.distinct_calls \
                    different ones make a burst, and a sweep of detect.an1352.sweep_targets endpoints, a scanner aimed at \
                    management ports or a renamed tool in a container is one by itself",
        within: Some("detect.an1352.window"),
        signals: &audit_signals::with::<{ audit_signals::count("AN1352", "discovery") + 5 }>(
            &[
                (DISCOVERY_REQUEST, "a peer that no entry of the allow-list expects asks what there is"),
                (
                    DISCOVERY_TOOL,
                    "a tool of container management asks that inside a container, or under another name on the host",
                ),
                (DISCOVERY_SOCKET, "a container connects to the unix socket of a runtime"),
                (DISCOVERY_SWEEP, "a container goes through the management endpoints of others"),
                (DISCOVERY_SCANNER, "a container runs a port scanner that is aimed at management ports"),
            ],
            "AN1352",
            "discovery",
        ),
    }],
    severities: &[
        ("high", "by a container, or by a peer that is in none of the networks"),
        ("medium", "by any other peer, or by renamed tools on the host"),
    ],
};

/// A credential of the cluster is used by somebody, or from somewhere, to whom it does not belong.
pub const AN1547: Analytic = Analytic {
    id: "AN1547",
    strategy: "DET0560",
    techniques: &["T1078"],
    title: "Credential used out of place",
    stages: &[
        Stage {
            name: "credential-access",
            joined_by: "",
            within: None,
            signals: &audit_signals::with::<{ audit_signals::count("AN1547", "credential-access") + 1 }>(
                &[(
                    CREDENTIAL_READ,
                    "somebody who is not the workload of a container reads a credential of the cluster there",
                )],
                "AN1547",
                "credential-access",
            ),
        },
        Stage {
            name: "unexpected-source",
            joined_by: "the container; in audit logs the credential and the address that is believed, where this stage \
                        alone is a finding",
            within: Some("detect.an1547.window"),
            signals: &audit_signals::with::<{ audit_signals::count("AN1547", "unexpected-source") + 2 }>(
                &[
                    (
                        CLUSTER_CONNECT,
                        "somebody who is not the workload of a container connects from there to the API server or a \
                         kubelet; with a credential read there before it is a finding",
                    ),
                    (
                        UNLISTED_CLUSTER_PEER,
                        "a peer that no entry of the allow-list expects has connected to the API server or the kubelet; \
                         no stage is seen by that alone",
                    ),
                ],
                "AN1547",
                "unexpected-source",
            ),
        },
        Stage {
            name: "cluster-use",
            joined_by: "the credential and the address that is believed, in audit logs",
            within: Some("detect.an1547.window"),
            signals: &audit_signals::with::<{ audit_signals::count("AN1547", "cluster-use") }>(
                &[],
                "AN1547",
                "cluster-use",
            ),
        },
    ],
    severities: &[
        ("critical", "proved in an audit log, with a credential got at or the cluster changed"),
        ("high", "proved in an audit log; by habit, with a credential got at or the cluster changed"),
        ("medium", "by habit, in an audit log; a credential read and the cluster connected to, on a node"),
    ],
};

/// Every analytic that is built in.
pub const BUILT_IN: [&Analytic; 3] = [&AN1007, &AN1352, &AN1547];

pub(super) const DISCOVERY_REQUEST: &str = "discovery-request";
pub(super) const DISCOVERY_TOOL: &str = "discovery-tool";
pub(super) const DISCOVERY_SOCKET: &str = "discovery-socket";
pub(super) const DISCOVERY_SWEEP: &str = "discovery-sweep";
pub(super) const DISCOVERY_SCANNER: &str = "discovery-scanner";

pub(super) const CREDENTIAL_READ: &str = "credential-read";
pub(super) const CLUSTER_CONNECT: &str = "cluster-connect";
pub(super) const UNLISTED_CLUSTER_PEER: &str = "unlisted-cluster-peer";

pub(super) const UNLISTED_ACCEPT: &str = "unlisted-accept";
pub(super) const UNLISTED_REQUEST: &str = "unlisted-request";
pub(super) const CONTAINER_BY_UNLISTED: &str = "container-by-unlisted";
pub(super) const CONTAINER_AFTER_UNLISTED: &str = "container-after-unlisted";
pub(super) const ABNORMAL_CONTAINER: &str = "abnormal-container";
pub(super) const LATERAL_CONNECT: &str = "lateral-connect";
pub(super) const LATERAL_SWEEP: &str = "lateral-sweep";
pub(super) const LATERAL_SOCKET: &str = "lateral-socket";

/// Every name above.
const SIGNALS: [&str; 13] = [
    DISCOVERY_REQUEST,
    DISCOVERY_TOOL,
    DISCOVERY_SOCKET,
    DISCOVERY_SWEEP,
    DISCOVERY_SCANNER,
    UNLISTED_ACCEPT,
    UNLISTED_REQUEST,
    CONTAINER_BY_UNLISTED,
    CONTAINER_AFTER_UNLISTED,
    ABNORMAL_CONTAINER,
    LATERAL_CONNECT,
    LATERAL_SWEEP,
    LATERAL_SOCKET,
];

/// A name of that list, which can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SignalName(pub(super) &'static str);

impl Serialize for SignalName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

impl<'de> Deserialize<'de> for SignalName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = SIGNALS.iter().find(|known| **known == name);
        known.map(|name| Self(name)).ok_or_else(|| D::Error::custom("a signal of another version"))
    }
}
