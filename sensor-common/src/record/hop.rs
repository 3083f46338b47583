//! The record of a connection that may be made for somebody else.

use super::{CgroupId, Endpoints, RecordHeader, TaskId};

/// Descriptors of a process that are looked at for a [`HopRecord`].
pub const HOP_FILES_MAX: u64 = 32;

abi! {
/// A process of the host, no runtime's, begins to connect to a watched port or to the socket of a runtime, as a forwarder does
/// that passes on what it has accepted. A [`super::ConnectRecord`] with the same id tells the ends of the connect when it has
/// succeeded. A process that has no such connection, or several, has no record.
///
/// Source: `inet_sock_set_state` CLOSE -> SYN_SENT, or those of [`super::SocketConnectRecord`], process context; `task_struct.files`, of which the first
/// [`HOP_FILES_MAX`] descriptors are looked at.
pub struct HopRecord {
    /// Kind [`super::RecordKind::Hop`].
    pub header: RecordHeader,
    /// Connection id of the connect; 0 for one to a socket.
    pub conn: u64,
    /// The connecting task.
    pub task: TaskId,
    /// Cgroup of that task, see [`crate::settings::Settings::task_hierarchy`].
    pub cgroup: CgroupId,
    /// Both ends of the connection that it may pass on, the only one it has that may be: TCP, established, of a local port that
    /// was not chosen by the kernel for a connect (`inet_bind_bucket.fastreuse`).
    pub behind: Endpoints,
}
}
