//! A hash of which nobody outside can choose the value, because it is salted anew for each run.

use crate::constants::setting;

/// What a hash begins with.
#[inline(always)]
pub fn salt() -> u64 {
    setting!(flood_salt_upper) << 32 | setting!(flood_salt)
}

/// Mixes a number into a hash.
#[inline(always)]
pub fn mix(hash: u64, number: u64) -> u64 {
    let product = (hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

/// Makes every bit of a hash depend on every other one (the finaliser of MurmurHash3), so that what is taken from one
/// end of it says nothing of what is taken from the other.
#[inline(always)]
pub fn finish(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}
