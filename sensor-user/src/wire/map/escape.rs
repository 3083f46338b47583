//! Conversion of what escape records say.

use sensor_core::namespaces::HostSide;

use super::super::lists::HostNamespace;
use super::super::record::Host;

impl From<HostSide> for Host {
    fn from(side: HostSide) -> Self {
        let namespaces = [(side.mnt, HostNamespace::Mnt), (side.pid, HostNamespace::Pid)];
        let namespaces = namespaces.into_iter().filter_map(|(is_in, name)| is_in.then_some(name)).collect();
        Self { namespaces, root: side.root }
    }
}

impl From<Host> for HostSide {
    fn from(host: Host) -> Self {
        let is_in = |namespace| host.namespaces.contains(&namespace);
        Self { mnt: is_in(HostNamespace::Mnt), pid: is_in(HostNamespace::Pid), root: host.root }
    }
}
