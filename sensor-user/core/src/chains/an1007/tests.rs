//! The analytic from facts to findings.

mod bounds;
mod expected;

use std::net::IpAddr;
use std::sync::Arc;

use super::An1007Limits;
use crate::chains::{Chains, Confidence, Finding, FindingState, Limits, Severity, What};
use crate::fact::{
    ApiRequest, ConnectResult, Container, ContainerAction, Direction, End, Fact, FactKind, K8s, Net, Node,
    Origin, OriginClass, Quality, Runtime, ScanShape, Service, Verdict,
};
use crate::http::route::ApiClass;
use crate::ids::{ConnId, RecordId};
use crate::namespaces::HostSide;
use crate::risks::Risk;
use crate::time::Timestamp;

const SECOND: u64 = 1_000_000_000;
const ATTACKER: &str = "198.18.0.9";
const OTHER: &str = "198.18.0.10";
const LATERAL: (&str, u16) = ("10.0.0.12", 22);

fn node() -> Arc<Node> {
    Arc::new(Node { name: "node-a".into(), boot_id: "boot".into(), cluster: None })
}

/// Facts as the engine would tell them, and what comes of them.
struct Bench {
    chains: Chains,
    facts: u64,
    signals: Vec<(String, String)>,
    findings: Vec<(String, u64, Finding)>,
}

impl Bench {
    fn new() -> Self {
        Self { chains: Chains::default(), facts: 0, signals: Vec::new(), findings: Vec::new() }
    }

    fn read(&mut self) {
        while let Some(derived) = self.chains.next_derived() {
            match derived.what {
                What::Signal(signal) if &*signal.analytic == "AN1007" => {
                    self.signals.push((derived.id.0.to_string(), signal.name.into_owned()));
                }
                What::Finding(finding) if &*finding.analytic == "AN1007" => {
                    self.findings.push((derived.id.0.to_string(), derived.at.boot_ns, *finding));
                }
                What::Signal(_) | What::Finding(_) => {}
            }
        }
    }

    fn hand_in(&mut self, fact: &Fact, verdict: Option<&Verdict>) {
        self.chains.handle(fact, verdict);
        self.read();
    }

    fn pass(&mut self, boot_ns: u64) {
        self.chains.pass(&node(), boot_ns);
        self.read();
    }

    fn fact(&mut self, at: u64, kind: FactKind) -> Fact {
        self.facts += 1;
        Fact {
            id: RecordId(format!("r-{:x}", self.facts).into()),
            at: Timestamp { boot_ns: at, unix_ns: at },
            node: node(),
            process: None,
            container: None,
            k8s: None,
            net: None,
            quality: Quality::default(),
            kind,
        }
    }

    fn on_conn(
        &mut self,
        at: u64,
        conn: &str,
        peer: &str,
        service: Service,
        kind: FactKind,
        verdict: Verdict,
    ) -> Fact {
        let net = Net {
            direction: Some(Direction::Inbound),
            peer: Some(end(peer, 40_000)),
            local: Some(end("10.0.0.11", 2375)),
            service,
            conn: Some(ConnId(conn.into())),
        };
        let fact = Fact { net: Some(net), ..self.fact(at, kind) };
        self.hand_in(&fact, Some(&verdict));
        fact
    }

    fn accept(&mut self, at: u64, conn: &str, peer: &str, service: Service) -> Fact {
        self.on_conn(
            at,
            conn,
            peer,
            service,
            FactKind::Accept { task: None, client: None, late: false },
            Verdict::Unlisted,
        )
    }

    fn request(&mut self, at: u64, conn: &str, peer: &str, class: ApiClass) -> Fact {
        let kind = FactKind::ApiRequest(Box::new(request(class)));
        self.on_conn(at, conn, peer, Service::Docker, kind, Verdict::Unlisted)
    }

    fn container(
        &mut self,
        at: u64,
        id: &str,
        action: ContainerAction,
        risks: &[Risk],
        origin: Origin,
    ) -> Fact {
        let container = container(id, risks);
        let kind = FactKind::Container { action, origin };
        let fact = Fact { container: Some(container), ..self.fact(at, kind) };
        self.hand_in(&fact, None);
        fact
    }

    /// A step of a pod's container, of which nobody knows who asked for it.
    fn pod(&mut self, at: u64, id: &str, action: ContainerAction, risks: &[Risk]) -> Fact {
        let kind = FactKind::Container { action, origin: Origin::none() };
        let k8s = Some(Arc::new(K8s::default()));
        let fact = Fact { container: Some(container(id, risks)), k8s, ..self.fact(at, kind) };
        self.hand_in(&fact, None);
        fact
    }

    fn created(&mut self, at: u64, id: &str, risks: &[Risk], origin: Origin) -> Fact {
        self.container(at, id, ContainerAction::Created, risks, origin)
    }

    fn connect(&mut self, at: u64, id: &str, target: (&str, u16)) -> Fact {
        let fact = self.connect_of(at, id, target);
        self.hand_in(&fact, None);
        fact
    }

    fn connect_of(&mut self, at: u64, id: &str, target: (&str, u16)) -> Fact {
        let net = Net {
            direction: Some(Direction::Outbound),
            peer: Some(end(target.0, target.1)),
            local: None,
            service: Service::Other,
            conn: Some(ConnId("c99".into())),
        };
        let kind = FactKind::Connect { result: ConnectResult::Attempted };
        Fact { net: Some(net), container: Some(container(id, &[])), ..self.fact(at, kind) }
    }

    fn states(&self) -> Vec<(FindingState, Severity, Confidence)> {
        self.findings
            .iter()
            .map(|(.., finding)| (finding.state, finding.severity, finding.confidence))
            .collect()
    }

    fn last(&self) -> &Finding {
        &self.findings.last().expect("a finding").2
    }

    fn signals_named(&self, name: &str) -> usize {
        self.signals.iter().filter(|(_, known)| known == name).count()
    }
}

fn end(ip: &str, port: u16) -> End {
    End { ip: ip.parse().expect("an address"), port }
}

/// `id#number` is another one of that id.
fn container(id: &str, risks: &[Risk]) -> Arc<Container> {
    let (id, number) = id.split_once('#').unwrap_or((id, "0"));
    Arc::new(Container {
        id: id.into(),
        namesake: number.parse().expect("a number"),
        runtime: Runtime::Docker,
        name: Some("web".into()),
        image: None,
        created: None,
        risks: Some(risks.into()),
        cgroup: None,
    })
}

fn request(class: ApiClass) -> ApiRequest {
    ApiRequest::of_class(class)
}

fn proved_by(conn: &str, request: Option<&Fact>) -> Origin {
    let request = request.map(|fact| fact.id.clone());
    Origin::of_conn(OriginClass::Proved, ConnId(conn.into()), request)
}

fn peers(finding: &Finding) -> Vec<String> {
    finding.entities.peers.iter().map(IpAddr::to_string).collect()
}

const RISKY: &[Risk] = &[Risk::Privileged];

use Confidence::{Inferred, Proved};
use FindingState::{Closed, Open, Update};
use Severity::{Critical, High, Medium};

#[test]
fn the_whole_chain_is_told_stage_by_stage_under_one_id() {
    let mut bench = Bench::new();
    let accept = bench.accept(10 * SECOND, "c1", ATTACKER, Service::Docker);
    assert_eq!(bench.findings, [], "a bare connection is a signal");
    let create = bench.request(11 * SECOND, "c1", ATTACKER, ApiClass::Create);
    let created = bench.created(12 * SECOND, "x", RISKY, proved_by("c1", Some(&create)));
    bench.container(13 * SECOND, "x", ContainerAction::Started, RISKY, proved_by("c1", None));
    let connect = bench.connect(14 * SECOND, "x", LATERAL);
    assert_eq!(bench.states(), [(Open, High, Proved), (Update, Critical, Proved)]);
    bench.pass(14 * SECOND + 3600 * SECOND + super::REORDER_NS);
    assert_eq!(bench.findings.len(), 2, "its window is open");
    bench.pass(14 * SECOND + 3600 * SECOND + super::REORDER_NS + 1);
    assert_eq!(bench.states()[2..], [(Closed, Critical, Proved)]);

    let ids: Vec<_> = bench.findings.iter().map(|(id, ..)| id.as_str()).collect();
    assert_eq!(ids, ["an1007-r-1-1", "an1007-r-1-2", "an1007-r-1-3"]);
    assert!(bench.findings.iter().all(|(.., finding)| &*finding.id == "an1007-r-1-1"));
    let (_, closed_at, finding) = bench.findings.last().expect("it is closed");
    assert_eq!(*closed_at, 3614 * SECOND, "at the end of its window, whenever that is noticed");
    let events: Vec<Vec<&str>> =
        finding.stages.iter().map(|stage| stage.events.iter().map(|id| &*id.0).collect()).collect();
    assert_eq!(events, [vec!["r-1", "r-2"], vec!["r-3", "r-4"], vec!["r-5"]]);
    let links: Vec<_> = finding.links.iter().map(|link| (&link.from, &link.to, link.class)).collect();
    assert_eq!(
        links[..2],
        [(&accept.id, &create.id, Proved), (&create.id, &created.id, Proved)],
        "from connection to request to container"
    );
    assert!(links.contains(&(&created.id, &connect.id, Proved)));
    assert_eq!(peers(finding), [ATTACKER]);
    assert_eq!(finding.entities.containers, ["x".into()]);
    assert_eq!(finding.entities.targets, ["10.0.0.12:22".into()]);
    assert_eq!((finding.first, finding.last), (accept.at, connect.at));
    assert!(finding.completeness.complete && finding.explanation.contains(ATTACKER), "{finding:?}");
    assert!(finding.explanation.contains("privileged") && finding.explanation.contains("10.0.0.12:22"));
}

#[test]
fn of_two_containers_of_one_id_each_answers_for_itself() {
    let mut bench = Bench::new();
    bench.accept(10 * SECOND, "c1", ATTACKER, Service::Docker);
    bench.created(11 * SECOND, "web", &[], Origin::none());
    bench.created(12 * SECOND, "web#1", RISKY, proved_by("c1", None));
    bench.connect(13 * SECOND, "web", LATERAL);
    assert_eq!(bench.states(), [(Open, High, Proved)], "the innocent one is no lateral activity");
    bench.connect(14 * SECOND, "web#1", LATERAL);
    assert_eq!(bench.states()[1..], [(Update, Critical, Proved)]);
    let (.., finding) = bench.findings.last().expect("it was told");
    assert_eq!(finding.entities.containers, ["web".into()], "by its id");
    assert!(!finding.explanation.contains('\0'), "{}", finding.explanation);
}

/// Peers with what they use, the container's risks and its origin, and what the table in docs/detections/an1007.md says.
#[test]
fn the_second_stage_is_seen_as_the_truth_table_says() {
    type Row<'a> =
        (&'a str, &'a [(&'a str, Service)], &'a [Risk], Origin, Option<(Severity, Confidence, usize)>);
    let readable = [(ATTACKER, Service::Docker)];
    let veiled = [(ATTACKER, Service::DockerTls)];
    let two = [(ATTACKER, Service::DockerTls), (OTHER, Service::DockerTls)];
    let only = || Origin::of_conn(OriginClass::Inferred, ConnId("c0".into()), None);
    let both = Origin::one_of(vec![ConnId("c0".into()), ConnId("c1".into())]);
    let either = Origin::one_of(vec![ConnId("c1".into()), ConnId("of-a-listed-peer".into())]);
    let rows: [Row<'_>; 10] = [
        ("proved, risks", &readable, RISKY, proved_by("c0", None), Some((High, Proved, 1))),
        ("proved, none", &readable, &[], proved_by("c0", None), Some((Medium, Proved, 1))),
        ("unreadable, only one, risks", &veiled, RISKY, only(), Some((Medium, Inferred, 1))),
        ("unreadable, several, risks", &two, RISKY, both, Some((Medium, Inferred, 2))),
        ("unreadable, one of two candidates listed, risks", &two, RISKY, either, Some((Medium, Inferred, 1))),
        ("readable and none made it, risks", &readable, RISKY, Origin::none(), None),
        ("readable and none made it", &readable, &[], Origin::none(), None),
        ("unreadable, none", &veiled, &[], only(), None),
        ("unreadable, and a better explanation", &veiled, RISKY, Origin::none(), None),
        ("proved to be somebody else's", &veiled, RISKY, proved_by("of-a-listed-peer", None), None),
    ];
    for (name, peers, risks, origin, expected) in rows {
        let mut bench = Bench::new();
        for (number, (peer, service)) in peers.iter().enumerate() {
            bench.accept(10 * SECOND, &format!("c{number}"), peer, *service);
        }
        bench.created(20 * SECOND, "x", risks, origin);
        bench.connect(21 * SECOND, "x", LATERAL);
        let found = bench
            .findings
            .first()
            .map(|(.., finding)| (finding.severity, finding.confidence, finding.entities.peers.len()));
        assert_eq!(found, expected, "{name}");
        let after = bench.findings.last().map(|(.., finding)| finding.severity);
        let all = expected.map(|(severity, ..)| if severity == High { Critical } else { High });
        assert_eq!(after, all, "{name}: with lateral activity");
    }
}

#[test]
fn what_is_no_stage_is_a_signal() {
    let mut bench = Bench::new();
    bench.created(SECOND, "local", RISKY, Origin::none());
    assert_eq!(bench.signals_named("abnormal-container"), 1);
    bench.accept(2 * SECOND, "c1", ATTACKER, Service::KubeApiserver);
    bench.pod(3 * SECOND, "plain", ContainerAction::Created, &[]);
    assert_eq!(bench.signals_named("container-after-unlisted"), 1);
    bench.request(4 * SECOND, "c2", ATTACKER, ApiClass::Discovery);
    assert_eq!(bench.signals_named("unlisted-request"), 0, "looking around is another analytic's business");
    bench.request(4 * SECOND, "c2", ATTACKER, ApiClass::Exec);
    assert_eq!(bench.signals_named("unlisted-request"), 1);
    assert_eq!(bench.findings, []);
    let mut ids: Vec<_> = bench.signals.iter().map(|(id, _)| id).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all);
}

#[test]
fn windows_are_of_event_time_and_end() {
    for (step_at, lateral_at, expected) in
        [(610, 611, 2), (611, 612, 0), (20, 3620, 2), (20, 3621, 1), (20, 19, 1)]
    {
        let mut bench = Bench::new();
        bench.accept(10 * SECOND, "c1", ATTACKER, Service::Docker);
        bench.created(step_at * SECOND, "x", RISKY, proved_by("c1", None));
        bench.connect(lateral_at * SECOND, "x", LATERAL);
        assert_eq!(bench.findings.len(), expected, "{step_at} {lateral_at}: {:?}", bench.states());
    }
}

#[test]
fn a_request_on_an_old_connection_is_an_access_of_its_own_time() {
    let mut bench = Bench::new();
    bench.accept(10 * SECOND, "c1", ATTACKER, Service::Docker);
    bench.created(5000 * SECOND, "early", RISKY, proved_by("c1", None));
    assert_eq!(bench.findings, []);
    bench.request(6000 * SECOND, "c1", ATTACKER, ApiClass::Create);
    bench.created(6001 * SECOND, "x", RISKY, proved_by("c1", None));
    assert_eq!(bench.states(), [(Open, High, Proved)]);
}

#[test]
fn a_request_that_is_told_of_when_it_is_answered_counts_from_when_it_was_made() {
    let mut bench = Bench::new();
    bench.accept(10 * SECOND, "c1", ATTACKER, Service::Docker);
    bench.created(5002 * SECOND, "x", RISKY, proved_by("c1", None));
    assert_eq!(bench.findings, []);
    bench.request(5001 * SECOND, "c1", ATTACKER, ApiClass::Start);
    assert_eq!(bench.states(), [(Open, High, Proved)]);
}

#[test]
fn what_a_container_does_before_its_own_record_is_told_counts() {
    let mut bench = Bench::new();
    bench.accept(10 * SECOND, "c1", ATTACKER, Service::Docker);
    bench.connect(13 * SECOND, "x", LATERAL);
    bench.created(12 * SECOND, "x", RISKY, proved_by("c1", None));
    assert_eq!(bench.states(), [(Open, Critical, Proved)]);
}

#[test]
fn risks_that_become_known_later_raise_it() {
    let mut bench = Bench::new();
    bench.accept(10 * SECOND, "c1", ATTACKER, Service::Docker);
    bench.created(12 * SECOND, "x", &[], proved_by("c1", None));
    bench.container(13 * SECOND, "x", ContainerAction::Enriched, RISKY, Origin::none());
    assert_eq!(bench.states(), [(Open, Medium, Proved), (Update, High, Proved)]);
    // Where requests cannot be read it is no stage before that.
    let mut bench = Bench::new();
    bench.accept(10 * SECOND, "c1", ATTACKER, Service::KubeApiserver);
    bench.pod(12 * SECOND, "x", ContainerAction::Created, &[]);
    assert_eq!(bench.findings, []);
    bench.container(13 * SECOND, "x", ContainerAction::Enriched, RISKY, Origin::none());
    assert_eq!(bench.states(), [(Open, Medium, Inferred)]);
}

#[test]
fn a_second_candidate_that_is_told_of_late_is_named_too() {
    let mut bench = Bench::new();
    bench.accept(10 * SECOND, "c1", ATTACKER, Service::KubeApiserver);
    bench.pod(12 * SECOND, "x", ContainerAction::Created, RISKY);
    bench.accept(11 * SECOND, "c2", OTHER, Service::KubeApiserver);
    assert_eq!(peers(bench.last()), [ATTACKER, OTHER]);
    let ids: Vec<_> = bench.findings.iter().map(|(.., finding)| &finding.id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn services_are_blamed_for_the_containers_that_come_of_them() {
    let check = |service, is_of_pod: bool, expected: bool| {
        let mut bench = Bench::new();
        bench.accept(10 * SECOND, "c1", ATTACKER, service);
        if is_of_pod {
            bench.pod(12 * SECOND, "x", ContainerAction::Created, RISKY);
            bench.pod(12 * SECOND, "x", ContainerAction::Exec, RISKY);
        } else {
            bench.created(12 * SECOND, "x", RISKY, Origin::none());
        }
        assert_eq!(!bench.findings.is_empty(), expected, "{service:?} {is_of_pod}");
    };
    check(Service::KubeApiserver, true, true);
    check(Service::KubeApiserver, false, false);
    check(Service::Kubelet, true, false);
    check(Service::DockerTls, true, false);
    check(Service::DockerTls, false, false);
    // Health checks enter the containers of pods all day.
    let mut bench = Bench::new();
    bench.accept(10 * SECOND, "c1", ATTACKER, Service::KubeApiserver);
    bench.pod(12 * SECOND, "x", ContainerAction::Exec, RISKY);
    assert_eq!(bench.findings, []);
}

#[test]
fn a_peer_that_an_entry_expects_after_all_is_not_blamed() {
    let mut bench = Bench::new();
    bench.accept(10 * SECOND, "c1", ATTACKER, Service::Docker);
    let kind = FactKind::ApiRequest(Box::new(request(ApiClass::Create)));
    bench.on_conn(11 * SECOND, "c1", ATTACKER, Service::Docker, kind, Verdict::Listed("ops".into()));
    bench.created(12 * SECOND, "x", RISKY, proved_by("c1", None));
    assert_eq!(bench.findings, []);
}
