//! Tests of [`super`].

use super::*;

fn now(boot_ns: u64) -> Timestamp {
    Timestamp { boot_ns, unix_ns: 0 }
}

fn lost(ring: Ring, kind: RecordKind, count: u64) -> KernelCounters {
    let mut counters = KernelCounters::default();
    counters.records[ring as usize][kind as usize][Fate::Lost as usize] = count;
    counters
}

#[test]
fn comparison_gives_what_came_since_the_last_one() {
    let mut ledger = LossLedger::default();
    let (first, _) = ledger.compare(now(1), &lost(Ring::Bulk, RecordKind::Exit, 5), vec![("processes", 2)]);
    assert_eq!(
        first.iter().map(|loss| (loss.kind, loss.lost, loss.evicted)).collect::<Vec<_>>(),
        [("exit", 5, 0), ("processes", 0, 2)]
    );
    let (second, _) = ledger.compare(now(2), &lost(Ring::Bulk, RecordKind::Exit, 7), vec![("processes", 2)]);
    assert_eq!(second.iter().map(|loss| (loss.kind, loss.lost)).collect::<Vec<_>>(), [("exit", 2)]);
}

#[test]
fn totals_are_since_the_start_whatever_was_reported() {
    let mut ledger = LossLedger::default();
    let counters = lost(Ring::Bulk, RecordKind::Exit, 5);
    ledger.count_undecodable();
    assert_eq!(ledger.compare(now(1), &counters, Vec::new()).1, 1);
    assert_eq!(ledger.compare(now(2), &counters, Vec::new()).1, 0);
    let (loss, undecodable) = ledger.totals(&counters, &[("merge", 4)]);
    assert_eq!((loss.len(), loss[0].lost, loss[1].evicted, undecodable), (2, 5, 4, 1));
}

#[test]
fn only_management_loss_marks_the_facts_around_it() {
    let mut ledger = LossLedger::default();
    ledger.compare(now(10_000_000_000), &lost(Ring::Bulk, RecordKind::Exit, 5), Vec::new());
    assert_eq!(ledger.lost_around(10_000_000_000), 0);
    let mut counters = lost(Ring::Bulk, RecordKind::Exit, 5);
    counters.records[Ring::Management as usize][RecordKind::Exec as usize][Fate::Lost as usize] = 2;
    ledger.compare(now(11_000_000_000), &counters, Vec::new());
    // Lost somewhere between the two looks; a second on either side.
    for (boot_ns, lost) in [
        (8_900_000_000, 0),
        (9_000_000_000, 2),
        (10_500_000_000, 2),
        (12_000_000_000, 2),
        (12_100_000_000, 0),
    ] {
        assert_eq!(ledger.lost_around(boot_ns), lost, "{boot_ns}");
    }
}

#[test]
fn record_of_unknown_kind_is_received_under_no_kind() {
    let mut ledger = LossLedger::default();
    ledger.count_received(Ring::Bulk, None);
    ledger.count_received(Ring::Bulk, Some(RecordKind::Fork));
    assert_eq!(ledger.received(), 1);
}

#[test]
fn what_the_shell_could_not_do_is_reported_once_and_in_the_totals() {
    let mut ledger = LossLedger::default();
    ledger.set_shell(ShellLosses { output_lines: 7, ..ShellLosses::default() });
    let expected = [Loss { ring: None, kind: "output", lost: 7, suppressed: 0, evicted: 0 }];
    let kernel = KernelCounters::default();
    assert_eq!(ledger.compare(Timestamp::default(), &kernel, Vec::new()).0, expected);
    assert_eq!(ledger.compare(Timestamp::default(), &kernel, Vec::new()).0, []);
    assert_eq!(ledger.totals(&kernel, &[]).0, expected);
}

#[test]
fn every_event_of_the_probes_is_reported_but_the_one_that_is_no_loss() {
    let mut counters = KernelCounters::default();
    for (count, event) in (1..).zip(Event::ALL) {
        counters.events[event as usize] = count;
    }
    let expected =
        [("untracked-connection", 1), ("read-failed", 3), ("untracked-process", 4), ("connection-share", 9)];
    let named = |loss: &[Loss]| loss.iter().map(|loss| (loss.kind, loss.lost)).collect::<Vec<_>>();
    let mut ledger = LossLedger::default();
    assert_eq!(named(&ledger.compare(now(1), &counters, Vec::new()).0), expected);
    assert_eq!(named(&ledger.totals(&counters, &[]).0), expected);
}

#[test]
fn what_is_withheld_is_told_once_although_some_of_it_is_reported_after_all() {
    let suppressed = |count: u64| {
        let mut counters = KernelCounters::default();
        let fates = &mut counters.records[Ring::Management as usize][RecordKind::Accept as usize];
        fates[Fate::Suppressed as usize] = count;
        counters
    };
    let mut ledger = LossLedger::default();
    // Thirty of the first hundred are reported after all, then ten more are withheld, then fifty.
    let told = [100, 70, 80, 130].map(|count| {
        let (loss, _) = ledger.compare(now(count), &suppressed(count), Vec::new());
        loss.iter().map(|loss| loss.suppressed).sum::<u64>()
    });
    assert_eq!(told, [100, 0, 0, 30]);
}
