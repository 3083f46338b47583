//! Conversion of what listener records say beyond their socket.

use sensor_core::fact;

use super::super::record::{LeadsTo, PeerSeen};
use super::super::time::UtcTime;

impl From<fact::LeadsTo> for LeadsTo {
    fn from(to: fact::LeadsTo) -> Self {
        Self { ip: to.ip.to_canonical(), port: to.port, service: to.service.into() }
    }
}

impl From<LeadsTo> for fact::LeadsTo {
    fn from(to: LeadsTo) -> Self {
        Self { ip: to.ip.to_canonical(), port: to.port, service: to.service.into() }
    }
}

impl From<fact::PeerSeen> for PeerSeen {
    fn from(peer: fact::PeerSeen) -> Self {
        Self { ip: peer.ip.to_canonical(), ts: UtcTime(peer.unix_ns) }
    }
}

impl From<PeerSeen> for fact::PeerSeen {
    fn from(peer: PeerSeen) -> Self {
        Self { ip: peer.ip.to_canonical(), unix_ns: peer.ts.0 }
    }
}
