//! Constants that the loader writes into the instructions of the probes.
//!
//! A probe needs a constant that is known at load only (an offset, a setting) as `dst = NUMBER ll`, a 64-bit immediate
//! load whose upper half is [`MAGIC`] and whose lower half says which constant. The loader overwrites the number before
//! the kernel sees the program, so that the verifier takes it for a constant and removes the branches that depend on it.
//! A read-only global gives the verifier the same knowledge, but costs the probe a load from memory that nothing else
//! keeps in the cache: 25 ns of the 60 that a transition of an unwatched socket took.

use crate::offsets::Offsets;
use crate::settings::Settings;

/// Upper half of a placeholder; no other constant in the probes has it.
pub const MAGIC: u32 = 0x7177_6b63;

/// Number of `u32` constants in [`Offsets`].
pub const OFFSETS_LEN: usize = size_of::<Offsets>() / 4;
/// Number of `u32` constants in [`Settings`].
pub const SETTINGS_LEN: usize = size_of::<Settings>() / 4;
/// Number of constants; lower halves of placeholders are smaller.
pub const LEN: usize = OFFSETS_LEN + SETTINGS_LEN;

/// Returns the placeholder of the member of [`Offsets`] that lies `at` bytes behind its beginning.
#[must_use]
pub const fn of_offset(at: usize) -> u64 {
    (MAGIC as u64) << 32 | (at / 4) as u64
}

/// Returns the placeholder of the member of [`Settings`] that lies `at` bytes behind its beginning.
#[must_use]
pub const fn of_setting(at: usize) -> u64 {
    (MAGIC as u64) << 32 | (OFFSETS_LEN + at / 4) as u64
}
