//! Listeners on watched ports: from the sensor's own iterator where it runs, else from procfs.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use schemars::JsonSchema;
use sensor_common::record::ListenerItem;
use sensor_core::event::Ends;
use sensor_core::fact;
use sensor_core::text::Comm;
use serde::{Deserialize, Serialize};

use crate::lookups::{Roots, file};
use crate::wire::{Scope, Service};

/// Most bytes of `/proc/net/tcp`: a node with a hundred thousand sockets stays below.
const FILE_MAX: u64 = 32 << 20;
/// State of a listening socket in that file.
const LISTEN: &str = "0A";

/// A listener on a watched port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// What is expected there.
    pub service: Service,
    /// Who can reach it.
    pub scope: Scope,
    /// Inode of its network namespace; absent: that of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
    /// A process that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
}

/// What the iterator found, in all network namespaces.
#[must_use]
pub fn of_items(items: &[ListenerItem], ports: &[(u16, fact::Service)]) -> Vec<Listener> {
    let found = items.iter().filter_map(|item| {
        let ends = Ends::from(item.ends);
        let comm = Comm(item.task.comm).text().to_string();
        let listener = listener(SocketAddr::new(ends.local.ip, ends.local.port), ports)?;
        Some(Listener { netns: Some(ends.netns), pid: Some(item.task.pid), comm: Some(comm), ..listener })
    });
    found.collect::<BTreeSet<_>>().into_iter().collect()
}

/// What procfs shows of the caller's network namespace; who holds a socket is for those to know who may look.
#[must_use]
pub fn of_procfs(roots: &Roots, ports: &[(u16, fact::Service)]) -> Vec<Listener> {
    let mut found = BTreeSet::new();
    for name in ["self/net/tcp", "self/net/tcp6"] {
        let content = file::read(&roots.proc.join(name), FILE_MAX, None).unwrap_or_default();
        let lines = String::from_utf8_lossy(&content);
        found.extend(lines.lines().filter_map(|line| listener(listening(line)?, ports)));
    }
    found.into_iter().collect()
}

fn listener(address: SocketAddr, ports: &[(u16, fact::Service)]) -> Option<Listener> {
    let (_, service) = ports.iter().find(|(port, _)| *port == address.port())?;
    let scope = fact::Scope::of(address.ip()).into();
    Some(Listener { address, service: (*service).into(), scope, netns: None, pid: None, comm: None })
}

/// The local end of a line of `/proc/net/tcp`, if it listens: `sl local rem st ...`, addresses as words of the host's
/// byte order in hex.
fn listening(line: &str) -> Option<SocketAddr> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = fields.next()?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = address.get(at..at + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let octets: [u8; 16] = words.concat().try_into().ok()?;
            IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PORTS: &[(u16, fact::Service)] =
        &[(2375, fact::Service::Docker), (6443, fact::Service::KubeApiserver)];

    #[test]
    fn procfs_shows_listeners_on_watched_ports_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let net = directory.path().join("self/net");
        fs::create_dir_all(&net).unwrap();
        let v4 = "  sl  local_address rem_address   st tx_queue\n\
                  0: 0100007F:0947 00000000:0000 0A 00000000:00000000 00:0 0 0 0 1 1\n\
                  1: 0100007F:0947 0200007F:1234 01 00000000:00000000 00:0 0 0 0 2 1\n\
                  2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:0 0 0 0 3 1\n";
        let v6 = "0: 00000000000000000000000000000000:192B 00000000000000000000000000000000:0000 0A 0 0 0\n\
                  1: 0000\u{e4}000000:192B x 0A\n2: nonsense 0A\n3: 00:0947 y 0A\n";
        fs::write(net.join("tcp"), v4).unwrap();
        fs::write(net.join("tcp6"), v6).unwrap();
        let roots = Roots { host: "/".into(), proc: directory.path().into() };
        let found: Vec<_> = of_procfs(&roots, PORTS)
            .into_iter()
            .map(|listener| (listener.address.to_string(), listener.service, listener.scope))
            .collect();
        let expected = [
            ("127.0.0.1:2375".to_owned(), Service::Docker, Scope::Loopback),
            ("[::]:6443".to_owned(), Service::KubeApiserver, Scope::Any),
        ];
        assert_eq!(found, expected);
        let nowhere = Roots { host: "/".into(), proc: "/nonexistent".into() };
        assert_eq!(of_procfs(&nowhere, PORTS), []);
    }
}
