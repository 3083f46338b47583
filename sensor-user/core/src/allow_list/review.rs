//! Entries that can never decide, because earlier ones always do.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;

use super::{AllowEntry, AllowList, Source, Target};

/// An entry that is never reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// Its place in the list.
    pub entry: usize,
    /// The places of the earlier entries that together decide all it speaks of.
    pub by: Vec<usize>,
}

impl AllowList {
    /// The entries that earlier ones leave nothing to.
    ///
    /// What is told is so. Networks are compared as sets, so that several earlier entries may be needed; of these each must
    /// speak of all the endpoints and all the time of the later one. The node's own addresses, which may be any, are left
    /// nothing by an earlier entry only that speaks of them as such.
    #[must_use]
    pub fn shadowed(&self) -> Vec<Shadowed> {
        let sets: Vec<Peers> = self.entries.iter().map(|entry| self.peers(&entry.from)).collect();
        let shadow = |later: usize| {
            let entry = &self.entries[later];
            if !entry.from.actor.is_empty() {
                return self.shadowed_actor(later);
            }
            let mut earlier = Peers::default();
            let mut by = Vec::new();
            for (index, candidate) in self.entries[..later].iter().enumerate() {
                let speaks_of_all = candidate.outlasts(entry)
                    && candidate.to.includes(&entry.to)
                    && candidate.from.shows.include(&entry.from.shows);
                if speaks_of_all && sets[index].meets(&sets[later]) {
                    earlier.add(&sets[index]);
                    by.push(index);
                }
            }
            let is_shadowed = !sets[later].is_empty() && earlier.includes(&sets[later]);
            is_shadowed.then_some(Shadowed { entry: later, by })
        };
        (0..self.entries.len()).filter_map(shadow).collect()
    }

    /// Containers go by names, of which each has to be spoken of by one earlier entry.
    fn shadowed_actor(&self, later: usize) -> Option<Shadowed> {
        let entry = &self.entries[later];
        let leaves_nothing =
            |earlier: &AllowEntry| earlier.outlasts(entry) && earlier.from.actor.includes(&entry.from.actor);
        let by = self.entries[..later].iter().position(leaves_nothing)?;
        Some(Shadowed { entry: later, by: vec![by] })
    }

    fn peers(&self, from: &Source) -> Peers {
        // An entry about containers speaks of no peer.
        if !from.actor.is_empty() {
            return Peers::default();
        }
        let nodes = from.nodes.then_some(&self.nodes).into_iter().flatten();
        let mut addresses = Addresses::of(from.networks.iter().chain(nodes));
        let except = Addresses::of(&from.except);
        addresses.remove(&except);
        Peers { addresses, local: from.local.then_some(except) }
    }
}

impl AllowEntry {
    /// Whether it holds whenever the other one does.
    fn outlasts(&self, other: &Self) -> bool {
        let longer = match (self.until_unix_ns, other.until_unix_ns) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(others)) => own >= others,
        };
        longer && self.when.includes(&other.when)
    }
}

impl Target {
    fn includes(&self, other: &Self) -> bool {
        let is_any = |target: &Self| target.services.is_empty() && target.ports.is_empty();
        is_any(self)
            || (!is_any(other)
                && other.services.iter().all(|service| self.services.contains(service))
                && other.ports.iter().all(|port| self.ports.contains(port)))
    }
}

/// The peers an entry speaks of.
#[derive(Clone, Debug, Default)]
struct Peers {
    addresses: Addresses,
    /// For entries that speak of the node's own addresses, which may be any: those that are taken out.
    local: Option<Addresses>,
}

impl Peers {
    fn is_empty(&self) -> bool {
        self.addresses.0.is_empty() && self.local.is_none()
    }

    fn add(&mut self, other: &Self) {
        self.addresses.add(&other.addresses);
        self.local = match (self.local.take(), &other.local) {
            (Some(mut own), Some(others)) => {
                // What one of two entries takes out the other one may have.
                let mut kept = own.clone();
                kept.remove(others);
                own.remove(&kept);
                Some(own)
            }
            (own, others) => own.or_else(|| others.clone()),
        };
    }

    fn meets(&self, other: &Self) -> bool {
        (self.local.is_some() && other.local.is_some()) || self.addresses.meets(&other.addresses)
    }

    fn includes(&self, other: &Self) -> bool {
        let local = match (&self.local, &other.local) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(own), Some(others)) => others.includes(own),
        };
        local && self.addresses.includes(&other.addresses)
    }
}

/// A set of addresses: spans in order that neither meet nor touch, IPv4 addresses in their mapped form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Addresses(Vec<RangeInclusive<u128>>);

impl Addresses {
    /// What is printed as IPv4.
    const MAPPED: RangeInclusive<u128> = 0xffff_0000_0000..=0xffff_ffff_ffff;

    fn of<'a>(networks: impl IntoIterator<Item = &'a IpNetwork>) -> Self {
        let spans = networks.into_iter().map(span);
        let (wide, mut spans): (Vec<_>, Vec<_>) =
            spans.partition(|span| span.start() < Self::MAPPED.start() && span.end() >= Self::MAPPED.start());
        // A network of IPv6 addresses holds no peer that is printed as IPv4, however wide it is.
        let mut wide = Self::normal(wide);
        wide.remove(&Self(vec![Self::MAPPED]));
        spans.append(&mut wide.0);
        Self::normal(spans)
    }

    fn normal(mut spans: Vec<RangeInclusive<u128>>) -> Self {
        spans.sort_unstable_by_key(|span| *span.start());
        let mut merged: Vec<RangeInclusive<u128>> = Vec::with_capacity(spans.len());
        for span in spans {
            match merged.last_mut() {
                Some(last) if *span.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*last.end().max(span.end());
                }
                _ => merged.push(span),
            }
        }
        Self(merged)
    }

    fn add(&mut self, other: &Self) {
        let mut spans = std::mem::take(&mut self.0);
        spans.extend(other.0.iter().cloned());
        *self = Self::normal(spans);
    }

    fn remove(&mut self, other: &Self) {
        let mut left = Vec::with_capacity(self.0.len());
        let mut holes = &other.0[..];
        for span in &self.0 {
            let end = *span.end();
            let mut start = Some(*span.start());
            while let (Some(from), Some(hole)) = (start, holes.first()) {
                if *hole.start() > end {
                    break;
                }
                if *hole.end() >= from {
                    if *hole.start() > from {
                        left.push(from..=hole.start() - 1);
                    }
                    start = hole.end().checked_add(1).filter(|next| *next <= end);
                }
                // What reaches beyond this span is still to come for the next one.
                if *hole.end() > end {
                    break;
                }
                holes = &holes[1..];
            }
            left.extend(start.map(|start| start..=end));
        }
        self.0 = left;
    }

    fn meets(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(our), Some(their)) = (ours.peek(), theirs.peek()) {
            if our.end() < their.start() {
                ours.next();
            } else if their.end() < our.start() {
                theirs.next();
            } else {
                return true;
            }
        }
        false
    }

    fn includes(&self, other: &Self) -> bool {
        let mut rest = other.clone();
        rest.remove(self);
        rest.0.is_empty()
    }
}

fn span(network: &IpNetwork) -> RangeInclusive<u128> {
    let (first, bits) = match network.ip() {
        IpAddr::V4(ip) => (ip.to_ipv6_mapped(), 32),
        IpAddr::V6(ip) => (ip, 128),
    };
    let host_bits = bits - u32::from(network.prefix());
    let hosts = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1);
    let first = Ipv6Addr::to_bits(first) & !hosts;
    first..=first | hosts
}

#[cfg(test)]
mod tests;
