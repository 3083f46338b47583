//! The allow-list against a naive one that compares addresses bit by bit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use proptest::prelude::*;
use sensor_core::allow_list::{Access, AllowEntry, AllowList, Schedule, Shown, Source, Target};
use sensor_core::fact::{Service, Verdict};
use sensor_core::time::Timestamp;

/// Addresses from few bits, so that networks and peers meet often.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (0_u8..4, 0_u8..4, 0_u8..4).prop_map(|(a, b, c)| Ipv4Addr::new(10 + a % 2, a, b, c));
    let v6 = (0_u16..4, 0_u16..4).prop_map(|(a, b)| Ipv6Addr::new(0xfd00, a, 0, 0, 0, 0, 0, b));
    prop_oneof![
        v4.clone().prop_map(IpAddr::V4),
        v4.prop_map(|ip| IpAddr::V6(ip.to_ipv6_mapped())),
        v6.prop_map(IpAddr::V6),
        Just(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Just(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ]
}

fn network() -> impl Strategy<Value = IpNetwork> {
    (address(), 0_u8..=128).prop_map(|(ip, prefix)| {
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        IpNetwork::new(ip, prefix.min(longest)).expect("a prefix in range")
    })
}

fn service() -> impl Strategy<Value = Service> {
    proptest::sample::select(Service::ALL.to_vec())
}

fn entry() -> impl Strategy<Value = AllowEntry> {
    let networks = || proptest::collection::vec(network(), 0..3);
    let to = (proptest::collection::vec(service(), 0..2), proptest::collection::vec(0_u16..4, 0..2));
    (networks(), networks(), any::<bool>(), any::<bool>(), to).prop_map(
        |(networks, except, nodes, local, (services, ports))| AllowEntry {
            name: "".into(),
            from: Source { networks, except, nodes, local, ..Source::default() },
            to: Target { services, ports },
            when: Schedule::default(),
            until_unix_ns: None,
        },
    )
}

fn allow_list() -> impl Strategy<Value = AllowList> {
    let entries = proptest::collection::vec(entry(), 0..6);
    let nodes = proptest::collection::vec(network(), 0..3);
    let local = proptest::collection::vec(address(), 0..3);
    (entries, nodes, local).prop_map(|(mut entries, nodes, local)| {
        for (index, entry) in entries.iter_mut().enumerate() {
            entry.name = index.to_string().into();
        }
        AllowList { entries, nodes, local }
    })
}

/// An address as bits behind its family; IPv4-mapped ones as IPv4.
fn bits(ip: IpAddr) -> Vec<bool> {
    let octets = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => ip.octets().to_vec(),
            None => ip.octets().to_vec(),
        },
    };
    octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1)).collect()
}

fn naive_contains(network: IpNetwork, peer: IpAddr) -> bool {
    let mapped = matches!(network.ip(), IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
    let (network_bits, peer_bits) = (bits(network.ip()), bits(peer));
    let prefix = match (mapped, network.prefix().checked_sub(96)) {
        (true, Some(prefix)) => prefix,
        // Shorter than the mapped range: a network of IPv6 addresses, none of which a peer is printed as.
        (true, None) => return naive_v6(network, peer),
        (false, _) => network.prefix(),
    };
    network_bits.len() == peer_bits.len()
        && network_bits.iter().zip(&peer_bits).take(prefix.into()).all(|(one, other)| one == other)
}

fn naive_v6(network: IpNetwork, peer: IpAddr) -> bool {
    let (IpAddr::V6(base), IpAddr::V6(peer)) = (network.ip(), peer) else { return false };
    if peer.to_ipv4_mapped().is_some() {
        return false;
    }
    let shift = 128 - u32::from(network.prefix());
    let top = |ip: Ipv6Addr| u128::from(ip).checked_shr(shift).unwrap_or(0);
    top(base) == top(peer)
}

fn naive_judge(list: &AllowList, peer: IpAddr, service: Service, port: u16) -> Option<usize> {
    let in_any = |networks: &[IpNetwork]| networks.iter().any(|network| naive_contains(*network, peer));
    let is_local = || {
        let loopback = match peer {
            IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(ip.is_loopback(), |ip| ip.is_loopback()),
            IpAddr::V4(ip) => ip.is_loopback(),
        };
        loopback || list.local.iter().any(|own| bits(*own) == bits(peer))
    };
    list.entries.iter().position(|entry| {
        let listed = in_any(&entry.from.networks)
            || entry.from.nodes && in_any(&list.nodes)
            || entry.from.local && is_local();
        let to = &entry.to;
        let any_target = to.services.is_empty() && to.ports.is_empty();
        listed
            && !in_any(&entry.from.except)
            && (any_target || to.services.contains(&service) || to.ports.contains(&port))
    })
}

fn judge(list: &AllowList, peer: IpAddr, service: Service, port: u16) -> Verdict {
    list.judge(&Access { peer, service, port, at: Timestamp::default(), shown: Shown::default() })
}

proptest! {
    #[test]
    fn first_match_is_that_of_the_naive_list(
        list in allow_list(), peer in address(), service in service(), port in 0_u16..4,
    ) {
        let decided = match judge(&list, peer, service, port) {
            Verdict::Listed(name) => Some(name.parse::<usize>().expect("a number")),
            Verdict::Unlisted => None,
        };
        prop_assert_eq!(decided, naive_judge(&list, peer, service, port));
    }

    #[test]
    fn mapped_and_plain_spelling_of_a_peer_are_judged_alike(list in allow_list(), peer: [u8; 4]) {
        let plain = Ipv4Addr::from(peer);
        let judge = |ip: IpAddr| judge(&list, ip, Service::Docker, 2375);
        prop_assert_eq!(judge(plain.into()), judge(plain.to_ipv6_mapped().into()));
    }

    #[test]
    fn shadowed_entries_never_decide(
        list in allow_list(), peer in address(), service in service(), port in 0_u16..4,
    ) {
        if let Verdict::Listed(name) = judge(&list, peer, service, port) {
            let decided = name.parse::<usize>().expect("a number");
            prop_assert!(list.shadowed().iter().all(|shadowed| shadowed.entry != decided));
        }
    }
}
