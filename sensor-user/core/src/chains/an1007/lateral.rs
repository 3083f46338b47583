//! What containers do that reaches for others: the third stage.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::An1007Limits;
use crate::chains::analytic::{LATERAL_CONNECT, LATERAL_SOCKET, LATERAL_SWEEP, SignalName};
use crate::fact::{Direction, Fact, FactKind, Net, ScanShape};
use crate::ids::RecordId;
use crate::time::Timestamp;

/// Where clouds tell an instance of its credentials, over IPv4 and IPv6.
const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// One act of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lateral {
    /// Name of its signal.
    pub(super) signal: SignalName,
    pub(super) event: RecordId,
    pub(super) at: Timestamp,
    pub(super) target: Arc<str>,
    pub(super) lost: u64,
}

impl Lateral {
    /// The act that a fact tells of, if it is lateral.
    pub(super) fn of(fact: &Fact, limits: &An1007Limits) -> Option<Self> {
        let (signal, target) = match &fact.kind {
            FactKind::Connect { .. } => (LATERAL_CONNECT, connect_target(fact.net.as_ref()?, limits)?),
            FactKind::Scan { shape: ScanShape::Sweep, targets, .. } => {
                (LATERAL_SWEEP, format!("{targets} management endpoints"))
            }
            FactKind::SocketConnect { path, inode, .. } => {
                let target =
                    path.as_ref().map_or_else(|| format!("socket inode {inode}"), ToString::to_string);
                (LATERAL_SOCKET, target)
            }
            _ => return None,
        };
        let (event, at, lost) = (fact.id.clone(), fact.at, fact.quality.lost);
        Some(Self { signal: SignalName(signal), event, at, target: target.into(), lost })
    }
}

fn connect_target(net: &Net, limits: &An1007Limits) -> Option<String> {
    let peer = net.peer.filter(|_| net.direction == Some(Direction::Outbound))?;
    let ip = peer.ip.to_canonical();
    let is_metadata = limits.metadata && METADATA.contains(&ip);
    let is_lateral = limits.lateral_ports.contains(&peer.port) && !ip.is_loopback();
    (is_metadata || is_lateral).then(|| match ip {
        IpAddr::V4(ip) => format!("{ip}:{}", peer.port),
        IpAddr::V6(ip) => format!("[{ip}]:{}", peer.port),
    })
}
