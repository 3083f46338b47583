//! The analytic from facts to findings.

use std::net::IpAddr;
use std::sync::Arc;

use super::An1352Limits;
use crate::chains::{Chains, Finding, FindingState, Limits, Severity, What};
use crate::exposure::Inside;
use crate::fact::{
    Ancestor, ApiRequest, Container, Direction, End, ExecRole, Fact, FactKind, Net, Node, Process, Program,
    Quality, Runtime, ScanShape, Service, Verdict,
};
use crate::http::route::ApiClass;
use crate::ids::{ConnId, RecordId};
use crate::time::Timestamp;

const SECOND: u64 = 1_000_000_000;
const OUTSIDE: &str = "198.18.0.9";
const INSIDE: &str = "10.0.0.12";

use FindingState::{Closed, Open, Update};
use Severity::{High, Medium};

fn node() -> Arc<Node> {
    Arc::new(Node { name: "node-a".into(), boot_id: "boot".into(), cluster: None })
}

struct Bench {
    chains: Chains,
    facts: u64,
    /// What the allow-list says of what containers do.
    of_containers: Option<Verdict>,
    signals: Vec<String>,
    findings: Vec<(String, u64, Finding)>,
}

impl Bench {
    fn new() -> Self {
        let mut chains = Chains::default();
        let networks = vec!["10.0.0.0/8".parse().expect("a network")];
        chains.set_inside(Inside { networks, own: Vec::new() });
        Self { chains, facts: 0, of_containers: None, signals: Vec::new(), findings: Vec::new() }
    }

    fn read(&mut self) {
        while let Some(derived) = self.chains.next_derived() {
            match derived.what {
                What::Signal(signal) if &*signal.analytic == "AN1352" => {
                    self.signals.push(signal.name.into_owned());
                }
                What::Finding(finding) => {
                    self.findings.push((derived.id.0.to_string(), derived.at.boot_ns, *finding));
                }
                What::Signal(_) => {}
            }
        }
    }

    fn hand_in(&mut self, fact: Fact, verdict: Option<&Verdict>) {
        self.chains.handle(&fact, verdict);
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

    fn asks(&mut self, at: u64, peer: &str, path: &str, route: &str, verdict: &Verdict) {
        self.requests(at, peer, (path, route, ApiClass::Discovery), verdict);
    }

    fn requests(&mut self, at: u64, peer: &str, what: (&str, &str, ApiClass), verdict: &Verdict) {
        let (path, route, class) = what;
        let api = ApiRequest {
            method: Some("GET".into()),
            path: Some(path.into()),
            route: Some(route.into()),
            status: Some(200),
            ..ApiRequest::of_class(class)
        };
        let net = Net {
            direction: Some(Direction::Inbound),
            peer: Some(End { ip: peer.parse().expect("an address"), port: 40_000 }),
            local: Some(End { ip: "10.0.0.11".parse().expect("an address"), port: 2375 }),
            service: Service::Docker,
            conn: Some(ConnId("c1".into())),
        };
        let fact = Fact { net: Some(net), ..self.fact(at, FactKind::ApiRequest(Box::new(api))) };
        self.hand_in(fact, Some(verdict));
    }

    /// Asks after this many containers, one a second.
    fn inspects(&mut self, from: u64, peer: &str, containers: u64) {
        for number in 0..containers {
            let path = format!("/v1.47/containers/{number}/json");
            self.asks(from + number * SECOND, peer, &path, "/containers/{id}/json", &Verdict::Unlisted);
        }
    }

    fn runs(&mut self, at: u64, container: Option<&str>, tool: Option<(&str, bool)>, line: &str) {
        let (tool, renamed) = tool.map_or((None, false), |(tool, renamed)| (Some(tool.into()), renamed));
        let ancestor =
            |pid, comm: &str, exe: &str| Ancestor { pid, comm: comm.into(), exe: Some(exe.into()) };
        let args: Arc<[Arc<str>]> = line.split(' ').map(Arc::from).collect();
        let process = Process {
            pid: 4000 + u32::try_from(self.facts).expect("a pid"),
            ppid: Some(3001),
            start_ns: at,
            comm: "x".into(),
            exe: Some(args[0].clone()),
            args: Some(args),
            uid: Some(0),
            program: Program { tool, renamed, ..Program::default() },
            // A subshell of a script that somebody has started over ssh.
            ancestors: Arc::from([
                ancestor(3001, "sh", "/bin/dash"),
                ancestor(3000, "collect.sh", "/bin/dash"),
                ancestor(800, "sshd", "/usr/sbin/sshd"),
            ]),
            truncated: false,
        };
        let fact = Fact {
            process: Some(Arc::new(process)),
            container: container.map(of_id),
            ..self.fact(at, FactKind::Exec { role: ExecRole::Client })
        };
        let verdict = self.of_containers.clone();
        self.hand_in(fact, verdict.as_ref());
    }

    fn sweeps(&mut self, at: u64, container: Option<&str>, targets: u64) {
        let kind = FactKind::Scan {
            shape: ScanShape::Sweep,
            targets,
            peers: 1,
            count: targets,
            suppressed: 0,
            resumed: 0,
            window_ns: SECOND,
        };
        let fact = Fact { container: container.map(of_id), ..self.fact(at, kind) };
        let verdict = self.of_containers.clone();
        self.hand_in(fact, verdict.as_ref());
    }

    fn connects_to_runtime(&mut self, at: u64, container: &str) {
        let path = Some("/run/docker.sock".into());
        let kind = FactKind::SocketConnect { path, inode: at, service: Some(Runtime::Docker) };
        let fact = Fact { container: Some(of_id(container)), ..self.fact(at, kind) };
        let verdict = self.of_containers.clone();
        self.hand_in(fact, verdict.as_ref());
    }

    fn states(&self) -> Vec<(FindingState, Severity)> {
        self.findings.iter().map(|(.., finding)| (finding.state, finding.severity)).collect()
    }

    fn last(&self) -> &Finding {
        &self.findings.last().expect("a finding").2
    }
}

fn of_id(id: &str) -> Arc<Container> {
    Arc::new(Container {
        id: id.into(),
        namesake: 0,
        runtime: Runtime::Docker,
        name: Some("web".into()),
        image: None,
        created: None,
        risks: None,
        cgroup: None,
    })
}

/// `docker ps`, `images` and `inspect` of every container, as TeamTNT's scripts have it over the network.
#[test]
fn docker_ps_images_and_inspect_over_the_network_are_one_finding() {
    let mut bench = Bench::new();
    let unlisted = &Verdict::Unlisted;
    bench.requests(10 * SECOND, OUTSIDE, ("/_ping", "/_ping", ApiClass::Probe), unlisted);
    bench.asks(10 * SECOND, OUTSIDE, "/v1.47/containers/json", "/containers/json", unlisted);
    bench.asks(11 * SECOND, OUTSIDE, "/v1.47/images/json", "/images/json", unlisted);
    bench.inspects(12 * SECOND, OUTSIDE, 3);
    assert_eq!((bench.findings.len(), bench.signals.len()), (0, 5), "a probe is no discovery");
    bench.asks(15 * SECOND, OUTSIDE, "/v1.47/containers/json", "/containers/json", unlisted);
    assert_eq!((bench.findings.len(), bench.signals.len()), (0, 5), "the same once more is not another one");
    bench.asks(16 * SECOND, OUTSIDE, "/v1.47/info", "/info", unlisted);
    assert_eq!(bench.states(), [(Open, High)]);
    let finding = bench.last();
    assert_eq!(finding.stages.len(), 1);
    assert_eq!(finding.entities.peers, [OUTSIDE.parse::<IpAddr>().expect("an address")]);
    for told in
        [OUTSIDE, "docker /containers/json", "docker /images/json", "docker /info", "6 different calls"]
    {
        assert!(finding.explanation.contains(told), "{told}: {}", finding.explanation);
    }
    bench.inspects(17 * SECOND, OUTSIDE, 9);
    assert_eq!(bench.states(), [(Open, High), (Update, High)], "it has doubled once");
    bench.pass(25 * SECOND + 120 * SECOND + super::REORDER_NS + 1);
    assert_eq!(bench.states().last(), Some(&(Closed, High)));
    let (_, closed_at, finding) = bench.findings.last().expect("it is closed");
    assert_eq!(*closed_at, 145 * SECOND);
    assert_eq!(finding.stages[0].events.len() + usize::try_from(finding.stages[0].further).expect("few"), 15);
    assert!(bench.findings.iter().all(|(.., finding)| finding.id == bench.findings[0].2.id));
}

#[test]
fn peers_that_are_listed_never_count() {
    let mut bench = Bench::new();
    let listed = Verdict::Listed("ops-vpn".into());
    for number in 0..40 {
        let path = format!("/v1.47/containers/{number}/json");
        bench.asks(10 * SECOND + number, OUTSIDE, &path, "/containers/{id}/json", &listed);
    }
    assert_eq!((bench.findings.len(), bench.signals.len()), (0, 0));
}

#[test]
fn calls_that_are_too_far_apart_are_no_burst_and_each_peer_is_by_itself() {
    let mut bench = Bench::new();
    for number in 0..20_u64 {
        let path = format!("/containers/{number}/json");
        let peer = format!("198.18.1.{number}");
        bench.asks(number * 25 * SECOND, OUTSIDE, &path, "/containers/{id}/json", &Verdict::Unlisted);
        bench.asks(number * SECOND, &peer, &path, "/containers/{id}/json", &Verdict::Unlisted);
    }
    assert_eq!(bench.findings, []);
}

#[test]
fn what_is_told_late_counts_by_its_own_time() {
    let mut bench = Bench::new();
    bench.inspects(125 * SECOND, OUTSIDE, 5);
    bench.asks(8 * SECOND, OUTSIDE, "/info", "/info", &Verdict::Unlisted);
    assert_eq!(bench.findings, [], "out of the window that ends with the latest call");
    bench.asks(120 * SECOND, OUTSIDE, "/version", "/version", &Verdict::Unlisted);
    assert_eq!(bench.states(), [(Open, High)]);
    assert_eq!(bench.last().first.boot_ns, 120 * SECOND);
}

#[test]
fn peers_of_the_networks_are_less_severe_than_those_outside() {
    let mut bench = Bench::new();
    bench.inspects(10 * SECOND, INSIDE, 6);
    assert_eq!(bench.states(), [(Open, Medium)]);
}

#[test]
fn a_renamed_kubectl_that_lists_pods_in_a_container_is_a_burst_by_itself() {
    let mut bench = Bench::new();
    bench.runs(10 * SECOND, Some("x"), Some(("kubectl", false)), "/usr/bin/kubectl get pods -A");
    assert_eq!((bench.findings.len(), &*bench.signals), (0, &["discovery-tool".to_owned()][..]));
    bench.runs(11 * SECOND, Some("y"), Some(("kubectl", true)), "/tmp/.k delete pods");
    assert_eq!(bench.findings.len(), 0);
    bench.runs(12 * SECOND, Some("y"), Some(("kubectl", true)), "/tmp/.k get pods -A");
    assert_eq!(bench.states(), [(Open, High)]);
    assert_eq!(bench.last().entities.containers, ["y".into()]);
    assert!(bench.last().explanation.contains("kubectl get"), "{}", bench.last().explanation);
}

#[test]
fn tools_on_the_host_count_under_other_names_only_and_for_what_started_them() {
    let mut bench = Bench::new();
    let lines = |tool: &str| {
        ["ps", "images", "info", "network ls", "volume ls", "inspect x", "stats"]
            .map(|command| format!("{tool} {command}"))
    };
    for line in lines("/usr/bin/docker") {
        bench.runs(10 * SECOND, None, Some(("docker", false)), &line);
    }
    assert_eq!((bench.findings.len(), bench.signals.len()), (0, 0), "an administrator");
    for (number, line) in (0_u64..).zip(lines("/tmp/.d")) {
        bench.runs((20 + number) * SECOND, None, Some(("docker", true)), &line);
    }
    assert_eq!(bench.states(), [(Open, Medium)]);
    assert!(bench.last().explanation.contains("collect.sh (pid 3000)"), "{}", bench.last().explanation);
}

/// Hildegard has masscan look for kubelets from a container. Its packets are its own; that it is run is seen, and so is a
/// search that connects.
#[test]
fn a_search_for_kubelets_from_a_container_is_a_burst_by_itself() {
    let mut bench = Bench::new();
    bench.runs(10 * SECOND, Some("x"), None, "/tmp/masscan 10.0.0.0/24 -p10250 --rate=1000");
    assert_eq!(bench.states(), [(Open, High)]);
    assert_eq!(bench.signals, ["discovery-scanner"]);
    bench.sweeps(11 * SECOND, Some("x"), 200);
    assert_eq!(bench.states(), [(Open, High), (Update, High)], "it does something of another kind");
    bench.sweeps(12 * SECOND, Some("y"), 7);
    bench.sweeps(12 * SECOND, None, 200);
    assert_eq!(bench.findings.len(), 2, "too few, and not a container");
    bench.sweeps(13 * SECOND, Some("y"), 8);
    assert_eq!(bench.states().last(), Some(&(Open, High)));
    bench.runs(14 * SECOND, None, None, "/usr/bin/masscan 10.0.0.0/24 -p10250");
    assert_eq!(bench.findings.len(), 3, "an administrator on the host");
}

#[test]
fn calls_of_one_container_count_together_whatever_they_are_made_by() {
    let mut bench = Bench::new();
    for inode in [7, 7, 8] {
        let kind = FactKind::SocketConnect { path: None, inode, service: Some(Runtime::Docker) };
        let fact = Fact { container: Some(of_id("x")), ..bench.fact(10 * SECOND, kind) };
        bench.hand_in(fact, None);
    }
    for line in ["docker ps", "docker images", "docker info"] {
        bench.runs(11 * SECOND, Some("x"), Some(("docker", false)), line);
    }
    assert_eq!(bench.findings, []);
    bench.sweeps(12 * SECOND, Some("x"), 4);
    assert_eq!(bench.states(), [(Open, High)]);
    assert!(bench.last().explanation.contains("socket of docker"), "{}", bench.last().explanation);
}

#[test]
fn limits_are_those_of_the_configuration() {
    let mut bench = Bench::new();
    let an1352 = An1352Limits { distinct_calls: 2, window_ns: SECOND, sweep_targets: 4 };
    bench.chains.set_limits(Limits { an1352, ..Limits::default() });
    bench.inspects(10 * SECOND, OUTSIDE, 2);
    assert_eq!(bench.states(), [(Open, High)], "the window holds what is exactly as old");
    bench.sweeps(20 * SECOND, Some("x"), 4);
    assert_eq!(bench.states(), [(Open, High), (Open, High)]);
    bench.inspects(20 * SECOND, OUTSIDE, 2);
    let states = [(Open, High), (Open, High), (Closed, High), (Open, High)];
    assert_eq!(bench.states(), states, "what comes after its window is another burst");
}

#[test]
fn principals_are_bounded_and_a_burst_that_has_to_go_is_closed_as_incomplete() {
    let mut bench = Bench::new();
    bench.sweeps(SECOND, Some("x"), 8);
    for number in 0..super::PRINCIPALS_MAX {
        bench.sweeps(2 * SECOND, Some(&format!("c{number}")), 4);
    }
    assert_eq!(bench.states(), [(Open, High), (Closed, High)]);
    assert!(!bench.last().completeness.complete);
    let evicted = bench.chains.evicted();
    assert!(evicted.contains(&("discovery-principals", 1)), "{evicted:?}");
}

/// What a monitoring agent does all day, and the same done by a container that nobody expects to.
#[test]
fn a_container_that_an_entry_expects_may_look_around_and_its_twin_may_not() {
    let listed = Some(Verdict::Listed("monitoring".into()));
    for (of_containers, expected) in [(listed, 0), (None, 3)] {
        let mut bench = Bench { of_containers, ..Bench::new() };
        bench.sweeps(10 * SECOND, Some("agent"), 40);
        for (number, command) in
            ["ps", "images", "info", "inspect a", "inspect b", "inspect c"].iter().enumerate()
        {
            let at = (20 + number as u64) * SECOND;
            bench.runs(at, Some("shell"), Some(("docker", false)), &format!("/usr/bin/docker {command}"));
        }
        (0..6).for_each(|number| bench.connects_to_runtime((40 + number) * SECOND, "console"));
        assert_eq!(bench.findings.len(), expected, "{:?}", bench.findings);
        assert_eq!(bench.signals.is_empty(), expected == 0, "{:?}", bench.signals);
    }
}

#[test]
fn a_tool_under_another_name_is_expected_of_nobody() {
    let mut bench = Bench { of_containers: Some(Verdict::Listed("monitoring".into())), ..Bench::new() };
    bench.runs(10 * SECOND, Some("agent"), Some(("kubectl", true)), "/tmp/x get pods");
    assert_eq!(bench.states(), [(Open, High)]);
}
