//! The node's own addresses.
//!
//! They are read from procfs in the network namespace of process 1, so that a sensor in a container without the host's
//! network still knows them, and without entering that namespace, which would take a further capability.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Roots;
use super::file::{self, FileError};

/// Most bytes of one of the two files; a node with thousands of addresses stays below.
const FILE_MAX: u64 = 16 << 20;
/// Most addresses that are kept.
const ADDRESSES_MAX: usize = 4096;

/// Reads the addresses of the host's network namespace in ascending order, loopback included.
///
/// # Errors
/// When neither the IPv4 nor the IPv6 file can be read; one alone may be missing, since a kernel may lack a protocol.
pub fn local(roots: &Roots) -> Result<Vec<IpAddr>, FileError> {
    let net = roots.proc.join("1/net");
    let mut found = BTreeSet::new();
    let v4 = file::read(&net.join("fib_trie"), FILE_MAX, None)
        .map(|content| found.extend(from_fib_trie(&String::from_utf8_lossy(&content)).map(IpAddr::V4)));
    let v6 = file::read(&net.join("if_inet6"), FILE_MAX, None)
        .map(|content| found.extend(from_if_inet6(&String::from_utf8_lossy(&content)).map(IpAddr::V6)));
    match (v4, v6) {
        (Err(error), Err(_)) => Err(error),
        _ => Ok(found.into_iter().take(ADDRESSES_MAX).collect()),
    }
}

/// Addresses in the dump of the IPv4 routing tries: a leaf line names the address, the line below it says `host LOCAL`.
fn from_fib_trie(text: &str) -> impl Iterator<Item = Ipv4Addr> {
    text.lines().zip(text.lines().skip(1)).filter_map(|(leaf, route)| {
        let address = leaf.trim_start().strip_prefix("|-- ")?;
        (route.trim() == "/32 host LOCAL").then(|| address.trim().parse().ok())?
    })
}

/// Addresses in the list of IPv6 addresses: 32 hexadecimal digits, then index, prefix length, scope, flags and name.
fn from_if_inet6(text: &str) -> impl Iterator<Item = Ipv6Addr> {
    text.lines().filter_map(|line| {
        let digits = line.split_whitespace().next().filter(|digits| digits.len() == 32)?;
        u128::from_str_radix(digits, 16).ok().map(Ipv6Addr::from)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;

    use super::*;

    const FIB_TRIE: &str = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.0.0.0/24 2 0 2
        +-- 10.0.0.0/28 2 0 2
           |-- 10.0.0.0
              /24 link UNICAST
           |-- 10.0.0.11
              /32 host LOCAL
        |-- 10.0.0.255
           /32 link BROADCAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
";
    const IF_INET6: &str = "\
00000000000000000000000000000001 01 80 10 80       lo
fd000000000000000000000000000012 02 40 00 80     eth0
";

    #[test]
    fn addresses_of_both_families_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let roots = Roots { host: directory.path().into(), proc: directory.path().into() };
        fs::create_dir_all(directory.path().join("1/net")).unwrap();
        assert!(local(&roots).unwrap_err().is_absent());
        fs::write(directory.path().join("1/net/fib_trie"), FIB_TRIE).unwrap();
        let names = |addresses: Vec<IpAddr>| addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(local(&roots).unwrap()), ["10.0.0.11", "127.0.0.1"]);
        fs::write(directory.path().join("1/net/if_inet6"), IF_INET6).unwrap();
        assert_eq!(names(local(&roots).unwrap()), ["10.0.0.11", "127.0.0.1", "::1", "fd00::12"]);
    }

    #[test]
    fn nonsense_gives_no_addresses() {
        for text in ["", "|-- x\n /32 host LOCAL", "|-- 1.2.3.4", "zz 01", "\u{fffd}"] {
            assert_eq!(from_fib_trie(text).count(), 0, "{text}");
            assert_eq!(from_if_inet6(text).count(), 0, "{text}");
        }
    }

    #[test]
    fn the_running_kernel_has_loopback() {
        let proc = std::path::PathBuf::from("/proc");
        if TcpListener::bind("127.0.0.1:0").is_ok() && proc.join("1/net").exists() {
            let found = local(&Roots::default()).unwrap();
            assert!(found.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{found:?}");
        }
    }
}
