//! Links: what keeps a program attached.
//!
//! Made here and not by aya, which keeps the descriptor of a link to itself: only with it the kernel tells whether the
//! link still holds a program in its place.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use super::hooks::PacketDirection;

/// Commands of `bpf(2)`, from `enum bpf_cmd`.
mod command {
    pub const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    pub const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
    pub const LINK_CREATE: libc::c_long = 28;
}

/// `BPF_LINK_TYPE_CGROUP`.
const LINK_TYPE_CGROUP: u32 = 3;
/// `BPF_CGROUP_INET_INGRESS`.
const CGROUP_INET_INGRESS: u32 = 0;
/// `BPF_CGROUP_INET_EGRESS`.
const CGROUP_INET_EGRESS: u32 = 1;

/// The part of `union bpf_attr` for [`command::RAW_TRACEPOINT_OPEN`].
#[repr(C)]
struct RawTracepointOpen {
    /// Null: a program with typed arguments knows its place since it was loaded.
    name: u64,
    program: u32,
    reserved: u32,
}

/// The part of `union bpf_attr` for [`command::LINK_CREATE`].
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// The part of `union bpf_attr` for [`command::OBJ_GET_INFO_BY_FD`].
#[repr(C)]
struct GetInfo {
    object: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`, as it is for a cgroup link.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
    /// 0 once the link was detached.
    cgroup: u64,
}

/// An attached program; dropping it detaches.
#[derive(Debug)]
pub(super) struct Link(OwnedFd);

impl Link {
    /// Attaches a program that knows its place since it was loaded: on a tracepoint with typed arguments, on a function,
    /// on a hook of the security modules.
    pub(super) fn attach(program: BorrowedFd<'_>) -> io::Result<Self> {
        let mut attributes = RawTracepointOpen { name: 0, program: raw(program), reserved: 0 };
        bpf(command::RAW_TRACEPOINT_OPEN, &mut attributes).and_then(Self::from_answer)
    }

    /// Attaches a program to the packets of the sockets of a cgroup and all below.
    pub(super) fn attach_to_cgroup(
        program: BorrowedFd<'_>,
        cgroup: BorrowedFd<'_>,
        direction: PacketDirection,
    ) -> io::Result<Self> {
        let attach_type = match direction {
            PacketDirection::Ingress => CGROUP_INET_INGRESS,
            PacketDirection::Egress => CGROUP_INET_EGRESS,
        };
        // A link is beside the programs of others by its nature; the kernel takes no flag that asks for it.
        let mut attributes = LinkCreate { program: raw(program), target: raw(cgroup), attach_type, flags: 0 };
        bpf(command::LINK_CREATE, &mut attributes).and_then(Self::from_answer)
    }

    /// Whether the program is still in its place. Somebody else can force a link off a cgroup, or close the descriptor of
    /// any link in this process.
    pub(super) fn is_attached(&self) -> bool {
        let mut info = LinkInfo::default();
        let mut attributes = GetInfo {
            object: raw(self.0.as_fd()),
            info_len: size_of::<LinkInfo>() as u32,
            info: &raw mut info as u64,
        };
        bpf(command::OBJ_GET_INFO_BY_FD, &mut attributes).is_ok()
            && (info.kind != LINK_TYPE_CGROUP || info.cgroup != 0)
    }

    fn from_answer(descriptor: libc::c_long) -> io::Result<Self> {
        let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }
}

fn raw(descriptor: BorrowedFd<'_>) -> u32 {
    descriptor.as_raw_fd().cast_unsigned()
}

/// Calls `bpf(2)` with a part of `union bpf_attr`; the kernel takes what is missing as zero.
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` are of the type and size of the command.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

#[cfg(test)]
impl Link {
    /// A link in name only.
    pub(super) fn dummy() -> Self {
        Self(std::fs::File::open("/dev/null").expect("it is there").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_that_is_no_link_holds_no_program() {
        assert!(!Link::dummy().is_attached());
    }
}
