//! Tests of [`super`].

use super::*;
use crate::allow_list::Schedule;
use crate::fact::Service;

fn networks(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|text| text.parse().expect("network")).collect()
}

fn entry(from: Source) -> AllowEntry {
    AllowEntry {
        name: "".into(),
        from,
        to: Target::default(),
        when: Schedule::default(),
        until_unix_ns: None,
    }
}

fn from(texts: &[&str], except: &[&str]) -> Source {
    Source { networks: networks(texts), except: networks(except), ..Source::default() }
}

/// The later entries that are shadowed, each with those that do it.
fn shadowed(entries: impl IntoIterator<Item = AllowEntry>) -> Vec<(usize, Vec<usize>)> {
    let nodes = networks(&["10.0.0.11/32", "fd00::12/128"]);
    let list = AllowList { entries: entries.into_iter().collect(), nodes, ..AllowList::default() };
    list.shadowed().into_iter().map(|shadowed| (shadowed.entry, shadowed.by)).collect()
}

#[test]
fn networks_are_compared_as_sets() {
    for (earlier, except, later, is_shadowed) in [
        (&["10.0.0.0/8"][..], &[][..], "10.1.0.0/16", true),
        (&["10.0.0.0/9", "10.128.0.0/9"], &[], "10.0.0.0/8", true),
        (&["10.0.0.0/9", "10.128.0.0/10"], &[], "10.0.0.0/8", false),
        (&["10.0.0.0/8"], &["10.1.2.3/32"], "10.1.0.0/16", false),
        (&["10.0.0.0/8"], &["10.2.0.0/16", "11.0.0.0/8"], "10.1.0.0/16", true),
        (&["10.0.0.0/8"], &["10.0.0.0/16", "10.255.255.255/32"], "10.1.0.0/16", true),
        (&["0.0.0.0/0"], &[], "0.0.0.0/0", true),
        (&["::/0"], &[], "fd00::/8", true),
        (&["::/0"], &[], "10.0.0.0/8", false),
        (&["::/0", "0.0.0.0/0"], &[], "::/0", true),
        (&["::ffff:10.0.0.0/104"], &[], "10.1.0.0/16", true),
        (&["10.1.0.0/16"], &[], "10.0.0.0/8", false),
    ] {
        let found = shadowed([entry(from(earlier, except)), entry(from(&[later], &[]))]);
        assert_eq!(!found.is_empty(), is_shadowed, "{earlier:?} without {except:?} before {later}");
    }
}

#[test]
fn several_entries_together_may_be_needed() {
    let entries = [
        entry(from(&["10.0.0.0/9"], &[])),
        entry(from(&["192.168.0.0/16"], &[])),
        entry(from(&["10.128.0.0/9"], &[])),
        entry(from(&["10.0.0.0/8"], &["10.9.9.9/32"])),
    ];
    assert_eq!(shadowed(entries), [(3, vec![0, 2])]);
}

#[test]
fn nodes_are_their_addresses_and_local_is_itself() {
    let nodes = || Source { nodes: true, ..Source::default() };
    let local = || Source { local: true, ..Source::default() };
    assert_eq!(shadowed([entry(from(&["10.0.0.0/8", "fd00::/8"], &[])), entry(nodes())]), [(1, vec![0])]);
    assert_eq!(shadowed([entry(from(&["10.0.0.0/8"], &[])), entry(nodes())]), []);
    assert_eq!(shadowed([entry(local()), entry(local())]), [(1, vec![0])]);
    assert_eq!(shadowed([entry(from(&["127.0.0.0/8"], &[])), entry(local())]), []);
    let without = |except: &[&str]| Source { except: networks(except), ..local() };
    assert_eq!(shadowed([entry(without(&["127.0.0.1/32"])), entry(local())]), []);
    assert_eq!(shadowed([entry(local()), entry(without(&["127.0.0.1/32"]))]), [(1, vec![0])]);
    let halves = [without(&["127.0.0.1/32"]), without(&["127.0.0.2/32"]), local()].map(entry);
    assert_eq!(shadowed(halves), [(2, vec![0, 1])]);
}

#[test]
fn an_earlier_entry_must_speak_of_all_endpoints() {
    let with = |services: &[Service], ports: &[u16]| AllowEntry {
        to: Target { services: services.to_vec(), ports: ports.to_vec() },
        ..entry(from(&["10.0.0.0/8"], &[]))
    };
    assert_eq!(
        shadowed([with(&[Service::Docker, Service::Kubelet], &[]), with(&[Service::Docker], &[])]).len(),
        1
    );
    assert_eq!(shadowed([with(&[Service::Docker], &[]), with(&[], &[])]), []);
    assert_eq!(shadowed([with(&[], &[]), with(&[], &[2375])]).len(), 1);
    assert_eq!(shadowed([with(&[Service::Docker], &[]), with(&[Service::Docker], &[2375])]), []);
}

#[test]
fn an_earlier_entry_must_hold_all_the_time() {
    let until = |until_unix_ns| AllowEntry { until_unix_ns, ..entry(from(&["10.0.0.0/8"], &[])) };
    assert_eq!(shadowed([until(Some(5)), until(None)]), []);
    assert_eq!(shadowed([until(Some(5)), until(Some(6))]), []);
    assert_eq!(shadowed([until(Some(6)), until(Some(5))]).len(), 1);
    let window =
        AllowEntry { when: Schedule { window_unix_ns: 5..10, ..Schedule::default() }, ..until(None) };
    assert_eq!(shadowed([window.clone(), until(None)]), []);
    assert_eq!(shadowed([until(None), window]).len(), 1);
}

#[test]
fn an_entry_that_speaks_of_nobody_is_not_shadowed() {
    let nobody = entry(from(&["10.0.0.0/8"], &["10.0.0.0/8"]));
    assert_eq!(shadowed([entry(from(&["0.0.0.0/0"], &[])), nobody]), []);
}
