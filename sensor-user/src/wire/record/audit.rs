//! Objects of requests to the Kubernetes API server, as its audit log tells them.

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use schemars::JsonSchema;
use sensor_core::audit;
use sensor_core::health::is_audit_loss;
use sensor_core::risks::Risk;
use serde::{Deserialize, Serialize};

use super::super::risk::RiskName;
use super::super::seq::List;
use super::{Health, HealthState, Text, UtcTime};

/// Texts of the core.
pub type AuditTexts<'a> = List<'a, Arc<str>, Text<'a>>;

/// A request to the API server, reduced: values of secrets, config maps and tokens are never read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Audit<'a> {
    /// The API server's id of the request; a client may choose it.
    #[serde(borrow)]
    pub audit_id: Text<'a>,
    /// Name of the user; absent where the credentials were refused.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Text<'a>>,
    /// Groups, at most 32.
    #[serde(borrow, default, skip_serializing_if = "List::is_empty")]
    pub groups: AuditTexts<'a>,
    /// What the user proved itself with; absent for anonymous and refused requests.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<AuditCredential<'a>>,
    /// Where a token belongs, as the API server signed it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<AuditBound<'a>>,
    /// The address that can be believed: the last one, which is the TCP peer of the API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// What the client wrote in front of it (`X-Forwarded-For`); it proves nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claimed: Vec<IpAddr>,
    /// Verb.
    #[serde(borrow)]
    pub verb: Text<'a>,
    /// Path without its query; at most 512 bytes.
    #[serde(borrow)]
    pub path: Text<'a>,
    /// Which of the query parameters that tell how a client works are there.
    #[serde(default, skip_serializing_if = "AuditQuery::is_empty")]
    pub query: AuditQuery,
    /// What an exec was to run, at most 16 parts.
    #[serde(borrow, default, skip_serializing_if = "List::is_empty")]
    pub command: AuditTexts<'a>,
    /// What the request is about; absent for paths that are no resource.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub object: Option<AuditObject<'a>>,
    /// HTTP status of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// What the authorizer said; admission may refuse what it allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<AuditDecision>,
    /// `User-Agent`, at most 512 bytes.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<Text<'a>>,
    /// Whom the request was made as.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub impersonated: Option<AuditImpersonated<'a>>,
    /// Id of the credential in the answer.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub issued: Option<Text<'a>>,
    /// What pod security found fault with.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub violations: Option<Text<'a>>,
    /// What of the bodies is looked at.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub body: Option<AuditBody<'a>>,
}

/// What the authorizer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuditDecision {
    /// It was allowed.
    Allow,
    /// It was not.
    Forbid,
}

/// What a credential is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AuditCredentialKind {
    /// A token of a service account, by the id in it (`JTI=`).
    Token,
    /// A client certificate, by its digest (`X509SHA256=`).
    Certificate,
    /// A token of a service account without an id; the name of the account stands for it.
    LegacyToken,
    /// Another id, or none: then the name of the user stands for it.
    Other,
}

impl From<audit::CredentialKind> for AuditCredentialKind {
    fn from(kind: audit::CredentialKind) -> Self {
        match kind {
            audit::CredentialKind::Token => Self::Token,
            audit::CredentialKind::Certificate => Self::Certificate,
            audit::CredentialKind::LegacyToken => Self::LegacyToken,
            audit::CredentialKind::Other => Self::Other,
        }
    }
}

impl From<AuditCredentialKind> for audit::CredentialKind {
    fn from(kind: AuditCredentialKind) -> Self {
        match kind {
            AuditCredentialKind::Token => Self::Token,
            AuditCredentialKind::Certificate => Self::Certificate,
            AuditCredentialKind::LegacyToken => Self::LegacyToken,
            AuditCredentialKind::Other => Self::Other,
        }
    }
}

/// What a user proved itself with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditCredential<'a> {
    /// What it is.
    pub kind: AuditCredentialKind,
    /// Its id as the API server writes it, or the name of the user where there is none.
    #[serde(borrow)]
    pub id: Text<'a>,
}

/// Where a token belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditBound<'a> {
    /// Name of the pod.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Text<'a>>,
    /// Its uid.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<Text<'a>>,
    /// The node it was on.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Text<'a>>,
}

/// Query parameters; absent: false.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AuditQuery {
    /// `limit`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub limited: bool,
    /// `resourceVersion`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub versioned: bool,
    /// `labelSelector` or `fieldSelector`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub selected: bool,
}

impl AuditQuery {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditObject<'a> {
    /// API group; absent for the core group.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Text<'a>>,
    /// Resource in the plural.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Text<'a>>,
    /// Subresource.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub subresource: Option<Text<'a>>,
    /// Namespace.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Text<'a>>,
    /// Name.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Text<'a>>,
    /// Uid.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Text<'a>>,
}

/// Whom a request was made as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditImpersonated<'a> {
    /// Name of the user.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Text<'a>>,
    /// Groups, at most 32.
    #[serde(borrow, default, skip_serializing_if = "List::is_empty")]
    pub groups: AuditTexts<'a>,
}

/// What a body says; one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuditBody<'a> {
    /// A pod, or an object with a template of one.
    Pod {
        /// As in `container.risks`.
        risks: List<'a, Risk, RiskName>,
    },
    /// A role binding.
    Binding {
        /// The role.
        #[serde(borrow)]
        role: Text<'a>,
        /// Who is bound: users and groups by name, service accounts as `namespace/name`.
        #[serde(borrow)]
        subjects: AuditTexts<'a>,
    },
    /// A certificate signing request.
    Signing {
        /// Who is to sign.
        #[serde(borrow)]
        signer: Text<'a>,
        /// Groups that the certificate is to name.
        #[serde(borrow)]
        groups: AuditTexts<'a>,
    },
    /// What a kubelet or an extension asks about somebody else's request.
    Review {
        /// The user asked about.
        #[serde(borrow)]
        user: Text<'a>,
        /// Resource with subresource.
        #[serde(borrow)]
        resource: Text<'a>,
    },
    /// Admission webhooks.
    Webhooks {
        /// Those called by URL.
        #[serde(borrow)]
        urls: AuditTexts<'a>,
    },
    /// A node.
    Node {
        /// Its addresses.
        addresses: Vec<IpAddr>,
        /// Ranges of its pods.
        #[schemars(with = "Vec<String>")]
        pods: Vec<IpNetwork>,
    },
}

/// An input of audit events and what became of it since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditInput<'a> {
    /// Path of the file, or `<stdin>`.
    #[serde(borrow)]
    pub input: Text<'a>,
    /// Lines that were events.
    pub events: u64,
    /// Bytes of lines that were read.
    pub bytes: u64,
    /// Lines that were no events.
    pub invalid: u64,
    /// Lines longer than 8 MiB.
    pub oversize: u64,
    /// Times that some of the input could not be read any more, nobody knows how much.
    pub gaps: u64,
    /// Bytes that are there and not read yet, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind_bytes: Option<u64>,
    /// When the latest request was made that it told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<UtcTime>,
}

impl Health<'_> {
    /// Lines of audit logs that it says were lost since the record before. The totals of a run are none.
    pub(in crate::wire) fn lost_audit(&self) -> u64 {
        let is_total = self.state == HealthState::Stopping;
        let loss = self.loss.iter().filter(|loss| !is_total && is_audit_loss(&loss.kind.0));
        loss.map(|loss| loss.lost).sum()
    }
}
