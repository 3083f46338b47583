//! The lines as they are written, and that they are read back as what they were.

mod findings;
mod recordings;
mod schema;

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
    AuditInput, Balance, Blind, Capability, Coverage, CoverageState, Health, HealthState, Hook, HookState,
    Loss, Reload,
};
use sensor_core::http::route::ApiClass;
use sensor_core::ids::{ConnId, FileKey, RecordId};
use sensor_core::namespaces::HostSide;
use sensor_core::risks::{Namespace, Risk};
use sensor_core::state::Resumed;
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
        namesake: 0,
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
        ..fact(FactKind::Accept { task: None, client: None, late: false })
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
        namesake: 0,
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
        ..fact(FactKind::Accept { task: None, client: None, late: false })
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
            resumed: Some(Box::new(Resumed {
                run: "ba9876543210".into(),
                from: at,
                to: at,
                clean: false,
                rebooted: true,
                entries: 3,
                unreadable: 2,
                outdated: 1,
            })),
            reload: Some(Box::new(Reload {
                applied: false,
                problems: vec!["q.yaml:1:2: error: x".into()],
                restart: vec!["output"],
            })),
            addresses: vec![ip("10.0.0.1"), ip("::ffff:10.0.0.2"), ip("fe80::1")],
            audit: vec![AuditInput {
                name: "/var/log/audit.log".into(),
                events: 7,
                bytes: 9_000,
                invalid: 2,
                oversize: 1,
                behind_bytes: Some(0),
                latest_unix_ns: Some(at.unix_ns),
                ..AuditInput::default()
            }],
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
        r#""resumed":{"run":"ba9876543210","from":"2026-11-22T10:39:00.123456789Z","from_boot_ns":5000,"to":"2026-11-22T10:39:00.123456789Z","to_boot_ns":5000,"clean":false,"rebooted":true,"entries":3,"unreadable":2,"outdated":1},"#,
        r#""reload":{"applied":false,"problems":["q.yaml:1:2: error: x"],"restart":["output"]},"#,
        r#""addresses":["10.0.0.1","10.0.0.2","fe80::1"],"audit":[{"input":"/var/log/audit.log","events":7,"bytes":9000,"invalid":2,"oversize":1,"gaps":0,"behind_bytes":0,"latest":"2026-11-22T10:39:00.123456789Z"}],"#,
        r#""balance":[{"ring":"management","kind":"cgroup-mkdir","produced":6,"received":3,"canaries":1,"lost":2,"suppressed":1}],"emitted":32,"undecodable":0}}"#,
    );
    let line = line(&health());
    assert_eq!(own(&line, "health"), expected);
    let addresses = vec![ip("10.0.0.1"), ip("10.0.0.2"), ip("fe80::1")];
    assert_eq!(
        decode(line.as_bytes()),
        Ok(Recorded::Health {
            node: node(),
            addresses,
            boot_ns: 5_000,
            lost: 0,
            lost_audit: 0,
            unwatched: None
        })
    );
    // Of the same boot, the time in between matters to a replay.
    let line =
        line.replacen("\"rebooted\":true,", "", 1).replacen("0123456789ab-1f", "health-0123456789ab-1f", 1);
    let Ok(Recorded::Health { unwatched, .. }) = decode(line.as_bytes()) else { panic!("{line}") };
    let in_doubt = Some("0123456789ab-".to_owned());
    assert_eq!(unwatched, Some(Unwatched { from_ns: 5_000, to_ns: 5_000, in_doubt }));
}

#[test]
fn quiet_health_still_says_that_nothing_was_lost() {
    let Output::Health { seq, id, at, node, mut health } = health() else { unreachable!("it is health") };
    health.hooks.clear();
    health.loss.clear();
    health.coverage.clear();
    health.blind = None;
    health.resumed = None;
    health.reload = None;
    health.audit.clear();
    health.addresses.clear();
    health.balance.clear();
    health.emitted = None;
    let line = line(&Output::Health { seq, id, at, node, health });
    assert_eq!(own(&line, "health"), r#""health":{"state":"stopping","loss":[],"undecodable":0}}"#);
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
