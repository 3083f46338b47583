//! The versioned JSON of the output: written by sinks, read back by replay.
//!
//! Owns the format and its closed lists; never decides anything. Serialisation happens here and nowhere else.

use std::net::IpAddr;
use std::sync::Arc;

use sensor_core::audit::EVENT_MAX;
use sensor_core::engine::Output;
use sensor_core::fact::{Fact, FactKind, Node};
use serde::Deserialize;
use serde::de::IgnoredAny;

mod encode;
mod kind;
mod lists;
mod map;
mod record;
mod risk;
mod schema;
mod seq;
mod text;
mod time;

#[cfg(test)]
mod tests;

pub use kind::{Kind, KindFilter};
pub use lists::{
    ApiClass, Capability, CoverageState, Exposure, HookState, ListenerTls, Runtime, Scope, Service, Severity,
};
pub use record::{LeadsTo, PeerSeen, Record, SchemaVersion};
pub use schema::{config_schema, doctor_schema, exposure_schema, record_schema};
pub use time::UtcTime;

/// Longest line that is read, newline excluded: that of an audit event. The longest that is written has some 30 KiB: 4 KiB
/// of arguments, all of them control characters.
pub const LINE_MAX: usize = EVENT_MAX;

/// Appends one output as one line.
pub fn encode(output: &Output, line: &mut Vec<u8>) {
    match output {
        Output::Fact { seq, fact, verdict } => encode::push_fact(line, *seq, fact, verdict.as_ref()),
        Output::Health { .. } | Output::Signal { .. } | Output::Finding { .. } => {
            serde_json::to_writer(&mut *line, &Record::from(output))
                .expect("invariant: memory can be written and every key is a string")
        }
    }
    line.push(b'\n');
}

/// What a line of a recording is to a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// A fact, to be judged again.
    Fact(Box<Fact>),
    /// A health record: the sensor's own state is not replayed, but what it judged with is.
    Health {
        /// Where it comes from.
        node: Arc<Node>,
        /// The node's own addresses; empty when the record says nothing of them.
        addresses: Vec<IpAddr>,
        /// When it was written, boot clock.
        boot_ns: u64,
        /// Management records lost since the one before.
        lost: u64,
        /// The time in which nobody watched, when the run goes on from another one of the same boot.
        unwatched: Option<Unwatched>,
        /// Lines of audit logs lost since then.
        lost_audit: u64,
    },
    /// A record that replay derives again.
    Derived,
    /// No record, but an event of a Kubernetes audit log.
    AuditEvent,
}

/// A time between two runs, boot clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unwatched {
    /// Its beginning.
    pub from_ns: u64,
    /// Its end.
    pub to_ns: u64,
    /// What ids of the second run begin with, when the first one has not ended in order.
    pub in_doubt: Option<String>,
}

/// A line that cannot be read. Columns are bytes, from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is no JSON, or some value has the wrong type or is not in its closed list.
    #[error("{message}")]
    Json {
        /// Where.
        column: usize,
        /// What.
        message: String,
    },
    /// It is of another version, or not ours.
    #[error("the schema is {found:?}, this version reads {expected:?}", expected = SchemaVersion::CURRENT)]
    Schema {
        /// What it says it is.
        found: String,
    },
    /// A kind of record that this version does not know.
    #[error("records of kind {found:?} are not known to this version")]
    Kind {
        /// The kind.
        found: String,
    },
    /// An object that its kind must have is absent.
    #[error("a record of kind {kind:?} needs {key:?}")]
    Missing {
        /// The kind.
        kind: &'static str,
        /// The key.
        key: &'static str,
    },
}

impl DecodeError {
    /// Where on the line, in bytes from 1.
    #[must_use]
    pub const fn column(&self) -> usize {
        match self {
            Self::Json { column, .. } => *column,
            _ => 1,
        }
    }
}

/// What a replay reads of a fact that was written: the same, with addresses in their canonical form, and with what was cut
/// of its process said of the record as a whole, and of a request of an audit log what was cut of the record.
#[must_use]
pub fn as_read(mut fact: Fact) -> Fact {
    if let Some(process) = &mut fact.process
        && process.truncated
    {
        fact.quality.truncated = true;
        Arc::make_mut(process).truncated = false;
    }
    if let Some(net) = &mut fact.net {
        for end in [&mut net.peer, &mut net.local].into_iter().flatten() {
            end.ip = end.ip.to_canonical();
        }
    }
    if let FactKind::Audit(request) = &mut fact.kind {
        request.truncated = fact.quality.truncated;
    }
    fact
}

/// Kinds that are derived from facts and therefore not read.
const DERIVED: [&str; 2] = ["signal", "finding"];

/// How an API server begins every line of its audit log; other writers may order the keys as they like.
const AUDIT_EVENT: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/"#;

/// Reads one line of a recording, with or without its newline.
///
/// Keys that are not known are ignored, because keys may be added under the same schema string; values outside of a
/// closed list are not.
///
/// # Errors
/// Why the line cannot be read.
pub fn decode(line: &[u8]) -> Result<Recorded, DecodeError> {
    if line.starts_with(AUDIT_EVENT) {
        return Ok(Recorded::AuditEvent);
    }
    let record = match serde_json::from_slice::<Record<'_>>(line) {
        Ok(record) => record,
        Err(error) => return explain(line, &error),
    };
    match record.health {
        Some(health) if record.kind == Kind::Health => {
            let addresses = health.addresses.iter().map(IpAddr::to_canonical).collect();
            let (lost, lost_audit) = (health.lost_management(), health.lost_audit());
            let own = || {
                let run = record.id.0.strip_prefix("health-").and_then(|id| id.rsplit_once('-'));
                format!("{}-", run.map_or("", |(run, _)| run))
            };
            let unwatched = health.resumed.filter(|resumed| !resumed.rebooted).map(|resumed| Unwatched {
                from_ns: resumed.from_boot_ns,
                to_ns: resumed.to_boot_ns,
                in_doubt: (!resumed.clean).then(own),
            });
            Ok(Recorded::Health {
                node: Arc::new(record.node.into()),
                addresses,
                boot_ns: record.boot_ns,
                lost,
                unwatched,
                lost_audit,
            })
        }
        None if record.kind == Kind::Health => Err(DecodeError::Missing { kind: "health", key: "health" }),
        _ if matches!(record.kind, Kind::Signal | Kind::Finding) => Ok(Recorded::Derived),
        _ => Fact::try_from(record).map(|fact| Recorded::Fact(Box::new(fact))),
    }
}

/// A line that is no record of ours may still be one that is not ours to read.
fn explain(line: &[u8], error: &serde_json::Error) -> Result<Recorded, DecodeError> {
    #[derive(Deserialize)]
    struct Head {
        schema: String,
        kind: String,
    }

    /// What an event of an audit log must have.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct EventHead {
        #[serde(rename = "auditID")]
        _audit_id: IgnoredAny,
        #[serde(rename = "requestReceivedTimestamp")]
        _request_received_timestamp: IgnoredAny,
    }

    match serde_json::from_slice::<Head>(line) {
        Ok(Head { schema, .. }) if schema != SchemaVersion::CURRENT => {
            Err(DecodeError::Schema { found: schema })
        }
        Ok(Head { kind, .. }) if DERIVED.contains(&kind.as_str()) => Ok(Recorded::Derived),
        Ok(Head { kind, .. }) if Kind::from_name(&kind).is_none() => Err(DecodeError::Kind { found: kind }),
        Err(_) if serde_json::from_slice::<EventHead>(line).is_ok() => Ok(Recorded::AuditEvent),
        Ok(_) | Err(_) => {
            // The library counts lines within what it is given, which is one.
            let message = error.to_string();
            let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
            Err(DecodeError::Json { column: error.column().max(1), message: message.to_owned() })
        }
    }
}
