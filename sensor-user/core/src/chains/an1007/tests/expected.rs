//! Containers that an entry of the allow-list expects.

use super::*;
use crate::fact::{CredentialClass, Process, Program};

fn listed() -> Verdict {
    Verdict::Listed("cni".into())
}

impl Bench {
    /// A step of a pod's container that an entry speaks of, or not.
    fn step(
        &mut self,
        at: u64,
        id: &str,
        action: ContainerAction,
        origin: Origin,
        verdict: Option<&Verdict>,
    ) {
        let kind = FactKind::Container { action, origin };
        let k8s = Some(Arc::new(K8s::default()));
        let fact = Fact { container: Some(container(id, RISKY)), k8s, ..self.fact(at, kind) };
        self.hand_in(&fact, verdict);
    }

    fn findings_of(&mut self, analytic: &str, fact: &Fact, verdict: &Verdict) -> usize {
        self.chains.handle(fact, Some(verdict));
        let mut found = 0;
        while let Some(derived) = self.chains.next_derived() {
            found +=
                usize::from(matches!(derived.what, What::Finding(finding) if &*finding.analytic == analytic));
        }
        found
    }
}

/// A privileged container of the network is rolled out while somebody unexpected has a connection to the API server.
#[test]
fn rolling_out_a_listed_container_is_no_stage_and_its_twin_is_one() {
    let listed = listed();
    for (verdict, findings) in [(Some(&listed), 0), (None, 1)] {
        let mut bench = Bench::new();
        bench.accept(10 * SECOND, "c1", ATTACKER, Service::KubeApiserver);
        bench.step(20 * SECOND, "x", ContainerAction::Created, Origin::none(), verdict);
        bench.step(21 * SECOND, "x", ContainerAction::Started, Origin::none(), verdict);
        assert_eq!(bench.findings.len(), findings, "{verdict:?}");
        bench.connect(22 * SECOND, "x", LATERAL);
        assert_eq!(bench.findings.len(), findings * 2, "{verdict:?}");
    }
}

#[test]
fn a_name_that_is_known_late_excuses_what_was_told_before_it() {
    let listed = listed();
    for (verdict, findings) in [(Some(&listed), 0), (None, 1)] {
        let mut bench = Bench::new();
        bench.accept(10 * SECOND, "c1", ATTACKER, Service::KubeApiserver);
        bench.pod(20 * SECOND, "x", ContainerAction::Created, &[]);
        bench.step(21 * SECOND, "x", ContainerAction::Enriched, Origin::none(), verdict);
        assert_eq!(bench.findings.len(), findings, "{verdict:?}");
    }
}

#[test]
fn an_entry_says_nothing_against_a_connection_that_asked_for_the_container() {
    let one_of = Origin::one_of(vec![ConnId("c1".into()), ConnId("c2".into())]);
    for (service, origin) in [
        (Service::Docker, proved_by("c1", None)),
        (Service::DockerTls, Origin::of_conn(OriginClass::Inferred, ConnId("c1".into()), None)),
        (Service::DockerTls, one_of),
    ] {
        let mut bench = Bench::new();
        bench.accept(10 * SECOND, "c1", ATTACKER, service);
        bench.step(20 * SECOND, "x", ContainerAction::Created, origin, Some(&listed()));
        // What follows tells nothing of its own.
        bench.step(21 * SECOND, "x", ContainerAction::Started, Origin::none(), Some(&listed()));
        bench.step(22 * SECOND, "x", ContainerAction::Enriched, Origin::none(), Some(&listed()));
        assert_eq!(bench.findings.len(), 1, "{service:?}");
        bench.connect(23 * SECOND, "x", LATERAL);
        assert_eq!(bench.findings.len(), 2, "{service:?}");
    }
}

/// The opening of an encrypted connection says nothing of the program that opens it; its hello does.
#[test]
fn a_listed_program_is_held_against_nobody_and_what_its_peer_does_otherwise_is() {
    let hello = || {
        FactKind::TlsHello(Arc::new(crate::fact::TlsHello {
            sni: None,
            alpn: Arc::from([]),
            versions: Arc::from([]),
            ja4: None,
            flaw: None,
            stack: None,
        }))
    };
    for (others, findings) in [(false, 0), (true, 1)] {
        let mut bench = Bench::new();
        bench.accept(10 * SECOND, "c1", OTHER, Service::KubeApiserver);
        if others {
            bench.accept(10 * SECOND + 1, "c2", OTHER, Service::KubeApiserver);
        }
        bench.on_conn(11 * SECOND, "c1", OTHER, Service::KubeApiserver, hello(), listed());
        bench.step(20 * SECOND, "x", ContainerAction::Created, Origin::none(), None);
        assert_eq!(bench.findings.len(), findings, "{others}");
    }
}

/// An entry with classes expects each request by itself: looking around afterwards excuses nothing.
#[test]
fn a_listed_request_takes_back_that_a_connection_was_opened_and_nothing_that_was_asked_for() {
    for (is_accepted, unlisted, findings) in [(true, false, 0), (true, true, 1), (false, true, 1)] {
        let mut bench = Bench::new();
        bench.chains.set_narrowed(["cni".into()].into());
        if is_accepted {
            bench.accept(10 * SECOND, "c1", ATTACKER, Service::Docker);
        }
        if unlisted {
            bench.request(11 * SECOND, "c1", ATTACKER, ApiClass::Create);
        }
        let kind = FactKind::ApiRequest(Box::new(request(ApiClass::Discovery)));
        bench.on_conn(12 * SECOND, "c1", ATTACKER, Service::Docker, kind, listed());
        bench.created(13 * SECOND, "x", RISKY, proved_by("c1", None));
        assert_eq!(bench.findings.len(), findings, "{is_accepted} {unlisted}");
    }
}

/// An entry without them expects the peer, whatever was thought of him before.
#[test]
fn a_peer_that_is_listed_by_now_is_held_against_nobody() {
    let mut bench = Bench::new();
    bench.accept(10 * SECOND, "c1", OTHER, Service::Docker);
    bench.request(11 * SECOND, "c1", OTHER, ApiClass::Create);
    let kind = FactKind::ApiRequest(Box::new(request(ApiClass::Create)));
    bench.on_conn(12 * SECOND, "c1", OTHER, Service::Docker, kind, listed());
    bench.created(13 * SECOND, "x", RISKY, proved_by("c1", None));
    assert_eq!(bench.findings.len(), 0);
}

/// Whoever has a container made may give it the name and the image of one that is listed.
#[test]
fn a_container_that_a_chain_is_held_against_is_expected_to_do_nothing() {
    let sweep = || FactKind::Scan {
        shape: ScanShape::Sweep,
        targets: 40,
        peers: 1,
        count: 40,
        suppressed: 0,
        resumed: 0,
        window_ns: SECOND,
    };
    for (asked_for, findings) in [(true, 1), (false, 0)] {
        let mut bench = Bench::new();
        bench.accept(10 * SECOND, "c1", ATTACKER, Service::Docker);
        let origin = if asked_for { proved_by("c1", None) } else { Origin::none() };
        bench.created(20 * SECOND, "x", RISKY, origin);
        let fact = Fact { container: Some(container("x", RISKY)), ..bench.fact(30 * SECOND, sweep()) };
        assert_eq!(bench.findings_of("AN1352", &fact, &listed()), findings);
    }
}

#[test]
fn the_same_holds_for_credentials_that_it_reads() {
    for (asked_for, findings) in [(true, 1), (false, 0)] {
        let mut bench = Bench::new();
        bench.accept(10 * SECOND, "c1", ATTACKER, Service::Docker);
        let origin = || if asked_for { proved_by("c1", None) } else { Origin::none() };
        bench.created(20 * SECOND, "x", RISKY, origin());
        let of = |bench: &mut Bench, at, pid, net, kind| {
            let process = Some(Arc::new(brought_in(pid)));
            Fact { container: Some(container("x", RISKY)), process, net, ..bench.fact(at, kind) }
        };
        let kind = FactKind::Container { action: ContainerAction::Started, origin: origin() };
        let started = of(&mut bench, 21 * SECOND, 100, None, kind);
        bench.hand_in(&started, None);
        let kind = FactKind::FileRead { path: None, class: CredentialClass::Kubeconfig };
        let read = of(&mut bench, 30 * SECOND, 200, None, kind);
        assert_eq!(bench.findings_of("AN1547", &read, &listed()), 0);
        let net = Net {
            direction: Some(Direction::Outbound),
            peer: Some(end("10.0.0.12", 6443)),
            local: None,
            service: Service::KubeApiserver,
            conn: Some(ConnId("c9".into())),
        };
        let kind = FactKind::Connect { result: ConnectResult::Established };
        let used = of(&mut bench, 31 * SECOND, 200, Some(net), kind);
        bench.chains.handle(&used, None);
        let mut found = 0;
        while let Some(derived) = bench.chains.next_derived() {
            found +=
                usize::from(matches!(derived.what, What::Finding(finding) if &*finding.analytic == "AN1547"));
        }
        assert_eq!(found, findings);
    }
}

fn brought_in(pid: u32) -> Process {
    let shim = crate::fact::Ancestor { pid: 50, comm: "containerd-shim".into(), exe: None };
    Process {
        pid,
        ppid: Some(50),
        start_ns: u64::from(pid),
        comm: "sh".into(),
        exe: None,
        args: None,
        uid: Some(0),
        program: Program::default(),
        ancestors: Arc::from([shim]),
        truncated: false,
    }
}
