use std::fs;
use std::time::Instant;

use sensor_core::engine::{Engine, Output, Policy, Settings};
use sensor_core::fact::{FactKind, Node};
use sensor_core::ids::RunId;
use sensor_core::time::Timestamp;

use super::*;
use crate::output::OutputQueue;
use crate::sinks::Overflow;
use crate::wire::KindFilter;

fn event(number: u32) -> String {
    format!(
        "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\",\"auditID\":\"id-{number}\",\
         \"stage\":\"ResponseComplete\",\"requestURI\":\"/api\",\"verb\":\"get\",\"user\":{{\"username\":\"u\"}},\
         \"sourceIPs\":[\"198.18.0.1\"],\"requestReceivedTimestamp\":\"2026-11-22T10:00:00.000001Z\"}}\n"
    )
}

fn engine() -> Engine {
    let node = Node { name: "n".into(), boot_id: "b".into(), cluster: None };
    let mut engine = Engine::new(Settings {
        run: RunId(1),
        node: Arc::new(node),
        policy: Policy::default(),
        merge_window_ns: 0,
        hold_ns: 0,
        canary_interval_ns: None,
        packets_rest_ns: 0,
    });
    engine.handle_ready(Timestamp::default());
    engine
}

/// Takes pieces until so many requests have come, and returns their ids and the last position.
fn requests(
    logs: &mut AuditLogs,
    engine: &mut Engine,
    wanted: usize,
) -> (Vec<String>, Option<(Arc<str>, Position)>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let (mut ids, mut position) = (Vec::new(), None);
    while ids.len() < wanted {
        assert!(Instant::now() < deadline, "only {ids:?} came");
        let Some(piece) = logs.try_recv() else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        position = logs.feed(piece, engine).or(position);
        while let Some(output) = engine.next_output() {
            if let Output::Fact { fact, .. } = output
                && let FactKind::Audit(request) = fact.kind
            {
                assert_eq!(&*fact.node.name, "n", "it is this node that reads");
                ids.push(request.audit_id.to_string());
            }
        }
    }
    (ids, position)
}

#[test]
fn a_log_is_read_on_after_a_restart_and_what_is_no_event_is_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("audit.log");
    let store = directory.path().join("positions");
    fs::write(&log, format!("{}no event\n\n{}{}", event(1), event(2), event(2))).expect("written");
    let files = [log.clone()];
    let mut kept = Store::open(store.clone()).expect("it is absent");
    let mut logs = AuditLogs::start(&files, &kept).expect("a thread");
    let mut engine = engine();
    let (ids, position) = requests(&mut logs, &mut engine, 2);
    assert_eq!(ids, ["id-1", "id-2"], "events of one request are one");
    let looked = logs.look(None);
    let [input] = &looked[..] else { panic!("one input: {looked:?}") };
    assert_eq!((input.events, input.invalid, input.lost()), (3, 1, 1));
    assert_eq!(input.bytes, fs::metadata(&log).expect("it is there").len());
    assert_eq!(input.lack, None);
    assert_eq!(input.latest_unix_ns, Some(1_795_341_600_000_001_000));
    let (name, position) = position.expect("a file has one");
    kept.save([(name.to_string(), position)]).expect("saved");
    drop(logs);

    fs::write(&log, fs::read_to_string(&log).expect("read") + &event(3)).expect("written");
    let kept = Store::open(store).expect("it is there");
    let mut logs = AuditLogs::start(&files, &kept).expect("a thread");
    assert_eq!(requests(&mut logs, &mut engine, 1).0, ["id-3"]);
}

#[test]
fn a_log_that_is_not_there_is_said_so_until_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("audit.log");
    let mut logs = AuditLogs::start(std::slice::from_ref(&log), &Store::empty("p".into())).expect("a thread");
    let lack = |logs: &mut AuditLogs| logs.look(None).remove(0).lack;
    let wait = |logs: &mut AuditLogs, expected: Option<&AuditLack>| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while lack(logs).as_ref() != expected {
            assert!(Instant::now() < deadline, "{:?}", lack(logs));
            thread::sleep(Duration::from_millis(1));
        }
    };
    let reason = format!("{}: it is not there", log.display()).into();
    wait(&mut logs, Some(&AuditLack { is_blind: true, reason }));
    fs::write(&log, "").expect("written");
    wait(&mut logs, None);
    let unkept = Arc::from("the disk is full");
    assert_eq!(logs.look(Some(&unkept)).remove(0).lack, Some(AuditLack { is_blind: false, reason: unkept }));
}

#[test]
fn a_log_waits_while_nobody_takes_what_was_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("audit.log");
    let all: String = (0..3000).map(event).collect();
    fs::write(&log, &all).expect("written");
    let mut logs = AuditLogs::start(&[log], &Store::empty("p".into())).expect("a thread");
    let deadline = Instant::now() + Duration::from_secs(20);
    while logs.pieces.len() < QUEUE {
        assert!(Instant::now() < deadline, "the queue is not filled");
        thread::sleep(Duration::from_millis(1));
    }
    let behind = logs.look(None)[0].behind_bytes.expect("it is known");
    assert!(behind > all.len() as u64 / 3, "{behind} of {} are still in the file", all.len());
    assert_eq!(requests(&mut logs, &mut engine(), 3000).0.len(), 3000);
}

#[test]
fn a_position_is_kept_when_what_came_before_it_is_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("positions");
    let position = |offset| Position { file: (1, 2), offset, modified_ns: 0, print: String::new() };
    let mut output = OutputQueue::default();
    output.add(io::sink(), KindFilter::ANY, Overflow::Shed).expect("a thread");
    let mut keeper = Positions::start(Store::empty(path.clone())).expect("a thread");
    keeper.reach("a".into(), position(1));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(Instant::now() < deadline, "nothing is kept");
        keeper.keep(&output);
        thread::sleep(Duration::from_millis(1));
    }
    keeper.reach("a".into(), position(2));
    keeper.finish();
    assert_eq!(Store::open(path).expect("it is there").get("a"), Some(&position(2)));
}

#[test]
fn positions_that_cannot_be_kept_are_told() {
    let mut keeper = Positions::start(Store::empty("/proc/none/positions".into())).expect("a thread");
    keeper.reach("a".into(), Position { file: (1, 2), offset: 3, modified_ns: 0, print: String::new() });
    let deadline = Instant::now() + Duration::from_secs(20);
    while keeper.problem().is_none() {
        assert!(Instant::now() < deadline, "nothing is told");
        keeper.keep(&OutputQueue::default());
        thread::sleep(Duration::from_millis(1));
    }
    let problem = keeper.problem().expect("it was told");
    assert!(problem.contains("/proc/none/positions cannot be written: "), "{problem}");
}
