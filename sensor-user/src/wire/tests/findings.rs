//! Signals and findings as lines.

use super::*;

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
        completeness: Completeness { complete: false, lost: 7, unwatched_ns: 9 },
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
        r#""completeness":{"complete":false,"lost":7,"unwatched_ns":9},"explanation":"e\n","first_ts":"2026-11-22T10:39:00.123456789Z","last_ts":"2026-11-22T10:39:00.123456789Z"}}"#,
    );
    assert_eq!(own(&line, "finding"), expected);
    assert_eq!(decode(line.as_bytes()), Ok(Recorded::Derived));
}

#[test]
fn several_candidates_are_all_named_and_none_is_the_peer() {
    let line = finding_line(finding(&["198.18.0.9", "fd00::1"]));
    assert!(line.contains(r#""entities":{"peers":["198.18.0.9","fd00::1"],"containers""#), "{line}");
}
