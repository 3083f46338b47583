//! What is captured of the bytes of a connection.

use super::{CgroupId, Endpoints, RecordHeader};

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

/// Bits of [`PayloadRecord::flags`].
pub mod payload_flags {
    /// From the listener's side to the peer; else to the listener's side.
    pub const TO_PEER: u32 = 1;
    /// The first segment after others in the other direction.
    pub const TURN: u32 = 1 << 1;
}
