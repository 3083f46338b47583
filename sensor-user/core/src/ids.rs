//! Identities that outlive a single record.

use std::fmt;
use std::sync::Arc;

pub use sensor_common::record::CgroupId as RawCgroupId;
use sensor_common::record::FileId;

/// Key of a process: a pid alone is reused by the kernel, this pair is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey {
    /// Thread group id in the initial pid namespace.
    pub pid: u32,
    /// Start of the thread group leader, boot clock, nanoseconds.
    pub start_ns: u64,
}

/// Key of a cgroup; ids of version 1 hierarchies collide, hence the hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CgroupKey {
    /// `cgroup_root.hierarchy_id`, 0 for version 2.
    pub hierarchy: u32,
    /// `kernfs_node.id`.
    pub id: u64,
}

impl From<RawCgroupId> for CgroupKey {
    fn from(raw: RawCgroupId) -> Self {
        Self { hierarchy: raw.hierarchy, id: raw.id }
    }
}

/// Key of a file: the same under every name and in every mount namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey {
    /// Device of its file system as the kernel numbers it: the major number above the twenty bits of the minor one.
    pub device: u32,
    /// Inode number; 0 stands for the whole file system.
    pub inode: u64,
}

impl From<FileId> for FileKey {
    fn from(raw: FileId) -> Self {
        Self { device: raw.device, inode: raw.inode }
    }
}

impl From<FileKey> for FileId {
    fn from(key: FileKey) -> Self {
        Self { inode: key.inode, device: key.device, reserved: 0 }
    }
}

/// Connection id, unique within one sensor run; the same in every record of one connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConnId(pub Arc<str>);

/// One run of the sensor: 48 random bits drawn at start, printed as 12 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0 & 0xffff_ffff_ffff)
    }
}

/// Id of an output record: `<run>-<seq in hex>` for facts, derived from evidence for the rest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecordId(pub Arc<str>);
