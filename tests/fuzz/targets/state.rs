//! What an earlier run has left: whatever it is, the engine takes it or counts it, works with it, and leaves it again.
#![no_main]

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use sensor_core::engine::Occasion;
use sensor_core::state::{Change, Table};
use sensor_fuzz::{at, check_outputs, engine};

/// Entries by table and number.
type Kept = BTreeMap<(u8, u64), Vec<u8>>;

/// Lines of the form `table number hexadecimal`, as the seed has them; what has another form is passed over.
fn entries(text: &[u8]) -> Kept {
    let text = String::from_utf8_lossy(text);
    let entry = |line: &str| {
        let mut words = line.split(' ');
        let (table, number) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let digits = words.next()?.as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        Some(((table, number), digits.chunks(2).map(byte).collect::<Option<_>>()?))
    };
    text.lines().filter_map(entry).collect()
}

/// The same without the detour, for what has no such form.
fn arbitrary(bytes: &[u8]) -> Kept {
    let entries = Vec::<(u8, u64, Vec<u8>)>::arbitrary(&mut Unstructured::new(bytes)).unwrap_or_default();
    let with_table = |(table, number, entry)| ((table % (Table::ALL.len() as u8 + 1), number), entry);
    entries.into_iter().map(with_table).collect()
}

fuzz_target!(|input: &[u8]| {
    let kept = match entries(input) {
        kept if kept.is_empty() => arbitrary(input),
        kept => kept,
    };
    let left = || kept.iter().map(|((table, number), entry)| (*table, *number, &**entry));
    let mut first = engine();
    let restored = first.restore(at(1_000), left());
    let used = restored.resumed.map_or(0, |resumed| resumed.entries);
    assert!(used + restored.unreadable <= kept.len() as u64 * 2, "no entry is counted twice over");
    first.keep_state();
    let mut again = Kept::new();
    for Change { table, number, entry } in first.take_changes(at(1_000), Occasion::SignOfLife) {
        again.extend(entry.map(|entry| ((table.code(), number), entry)));
    }
    // What was taken can be told of, closed, and taken once more.
    for day in 1..40 {
        first.poll(at(day * 86_400_000_000_000));
        check_outputs(&mut first);
    }
    let mut second = engine();
    let left = again.iter().map(|((table, number), entry)| (*table, *number, &**entry));
    let restored = second.restore(at(2_000), left);
    assert_eq!(restored.unreadable, 0, "what was taken is taken again");
    second.poll(at(u64::MAX));
    check_outputs(&mut second);
});
