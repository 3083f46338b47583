//! What the operator says of a cluster: which addresses are whose, and who is expected from where.

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::request::Source;
use crate::allow_list::{Access, AllowList, Shown, in_any};
use crate::fact::{Service, Verdict};
use crate::time::Timestamp;

/// The port by which entries of the allow-list speak of the API server.
const API_PORT: u16 = 6443;

/// What audit events are judged by.
#[derive(Clone, Debug, Default)]
pub struct AuditPolicy {
    /// Expected access; entries for `kube-apiserver` count.
    pub allow: AllowList,
    /// Nodes by name with their addresses; those named here are not learned.
    pub nodes: Vec<(Arc<str>, Vec<IpNetwork>)>,
    /// Ranges of pods.
    pub pods: Vec<IpNetwork>,
    /// Every named network, those above included. Empty: nobody said what is inside, so nothing is outside.
    pub networks: Vec<IpNetwork>,
    /// Proxies in front of the API server whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<IpNetwork>,
}

impl AuditPolicy {
    /// Goes back from the TCP peer through the proxies that are trusted.
    pub(super) fn settle(&self, source: &mut Source) {
        while source.trusted.is_some_and(|peer| in_any(&self.trusted_proxies, peer)) {
            // A proxy that says nothing is the last that is known.
            let Some(before) = source.claimed.pop() else { break };
            source.trusted = Some(before);
        }
    }

    /// The entry of the allow-list that expects requests from this address.
    pub(super) fn entry(&self, source: IpAddr, unix_ns: u64) -> Option<Arc<str>> {
        let at = Timestamp { boot_ns: unix_ns, unix_ns };
        // An audit log tells verbs, not what a node reads on a connection.
        let shown = Shown::default();
        let access = Access { peer: source, service: Service::KubeApiserver, port: API_PORT, at, shown };
        match self.allow.judge(&access) {
            Verdict::Listed(entry) => Some(entry),
            Verdict::Unlisted => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(trusted_proxies: &[&str], peer: &str, claimed: &[&str]) -> String {
        let policy = AuditPolicy {
            trusted_proxies: trusted_proxies.iter().map(|proxy| proxy.parse().expect("a network")).collect(),
            ..AuditPolicy::default()
        };
        let ip = |text: &&str| text.parse().expect("an address");
        let mut source = Source { trusted: Some(ip(&peer)), claimed: claimed.iter().map(ip).collect() };
        policy.settle(&mut source);
        source.trusted.expect("there was one").to_string()
    }

    #[test]
    fn what_a_client_writes_is_not_believed() {
        assert_eq!(settled(&[], "198.18.0.9", &["10.1.0.11"]), "198.18.0.9");
        assert_eq!(settled(&["10.9.0.1"], "198.18.0.9", &["10.1.0.11", "10.9.0.1"]), "198.18.0.9");
    }

    #[test]
    fn a_configured_proxy_is_believed_for_one_hop() {
        assert_eq!(settled(&["10.9.0.1"], "10.9.0.1", &["10.1.0.11", "198.18.0.9"]), "198.18.0.9");
        assert_eq!(settled(&["10.9.0.0/24"], "10.9.0.1", &["198.18.0.9", "10.9.0.2"]), "198.18.0.9");
        assert_eq!(settled(&["10.9.0.1"], "10.9.0.1", &[]), "10.9.0.1");
    }
}
