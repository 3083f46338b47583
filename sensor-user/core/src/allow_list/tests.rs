//! Tests of [`super`].

use super::*;

fn networks(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|text| text.parse().expect("network")).collect()
}

fn entry(name: &str, from: Source, to: Target) -> AllowEntry {
    AllowEntry { name: name.into(), from, to, when: Schedule::default(), until_unix_ns: None }
}

fn from(texts: &[&str]) -> Source {
    Source { networks: networks(texts), ..Source::default() }
}

fn judge(list: &AllowList, peer: &str, service: Service, port: u16) -> Option<String> {
    judge_at(list, peer, service, port, 0)
}

fn judge_at(list: &AllowList, peer: &str, service: Service, port: u16, unix_ns: u64) -> Option<String> {
    let at = Timestamp { unix_ns, ..Timestamp::default() };
    match list.judge(&Access {
        peer: peer.parse().expect("address"),
        service,
        port,
        at,
        shown: Shown::default(),
    }) {
        Verdict::Listed(name) => Some(name.to_string()),
        Verdict::Unlisted => None,
    }
}

#[test]
fn first_entry_that_speaks_of_peer_and_endpoint_decides() {
    let services = |services: &[Service]| Target { services: services.to_vec(), ports: Vec::new() };
    let list = AllowList {
        entries: vec![
            entry("kubelet-only", from(&["10.0.0.0/8"]), services(&[Service::Kubelet])),
            entry("first", from(&["10.1.0.0/16"]), Target::default()),
            entry("second", from(&["10.0.0.0/8"]), Target::default()),
        ],
        ..AllowList::default()
    };
    assert_eq!(judge(&list, "10.1.0.1", Service::Docker, 2375).as_deref(), Some("first"));
    assert_eq!(judge(&list, "10.2.0.1", Service::Docker, 2375).as_deref(), Some("second"));
    assert_eq!(judge(&list, "10.1.0.1", Service::Kubelet, 10250).as_deref(), Some("kubelet-only"));
    assert_eq!(judge(&list, "11.0.0.1", Service::Docker, 2375), None);
}

#[test]
fn exception_takes_out_whatever_matched() {
    let source = Source {
        networks: networks(&["10.0.0.0/8"]),
        except: networks(&["10.9.0.0/16", "127.0.0.1/32", "fd00::5/128"]),
        nodes: true,
        local: true,
        shows: Shows::default(),
        actor: Actor::default(),
    };
    let list = AllowList {
        entries: vec![entry("a", source, Target::default())],
        nodes: networks(&["10.9.0.1/32", "fd00::5/128", "fd00::6/128"]),
        local: vec!["10.9.0.2".parse().expect("address")],
    };
    for (peer, listed) in [
        ("10.8.0.1", true),
        ("10.9.0.1", false),
        ("10.9.0.2", false),
        ("127.0.0.1", false),
        ("127.0.0.2", true),
        ("fd00::5", false),
        ("fd00::6", true),
    ] {
        assert_eq!(judge(&list, peer, Service::Docker, 1).is_some(), listed, "{peer}");
    }
}

#[test]
fn services_and_ports_add_up() {
    let to = Target { services: vec![Service::Docker], ports: vec![8443] };
    let list = AllowList { entries: vec![entry("a", from(&["0.0.0.0/0"]), to)], ..AllowList::default() };
    assert!(judge(&list, "1.1.1.1", Service::Docker, 2375).is_some());
    assert!(judge(&list, "1.1.1.1", Service::Other, 8443).is_some());
    assert!(judge(&list, "1.1.1.1", Service::Kubelet, 10250).is_none());
}

#[test]
fn local_is_loopback_and_the_nodes_own_addresses() {
    let source = Source { local: true, ..Source::default() };
    let list = AllowList {
        entries: vec![entry(IMPLIED_LOCAL, source, Target::default())],
        local: vec!["10.0.0.1".parse().expect("address"), "fd00::1".parse().expect("address")],
        ..AllowList::default()
    };
    for (peer, listed) in [
        ("127.0.0.1", true),
        ("127.8.8.8", true),
        ("::1", true),
        ("::ffff:127.0.0.1", true),
        ("10.0.0.1", true),
        ("::ffff:10.0.0.1", true),
        ("fd00::1", true),
        ("10.0.0.2", false),
        ("fe80::1", false),
    ] {
        assert_eq!(judge(&list, peer, Service::Docker, 1).is_some(), listed, "{peer}");
    }
}

#[test]
fn mapped_networks_are_the_ipv4_networks_they_spell() {
    for (network, peer, listed) in [
        ("::ffff:10.0.0.0/104", "10.1.2.3", true),
        ("::ffff:10.0.0.0/104", "::ffff:10.1.2.3", true),
        ("::ffff:10.0.0.0/104", "11.1.2.3", false),
        ("::/0", "10.1.2.3", false),
        ("0.0.0.0/0", "2001:db8::1", false),
        ("2001:db8::/32", "2001:db8::1", true),
    ] {
        let list = AllowList {
            entries: vec![entry("a", from(&[network]), Target::default())],
            ..AllowList::default()
        };
        assert_eq!(judge(&list, peer, Service::Docker, 1).is_some(), listed, "{network} {peer}");
    }
}

#[test]
fn empty_list_lists_nobody() {
    assert_eq!(judge(&AllowList::default(), "127.0.0.1", Service::Docker, 2375), None);
}

#[test]
fn an_entry_holds_until_it_expires_and_in_its_window() {
    let always = entry("always", from(&["10.0.0.0/8"]), Target::default());
    let window = Schedule { window_unix_ns: 3..5, ..Schedule::default() };
    let maintenance = AllowEntry { name: "maintenance".into(), when: window, ..always.clone() };
    let expiring = AllowEntry { name: "expiring".into(), until_unix_ns: Some(7), ..always.clone() };
    let list = AllowList { entries: vec![maintenance, expiring, always], ..AllowList::default() };
    for (unix_ns, decides) in
        [(2, "expiring"), (3, "maintenance"), (5, "expiring"), (6, "expiring"), (7, "always")]
    {
        assert_eq!(
            judge_at(&list, "10.0.0.1", Service::Docker, 1, unix_ns).as_deref(),
            Some(decides),
            "{unix_ns}"
        );
    }
}
