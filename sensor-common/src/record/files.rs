//! Records of what is reached through files: the sockets of runtimes, credentials.

use super::{CgroupId, RecordHeader, TaskId};

/// Most bytes of the path of a credential file that a record carries, NUL included.
pub const FILE_PATH_MAX: usize = 1024;

abi! {
/// A file, by the place of its contents: the same under every name and in every mount namespace.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId {
    /// `inode.i_ino`; 0 stands for all files of the device.
    pub inode: u64,
    /// `super_block.s_dev`: the major number above the twenty bits of the minor one.
    pub device: u32,
    /// Zero.
    pub reserved: u32,
}
}

abi! {
/// A connect to the unix socket of a runtime.
///
/// Source: `unix_stream_connect` of the security modules or `sk_data_ready` of the listening socket, both in the context
/// of the task that connects.
pub struct SocketConnectRecord {
    /// Kind [`RecordKind::SocketConnect`].
    pub header: RecordHeader,
    /// The task that connects.
    pub task: TaskId,
    /// Cgroup of that task, see [`crate::settings::Settings::task_hierarchy`].
    pub cgroup: CgroupId,
    /// The file that the listening socket is bound to, as entered in the `RUNTIME_SOCKETS` map.
    pub socket: FileId,
}
}

abi! {
/// An open of a credential file for reading.
///
/// Source: `file_open` of the security modules, process context.
pub struct FileOpenRecord {
    /// Kind [`RecordKind::FileOpen`].
    pub header: RecordHeader,
    /// The task that opens.
    pub task: TaskId,
    /// Cgroup of that task, see [`crate::settings::Settings::task_hierarchy`].
    pub cgroup: CgroupId,
    /// The key in the `CREDENTIAL_PLACES` map that the file matched: its file system or its directory.
    pub place: FileId,
    /// Valid bytes of `path`, at most [`FILE_PATH_MAX`] - 1; 0 when the path is longer.
    pub path_len: u32,
    /// Zero.
    pub reserved: u32,
    /// Path of the file in the mount namespace of the task; what follows `path_len` bytes means nothing.
    pub path: [u8; FILE_PATH_MAX],
}
}

#[cfg(feature = "loader")]
#[expect(unsafe_code, reason = "a marker for plain data")]
// SAFETY: integers only, without padding; every bit pattern is valid.
unsafe impl aya::Pod for FileId {}
