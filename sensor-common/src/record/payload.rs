//! What is captured of the bytes of a connection.

use super::{CgroupId, Endpoints, FileId, RecordHeader, TaskId};

/// Most bytes captured of one segment.
pub const PAYLOAD_MAX: usize = 4096;

abi! {
/// The beginning of a segment of a connection on a plaintext port; followed by a tail of which the first `captured` bytes
/// count.
///
/// Source: `cgroup_skb` at the root of the version 2 cgroups, softirq or process context.
pub struct PayloadRecord {
    /// Kind [`super::RecordKind::Payload`].
    pub header: RecordHeader,
    /// Connection id of the accept; 0 for the data of the packet that completes a connection, which comes before that.
    pub conn: u64,
    /// Bytes of its stream before this segment.
    pub offset: u64,
    /// Bytes of its stream that TCP had taken in order (inbound) or sent (outbound) before this segment.
    pub settled: u64,
    /// Cgroup of the socket (version 2 hierarchy).
    pub cgroup: CgroupId,
    /// Both ends of the socket.
    pub ends: Endpoints,
    /// Bytes of the segment.
    pub len: u32,
    /// Of these, in the tail; at most [`PAYLOAD_MAX`].
    pub captured: u32,
    /// [`payload_flags`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}
}

/// How far [`SocketPayloadRecord::offset`] moves on when bytes were missed and nobody knows how many: further than any body
/// reaches.
pub const UNKNOWN_BYTES: u64 = 1 << 40;

abi! {
/// The beginning of what was written at once on a connection to the unix socket of a runtime; followed by a tail of which
/// the first `captured` bytes count.
///
/// Source: `sk_data_ready` of the receiving socket, in the context of the task that writes.
pub struct SocketPayloadRecord {
    /// Kind [`super::RecordKind::SocketPayload`].
    pub header: RecordHeader,
    /// Number of the connection: that of its socket on the listener's side.
    pub conn: u64,
    /// Bytes of its stream before this; [`UNKNOWN_BYTES`] more each time that it is not known how many were missed.
    pub offset: u64,
    /// The task that writes.
    pub task: TaskId,
    /// Cgroup of that task, see [`crate::settings::Settings::task_hierarchy`].
    pub cgroup: CgroupId,
    /// The file that the listening socket is bound to, as entered in the `RUNTIME_SOCKETS` map.
    pub socket: FileId,
    /// Bytes that were written.
    pub len: u32,
    /// Of these, in the tail; at most [`PAYLOAD_MAX`].
    pub captured: u32,
    /// [`payload_flags`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}
}

/// Bits of [`PayloadRecord::flags`] and [`SocketPayloadRecord::flags`].
pub mod payload_flags {
    /// From the listener's side to the peer; else to the listener's side.
    pub const TO_PEER: u32 = 1;
    /// The first segment after others in the other direction.
    pub const TURN: u32 = 1 << 1;
}
