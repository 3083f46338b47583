//! Objects of the records that say what listens where, and who has reached it.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::lists::{ListenerState, ListenerTls, Scope, Service};
use super::super::time::UtcTime;
use super::is_zero;

/// A management endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Listener {
    /// Service by its port; of a port that is not watched, by the arguments of the daemon, or by where it leads.
    pub service: Service,
    /// Reach of its bind address, in its network namespace.
    pub scope: Scope,
    /// Whether it speaks TLS, by the arguments of the daemon.
    pub tls: ListenerTls,
    /// What happened to it.
    pub state: ListenerState,
    /// Inode of its network namespace.
    pub netns: u32,
    /// Where it leads, when a runtime publishes it for a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leads_to: Option<LeadsTo>,
    /// Connections so far, those withheld by flood control included. Absent: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub accepts: u64,
    /// Different outside peers so far; 64 stands for so many or more. Absent: none.
    #[serde(default, skip_serializing_if = "is_nobody")]
    pub outside_peers: u32,
    /// The first peer from outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_peer: Option<PeerSeen>,
    /// The latest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_peer: Option<PeerSeen>,
}

/// Where a published port leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeadsTo {
    /// Address of the container.
    pub ip: IpAddr,
    /// Port in the container.
    pub port: u16,
    /// Service by that port.
    pub service: Service,
}

/// A peer and when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeerSeen {
    /// Its address.
    pub ip: IpAddr,
    /// When it connected.
    pub ts: UtcTime,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
const fn is_nobody(count: &u32) -> bool {
    *count == 0
}
