use super::super::{Chains, Derived, What};
use super::*;
use crate::audit::SignalName;
use crate::fact::{FactKind, Quality};

const MINUTE_NS: u64 = 60_000_000_000;

/// A request at this minute that signals this, with the records that come of it.
fn step(chains: &mut Chains, minute: u64, name: SignalName, severity: Option<Severity>) -> Vec<What> {
    let at_ns = minute * MINUTE_NS;
    let line = format!(
        r#"{{"stage":"ResponseComplete","auditID":"id-{minute}","requestURI":"/","verb":"get","requestReceivedTimestamp":"2026-11-22T10:00:00Z"}}"#
    );
    let mut auditor = audit::Auditor::new(audit::AuditPolicy::default(), audit::DiscoveryLimits::default());
    auditor.handle_line(line.as_bytes()).expect("an event");
    let Some(audit::AuditOutput::Request(request, _)) = auditor.next_output() else { panic!("no request") };
    let node = Node { name: "n".into(), boot_id: "b".into(), cluster: None };
    let fact = Fact {
        id: RecordId(format!("f-{minute}").into()),
        at: Timestamp { boot_ns: at_ns, unix_ns: at_ns },
        node: Arc::new(node),
        process: None,
        container: None,
        k8s: None,
        net: None,
        quality: Quality::default(),
        kind: FactKind::Audit(request),
    };
    chains.handle(&fact, None);
    chains.handle_audit(&audit::Signal {
        name,
        at_ns,
        audit_id: "id".into(),
        user: "someone".into(),
        credential: "JTI=1".into(),
        source: Some("198.18.0.9".parse().expect("an address")),
        evidence: Confidence::Proved,
        severity,
        detail: "a reason".to_owned(),
    });
    std::iter::from_fn(|| chains.next_derived()).map(|Derived { what, .. }| what).collect()
}

fn findings(all: Vec<What>) -> Vec<(FindingState, Severity, Arc<str>)> {
    let finding = |what| match what {
        What::Finding(finding) => Some((finding.state, finding.severity, finding.id)),
        What::Signal(_) => None,
    };
    all.into_iter().filter_map(finding).collect()
}

#[test]
fn a_credential_out_of_place_opens_a_finding_that_its_use_raises_and_time_closes() {
    let mut chains = Chains::default();
    let id: Arc<str> = "AN1547-f-100".into();
    let open = step(&mut chains, 100, SignalName::BoundTokenElsewhere, Some(Severity::High));
    assert!(matches!(open.first(), Some(What::Signal(_))), "{open:?}");
    assert_eq!(findings(open), [(FindingState::Open, Severity::High, id.clone())]);
    let again = step(&mut chains, 101, SignalName::BoundTokenElsewhere, Some(Severity::High));
    assert_eq!(findings(again), [], "nothing is new");
    let used = step(&mut chains, 102, SignalName::PodExec, None);
    assert_eq!(findings(used), [(FindingState::Update, Severity::Critical, id.clone())]);
    let later = step(&mut chains, 130, SignalName::PodExec, None);
    assert_eq!(findings(later), [(FindingState::Closed, Severity::Critical, id)]);
}

#[test]
fn what_is_no_finding_by_itself_stays_a_signal() {
    let mut chains = Chains::default();
    for minute in 0..5 {
        let told = step(&mut chains, minute, SignalName::TokenIssued, None);
        assert!(matches!(&told[..], [What::Signal(_)]), "{told:?}");
    }
    let found = step(&mut chains, 6, SignalName::BoundTokenElsewhere, Some(Severity::Medium));
    assert_eq!(
        findings(found).first().map(|found| found.1),
        Some(Severity::High),
        "a credential was got before"
    );
}

#[test]
fn memory_is_bounded_and_what_goes_is_counted() {
    let mut chains =
        AuditChains { chains: Kept::new(Table::AuditChains, 1, STATE_BYTES), ..AuditChains::default() };
    let signal = |source: &str| audit::Signal {
        name: SignalName::BoundTokenElsewhere,
        at_ns: 1,
        audit_id: "id".into(),
        user: "someone".into(),
        credential: "JTI=1".into(),
        source: Some(source.parse().expect("an address")),
        evidence: Confidence::Proved,
        severity: Some(Severity::High),
        detail: String::new(),
    };
    let node = Arc::new(Node { name: "n".into(), boot_id: "b".into(), cluster: None });
    chains.present = Some(Present { id: RecordId("f".into()), at: Timestamp::default(), node });
    let mut sender = Sender::default();
    chains.handle_signal(&signal("198.18.0.1"), &mut sender);
    chains.handle_signal(&signal("198.18.0.2"), &mut sender);
    assert_eq!((chains.open(), chains.evicted()), (1, 1));
}

#[test]
fn a_chain_that_had_to_go_makes_findings_incomplete_that_reach_back_to_it_and_no_others() {
    let one = || Kept::new(Table::AuditChains, 1, STATE_BYTES);
    let mut chains = AuditChains { chains: one(), ..AuditChains::default() };
    let mut sender = Sender::default();
    let mut is_complete = |chains: &mut AuditChains, minute: u64, source: &str| {
        let at_ns = minute * MINUTE_NS;
        let node = Arc::new(Node { name: "n".into(), boot_id: "b".into(), cluster: None });
        let at = Timestamp { boot_ns: at_ns, unix_ns: at_ns };
        chains.present = Some(Present { id: RecordId(format!("f-{minute}").into()), at, node });
        let signal = audit::Signal {
            name: SignalName::BoundTokenElsewhere,
            at_ns,
            audit_id: "id".into(),
            user: "someone".into(),
            credential: "JTI=1".into(),
            source: Some(source.parse().expect("an address")),
            evidence: Confidence::Proved,
            severity: Some(Severity::High),
            detail: String::new(),
        };
        chains.handle_signal(&signal, &mut sender);
        let mut told = sender.outputs.drain(..).filter_map(|derived| match derived.what {
            What::Finding(finding) => Some(finding.completeness.complete),
            What::Signal(_) => None,
        });
        told.next_back().expect("a finding")
    };
    let window = chains.window_ns / MINUTE_NS;
    assert!(is_complete(&mut chains, 1000, "198.18.0.1"));
    assert!(!is_complete(&mut chains, 1001, "198.18.0.2"), "the first had to go");
    let forgotten_ns = chains.forgotten_ns();
    assert_eq!(forgotten_ns, 1000 * MINUTE_NS);
    chains.chains.remove(&(
        Which::Credential,
        "JTI=1".into(),
        Some("198.18.0.2".parse().expect("an address")),
    ));
    assert!(is_complete(&mut chains, 1001 + window, "198.18.0.3"), "it cannot have been a part of this");

    let restored = |told: Option<u64>| {
        let mut later = AuditChains { chains: one(), ..AuditChains::default() };
        assert_eq!(later.restore(&[], told), 0);
        later.forgotten_ns()
    };
    assert_eq!((restored(Some(7)), restored(None)), (0, 0), "nothing is left that it could be missing of");
}
