//! The maps and links of a running sensor, as any other program with root's rights can reach them.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};

/// Commands of `bpf(2)`, from `enum bpf_cmd`.
mod command {
    pub const MAP_LOOKUP_ELEM: libc::c_long = 1;
    pub const MAP_UPDATE_ELEM: libc::c_long = 2;
    pub const PROG_LOAD: libc::c_long = 5;
    pub const MAP_GET_NEXT_ID: libc::c_long = 12;
    pub const PROG_GET_FD_BY_ID: libc::c_long = 13;
    pub const MAP_GET_FD_BY_ID: libc::c_long = 14;
    pub const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    pub const LINK_UPDATE: libc::c_long = 29;
    pub const LINK_GET_FD_BY_ID: libc::c_long = 30;
    pub const LINK_GET_NEXT_ID: libc::c_long = 31;
    pub const LINK_DETACH: libc::c_long = 34;
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_bytes: u32,
    value_bytes: u32,
    max_entries: u32,
    flags: u32,
    name: [u8; 16],
}

/// The beginning of `struct bpf_link_info`.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    before: [u64; 8],
    name: [u8; 16],
}

/// The beginning of the part of `union bpf_attr` for [`command::PROG_LOAD`].
#[repr(C)]
struct LoadProgram {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
}

/// Detaches the youngest link of the program of this name. The kernel allows that for links to cgroups.
///
/// # Errors
/// When there is none, or no right to look, or the kernel refuses.
pub fn detach(program: &str) -> Result<()> {
    let link = link_of(program)?;
    let mut attributes = [link.as_raw_fd().cast_unsigned(), 0, 0];
    call(command::LINK_DETACH, &mut attributes).with_context(|| format!("detaching {program}")).map(drop)
}

/// Puts a program that lets every packet pass, and does nothing else, in the place of the youngest one of this name, on
/// packets of a cgroup: the link stays as it is.
///
/// # Errors
/// When there is none, or no right for it.
pub fn silence(program: &str) -> Result<()> {
    /// `BPF_PROG_TYPE_CGROUP_SKB`.
    const CGROUP_SKB: u32 = 8;
    /// `r0 = 1` and `exit`, of `struct bpf_insn`.
    const CODE: [u64; 2] = [0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];
    let mut attributes = LoadProgram {
        kind: CGROUP_SKB,
        instructions: CODE.len() as u32,
        code: CODE.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
    };
    let loaded = call(command::PROG_LOAD, &mut attributes).context("loading a program")?;
    // SAFETY: the kernel has just made this descriptor for us.
    let silent = unsafe { OwnedFd::from_raw_fd(i32::try_from(loaded)?) };
    let link = link_of(program)?;
    let mut attributes = [link.as_raw_fd().cast_unsigned(), silent.as_raw_fd().cast_unsigned(), 0, 0];
    call(command::LINK_UPDATE, &mut attributes).with_context(|| format!("replacing {program}")).map(drop)
}

/// The youngest link of the program of this name.
fn link_of(program: &str) -> Result<OwnedFd> {
    let mut found = None;
    let mut ids = [0_u32, 0, 0];
    while call(command::LINK_GET_NEXT_ID, &mut ids).is_ok() {
        ids[0] = ids[1];
        // Link and program may go between the calls.
        let Ok(link) = open(command::LINK_GET_FD_BY_ID, ids[1]) else { continue };
        let LinkInfo { program: id, .. } = info(&link)?;
        let Ok(of_link) = open(command::PROG_GET_FD_BY_ID, id) else { continue };
        let ProgramInfo { name, .. } = info(&of_link)?;
        if text(&name) == program.as_bytes() {
            found = Some(link);
        }
    }
    found.with_context(|| format!("no link of {program}"))
}

fn open(command: libc::c_long, id: u32) -> io::Result<OwnedFd> {
    let descriptor = call(command, &mut [id, 0, 0])?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(descriptor).map_err(io::Error::other)?) })
}

/// A name without the zeros behind it.
fn text(name: &[u8]) -> &[u8] {
    &name[..name.iter().position(|byte| *byte == 0).unwrap_or(name.len())]
}

/// An array of one value that a sensor uses.
#[derive(Debug)]
pub struct SharedArray {
    map: OwnedFd,
    value_bytes: usize,
}

impl SharedArray {
    /// Finds the youngest map of this name.
    ///
    /// # Errors
    /// When there is none, or no right to look.
    pub fn find(name: &str) -> Result<Self> {
        let mut found = None;
        let mut ids = [0_u32, 0, 0];
        while call(command::MAP_GET_NEXT_ID, &mut ids).is_ok() {
            ids[0] = ids[1];
            // A map may go between the two calls.
            let Ok(map) = open(command::MAP_GET_FD_BY_ID, ids[1]) else { continue };
            let info: MapInfo = info(&map)?;
            if text(&info.name) == name.as_bytes() {
                found = Some(Self { map, value_bytes: info.value_bytes as usize });
            }
        }
        found.with_context(|| format!("no map {name}"))
    }

    /// Reads the value.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn read(&self) -> Result<Vec<u8>> {
        let mut value = vec![0; self.value_bytes];
        self.element(command::MAP_LOOKUP_ELEM, value.as_mut_ptr()).context("reading a map")?;
        Ok(value)
    }

    /// Replaces the value.
    ///
    /// # Errors
    /// When it has another length, or the kernel refuses.
    pub fn write(&self, value: &[u8]) -> Result<()> {
        ensure!(value.len() == self.value_bytes, "{} bytes, not {}", self.value_bytes, value.len());
        self.element(command::MAP_UPDATE_ELEM, value.as_ptr().cast_mut()).context("writing a map")
    }

    fn element(&self, command: libc::c_long, value: *mut u8) -> io::Result<()> {
        let key = 0_u32;
        let map = self.map.as_raw_fd().cast_unsigned();
        let mut attributes = [u64::from(map), &raw const key as u64, value as u64, 0];
        call(command, &mut attributes).map(drop)
    }
}

/// The beginning of what the kernel says of an object; `T` is of its kind.
fn info<T: Default>(object: &OwnedFd) -> io::Result<T> {
    let mut info = T::default();
    let object = u64::from(object.as_raw_fd().cast_unsigned());
    let mut attributes = [object | (size_of::<T>() as u64) << 32, &raw mut info as u64];
    call(command::OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info)
}

/// Calls `bpf(2)` with a part of `union bpf_attr`; the kernel takes what is missing as zero.
fn call<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` are of the type and size of the command, and what they point to outlives the call.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
