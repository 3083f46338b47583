//! What is kept: stopping at any point, keeping what there is and going on is the same as never having stopped.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use sensor_core::chains::Limits;
use sensor_core::engine::{Engine, Occasion, Output, Policy, Settings};
use sensor_core::fact::{ApiRequest, Direction, End, Fact, FactKind, Net, Node, Service};
use sensor_core::http::route::ApiClass;
use sensor_core::ids::{ConnId, RecordId, RunId};
use sensor_core::state::{Change, STATE_VERSION};
use sensor_core::time::Timestamp;

use crate::at;
use crate::chains::{Step, facts, step};

/// Entries by table and number, as a file would have them.
type Kept = BTreeMap<(u8, u64), Vec<u8>>;

fn engine(run: u64, boot_id: &str) -> Engine {
    let mut engine = Engine::new(Settings {
        run: RunId(run),
        node: Arc::new(Node { name: "node-a".into(), boot_id: boot_id.into(), cluster: None }),
        policy: Policy::default(),
        merge_window_ns: 0,
        hold_ns: 0,
        canary_interval_ns: None,
        packets_rest_ns: 0,
    });
    engine.keep_state();
    engine
}

fn write(kept: &mut Kept, changes: Vec<Change>) {
    for Change { table, number, entry } in changes {
        match entry {
            Some(entry) => kept.insert((table.code(), number), entry),
            None => kept.remove(&(table.code(), number)),
        };
    }
}

fn left(kept: &Kept) -> impl Iterator<Item = (u8, u64, &[u8])> {
    kept.iter().map(|((table, number), entry)| (*table, *number, &**entry))
}

/// What is told, but for its place in the output.
fn told(engine: &mut Engine, all: &mut Vec<String>) {
    while let Some(output) = engine.next_output() {
        match output {
            Output::Finding { id, at, finding, .. } => all.push(format!("{id:?} {at:?} {finding:?}")),
            Output::Signal { id, at, signal, .. } => all.push(format!("{id:?} {at:?} {signal:?}")),
            _ => {}
        }
    }
}

/// Some of the facts are of somebody who looks around.
fn with_looks(mut facts: Vec<Fact>, looks: &[(usize, u8)]) -> Vec<Fact> {
    for (number, (place, path)) in looks.iter().enumerate() {
        let place = place % (facts.len() + 1);
        let Some(before) = facts.get(place.saturating_sub(1)) else { break };
        let mut request = ApiRequest::of_class(ApiClass::Discovery);
        request.method = Some("GET".into());
        request.path = Some(format!("/{path}").into());
        request.route = request.path.clone();
        let end = |ip: &str, port| End { ip: ip.parse().expect("an address"), port };
        let look = Fact {
            id: RecordId(format!("l-{number}").into()),
            container: None,
            net: Some(Net {
                direction: Some(Direction::Inbound),
                peer: Some(end("198.18.0.2", 41_000)),
                local: Some(end("10.0.0.1", 2375)),
                service: Service::Docker,
                conn: Some(ConnId("looks".into())),
            }),
            kind: FactKind::ApiRequest(Box::new(request)),
            ..before.clone()
        };
        facts.insert(place, look);
    }
    facts
}

fn never_stopped(facts: &[Fact]) -> Vec<String> {
    let (mut engine, mut all) = (engine(1, "boot"), Vec::new());
    for fact in facts {
        engine.handle_fact(fact.clone());
        told(&mut engine, &mut all);
    }
    all
}

/// After each fact: nothing, a change is written, or the sensor is started anew.
fn stopped(facts: &[Fact], stops: &[u8]) -> Vec<String> {
    let (mut kept, mut all, mut run) = (Kept::new(), Vec::new(), 1);
    let mut running = engine(run, "boot");
    let mut latest = Timestamp::default();
    for (number, fact) in facts.iter().enumerate() {
        running.handle_fact(fact.clone());
        told(&mut running, &mut all);
        latest = latest.max(fact.at);
        match stops.get(number) {
            Some(0) => write(&mut kept, running.take_changes(latest, Occasion::Change)),
            Some(1) => {
                write(&mut kept, running.take_changes(latest, Occasion::End));
                run += 1;
                running = engine(run, "boot");
                let restored = running.restore(latest, left(&kept));
                let resumed = restored.resumed.expect("there is a head");
                assert_eq!((restored.unreadable, resumed.outdated, resumed.rebooted), (0, 0, false));
                assert!(resumed.clean);
                // Whoever keeps it begins anew.
                kept.clear();
                write(&mut kept, running.take_changes(latest, Occasion::Change));
            }
            _ => {}
        }
    }
    all
}

/// Everything that a run with these facts has kept.
fn kept_of(steps: &[Step], looks: &[(usize, u8)]) -> (Kept, Timestamp) {
    let (mut running, mut latest) = (engine(1, "boot"), at(1));
    for fact in with_looks(facts(steps, false), looks) {
        latest = latest.max(fact.at);
        running.handle_fact(fact);
    }
    let mut kept = Kept::new();
    write(&mut kept, running.take_changes(latest, Occasion::End));
    (kept, latest)
}

fn looks() -> impl Strategy<Value = Vec<(usize, u8)>> {
    proptest::collection::vec((0_usize..64, 0_u8..8), 0..24)
}

proptest! {
    #[test]
    fn stopping_at_any_point_changes_nothing(
        steps in proptest::collection::vec(step(), 0..40),
        late in any::<bool>(),
        looks in looks(),
        stops in proptest::collection::vec(0_u8..6, 64),
    ) {
        let facts = with_looks(facts(&steps, late), &looks);
        prop_assert_eq!(stopped(&facts, &stops), never_stopped(&facts));
    }

    #[test]
    fn damaged_entries_are_counted_and_harm_nobody(
        steps in proptest::collection::vec(step(), 1..30),
        looks in looks(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..20),
        boot in prop_oneof![Just("boot"), Just("another")],
    ) {
        let (mut kept, latest) = kept_of(&steps, &looks);
        let keys: Vec<_> = kept.keys().copied().collect();
        for (entry, place, byte) in damage {
            let entry = kept.get_mut(entry.get(&keys)).expect("a key of its own");
            match byte {
                0..=40 => entry.truncate(place.index(entry.len() + 1)),
                _ if entry.is_empty() => {}
                41..=60 => entry.extend_from_slice(&[byte; 9]),
                _ => *place.get_mut(entry) ^= byte,
            }
        }
        let mut running = engine(2, boot);
        let restored = running.restore(at(latest.boot_ns + 5), left(&kept));
        if let Some(resumed) = restored.resumed {
            prop_assert!(resumed.entries <= kept.len() as u64);
        }
        // Whatever was taken can be worked with, and written again.
        let mut all = Vec::new();
        for fact in with_looks(facts(&steps, true), &looks) {
            running.handle_fact(fact);
            told(&mut running, &mut all);
        }
        running.finish_replay();
        running.take_changes(latest, Occasion::End);
    }

    #[test]
    fn bytes_without_meaning_are_no_state(
        entries in proptest::collection::vec((0_u8..13, 0_u64..4, proptest::collection::vec(any::<u8>(), 0..200)), 0..40),
    ) {
        let mut running = engine(2, "boot");
        running.restore(at(5), entries.iter().map(|(table, number, entry)| (*table, *number, &**entry)));
    }

    #[test]
    fn bytes_are_bounded(steps in proptest::collection::vec(step(), 20..60), looks in looks()) {
        const BYTES: u64 = 4096;
        let (mut running, mut latest) = (engine(1, "boot"), at(1));
        let limits = Limits { state_bytes: BYTES, ..Limits::default() };
        running.handle_policy(at(0), Policy { limits, ..Policy::default() }, Vec::new());
        let mut kept = Kept::new();
        for fact in with_looks(facts(&steps, false), &looks) {
            latest = latest.max(fact.at);
            running.handle_fact(fact);
            write(&mut kept, running.take_changes(latest, Occasion::Change));
            // One entry of each table stays whatever it has.
            let mut largest: BTreeMap<u8, usize> = BTreeMap::new();
            let mut sum = 0;
            for ((table, _), entry) in kept.iter().filter(|((table, _), _)| *table != 0) {
                let largest = largest.entry(*table).or_default();
                *largest = entry.len().max(*largest);
                sum += entry.len();
            }
            prop_assert!(sum as u64 <= BYTES + largest.values().sum::<usize>() as u64, "{sum}");
        }
    }
}

#[test]
fn another_boot_ends_what_was_open_and_keeps_nothing_of_it() {
    let steps = [
        (crate::chains::Act::Access { conn: 0 }, 1, 0),
        (crate::chains::Act::Create { risky: true, by: Some(0) }, 1, 0),
    ];
    let (kept, latest) = kept_of(&steps, &[]);
    let mut running = engine(2, "another");
    let restored = running.restore(at(7), left(&kept));
    let resumed = restored.resumed.expect("there is a head");
    assert!(resumed.rebooted && resumed.outdated >= 3, "{resumed:?}");
    running.handle_ready(at(8));
    running.poll(at(9));
    let ended: Vec<_> = std::iter::from_fn(|| running.next_output())
        .filter_map(|output| match output {
            Output::Finding { at, node, finding, .. } => Some((at, node.boot_id.clone(), finding)),
            _ => None,
        })
        .collect();
    let [(told_at, boot, finding)] = &*ended else { panic!("{ended:?}") };
    assert_eq!((*told_at, &**boot), (latest, "boot"));
    assert_eq!(finding.state, sensor_core::chains::FindingState::Closed);
    assert!(!finding.completeness.complete && finding.explanation.contains("started anew"), "{finding:?}");
    // Whoever goes on from there knows nothing of it.
    let mut kept = Kept::new();
    write(&mut kept, running.take_changes(at(10), Occasion::End));
    let left_over = kept.keys().filter(|(table, _)| (1..=6).contains(table)).count();
    assert_eq!(left_over, 0);
}

#[test]
fn a_time_without_sensor_is_said_of_the_chain_that_goes_on() {
    use crate::chains::Act;
    let steps = [
        (Act::Access { conn: 0 }, 1, 0),
        (Act::Create { risky: true, by: Some(0) }, 1, 0),
        (Act::Connect { container: 0 }, 30_000_000_000, 0),
    ];
    let facts = facts(&steps, false);
    let (mut before, mut kept, mut all) = (engine(1, "boot"), Kept::new(), Vec::new());
    facts[..2].iter().for_each(|fact| before.handle_fact(fact.clone()));
    told(&mut before, &mut all);
    // It is killed, and its last word was that it has seen this much.
    write(&mut kept, before.take_changes(at(facts[1].at.boot_ns), Occasion::Change));
    let mut after = engine(2, "boot");
    let resumed = after.restore(at(facts[1].at.boot_ns + 4_000_000_000), left(&kept)).resumed;
    assert_eq!(
        resumed.map(|resumed| (resumed.clean, resumed.to.boot_ns - resumed.from.boot_ns)),
        Some((false, 4_000_000_000))
    );
    after.handle_fact(facts[2].clone());
    let finding = std::iter::from_fn(|| after.next_output()).find_map(|output| match output {
        Output::Finding { id, finding, .. } => Some((id, finding)),
        _ => None,
    });
    let (record, finding) = finding.expect("the chain goes on");
    assert_eq!(&*finding.id, "an1007-r-0-1", "under the id that it had");
    assert!(finding.stages.iter().all(|stage| stage.seen.is_some()));
    assert_eq!((finding.completeness.complete, finding.completeness.unwatched_ns), (false, 4_000_000_000));
    assert!(finding.explanation.contains("For 4 s of that time no sensor ran"), "{}", finding.explanation);
    assert_eq!(&*record.0, "an1007-r-0-65", "no record of the earlier run can have this id");
}

/// Steps that leave something in every table of a node.
fn sample() -> (Kept, Timestamp) {
    use crate::chains::Act;
    let steps = [
        (Act::Access { conn: 0 }, 1, 0),
        (Act::Access { conn: 3 }, 1, 0),
        (Act::Create { risky: true, by: Some(0) }, 1, 0),
        (Act::Create { risky: true, by: None }, 1, 0),
        (Act::Connect { container: 1 }, 1, 0),
        (Act::Connect { container: 5 }, 1, 0),
    ];
    kept_of(&steps, &[(1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6)])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Entries that this version of the format has written once. Whoever has to change them changes `STATE_VERSION`, too.
const THEN: (u32, &str) = (1, include_str!("../fixtures/state-1.txt"));

#[test]
fn the_format_is_the_one_of_this_version() {
    let (version, then) = THEN;
    assert_eq!(version, STATE_VERSION, "name the file of the new version");
    let (now, _) = sample();
    let lines = now.iter().map(|((table, number), entry)| format!("{table} {number} {}\n", hex(entry)));
    let now: String = lines.collect();
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let mut next = || words.next().expect("three words");
        let (table, number, entry) =
            (next().parse().expect("a table"), next().parse().expect("a number"), next());
        let byte = |at: usize| u8::from_str_radix(&entry[at..at + 2], 16).expect("a byte");
        ((table, number), (0..entry.len()).step_by(2).map(byte).collect())
    };
    let kept: Kept = then.lines().map(parse).collect();
    let tables: std::collections::BTreeSet<u8> = kept.keys().map(|(table, _)| *table).collect();
    assert!(tables.is_superset(&(0..=7).collect()), "only {tables:?}; what would be written now is\n{now}");
    let mut running = engine(2, "boot");
    let restored = running.restore(at(9), left(&kept));
    assert_eq!(restored.unreadable, 0, "raise STATE_VERSION; what would be written now is\n{now}");
    let mut again = Kept::new();
    write(&mut again, running.take_changes(at(9), Occasion::SignOfLife));
    assert_eq!(again.len(), kept.len());
    // Nothing but the order of changes, and whose it is, differs.
    let sizes = |kept: &Kept| {
        let tables = kept.iter().filter(|((table, _), _)| *table != 0);
        let mut sizes: Vec<(u8, usize)> = tables.map(|((table, _), entry)| (*table, entry.len())).collect();
        sizes.sort_unstable();
        sizes
    };
    assert_eq!(sizes(&again), sizes(&kept), "raise STATE_VERSION; what would be written now is\n{now}");
}
