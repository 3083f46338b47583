//! Rules on small stories of other clusters than those of the fixtures.

use std::fmt::Write as _;

use super::*;
use crate::allow_list::{AllowEntry, AllowList, Schedule, Target};
use crate::fact::Service;

mod out_of_place;
mod unusual;

/// Somebody with a credential, somewhere.
#[derive(Clone, Debug)]
struct Who {
    user: String,
    extra: String,
    source: String,
}

impl Who {
    fn new(user: &str, source: &str) -> Self {
        Self { user: user.to_owned(), extra: String::new(), source: format!("\"{source}\"") }
    }

    fn with(mut self, key: &str, value: &str) -> Self {
        let comma = if self.extra.is_empty() { "" } else { "," };
        write!(self.extra, r#"{comma}"authentication.kubernetes.io/{key}":["{value}"]"#).expect("memory");
        self
    }

    fn at(mut self, source: &str) -> Self {
        self.source = format!("\"{source}\"");
        self
    }

    /// A person with a client certificate.
    fn person(name: &str, source: &str) -> Self {
        Self::new(name, source).with("credential-id", &format!("X509SHA256={name}"))
    }

    /// The kubelet of a node.
    fn kubelet(node: &str, source: &str) -> Self {
        Self::new(&format!("system:node:{node}"), source).with("credential-id", &format!("X509SHA256={node}"))
    }

    /// A pod with a token that says everything of itself.
    fn pod(account: &str, pod: &str, node: &str, source: &str) -> Self {
        let (namespace, name) = account.split_once('/').expect("namespace/name");
        Self::new(&format!("system:serviceaccount:{namespace}:{name}"), source)
            .with("credential-id", &format!("JTI={pod}"))
            .with("pod-name", pod)
            .with("pod-uid", &format!("uid-{pod}"))
            .with("node-name", node)
    }
}

/// An API server that writes its audit log into an auditor.
struct Cluster {
    auditor: Auditor,
    second: u64,
    number: u64,
}

impl Cluster {
    fn new(policy: AuditPolicy) -> Self {
        Self { auditor: Auditor::new(policy, DiscoveryLimits::default()), second: 0, number: 0 }
    }

    /// Two nodes, a pod network, and an office that is expected.
    fn configured() -> Self {
        let networks =
            |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a network")).collect::<Vec<_>>();
        let nodes = vec![
            ("red".into(), networks(&["172.16.5.1"])),
            ("blue".into(), networks(&["172.16.5.2", "fd00:5::2"])),
        ];
        let office = AllowEntry {
            name: "office".into(),
            from: crate::allow_list::Source {
                networks: networks(&["192.168.40.0/24"]),
                ..Default::default()
            },
            to: Target { services: vec![Service::KubeApiserver], ports: Vec::new() },
            when: Schedule::default(),
            until_unix_ns: None,
        };
        Self::new(AuditPolicy {
            allow: AllowList { entries: vec![office], ..AllowList::default() },
            nodes,
            pods: networks(&["100.64.0.0/10"]),
            networks: networks(&["172.16.5.0/24", "fd00:5::/64", "100.64.0.0/10", "192.168.0.0/16"]),
            trusted_proxies: networks(&["172.16.5.250"]),
        })
    }

    /// Nobody said anything.
    fn unknown() -> Self {
        Self::new(AuditPolicy::default())
    }

    fn wait(&mut self, secs: u64) {
        self.second += secs;
    }

    /// One request; `what` is `verb resource[/subresource] [namespace[/name]]`, or `verb /path`. Names of the signals.
    fn ask(&mut self, who: &Who, what: &str, code: u16) -> Vec<&'static str> {
        self.ask_with(who, what, code, "")
    }

    /// The same with further keys of the event.
    fn ask_with(&mut self, who: &Who, what: &str, code: u16, more: &str) -> Vec<&'static str> {
        self.number += 1;
        self.second += 1;
        let line = line(who, what, code, more, self.number, self.second);
        self.auditor.handle_line(line.as_bytes()).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.signals().iter().map(|signal| signal.name.name()).collect()
    }

    fn signals(&mut self) -> Vec<Signal> {
        let mut signals = Vec::new();
        while let Some(output) = self.auditor.next_output() {
            if let AuditOutput::Signal(signal) = output {
                signals.push(signal);
            }
        }
        signals
    }

    /// The same request again and again, which signals nothing.
    fn routine(&mut self, who: &Who, what: &str, times: u64) {
        for _ in 0..times {
            assert_eq!(self.ask(who, what, 200), NOTHING, "{who:?} {what}");
            self.wait(20);
        }
    }
}

const NOTHING: [&str; 0] = [];

fn line(who: &Who, what: &str, code: u16, more: &str, number: u64, second: u64) -> String {
    let (verb, target) = what.split_once(' ').expect("a verb");
    let (day, time) = (1 + second / 86_400, second % 86_400);
    let at = format!("2031-07-{day:02}T{:02}:{:02}:{:02}.5Z", time / 3600, time / 60 % 60, time % 60);
    let (uri, object) = if target.starts_with('/') {
        (target.to_owned(), String::new())
    } else {
        let (resource, place) = target.split_once(' ').unwrap_or((target, ""));
        let (resource, query) = resource.split_once('?').unwrap_or((resource, ""));
        let (resource, rest) = resource.split_once('/').unwrap_or((resource, ""));
        let (subresource, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (namespace, name) = place.split_once('/').unwrap_or((place, ""));
        let keys =
            [("resource", resource), ("subresource", subresource), ("namespace", namespace), ("name", name)];
        let keys = keys
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| format!(r#""{key}":"{value}""#));
        let object = format!(r#""objectRef":{{{}}},"#, keys.collect::<Vec<_>>().join(","));
        (format!("/api/v1/{resource}/{subresource}/{path}?{query}"), object)
    };
    format!(
        r#"{{"auditID":"{number}","stage":"ResponseComplete","requestURI":"{uri}","verb":"{verb}",{object}{more}
        "user":{{"username":"{}","extra":{{{}}}}},"sourceIPs":[{}],"responseStatus":{{"code":{code}}},
        "requestReceivedTimestamp":"{at}"}}"#,
        who.user, who.extra, who.source
    )
}

#[test]
fn events_of_one_request_are_one_output() {
    let mut cluster = Cluster::configured();
    let who = Who::person("eva", "192.168.40.9");
    let line = line(&who, "get pods x/y", 200, "", 1, 1);
    for stage in ["RequestReceived", "ResponseStarted", "ResponseComplete", "ResponseComplete"] {
        cluster.auditor.handle_line(line.replace("ResponseComplete", stage).as_bytes()).expect("an event");
    }
    let Some(AuditOutput::Request(request, entry)) = cluster.auditor.next_output() else {
        panic!("no request")
    };
    assert_eq!((&*request.user, entry.as_deref()), ("eva", Some("office")));
    assert_eq!(cluster.auditor.next_output(), None);
    let counts = cluster.auditor.counts();
    assert_eq!((counts.events, counts.requests, counts.folded), (4, 1, 3));
}

#[test]
fn malformed_lines_are_counted_and_change_nothing() {
    let mut cluster = Cluster::configured();
    assert!(cluster.auditor.handle_line(b"{]").is_err());
    assert_eq!(cluster.auditor.next_output(), None);
    assert_eq!(
        cluster.ask(&Who::kubelet("red", "172.16.5.2"), "get nodes red", 200),
        ["node-credential-elsewhere"]
    );
    assert_eq!(cluster.auditor.counts().malformed, 1);
}

#[test]
fn what_is_told_is_not_told_again_for_a_while() {
    let mut cluster = Cluster::configured();
    let thief = Who::pod("shop/web", "web-0", "red", "198.18.0.9");
    assert_eq!(cluster.ask(&thief, "list pods shop", 200), ["bound-token-elsewhere"]);
    assert_eq!(cluster.ask(&thief, "list pods shop", 200), NOTHING);
    assert_eq!(
        cluster.ask(&thief.clone().at("198.18.0.10"), "list pods shop", 200),
        ["bound-token-elsewhere"]
    );
    cluster.wait(601);
    assert_eq!(cluster.ask(&thief, "list pods shop", 200), ["bound-token-elsewhere"]);
}

#[test]
fn names_of_signals_are_different_and_have_texts() {
    let mut names: Vec<_> = SignalName::ALL.iter().map(|name| name.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), SignalName::ALL.len());
    assert!(SignalName::ALL.iter().all(|name| !name.means().is_empty() && !name.blind().is_empty()));
}
