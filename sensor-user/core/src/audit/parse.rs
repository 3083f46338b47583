//! A line of the audit log to a request.
//!
//! The line is read in place: what is not documented here is passed over without being stored, lists and texts are
//! cut at their bounds, and memory is bounded by the line itself.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::body::{Body, BodyKind};
use super::json::{Few, Last, Str, is_object};
use super::request::{
    AuditRequest, Bound, COMMAND_MAX, Credential, CredentialKind, GROUPS_MAX, Impersonated, NAME_MAX, Object,
    Principal, QueryShape, SOURCES_MAX, Source, Stage, TEXT_MAX,
};
use super::uri;
use crate::text::Texts;

/// The version of the format that is read.
const API_VERSION: &str = "audit.k8s.io/v1";

/// Why a line is no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It is no JSON, has a key twice, or a value of the wrong type.
    #[error("{0}")]
    Json(String),
    /// It is of another version or kind.
    #[error("the version is {0:?}, this program reads {API_VERSION:?}")]
    Version(String),
    /// A time is not as Kubernetes writes it.
    #[error("{0:?} is no time")]
    Time(String),
    /// It has no id, so nothing could be told of it.
    #[error("the event has no auditID")]
    NoId,
}

/// One event of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Which of the request's events this is.
    pub stage: Stage,
    /// The request.
    pub request: AuditRequest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    #[serde(borrow)]
    api_version: Option<Str<'a>>,
    #[serde(borrow, rename = "auditID")]
    audit_id: Str<'a>,
    stage: Stage,
    #[serde(borrow, rename = "requestURI")]
    request_uri: Str<'a>,
    #[serde(borrow)]
    verb: Str<'a>,
    #[serde(borrow, default)]
    user: User<'a>,
    #[serde(borrow)]
    impersonated_user: Option<User<'a>>,
    #[serde(borrow, default, rename = "sourceIPs")]
    source_ips: Last<Str<'a>, SOURCES_MAX>,
    #[serde(borrow)]
    user_agent: Option<Str<'a>>,
    #[serde(borrow)]
    object_ref: Option<ObjectRef<'a>>,
    response_status: Option<Status>,
    #[serde(borrow)]
    request_object: Option<&'a RawValue>,
    #[serde(borrow)]
    response_object: Option<&'a RawValue>,
    #[serde(borrow)]
    request_received_timestamp: Str<'a>,
    #[serde(borrow, default)]
    annotations: Option<Annotations<'a>>,
}

#[derive(Default, Deserialize)]
struct User<'a> {
    #[serde(borrow)]
    username: Option<Str<'a>>,
    #[serde(borrow, default)]
    groups: Few<Str<'a>, GROUPS_MAX>,
    #[serde(borrow)]
    extra: Option<Extra<'a>>,
}

/// Every value is a list of one string.
#[derive(Deserialize)]
struct Extra<'a> {
    #[serde(borrow, default, rename = "authentication.kubernetes.io/credential-id")]
    credential_id: Few<Str<'a>, 1>,
    #[serde(borrow, default, rename = "authentication.kubernetes.io/pod-name")]
    pod_name: Few<Str<'a>, 1>,
    #[serde(borrow, default, rename = "authentication.kubernetes.io/pod-uid")]
    pod_uid: Few<Str<'a>, 1>,
    #[serde(borrow, default, rename = "authentication.kubernetes.io/node-name")]
    node_name: Few<Str<'a>, 1>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef<'a> {
    #[serde(borrow)]
    api_group: Option<Str<'a>>,
    #[serde(borrow)]
    resource: Option<Str<'a>>,
    #[serde(borrow)]
    subresource: Option<Str<'a>>,
    #[serde(borrow)]
    namespace: Option<Str<'a>>,
    #[serde(borrow)]
    name: Option<Str<'a>>,
    #[serde(borrow)]
    uid: Option<Str<'a>>,
}

#[derive(Deserialize)]
struct Status {
    code: Option<u16>,
}

#[derive(Deserialize)]
struct Annotations<'a> {
    #[serde(borrow, rename = "authorization.k8s.io/decision")]
    decision: Option<Str<'a>>,
    #[serde(borrow, rename = "authentication.kubernetes.io/issued-credential-id")]
    issued: Option<Str<'a>>,
    #[serde(borrow, rename = "pod-security.kubernetes.io/audit-violations")]
    violations: Option<Str<'a>>,
}

/// Reads lines; keeps nothing between them but texts that repeat.
#[derive(Clone, Debug, Default)]
pub struct Parser {
    texts: Texts,
    /// A text or list of the event at hand was cut.
    cut: bool,
}

impl Parser {
    /// Reads one line.
    ///
    /// # Errors
    /// Why it is no event.
    pub fn parse(&mut self, line: &[u8]) -> Result<Parsed, ParseError> {
        if !is_object(line) {
            return Err(ParseError::Json("not a JSON object".to_owned()));
        }
        let event: Event<'_> =
            serde_json::from_slice(line).map_err(|error| ParseError::Json(error.to_string()))?;
        if let Some(version) = event.api_version.as_ref().filter(|version| version.0 != API_VERSION) {
            return Err(ParseError::Version(version.0[..version.0.floor_char_boundary(64)].to_owned()));
        }
        if event.audit_id.0.is_empty() {
            return Err(ParseError::NoId);
        }
        let written = &event.request_received_timestamp.0;
        let at_ns = unix_ns(written)
            .ok_or_else(|| ParseError::Time(written[..written.floor_char_boundary(64)].to_owned()))?;
        self.cut = false;
        Ok(self.reduce(at_ns, event))
    }

    fn reduce(&mut self, at_ns: u64, event: Event<'_>) -> Parsed {
        let stage = event.stage;
        let user = self.share(event.user.username.as_ref(), NAME_MAX);
        let principal = Principal::of(&user, |text| self.texts.share(text.as_bytes()));
        let (bound, credential) = self.credential(&event.user, &user, &principal);
        let groups = self.groups(&event.user.groups);
        let source = self.source(&event.source_ips);
        let object = event.object_ref.as_ref().map(|object| self.object(object));
        let (path, query) = event.request_uri.0.split_once('?').unwrap_or((&event.request_uri.0, ""));
        let annotations = event.annotations.as_ref();
        let allowed = match annotations.and_then(|all| all.decision.as_ref()).map(|decision| &*decision.0) {
            Some("allow") => Some(true),
            Some("forbid") => Some(false),
            _ => None,
        };
        let impersonated = event.impersonated_user.as_ref().map(|user| Impersonated {
            user: self.share(user.username.as_ref(), NAME_MAX),
            groups: self.groups(&user.groups),
        });
        let issued = annotations.and_then(|all| self.known(all.issued.as_ref(), NAME_MAX));
        let violations = annotations.and_then(|all| self.known(all.violations.as_ref(), TEXT_MAX));
        let body =
            object.as_ref().and_then(|object| body(object, event.response_object, event.request_object));
        let command = match object.as_ref().and_then(|object| object.subresource.as_deref()) {
            Some("exec") => self.command(query),
            _ => Vec::new(),
        };
        let request = AuditRequest {
            audit_id: self.text(&event.audit_id.0, NAME_MAX),
            at_ns,
            user,
            principal,
            groups,
            credential,
            bound,
            source,
            verb: self.text(&event.verb.0, NAME_MAX),
            path: self.text(path, TEXT_MAX),
            query: shape(query),
            command,
            object,
            code: event.response_status.and_then(|status| status.code),
            allowed,
            user_agent: self.known(event.user_agent.as_ref(), TEXT_MAX),
            impersonated,
            issued,
            violations,
            body,
            truncated: self.cut,
        };
        Parsed { stage, request }
    }

    /// Shared text of at most `max` bytes.
    fn text(&mut self, text: &str, max: usize) -> Arc<str> {
        let kept = text.floor_char_boundary(max);
        self.cut |= kept < text.len();
        self.texts.share(&text.as_bytes()[..kept])
    }

    fn share(&mut self, text: Option<&Str<'_>>, max: usize) -> Arc<str> {
        self.text(text.map_or("", |text| &text.0), max)
    }

    fn known(&mut self, text: Option<&Str<'_>>, max: usize) -> Option<Arc<str>> {
        text.filter(|text| !text.0.is_empty()).map(|text| self.text(&text.0, max))
    }

    fn groups(&mut self, groups: &Few<Str<'_>, GROUPS_MAX>) -> Vec<Arc<str>> {
        self.cut |= groups.cut;
        groups.items.iter().map(|group| self.text(&group.0, NAME_MAX)).collect()
    }

    fn credential(
        &mut self,
        user: &User<'_>,
        name: &Arc<str>,
        principal: &Principal,
    ) -> (Option<Bound>, Option<Credential>) {
        let extra = user.extra.as_ref();
        let mut first =
            |of: Option<&Few<Str<'_>, 1>>| self.known(of.and_then(|of| of.items.first()), NAME_MAX);
        let bound = Bound {
            pod: first(extra.map(|extra| &extra.pod_name)),
            pod_uid: first(extra.map(|extra| &extra.pod_uid)),
            node: first(extra.map(|extra| &extra.node_name)),
        };
        let credential = match (first(extra.map(|extra| &extra.credential_id)), principal) {
            (Some(id), _) => Some(Credential::of_id(id)),
            (None, Principal::Anonymous | Principal::Refused) => None,
            (None, Principal::ServiceAccount { .. }) => {
                Some(Credential { kind: CredentialKind::LegacyToken, id: name.clone() })
            }
            (None, _) => Some(Credential { kind: CredentialKind::Other, id: name.clone() }),
        };
        ((bound != Bound::default()).then_some(bound), credential)
    }

    /// All addresses; which of them to believe is decided with the configuration.
    fn source(&mut self, list: &Last<Str<'_>, SOURCES_MAX>) -> Source {
        self.cut |= list.cut;
        let mut addresses = list.items.iter().map(|ip| ip.0.parse::<IpAddr>().map(|ip| ip.to_canonical()));
        let trusted = addresses.next_back().and_then(Result::ok);
        Source { trusted, claimed: addresses.filter_map(Result::ok).collect() }
    }

    fn object(&mut self, object: &ObjectRef<'_>) -> Object {
        Object {
            group: self.share(object.api_group.as_ref(), NAME_MAX),
            resource: self.share(object.resource.as_ref(), NAME_MAX),
            subresource: self.known(object.subresource.as_ref(), NAME_MAX),
            namespace: self.known(object.namespace.as_ref(), NAME_MAX),
            name: self.known(object.name.as_ref(), NAME_MAX),
            uid: self.known(object.uid.as_ref(), NAME_MAX),
        }
    }

    fn command(&mut self, query: &str) -> Vec<Arc<str>> {
        let mut parts = uri::values(query, "command");
        let command = parts.by_ref().take(COMMAND_MAX).map(|part| self.text(&part, TEXT_MAX)).collect();
        self.cut |= parts.next().is_some();
        command
    }
}

/// The answer says what became of the object; what was asked for is all there is at level Request.
fn body(object: &Object, answer: Option<&RawValue>, asked: Option<&RawValue>) -> Option<Body> {
    let kind = BodyKind::of(&object.resource, object.subresource.as_deref().unwrap_or_default())?;
    answer.and_then(|json| kind.read(json.get())).or_else(|| kind.read(asked?.get()))
}

fn shape(query: &str) -> QueryShape {
    let mut shape = QueryShape::default();
    for (key, _) in uri::pairs(query) {
        match key {
            "limit" => shape.limited = true,
            "resourceVersion" => shape.versioned = true,
            "labelSelector" | "fieldSelector" => shape.selected = true,
            _ => {}
        }
    }
    shape
}

/// Nanoseconds since 1970 of a time as Kubernetes writes it: RFC 3339, UTC, with any number of decimals.
fn unix_ns(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.strip_suffix('Z')?.split_at_checked(19)?;
    let number = |from: usize, to: usize| {
        let digits = seconds.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok())?
    };
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !separators.iter().all(|(at, byte)| seconds.as_bytes()[*at] == *byte) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let ns = match fraction.strip_prefix('.') {
        None if fraction.is_empty() => 0,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => digits
            .bytes()
            .chain(std::iter::repeat(b'0'))
            .take(9)
            .fold(0, |ns, byte| ns * 10 + u64::from(byte - b'0')),
        _ => return None,
    };
    // Days since 1970 of a date of the proleptic Gregorian calendar, years counted from March.
    let (from_march, year) = if month > 2 { (month - 3, year) } else { (month + 9, year - 1) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * from_march + 2) / 5 + day - 1;
    let seconds = (days.checked_sub(719_468)? * 24 + hour) * 3600 + minute * 60 + second;
    seconds.checked_mul(1_000_000_000)?.checked_add(ns)
}

#[cfg(test)]
mod tests;
