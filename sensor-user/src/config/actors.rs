//! Entries of the allow-list about containers of the node: what they cannot say, and what they say too easily.

use super::allow::AllowSection;
use super::problem::Severity;
use super::validate::Finding;
use super::values::{AnyOr, At};
use sensor_core::allow_list::Act;

const FROM: &str = "allow.from";
const TO: &str = "allow.to";

/// Whether an entry is about containers.
#[must_use]
pub fn is_about(entry: &AllowSection) -> bool {
    let from = &entry.from.value;
    !(from.image.is_empty() && from.namespace.is_empty() && from.container.is_empty())
}

/// What such an entry cannot mean.
#[must_use]
pub fn validate(entry: &AllowSection) -> Vec<Finding> {
    let (from, to) = (&entry.from.value, &entry.to.value);
    let mut findings = Vec::new();
    let mut error = |key, position, message: &str| {
        let message = message.to_owned();
        findings.push(Finding { severity: Severity::Error, position, key, message });
    };
    let has_peers = !(from.cidr.is_empty() && from.except.is_empty() && from.networks.is_empty());
    let has_shows = !(from.fingerprint.is_empty() && from.tool.is_empty());
    if has_peers || has_shows || from.nodes || from.local {
        let message = "what runs at the other end of a connection is not known here; make two entries, of peers and of containers";
        error(FROM, entry.from.position, message);
    }
    if !(to.services.is_empty() && to.ports.is_empty() && to.classes.is_empty()) {
        let message = "an entry about containers speaks of what they do on this node; write acts instead of services, ports and classes";
        error(TO, entry.to.position, message);
    } else if to.acts.is_empty() {
        error(TO, entry.to.position, "the entry names no acts; add some, or write `acts: [any]`");
    }
    if let Some(start) = to.acts.iter().find(|act| act.value == AnyOr::One(Act::Start))
        && from.namespace.is_empty()
    {
        let message =
            "names are chosen by whoever starts a container, so that they excuse no start; add a namespace";
        error(TO, start.position, message);
    }
    for (texts, problem) in [
        (&from.image, image_problem as fn(&str) -> Option<&'static str>),
        (&from.namespace, namespace_problem),
        (&from.container, container_problem),
    ] {
        for text in texts {
            if let Some(problem) = problem(&text.value) {
                error(FROM, text.position, &format!("{:?} {problem}", text.value));
            }
        }
    }
    findings
}

/// What such an entry says too easily.
#[must_use]
pub fn over_broad(entry: &AllowSection) -> Option<Finding> {
    let from = &entry.from.value;
    let (at, problem): (&At<String>, _) = match (&*from.namespace, &*from.image, &*from.container) {
        ([first, ..], [], []) => {
            (first, "every container in a namespace, also those that are put there; name images")
        }
        ([], [first, ..], _) | ([], [], [first, ..]) => (
            first,
            "containers by names alone, which whoever may start one can choose; add a namespace where there is one",
        ),
        _ => return None,
    };
    let message = format!("the entry {:?} expects {problem}", entry.name.value);
    Some(Finding { severity: Severity::Warning, position: at.position, key: FROM, message })
}

fn image_problem(text: &str) -> Option<&'static str> {
    if text.contains('*') {
        return Some(
            "has a wildcard, and images are compared as they are; write the repository without a tag for any of its images",
        );
    }
    let is_text =
        (1..=4096).contains(&text.len()) && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    // An id without a name.
    let is_named = !text.starts_with("sha256:") && !text.starts_with('@');
    (!is_text || !is_named)
        .then_some("is no reference to an image; write one, as in \"quay.io/cilium/cilium:v1.16.1\"")
}

fn namespace_problem(text: &str) -> Option<&'static str> {
    let is_name = (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    (!is_name).then_some("is no namespace; write 1 to 63 lower-case letters, digits and hyphens")
}

fn container_problem(text: &str) -> Option<&'static str> {
    let is_name = (1..=253).contains(&text.len()) && !text.contains(|c: char| c.is_control() || c == '*');
    (!is_name).then_some("is no name of a container; write it as the runtime has it")
}
