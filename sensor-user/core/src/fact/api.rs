//! Requests to management APIs, and what they cause.

use std::sync::Arc;

use super::{Client, Net, Runtime, Service};
use crate::http::conversation::Foreign;
use crate::http::route::ApiClass;
use crate::ids::{ConnId, RecordId};
use crate::risks::Risk;

/// What is spoken on a plaintext port instead of HTTP/1.
pub type Protocol = Foreign;

/// One request. What is not known is `None`; of a connection that speaks something else only that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRequest {
    /// Method, as sent.
    pub method: Option<Arc<str>>,
    /// Path, as sent, without its query.
    pub path: Option<Arc<str>>,
    /// The path with its variable parts collapsed: of a closed list.
    pub route: Option<Arc<str>>,
    /// What the request does.
    pub class: ApiClass,
    /// Version of the API that the path names.
    pub version: Option<Arc<str>>,
    /// Status of the answer; `None` when none was read.
    pub status: Option<u16>,
    /// `User-Agent`.
    pub user_agent: Option<Arc<str>>,
    /// Risks that the body asks for.
    pub body_flags: Arc<[Risk]>,
    /// Image that the body names.
    pub image: Option<Arc<str>>,
    /// Entry point and command that the body names.
    pub command: Arc<[Arc<str>]>,
    /// What is spoken, if it is not HTTP/1.
    pub protocol: Option<Protocol>,
    /// Who is behind the connection, when a program of the node passes on what that one says.
    pub client: Option<Box<Client>>,
    /// The socket of a runtime on which it was made: then the fact's process and container are the caller's.
    pub socket: Option<Box<SocketUse>>,
}

impl ApiRequest {
    /// A request of which nothing else is known.
    #[must_use]
    pub fn of_class(class: ApiClass) -> Self {
        Self {
            method: None,
            path: None,
            route: None,
            class,
            version: None,
            status: None,
            user_agent: None,
            body_flags: Arc::from([]),
            image: None,
            command: Arc::from([]),
            protocol: None,
            client: None,
            socket: None,
        }
    }
}

impl ApiRequest {
    /// Whose API it was made to: that of the connection's port, or of the runtime on whose socket it was made, of which
    /// those that are read all speak Docker's.
    #[must_use]
    pub const fn service(&self, net: Option<&Net>) -> Service {
        match (&self.socket, net) {
            (Some(_), _) => Service::Docker,
            (None, Some(net)) => net.service,
            (None, None) => Service::Other,
        }
    }
}

/// A connection to the unix socket of a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketUse {
    /// Path that the listener is bound to on the host.
    pub path: Option<Arc<str>>,
    /// Inode number of that path.
    pub inode: u64,
    /// The runtime that listens.
    pub service: Option<Runtime>,
    /// The connection.
    pub conn: ConnId,
}

/// How sure the sensor is of a container's cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OriginClass {
    /// The cause was read.
    Proved,
    /// The cause was concluded from order and time.
    Inferred,
    /// No cause is known.
    None,
}

impl OriginClass {
    /// Whether this is surer than the other.
    #[must_use]
    pub const fn is_surer_than(self, other: Self) -> bool {
        match self {
            Self::Proved => !matches!(other, Self::Proved),
            Self::Inferred => matches!(other, Self::None),
            Self::None => false,
        }
    }
}

/// What caused a step in a container's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// How sure the sensor is.
    pub class: OriginClass,
    /// The connection on which it was asked for.
    pub conn: Option<ConnId>,
    /// The record of the request.
    pub request: Option<RecordId>,
    /// Every connection on which it may have been asked for, when that is more than one: `conn` is `None` then.
    pub candidates: Arc<[ConnId]>,
}

impl Origin {
    /// No cause is known.
    #[must_use]
    pub fn none() -> Self {
        Self { class: OriginClass::None, conn: None, request: None, candidates: Arc::from([]) }
    }

    /// One connection on which it was asked for.
    #[must_use]
    pub fn of_conn(class: OriginClass, conn: ConnId, request: Option<RecordId>) -> Self {
        Self { class, conn: Some(conn), request, candidates: Arc::from([]) }
    }

    /// One of these connections, and nobody can tell which.
    #[must_use]
    pub fn one_of(mut candidates: Vec<ConnId>) -> Self {
        match candidates.len() {
            0 => Self::none(),
            1 => Self::of_conn(OriginClass::Inferred, candidates.remove(0), None),
            _ => Self { class: OriginClass::Inferred, candidates: candidates.into(), ..Self::none() },
        }
    }
}
