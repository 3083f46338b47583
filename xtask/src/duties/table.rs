//! The duties. Asked for by: the analytic or technique, or `all` for what validation and tuning of every one of them need.

use super::Extent::{Live, NotYet, Partly};
use super::{Extent, Place};

/// One thing that the material asks for.
#[derive(Clone, Copy)]
pub(super) struct Duty {
    pub(super) by: &'static str,
    pub(super) duty: &'static str,
    pub(super) extent: Extent,
    pub(super) code: &'static [Place],
    /// Files of tests, each with the name of a test or of a case in it.
    pub(super) tests: &'static [Place],
    pub(super) blind: &'static str,
}

const KERNEL_LIMITS: &str = "[what the hooks cannot see](../kernel-hooks.md#what-these-hooks-cannot-see)";
const AN1007_MISSES: &str = "[known misses](an1007.md#known-misses)";
const AN1352_MISSES: &str = "[known misses](an1352.md#known-misses)";
const AUDIT_LIMITS: &str = "[column \"cannot see\"](kubernetes-audit.md#signals)";

/// In the order of the document.
pub(super) const DUTIES: &[Duty] = &[
    Duty {
        by: "AN1007",
        duty: "connections to the exposed Docker and Kubernetes API, judged by an allow-list",
        extent: Live,
        code: &[
            ("sensor-ebpf/src/connections.rs", "pub fn begin_inbound"),
            ("sensor-user/core/src/allow_list.rs", "pub fn judge"),
        ],
        tests: &[
            ("tests/e2e/docker.rs", "docker_run_from_an_unlisted_peer_is_seen_as_a_whole"),
            ("tests/e2e/docker.rs", "docker_over_ipv6_is_judged_by_ipv6_networks"),
        ],
        blind: KERNEL_LIMITS,
    },
    Duty {
        by: "AN1007",
        duty: "creation and start of containers, abnormal or not by their OCI specification",
        extent: Live,
        code: &[
            ("sensor-user/core/src/risks/judge.rs", "pub fn of_container"),
            ("sensor-user/core/src/engine/lifecycle.rs", "fn handle_container_metadata"),
        ],
        tests: &[
            ("tests/e2e/risks.rs", "docker_run_options_are_risks"),
            ("tests/e2e/risks.rs", "a_thousand_short_lived_containers_are_complete"),
        ],
        blind: "[known misses](risks.md#known-misses)",
    },
    Duty {
        by: "AN1007",
        duty: "who had a container made: proved from connection to request to container, else said to be inferred",
        extent: Live,
        code: &[("sensor-user/core/src/origins.rs", "pub(crate) struct Origins")],
        tests: &[
            ("tests/e2e/requests.rs", "eight_clients_at_once_are_told_apart"),
            ("tests/e2e/requests.rs", "neither_many_requests_nor_small_segments_hide_a_cause"),
        ],
        blind: "requests in TLS; kernels without the hooks: [requests](../kernel-hooks.md#requests)",
    },
    Duty {
        by: "AN1007",
        duty: "node-to-node activity of such a container, and of what escaped from it",
        extent: Live,
        code: &[
            ("sensor-user/core/src/chains/an1007/lateral.rs", "struct Lateral"),
            ("sensor-user/core/src/engine/escapes.rs", "fn on_exec_in_container"),
        ],
        tests: &[
            ("tests/e2e/chains.rs", "a_whole_chain_is_one_critical_finding_among_eight_innocent_clients"),
            ("tests/e2e/escapes.rs", "nsenter_from_a_container_into_the_host_is_an_escape"),
        ],
        blind: AN1007_MISSES,
    },
    Duty {
        by: "AN1007",
        duty: "these in order, in windows of event time, per peer and container",
        extent: Live,
        code: &[("sensor-user/core/src/chains/an1007/mod.rs", "struct An1007")],
        tests: &[
            ("sensor-user/core/tests/properties/chains.rs", "what_is_found_is_what_the_model_says"),
            ("tests/replay.rs", "an1007-window-over"),
        ],
        blind: AN1007_MISSES,
    },
    Duty {
        by: "AN1547",
        duty: "service accounts and kubeconfigs used where they do not belong: bound claims, issued credentials, habits",
        extent: Live,
        code: &[
            ("sensor-user/core/src/audit/places.rs", "pub struct Places"),
            ("sensor-user/core/src/audit/habits.rs", "pub struct Habits"),
        ],
        tests: &[
            ("tests/audit/main.rs", "credentials_out_of_place_are_findings"),
            ("tests/audit/main.rs", "quiet_logs_give_no_finding"),
        ],
        blind: AUDIT_LIMITS,
    },
    Duty {
        by: "AN1547",
        duty: "audit of the API server as input: log files; not yet the webhook",
        extent: Partly,
        code: &[
            ("sensor-user/core/src/audit/parse.rs", "fn parse"),
            ("deploy/kubernetes/audit-policy.yaml", "kind: Policy"),
        ],
        tests: &[(
            "tests/e2e/audit.rs",
            "audit_every_event_is_told_once_through_rotation_truncation_and_restart",
        )],
        blind: "what the API server's policy leaves out: [audit policy](kubernetes-audit.md)",
    },
    Duty {
        by: "AN1547",
        duty: "reads of tokens, kubeconfigs and keys, with the program and its container",
        extent: Live,
        code: &[("sensor-user/core/src/engine/credentials.rs", "fn on_file_open")],
        tests: &[("tests/e2e/credentials.rs", "container_that_reads_its_token_is_seen")],
        blind: "[sockets and credential files](../kernel-hooks.md#sockets-and-credential-files)",
    },
    Duty {
        by: "AN1547",
        duty: "a credential read in a container by others than its workload, followed by use of the cluster from there",
        extent: Live,
        code: &[("sensor-user/core/src/chains/an1547/mod.rs", "struct An1547")],
        tests: &[
            ("tests/e2e/credentials.rs", "token_that_is_taken_from_a_workload_and_used_is_a_finding"),
            ("tests/replay.rs", "an1547-token-taken"),
            ("tests/replay.rs", "an1547-silence"),
            (
                "sensor-user/core/src/chains/an1547/tests.rs",
                "whoever_is_brought_in_takes_the_token_and_goes_to_the_cluster_is_one_finding",
            ),
        ],
        blind: "[known misses](an1547.md#known-misses)",
    },
    Duty {
        by: "AN1547",
        duty: "accepts and TLS clients on 6443 and 10250",
        extent: Live,
        code: &[("sensor-user/core/src/tls/ja4.rs", "pub fn ja4")],
        tests: &[("tests/e2e/hellos.rs", "tls_clients_are_told_by_name_protocols_versions_and_fingerprint")],
        blind: KERNEL_LIMITS,
    },
    Duty {
        by: "AN1352",
        duty: "discovery calls over the Docker and the kubelet's API, classed by endpoint and verb",
        extent: Live,
        code: &[
            ("sensor-user/core/src/http/route.rs", "pub struct Endpoint"),
            ("sensor-user/core/src/chains/an1352/mod.rs", "struct An1352"),
        ],
        tests: &[
            ("tests/e2e/chains.rs", "looking_around_in_docker_over_the_network_is_one_discovery"),
            ("tests/replay.rs", "an1352-docker-over-tcp"),
        ],
        blind: AN1352_MISSES,
    },
    Duty {
        by: "AN1352",
        duty: "command-line tools inside containers and under other names",
        extent: Live,
        code: &[("sensor-user/core/src/chains/an1352/tools.rs", "fn discovery_of")],
        tests: &[
            ("tests/e2e/processes.rs", "renamed_client_is_recognised_on_the_host_and_in_a_container"),
            ("tests/replay.rs", "an1352-renamed-kubectl"),
        ],
        blind: AN1352_MISSES,
    },
    Duty {
        by: "AN1352",
        duty: "searches for kubelets and other endpoints, full and half-open",
        extent: Live,
        code: &[("sensor-user/core/src/scans.rs", "pub(crate) struct Scans")],
        tests: &[
            ("tests/e2e/scans.rs", "scanners_that_do_not_complete_connections_are_one_summary_each"),
            ("tests/e2e/scans.rs", "a_container_that_sweeps_others_is_one_summary"),
            ("tests/replay.rs", "an1352-kubelet-search"),
        ],
        blind: "a container's sweep by packets that it makes itself; [flood control](../kernel-hooks.md#flood-control)",
    },
    Duty {
        by: "AN1352",
        duty: "enumeration of pods, secrets and rights, and dashboards, in audit logs",
        extent: Live,
        code: &[("sensor-user/core/src/audit/discovery.rs", "struct Discovery")],
        tests: &[("tests/audit/main.rs", "every_scenario_is_found_and_nothing_else_is_a_finding")],
        blind: AUDIT_LIMITS,
    },
    Duty {
        by: "all",
        duty: "tell authorised from unauthorised sources",
        extent: Live,
        code: &[("sensor-user/core/src/allow_list.rs", "pub struct AllowEntry")],
        tests: &[
            ("sensor-user/core/tests/properties/allow_list.rs", "proptest!"),
            ("tests/replay.rs", "the_first_entry_that_matches_decides"),
        ],
        blind: "peers behind one translated address are one peer",
    },
    Duty {
        by: "all",
        duty: "correlate, rather than alert on one signal",
        extent: Live,
        code: &[
            ("sensor-user/core/src/chains/mod.rs", "struct Chains"),
            ("sensor-user/core/src/state/kept.rs", "struct Kept"),
        ],
        tests: &[
            ("tests/e2e/chains.rs", "administrators_local_containers_and_bare_connections_are_no_findings"),
            ("tests/e2e/state.rs", "a_chain_goes_on_under_its_id_after_the_sensor_was_killed"),
        ],
        blind: AN1007_MISSES,
    },
    Duty {
        by: "all",
        duty: "allow for administrators, automation and maintenance windows",
        extent: Live,
        code: &[("sensor-user/core/src/allow_list/schedule.rs", "struct Schedule")],
        tests: &[
            ("sensor-user/core/src/allow_list/schedule.rs", "working_hours_follow_the_clocks_of_their_zone"),
            ("tests/e2e/docker.rs", "docker_run_from_a_listed_peer_names_the_entry"),
        ],
        blind: "an administrator's machine in somebody else's hands",
    },
    Duty {
        by: "all",
        duty: "allow for replaced nodes and autoscaling, and try a change of policy before it is in effect",
        extent: Live,
        code: &[
            ("sensor-user/src/config/reload.rs", "pub fn reloaded"),
            ("sensor-user/src/comparison.rs", "struct"),
        ],
        tests: &[
            (
                "tests/e2e/reload.rs",
                "another_configuration_judges_the_next_accept_and_an_invalid_one_does_not",
            ),
            ("tests/e2e/reload.rs", "a_chain_that_was_begun_before_a_reload_is_completed_after_it"),
        ],
        blind: "a recording across a reload is replayed under one policy",
    },
    Duty {
        by: "all",
        duty: "expect by image, namespace or tool what monitoring and network containers do",
        extent: Live,
        code: &[
            ("sensor-user/core/src/allow_list/actor.rs", "pub struct Actor"),
            ("sensor-user/core/src/allow_list/shows.rs", "pub struct Shows"),
        ],
        tests: &[
            (
                "sensor-user/core/src/chains/an1352/tests.rs",
                "a_container_that_an_entry_expects_may_look_around_and_its_twin_may_not",
            ),
            ("tests/replay/silence.rs", "prometheus_scrapes_kubelets"),
        ],
        blind: "an image goes by its reference, not by its digest; on a node without Kubernetes whoever may call Docker \
                can use a listed image",
    },
    Duty {
        by: "all",
        duty: "what may be reached from where: the management endpoints, and which of them outsiders reach",
        extent: Live,
        code: &[("sensor-user/core/src/exposure.rs", "pub struct Ledger")],
        tests: &[
            ("tests/e2e/exposure.rs", "dockerd_moved_to_tcp_shows_within_a_second"),
            ("tests/e2e/exposure.rs", "published_port_that_leads_to_docker_is_followed"),
        ],
        blind: "[exposure](../output.md#exposure)",
    },
    Duty {
        by: "all",
        duty: "say where telemetry is missing",
        extent: Live,
        code: &[("sensor-user/core/src/coverage.rs", "struct CoverageLedger")],
        tests: &[
            ("tests/e2e/coverage.rs", "a_hook_that_another_program_silences_is_blind_until_it_reports_again"),
            ("tests/e2e/loss.rs", "loss_in_tiny_rings_is_reported_within_a_second_and_balances"),
            (
                "sensor-user/core/tests/properties/state.rs",
                "a_time_without_sensor_is_said_of_the_chain_that_goes_on",
            ),
        ],
        blind: "[coverage](../operations.md#coverage)",
    },
    Duty {
        by: "all",
        duty: "an inventory of service accounts and kubeconfigs, and where they are expected",
        extent: NotYet,
        code: &[],
        tests: &[],
        blind: "learned places of credentials are used, not shown",
    },
    Duty {
        by: "all",
        duty: "a rehearsal of the whole chain for incident response",
        extent: Partly,
        code: &[("sensor-user/src/commands/replay.rs", "pub fn replay")],
        tests: &[("tests/e2e/replay.rs", "replay_of_a_run_gives_the_same_facts_and_verdicts")],
        blind: "recordings can be replayed; nothing acts the attack",
    },
];
