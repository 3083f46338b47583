//! What of another configuration can be taken while the sensor runs.

use sensor_core::chains::{An1007Limits, Limits};
use sensor_core::engine::Policy;

use super::settings::Settings;

impl Settings {
    /// The policy of another configuration as far as it can be taken while the sensor runs, and the keys that differ and need
    /// a restart.
    ///
    /// What the probes were told at their start stays, and so the core must not expect anything else of them.
    #[must_use]
    pub fn reloaded(&self, other: &Self) -> (Policy, Vec<&'static str>) {
        let present = &self.policy;
        let policy = Policy {
            ports: present.ports.clone(),
            tools: present.tools.clone(),
            limits: Limits {
                an1007: An1007Limits {
                    lateral_ports: present.limits.an1007.lateral_ports.clone(),
                    ..other.policy.limits.an1007.clone()
                },
                state_bytes: present.limits.state_bytes,
                ..other.policy.limits.clone()
            },
            ..other.policy.clone()
        };
        let differs = [
            ("node.name", self.node_name != other.node_name),
            ("node.cluster", self.cluster != other.cluster),
            ("watch.ports", present.ports != other.policy.ports),
            ("watch.runtimes", present.tools != other.policy.tools),
            ("watch.sockets", self.sockets != other.sockets),
            ("rings", self.rings != other.rings),
            ("flood", self.flood != other.flood),
            ("enrich.hold", self.hold != other.hold),
            ("coverage.interval", self.canary_interval != other.canary_interval),
            ("coverage.rest", self.packets_rest != other.packets_rest),
            ("detect.an1007.lateral_ports", self.lateral_ports != other.lateral_ports),
            ("audit.files", self.audit.files != other.audit.files),
            ("audit.positions", self.audit.positions != other.audit.positions),
            ("state", self.state != other.state),
            ("output", self.outputs != other.outputs),
        ];
        (policy, differs.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::load_text;
    use super::*;

    fn settings(text: &str) -> Settings {
        load_text(text).expect("valid").settings
    }

    #[test]
    fn policy_is_taken_and_what_the_probes_were_told_is_not() {
        let present = settings("");
        let other = settings(
            "networks: {office: [10.9.0.0/16]}\n\
             allow: [{name: a, from: {networks: [office]}, to: {services: [docker]}}]\n\
             detect: {an1007: {access_window: 5m, lateral_ports: [22]}, an1352: {window: 7m}}\n\
             watch: {ports: {2375: docker, 8080: docker}, runtimes: [runsc]}\n",
        );
        let (policy, restart) = present.reloaded(&other);
        assert_eq!(restart, ["watch.ports", "watch.runtimes", "detect.an1007.lateral_ports"]);
        assert_eq!(policy.allow.entries, other.policy.allow.entries);
        assert_eq!(policy.networks, other.policy.networks);
        assert_eq!((policy.ports, policy.tools), (present.policy.ports.clone(), Vec::new()));
        let (limits, before) = (&policy.limits, &present.policy.limits);
        assert_eq!(limits.an1007.access_window_ns, 300_000_000_000);
        assert_eq!(limits.an1352, other.policy.limits.an1352);
        assert_eq!(limits.an1007.lateral_ports, before.an1007.lateral_ports);
    }

    #[test]
    fn every_key_that_needs_a_restart_is_named() {
        let present = settings("");
        let cases = [
            ("node: {name: other}", "node.name"),
            ("node: {cluster: other}", "node.cluster"),
            ("watch: {ports: {2375: docker}}", "watch.ports"),
            ("watch: {runtimes: [runsc]}", "watch.runtimes"),
            ("watch: {sockets: {/run/x.sock: docker}}", "watch.sockets"),
            ("rings: {poll: 7ms}", "rings"),
            ("flood: {burst: 7}", "flood"),
            ("enrich: {hold: 7ms}", "enrich.hold"),
            ("coverage: {interval: 7s}", "coverage.interval"),
            ("coverage: {rest: 7s}", "coverage.rest"),
            ("detect: {an1007: {lateral_ports: [22]}}", "detect.an1007.lateral_ports"),
            ("audit: {files: [/var/log/audit.log]}", "audit.files"),
            ("audit: {positions: /tmp/positions}", "audit.positions"),
            ("state: {max: 2MiB}", "state"),
            ("output: [{type: stdout, kinds: [finding]}]", "output"),
        ];
        for (text, key) in cases {
            assert_eq!(present.reloaded(&settings(text)).1, [key], "{text}");
        }
        assert_eq!(present.reloaded(&present).1, [""; 0]);
    }
}
