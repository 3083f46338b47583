//! The analytic from facts to findings.

use std::sync::Arc;

use super::An1547Limits;
use crate::chains::{Chains, Confidence, Finding, FindingState, Limits, Severity, What};
use crate::fact::{
    Ancestor, ConnectResult, Container, ContainerAction, CredentialClass, Direction, End, Fact, FactKind,
    Net, Node, Origin, Process, Program, Quality, Runtime, Service, Verdict,
};
use crate::ids::{ConnId, RecordId};
use crate::time::Timestamp;

const SECOND: u64 = 1_000_000_000;
const WINDOW: u64 = 600 * SECOND;
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const NODE_B: (&str, u16, Service) = ("10.0.0.12", 6443, Service::KubeApiserver);
const KUBELET_B: (&str, u16, Service) = ("10.0.0.12", 10250, Service::Kubelet);
const SERVICE: (&str, u16, Service) = ("10.96.0.1", 443, Service::Other);
const WEB: (&str, u16, Service) = ("198.18.0.9", 443, Service::Other);
/// The first program of every container, its child, a shell that a runtime has put there, and a child of that.
const FIRST: (u32, &[u32]) = (100, &[50]);
const OWN: (u32, &[u32]) = (101, &[100, 50]);
const SHELL: (u32, &[u32]) = (200, &[50]);
const STRANGER: (u32, &[u32]) = (201, &[200, 50]);
/// Of somebody of whom nothing is known but his parent.
const CUT: (u32, &[u32]) = (301, &[300]);

use FindingState::{Closed, Open, Update};

fn node() -> Arc<Node> {
    Arc::new(Node { name: "node-a".into(), boot_id: "boot".into(), cluster: None })
}

struct Bench {
    chains: Chains,
    facts: u64,
    signals: Vec<String>,
    findings: Vec<(u64, Finding)>,
}

impl Bench {
    /// With a container that has been started.
    fn new() -> Self {
        let mut bench =
            Self { chains: Chains::default(), facts: 0, signals: Vec::new(), findings: Vec::new() };
        bench.chains.set_limits(Limits {
            an1547: An1547Limits {
                api: vec!["10.96.0.1/32".parse().expect("a network")],
                ..An1547Limits::default()
            },
            ..Limits::default()
        });
        bench.container(SECOND, ContainerAction::Started);
        bench
    }

    fn read(&mut self) {
        while let Some(derived) = self.chains.next_derived() {
            match derived.what {
                What::Signal(signal) if &*signal.analytic == "AN1547" => {
                    self.signals.push(signal.name.into_owned());
                }
                What::Finding(finding) if &*finding.analytic == "AN1547" => {
                    self.findings.push((derived.at.boot_ns, *finding));
                }
                _ => {}
            }
        }
    }

    fn hand_in(&mut self, at: u64, who: (u32, &[u32]), net: Option<Net>, kind: FactKind) {
        self.hand_in_of(at, process(who, "sh", None), net, kind, None);
    }

    fn hand_in_of(
        &mut self,
        at: u64,
        process: Process,
        net: Option<Net>,
        kind: FactKind,
        verdict: Option<&Verdict>,
    ) {
        self.facts += 1;
        let container = Container {
            id: "c0ffee".into(),
            namesake: 0,
            runtime: Runtime::Docker,
            name: Some("web".into()),
            image: None,
            created: None,
            risks: None,
            cgroup: None,
        };
        let fact = Fact {
            id: RecordId(format!("r-{:x}", self.facts).into()),
            at: Timestamp { boot_ns: at, unix_ns: at },
            node: node(),
            process: Some(Arc::new(process)),
            container: Some(Arc::new(container)),
            k8s: None,
            net,
            quality: Quality::default(),
            kind,
        };
        self.chains.handle(&fact, verdict);
        self.read();
    }

    fn container(&mut self, at: u64, action: ContainerAction) {
        self.hand_in(at, FIRST, None, FactKind::Container { action, origin: Origin::none() });
    }

    fn reads(&mut self, at: u64, who: (u32, &[u32])) {
        let class = CredentialClass::ServiceAccountToken;
        self.hand_in(at, who, None, FactKind::FileRead { path: Some(TOKEN.into()), class });
    }

    fn connects(&mut self, at: u64, who: (u32, &[u32]), to: (&str, u16, Service)) {
        self.hand_in(at, who, Some(outbound(to)), FactKind::Connect { result: ConnectResult::Established });
    }

    fn pass(&mut self, boot_ns: u64) {
        self.chains.pass(&node(), boot_ns);
        self.read();
    }

    fn states(&self) -> Vec<(FindingState, u64)> {
        self.findings.iter().map(|(at, finding)| (finding.state, *at / SECOND)).collect()
    }
}

fn process((pid, ancestors): (u32, &[u32]), comm: &str, tool: Option<&str>) -> Process {
    let ancestor = |pid: &u32| {
        let comm = if *pid == 50 { "containerd-shim" } else { "sh" };
        Ancestor { pid: *pid, comm: comm.into(), exe: None }
    };
    Process {
        pid,
        ppid: ancestors.first().copied(),
        start_ns: u64::from(pid),
        comm: comm.into(),
        exe: None,
        args: None,
        uid: Some(0),
        program: Program { tool: tool.map(Into::into), renamed: tool.is_some(), ..Program::default() },
        ancestors: ancestors.iter().map(ancestor).collect(),
        truncated: false,
    }
}

fn outbound((ip, port, service): (&str, u16, Service)) -> Net {
    Net {
        direction: Some(Direction::Outbound),
        peer: Some(End { ip: ip.parse().expect("an address"), port }),
        local: None,
        service,
        conn: Some(ConnId("c1".into())),
    }
}

#[test]
fn whoever_is_brought_in_takes_the_token_and_goes_to_the_cluster_is_one_finding() {
    let mut bench = Bench::new();
    bench.reads(10 * SECOND, STRANGER);
    assert_eq!((&*bench.signals, &*bench.findings), (&["credential-read".to_owned()][..], &[][..]));
    bench.connects(12 * SECOND, SHELL, NODE_B);
    let [(at, finding)] = &bench.findings[..] else { panic!("one finding, not {:?}", bench.findings) };
    assert_eq!((*at, finding.state, finding.severity), (12 * SECOND, Open, Severity::Medium));
    assert_eq!(finding.confidence, Confidence::Inferred);
    let seen: Vec<_> = finding.stages.iter().map(|stage| (&*stage.name, stage.seen.is_some())).collect();
    assert_eq!(seen, [("credential-access", true), ("unexpected-source", true), ("cluster-use", false)]);
    assert_eq!(finding.links.len(), 1);
    assert_eq!(finding.entities.targets, ["10.0.0.12:6443".into()]);
    assert!(
        finding.explanation.contains("web (c0ffee)") && finding.explanation.contains(TOKEN),
        "{finding:?}"
    );
    assert!(finding.completeness.complete);
    let id = finding.id.clone();
    bench.connects(20 * SECOND, SHELL, NODE_B);
    bench.connects(30 * SECOND, SHELL, KUBELET_B);
    bench.pass(30 * SECOND + WINDOW + 11 * SECOND);
    assert_eq!(bench.states(), [(Open, 12), (Update, 30), (Closed, 630)]);
    assert!(bench.findings.iter().all(|(_, finding)| finding.id == id));
    assert_eq!(bench.signals, ["credential-read", "cluster-connect", "cluster-connect"]);
}

#[test]
fn a_workload_with_its_own_token_is_nothing_at_all() {
    let mut bench = Bench::new();
    for minute in 1..60 {
        bench.reads(minute * 60 * SECOND, FIRST);
        bench.connects(minute * 60 * SECOND + 1, OWN, NODE_B);
        bench.connects(minute * 60 * SECOND + 2, FIRST, SERVICE);
    }
    assert_eq!((bench.signals, bench.findings.len()), (Vec::new(), 0));
}

#[test]
fn half_of_a_pair_and_a_pair_in_the_wrong_order_are_none() {
    let mut bench = Bench::new();
    bench.connects(10 * SECOND, STRANGER, NODE_B);
    bench.reads(11 * SECOND, STRANGER);
    bench.connects(12 * SECOND, STRANGER, WEB);
    bench.connects(13 * SECOND, OWN, NODE_B);
    assert_eq!(bench.findings.len(), 0);
    bench.connects(11 * SECOND + WINDOW + 1, STRANGER, NODE_B);
    assert_eq!(bench.findings.len(), 0, "the window is over");
    assert_eq!(bench.signals, ["cluster-connect", "credential-read", "cluster-connect"]);
}

#[test]
fn what_is_heard_of_late_is_put_where_it_belongs() {
    let mut bench = Bench::new();
    bench.connects(12 * SECOND, STRANGER, SERVICE);
    bench.reads(11 * SECOND, STRANGER);
    assert_eq!(bench.states(), [(Open, 11)]);
    assert_eq!(bench.findings[0].1.entities.targets, ["10.96.0.1:443".into()]);
}

#[test]
fn a_read_may_bear_the_time_of_hearing_of_it() {
    let mut bench = Bench::new();
    bench.connects(11 * SECOND, STRANGER, NODE_B);
    bench.reads(11 * SECOND + 300_000_000, STRANGER);
    assert_eq!(bench.states(), [(Open, 11)]);
    assert_eq!(bench.signals, ["cluster-connect", "credential-read"]);
}

#[test]
fn nobody_is_accused_whose_descent_is_not_known() {
    let mut bench = Bench::new();
    bench.reads(10 * SECOND, CUT);
    bench.connects(11 * SECOND, CUT, NODE_B);
    bench.container(20 * SECOND, ContainerAction::Stopped);
    bench.reads(21 * SECOND, STRANGER);
    bench.connects(22 * SECOND, STRANGER, NODE_B);
    assert_eq!((bench.signals.len(), bench.findings.len()), (0, 0));
}

#[test]
fn a_renamed_tool_is_a_stranger_whoever_started_it() {
    let mut bench = Bench::new();
    let class = CredentialClass::ServiceAccountToken;
    let kubectl = || process(OWN, "k", Some("kubectl"));
    bench.hand_in_of(10 * SECOND, kubectl(), None, FactKind::FileRead { path: None, class }, None);
    let kind = FactKind::Connect { result: ConnectResult::Established };
    bench.hand_in_of(11 * SECOND, kubectl(), Some(outbound(SERVICE)), kind, None);
    assert_eq!(bench.states(), [(Open, 11)]);
    assert!(bench.findings[0].1.explanation.contains("k read a credential file"), "{:?}", bench.findings);
}

#[test]
fn refused_connections_and_logins_of_registries_do_not_count() {
    let mut bench = Bench::new();
    let class = CredentialClass::DockerConfig;
    bench.hand_in(10 * SECOND, STRANGER, None, FactKind::FileRead { path: None, class });
    bench.connects(11 * SECOND, STRANGER, NODE_B);
    bench.reads(12 * SECOND, STRANGER);
    let kind = FactKind::Connect { result: ConnectResult::Refused };
    bench.hand_in(13 * SECOND, STRANGER, Some(outbound(KUBELET_B)), kind);
    assert_eq!(bench.findings.len(), 0);
}

#[test]
fn an_unlisted_peer_of_the_cluster_is_a_signal() {
    let mut bench = Bench::new();
    let accept = |bench: &mut Bench, service, verdict: &Verdict| {
        let net = Net { direction: Some(Direction::Inbound), ..outbound(("198.18.0.9", 40_000, service)) };
        let kind = FactKind::Accept { task: None, client: None, late: false };
        bench.hand_in_of(10 * SECOND, process(FIRST, "kube-apiserver", None), Some(net), kind, Some(verdict));
    };
    accept(&mut bench, Service::KubeApiserver, &Verdict::Unlisted);
    accept(&mut bench, Service::Kubelet, &Verdict::Unlisted);
    accept(&mut bench, Service::Docker, &Verdict::Unlisted);
    accept(&mut bench, Service::Kubelet, &Verdict::Listed("ops".into()));
    assert_eq!(bench.signals, ["unlisted-cluster-peer", "unlisted-cluster-peer"]);
    assert_eq!(bench.findings.len(), 0);
}

#[test]
fn acts_are_bounded_and_the_first_read_stays() {
    let mut bench = Bench::new();
    bench.reads(10 * SECOND, STRANGER);
    for second in 0..200 {
        bench.connects((11 + second) * SECOND, STRANGER, WEB);
        bench.reads((11 + second) * SECOND, STRANGER);
    }
    bench.connects(300 * SECOND, STRANGER, NODE_B);
    let [(_, finding)] = &bench.findings[..] else { panic!("one finding, not {:?}", bench.findings) };
    assert_eq!(finding.first.boot_ns, 10 * SECOND);
    assert_eq!(bench.signals.len(), 2);
    for second in 301..340 {
        bench.connects(second * SECOND, STRANGER, NODE_B);
    }
    bench.pass(340 * SECOND + WINDOW + 11 * SECOND);
    let counted = bench.findings.last().map(|(_, finding)| &finding.stages[1]);
    let counted = counted.map(|stage| stage.events.len() as u64 + stage.further);
    assert_eq!(counted, Some(40), "every connection counts once");
}

/// A health probe that the kubelet has run in a container of the network: it reads the token and asks the API server.
#[test]
fn a_container_that_an_entry_expects_to_read_credentials_is_no_finding_and_its_twin_is() {
    let listed = Verdict::Listed("cni".into());
    for (verdict, findings) in [(Some(&listed), 0), (None, 1)] {
        let mut bench = Bench::new();
        let kind =
            || FactKind::FileRead { path: Some(TOKEN.into()), class: CredentialClass::ServiceAccountToken };
        bench.hand_in_of(10 * SECOND, process(STRANGER, "probe", None), None, kind(), verdict);
        bench.connects(11 * SECOND, STRANGER, NODE_B);
        assert_eq!(bench.findings.len(), findings, "{verdict:?}");
    }
}

#[test]
fn a_renamed_tool_in_a_container_that_is_expected_is_a_finding_all_the_same() {
    let mut bench = Bench::new();
    let listed = Verdict::Listed("cni".into());
    let kind = FactKind::FileRead { path: Some(TOKEN.into()), class: CredentialClass::ServiceAccountToken };
    bench.hand_in_of(10 * SECOND, process(OWN, "x", Some("kubectl")), None, kind, Some(&listed));
    let used = FactKind::Connect { result: ConnectResult::Established };
    bench.hand_in_of(11 * SECOND, process(OWN, "x", Some("kubectl")), Some(outbound(NODE_B)), used, None);
    assert_eq!(bench.findings.len(), 1);
}
