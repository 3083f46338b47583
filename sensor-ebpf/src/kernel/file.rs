//! `struct file` and `struct dentry`: what is opened, and where it lies.

use aya_ebpf::helpers::generated::bpf_d_path;
use sensor_common::record::{FILE_PATH_MAX, FileId, exec_flags};

use super::{Access, Direct, File, Pointer, Probed, Sock};
use crate::constants::offset;

/// `FMODE_READ`.
const FMODE_READ: u32 = 1;
/// Bits of the nanoseconds of an inode's time; from 6.13 on the kernel keeps flags above them.
const NANOSECONDS_MASK: u32 = (1 << 30) - 1;
/// Magic of sockfs.
const SOCKFS: u64 = 0x534f_434b;

impl<A: Access> File<A> {
    /// The socket behind this file, if it is one.
    #[inline(always)]
    pub fn socket(self) -> Option<Sock<Probed>> {
        let superblock = self.0.follow(offset!(file_inode)).follow(offset!(inode_sb));
        if superblock.load::<u64>(offset!(sb_magic)) != SOCKFS {
            return None;
        }
        let socket = Pointer::<Probed>::new(self.0.load(offset!(file_private)));
        Some(Sock(socket.follow(offset!(socket_sk))))
    }
}

impl File<Direct> {
    /// Its identity.
    #[inline(always)]
    pub fn id(self) -> FileId {
        id_of(self.0.follow(offset!(file_inode)))
    }

    /// Time of the last change of its inode, nanoseconds since 1970.
    #[inline(always)]
    pub fn changed_ns(self) -> u64 {
        let inode = self.0.follow(offset!(file_inode));
        let nanoseconds: u32 = inode.load(offset!(inode_ctime_nsec));
        inode.load::<u64>(offset!(inode_ctime_sec)).wrapping_mul(1_000_000_000)
            + u64::from(nanoseconds & NANOSECONDS_MASK)
    }

    /// Bits of [`exec_flags`] that say whether it has a name.
    #[inline(always)]
    pub fn name_flags(self) -> u32 {
        if self.0.follow(offset!(file_inode)).load::<u32>(offset!(inode_links)) != 0 {
            return 0;
        }
        let name = self.0.follow(offset!(file_dentry)).probed().follow(offset!(dentry_name));
        // No text of a directory entry is shorter than the room it has within the entry.
        let beginning: u64 = name.load(0);
        let is_memfd = u64::from_be(beginning) >> 16 == u64::from_be_bytes(*b"\0\0memfd:");
        if is_memfd { exec_flags::MEMFD } else { exec_flags::DELETED }
    }

    /// Whether it is open for reading.
    #[inline(always)]
    pub fn is_readable(self) -> bool {
        self.0.load::<u32>(offset!(file_mode)) & FMODE_READ != 0
    }

    /// Its file system, as a place of credential files.
    #[inline(always)]
    pub fn file_system(self) -> FileId {
        FileId { inode: 0, ..id_of(self.0.follow(offset!(file_inode))) }
    }

    /// The directory it lies in, whatever it is mounted at, as a place of credential files.
    #[inline(always)]
    pub fn directory(self) -> FileId {
        let directory = self.0.follow(offset!(file_dentry)).follow(offset!(dentry_parent));
        id_of(directory.follow(offset!(dentry_inode)))
    }

    /// Writes its path as the current task sees it and returns the length; 0 when there is no room.
    ///
    /// # Safety
    /// `to` must point to room for [`FILE_PATH_MAX`] bytes.
    #[inline(always)]
    pub unsafe fn path(self, to: *mut u8) -> u32 {
        let path = self.0.address.wrapping_add(offset!(file_path) as usize);
        // SAFETY: `path` is the address of a `struct path`, as the verifier checks; see above for `to`.
        let len = unsafe { bpf_d_path(path.cast_mut().cast(), to.cast(), FILE_PATH_MAX as u32) };
        // The NUL counts.
        if len > 1 { len as u32 - 1 } else { 0 }
    }
}

/// The identity of an inode.
#[inline(always)]
pub(super) fn id_of<A: Access>(inode: Pointer<A>) -> FileId {
    let device: u32 = inode.follow(offset!(inode_sb)).load(offset!(sb_device));
    FileId { inode: inode.load(offset!(inode_number)), device, reserved: 0 }
}
