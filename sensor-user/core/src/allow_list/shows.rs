//! What a peer shows of itself on a connection, and conditions on that.
//!
//! All of it is the peer's own word and easily copied, so that these conditions narrow what an entry expects of its peers and
//! never name a peer by themselves. What a fact does not tell agrees with no condition: a connection that is only
//! opened has no class, what is said inside TLS has none either, and a hello is said once, after that.

use std::sync::Arc;

use crate::fact::FactKind;
use crate::http::route::ApiClass;

/// What a fact tells of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown<'a> {
    /// What its request does, where that was read.
    pub class: Option<ApiClass>,
    /// Fingerprint of its TLS client.
    pub fingerprint: Option<&'a str>,
    /// Its `User-Agent`.
    pub user_agent: Option<&'a str>,
}

/// Conditions, each by any of its values; all that are given must agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shows {
    /// What its requests do.
    pub classes: Vec<ApiClass>,
    /// Fingerprints of TLS clients.
    pub fingerprints: Vec<Arc<str>>,
    /// Products of `User-Agent`: what stands before the first slash.
    pub tools: Vec<Arc<str>>,
}

impl<'a> Shown<'a> {
    /// What a fact tells.
    #[must_use]
    pub fn by(kind: &'a FactKind) -> Self {
        match kind {
            FactKind::ApiRequest(api) => Self {
                // What is spoken is not understood, and so the class is not known.
                class: api.protocol.is_none().then_some(api.class),
                fingerprint: None,
                user_agent: api.user_agent.as_deref(),
            },
            FactKind::TlsHello(hello) => Self { fingerprint: hello.ja4.as_deref(), ..Self::default() },
            _ => Self::default(),
        }
    }
}

impl Shows {
    pub(super) fn agree(&self, shown: &Shown<'_>) -> bool {
        let is_one = |wanted: &[Arc<str>], found: Option<&str>| {
            wanted.is_empty() || found.is_some_and(|found| wanted.iter().any(|wanted| **wanted == *found))
        };
        (self.classes.is_empty() || shown.class.is_some_and(|class| self.classes.contains(&class)))
            && is_one(&self.fingerprints, shown.fingerprint)
            && is_one(&self.tools, shown.user_agent.map(product_of))
    }

    /// Whether they agree with whatever the others do.
    pub(super) fn include(&self, others: &Self) -> bool {
        fn reach<T: PartialEq>(own: &[T], others: &[T]) -> bool {
            own.is_empty() || (!others.is_empty() && others.iter().all(|other| own.contains(other)))
        }
        reach(&self.classes, &others.classes)
            && reach(&self.fingerprints, &others.fingerprints)
            && reach(&self.tools, &others.tools)
    }
}

/// The product that a `User-Agent` names first.
#[must_use]
pub fn product_of(user_agent: &str) -> &str {
    user_agent.split(['/', ' ']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests;
