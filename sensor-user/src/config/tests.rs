//! What the configuration accepts, what it means, and what it says of everything else.

mod entries;

use std::net::IpAddr;
use std::path::Path;

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use sensor_core::allow_list::{AllowEntry, Days, Hours, IMPLIED_LOCAL, Schedule, Source, Target};
use sensor_core::chains::{An1007Limits, An1352Limits, An1547Limits};
use sensor_core::fact::{Runtime, Service};

use super::values::{Network, Period, Size};
use super::*;
use crate::kernel::FloodLimits;
use crate::wire::Kind;

pub(super) fn load_text(text: &str) -> Result<Loaded, Invalid> {
    load_env(text, &[])
}

fn load_env(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, Invalid> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load_bytes(Path::new("q.yaml"), text.as_bytes(), environment, &Overrides::default())
}

/// All that is wrong with a text, one per line, as the operator sees it.
fn problems(text: &str) -> String {
    match load_text(text) {
        Ok(loaded) => Invalid { problems: loaded.warnings }.to_string(),
        Err(invalid) => invalid.to_string(),
    }
}

#[test]
fn errors_name_place_and_remedy() {
    let entry = "allow:\n  - name: a\n    from: {local: true}\n    to: {services: [any]}\n";
    let cases: &[(&str, &str)] = &[
        ("node: {nam: x}", "1:8: error: unknown key \"nam\"; did you mean \"name\"?"),
        ("wacth: {}", "1:1: error: unknown key \"wacth\"; did you mean \"watch\"?"),
        (
            "detect:\n  an1007: {lateral_port: [1]}",
            "2:12: error: unknown key \"lateral_port\"; did you mean \"lateral_ports\"?",
        ),
        ("node: {name: \"\"}", "1:14: error: node.name is too short; write at least 1"),
        ("watch: 5", "1:8: error: a mapping belongs here; write `key: value` lines, or {} for none"),
        ("watch: {runtimes: runsc}", "1:19: error: a list belongs here; write [one, two], or [] for none"),
        (
            "watch: {sockets: {srv: docker}}",
            "1:18: error: watch.sockets: \"srv\" is not the path of a socket; begin it with a slash",
        ),
        (
            "watch: {runtimes: [a/b]}",
            "1:20: error: watch.runtimes[0]: not the name of a program; write 1 to 63 bytes without a slash, as in \"runsc\"",
        ),
        (
            "watch: {ports: {0: docker}}",
            "1:17: error: \"0\" is not a port; write a number between 1 and 65535",
        ),
        (
            "watch: {ports: {65536: docker}}",
            "1:17: error: \"65536\" is not a port; write a number between 1 and 65535",
        ),
        (
            "watch: {ports: {2375: dokcer}}",
            "1:23: error: unknown service \"dokcer\"; did you mean \"docker\"?",
        ),
        (
            "watch: {ports: {2375: docker, 2375: docker}}",
            "1:31: error: the key \"2375\" is given twice; keep one of them",
        ),
        (
            "rings: {poll: 5}",
            "1:15: error: \"5\" is not a duration: the unit is missing; write a whole number and a unit (ns, us, ms, s, m, h), as in 10m or 5ms",
        ),
        (
            "rings: {bulk: 4MB}",
            "1:15: error: \"4MB\" is not a size: unknown unit; write a whole number and a unit (B, KiB, MiB, GiB), as in 4MiB",
        ),
        ("rings: {bulk: 2GiB}", "1:15: error: a ring of 2GiB is out of range; write 4KiB to 1GiB"),
        ("rings: {bulk: 1KiB}", "1:15: error: a ring of 1KiB is out of range; write 4KiB to 1GiB"),
        ("rings: {poll: 2s}", "1:15: error: 2s is out of range; write 1ms to 1s"),
        ("flood: {burst: 0}", "1:16: error: 0 is out of range; write 1 to 100000"),
        ("detect: {an1352: {distinct_calls: 33}}", "1:35: error: 33 is out of range; write 2 to 32"),
        ("detect: {an1352: {window: 25h}}", "1:27: error: 25h is out of range; write 1s to 24h"),
        ("detect: {an1352: {sweep_targets: 3}}", "1:34: error: 3 is out of range; write 4 to 4096"),
        ("detect: {an1547: {window: 169h}}", "1:27: error: 169h is out of range; write 1s to 168h"),
        ("flood: {per_second: 100001}", "1:21: error: 100001 is out of range; write 1 to 100000"),
        ("enrich: {hold: 1m}", "1:16: error: 1m is out of range; write 0s to 10s"),
        ("implied_local: maybe", "1:16: error: a yes or no belongs here; write true or false"),
        ("output: []", "1:9: error: output is too short; write at least 1"),
        ("coverage: {interval: 1ms}", "1:22: error: 1ms is out of range; write 1s to 1h"),
        ("coverage: {rest: 25h}", "1:18: error: 25h is out of range; write 1s to 24h"),
        ("output: [{type: file}]", "1:17: error: a file needs a path; add `path: /var/log/quaywatch.ndjson`"),
        (
            "output: [{type: file, path: events.ndjson}]",
            "1:17: error: the path of a file is absolute; begin it with a slash",
        ),
        (
            "output: [{type: stdout, path: /x}]",
            "1:17: error: standard output has no path; drop it, or write `type: file`",
        ),
        (
            "output: [{type: stdout}, {type: file, path: /x}, {type: file, path: /x}]",
            "1:57: error: two outputs go to the same place; drop one",
        ),
        ("output: [{type: stdot}]", "1:17: error: unknown value \"stdot\"; did you mean \"stdout\"?"),
        (
            "output: [{type: stdout, kinds: [acept]}]",
            "1:33: error: unknown kind of record \"acept\"; did you mean \"accept\"?",
        ),
        (
            "networks: {pods: [10.0.0.0/33]}",
            "1:19: error: \"10.0.0.0/33\" is not a network: its prefix \"33\" is not between 0 and 32; write an address or address/prefix, as in 10.20.0.0/16 or \"fd00::/8\"",
        ),
        (
            "networks: {pods: [ten]}",
            "1:19: error: \"ten\" is not a network: its address is neither IPv4 nor IPv6; write an address or address/prefix, as in 10.20.0.0/16 or \"fd00::/8\"",
        ),
        (
            "allow:\n  - from: {local: true}\n    to: {services: [any]}",
            "3:5: error: the key \"name\" is missing; add it",
        ),
        (
            "allow: [{name: implied-local, from: {local: true}, to: {services: [any]}}]",
            "1:16: error: the name \"implied-local\" is that of the built-in last entry; choose another",
        ),
        (
            &format!("{entry}{}", entry.trim_start_matches("allow:\n")),
            "5:11: error: the name \"a\" is given to two entries (first at 2:11); names must be unique",
        ),
        (
            "allow: [{name: a, from: {}, to: {services: [any]}}]",
            "1:25: error: the entry names nobody; add cidr, networks, `nodes: true` or `local: true`, or image and namespace",
        ),
        (
            "allow: [{name: a, from: {local: true}, to: {}}]",
            "1:44: error: the entry names no endpoints; add services or ports, or write `services: [any]`",
        ),
        (
            "allow: [{name: a, from: {networks: [pods]}, to: {services: [any]}}]",
            "1:37: error: unknown network \"pods\"; add it under `networks`",
        ),
        (
            "allow: [{name: a, from: {networks: [nodes]}, to: {services: [any]}}]",
            "1:37: error: the addresses of nodes are not a named network; write `nodes: true`",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(problems(text), format!("q.yaml:{expected}"), "{text}");
        assert!(load_text(text).is_err(), "{text}");
    }
    let no_text =
        load_bytes(Path::new("q.yaml"), b"node:\n  name: \xff", std::iter::empty(), &Overrides::default());
    assert_eq!(
        no_text.expect_err("no text").to_string(),
        "q.yaml:2:9: error: not UTF-8; save the file as UTF-8"
    );
}

#[test]
fn what_probably_is_not_meant_is_a_warning() {
    let with = |from: &str, to: &str| format!("allow: [{{name: a, from: {from}, to: {to}}}]");
    let any = "{services: [any]}";
    let cases: &[(String, &str)] = &[
        (
            "rings: {bulk: 3MiB}".to_owned(),
            "1:15: warning: 3MiB is no power of two and becomes 4MiB; write that",
        ),
        (
            with("{cidr: [10.0.0.1/8]}", any),
            "1:33: warning: 10.0.0.1/8 has bits set beyond its prefix and is read as 10.0.0.0/8; write that, or the bare address for one host",
        ),
        (
            with("{nodes: true}", any),
            "1:25: warning: `nodes: true` matches nobody; add addresses under `networks.nodes.members`",
        ),
        (
            with("{local: true}", "{services: [any, docker]}"),
            "1:44: warning: `any` makes the other services and ports needless; drop them",
        ),
        (
            with("{local: true}", "{services: [other]}"),
            "1:56: warning: no watched port serves \"other\"; add one under `watch.ports`",
        ),
        (
            with("{local: true}", "{ports: [80]}"),
            "1:53: warning: port 80 is not watched; add it under `watch.ports`",
        ),
        ("networks: {pods: []}".to_owned(), "1:18: warning: the network \"pods\" is empty; add an address"),
        (
            "output: [{type: stdout, kinds: [accept]}]".to_owned(),
            "1:33: warning: without `health` the output does not tell loss from quiet; add it",
        ),
    ];
    for (text, expected) in cases {
        assert!(load_text(text).is_ok(), "{text}");
        assert_eq!(problems(text), format!("q.yaml:{expected}"), "{text}");
    }
}

#[test]
fn the_whole_file_becomes_settings() {
    let loaded = load_text(
        "
node: {name: n1, cluster: c1}
watch: {ports: {2375: docker, 9443: other}, runtimes: [runsc], sockets: {/srv/d.sock: podman}}
networks:
  nodes: {members: {a: [10.0.0.11], b: [10.0.0.12, \"fd00::12\"]}}
  pods: [10.244.0.0/16]
allow:
  - name: ops
    from: {cidr: [10.20.0.0/16, \"::ffff:10.30.0.0/112\"], except: [10.20.9.0/24], networks: [pods]}
    to: {services: [docker, docker-tls], ports: [9443]}
    when: {days: [mon-fri, sun], hours: 07:00-20:00, zone: Europe/Berlin}
    expires: 2027-03-31
    owner: platform
    reason: administration
  - name: upgrade
    from: {cidr: [10.40.0.7]}
    to: {services: [docker]}
    when: {from: 2026-12-01T22:00, until: 2026-12-02T04:00, zone: UTC}
  - {name: cluster, from: {nodes: true}, to: {services: [any]}}
rings: {management: 64KiB, bulk: 5MiB, poll: 10ms, merge_window: 0s}
flood: {burst: 8, per_second: 2}
enrich: {hold: 1s}
detect: {an1007: {access_window: 2m, lateral_window: 24h, lateral_ports: [22], metadata: false}, an1352: {distinct_calls: 3, window: 5m, sweep_targets: 9}, an1547: {window: 6m}}
output: [{type: stdout, kinds: [accept, health]}]
",
    )
    .expect("valid");
    let settings = loaded.settings;
    assert_eq!(settings.node_name.as_deref(), Some("n1"));
    assert_eq!(settings.cluster.as_deref(), Some("c1"));
    assert_eq!(settings.policy.ports, [(2375, Service::Docker), (9443, Service::Other)]);
    assert_eq!(settings.policy.tools, ["runsc".into()]);
    assert_eq!(settings.sockets, [("/srv/d.sock".into(), Runtime::Podman)]);
    let net = |text: &str| text.parse::<Network>().expect("a network").network();
    let mut working_days = Days::NONE;
    working_days.add(Weekday::Sunday, Weekday::Friday);
    let expected = [
        AllowEntry {
            name: "ops".into(),
            from: Source {
                networks: vec![net("10.20.0.0/16"), net("10.30.0.0/16"), net("10.244.0.0/16")],
                except: vec![net("10.20.9.0/24")],
                ..Source::default()
            },
            to: Target { services: vec![Service::Docker, Service::DockerTls], ports: vec![9443] },
            when: Schedule {
                zone: TimeZone::get("Europe/Berlin").expect("a zone"),
                days: working_days,
                hours: Hours::new(7 * 60, 20 * 60).expect("a span"),
                ..Schedule::default()
            },
            // Midnight in Berlin, where the clocks are two hours ahead by then.
            until_unix_ns: Some(1_806_530_400_000_000_000),
        },
        AllowEntry {
            name: "upgrade".into(),
            from: Source { networks: vec![net("10.40.0.7")], ..Source::default() },
            to: Target { services: vec![Service::Docker], ports: Vec::new() },
            when: Schedule {
                window_unix_ns: 1_796_162_400_000_000_000..1_796_184_000_000_000_000,
                ..Schedule::default()
            },
            until_unix_ns: None,
        },
        AllowEntry {
            name: "cluster".into(),
            from: Source { nodes: true, ..Source::default() },
            to: Target::default(),
            when: Schedule::default(),
            until_unix_ns: None,
        },
        AllowEntry {
            name: IMPLIED_LOCAL.into(),
            from: Source { local: true, ..Source::default() },
            to: Target::default(),
            when: Schedule::default(),
            until_unix_ns: None,
        },
    ];
    assert_eq!(settings.policy.allow.entries, expected);
    assert_eq!(settings.policy.allow.nodes, [net("10.0.0.11"), net("10.0.0.12"), net("fd00::12")]);
    assert_eq!(settings.rings.management_bytes, 64 << 10);
    assert_eq!(settings.rings.bulk_bytes, 8 << 20);
    assert_eq!(settings.rings.poll.as_millis(), 10);
    assert_eq!(settings.rings.merge_window.as_nanos(), 0);
    assert_eq!(settings.flood, FloodLimits { burst: 8, per_second: 2 });
    assert_eq!(settings.hold.as_secs(), 1);
    assert_eq!(settings.lateral_ports, [22]);
    let an1007 = An1007Limits {
        access_window_ns: 120_000_000_000,
        lateral_window_ns: 86_400_000_000_000,
        lateral_ports: vec![22],
        metadata: false,
    };
    assert_eq!(settings.policy.limits.an1007, an1007);
    let an1352 = An1352Limits { distinct_calls: 3, window_ns: 300_000_000_000, sweep_targets: 9 };
    assert_eq!(settings.policy.limits.an1352, an1352);
    let an1547 = An1547Limits { window_ns: 360_000_000_000, api: Vec::new() };
    assert_eq!(settings.policy.limits.an1547, an1547);
    let kinds = settings.outputs[0].kinds;
    assert!(kinds.admits(Kind::Accept) && kinds.admits(Kind::Health) && !kinds.admits(Kind::Exec));
}

#[test]
fn the_built_in_entry_can_be_removed() {
    let names = |text: &str| -> Vec<String> {
        let settings = load_text(text).expect("valid").settings;
        settings.policy.allow.entries.iter().map(|entry| entry.name.to_string()).collect()
    };
    assert_eq!(names(""), [IMPLIED_LOCAL]);
    assert!(names("implied_local: false").is_empty());
}

#[test]
fn the_shipped_file_is_the_defaults() {
    let text = include_str!("../../../deploy/config/quaywatch.yaml");
    let shipped = load_text(text).expect("valid");
    assert_eq!(shipped.file, ConfigFile::default());
    assert!(shipped.warnings.is_empty());
    // Every key is there, so that whoever edits it sees what there is.
    let defaults = serde_json::to_value(ConfigFile::default()).expect("JSON");
    for section in defaults.as_object().expect("a mapping").keys() {
        assert!(
            text.lines().any(|line| line.starts_with(&format!("{section}:"))),
            "{section} is not in the file"
        );
    }
}

#[test]
fn what_is_shown_can_be_read_again() {
    let text = "
networks: {nodes: {members: {a: [\"fd00::1\"]}}, pods: [10.244.0.0/16]}
allow: [{name: a, from: {networks: [pods], nodes: true}, to: {services: [any]}, reason: \"x: y\"}]
watch: {ports: {1: other}}
";
    let loaded = load_text(text).expect("valid");
    for shown in [
        serde_saphyr::to_string(&loaded.file).expect("YAML"),
        serde_json::to_string(&loaded.file).expect("JSON"),
    ] {
        assert_eq!(load_text(&shown).expect("valid").file, loaded.file, "{shown}");
    }
}

#[test]
fn the_environment_overrides_the_file() {
    let environment = [
        ("QUAYWATCH_NODE_NAME", "from-env"),
        ("QUAYWATCH_NODE_CLUSTER", "c2"),
        ("QUAYWATCH_IMPLIED_LOCAL", "false"),
        ("QUAYWATCH_RINGS_MANAGEMENT", "8KiB"),
        ("QUAYWATCH_RINGS_BULK", "16KiB"),
        ("QUAYWATCH_RINGS_POLL", "7ms"),
        ("QUAYWATCH_RINGS_MERGE_WINDOW", "8ms"),
        ("QUAYWATCH_FLOOD_BURST", "10"),
        ("QUAYWATCH_FLOOD_PER_SECOND", "11"),
        ("QUAYWATCH_ENRICH_HOLD", "9ms"),
        ("QUAYWATCH_COVERAGE_INTERVAL", "18s"),
        ("QUAYWATCH_COVERAGE_REST", "19s"),
        ("QUAYWATCH_DETECT_AN1007_ACCESS_WINDOW", "12s"),
        ("QUAYWATCH_DETECT_AN1007_LATERAL_WINDOW", "13s"),
        ("QUAYWATCH_DETECT_AN1352_DISTINCT_CALLS", "14"),
        ("QUAYWATCH_DETECT_AN1352_WINDOW", "15s"),
        ("QUAYWATCH_DETECT_AN1352_SWEEP_TARGETS", "16"),
        ("QUAYWATCH_DETECT_AN1547_WINDOW", "17s"),
        ("QUAYWATCH_STATE_PATH", "/tmp/s"),
        ("QUAYWATCH_STATE_MAX", "2MiB"),
    ];
    assert_eq!(environment.map(|(name, _)| name), VARIABLES.each_ref().map(|variable| variable.name));
    let loaded = load_env("node: {name: from-file}\nrings: {poll: 1ms}", &environment).expect("valid");
    assert_eq!(loaded.warnings, []);
    let settings = loaded.settings;
    assert_eq!(settings.state, Some(StateSettings { path: "/tmp/s".into(), max: 2 << 20 }));
    assert_eq!(settings.policy.limits.state_bytes, 1 << 20);
    assert_eq!(load_env("", &[("QUAYWATCH_STATE_PATH", "null")]).expect("valid").settings.state, None);
    let an1007 = &settings.policy.limits.an1007;
    assert_eq!((an1007.access_window_ns, an1007.lateral_window_ns), (12_000_000_000, 13_000_000_000));
    let an1352 = An1352Limits { distinct_calls: 14, window_ns: 15_000_000_000, sweep_targets: 16 };
    assert_eq!(settings.policy.limits.an1352, an1352);
    assert_eq!(settings.policy.limits.an1547.window_ns, 17_000_000_000);
    assert_eq!(settings.node_name.as_deref(), Some("from-env"));
    assert_eq!(settings.cluster.as_deref(), Some("c2"));
    assert!(settings.policy.allow.entries.is_empty());
    assert_eq!((settings.rings.management_bytes, settings.rings.bulk_bytes), (8 << 10, 16 << 10));
    let millis =
        [settings.rings.poll, settings.rings.merge_window, settings.hold].map(|period| period.as_millis());
    assert_eq!(millis, [7, 8, 9]);
    assert_eq!([settings.canary_interval, settings.packets_rest].map(|period| period.as_secs()), [18, 19]);
    assert_eq!(settings.flood, FloodLimits { burst: 10, per_second: 11 });
}

#[test]
fn flags_override_the_environment() {
    let environment = [("QUAYWATCH_NODE_NAME".to_owned(), "from-env".to_owned())];
    let overrides = Overrides { node_name: Some("from-flag".to_owned()) };
    let loaded = load_bytes(Path::new("q.yaml"), b"", environment.into_iter(), &overrides).expect("valid");
    assert_eq!(loaded.settings.node_name.as_deref(), Some("from-flag"));
}

#[test]
fn errors_from_the_environment_name_the_variable() {
    let error = |name, value| load_env("", &[(name, value)]).expect_err("invalid").to_string();
    assert_eq!(
        error("QUAYWATCH_RINGS_POLL", "soon"),
        "environment variable QUAYWATCH_RINGS_POLL: error: \"soon\" is not a duration: it does not start with a \
         number; write a whole number and a unit (ns, us, ms, s, m, h), as in 10m or 5ms"
    );
    assert_eq!(
        error("QUAYWATCH_RINGS_POLL", "1h"),
        "environment variable QUAYWATCH_RINGS_POLL: error: 1h is out of range; write 1ms to 1s"
    );
    assert_eq!(
        error("QUAYWATCH_IMPLIED_LOCAL", "0"),
        "environment variable QUAYWATCH_IMPLIED_LOCAL: error: \"0\" is neither true nor false; write one of them"
    );
}

#[test]
fn variables_of_a_kubernetes_service_do_no_harm() {
    let loaded = load_env("", &[("QUAYWATCH_PORT", "tcp://10.0.0.1:80"), ("QUAYWATCH_NODE_PORT", "80")])
        .expect("valid");
    assert_eq!(loaded.settings.node_name, None);
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("QUAYWATCH_NODE_PORT has no meaning and is ignored"), "{warnings:?}");
}

#[test]
fn a_named_file_must_exist() {
    let missing = Path::new("/nonexistent/q.yaml");
    let error =
        load(Some(missing), std::iter::empty(), &Overrides::default()).expect_err("missing").to_string();
    assert!(error.starts_with("/nonexistent/q.yaml: error: cannot be read (No such file"), "{error}");
    assert!(error.ends_with("create it, or leave --config out to use the defaults"), "{error}");
}

#[test]
fn aliases_are_blamed_where_they_are_used() {
    let text = "rings: {poll: &x 5ms}\nenrich: {hold: *x}\nnode: {name: &y 10}\nwatch: {runtimes: *y}\n";
    assert_eq!(problems(text), "q.yaml:4:19: error: a list belongs here; write [one, two], or [] for none");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = load_bytes(Path::new("q.yaml"), &bytes, std::iter::empty(), &Overrides::default());
    }

    #[test]
    fn no_yaml_makes_it_panic(text in "([ \\n:{}\\[\\],&*!|>'\"#-]|node|name|watch|ports|allow|from|cidr|10\\.0\\.0\\.0/8|nodes|members|rings|[0-9]{1,4}|[a-z]){0,60}") {
        if let Err(invalid) = load_text(&text) {
            prop_assert!(!invalid.problems.is_empty());
        }
    }

    #[test]
    fn periods_and_sizes_are_read_as_they_are_written(number: u64) {
        let period = Period(std::time::Duration::from_nanos(number));
        prop_assert_eq!(period.to_string().parse::<Period>(), Ok(period));
        prop_assert_eq!(Size(number).to_string().parse::<Size>(), Ok(Size(number)));
    }

    #[test]
    fn networks_hold_the_addresses_they_are_written_with(ip: IpAddr, prefix in 0_u8..=128) {
        let prefix = if ip.is_ipv4() { prefix.min(32) } else { prefix };
        let network: Network = format!("{ip}/{prefix}").parse().expect("a network");
        let canonical = ip.to_canonical();
        // A wide IPv6 network around an IPv4-mapped address stays IPv6.
        if canonical.is_ipv4() == network.network().is_ipv4() {
            prop_assert!(network.network().contains(canonical));
        }
        prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
    }
}
