//! The kinds of records and sets of them.

use schemars::JsonSchema;
use sensor_core::engine::Output;
use sensor_core::fact::{Fact, FactKind};
use serde::{Deserialize, Serialize};

/// What a record says; see docs/output.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A management endpoint opened, changed or closed.
    Listener,
    /// The kernel completed a connection for a management listener.
    Accept,
    /// A task took a connection whose `accept` did not name it.
    #[serde(rename = "accept_task")]
    AcceptTask,
    /// A connection ended.
    Close,
    /// A container or runtime process connected out, or tried to.
    Connect,
    /// A request on a management connection.
    #[serde(rename = "api_request")]
    ApiRequest,
    /// What a TLS client said first.
    #[serde(rename = "tls_hello")]
    TlsHello,
    /// Many connections or attempts, in one record.
    Scan,
    /// The unix socket of a runtime was connected to.
    #[serde(rename = "socket_connect")]
    SocketConnect,
    /// A credential file was opened.
    #[serde(rename = "file_read")]
    FileRead,
    /// A runtime or tool was executed, or anything inside a container.
    Exec,
    /// A process reported by `exec` exited.
    Exit,
    /// A program of a container was executed on the host's side.
    Escape,
    /// A container was created, started, exec'd into, stopped, removed or enriched.
    Container,
    /// A request to the Kubernetes API server, of its audit log.
    Audit,
    /// Coverage, loss, start and stop of the sensor itself.
    Health,
    /// What a fact is to an analytic.
    Signal,
    /// A chain, partial or complete.
    Finding,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 18] = [
        Self::Listener,
        Self::Accept,
        Self::AcceptTask,
        Self::Close,
        Self::Connect,
        Self::ApiRequest,
        Self::TlsHello,
        Self::Scan,
        Self::SocketConnect,
        Self::FileRead,
        Self::Exec,
        Self::Exit,
        Self::Escape,
        Self::Container,
        Self::Audit,
        Self::Health,
        Self::Signal,
        Self::Finding,
    ];

    /// The name in configuration and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Accept => "accept",
            Self::AcceptTask => "accept_task",
            Self::Close => "close",
            Self::Connect => "connect",
            Self::ApiRequest => "api_request",
            Self::TlsHello => "tls_hello",
            Self::Scan => "scan",
            Self::SocketConnect => "socket_connect",
            Self::FileRead => "file_read",
            Self::Exec => "exec",
            Self::Exit => "exit",
            Self::Escape => "escape",
            Self::Container => "container",
            Self::Audit => "audit",
            Self::Health => "health",
            Self::Signal => "signal",
            Self::Finding => "finding",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The kind of record that an output becomes.
    #[must_use]
    pub const fn of(output: &Output) -> Self {
        match output {
            Output::Health { .. } => Self::Health,
            Output::Signal { .. } => Self::Signal,
            Output::Finding { .. } => Self::Finding,
            Output::Fact { fact, .. } => Self::of_fact(fact),
        }
    }

    /// The kind of record that a fact becomes.
    #[must_use]
    pub const fn of_fact(fact: &Fact) -> Self {
        match fact.kind {
            FactKind::Listener { .. } => Self::Listener,
            FactKind::Accept { .. } => Self::Accept,
            FactKind::AcceptTask => Self::AcceptTask,
            FactKind::Close { .. } => Self::Close,
            FactKind::Connect { .. } => Self::Connect,
            FactKind::ApiRequest(_) => Self::ApiRequest,
            FactKind::TlsHello(_) => Self::TlsHello,
            FactKind::Scan { .. } => Self::Scan,
            FactKind::SocketConnect { .. } => Self::SocketConnect,
            FactKind::FileRead { .. } => Self::FileRead,
            FactKind::Exec { .. } => Self::Exec,
            FactKind::Exit { .. } => Self::Exit,
            FactKind::Escape(_) => Self::Escape,
            FactKind::Container { .. } => Self::Container,
            FactKind::Audit(_) => Self::Audit,
        }
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindFilter(u32);

impl KindFilter {
    /// No kind.
    pub const NONE: Self = Self(0);
    /// Every kind, later ones included.
    pub const ANY: Self = Self(u32::MAX);

    /// Puts a kind into the set.
    pub const fn add(&mut self, kind: Kind) {
        self.0 |= 1 << kind as u32;
    }

    /// Whether a kind is in the set.
    #[must_use]
    pub const fn admits(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u32) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_output() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).expect("a string"), kind.name());
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
        }
    }

    #[test]
    fn a_filter_admits_what_was_added_and_nothing_else() {
        let mut filter = KindFilter::NONE;
        filter.add(Kind::Accept);
        filter.add(Kind::Health);
        for kind in Kind::ALL {
            assert_eq!(filter.admits(kind), matches!(kind, Kind::Accept | Kind::Health));
            assert!(KindFilter::ANY.admits(kind) && !KindFilter::NONE.admits(kind));
        }
    }
}
