//! `struct fdtable`: what a process has open.

use super::{Access, File, Pointer, Probed, Task};
use crate::constants::offset;

/// The open files of a process. Read without a lock: the process that is asked about is the current one, and what its other
/// threads open or close meanwhile may be seen or not.
#[derive(Clone, Copy)]
pub struct Descriptors {
    files: Pointer<Probed>,
    len: u32,
}

impl<A: Access> Task<A> {
    /// Its open files.
    #[inline(always)]
    pub fn descriptors(self) -> Descriptors {
        let table = self.0.probed().follow(offset!(task_files)).follow(offset!(files_table));
        Descriptors { files: table.follow(offset!(table_files)), len: table.load(offset!(table_len)) }
    }
}

impl Descriptors {
    /// Number of places, taken or not.
    #[inline(always)]
    pub fn len(self) -> u64 {
        u64::from(self.len)
    }

    /// The file with this number, which must be less than [`Self::len`]; `None` for a free place.
    #[inline(always)]
    pub fn get(self, number: u64) -> Option<File<Probed>> {
        let file = self.files.follow(number.wrapping_mul(8));
        if file.address.is_null() { None } else { Some(File(file)) }
    }
}
