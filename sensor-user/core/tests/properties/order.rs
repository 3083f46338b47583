//! Two rings become one order, and nothing gets lost on the way.

use proptest::prelude::*;
use sensor_common::record::Ring;
use sensor_core::decode::decode;
use sensor_core::event::Event;
use sensor_core::merge::Merge;

use crate::records::{accept, ends, v2};
use crate::{WINDOW_NS, at, facts, ready_engine};

fn ring() -> impl Strategy<Value = Ring> {
    proptest::sample::select(Ring::ALL.to_vec())
}

fn record(boot_ns: u64, conn: u64) -> Vec<u8> {
    accept(boot_ns, conn, v2(1), ends(("10.0.0.1", 2375), ("198.18.0.9", 1)))
}

fn conn_of(event: &Event) -> u64 {
    match event {
        Event::Accept(accept) => accept.conn,
        other => panic!("an accept, not {other:?}"),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(Ring, u64),
    Pop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![3 => (ring(), 0_u64..50).prop_map(|(ring, at)| Step::Push(ring, at)), 1 => Just(Step::Pop)]
}

proptest! {
    #[test]
    fn merge_gives_what_a_sorted_list_gives(steps in proptest::collection::vec(step(), 0..200)) {
        let mut merge = Merge::default();
        let mut model: Vec<(u64, u32, u64)> = Vec::new();
        for (arrival, step) in (0_u64..).zip(&steps) {
            match step {
                Step::Push(ring, boot_ns) => {
                    let (time, event) = decode(&record(*boot_ns, arrival)).expect("decodes");
                    merge.push(*ring, time, event);
                    model.push((*boot_ns, *ring as u32, arrival));
                    model.sort_unstable();
                }
                Step::Pop => {
                    let expected = (!model.is_empty()).then(|| model.remove(0));
                    prop_assert_eq!(merge.peek().map(|(at, event)| (at, conn_of(event))), expected.map(|(at, _, conn)| (at, conn)));
                    prop_assert_eq!(merge.pop().map(|(at, event)| (at, conn_of(&event))), expected.map(|(at, _, conn)| (at, conn)));
                }
            }
            prop_assert_eq!(merge.len(), model.len());
        }
        let rest: Vec<_> = std::iter::from_fn(|| merge.pop()).map(|(at, event)| (at, conn_of(&event))).collect();
        prop_assert_eq!(rest, model.iter().map(|(at, _, conn)| (*at, *conn)).collect::<Vec<_>>());
        prop_assert!(merge.is_empty());
    }

    #[test]
    fn bounds_are_said_to_be_reached_exactly_then(pushes in 0_usize..40, most in 1_usize..20) {
        let mut merge = Merge::new(most, usize::MAX);
        for boot_ns in 0..pushes as u64 {
            let (time, event) = decode(&record(boot_ns, boot_ns)).expect("decodes");
            merge.push(Ring::Bulk, time, event);
            prop_assert_eq!(merge.is_over_full(), merge.len() > most);
        }
    }

    /// Records that reach the agent within the merge window of their event come out in the order of the events.
    #[test]
    fn output_is_in_kernel_time_order_and_complete(
        delays in proptest::collection::vec((ring(), 0_u64..200, 0..WINDOW_NS), 0..200),
    ) {
        let mut arrivals = Vec::new();
        let mut boot_ns = 10_000;
        for (ring, gap, delay) in delays {
            boot_ns += gap;
            arrivals.push((boot_ns + delay, ring, boot_ns));
        }
        arrivals.sort_by_key(|(arrives, ..)| *arrives);

        let mut engine = ready_engine();
        let mut seen = Vec::new();
        for (conn, (arrives, ring, boot_ns)) in (0_u64..).zip(&arrivals) {
            engine.handle_record(*ring, &record(*boot_ns, conn));
            engine.poll(at(*arrives));
            seen.extend(facts(&mut engine).iter().map(|fact| fact.at.boot_ns));
        }
        engine.poll(at(u64::MAX));
        seen.extend(facts(&mut engine).iter().map(|fact| fact.at.boot_ns));
        let mut expected: Vec<_> = arrivals.iter().map(|(_, _, boot_ns)| *boot_ns).collect();
        expected.sort_unstable();
        prop_assert_eq!(seen, expected);
    }
}

#[test]
fn too_many_records_go_out_early_and_none_is_lost() {
    use sensor_core::merge::MERGE_EVENTS_MAX;
    let mut engine = ready_engine();
    let records = MERGE_EVENTS_MAX as u64 + 100;
    for conn in 0..records {
        engine.handle_record(Ring::Management, &record(1000 + conn, conn));
    }
    assert_eq!(facts(&mut engine).len(), 100, "nothing was polled");
    assert_eq!(engine.statistics().released_early, 100);
    engine.poll(at(u64::MAX));
    assert_eq!(facts(&mut engine).len() as u64, records - 100);
}
