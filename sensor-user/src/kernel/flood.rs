//! The tables of flood control, as the agent reads them.

use std::fs::File;
use std::io::{self, Read as _};

use aya::maps::{Array, HashMap, MapData, MapError};
use sensor_common::flood::{PORTS_MAX, Peer, PeerChunk, Port, PortKey, port_origin};

use super::KernelError;

/// How much one peer may do at one port before its accepts are withheld; see [`sensor_common::flood`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloodLimits {
    /// Accepts in a row.
    pub burst: u32,
    /// Further accepts per second; never 0.
    pub per_second: u32,
}

impl Default for FloodLimits {
    fn default() -> Self {
        Self { burst: 64, per_second: 32 }
    }
}

impl FloodLimits {
    /// Nanoseconds after which one more accept is reported.
    pub(super) fn interval_ns(self) -> u32 {
        1_000_000_000 / self.per_second.max(1)
    }
}

/// A number for [`sensor_common::settings::Settings::flood_salt`].
pub(super) fn draw_salt() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Most ports with entries for good; they leave more than half of the table to others.
const PERMANENT_MAX: usize = PORTS_MAX as usize / 5;
/// Do not replace what is there.
const BPF_NOEXIST: u64 = 1;

/// Peers and ports.
pub(super) struct FloodTables {
    peers: Array<MapData, PeerChunk>,
    ports: HashMap<MapData, PortKey, Port>,
}

impl FloodTables {
    /// Takes the maps over and enters the port that stands for those that find no place.
    pub(super) fn new(
        peers: Array<MapData, PeerChunk>,
        ports: HashMap<MapData, PortKey, Port>,
    ) -> Result<Self, KernelError> {
        let mut tables = Self { peers, ports };
        tables.keep(PortKey { netns: 0, port: 0 })?;
        Ok(tables)
    }

    /// Enters these ports for good, before they are watched: each in the node's network namespace, so that nobody can have it
    /// share an entry by filling the table, and one for all namespaces in which it finds no place.
    pub(super) fn watch(
        &mut self,
        ports: impl IntoIterator<Item = u16>,
        node: Option<u32>,
    ) -> Result<(), KernelError> {
        for port in ports.into_iter().take(PERMANENT_MAX) {
            for netns in node.into_iter().chain([0]) {
                self.keep(PortKey { netns, port: u32::from(port) })?;
            }
        }
        Ok(())
    }

    fn keep(&mut self, key: PortKey) -> Result<(), KernelError> {
        let origin = if key.netns == 0 { port_origin::SHARED } else { port_origin::NODE };
        let port = Port { origin, ..Port::default() };
        match self.ports.insert(key, port, BPF_NOEXIST) {
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(())
            }
            result => result.map_err(failed),
        }
    }

    /// Every port, in the order of its key.
    pub(super) fn ports(&self) -> Result<Vec<(PortKey, Port)>, KernelError> {
        let entries = self.ports.iter().take(PORTS_MAX as usize);
        let mut ports = entries.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        ports.sort_unstable_by_key(|(key, _)| *key);
        ports.dedup_by_key(|(key, _)| *key);
        Ok(ports)
    }

    /// Every place for a peer, in order; those with `since_ns` 0 are free.
    pub(super) fn peers(&self) -> Result<Vec<Peer>, KernelError> {
        let mut peers = Vec::with_capacity(sensor_common::flood::PEERS_LEN);
        for index in 0..self.peers.len() {
            peers.extend(self.peers.get(&index, 0).map_err(failed)?.0);
        }
        Ok(peers)
    }

    /// Removes a port.
    pub(super) fn forget(&mut self, port: PortKey) {
        // Fails only for one that is gone already.
        if let Err(error) = self.ports.remove(&port) {
            tracing::trace!(?port, %error, "port not forgotten");
        }
    }
}

fn failed(source: MapError) -> KernelError {
    KernelError::Map { what: "use the tables of flood control", source }
}
