//! Constants that are known at load only, see [`sensor_common::placeholder`].

/// The offset of a member in the running kernel, or [`ABSENT`]; a `u64`.
macro_rules! offset {
    ($field:ident) => {
        $crate::constants::placeholder!($crate::constants::of_offset(core::mem::offset_of!(
            $crate::constants::Offsets,
            $field
        )))
    };
}
pub(crate) use offset;

/// A setting of this run; a `u64`.
macro_rules! setting {
    ($field:ident) => {
        $crate::constants::placeholder!($crate::constants::of_setting(core::mem::offset_of!(
            $crate::constants::Settings,
            $field
        )))
    };
}
pub(crate) use setting;

/// An immediate load that the loader completes. Assembly, because the compiler must not know the number.
macro_rules! placeholder {
    ($number:expr) => {{
        let constant: u64;
        // SAFETY: loads a number into a register.
        #[allow(unused_unsafe, reason = "callers may be unsafe blocks")]
        unsafe {
            core::arch::asm!(
                "{constant} = {number} ll",
                constant = out(reg) constant,
                number = const $number,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        constant
    }};
}
pub(crate) use placeholder;
pub use sensor_common::offsets::Offsets;
pub use sensor_common::placeholder::{of_offset, of_setting};
pub use sensor_common::settings::Settings;

/// [`sensor_common::offsets::ABSENT`], as [`offset!`] gives it.
pub const ABSENT: u64 = sensor_common::offsets::ABSENT as u64;
