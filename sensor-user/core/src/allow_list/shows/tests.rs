//! Tests of [`super`].

use super::*;
use crate::allow_list::{Access, AllowEntry, AllowList, Schedule, Source, Target};
use crate::fact::{ApiRequest, Protocol, Service, TlsHello, Verdict};
use crate::time::Timestamp;

const JA4: &str = "t13d1516h2_8daaf6152771_e5627efa2ab1";

fn texts(texts: &[&str]) -> Vec<Arc<str>> {
    texts.iter().map(|text| Arc::from(*text)).collect()
}

fn entry(name: &str, shows: Shows) -> AllowEntry {
    let networks = vec!["10.20.0.0/16".parse().expect("a network")];
    AllowEntry {
        name: name.into(),
        from: Source { networks, shows, ..Source::default() },
        to: Target::default(),
        when: Schedule::default(),
        until_unix_ns: None,
    }
}

fn is_listed(shows: &Shows, peer: &str, kind: &FactKind) -> bool {
    let list = AllowList { entries: vec![entry("a", shows.clone())], ..AllowList::default() };
    let peer = peer.parse().expect("an address");
    let (at, shown) = (Timestamp::default(), Shown::by(kind));
    list.judge(&Access { peer, service: Service::Docker, port: 2375, at, shown }) != Verdict::Unlisted
}

fn accept() -> FactKind {
    FactKind::Accept { task: None, client: None, late: false }
}

fn request(class: ApiClass, user_agent: &str) -> FactKind {
    let api = ApiRequest { user_agent: Some(user_agent.into()), ..ApiRequest::of_class(class) };
    FactKind::ApiRequest(Box::new(api))
}

fn hello(ja4: Option<&str>) -> FactKind {
    FactKind::TlsHello(Arc::new(TlsHello {
        sni: None,
        alpn: Arc::from([]),
        versions: Arc::from([]),
        ja4: ja4.map(Arc::from),
        flaw: None,
        stack: None,
    }))
}

#[test]
fn each_condition_narrows_and_never_lists_anybody_else() {
    let discovery = Shows { classes: vec![ApiClass::Probe, ApiClass::Discovery], ..Shows::default() };
    let client = Shows { fingerprints: texts(&[JA4]), ..Shows::default() };
    let tool = Shows { tools: texts(&["Docker-Client"]), ..Shows::default() };
    let both = Shows { tools: texts(&["Docker-Client"]), ..discovery.clone() };
    let ps = || request(ApiClass::Discovery, "Docker-Client/27.3.1 (linux)");
    let foreign = ApiRequest { protocol: Some(Protocol::Http2), ..ApiRequest::of_class(ApiClass::Discovery) };
    for (shows, kind, expected) in [
        (&discovery, ps(), true),
        (&discovery, request(ApiClass::Probe, "curl/8"), true),
        (&discovery, request(ApiClass::Create, "Docker-Client/27.3.1"), false),
        (&discovery, FactKind::ApiRequest(Box::new(foreign)), false),
        (&discovery, accept(), false),
        (&discovery, hello(Some(JA4)), false),
        (&client, hello(Some(JA4)), true),
        (&client, hello(Some("t13d1516h2_8daaf6152771_000000000000")), false),
        (&client, hello(None), false),
        (&client, accept(), false),
        (&client, ps(), false),
        (&tool, ps(), true),
        (&tool, request(ApiClass::Create, "Docker-Client"), true),
        (&tool, request(ApiClass::Create, "Docker-Client2/1"), false),
        (&tool, request(ApiClass::Create, "curl/8 Docker-Client/27"), false),
        (&tool, FactKind::ApiRequest(Box::new(ApiRequest::of_class(ApiClass::Create))), false),
        (&tool, accept(), false),
        (&both, ps(), true),
        (&both, request(ApiClass::Discovery, "curl/8"), false),
        (&both, request(ApiClass::Create, "Docker-Client/27.3.1"), false),
    ] {
        assert_eq!(is_listed(shows, "10.20.1.5", &kind), expected, "{shows:?} {kind:?}");
        assert!(!is_listed(shows, "198.18.0.9", &kind), "{shows:?} {kind:?}: whatever he shows");
    }
}

#[test]
fn an_entry_is_shadowed_by_one_that_asks_for_no_more_only() {
    let all = Shows::default();
    let read = Shows { classes: vec![ApiClass::Discovery], ..Shows::default() };
    let more = Shows { classes: vec![ApiClass::Probe, ApiClass::Discovery], ..Shows::default() };
    let tool = Shows { tools: texts(&["curl"]), ..read.clone() };
    for (earlier, later, expected) in [
        (&all, &read, true),
        (&read, &read, true),
        (&more, &read, true),
        (&read, &tool, true),
        (&read, &all, false),
        (&read, &more, false),
        (&tool, &read, false),
    ] {
        let entries = vec![entry("earlier", earlier.clone()), entry("later", later.clone())];
        let found = AllowList { entries, ..AllowList::default() }.shadowed();
        assert_eq!(found.iter().map(|shadowed| shadowed.entry).eq([1]), expected, "{earlier:?} {later:?}");
    }
}
