//! The maps that only the agent writes, each with a copy of what it has written: another program with the rights for it can
//! write them, too, and take out of the probes' sight what it likes.

use std::collections::BTreeMap;

use aya::Ebpf;
use aya::Pod;
use aya::maps::{Array, HashMap, MapData, MapError};
use sensor_common::record::{COMM_LEN, CgroupId, FileId};
use sensor_common::settings::{PORTS_LEN, place_filter, port_flags, runtime_socket};
use sensor_core::coverage::{Table, TableState};
use sensor_core::engine::Depth;
use sensor_core::ids::{CgroupKey, FileKey};

use super::KernelError;
use super::probes::take;

/// These maps.
pub(super) struct Tables {
    ports: Value<[u8; PORTS_LEN]>,
    tools: Entries<[u8; COMM_LEN]>,
    cgroups: Cgroups,
    runtime_sockets: Entries<FileId>,
    /// The agent's own socket; it stays among those of runtimes.
    own_socket: Option<FileKey>,
    credential_places: Entries<FileId>,
    /// The agent's own place; it stays among those of credential files.
    own_place: Option<FileKey>,
    credential_filter: Value<[u64; place_filter::WORDS]>,
}

impl Tables {
    /// Takes the maps over as the kernel made them: empty.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            ports: Value::new(take(ebpf, "PORTS")?, [0; PORTS_LEN]),
            tools: Entries::new(take(ebpf, "TOOLS")?),
            cgroups: Cgroups { map: take(ebpf, "CGROUPS")?, own: BTreeMap::new() },
            runtime_sockets: Entries::new(take(ebpf, "RUNTIME_SOCKETS")?),
            own_socket: None,
            credential_places: Entries::new(take(ebpf, "CREDENTIAL_PLACES")?),
            own_place: None,
            credential_filter: Value::new(take(ebpf, "CREDENTIAL_FILTER")?, [0; place_filter::WORDS]),
        })
    }

    /// See [`super::Probes::set_ports`].
    pub(super) fn set_ports(&mut self, flags: &[(u16, u8)]) -> Result<(), KernelError> {
        let table = &mut self.ports.own;
        for entry in table.iter_mut() {
            *entry &= port_flags::TRACKED;
        }
        for (port, flags) in flags {
            let tracked = if flags & port_flags::WATCHED != 0 { port_flags::TRACKED } else { 0 };
            table[usize::from(*port)] |= flags | tracked;
        }
        self.ports.write().map_err(|source| KernelError::Map { what: "set the watched ports", source })
    }

    /// See [`super::Probes::watch_port`].
    pub(super) fn watch_port(&mut self, port: u16, depth: Depth) -> Result<(), KernelError> {
        let accepts = port_flags::WATCHED | port_flags::TRACKED;
        let flags = match depth {
            Depth::Listeners => 0,
            Depth::Accepts => accepts,
            Depth::Hellos => accepts | port_flags::ENCRYPTED,
            Depth::Requests => accepts | port_flags::PLAINTEXT,
        };
        self.ports.own[usize::from(port)] |= port_flags::LISTENERS | flags;
        self.ports.write().map_err(|source| KernelError::Map { what: "watch the port of a daemon", source })
    }

    /// See [`super::Probes::set_tools`].
    pub(super) fn set_tools<'a>(
        &mut self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), KernelError> {
        let wanted = names.into_iter().filter_map(comm).map(|name| (name, ENTERED)).collect();
        let what = "set the names of runtimes and tools";
        self.tools.replace(&wanted).map_err(|source| KernelError::Map { what, source })
    }

    /// See [`super::Probes::classify_cgroup`].
    pub(super) fn classify_cgroup(&mut self, cgroup: CgroupKey, class: u8) -> Result<(), KernelError> {
        let what = "tell the probes what a cgroup is";
        self.cgroups.insert(cgroup, class).map_err(|source| KernelError::Map { what, source })
    }

    /// See [`super::Probes::forget_cgroup`].
    pub(super) fn forget_cgroup(&mut self, cgroup: CgroupKey) {
        // Fails only for one that is unknown already.
        if let Err(error) = self.cgroups.remove(cgroup) {
            tracing::trace!(?cgroup, %error, "cgroup not forgotten");
        }
    }

    /// See [`super::Probes::set_own_files`].
    pub(super) fn set_own_files(&mut self, socket: FileKey, place: FileKey) -> Result<(), KernelError> {
        (self.own_socket, self.own_place) = (Some(socket), Some(place));
        self.set_runtime_sockets([])?;
        self.set_credential_places([])
    }

    /// See [`super::Probes::set_runtime_sockets`].
    pub(super) fn set_runtime_sockets(
        &mut self,
        sockets: impl IntoIterator<Item = (FileKey, bool)>,
    ) -> Result<(), KernelError> {
        let what = "set the sockets of runtimes";
        let flags = |is_read| runtime_socket::WATCHED | if is_read { runtime_socket::REQUESTS } else { 0 };
        // A runtime's keeps its own flags, should it have the number of ours.
        let sockets = self.own_socket.map(|own| (own, true)).into_iter().chain(sockets);
        let wanted = sockets.map(|(key, is_read)| (key.into(), flags(is_read))).collect();
        self.runtime_sockets.replace(&wanted).map_err(|source| KernelError::Map { what, source })
    }

    /// See [`super::Probes::set_credential_places`].
    pub(super) fn set_credential_places(
        &mut self,
        keys: impl IntoIterator<Item = FileKey>,
    ) -> Result<(), KernelError> {
        let failed = |source| KernelError::Map { what: "set the places of credential files", source };
        let keys = self.own_place.into_iter().chain(keys);
        let wanted: BTreeMap<FileId, u8> = keys.map(|key| (key.into(), ENTERED)).collect();
        *self.credential_filter.own = [0; place_filter::WORDS];
        for key in wanted.keys() {
            let (word, bit) = place_filter::bit(key);
            self.credential_filter.own[word] |= bit;
        }
        // The filter in any case: it lets through to the table, which then holds what it had room for.
        let filtered = self.credential_filter.write().map_err(failed);
        self.credential_places.replace(&wanted).map_err(failed)?;
        filtered
    }

    /// Compares every map with what was written, and writes it again where it is not the same.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(super) fn check(&mut self) -> Result<Vec<(Table, TableState)>, KernelError> {
        let each = Table::ALL.into_iter().map(|table| self.check_one(table).map(|state| (table, state)));
        each.collect::<Result<_, _>>()
            .map_err(|source| KernelError::Map { what: "read back what the probes were told", source })
    }

    fn check_one(&mut self, table: Table) -> Result<TableState, MapError> {
        match table {
            Table::Ports => self.ports.check(),
            Table::Tools => self.tools.check(),
            Table::Cgroups => self.cgroups.check(),
            Table::RuntimeSockets => self.runtime_sockets.check(),
            Table::CredentialPlaces => {
                Ok(worse(self.credential_filter.check()?, self.credential_places.check()?))
            }
        }
    }
}

/// What follows from how two maps were found that are one table.
const fn worse(one: TableState, other: TableState) -> TableState {
    match (one, other) {
        (TableState::Stuck, _) | (_, TableState::Stuck) => TableState::Stuck,
        (TableState::Repaired, _) | (_, TableState::Repaired) => TableState::Repaired,
        (TableState::Same, TableState::Same) => TableState::Same,
    }
}

/// How a map is that was not the same, given how writing it again went.
fn written<E: std::fmt::Display>(result: Result<(), E>) -> TableState {
    match result {
        Ok(()) => TableState::Repaired,
        Err(error) => {
            tracing::debug!(%error, "a map of the probes cannot be written again");
            TableState::Stuck
        }
    }
}

/// A map of one value.
struct Value<T: Pod> {
    map: Array<MapData, T>,
    own: Box<T>,
}

impl<T: Pod + PartialEq> Value<T> {
    fn new(map: Array<MapData, T>, empty: T) -> Self {
        Self { map, own: Box::new(empty) }
    }

    fn write(&mut self) -> Result<(), MapError> {
        self.map.set(0, *self.own, 0)
    }

    fn check(&mut self) -> Result<TableState, MapError> {
        if self.map.get(&0, 0)? == *self.own {
            return Ok(TableState::Same);
        }
        Ok(written(self.write()))
    }
}

/// Value where only the key counts.
const ENTERED: u8 = 1;

/// Keys, each with a small value.
struct Entries<K: Pod> {
    map: HashMap<MapData, K, u8>,
    own: BTreeMap<K, u8>,
}

impl<K: Pod + Ord> Entries<K> {
    const fn new(map: HashMap<MapData, K, u8>) -> Self {
        Self { map, own: BTreeMap::new() }
    }

    fn present(&self) -> Result<BTreeMap<K, u8>, MapError> {
        self.map.iter().collect()
    }

    /// Makes the map hold these entries and no others; where the kernel refuses some, `own` has those that went in.
    fn replace(&mut self, wanted: &BTreeMap<K, u8>) -> Result<(), MapError> {
        let mut present = self.present()?;
        let result = Self::fit(&mut self.map, &mut present, wanted);
        self.own = present;
        result
    }

    fn fit(
        map: &mut HashMap<MapData, K, u8>,
        present: &mut BTreeMap<K, u8>,
        wanted: &BTreeMap<K, u8>,
    ) -> Result<(), MapError> {
        let gone: Vec<K> = present.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        for key in gone {
            map.remove(&key)?;
            present.remove(&key);
        }
        for (key, value) in wanted {
            if present.get(key) != Some(value) {
                map.insert(key, value, 0)?;
                present.insert(*key, *value);
            }
        }
        Ok(())
    }

    fn check(&mut self) -> Result<TableState, MapError> {
        let mut present = self.present()?;
        if present == self.own {
            return Ok(TableState::Same);
        }
        Ok(written(Self::fit(&mut self.map, &mut present, &self.own)))
    }
}

/// The classes of cgroups.
struct Cgroups {
    map: HashMap<MapData, CgroupId, u8>,
    own: BTreeMap<CgroupKey, u8>,
}

impl Cgroups {
    fn insert(&mut self, cgroup: CgroupKey, class: u8) -> Result<(), MapError> {
        self.map.insert(raw(cgroup), class, 0)?;
        self.own.insert(cgroup, class);
        Ok(())
    }

    fn remove(&mut self, cgroup: CgroupKey) -> Result<(), MapError> {
        self.own.remove(&cgroup);
        self.map.remove(&raw(cgroup))
    }

    fn check(&mut self) -> Result<TableState, MapError> {
        let mut present = BTreeMap::new();
        for entry in self.map.iter() {
            let (id, class) = entry?;
            present.insert(CgroupKey { hierarchy: id.hierarchy, id: id.id }, class);
        }
        if present == self.own {
            return Ok(TableState::Same);
        }
        Ok(written(self.write_again(&present)))
    }

    fn write_again(&mut self, present: &BTreeMap<CgroupKey, u8>) -> Result<(), MapError> {
        for cgroup in present.keys().filter(|cgroup| !self.own.contains_key(cgroup)) {
            self.map.remove(&raw(*cgroup))?;
        }
        for (cgroup, class) in self.own.iter().filter(|(cgroup, class)| present.get(cgroup) != Some(class)) {
            self.map.insert(raw(*cgroup), class, 0)?;
        }
        Ok(())
    }
}

const fn raw(cgroup: CgroupKey) -> CgroupId {
    CgroupId { id: cgroup.id, hierarchy: cgroup.hierarchy, reserved: 0 }
}

/// The name as the kernel keeps it; `None` for an empty one, which would match nameless tasks.
fn comm(name: &str) -> Option<[u8; COMM_LEN]> {
    let kept = name.as_bytes().get(..COMM_LEN - 1).unwrap_or(name.as_bytes());
    let mut comm = [0; COMM_LEN];
    comm[..kept.len()].copy_from_slice(kept);
    (!kept.is_empty()).then_some(comm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_the_kernel_keeps_them() {
        assert_eq!(comm("runc"), Some(*b"runc\0\0\0\0\0\0\0\0\0\0\0\0"));
        assert_eq!(comm("containerd-shim-runc-v2"), Some(*b"containerd-shim\0"));
        assert_eq!(comm(""), None);
    }

    #[test]
    fn of_two_maps_the_worse_one_counts() {
        use TableState::{Repaired, Same, Stuck};
        assert_eq!(worse(Same, Same), Same);
        assert_eq!(worse(Same, Repaired), Repaired);
        assert_eq!(worse(Stuck, Repaired), Stuck);
    }
}
