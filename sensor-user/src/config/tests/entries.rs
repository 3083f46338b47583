//! Entries of the allow-list: times, expiry, and what cannot be meant.

use sensor_core::allow_list::{Act, Actor, Shows};
use sensor_core::http::route::ApiClass;

use super::*;

fn entry_with(rest: &str) -> String {
    format!("allow: [{{name: a, from: {{cidr: [10.0.0.0/8]}}, to: {{services: [any]}}, {rest}}}]")
}

#[test]
fn times_of_entries_are_refused_with_place_and_remedy() {
    for (rest, expected) in [
        ("when: {days: [mo]}", "1:84: error: \"mo\" is no day of the week; did you mean \"mon\"?"),
        (
            "when: {hours: \"7-20\"}",
            "1:84: error: \"7-20\" are no hours of a day; write begin and end, as in \"07:00-20:00\" or \"22:00-06:00\"",
        ),
        (
            "when: {hours: \"07:00-07:00\"}",
            "1:84: error: \"07:00-07:00\" are no hours of a day; write begin and end, as in \"07:00-20:00\" or \"22:00-06:00\"",
        ),
        (
            "when: {zone: Europe/Berln}",
            "1:83: error: unknown time zone \"Europe/Berln\"; write a name of the IANA database, as in Europe/Berlin or UTC",
        ),
        (
            "when: {from: 2026-12-01}",
            "1:83: error: \"2026-12-01\" is no date with a time; write both, without a zone, as in 2026-12-01T22:00",
        ),
        (
            "expires: 2027-02-30",
            "1:79: error: \"2027-02-30\" is no date; write year, month and day, as in 2027-03-31",
        ),
        (
            "when: {zone: UTC}",
            "1:76: error: the entry names no time; add days, hours, from or until, or leave `when` out",
        ),
        (
            "when: {from: 2026-12-02T00:00, until: 2026-12-01T00:00, zone: UTC}",
            "1:76: error: the window ends before it begins; exchange `from` and `until`",
        ),
        (
            "when: {days: [sat]}",
            "1:76: warning: no zone is given and UTC counts; add one, as in `zone: Europe/Berlin`, or `zone: UTC`",
        ),
    ] {
        assert_eq!(problems(&entry_with(rest)), format!("q.yaml:{expected}"), "{rest}");
    }
}

#[test]
fn entries_that_cannot_be_what_was_meant_are_warnings() {
    let list = |entries: &[&str]| {
        let entries = entries
            .iter()
            .enumerate()
            .map(|(index, entry)| format!("  - {{name: e{index}, {entry}, to: {{services: [docker]}}}}\n"));
        format!("networks: {{wide: [8.0.0.0/7]}}\nallow:\n{}", entries.collect::<String>())
    };
    for (entries, expected) in [
        (
            &["from: {cidr: [10.0.0.0/8]}", "from: {cidr: [10.1.0.0/16]}"][..],
            "4:12: warning: the entry \"e1\" is never reached: \"e0\" before it decides all that it speaks of; drop it or move it up",
        ),
        (
            &["from: {cidr: [10.0.0.0/9]}", "from: {cidr: [10.128.0.0/9]}", "from: {cidr: [10.0.0.0/8]}"],
            "5:12: warning: the entry \"e2\" is never reached: \"e0\", \"e1\" before it decide all that it speaks of; drop it or move it up",
        ),
        (
            &["from: {cidr: [0.0.0.0/0], except: [10.0.0.0/8]}"],
            "3:30: warning: the entry \"e0\" expects peers from 0.0.0.0/0, which is more than anybody has of his own; name the networks that are meant",
        ),
        (
            &["from: {networks: [wide]}"],
            "3:34: warning: the entry \"e0\" expects peers from 8.0.0.0/7, which is more than anybody has of his own; name the networks that are meant",
        ),
        (
            &["from: {cidr: [\"fc00::/7\", 10.0.0.0/8]}", "from: {cidr: [10.0.0.0/7]}"],
            "4:30: warning: the entry \"e1\" expects peers from 10.0.0.0/7, which is more than anybody has of his own; name the networks that are meant",
        ),
    ] {
        let text = list(entries);
        assert!(load_text(&text).is_ok(), "{text}");
        assert_eq!(problems(&text), format!("q.yaml:{expected}"), "{text}");
    }
}

#[test]
fn what_peers_show_is_taken_as_written_and_narrows_only() {
    let settings = load_text(
        "allow:
- {name: a, from: {cidr: [10.0.0.0/16], tool: [Docker-Client]}, to: {services: [docker], classes: [probe, discovery]}}
- {name: b, from: {nodes: true, fingerprint: [t13d1516h2_8daaf6152771_e5627efa2ab1]}, to: {services: [kubelet]}}
- {name: c, from: {cidr: [10.1.0.0/16]}, to: {services: [docker], classes: [any]}}
",
    )
    .expect("valid")
    .settings;
    let shows: Vec<Shows> = settings.policy.allow.entries.into_iter().map(|entry| entry.from.shows).collect();
    let expected = [
        Shows {
            classes: vec![ApiClass::Probe, ApiClass::Discovery],
            tools: vec!["Docker-Client".into()],
            ..Shows::default()
        },
        Shows { fingerprints: vec!["t13d1516h2_8daaf6152771_e5627efa2ab1".into()], ..Shows::default() },
        Shows::default(),
        Shows::default(),
    ];
    assert_eq!(shows, expected);
}

#[test]
fn what_peers_show_is_refused_or_warned_of_with_place_and_remedy() {
    const JA4: &str = "t13d1516h2_8daaf6152771_e5627efa2ab1";
    let alone = "what a peer shows anybody can copy; name the peers beside it: cidr, networks, `nodes: true` or `local: true`";
    for (rest, place, expected) in [
        ("{fingerprint: [JA4]}, to: {services: [any]}", "{f", format!("error: {alone}")),
        ("{tool: [kubectl]}, to: {services: [any]}", "{t", format!("error: {alone}")),
        (
            "{cidr: [10.0.0.0/8], fingerprint: [deadbeef]}, to: {services: [any]}",
            "dead",
            "error: \"deadbeef\" is no fingerprint; write a JA4, as in the `ja4` of `tls_hello` records".to_owned(),
        ),
        (
            "{cidr: [10.0.0.0/8], tool: [curl/8]}, to: {services: [any]}",
            "curl",
            "error: \"curl/8\" is no product of a `User-Agent`; write what stands before its first slash, as in \"Docker-Client\"".to_owned(),
        ),
        (
            "{cidr: [10.0.0.0/8], fingerprint: [JA4]}, to: {services: [any], classes: [probe]}",
            "t13",
            "error: requests are read where there is no TLS, so that they and a fingerprint are never seen together; make two entries".to_owned(),
        ),
        (
            "{cidr: [10.0.0.0/8]}, to: {services: [any], classes: [discover]}",
            "discover",
            "error: unknown class of requests \"discover\"; did you mean \"discovery\"?".to_owned(),
        ),
        (
            "{cidr: [10.0.0.0/8]}, to: {services: [docker], classes: [probe, any]}",
            "any",
            "warning: `any` makes the other classes needless; drop them".to_owned(),
        ),
        (
            "{cidr: [10.0.0.0/8]}, to: {services: [kubelet, docker-tls], classes: [probe]}",
            "{services",
            "warning: requests to these services are encrypted and not read, so that the entry never decides; drop classes and tools, or name other services".to_owned(),
        ),
        (
            "{cidr: [10.0.0.0/8], fingerprint: [JA4]}, to: {services: [docker]}",
            "{services",
            "warning: nobody speaks TLS to these services, so that the entry never decides; drop the fingerprints, or name other services".to_owned(),
        ),
        (
            "{image: [a], namespace: [b], tool: [curl]}, to: {acts: [any]}",
            "{image",
            "error: what runs at the other end of a connection is not known here; make two entries, of peers and of containers".to_owned(),
        ),
    ] {
        let text = format!("allow: [{{name: a, from: {}}}]", rest.replace("JA4", JA4));
        let column = text.find(place).expect("a place") + 1;
        assert_eq!(problems(&text), format!("q.yaml:1:{column}: {expected}"), "{rest}");
    }
    let shadowed = "allow:
- {name: a, from: {cidr: [10.0.0.0/8]}, to: {services: [docker], classes: [discovery]}}
- {name: b, from: {cidr: [10.0.0.0/8]}, to: {services: [docker]}}
";
    assert_eq!(problems(shadowed), "", "the later one expects more");
}

#[test]
fn entries_about_containers_are_taken_as_written() {
    let settings = load_text(
        "allow:
- {name: cni, from: {image: [quay.io/cilium/cilium], namespace: [kube-system]}, to: {acts: [any]}}
- {name: shell, from: {container: [ops]}, to: {acts: [discovery, credentials]}}
",
    )
    .expect("valid")
    .settings;
    let actors: Vec<Actor> =
        settings.policy.allow.entries.into_iter().map(|entry| entry.from.actor).collect();
    let expected = [
        Actor {
            images: vec!["quay.io/cilium/cilium".into()],
            namespaces: vec!["kube-system".into()],
            ..Actor::default()
        },
        Actor {
            containers: vec!["ops".into()],
            acts: vec![Act::Discovery, Act::Credentials],
            ..Actor::default()
        },
        Actor::default(),
    ];
    assert_eq!(actors, expected);
}

#[test]
fn entries_about_containers_are_refused_or_warned_of_with_place_and_remedy() {
    for (rest, expected) in [
        (
            "{cidr: [10.0.0.0/8], image: [a], namespace: [b]}, to: {acts: [any]}",
            "1:25: error: what runs at the other end of a connection is not known here; make two entries, of peers and of containers",
        ),
        (
            "{image: [a], namespace: [b], local: true}, to: {acts: [any]}",
            "1:25: error: what runs at the other end of a connection is not known here; make two entries, of peers and of containers",
        ),
        (
            "{image: [a], namespace: [b]}, to: {services: [any]}",
            "1:59: error: an entry about containers speaks of what they do on this node; write acts instead of services, ports and classes",
        ),
        (
            "{image: [a], namespace: [b]}, to: {}",
            "1:59: error: the entry names no acts; add some, or write `acts: [any]`",
        ),
        (
            "{cidr: [10.0.0.0/8]}, to: {services: [any], acts: [start]}",
            "1:76: error: of a peer nobody knows what it does where it is; name services or ports",
        ),
        (
            "{image: [a], namespace: [b]}, to: {acts: [strat]}",
            "1:67: error: unknown act \"strat\"; did you mean \"start\"?",
        ),
        (
            "{image: [\"a/*\"], namespace: [b]}, to: {acts: [any]}",
            "1:34: error: \"a/*\" has a wildcard, and images are compared as they are; write the repository without a tag for any of its images",
        ),
        (
            "{image: [\"sha256:aa\"], namespace: [b]}, to: {acts: [any]}",
            "1:34: error: \"sha256:aa\" is no reference to an image; write one, as in \"quay.io/cilium/cilium:v1.16.1\"",
        ),
        (
            "{image: [a], namespace: [Kube_System]}, to: {acts: [any]}",
            "1:50: error: \"Kube_System\" is no namespace; write 1 to 63 lower-case letters, digits and hyphens",
        ),
        (
            "{container: [\"\"], namespace: [b]}, to: {acts: [any]}",
            "1:38: error: \"\" is no name of a container; write it as the runtime has it",
        ),
        (
            "{image: [a]}, to: {acts: [start]}",
            "1:51: error: names are chosen by whoever starts a container, so that they excuse no start; add a namespace",
        ),
        (
            "{image: [a]}, to: {acts: [discovery]}",
            "1:34: warning: the entry \"a\" expects containers by names alone, which whoever may start one can choose; add a namespace where there is one",
        ),
        (
            "{namespace: [b]}, to: {acts: [discovery]}",
            "1:38: warning: the entry \"a\" expects every container in a namespace, also those that are put there; name images",
        ),
    ] {
        let text = format!("allow: [{{name: a, from: {rest}}}]");
        assert_eq!(problems(&text), format!("q.yaml:{expected}"), "{rest}");
    }
    let shadowed = "allow:
- {name: a, from: {image: [a/b], namespace: [c]}, to: {acts: [any]}}
- {name: b, from: {image: [\"a/b:v1\"], namespace: [c]}, to: {acts: [discovery]}}
";
    assert_eq!(
        problems(shadowed),
        "q.yaml:3:10: warning: the entry \"b\" is never reached: \"a\" before it decides all that it speaks of; drop it or move it up"
    );
    let distinct = shadowed.replace("[a/b], namespace: [c]", "[a/b], namespace: [d]");
    assert_eq!(problems(&distinct), "");
}

#[test]
fn entries_expire_at_the_end_of_their_day_where_their_hours_are() {
    let message = |rest: &str, now: &str| {
        let file = load_text(&entry_with(rest)).expect("valid").file;
        let now: jiff::Timestamp = now.parse().expect("a time");
        let now_ns = u64::try_from(now.as_nanosecond()).expect("after 1970");
        review::expired(&file, now_ns).into_iter().map(|finding| finding.message).collect::<String>()
    };
    let expired = "the entry \"a\" expired on 2027-03-31; renew it or drop it";
    for (rest, now, expected) in [
        ("expires: 2027-03-31", "2027-03-31T23:59:59Z", ""),
        ("expires: 2027-03-31", "2027-04-01T00:00:00Z", expired),
        ("expires: 2027-03-31, when: {days: [mon-sun], zone: Asia/Tokyo}", "2027-03-31T14:59:59Z", ""),
        ("expires: 2027-03-31, when: {days: [mon-sun], zone: Asia/Tokyo}", "2027-03-31T15:00:00Z", expired),
        ("when: {until: 2026-12-02T04:00, zone: UTC}", "2026-12-02T03:59:59Z", ""),
        (
            "when: {until: 2026-12-02T04:00, zone: UTC}",
            "2026-12-02T04:00:00Z",
            "the window of the entry \"a\" ended at 2026-12-02T04:00; drop the entry",
        ),
    ] {
        assert_eq!(message(rest, now), expected, "{rest} at {now}");
    }
}

#[test]
fn audit_logs_are_named_by_their_paths_once() {
    let cases = [
        (
            "audit: {files: [audit.log]}",
            "1:17: error: an audit log is given by its path; begin it with a slash, or write \"-\" for standard input",
        ),
        ("audit: {files: [/a, \"-\", /a]}", "1:26: error: this log is named twice; drop one"),
        ("audit: {positions: p}", "1:20: error: positions are kept in a file; begin its path with a slash"),
        (
            "audit: {trusted_proxies: [10.0.0.5/24]}",
            "1:27: warning: 10.0.0.5/24 has bits set beyond its prefix and is read as 10.0.0.0/24; write that, or the bare address for one host",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(problems(text), format!("q.yaml:{expected}"));
    }
    let settings =
        load_text("audit: {files: [/a, \"-\"], trusted_proxies: [10.0.0.5]}").expect("valid").settings;
    assert_eq!(settings.audit.files, ["/a", "-"].map(std::path::PathBuf::from));
    assert_eq!(settings.policy.cluster.trusted_proxies, ["10.0.0.5/32".parse().expect("a network")]);
}
