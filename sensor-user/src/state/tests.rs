use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use sensor_core::state::Table;

use super::*;

const MAX: u64 = 1 << 20;
/// Longer than any disk that passes for one.
const LONG: Duration = Duration::from_secs(20);

fn change(table: Table, number: u64, entry: Option<&[u8]>) -> Change {
    Change { table, number, entry: entry.map(<[u8]>::to_vec) }
}

fn open(path: &Path) -> (Store, Found) {
    Store::open(path, MAX).expect("it can be opened")
}

/// A file with a few hundred entries.
fn filled(path: &Path) {
    let (store, found) = open(path);
    assert!(found.left.is_empty() && found.put_aside.is_none());
    let changes: Vec<Change> =
        (0..300_u64).map(|number| change(Table::Accesses, number, Some(&[number as u8; 100]))).collect();
    store.write(&changes, true).unwrap();
}

#[test]
fn what_was_written_is_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let (store, _) = open(&path);
    store.write(&[change(Table::Cases, 7, Some(b"a")), change(Table::Steps, 1, Some(b"b"))], false).unwrap();
    store.write(&[change(Table::Cases, 7, Some(b"c")), change(Table::Steps, 1, None)], false).unwrap();
    drop(store);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let (store, found) = open(&path);
    assert_eq!(found.left, [(Table::Cases.code(), 7, b"c".to_vec())]);
    store.write(&[change(Table::Veiled, 2, Some(b"d"))], true).unwrap();
    drop(store);
    assert_eq!(open(&path).1.left, [(Table::Veiled.code(), 2, b"d".to_vec())]);
}

#[test]
fn whatever_cannot_be_used_is_put_aside_and_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let aside = directory.path().join("state.unusable");
    fs::write(&path, b"somebody's notes").unwrap();
    let (store, found) = open(&path);
    assert!(found.put_aside.is_some_and(|reason| reason.contains("state.unusable")));
    assert_eq!(fs::read(&aside).unwrap(), b"somebody's notes");
    assert!(found.left.is_empty());
    store.write(&[change(Table::Cases, 1, Some(b"a"))], false).unwrap();
    drop(store);
    assert_eq!(open(&path).1.left.len(), 1, "the new one is in use");
}

#[test]
fn another_format_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    filled(&path);
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let about: redb::TableDefinition<'_, &str, u32> = redb::TableDefinition::new("about");
    transaction.open_table(about).unwrap().insert("version", 999).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let (_, found) = open(&path);
    assert!(found.left.is_empty());
    let reason = found.put_aside.expect("it is put aside");
    assert!(reason.starts_with("it has format 999, and this version reads 1;"), "{reason}");
}

#[test]
fn a_damaged_file_is_put_aside_or_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    filled(&path);
    let whole = fs::read(&path).unwrap();
    let (mut used, mut lost) = (0, 0);
    let mut check = |bytes: &[u8], what: &dyn std::fmt::Debug| {
        fs::write(&path, bytes).unwrap();
        let found = open(&path).1;
        match found.put_aside {
            None => {
                used += 1;
                assert!(
                    found.left.iter().all(|(_, number, entry)| *entry == [*number as u8; 100]),
                    "{what:?}"
                );
                assert!([0, 300].contains(&found.left.len()), "{what:?}: {}", found.left.len());
            }
            Some(_) => lost += 1,
        }
    };
    // A generator with a fixed start: which bytes are hit does not matter, that it is the same ones does.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for _ in 0..40 {
        let length = next(whole.len());
        check(&whole[..length], &length);
    }
    for _ in 0..200 {
        let mut bytes = whole.clone();
        // Half of them where the file says what is where.
        let place = if next(2) == 0 { next(4096) } else { next(whole.len()) };
        bytes[place] ^= 1 << next(8);
        check(&bytes, &place);
    }
    assert!(lost > 20, "{used} used, {lost} put aside");
}

#[test]
fn a_place_without_a_file_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing/state");
    assert!(matches!(Store::open(&missing, MAX), Err(StoreError::NoDirectory(_))));
    assert!(matches!(Store::open(directory.path(), MAX), Err(StoreError::NoFile(_))));
    let link = directory.path().join("link");
    symlink("/etc/hostname", &link).unwrap();
    assert!(matches!(Store::open(&link, MAX), Err(StoreError::NoFile(_))));
    let path = directory.path().join("state");
    let held = open(&path);
    assert!(matches!(Store::open(&path, MAX), Err(StoreError::InUse(_))));
    drop(held);
}

#[test]
fn the_file_does_not_grow_with_what_was_once_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let (mut store, _) = open(&path);
    // Half of what the file may have, as the core is told; all of it new with every write.
    let entries = MAX / 2 / 116;
    let mut largest = 0;
    for round in 0..20_u64 {
        let changes: Vec<Change> = (0..entries)
            .flat_map(|number| {
                let old = (round > 0).then(|| change(Table::Accesses, (round - 1) * entries + number, None));
                let new = change(Table::Accesses, round * entries + number, Some(&[7; 100]));
                [old, Some(new)].into_iter().flatten()
            })
            .collect();
        store.write(&changes, false).unwrap();
        store.shrink().unwrap();
        largest = largest.max(store.bytes().unwrap());
    }
    assert!(store.shrink().unwrap(), "{} bytes", store.bytes().unwrap());
    println!("{entries} entries, at most {largest} bytes of {MAX}");
}

#[test]
fn the_keeper_writes_what_it_is_given_and_says_what_it_cannot() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let mut keeper = Keeper::start(path.clone(), MAX).unwrap();
    assert_eq!(keeper.found(LONG), (Vec::new(), false));
    assert_eq!(keeper.wish(), Some(Wish { anew: true, sign_of_life: true }));
    keeper.write(vec![change(Table::Cases, 1, Some(b"a"))]);
    assert!(keeper.settle(LONG));
    assert_eq!(keeper.wish(), Some(Wish { anew: false, sign_of_life: false }));
    assert_eq!((keeper.problem(), keeper.failures()), (None, 0));
    let mut second = Keeper::start(path.clone(), MAX).unwrap();
    assert_eq!(second.found(LONG), (Vec::new(), false));
    assert_eq!((second.problem(), second.wish()), (Some(NO_FILE), None));
    drop((keeper, second));
    // The thread lets go of the file a moment after its keeper.
    let deadline = Instant::now() + LONG;
    let found = loop {
        let mut third = Keeper::start(path.clone(), MAX).unwrap();
        let (left, _) = third.found(LONG);
        if third.problem().is_none() || Instant::now() > deadline {
            break left;
        }
    };
    assert_eq!(found, [(Table::Cases.code(), 1, b"a".to_vec())]);
}
