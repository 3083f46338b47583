//! The audit policy in deploy: it hides nothing that is told, and says what it is for.

use std::collections::BTreeSet;
use std::path::Path;

use sensor_core::audit::{Auditor, DiscoveryLimits, SignalName};
use serde::Deserialize;
use serde_json::Value;

use super::{Knowledge, malicious, read, scenarios, truth};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Policy {
    api_version: String,
    kind: String,
    omit_stages: Vec<String>,
    rules: Vec<Rule>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    urls: Vec<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resources {
    group: String,
    resources: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Rule {
    /// As the API server decides it.
    fn fits(&self, event: &Value) -> bool {
        let user = &event["user"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let any = |wanted: &[String], has: &str| wanted.is_empty() || wanted.iter().any(|one| one == has);
        let groups: Vec<String> =
            user["groups"].as_array().map_or(Vec::new(), |all| all.iter().map(text).collect());
        let in_group =
            self.user_groups.is_empty() || self.user_groups.iter().any(|group| groups.contains(group));
        any(&self.users, &text(&user["username"]))
            && in_group
            && any(&self.verbs, &text(&event["verb"]))
            && self.fits_object(event)
    }

    fn fits_object(&self, event: &Value) -> bool {
        let object = &event["objectRef"];
        let text = |key: &str| object[key].as_str().unwrap_or_default();
        if object["resource"].is_null() {
            let path = event["requestURI"].as_str().unwrap_or_default().split('?').next().unwrap_or_default();
            let fits =
                |url: &String| url.strip_suffix('*').map_or(path == url, |begin| path.starts_with(begin));
            return self.resources.is_empty()
                && self.namespaces.is_empty()
                && (self.urls.is_empty() || self.urls.iter().any(fits));
        }
        let resource = match text("subresource") {
            "" => text("resource").to_owned(),
            subresource => format!("{}/{subresource}", text("resource")),
        };
        let named = |one: &Resources| one.group == text("apiGroup") && one.resources.contains(&resource);
        self.urls.is_empty()
            && (self.resources.is_empty() || self.resources.iter().any(named))
            && (self.namespaces.is_empty() || self.namespaces.iter().any(|one| one == text("namespace")))
    }
}

impl Policy {
    /// The event as it would have been written, if at all. A body that the fixture lacks stays absent.
    fn applied(&self, line: &[u8]) -> Option<Vec<u8>> {
        let mut event: Value = serde_json::from_slice(line).expect("an event");
        let level = self.rules.iter().find(|rule| rule.fits(&event)).map_or(Level::None, |rule| rule.level);
        let is_omitted = self.omit_stages.iter().any(|stage| event["stage"] == **stage);
        if level == Level::None || is_omitted {
            return None;
        }
        let keys = event.as_object_mut().expect("an object");
        if level < Level::RequestResponse {
            keys.remove("responseObject");
        }
        if level < Level::Request {
            keys.remove("requestObject");
        }
        Some(serde_json::to_vec(&event).expect("it can be written"))
    }

    /// What is told of a log as it would have been written, of those that point at the intruder.
    fn told(&self, name: &str) -> BTreeSet<(&'static str, String)> {
        let malicious = malicious(&truth(name));
        let mut auditor = Auditor::new(Knowledge::Told.policy(), DiscoveryLimits::default());
        let mut told = BTreeSet::new();
        for line in read(name).split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let Some(line) = self.applied(line) else { continue };
            auditor.handle_line(&line).expect("an event");
            told.extend(
                super::signals(&mut auditor).map(|signal| (signal.name.name(), signal.audit_id.to_string())),
            );
        }
        told.retain(|(_, id)| malicious.contains(id));
        told
    }
}

fn text() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/audit-policy.yaml");
    std::fs::read_to_string(path).expect("the policy is there")
}

fn policy() -> Policy {
    serde_saphyr::from_str(&text()).expect("a policy")
}

/// The signals that each rule says it is for, in the order of the rules; those that log nothing are for none.
fn purposes() -> Vec<BTreeSet<String>> {
    let mut purposes = Vec::new();
    let mut next = BTreeSet::new();
    for line in text().lines() {
        if let Some(names) = line.trim().strip_prefix("# for: ") {
            next.extend(names.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()));
        } else if line.trim_start().starts_with("- level:") {
            purposes.push(std::mem::take(&mut next));
        }
    }
    purposes
}

#[test]
fn every_signal_names_the_rules_that_it_needs() {
    let policy = policy();
    assert_eq!((&*policy.api_version, &*policy.kind), ("audit.k8s.io/v1", "Policy"));
    let purposes = purposes();
    assert_eq!(purposes.len(), policy.rules.len());
    let all: BTreeSet<String> = SignalName::ALL.iter().map(|signal| signal.name().to_owned()).collect();
    let named: BTreeSet<String> = purposes.iter().flatten().cloned().collect();
    assert_eq!(named, all, "each signal needs a rule, and no rule is for another");
    for (rule, purpose) in policy.rules.iter().zip(&purposes) {
        assert_eq!(rule.level == Level::None, purpose.is_empty(), "what logs is for something");
    }
}

#[test]
fn bodies_of_secrets_config_maps_and_tokens_are_in_no_rule() {
    for rule in policy().rules.iter().filter(|rule| rule.level > Level::Metadata) {
        assert!(!rule.resources.is_empty() && !rule.verbs.is_empty(), "bodies of what is named only");
        for resource in rule.resources.iter().flat_map(|one| &one.resources) {
            let is_secret =
                ["secrets", "configmaps", "serviceaccounts/token", "tokenreviews"].contains(&&**resource);
            assert!(!is_secret, "{resource}");
        }
    }
}

#[test]
fn nothing_that_is_told_of_the_attacks_is_hidden() {
    let whole = Policy {
        rules: vec![Rule { level: Level::RequestResponse, ..policy().rules.pop().expect("a rule") }],
        ..policy()
    };
    let policy = policy();
    for name in scenarios() {
        assert_eq!(policy.told(&name), whole.told(&name), "{name}");
    }
}

/// Without a rule for bodies the fixtures that have them lose no signal but those that the rule is for.
#[test]
fn a_rule_for_bodies_that_is_taken_away_blinds_what_it_says() {
    let purposes = purposes();
    let mut blinded = BTreeSet::new();
    for (index, rule) in policy().rules.iter().enumerate().filter(|(_, rule)| rule.level > Level::Metadata) {
        let mut without = policy();
        without.rules.remove(index);
        for name in scenarios().into_iter().filter(|name| name.starts_with("rr-")) {
            let left = without.told(&name);
            for (signal, id) in policy().told(&name).difference(&left) {
                assert!(purposes[index].contains(*signal), "{name}: {signal} of {id} by {:?}", rule.level);
                blinded.insert(*signal);
            }
        }
    }
    assert_eq!(blinded, BTreeSet::from(BLINDED));
}

/// What the fixtures show to be in bodies only.
const BLINDED: [&str; 3] = ["anonymous-bound", "certificate-for-admin", "kubelet-review"];

/// What is left out is what the rules say, and nothing beside it.
#[test]
fn heartbeats_and_probes_are_left_out_and_what_is_like_them_is_not() {
    const LEASE: (&str, &str) = ("leases", "coordination.k8s.io");
    let event = |user: &str, group: &str, verb: &str, (resource, api): (&str, &str), place: &str| {
        serde_json::json!({
            "stage": "ResponseComplete", "verb": verb, "user": {"username": user, "groups": [group]},
            "requestURI": "/apis/x", "objectRef": {"resource": resource, "apiGroup": api, "namespace": place},
        })
    };
    let path = |uri: &str| serde_json::json!({"stage": "ResponseComplete", "verb": "get", "requestURI": uri});
    let node = ("system:node:a", "system:nodes");
    let scheduler = ("system:kube-scheduler", "system:authenticated");
    for (event, is_kept) in [
        (event(node.0, node.1, "update", LEASE, "kube-node-lease"), false),
        (event(node.0, node.1, "list", LEASE, "kube-node-lease"), true),
        (event(node.0, node.1, "update", LEASE, "kube-system"), true),
        (event("someone", "system:authenticated", "update", LEASE, "kube-node-lease"), true),
        (event(scheduler.0, scheduler.1, "update", LEASE, "kube-system"), false),
        (event(scheduler.0, scheduler.1, "get", ("secrets", ""), "kube-system"), true),
        (event("someone", "system:authenticated", "create", ("events", "events.k8s.io"), "x"), false),
        (event("someone", "system:authenticated", "list", ("events", ""), "x"), true),
        (path("/readyz?verbose"), false),
        (path("/version"), true),
        (path("/api"), true),
    ] {
        let kept = policy().applied(event.to_string().as_bytes()).is_some();
        assert_eq!(kept, is_kept, "{event}");
    }
    let mut early = path("/api");
    early["stage"] = "RequestReceived".into();
    assert_eq!(policy().applied(early.to_string().as_bytes()), None);
}
