//! One request to the API server as its audit log tells it, reduced to what is judged and written.

use std::net::IpAddr;
use std::sync::Arc;

use crate::audit::body::Body;

/// Groups kept of one user.
pub const GROUPS_MAX: usize = 32;
/// Addresses kept of one request: the last ones, which the client did not write.
pub const SOURCES_MAX: usize = 16;
/// Parts of a command kept of one exec.
pub const COMMAND_MAX: usize = 16;
/// Most bytes of a name.
pub const NAME_MAX: usize = 320;
/// Most bytes of a path, a user agent or another text that a client is free to choose.
pub const TEXT_MAX: usize = 512;

/// Where in its life a request was when the event was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
pub enum Stage {
    /// It came; nothing is known of the answer.
    RequestReceived,
    /// The answer has begun: watches, exec, proxies, refused credentials.
    ResponseStarted,
    /// It is over.
    ResponseComplete,
    /// The API server failed.
    Panic,
}

/// What kind of principal a user name stands for; the prefixes are reserved by Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// `system:serviceaccount:<namespace>:<name>`.
    ServiceAccount {
        /// Its namespace.
        namespace: Arc<str>,
        /// Its name.
        name: Arc<str>,
    },
    /// `system:node:<name>`.
    Node(Arc<str>),
    /// `system:anonymous`: a request without credentials.
    Anonymous,
    /// No user at all: the credentials were refused.
    Refused,
    /// A part of the control plane: `system:apiserver`, `system:kube-scheduler`, ...
    Component,
    /// Anything else: people, and programs with names like people's.
    Person,
}

impl Principal {
    /// What a user name stands for.
    #[must_use]
    pub fn of_user(user: &str) -> Self {
        Self::of(user, |text| Arc::from(text))
    }

    /// Reads a user name.
    pub(super) fn of(user: &str, mut share: impl FnMut(&str) -> Arc<str>) -> Self {
        let Some(reserved) = user.strip_prefix("system:") else {
            return if user.is_empty() { Self::Refused } else { Self::Person };
        };
        match reserved.split_once(':') {
            None if reserved == "anonymous" => Self::Anonymous,
            Some(("node", name)) => Self::Node(share(name)),
            Some(("serviceaccount", account)) => match account.split_once(':') {
                Some((namespace, name)) => {
                    Self::ServiceAccount { namespace: share(namespace), name: share(name) }
                }
                None => Self::Person,
            },
            // `system:admin` and what bootstrap tokens make are used by people and installers.
            _ if reserved == "admin" || reserved.starts_with("bootstrap:") => Self::Person,
            _ => Self::Component,
        }
    }

    /// Whether it is a program by its nature, so that a new habit of it tells something.
    #[must_use]
    pub const fn is_machine(&self) -> bool {
        matches!(self, Self::ServiceAccount { .. } | Self::Node(_) | Self::Component)
    }
}

/// What a credential is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CredentialKind {
    /// A service account token, by the id in it: `JTI=<uuid>`.
    Token,
    /// A client certificate, by its digest: `X509SHA256=<hex>`.
    Certificate,
    /// A service account token without id: of a secret, or of an API server before 1.30.
    LegacyToken,
    /// Another id, or none: then the user name stands for it.
    Other,
}

/// What a principal proved itself with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Credential {
    /// What it is.
    pub kind: CredentialKind,
    /// Its id as the API server writes it, or the user name where there is none.
    pub id: Arc<str>,
}

impl Credential {
    /// Reads an id.
    pub(super) fn of_id(id: Arc<str>) -> Self {
        let kind = match id.split_once('=') {
            Some(("JTI", _)) => CredentialKind::Token,
            Some(("X509SHA256", _)) => CredentialKind::Certificate,
            _ => CredentialKind::Other,
        };
        Self { kind, id }
    }
}

/// Where a token belongs, as the token itself says; signed by the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// The pod's name.
    pub pod: Option<Arc<str>>,
    /// Its uid.
    pub pod_uid: Option<Arc<str>>,
    /// The node the pod was on when the token was issued.
    pub node: Option<Arc<str>>,
}

/// Where a request came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The address that can be believed: the TCP peer of the API server, or what a configured proxy says of its own.
    pub trusted: Option<IpAddr>,
    /// What the client wrote in front of it; it proves nothing.
    pub claimed: Vec<IpAddr>,
}

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// API group; empty for the core group.
    pub group: Arc<str>,
    /// Resource in the plural.
    pub resource: Arc<str>,
    /// Subresource.
    pub subresource: Option<Arc<str>>,
    /// Namespace.
    pub namespace: Option<Arc<str>>,
    /// Name.
    pub name: Option<Arc<str>>,
    /// Uid.
    pub uid: Option<Arc<str>>,
}

/// The query parameters that say how a client works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct QueryShape {
    /// `limit`.
    pub limited: bool,
    /// `resourceVersion`, as caches of clients send it.
    pub versioned: bool,
    /// `labelSelector` or `fieldSelector`.
    pub selected: bool,
}

/// Another principal that a request was made as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impersonated {
    /// User name.
    pub user: Arc<str>,
    /// Groups.
    pub groups: Vec<Arc<str>>,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRequest {
    /// The API server's id of it; the same in all its events.
    pub audit_id: Arc<str>,
    /// When it came, nanoseconds since 1970.
    pub at_ns: u64,
    /// User name; empty where the credentials were refused.
    pub user: Arc<str>,
    /// What that name stands for.
    pub principal: Principal,
    /// Groups.
    pub groups: Vec<Arc<str>>,
    /// What it proved itself with; absent for anonymous and refused requests.
    pub credential: Option<Credential>,
    /// Where a token belongs.
    pub bound: Option<Bound>,
    /// Where it came from.
    pub source: Source,
    /// Verb: `get`, `list`, `create`, ...
    pub verb: Arc<str>,
    /// Path without the query.
    pub path: Arc<str>,
    /// How the query looks.
    pub query: QueryShape,
    /// What an exec was to run.
    pub command: Vec<Arc<str>>,
    /// What it is about; absent for paths that are no resource.
    pub object: Option<Object>,
    /// HTTP status of the answer.
    pub code: Option<u16>,
    /// What the authorizer said: `allow` or `forbid`.
    pub allowed: Option<bool>,
    /// User agent; the client is free to choose it.
    pub user_agent: Option<Arc<str>>,
    /// Whom it was made as.
    pub impersonated: Option<Impersonated>,
    /// The credential that its answer holds.
    pub issued: Option<Arc<str>>,
    /// What the pod security admission found fault with.
    pub violations: Option<Arc<str>>,
    /// What of the bodies is looked at.
    pub body: Option<Body>,
    /// Some text or list was cut at its bound.
    pub truncated: bool,
}

impl AuditRequest {
    /// Resource and subresource, both empty where there are none.
    #[must_use]
    pub fn resource(&self) -> (&str, &str) {
        self.object
            .as_ref()
            .map_or(("", ""), |object| (&*object.resource, object.subresource.as_deref().unwrap_or_default()))
    }

    /// The namespace it is about.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.object.as_ref()?.namespace.as_deref()
    }

    /// Whether it was answered with success; 101 begins an exec.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.code.is_some_and(|code| code < 400)
    }

    /// Whether it could change anything.
    #[must_use]
    pub fn writes(&self) -> bool {
        matches!(&*self.verb, "create" | "update" | "patch" | "delete" | "deletecollection" | "post" | "put")
    }

    /// What a client proves itself with, or its name.
    #[must_use]
    pub fn credential_id(&self) -> &Arc<str> {
        self.credential.as_ref().map_or(&self.user, |credential| &credential.id)
    }
}
