//! What principals usually do and from where their credentials are usually used.
//!
//! Habits tell a controller that lists secrets all day from a controller that never did. They are kept as hashes of the
//! form of a request, never of its objects' names; tables are bounded, what is evicted is learned anew.

use std::net::IpAddr;
use std::sync::Arc;

use super::places::neighbourhood;
use super::request::{AuditRequest, Principal};
use crate::bounded::Bounded;
use crate::text::hash;

const PRINCIPALS_MAX: usize = 8192;
const CREDENTIALS_MAX: usize = 65_536;
/// Forms kept of one principal's requests; a principal with more has no habits.
const FORMS_MAX: usize = 256;
/// Networks kept of one credential's use.
const NETWORKS_MAX: usize = 16;
/// Requests after which a principal or a credential is known.
const KNOWN_AFTER: u32 = 20;
/// Time after which a principal is known.
const KNOWN_AFTER_NS: u64 = 5 * 60 * 1_000_000_000;

/// One principal's habits.
#[derive(Clone, Debug, Default)]
struct Habit {
    first_ns: u64,
    requests: u32,
    /// Sorted.
    forms: Vec<u64>,
}

/// Where one credential is used from, by neighbourhood.
#[derive(Clone, Debug, Default)]
struct Used {
    requests: u32,
    networks: Vec<IpAddr>,
}

/// What is known of a request's principal before the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Familiarity {
    /// The principal has made requests of this form before.
    pub usual: bool,
    /// It is known for long enough that a new form tells something.
    pub known: bool,
}

/// Both tables.
#[derive(Clone, Debug)]
pub struct Habits {
    principals: Bounded<Arc<str>, Habit>,
    credentials: Bounded<Arc<str>, Used>,
    form: Vec<u8>,
}

impl Habits {
    /// Nothing is known yet.
    pub(super) fn new() -> Self {
        Self {
            principals: Bounded::new(PRINCIPALS_MAX),
            credentials: Bounded::new(CREDENTIALS_MAX),
            form: Vec::new(),
        }
    }

    /// How familiar a request is; remembers its form if it is `ours`, that is not an intruder's.
    pub(super) fn meet(&mut self, request: &AuditRequest, ours: bool) -> Familiarity {
        let form = form(&mut self.form, request);
        if !self.principals.contains(&request.user) {
            let first = Habit { first_ns: request.at_ns, ..Habit::default() };
            self.principals.insert(request.user.clone(), first);
        }
        let habit = self.principals.get_mut(&request.user).expect("invariant: it was inserted just now");
        let age_ns = request.at_ns.saturating_sub(habit.first_ns);
        let at = habit.forms.binary_search(&form);
        let familiarity = Familiarity {
            usual: at.is_ok() || habit.forms.len() == FORMS_MAX,
            known: habit.requests >= KNOWN_AFTER && age_ns >= KNOWN_AFTER_NS,
        };
        if ours {
            habit.requests = habit.requests.saturating_add(1);
            habit.first_ns = habit.first_ns.min(request.at_ns);
            // What was refused is not what somebody usually does.
            if let (Err(at), true) = (at, request.succeeded() && habit.forms.len() < FORMS_MAX) {
                habit.forms.insert(at, form);
            }
        }
        familiarity
    }

    /// Whether a credential was used from near this address, and whether it is known at all.
    #[must_use]
    pub(super) fn source(&self, credential: &str, ip: IpAddr) -> Familiarity {
        let used = self.credentials.peek(credential);
        Familiarity {
            usual: used.is_some_and(|used| used.networks.contains(&neighbourhood(ip))),
            known: used.is_some_and(|used| used.requests >= KNOWN_AFTER),
        }
    }

    /// Remembers an expected use of a credential.
    pub(super) fn used(&mut self, credential: &Arc<str>, ip: IpAddr) {
        if !self.credentials.contains(credential) {
            self.credentials.insert(credential.clone(), Used::default());
        }
        let used = self.credentials.get_mut(credential).expect("invariant: it was inserted just now");
        used.requests = used.requests.saturating_add(1);
        let network = neighbourhood(ip);
        if !used.networks.contains(&network) && used.networks.len() < NETWORKS_MAX {
            used.networks.push(network);
        }
    }

    /// Entries that had to go.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.principals.evicted() + self.credentials.evicted()
    }
}

/// The form of a request: what it does to which kind of object in which namespace, and how it asks.
fn form(buffer: &mut Vec<u8>, request: &AuditRequest) -> u64 {
    buffer.clear();
    let mut part = |text: &str| {
        buffer.extend_from_slice(text.as_bytes());
        buffer.push(0);
    };
    let (resource, subresource) = request.resource();
    part(&request.verb);
    part(resource);
    part(subresource);
    part(request.namespace().unwrap_or_default());
    if resource.is_empty() {
        part(&request.path);
    } else if subresource == "proxy" {
        part(proxied(&request.path));
    }
    if matches!(request.principal, Principal::ServiceAccount { .. }) {
        // A program pages and caches as it was written to; people change tools.
        part(if request.query.limited { "limit" } else { "" });
        part(if request.query.versioned { "version" } else { "" });
        part(if request.query.selected { "selector" } else { "" });
    }
    if let Some(impersonated) = &request.impersonated {
        part(&impersonated.user);
    }
    hash(buffer)
}

/// The path behind `/proxy`, at its first part: what is asked of the other side.
#[must_use]
pub(super) fn proxied(path: &str) -> &str {
    let Some((_, behind)) = path.split_once("/proxy") else { return "" };
    let behind = behind.trim_start_matches('/');
    behind.split('/').next().unwrap_or_default()
}
