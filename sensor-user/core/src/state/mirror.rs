//! Values of the domain as they are kept: they know nothing of it themselves.
//!
//! Each has a double here with the same members, from which its form is made. The order of members and variants is the
//! format: whoever changes one raises `STATE_VERSION`.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::chains::{Confidence, Link, Severity};
use crate::fact::{ContainerAction, Origin, OriginClass, Service};
use crate::ids::{ConnId, RecordId};
use crate::time::Timestamp;

/// Gives a value the form of its double.
macro_rules! kept_as {
    ($($value:ident: $double:ident),+ $(,)?) => {
        $(
            impl Serialize for $value {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    $double::serialize(self, serializer)
                }
            }

            impl<'de> Deserialize<'de> for $value {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    $double::deserialize(deserializer)
                }
            }
        )+
    };
}

kept_as!(
    Timestamp: KeptTimestamp,
    RecordId: KeptRecordId,
    ConnId: KeptConnId,
    Severity: KeptSeverity,
    Confidence: KeptConfidence,
    Link: KeptLink,
    Service: KeptService,
    ContainerAction: KeptAction,
    Origin: KeptOrigin,
    OriginClass: KeptOriginClass,
);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Timestamp")]
struct KeptTimestamp {
    boot_ns: u64,
    unix_ns: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "RecordId")]
struct KeptRecordId(Arc<str>);

#[derive(Serialize, Deserialize)]
#[serde(remote = "ConnId")]
struct KeptConnId(Arc<str>);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Severity")]
enum KeptSeverity {
    Low,
    Medium,
    High,
    Critical,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Confidence")]
enum KeptConfidence {
    Inferred,
    Proved,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Link")]
struct KeptLink {
    from: RecordId,
    to: RecordId,
    class: Confidence,
    how: Cow<'static, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Service")]
enum KeptService {
    Docker,
    DockerTls,
    KubeApiserver,
    Kubelet,
    KubeletReadonly,
    Other,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "ContainerAction")]
enum KeptAction {
    Created,
    Started,
    Exec,
    Stopped,
    Removed,
    Enriched,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "OriginClass")]
enum KeptOriginClass {
    Proved,
    Inferred,
    None,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Origin")]
struct KeptOrigin {
    class: OriginClass,
    conn: Option<ConnId>,
    request: Option<RecordId>,
    candidates: Arc<[ConnId]>,
}
