//! The JSON types of one line of output. Field order is key order; doc comments are the descriptions of the JSON Schema.
//!
//! The same types write and read. Writing borrows from the core; reading ignores unknown keys, which may be added without a
//! new schema string, and refuses values that are not in a closed list.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use sensor_core::ids::ConnId;
use serde::{Deserialize, Serialize};

use super::kind::Kind;
use super::lists::{
    Capability, CoverageState, Direction, Enrichment, ExecRole, HealthState, HookState, KernelRecord, Ring,
    ScanShape, Service,
};
use super::time::UtcTime;

mod access;
mod api;
mod audit;
mod container;
mod escape;
mod exposure;
mod finding;
mod process;
mod reload;
mod resumed;
mod tls;

pub use access::{Accept, AcceptingTask, Client, Conn, Connect, File, Socket};
pub use api::{Api, Origin};
pub use audit::{
    Audit, AuditBody, AuditBound, AuditCredential, AuditDecision, AuditImpersonated, AuditInput, AuditObject,
    AuditQuery, AuditTexts,
};
pub use container::{Container, K8s};
pub use escape::Host;
pub use exposure::{LeadsTo, Listener, PeerSeen};
pub use finding::{Completeness, Entities, Finding, Link, Signal, Stage};
pub use process::{Ancestor, ExeFile, Process};
pub use reload::Reload;
pub use resumed::Resumed;
pub use tls::Tls;

/// A text: borrowed from the core when written, from the line when read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl JsonSchema for Text<'_> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        String::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

impl<'a> From<&'a Arc<str>> for Text<'a> {
    fn from(shared: &'a Arc<str>) -> Self {
        Self(Cow::Borrowed(shared))
    }
}

impl<'a> From<&'a ConnId> for Text<'a> {
    fn from(conn: &'a ConnId) -> Self {
        Self(Cow::Borrowed(&conn.0))
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl From<Text<'_>> for Arc<str> {
    fn from(text: Text<'_>) -> Self {
        match text.0 {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        }
    }
}

/// The version of this format; it changes on every incompatible change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum SchemaVersion {
    /// The only one there is.
    #[serde(rename = "quaywatch/1")]
    V1,
}

impl SchemaVersion {
    /// The schema string of what this program writes.
    pub const CURRENT: &'static str = "quaywatch/1";
}

/// One record of quaywatch: one line of its output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(
    title = "quaywatch record",
    extend("$id" = "https://github.com/quaywatch/quaywatch/docs/quaywatch-event.schema.json"),
    transform = super::schema::require_objects_of_kind
)]
pub struct Record<'a> {
    /// Version of the format.
    pub schema: SchemaVersion,
    /// What the record says.
    pub kind: Kind,
    /// Unique id: `<run>-<seq in hex>` for facts, derived from evidence for the rest. Kept by replay.
    #[serde(borrow)]
    pub id: Text<'a>,
    /// Event time on the wall clock.
    pub ts: UtcTime,
    /// Event time on CLOCK_BOOTTIME of the kernel, nanoseconds.
    pub boot_ns: u64,
    /// Position in the output of this run. A missing number is a record that `output.kinds` leaves out or that found no
    /// room in the queue of an output.
    pub seq: u64,
    /// Where the record comes from.
    #[serde(borrow)]
    pub node: Node<'a>,
    /// Who.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process<'a>>,
    /// In which container.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container<'a>>,
    /// In which pod.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub k8s: Option<K8s<'a>>,
    /// On which connection, or at which listener.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub net: Option<Net<'a>>,
    /// What the allow-list says of the peer.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict<'a>>,
    /// How good the record is; every fact has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
    /// Of kind `listener`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<Listener>,
    /// Of kind `accept`, where the kernel tells who took the connection.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<Accept<'a>>,
    /// Of kind `close`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conn: Option<Conn>,
    /// Of kind `connect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Connect>,
    /// Of kind `api_request`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub api: Option<Api<'a>>,
    /// Of kind `tls_hello`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls<'a>>,
    /// Of kind `scan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scan: Option<Scan>,
    /// Of kind `socket_connect`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<Socket<'a>>,
    /// Of kind `file_read`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub file: Option<File<'a>>,
    /// Of kind `exec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
    /// Of kind `exit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Of kind `escape`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// Of kind `container`: its cause.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin<'a>>,
    /// Of kind `audit`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Box<Audit<'a>>>,
    /// Of kind `health`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health<'a>>,
    /// Of kind `signal`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal<'a>>,
    /// Of kind `finding`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<Finding<'a>>,
}

/// Where a record comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Node<'a> {
    /// Configured name or host name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// The kernel's id of this boot.
    #[serde(borrow)]
    pub boot_id: Text<'a>,
    /// Configured cluster.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Text<'a>>,
}

/// The one transport there is so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Proto {
    /// TCP.
    Tcp,
}

/// A connection, or a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Net<'a> {
    /// Who opened the connection; absent for a listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Transport.
    pub proto: Proto,
    /// Remote end; absent for a listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<End>,
    /// Local end; absent while a connect has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<End>,
    /// Service by the port on the serving side.
    pub service: Service,
    /// Joins the records of one connection; absent for a listener.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub conn: Option<Text<'a>>,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct End {
    /// Address; IPv4-mapped IPv6 is printed as IPv4.
    pub ip: IpAddr,
    /// Port; absent while none is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<NonZeroU16>,
}

/// What the allow-list says of a peer. The sensor observes; it does not allow or deny.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict<'a> {
    /// Whether an entry expects this access.
    pub listed: bool,
    /// The entry that decided.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Text<'a>>,
}

/// How good a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quality {
    /// How much of the subject is known.
    pub enrichment: Enrichment,
    /// Some text was cut at its bound. Absent: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Management records lost in the second around this one. Absent: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
}

/// Many connections or attempts, in one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Scan {
    /// What they have in common.
    pub shape: ScanShape,
    /// Endpoints they came to.
    pub targets: u64,
    /// Peers they came from; about, when there were very many. `net.peer` names the one if it is one; of an IPv6 network
    /// it is the /64.
    pub peers: u64,
    /// How many there were in the window: attempts, connections, or connects.
    pub count: u64,
    /// Of these, accepts that flood control withheld: they have no record of their own.
    pub suppressed: u64,
    /// Accepts withheld, now or in an earlier window, and then reported because a request followed. Absent: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resumed: u64,
    /// The window, nanoseconds; it ends at the time of the record.
    pub window_ns: u64,
}

/// An execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exec {
    /// What the program is to container management.
    pub role: ExecRole,
}

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exit {
    /// Exit code, when it exited by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// Signal number, when a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u8>,
}

/// What the sensor says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health<'a> {
    /// Where the sensor is in its life.
    pub state: HealthState,
    /// All hooks, on `ready` and whenever one changed.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook<'a>>,
    /// Loss since the previous health record, on `stopping` since the start; empty: nothing was lost.
    #[serde(borrow, default)]
    pub loss: Vec<Loss<'a>>,
    /// All capabilities, on `ready` and whenever one changed.
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    pub coverage: BTreeMap<Capability, Coverage<'a>>,
    /// A time in which nothing was seen of a capability, when it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blind: Option<Blind>,
    /// On `ready`: the run that this one goes on from.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Resumed<'a>>,
    /// Another configuration was to replace the one in effect: what came of that.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub reload: Option<Reload<'a>>,
    /// The node's own addresses, on `ready` and whenever they changed; replay judges with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Inputs of audit events, wherever loss or coverage is told and on `stopping`; counts are since the start.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub audit: Vec<AuditInput<'a>>,
    /// On `stopping`: produced = received + lost + suppressed, for each ring and kind with anything produced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub balance: Vec<Balance>,
    /// On `stopping`: records numbered in this run, this one included: also those that `output.kinds` leaves out and those
    /// that found no room in the queue of an output (`loss` of kind `output`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emitted: Option<u64>,
    /// Kernel records that could not be decoded, since the previous health record, on `stopping` since the start.
    #[serde(default)]
    pub undecodable: u64,
}

impl Health<'_> {
    /// Management records that it says were lost since the record before. The totals of a run are none.
    pub(super) fn lost_management(&self) -> u64 {
        let is_total = self.state == HealthState::Stopping;
        let loss = self.loss.iter().filter(|loss| !is_total && loss.ring == Some(Ring::Management));
        loss.map(|loss| loss.lost).sum()
    }
}

/// One hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hook<'a> {
    /// Kernel hook.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Our program on it.
    #[serde(borrow)]
    pub program: Text<'a>,
    /// Whether it is in place.
    pub state: HookState,
    /// Why it is not.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text<'a>>,
}

/// Records that did not reach the output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Loss<'a> {
    /// The ring; absent for tables of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<Ring>,
    /// Kind of kernel record, or name of the table; the list is in docs/output.md.
    #[serde(borrow)]
    pub kind: Text<'a>,
    /// No room in the ring.
    pub lost: u64,
    /// Withheld by flood control.
    pub suppressed: u64,
    /// Dropped from a bounded table.
    pub evicted: u64,
}

/// Coverage of one capability.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Coverage<'a> {
    /// How well.
    pub state: CoverageState,
    /// Why it is not live, or what of it no canary has tested.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text<'a>>,
    /// Since when; where a canary told, the last moment at which it was seen.
    pub since: UtcTime,
}

/// A time of blindness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Blind {
    /// For what.
    pub capability: Capability,
    /// Its beginning: the last moment at which the capability is proved to have been served.
    pub from: UtcTime,
    /// Its end.
    pub to: UtcTime,
}

/// What became of the kernel records of one ring and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Balance {
    /// The ring.
    pub ring: Ring,
    /// Kind of kernel record.
    pub kind: KernelRecord,
    /// Made by the probes.
    pub produced: u64,
    /// Taken from the ring.
    pub received: u64,
    /// Of these, made by the sensor itself to see whether it sees, and not shown; absent: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub canaries: u64,
    /// No room in the ring.
    pub lost: u64,
    /// Withheld by flood control.
    pub suppressed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
pub(super) fn is_zero(value: &u64) -> bool {
    *value == 0
}
