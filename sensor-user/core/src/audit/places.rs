//! Which address belongs to which node: from the configuration, from node objects, and from the kubelets' own requests.
//!
//! What is configured is not learned anew, what a node object says outweighs what was learned. An address that several
//! kubelets came from as their first is no place (a load balancer, one translated network) and proves nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::policy::AuditPolicy;
use crate::allow_list::in_any;
use crate::bounded::{Bounded, Index};

/// The largest cluster that Kubernetes supports has 5,000 nodes.
const NODES_MAX: usize = 8192;
const ADDRESSES_MAX: usize = 4 * NODES_MAX;
/// Addresses kept of one node.
const ADDRESSES_OF_NODE_MAX: usize = 16;
/// Pods whose node or address is kept.
const PODS_MAX: usize = 65_536;

/// How an address of a node is known, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Authority {
    /// The kubelet's requests came from there.
    Learned,
    /// The node object says so.
    Told,
    /// The operator says so.
    Configured,
}

#[derive(Clone, Debug)]
struct NodePlace {
    authority: Authority,
    addresses: Vec<IpAddr>,
    /// Configured as more than single addresses.
    ranges: Vec<IpNetwork>,
    /// Where its pods' requests come from, if not from its own address.
    egress: Option<IpAddr>,
    /// A pod's request came from the node's own address.
    masquerades: bool,
}

#[derive(Clone, Debug)]
struct Owner {
    node: Arc<str>,
    shared: bool,
}

/// A /24 (or /64) of a pod network, by the node whose pods used it.
#[derive(Clone, Debug)]
struct UsedRange {
    node: Arc<str>,
    uses: u32,
    last_ns: u64,
    /// Pods of several nodes used it: here addresses are not given out by node.
    mixed: bool,
}

/// Uses after which a range is a node's.
const RANGE_KNOWN_AFTER: u32 = 20;
/// Time after which a range that nobody uses may be given to another node.
const RANGE_FORGOTTEN_NS: u64 = 10 * 60 * 1_000_000_000;

/// Where a pod's request came from instead of its own address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodElsewhere {
    /// The address of the pod with this uid.
    Pod(Arc<str>),
    /// An address among those of this node's pods.
    Node(Arc<str>),
}

/// What an address is to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The API server's own machine.
    Local,
    /// This node's.
    Node(Arc<str>),
    /// Several nodes'.
    Shared,
    /// A pod's, of this node if that is known.
    Pod(Option<Arc<str>>),
    /// In a named network.
    Inside,
    /// In none, and there are some.
    Outside,
    /// Nobody said what is inside.
    Unknown,
}

/// What an address is to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Its own.
    Own,
    /// It proves nothing.
    Unknowable,
    /// The node has no address yet that could be compared.
    New,
    /// Another node's.
    Other(Arc<str>),
    /// Nobody's that is known; `sure`: and the node's own are not only learned.
    Elsewhere {
        /// The node's addresses were configured, or told by its object.
        sure: bool,
    },
}

/// Addresses of nodes and pods.
#[derive(Clone, Debug)]
pub struct Places {
    nodes: Bounded<Arc<str>, NodePlace>,
    owners: Bounded<IpAddr, Owner>,
    /// Pod ranges of single nodes.
    ranges: Index<IpNetwork, Arc<str>>,
    /// Lengths of those ranges' prefixes.
    prefixes: BTreeSet<u8>,
    /// `namespace/name` of pods with the node whose kubelet reported them.
    pods: Bounded<Arc<str>, Arc<str>>,
    /// Addresses of pods by uid, and uids by address, where pods are not translated.
    pod_addresses: Bounded<(Arc<str>, bool), IpAddr>,
    pod_owners: Bounded<IpAddr, Arc<str>>,
    used_ranges: Bounded<IpAddr, UsedRange>,
    pod_networks: Vec<IpNetwork>,
    networks: Vec<IpNetwork>,
    configured_ranges: Vec<(IpNetwork, Arc<str>)>,
}

impl Places {
    /// What the configuration says.
    pub(super) fn new(policy: &AuditPolicy) -> Self {
        let mut places = Self {
            nodes: Bounded::new(NODES_MAX),
            owners: Bounded::new(ADDRESSES_MAX),
            ranges: Index::default(),
            prefixes: BTreeSet::new(),
            pods: Bounded::new(PODS_MAX),
            pod_addresses: Bounded::new(PODS_MAX),
            pod_owners: Bounded::new(PODS_MAX),
            used_ranges: Bounded::new(ADDRESSES_MAX),
            pod_networks: policy.pods.clone(),
            networks: policy.networks.clone(),
            configured_ranges: Vec::new(),
        };
        for (node, networks) in &policy.nodes {
            let (single, ranges): (Vec<IpNetwork>, Vec<IpNetwork>) =
                networks.iter().copied().partition(is_single);
            let addresses = single.iter().map(|network| network.ip().to_canonical()).collect();
            places.configured_ranges.extend(ranges.iter().map(|range| (*range, node.clone())));
            places.replace(node, Authority::Configured, addresses);
            if let Some(place) = places.nodes.get_mut(node) {
                place.ranges = ranges;
            }
        }
        places
    }

    /// Takes other networks for what is inside.
    pub(super) fn set_networks(&mut self, networks: Vec<IpNetwork>) {
        self.networks = networks;
    }

    /// What an address is.
    #[must_use]
    pub fn of(&self, ip: IpAddr) -> Place {
        if ip.is_loopback() {
            return Place::Local;
        }
        match self.owners.peek(&ip) {
            Some(Owner { shared: true, .. }) => return Place::Shared,
            Some(owner) => return Place::Node(owner.node.clone()),
            None => {}
        }
        if let Some((_, node)) = self.configured_ranges.iter().find(|(range, _)| in_any(&[*range], ip)) {
            return Place::Node(node.clone());
        }
        if let Some(node) = self.pod_range(ip) {
            return Place::Pod(Some(node.clone()));
        }
        if in_any(&self.pod_networks, ip) {
            return Place::Pod(None);
        }
        match () {
            () if in_any(&self.networks, ip) => Place::Inside,
            () if self.networks.is_empty() => Place::Unknown,
            () => Place::Outside,
        }
    }

    /// What an address is to a node; `bound`: the request is that of a pod on it, not of its kubelet.
    #[must_use]
    pub fn relation(&self, node: &str, ip: IpAddr, bound: bool) -> Relation {
        let at = self.of(ip);
        let place = self.nodes.peek(node);
        if let Some(place) = place
            && (place.addresses.contains(&ip)
                || in_any(&place.ranges, ip)
                || (bound && place.egress == Some(ip)))
            && at != Place::Shared
        {
            return Relation::Own;
        }
        let comparable = place.filter(|place| {
            place.addresses.iter().any(|own| own.is_ipv4() == ip.is_ipv4()) || !place.ranges.is_empty()
        });
        match (at, comparable) {
            (Place::Local | Place::Shared, _) => Relation::Unknowable,
            (Place::Pod(Some(owner)), _) if *owner == *node => Relation::Own,
            (Place::Pod(Some(owner)), _) => Relation::Other(owner),
            // Where pods are not translated, which pod it is decides; see `pod_elsewhere`.
            (Place::Pod(None), _) => Relation::Unknowable,
            (Place::Node(owner), _) if self.is_certain(&owner) => Relation::Other(owner),
            (Place::Node(owner), Some(_)) => Relation::Other(owner),
            (Place::Outside, None) => Relation::Elsewhere { sure: false },
            (_, None) => Relation::New,
            (_, Some(place)) => Relation::Elsewhere { sure: place.authority > Authority::Learned },
        }
    }

    /// A kubelet's request came from here, and nothing is known that speaks against it.
    pub(super) fn learn(&mut self, node: &Arc<str>, ip: IpAddr) {
        if let Some(owner) = self.owners.get_mut(&ip)
            && owner.node != *node
        {
            owner.shared = true;
        }
        match self.nodes.get_mut(node) {
            Some(place) if place.addresses.len() < ADDRESSES_OF_NODE_MAX => place.addresses.push(ip),
            Some(_) => return,
            None => {
                self.nodes.insert(node.clone(), NodePlace::new(Authority::Learned, vec![ip]));
            }
        }
        if !self.owners.contains(&ip) {
            self.owners.insert(ip, Owner { node: node.clone(), shared: false });
        }
    }

    /// A node registered itself anew, which the API server only lets it do when it is not there: it may have moved.
    pub(super) fn registered(&mut self, node: &Arc<str>, ip: IpAddr) {
        let learned = self.nodes.peek(node).is_none_or(|place| place.authority == Authority::Learned);
        // An address that is somebody's already is no evidence that a node of that name lives there.
        if learned && !matches!(self.of(ip), Place::Node(owner) if owner != *node) && !ip.is_loopback() {
            self.replace(node, Authority::Learned, vec![ip]);
        }
    }

    /// A node object says its addresses and the range of its pods.
    pub(super) fn told(&mut self, node: &Arc<str>, addresses: &[IpAddr], pods: &[IpNetwork]) {
        let known = self.nodes.peek(node).map(|place| place.authority);
        if !addresses.is_empty() && known != Some(Authority::Configured) {
            let addresses = addresses.iter().take(ADDRESSES_OF_NODE_MAX).map(IpAddr::to_canonical).collect();
            self.replace(node, Authority::Told, addresses);
        }
        for range in pods {
            if self.ranges.len() < NODES_MAX || self.ranges.contains_key(range) {
                self.prefixes.insert(range.prefix());
                self.ranges.insert(*range, node.clone());
            }
        }
    }

    /// A pod's request came from its node's own address, or from this other one if that was the first.
    pub(super) fn pod_request(&mut self, node: &str, ip: IpAddr, own: bool) -> bool {
        let Some(place) = self.nodes.get_mut(node) else { return true };
        if own {
            place.masquerades = true;
            return true;
        }
        let first = place.authority == Authority::Learned && !place.masquerades && place.egress.is_none();
        if first {
            place.egress = Some(ip);
        }
        first
    }

    /// A kubelet reported on a pod.
    pub(super) fn pod_on(&mut self, pod: Arc<str>, node: &Arc<str>) {
        self.pods.insert(pod, node.clone());
    }

    /// The node whose kubelet reported on a pod (`namespace/name`).
    pub(super) fn node_of_pod(&self, pod: &str) -> Option<&Arc<str>> {
        self.pods.peek(pod)
    }

    /// A pod's request came from an address in a pod network that no configuration and no node object gives to a node:
    /// whose it is instead, if that is known. Else the address is learned.
    pub(super) fn pod_elsewhere(
        &mut self,
        uid: &Arc<str>,
        node: &Arc<str>,
        ip: IpAddr,
        at_ns: u64,
    ) -> Option<PodElsewhere> {
        if !in_any(&self.pod_networks, ip) {
            return None;
        }
        let key = (uid.clone(), ip.is_ipv4());
        let own = self.pod_addresses.get_mut(&key).copied();
        let owner = self.pod_owners.get_mut(&ip).cloned();
        if let (Some(own), Some(owner)) = (own, owner)
            && own != ip
            && owner != *uid
        {
            return Some(PodElsewhere::Pod(owner));
        }
        if let Some(other) = self.range_of_other(node, ip, at_ns) {
            return Some(PodElsewhere::Node(other));
        }
        self.pod_addresses.insert(key, ip);
        self.pod_owners.insert(ip, uid.clone());
        None
    }

    /// The node whose pods alone have used the range of this address lately, unless it is this one.
    fn range_of_other(&mut self, node: &Arc<str>, ip: IpAddr, at_ns: u64) -> Option<Arc<str>> {
        let range = neighbourhood(ip);
        match self.used_ranges.get_mut(&range) {
            Some(used) if used.node == *node => {
                used.uses = used.uses.saturating_add(1);
                used.last_ns = used.last_ns.max(at_ns);
            }
            Some(used) if used.mixed => {}
            Some(used) if at_ns.saturating_sub(used.last_ns) > RANGE_FORGOTTEN_NS => {
                *used = UsedRange { node: node.clone(), uses: 1, last_ns: at_ns, mixed: false };
            }
            Some(used) if used.uses >= RANGE_KNOWN_AFTER => return Some(used.node.clone()),
            Some(used) => used.mixed = true,
            None => {
                let used = UsedRange { node: node.clone(), uses: 1, last_ns: at_ns, mixed: false };
                self.used_ranges.insert(range, used);
            }
        }
        None
    }

    /// Entries that had to go.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.nodes.evicted()
            + self.owners.evicted()
            + self.pods.evicted()
            + self.pod_addresses.evicted()
            + self.pod_owners.evicted()
            + self.used_ranges.evicted()
    }

    fn replace(&mut self, node: &Arc<str>, authority: Authority, addresses: Vec<IpAddr>) {
        if let Some(old) = self.nodes.remove(node) {
            for ip in old.addresses {
                if self.owners.peek(&ip).is_some_and(|owner| owner.node == *node && !owner.shared) {
                    self.owners.remove(&ip);
                }
            }
        }
        for ip in &addresses {
            self.owners.insert(*ip, Owner { node: node.clone(), shared: false });
        }
        self.nodes.insert(node.clone(), NodePlace::new(authority, addresses));
    }

    fn is_certain(&self, node: &str) -> bool {
        self.nodes.peek(node).is_some_and(|place| place.authority > Authority::Learned)
    }

    fn pod_range(&self, ip: IpAddr) -> Option<&Arc<str>> {
        let widths = self.prefixes.iter().rev();
        let networks = widths.filter_map(|width| IpNetwork::new(ip, *width).ok());
        networks
            .filter_map(|range| IpNetwork::new(range.network(), range.prefix()).ok())
            .find_map(|range| self.ranges.get(&range))
    }
}

impl NodePlace {
    fn new(authority: Authority, addresses: Vec<IpAddr>) -> Self {
        Self { authority, addresses, ranges: Vec::new(), egress: None, masquerades: false }
    }
}

/// The /24 of an IPv4 address, the /64 of an IPv6 address: what the lease of an address, or a node's pods, stay within.
pub(super) fn neighbourhood(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) & !0xff).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !u128::from(u64::MAX)).into()),
    }
}

fn is_single(network: &IpNetwork) -> bool {
    network.prefix() == if network.is_ipv4() { 32 } else { 128 }
}
