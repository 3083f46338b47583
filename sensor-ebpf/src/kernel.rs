//! The only place that reads kernel structures.
//!
//! Members are found through the offsets of the running kernel. Where the verifier knows the type of a pointer they are
//! loaded directly, which costs a tenth of a helper call; strings, untyped pointers and members behind a runtime index
//! go through the probe-read helpers, and so does everything on kernels that give an untyped pointer only. Which way a
//! pointer is read is part of its type. A failed read gives zero, as the kernel does for a failed direct load.

mod descriptors;
mod file;
mod sock;
mod task;
mod unix;

use core::arch::asm;
use core::marker::PhantomData;
use core::ptr;

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user};

use crate::constants::offset;
pub use sock::{Tcp, mapped};
pub(crate) use task::with_current;
pub use task::{current_cgroup_id, has_typed_current, typed_current, untyped_current};
pub use unix::{Buffer, Unix, written};

/// How the members behind a pointer are read.
pub trait Access: Copy {
    /// Reads a `T` at `base + offset`.
    fn load<T: Copy>(base: *const u8, offset: u64) -> T;
}

/// By a load instruction; for pointers whose type the verifier knows.
#[derive(Clone, Copy)]
pub struct Direct;

/// By a helper; for all others.
#[derive(Clone, Copy)]
pub struct Probed;

impl Access for Direct {
    #[inline(always)]
    fn load<T: Copy>(base: *const u8, offset: u64) -> T {
        // SAFETY: the verifier knows the type of `base` and turns a faulting load into zero. Volatile, so that it stays
        // one load of this width. The kernel tolerates misaligned loads on the architectures we build for.
        unsafe { ptr::read_volatile(base.wrapping_add(offset as usize).cast()) }
    }
}

impl Access for Probed {
    #[inline(always)]
    fn load<T: Copy>(base: *const u8, offset: u64) -> T {
        let mut value = core::mem::MaybeUninit::<T>::zeroed();
        // SAFETY: the helper writes `size_of::<T>()` bytes to `value`, zeroes when it cannot read; `T` is always an
        // integer, an array of them or a raw pointer, for which every bit pattern is valid.
        unsafe {
            bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                base.wrapping_add(offset as usize).cast(),
            );
            value.assume_init()
        }
    }
}

/// A pointer to a kernel structure.
#[derive(Clone, Copy)]
pub struct Pointer<A> {
    address: *const u8,
    access: PhantomData<A>,
}

impl<A: Access> Pointer<A> {
    #[inline(always)]
    const fn new(address: *const u8) -> Self {
        Self { address, access: PhantomData }
    }

    #[inline(always)]
    fn load<T: Copy>(self, offset: u64) -> T {
        A::load(self.address, offset)
    }

    #[inline(always)]
    fn follow(self, offset: u64) -> Self {
        Self::new(self.load(offset))
    }

    #[inline(always)]
    const fn probed(self) -> Pointer<Probed> {
        Pointer::new(self.address)
    }
}

macro_rules! structure {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name<A>(Pointer<A>);

        impl<A: Access> $name<A> {
            /// Wraps an address that the kernel gave us as a pointer to this structure.
            #[inline(always)]
            pub const fn new(address: *const u8) -> Self {
                Self(Pointer::new(address))
            }
        }
    };
}

structure! {
    /// `struct task_struct`.
    Task
}
structure! {
    /// `struct cgroup`.
    Cgroup
}
structure! {
    /// `struct sock`.
    Sock
}
structure! {
    /// `struct linux_binprm`.
    Program
}
structure! {
    /// `struct file`.
    File
}

impl<A: Access> Cgroup<A> {
    /// `kernfs_node.id`.
    #[inline(always)]
    pub fn id(self) -> u64 {
        self.0.follow(offset!(cgroup_kn)).load(offset!(kn_id))
    }

    /// Id of the hierarchy it belongs to.
    #[inline(always)]
    pub fn hierarchy(self) -> u32 {
        self.0.follow(offset!(cgroup_root)).load(offset!(root_hierarchy_id))
    }

    /// Address of its own name, a string in kernel memory.
    #[inline(always)]
    pub fn name(self) -> *const u8 {
        self.0.follow(offset!(cgroup_kn)).load(offset!(kn_name))
    }
}

impl<A: Access> Program<A> {
    /// Address of the file name given to exec, a string in kernel memory.
    #[inline(always)]
    pub fn file_name(self) -> *const u8 {
        self.0.load(offset!(bprm_filename))
    }

    /// Whether an interpreter runs it.
    #[inline(always)]
    pub fn is_script(self) -> bool {
        self.0.load::<u64>(offset!(bprm_interp)) != self.0.load::<u64>(offset!(bprm_filename))
    }

    /// The file that is loaded: of a script, its interpreter.
    #[inline(always)]
    pub fn file(self) -> File<A> {
        File(self.0.follow(offset!(bprm_file)))
    }
}

/// Copies a string from kernel memory, at most `size - 1` bytes of it and a NUL. Returns its length without the NUL, or
/// `None` when it cannot be read.
///
/// # Safety
/// `to` must point to room for `size` bytes.
#[inline(always)]
pub unsafe fn copy_string(to: *mut u8, size: u32, from: *const u8) -> Option<u64> {
    // SAFETY: see above.
    let copied = unsafe { bpf_probe_read_kernel_str(to.cast(), size, from.cast()) };
    if copied > 0 { Some(opaque(copied as u64 - 1)) } else { None }
}

/// Copies `len` bytes from the memory of the current process; tells whether it could.
///
/// # Safety
/// `to` must point to room for `len` bytes.
#[inline(always)]
pub unsafe fn copy_from_user(to: *mut u8, len: u32, from: u64) -> bool {
    // SAFETY: see above.
    unsafe { bpf_probe_read_user(to.cast(), len, from as *const core::ffi::c_void) == 0 }
}

/// Copies `len` bytes from the memory of the kernel; tells whether it could.
///
/// # Safety
/// `to` must point to room for `len` bytes.
#[inline(always)]
pub unsafe fn copy_from_kernel(to: *mut u8, len: u32, from: u64) -> bool {
    // SAFETY: see above.
    unsafe { bpf_probe_read_kernel(to.cast(), len, from as *const core::ffi::c_void) == 0 }
}

/// Hides from the compiler what it knows of a number, so that it keeps the masks which the verifier needs to see. Older
/// verifiers do not carry a bound from one register to a copy of it.
#[inline(always)]
pub fn opaque(mut number: u64) -> u64 {
    // SAFETY: moves a register onto itself. Without an instruction the kernel would reject the line information.
    unsafe { asm!("{number} = {number}", number = inout(reg) number, options(pure, nomem, nostack)) };
    number
}
