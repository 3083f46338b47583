//! Conditions of entries on what peers show of themselves: what they cannot mean.

use sensor_core::fact::Service;

use super::allow::AllowSection;
use super::problem::Severity;
use super::validate::Finding;
use super::values::AnyOr;

const FROM: &str = "allow.from";
const TO: &str = "allow.to";

/// Looks at the conditions of an entry about peers.
#[must_use]
pub fn validate(entry: &AllowSection) -> Vec<Finding> {
    let (from, to) = (&entry.from.value, &entry.to.value);
    let mut findings = Vec::new();
    let mut tell = |severity, key, position, message: String| {
        findings.push(Finding { severity, position, key, message });
    };
    for fingerprint in from.fingerprint.iter().filter(|fingerprint| !is_ja4(&fingerprint.value)) {
        let message = format!(
            "{:?} is no fingerprint; write a JA4, as in the `ja4` of `tls_hello` records",
            fingerprint.value
        );
        tell(Severity::Error, FROM, fingerprint.position, message);
    }
    for tool in from.tool.iter().filter(|tool| !is_product(&tool.value)) {
        let message = format!(
            "{:?} is no product of a `User-Agent`; write what stands before its first slash, as in \"Docker-Client\"",
            tool.value
        );
        tell(Severity::Error, FROM, tool.position, message);
    }
    let has_classes = !to.classes.is_empty() && !to.classes.iter().any(|class| class.value == AnyOr::Any);
    let of_requests = has_classes || !from.tool.is_empty();
    if of_requests && let Some(fingerprint) = from.fingerprint.first() {
        let message = "requests are read where there is no TLS, so that they and a fingerprint are never seen together; \
                       make two entries";
        tell(Severity::Error, FROM, fingerprint.position, message.to_owned());
    }
    if to.classes.len() > 1
        && let Some(any) = to.classes.iter().find(|class| class.value == AnyOr::Any)
    {
        let message = "`any` makes the other classes needless; drop them";
        tell(Severity::Warning, TO, any.position, message.to_owned());
    }
    let is_all = |what: fn(Service) -> bool| {
        let is_of = |service: &AnyOr<Service>| matches!(service, AnyOr::One(service) if what(*service));
        to.ports.is_empty()
            && !to.services.is_empty()
            && to.services.iter().all(|service| is_of(&service.value))
    };
    if of_requests && is_all(Service::is_encrypted) {
        let message = "requests to these services are encrypted and not read, so that the entry never decides; \
                       drop classes and tools, or name other services";
        tell(Severity::Warning, TO, entry.to.position, message.to_owned());
    }
    if !from.fingerprint.is_empty() && is_all(Service::is_plaintext) {
        let message = "nobody speaks TLS to these services, so that the entry never decides; drop the fingerprints, or \
                       name other services";
        tell(Severity::Warning, TO, entry.to.position, message.to_owned());
    }
    findings
}

/// Whether a text has the form of a JA4: ten characters of what is offered, and twice twelve digits.
fn is_ja4(text: &str) -> bool {
    let lengths = text.split('_').map(str::len);
    let is_digits = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    lengths.eq([10, 12, 12])
        && text.split('_').skip(1).all(is_digits)
        && text.bytes().take(10).all(|byte| byte.is_ascii_alphanumeric())
}

fn is_product(text: &str) -> bool {
    (1..=256).contains(&text.len()) && sensor_core::allow_list::product_of(text) == text
}
