//! The lines as they are written, and that they are read back as what they were.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use sensor_common::record::{RecordKind, Ring};
use sensor_core::chains::{
    Completeness, Confidence, Entities, Finding, FindingState, Link, Severity, Signal, SignalKey, StageSeen,
};
use sensor_core::fact::{
    self, AcceptingTask, Ancestor, ApiRequest, Client, ConnectResult, Container, ContainerAction,
    CredentialClass, Direction, End, Enrichment, ExeFlags, ExecRole, FactKind, Flaw, K8s, LeadsTo,
    ListenerState, Net, Origin, OriginClass, PeerSeen, Process, Program, Protocol, Quality, Reach, Runtime,
    ScanShape, Scope, Service, Stack, Tls, TlsHello, Verdict,
};
use sensor_core::health::{
    Balance, Blind, Capability, Coverage, CoverageState, Health, HealthState, Hook, HookState, Loss,
};
use sensor_core::http::route::ApiClass;
use sensor_core::ids::{ConnId, FileKey, RecordId};
use sensor_core::namespaces::HostSide;
use sensor_core::risks::{Namespace, Risk};
use sensor_core::time::Timestamp;
use serde_json::Value;

use super::*;

fn node() -> Arc<Node> {
    Arc::new(Node { name: "n1".into(), boot_id: "b-1".into(), cluster: Some("c1".into()) })
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn process() -> Arc<Process> {
    let ancestor =
        |pid, comm: &str, exe: Option<&str>| Ancestor { pid, comm: comm.into(), exe: exe.map(Into::into) };
    Arc::new(Process {
        pid: 42,
        ppid: Some(7),
        start_ns: 1_000,
        comm: "dockerd".into(),
        exe: Some("/usr/sbin/dockerd".into()),
        args: Some(["dockerd".into(), "-H\u{1b}".into()].into()),
        uid: Some(0),
        program: Program {
            file: Some(FileKey { device: 8, inode: 9 }),
            flags: ExeFlags { deleted: true, memfd: false, script: true },
            tool: Some("dockerd".into()),
            renamed: true,
        },
        ancestors: [ancestor(7, "sh", Some("/bin/sh")), ancestor(1, "systemd", None)].into(),
        truncated: true,
    })
}

fn container() -> Arc<Container> {
    Arc::new(Container {
        id: "cafe".repeat(16).into(),
        runtime: Runtime::Docker,
        name: Some("web".into()),
        image: Some("nginx:1".into()),
        created: Some("2026-11-22T10:39:00Z".into()),
        risks: Some(Arc::new([
            Risk::Privileged,
            Risk::Mount { path: "/et\"c".into(), writable: true },
            Risk::HostNamespace(Namespace::Pid),
        ])),
        cgroup: Some("/docker/cafe".into()),
    })
}

fn net() -> Net {
    Net {
        direction: Some(Direction::Inbound),
        peer: Some(End { ip: ip("::ffff:198.18.0.9"), port: 40_000 }),
        local: Some(End { ip: ip("fd00::1"), port: 2375 }),
        service: Service::Docker,
        conn: Some(ConnId("0123456789ab-c1f".into())),
    }
}

fn fact(kind: FactKind) -> Fact {
    Fact {
        id: RecordId("0123456789ab-1f".into()),
        at: Timestamp { boot_ns: 5_000, unix_ns: 1_795_343_940_123_456_789 },
        node: node(),
        process: None,
        container: None,
        k8s: None,
        net: None,
        quality: Quality::default(),
        kind,
    }
}

fn line(output: &Output) -> String {
    let mut line = Vec::new();
    encode(output, &mut line);
    assert_eq!(line.pop(), Some(b'\n'));
    assert_eq!(line, serde_json::to_vec(&Record::from(output)).expect("JSON"));
    String::from_utf8(line).expect("JSON is UTF-8")
}

fn line_of(fact: Fact, verdict: Option<Verdict>) -> String {
    line(&Output::Fact { seq: 31, fact, verdict })
}

/// The part of a line after the envelope, which is the same for all.
fn own(line: &str, kind: &str) -> String {
    let envelope = format!(
        r#"{{"schema":"quaywatch/1","kind":"{kind}","id":"0123456789ab-1f","ts":"2026-11-22T10:39:00.123456789Z","boot_ns":5000,"seq":31,"node":{{"name":"n1","boot_id":"b-1","cluster":"c1"}},"#
    );
    line.strip_prefix(&envelope).unwrap_or_else(|| panic!("{line} does not begin with {envelope}")).to_owned()
}

fn full_accept() -> Fact {
    let k8s = K8s { namespace: Some("ns".into()), pod: Some("p".into()), ..K8s::default() };
    Fact {
        process: Some(process()),
        container: Some(container()),
        k8s: Some(Arc::new(k8s)),
        net: Some(net()),
        quality: Quality { enrichment: Enrichment::Partial, truncated: false, lost: 3 },
        ..fact(FactKind::Accept { task: None, client: None })
    }
}

const PROCESS: &str = r#""process":{"pid":42,"ppid":7,"start_ns":1000,"comm":"dockerd","exe":"/usr/sbin/dockerd","args":["dockerd","-H\u001b"],"uid":0,"exe_file":{"device":8,"inode":9},"exe_flags":["deleted","script"],"tool":"dockerd","renamed":true,"ancestors":[{"pid":7,"comm":"sh","exe":"/bin/sh"},{"pid":1,"comm":"systemd"}]}"#;
const CONTAINER: &str = r#""id":"cafecafecafecafecafecafecafecafecafecafecafecafecafecafecafecafe","runtime":"docker","name":"web","image":"nginx:1","created":"2026-11-22T10:39:00Z","risks":["privileged","mount:/et\"c:rw","host-pid"],"cgroup":"/docker/cafe"}"#;
const NET: &str = r#""net":{"direction":"inbound","proto":"tcp","peer":{"ip":"198.18.0.9","port":40000},"local":{"ip":"fd00::1","port":2375},"service":"docker","conn":"0123456789ab-c1f"}"#;

#[test]
fn an_accept_has_everything_in_the_documented_order() {
    let line = line_of(full_accept(), Some(Verdict::Listed("ops-vpn".into())));
    let expected = format!(
        r#"{PROCESS},"container":{{{CONTAINER},"k8s":{{"namespace":"ns","pod":"p"}},{NET},"verdict":{{"listed":true,"entry":"ops-vpn"}},"quality":{{"enrichment":"partial","truncated":true,"lost":3}}}}"#
    );
    assert_eq!(own(&line, "accept"), expected);
}

#[test]
fn what_is_not_known_is_not_there() {
    let bare_process = Process {
        pid: 1,
        ppid: None,
        start_ns: 0,
        comm: "x".into(),
        exe: None,
        args: None,
        uid: None,
        program: Program::default(),
        ancestors: [].into(),
        truncated: false,
    };
    let bare_container = Container {
        id: "free text".into(),
        runtime: Runtime::Unknown,
        name: None,
        image: None,
        created: None,
        risks: None,
        cgroup: None,
    };
    let bare_net = Net { direction: None, peer: None, local: None, service: Service::Other, conn: None };
    let bare = Fact {
        process: Some(Arc::new(bare_process)),
        container: Some(Arc::new(bare_container)),
        k8s: Some(Arc::new(K8s::default())),
        net: Some(bare_net),
        ..fact(FactKind::Accept { task: None, client: None })
    };
    assert_eq!(
        own(&line_of(bare, Some(Verdict::Unlisted)), "accept"),
        r#""process":{"pid":1,"start_ns":0,"comm":"x"},"container":{"id":"free text","runtime":"unknown"},"k8s":{},"net":{"proto":"tcp","service":"other"},"verdict":{"listed":false},"quality":{"enrichment":"ok"}}"#
    );
}

#[test]
fn a_container_without_risks_is_not_one_that_was_never_looked_at() {
    let looked_at = Container { risks: Some(Arc::new([])), ..(*container()).clone() };
    let line = line_of(Fact { container: Some(Arc::new(looked_at)), ..fact(FactKind::AcceptTask) }, None);
    assert!(line.contains(r#""risks":[],"#), "{line}");
}

#[test]
fn each_kind_has_its_own_object() {
    let listener = FactKind::Listener {
        state: ListenerState::Snapshot,
        scope: Scope::Any,
        tls: Tls::Unknown,
        netns: 4_026_531_840,
        leads_to: None,
        reach: None,
    };
    let seen = |address, unix_ns| Some(PeerSeen { ip: ip(address), unix_ns });
    let reached = FactKind::Listener {
        state: ListenerState::Changed,
        scope: Scope::Any,
        tls: Tls::Plaintext,
        netns: 1,
        leads_to: Some(LeadsTo { ip: ip("172.17.0.2"), port: 2375, service: Service::Docker }),
        reach: Some(Arc::new(Reach {
            accepts: 3,
            outside_peers: 2,
            first: seen("::ffff:198.18.0.9", 1_795_343_940_123_456_789),
            last: seen("fd00::9", 1_795_343_941_000_000_000),
        })),
    };
    let listening = Net { direction: None, peer: None, conn: None, ..net() };
    let quality = r#""quality":{"enrichment":"ok"}"#;
    let cases = [
        (
            Fact { net: Some(listening.clone()), ..fact(reached) },
            "listener",
            format!(
                r#""net":{{"proto":"tcp","local":{{"ip":"fd00::1","port":2375}},"service":"docker"}},{quality},"listener":{{"service":"docker","scope":"any","tls":"plaintext","state":"changed","netns":1,"leads_to":{{"ip":"172.17.0.2","port":2375,"service":"docker"}},"accepts":3,"outside_peers":2,"first_peer":{{"ip":"198.18.0.9","ts":"2026-11-22T10:39:00.123456789Z"}},"last_peer":{{"ip":"fd00::9","ts":"2026-11-22T10:39:01.000000000Z"}}}}}}"#
            ),
        ),
        (
            Fact { net: Some(listening), ..fact(listener) },
            "listener",
            format!(
                r#""net":{{"proto":"tcp","local":{{"ip":"fd00::1","port":2375}},"service":"docker"}},{quality},"listener":{{"service":"docker","scope":"any","tls":"unknown","state":"snapshot","netns":4026531840}}}}"#
            ),
        ),
        (
            Fact {
                net: Some(net()),
                ..fact(FactKind::Close { duration_ns: Some(9), bytes_in: 8, bytes_out: 7 })
            },
            "close",
            format!(r#"{NET},{quality},"conn":{{"duration_ns":9,"bytes_in":8,"bytes_out":7}}}}"#),
        ),
        (
            Fact { net: Some(net()), ..fact(FactKind::Connect { result: ConnectResult::Refused }) },
            "connect",
            format!(r#"{NET},{quality},"connect":{{"result":"refused"}}}}"#),
        ),
        (
            Fact {
                net: Some(Net { conn: None, ..net() }),
                ..fact(FactKind::Scan {
                    shape: ScanShape::HalfOpen,
                    targets: 1,
                    peers: 2,
                    count: 3,
                    suppressed: 0,
                    resumed: 0,
                    window_ns: 5,
                })
            },
            "scan",
            format!(
                r#"{},{quality},"scan":{{"shape":"half-open","targets":1,"peers":2,"count":3,"suppressed":0,"window_ns":5}}}}"#,
                NET.replace(r#","conn":"0123456789ab-c1f""#, "")
            ),
        ),
        (
            Fact { process: Some(process()), ..fact(FactKind::Exec { role: ExecRole::Shim }) },
            "exec",
            format!(
                r#"{PROCESS},"quality":{{"enrichment":"ok","truncated":true}},"exec":{{"role":"shim"}}}}"#
            ),
        ),
        (
            Fact { process: Some(process()), ..fact(FactKind::Exit { code: None, signal: Some(9) }) },
            "exit",
            format!(r#"{PROCESS},"quality":{{"enrichment":"ok","truncated":true}},"exit":{{"signal":9}}}}"#),
        ),
        (
            Fact {
                container: Some(container()),
                ..fact(FactKind::Container { action: ContainerAction::Created, origin: Origin::none() })
            },
            "container",
            format!(
                r#""container":{{"action":"created",{CONTAINER},{quality},"origin":{{"class":"none"}}}}"#
            ),
        ),
    ];
    for (fact, kind, expected) in cases {
        assert_eq!(own(&line_of(fact, None), kind), expected);
    }
}

fn health() -> Output {
    let at = Timestamp { boot_ns: 5_000, unix_ns: 1_795_343_940_123_456_789 };
    let coverage = |capability, state, reason: Option<&str>| Coverage {
        capability,
        state,
        reason: reason.map(Into::into),
        since: at,
    };
    Output::Health {
        seq: 31,
        id: RecordId("0123456789ab-1f".into()),
        at,
        node: node(),
        health: Health {
            state: HealthState::Stopping,
            hooks: vec![
                Hook {
                    name: "tp_btf/x".into(),
                    program: "x".into(),
                    state: HookState::Attached,
                    reason: None,
                },
                Hook {
                    name: "iter/y".into(),
                    program: "y".into(),
                    state: HookState::Unavailable,
                    reason: Some("no BTF".into()),
                },
            ],
            loss: vec![
                Loss { ring: Some(Ring::Bulk), kind: "exit", lost: 2, suppressed: 0, evicted: 0 },
                Loss { ring: None, kind: "processes", lost: 0, suppressed: 0, evicted: 1 },
            ],
            coverage: vec![
                coverage(Capability::Execs, CoverageState::Blind, Some("no hook")),
                coverage(Capability::Accepts, CoverageState::Live, None),
            ],
            blind: Some(Blind { capability: Capability::Listeners, from: Timestamp::default(), to: at }),
            addresses: vec![ip("10.0.0.1"), ip("::ffff:10.0.0.2"), ip("fe80::1")],
            balance: vec![Balance {
                ring: Ring::Management,
                kind: RecordKind::CgroupMkdir,
                produced: 6,
                received: 3,
                canaries: 1,
                lost: 2,
                suppressed: 1,
            }],
            emitted: Some(32),
            undecodable: 0,
        },
    }
}

#[test]
fn health_says_what_is_missing() {
    let expected = concat!(
        r#""health":{"state":"stopping","hooks":[{"name":"tp_btf/x","program":"x","state":"attached"},{"name":"iter/y","program":"y","state":"unavailable","reason":"no BTF"}],"#,
        r#""loss":[{"ring":"bulk","kind":"exit","lost":2,"suppressed":0,"evicted":0},{"kind":"processes","lost":0,"suppressed":0,"evicted":1}],"#,
        r#""coverage":{"accepts":{"state":"live","since":"2026-11-22T10:39:00.123456789Z"},"execs":{"state":"blind","reason":"no hook","since":"2026-11-22T10:39:00.123456789Z"}},"#,
        r#""blind":{"capability":"listeners","from":"1970-01-01T00:00:00.000000000Z","to":"2026-11-22T10:39:00.123456789Z"},"#,
        r#""addresses":["10.0.0.1","10.0.0.2","fe80::1"],"balance":[{"ring":"management","kind":"cgroup-mkdir","produced":6,"received":3,"canaries":1,"lost":2,"suppressed":1}],"emitted":32,"undecodable":0}}"#,
    );
    let line = line(&health());
    assert_eq!(own(&line, "health"), expected);
    let addresses = vec![ip("10.0.0.1"), ip("10.0.0.2"), ip("fe80::1")];
    assert_eq!(
        decode(line.as_bytes()),
        Ok(Recorded::Health { node: node(), addresses, boot_ns: 5_000, lost: 0 })
    );
}

#[test]
fn quiet_health_still_says_that_nothing_was_lost() {
    let Output::Health { seq, id, at, node, mut health } = health() else { unreachable!("it is health") };
    health.hooks.clear();
    health.loss.clear();
    health.coverage.clear();
    health.blind = None;
    health.addresses.clear();
    health.balance.clear();
    health.emitted = None;
    let line = line(&Output::Health { seq, id, at, node, health });
    assert_eq!(own(&line, "health"), r#""health":{"state":"stopping","loss":[],"undecodable":0}}"#);
}

#[test]
fn a_signal_names_the_fact_and_what_it_can_be_joined_by() {
    let signal = Signal {
        name: "unlisted-accept".into(),
        analytic: "AN1007".into(),
        stage: "exposed-service-access".into(),
        keys: vec![(SignalKey::Event, "r-2".into()), (SignalKey::Peer, "198.18.0.9".into())],
    };
    let line = line(&Output::Signal {
        seq: 31,
        id: RecordId("0123456789ab-1f".into()),
        at: fact(FactKind::AcceptTask).at,
        node: node(),
        signal: Box::new(signal),
    });
    let expected = r#""signal":{"name":"unlisted-accept","analytic":"AN1007","stage":"exposed-service-access","keys":{"event":"r-2","peer":"198.18.0.9"}}}"#;
    assert_eq!(own(&line, "signal"), expected);
    assert_eq!(decode(line.as_bytes()), Ok(Recorded::Derived));
}

fn finding(peers: &[&str]) -> Finding {
    let id = |text: &str| RecordId(text.into());
    let at = fact(FactKind::AcceptTask).at;
    let stage = |name: &'static str, seen, events: Vec<RecordId>, further| StageSeen {
        name: name.into(),
        seen,
        events,
        further,
    };
    Finding {
        id: "an1007-r-2-1".into(),
        analytic: "AN1007".into(),
        strategy: "DET0354".into(),
        techniques: vec!["T1133".into()],
        title: "t".into(),
        severity: Severity::High,
        state: FindingState::Open,
        confidence: Confidence::Proved,
        stages: vec![stage("a", Some(at), vec![id("r-2"), id("r-3")], 4), stage("b", None, Vec::new(), 0)],
        links: vec![Link { from: id("r-2"), to: id("r-3"), class: Confidence::Inferred, how: "time".into() }],
        entities: Entities {
            peers: peers.iter().map(|peer| ip(peer)).collect(),
            containers: vec!["cafe".into()],
            nodes: vec!["n1".into()],
            targets: vec!["10.0.0.12:22".into()],
            user: Some("u".into()),
            credential: None,
        },
        completeness: Completeness { complete: false, lost: 7 },
        explanation: "e\n".into(),
        first: at,
        last: at,
    }
}

fn finding_line(finding: Finding) -> String {
    let (id, at) = (RecordId("0123456789ab-1f".into()), finding.last);
    line(&Output::Finding { seq: 31, id, at, node: node(), finding: Box::new(finding) })
}

#[test]
fn a_finding_says_what_was_seen_and_what_was_not() {
    let line = finding_line(finding(&["::ffff:198.18.0.9"]));
    let expected = concat!(
        r#""finding":{"id":"an1007-r-2-1","analytic":"AN1007","strategy":"DET0354","techniques":["T1133"],"title":"t","severity":"high","state":"open","confidence":"proved","#,
        r#""stages":[{"name":"a","seen":true,"ts":"2026-11-22T10:39:00.123456789Z","events":["r-2","r-3"],"further":4},{"name":"b","seen":false}],"#,
        r#""links":[{"from":"r-2","to":"r-3","class":"inferred","how":"time"}],"#,
        r#""entities":{"peer":"198.18.0.9","containers":["cafe"],"nodes":["n1"],"targets":["10.0.0.12:22"],"user":"u"},"#,
        r#""completeness":{"complete":false,"lost":7},"explanation":"e\n","first_ts":"2026-11-22T10:39:00.123456789Z","last_ts":"2026-11-22T10:39:00.123456789Z"}}"#,
    );
    assert_eq!(own(&line, "finding"), expected);
    assert_eq!(decode(line.as_bytes()), Ok(Recorded::Derived));
}

#[test]
fn several_candidates_are_all_named_and_none_is_the_peer() {
    let line = finding_line(finding(&["198.18.0.9", "fd00::1"]));
    assert!(line.contains(r#""entities":{"peers":["198.18.0.9","fd00::1"],"containers""#), "{line}");
}

#[test]
fn facts_are_read_back() {
    let fact = full_accept();
    let line = line_of(fact.clone(), Some(Verdict::Unlisted));
    assert_eq!(decode(line.as_bytes()), Ok(Recorded::Fact(Box::new(as_read(fact)))));
}

#[test]
fn keys_of_later_versions_are_ignored() {
    let line = line_of(full_accept(), None);
    let later = line.replacen("\"pid\":42,", "\"pid\":42,\"later\":[\"x\"],", 1);
    assert_ne!(later, line);
    assert_eq!(decode(later.as_bytes()), decode(line.as_bytes()));
}

#[test]
fn lines_that_cannot_be_read_say_why() {
    let good = line_of(full_accept(), None);
    let error = |line: &str| decode(line.as_bytes()).expect_err(line);
    let json = |line: &str| match error(line) {
        DecodeError::Json { column, message } => (column, message),
        other => panic!("{other:?}"),
    };
    assert_eq!(json("").0, 1);
    assert_eq!(json("{]"), (2, "key must be a string".to_owned()));
    assert_eq!(json("[1]").0, 2);
    let (column, message) = json(&good.replace("inbound", "sideways"));
    assert_eq!(message, "unknown variant `sideways`, expected `inbound` or `outbound`");
    assert_eq!(column, good.find("inbound").expect("it is there") + "sideways\"".len());
    assert_eq!(json(&good[..good.len() - 1]).1, "EOF while parsing an object");
    assert!(json(&good.replace("2026-11-22", "2026-11-32")).1.contains("expected a time as in"));
    assert!(json(&good.replace("40000", "0")).1.contains("nonzero"));
    assert!(json(&good.replace("\"seq\":31,", "")).1.contains("missing field `seq`"));
    assert!(json(&good.replace("\"seq\":31,", "\"seq\":31,\"seq\":32,")).1.contains("duplicate field `seq`"));
    assert_eq!(
        error(&good.replace("quaywatch/1", "quaywatch/2")),
        DecodeError::Schema { found: "quaywatch/2".to_owned() }
    );
    let unknown = good.replace("\"kind\":\"accept\"", "\"kind\":\"sneeze\"");
    assert_eq!(error(&unknown), DecodeError::Kind { found: "sneeze".to_owned() });
    let finding = good.replace("\"kind\":\"accept\"", "\"kind\":\"finding\"");
    assert_eq!(decode(finding.as_bytes()), Ok(Recorded::Derived));
}

#[test]
fn an_object_that_its_kind_needs_must_be_there() {
    let good = line_of(full_accept(), None);
    let as_kind = |kind: &str| good.replace("\"kind\":\"accept\"", &format!("\"kind\":\"{kind}\""));
    let cases = [
        ("listener", "listener"),
        ("close", "conn"),
        ("connect", "connect"),
        ("exec", "exec"),
        ("exit", "exit"),
        ("container", "container.action"),
        ("scan", "scan"),
        ("health", "health"),
    ];
    for (kind, key) in cases {
        assert_eq!(decode(as_kind(kind).as_bytes()), Err(DecodeError::Missing { kind, key }));
    }
    let without_peer = good.replace("\"peer\":{\"ip\":\"198.18.0.9\",\"port\":40000},", "");
    assert_eq!(
        decode(without_peer.as_bytes()),
        Err(DecodeError::Missing { kind: "accept", key: "net.peer" })
    );
}

/// Rewrites a committed file when blessing, else compares with it.
fn check_committed(name: &str, current: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("QUAYWATCH_BLESS").is_some() {
        std::fs::write(&path, current).expect("docs can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == current, "docs/{name} is not what the types say; run `cargo xtask bless`");
}

#[test]
fn the_committed_schemas_are_current() {
    check_committed("quaywatch-event.schema.json", &record_schema());
    check_committed("quaywatch-config.schema.json", &config_schema());
    check_committed("quaywatch-doctor.schema.json", &doctor_schema());
    check_committed("quaywatch-exposure.schema.json", &exposure_schema());
}

/// Checks a value against the part of JSON Schema that our schemas use; returns what does not fit.
fn mismatch(root: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    let fails = |rule: &str| Some(format!("{at}: {rule} of {schema} does not hold for {value}"));
    if let Some(target) = schema.get("$ref") {
        let target = target.as_str().expect("a reference").strip_prefix('#').expect("to this document");
        return mismatch(root, root.pointer(target).expect("a definition"), value, at);
    }
    if let Some(alternatives) = schema.get("oneOf").or(schema.get("anyOf")).and_then(Value::as_array)
        && alternatives.iter().all(|schema| mismatch(root, schema, value, at).is_some())
    {
        return fails("oneOf");
    }
    if schema.get("const").is_some_and(|expected| expected != value) {
        return fails("const");
    }
    if schema.get("enum").and_then(Value::as_array).is_some_and(|names| !names.contains(value)) {
        return fails("enum");
    }
    let type_of = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let admits = |name: &Value| name == type_of;
    if schema
        .get("type")
        .is_some_and(|types| !types.as_array().map_or_else(|| admits(types), |all| all.iter().any(admits)))
    {
        return fails("type");
    }
    for rule in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        let applies = rule.get("if").is_none_or(|condition| mismatch(root, condition, value, at).is_none());
        if let Some(then) = rule.get("then").filter(|_| applies)
            && let Some(found) = mismatch(root, then, value, at)
        {
            return Some(found);
        }
    }
    match value {
        Value::Object(members) => {
            let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
            if required.filter_map(Value::as_str).any(|key| !members.contains_key(key)) {
                return fails("required");
            }
            members.iter().find_map(|(key, member)| {
                let at = format!("{at}.{key}");
                match schema.pointer(&format!("/properties/{key}")).or(schema.get("additionalProperties")) {
                    Some(schema) if schema.is_object() => mismatch(root, schema, member, &at),
                    // Nothing of ours is undescribed, except in the conditions above.
                    _ if schema.get("type").is_none() => None,
                    _ => Some(format!("{at}: not in the schema")),
                }
            })
        }
        Value::Array(items) => {
            let schema = schema.get("items")?;
            items.iter().find_map(|item| mismatch(root, schema, item, &format!("{at}[]")))
        }
        _ => None,
    }
}

fn fits_schema(line: &str) -> Option<String> {
    let schema: Value = serde_json::from_str(&record_schema()).expect("JSON");
    mismatch(&schema, &schema, &serde_json::from_str(line).expect("JSON"), "")
}

#[test]
fn the_schema_describes_what_is_written_and_refuses_what_is_not() {
    assert_eq!(fits_schema(&line(&health())), None);
    let good = line_of(full_accept(), Some(Verdict::Listed("a".into())));
    assert_eq!(fits_schema(&good), None);
    for (from, to) in [
        ("\"seq\":31,", ""),
        ("\"seq\":31", "\"seq\":\"31\""),
        ("\"inbound\"", "\"sideways\""),
        ("\"verdict\":{\"listed\":true,\"entry\":\"a\"},", ""),
        ("\"kind\":\"accept\"", "\"kind\":\"exec\""),
        ("quaywatch/1", "quaywatch/2"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        assert!(fits_schema(&bad).is_some(), "{bad}");
    }
}

fn text() -> impl Strategy<Value = Arc<str>> {
    ".{0,20}".prop_map(Arc::from)
}

fn maybe_text() -> impl Strategy<Value = Option<Arc<str>>> {
    prop::option::of(text())
}

fn any_program() -> impl Strategy<Value = Program> {
    (any::<Option<(u32, u64)>>(), any::<[bool; 4]>(), maybe_text()).prop_map(
        |(file, [deleted, memfd, script, renamed], tool)| Program {
            file: file.map(|(device, inode)| FileKey { device, inode }),
            flags: ExeFlags { deleted, memfd, script },
            tool,
            renamed,
        },
    )
}

fn any_process() -> impl Strategy<Value = Process> {
    let ancestor =
        (any::<u32>(), text(), maybe_text()).prop_map(|(pid, comm, exe)| Ancestor { pid, comm, exe });
    let ids = (any::<u32>(), any::<Option<u32>>(), any::<u64>(), any::<Option<u32>>(), any::<bool>());
    let texts = (text(), maybe_text(), prop::option::of(prop::collection::vec(text(), 0..4)));
    let ancestors = prop::collection::vec(ancestor, 0..4);
    (ids, texts, any_program(), ancestors).prop_map(
        |((pid, ppid, start_ns, uid, truncated), (comm, exe, args), program, ancestors)| Process {
            pid,
            ppid,
            start_ns,
            comm,
            exe,
            args: args.map(Into::into),
            uid,
            program,
            ancestors: ancestors.into(),
            truncated,
        },
    )
}

fn any_container() -> impl Strategy<Value = Container> {
    let runtime = prop::sample::select(&Runtime::ALL[..]);
    let risks = prop::option::of(prop::collection::vec(any_risk(), 0..4));
    (text(), runtime, maybe_text(), maybe_text(), maybe_text(), risks, maybe_text()).prop_map(
        |(id, runtime, name, image, created, risks, cgroup)| {
            let risks = risks.map(Arc::from);
            Container { id, runtime, name, image, created, risks, cgroup }
        },
    )
}

fn any_risk() -> impl Strategy<Value = Risk> {
    let plain: Vec<_> = Risk::plain_names().filter_map(Risk::from_name).collect();
    let path = || text().prop_map(|text| Arc::from(format!("/{}", text.trim_end_matches('/'))));
    prop_oneof![
        prop::sample::select(plain),
        prop::sample::select(vec!["cap:SYS_ADMIN", "cap:BPF"])
            .prop_map(|name| Risk::from_name(name).unwrap()),
        (path(), any::<bool>()).prop_map(|(path, writable)| Risk::Mount { path, writable }),
        path().prop_map(Risk::Socket),
        path().prop_map(Risk::Device),
    ]
}

fn any_k8s() -> impl Strategy<Value = K8s> {
    (maybe_text(), maybe_text(), maybe_text(), maybe_text(), maybe_text()).prop_map(
        |(namespace, pod, pod_uid, container, service_account)| K8s {
            namespace,
            pod,
            pod_uid,
            container,
            service_account,
        },
    )
}

fn any_end() -> impl Strategy<Value = End> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| End { ip, port })
}

fn any_net() -> impl Strategy<Value = Net> {
    let end = any_end;
    let direction = prop::sample::select(vec![Direction::Inbound, Direction::Outbound]);
    (end(), end(), direction, prop::sample::select(&Service::ALL[..]), text()).prop_map(
        |(peer, local, direction, service, conn)| Net {
            direction: Some(direction),
            peer: Some(peer),
            local: Some(local),
            service,
            conn: Some(ConnId(conn)),
        },
    )
}

fn any_scan() -> impl Strategy<Value = FactKind> {
    let shape = prop::sample::select(vec![
        ScanShape::Flood,
        ScanShape::HalfOpen,
        ScanShape::Connect,
        ScanShape::NoData,
        ScanShape::Sweep,
    ]);
    (shape, any::<[u64; 6]>()).prop_map(|(shape, [targets, peers, count, suppressed, resumed, window_ns])| {
        FactKind::Scan { shape, targets, peers, count, suppressed, resumed, window_ns }
    })
}

fn any_listener() -> impl Strategy<Value = FactKind> {
    let leads_to = (any::<IpAddr>(), any::<u16>(), prop::sample::select(&Service::ALL[..]))
        .prop_map(|(ip, port, service)| LeadsTo { ip: ip.to_canonical(), port, service });
    let seen = any::<(IpAddr, u64)>().prop_map(|(ip, unix_ns)| PeerSeen { ip: ip.to_canonical(), unix_ns });
    let reach = (1..u64::MAX, any::<u32>(), prop::option::of(seen))
        .prop_map(|(accepts, outside_peers, first)| Reach { accepts, outside_peers, first, last: first });
    let reach = prop::option::of(reach.prop_map(Arc::new));
    (any::<u32>(), prop::option::of(leads_to), reach).prop_map(|(netns, leads_to, reach)| {
        let (state, scope, tls) = (ListenerState::Changed, Scope::Private, Tls::Plaintext);
        FactKind::Listener { state, scope, tls, netns, leads_to, reach }
    })
}

fn any_hello() -> impl Strategy<Value = TlsHello> {
    let texts = || prop::collection::vec(text(), 0..3);
    let flaws = prop::sample::select(vec![Flaw::Cut, Flaw::Malformed, Flaw::Oversized]);
    let stacks = prop::sample::select(vec![Stack::First, Stack::Known, Stack::New]);
    (maybe_text(), texts(), texts(), maybe_text(), prop::option::of(flaws), prop::option::of(stacks))
        .prop_map(|(sni, alpn, versions, ja4, flaw, stack)| TlsHello {
            sni,
            alpn: alpn.into(),
            versions: versions.into(),
            ja4,
            flaw,
            stack,
        })
}

fn any_request() -> impl Strategy<Value = ApiRequest> {
    let texts = || prop::collection::vec(text(), 0..3);
    let target = (maybe_text(), maybe_text(), maybe_text(), maybe_text());
    let body = (prop::collection::vec(any_risk(), 0..4), maybe_text(), texts());
    let protocol = prop::option::of(prop::sample::select(vec![Protocol::Http2, Protocol::Unknown]));
    (target, prop::sample::select(&ApiClass::ALL[..]), any::<Option<u16>>(), maybe_text(), body, protocol)
        .prop_map(
            |(
                (method, path, route, version),
                class,
                status,
                user_agent,
                (body_flags, image, command),
                protocol,
            )| {
                let (body_flags, command) = (body_flags.into(), command.into());
                ApiRequest {
                    method,
                    path,
                    route,
                    class,
                    version,
                    status,
                    user_agent,
                    body_flags,
                    image,
                    command,
                    protocol,
                }
            },
        )
}

fn any_kind() -> impl Strategy<Value = FactKind> {
    prop_oneof![
        Just(FactKind::Accept { task: None, client: None }),
        (text(), any_end()).prop_map(|(conn, end)| FactKind::Accept {
            task: None,
            client: Some(Box::new(Client {
                end: End { ip: end.ip.to_canonical(), ..end },
                conn: ConnId(conn)
            })),
        }),
        (any::<(u32, u64)>(), text(), maybe_text()).prop_map(|((pid, start_ns), comm, exe)| {
            FactKind::Accept {
                task: Some(Arc::new(AcceptingTask { pid, start_ns, comm, exe })),
                client: None,
            }
        }),
        Just(FactKind::AcceptTask),
        (maybe_text(), any::<u64>(), prop::option::of(prop::sample::select(&Runtime::ALL[..])))
            .prop_map(|(path, inode, service)| FactKind::SocketConnect { path, inode, service }),
        (maybe_text(), prop::sample::select(&CredentialClass::ALL[..]))
            .prop_map(|(path, class)| FactKind::FileRead { path, class }),
        any::<(Option<u64>, u64, u64)>().prop_map(|(duration_ns, bytes_in, bytes_out)| FactKind::Close {
            duration_ns,
            bytes_in,
            bytes_out
        }),
        Just(FactKind::Connect { result: ConnectResult::Unreachable }),
        any_scan(),
        Just(FactKind::Exec { role: ExecRole::Workload }),
        any::<(Option<u8>, Option<u8>)>().prop_map(|(code, signal)| FactKind::Exit { code, signal }),
        (maybe_text(), maybe_text(), prop::collection::vec(text(), 0..3)).prop_map(
            |(conn, request, others)| {
                let origin = Origin {
                    class: OriginClass::Inferred,
                    conn: conn.map(ConnId),
                    request: request.map(RecordId),
                    candidates: others.into_iter().map(ConnId).collect(),
                };
                FactKind::Container { action: ContainerAction::Enriched, origin }
            }
        ),
        any_request().prop_map(|request| FactKind::ApiRequest(Box::new(request))),
        any_hello().prop_map(|hello| FactKind::TlsHello(Arc::new(hello))),
        any_listener(),
        any::<(bool, bool, bool)>().prop_map(|(mnt, pid, root)| FactKind::Escape(HostSide {
            mnt,
            pid,
            root
        })),
    ]
}

fn any_fact() -> impl Strategy<Value = Fact> {
    let quality = (any::<bool>(), any::<u64>());
    let subject = (any_process(), any_container(), prop::option::of(any_k8s()), any_net());
    (text(), any::<(u64, u64)>(), subject, quality, any_kind()).prop_map(
        |(id, (boot_ns, unix_ns), (process, container, k8s, net), (truncated, lost), kind)| Fact {
            id: RecordId(id),
            at: Timestamp { boot_ns, unix_ns },
            node: node(),
            process: Some(Arc::new(process)),
            container: Some(Arc::new(container)),
            k8s: k8s.map(Arc::new),
            net: Some(net),
            quality: Quality { enrichment: Enrichment::None, truncated, lost },
            kind,
        },
    )
}

proptest! {
    #[test]
    fn every_fact_survives_a_recording(fact in any_fact(), entry in text()) {
        let judged = matches!(fact.kind, FactKind::Accept { .. } | FactKind::ApiRequest(_) | FactKind::TlsHello(_));
        let verdict = judged.then_some(Verdict::Listed(entry));
        let written = line_of(fact.clone(), verdict);
        prop_assert!(!written.contains('\n'));
        prop_assert_eq!(fits_schema(&written), None);
        prop_assert_eq!(decode(written.as_bytes()), Ok(Recorded::Fact(Box::new(as_read(fact)))));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn no_damage_to_a_line_makes_it_panic(at in 0_usize..1000, byte: u8, cut in any::<bool>()) {
        let mut line = line_of(full_accept(), Some(Verdict::Unlisted)).into_bytes();
        let at = at % line.len();
        line[at] = byte;
        if cut {
            line.truncate(at);
        }
        let _ = decode(&line);
    }
}

#[test]
fn verdicts_are_not_taken_from_the_recording() {
    let listed = line_of(full_accept(), Some(fact::Verdict::Listed("a".into())));
    let unlisted = line_of(full_accept(), Some(fact::Verdict::Unlisted));
    assert_ne!(listed, unlisted);
    assert_eq!(decode(listed.as_bytes()), decode(unlisted.as_bytes()));
}
