//! Bytes from outside to shared text.
//!
//! Whatever a hostile program puts into a name or an argument is data: invalid UTF-8 becomes U+FFFD, and nothing here
//! can fail.

use std::borrow::Cow;
use std::sync::Arc;

use sensor_common::record::COMM_LEN;

/// Most arguments kept of one process; what is beyond counts as cut.
pub const ARGS_COUNT_MAX: usize = 512;

/// A kernel task name as it came: 16 bytes, NUL padded. Compared and copied often, turned into text seldom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Comm(pub [u8; COMM_LEN]);

impl Comm {
    /// The name up to its NUL.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        until_nul(&self.0)
    }

    /// The name as text.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.bytes())
    }

    /// The name as shared text.
    pub fn shared(&self, texts: &mut Texts) -> Arc<str> {
        texts.share(self.bytes())
    }
}

impl From<&str> for Comm {
    /// Keeps the first 15 bytes, as the kernel does.
    fn from(name: &str) -> Self {
        let mut comm = [0; COMM_LEN];
        let kept = name.len().min(COMM_LEN - 1);
        comm[..kept].copy_from_slice(&name.as_bytes()[..kept]);
        Self(comm)
    }
}

/// The part of a field before its first NUL.
#[must_use]
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.iter().position(|byte| *byte == 0).map_or(bytes, |end| &bytes[..end])
}

/// Shared text of bytes from outside.
#[must_use]
pub fn shared(bytes: &[u8]) -> Arc<str> {
    // Checking first is several times faster than the lossy conversion, and nearly all text is sound.
    match std::str::from_utf8(bytes) {
        Ok(text) => Arc::from(text),
        Err(_) => Arc::from(String::from_utf8_lossy(bytes)),
    }
}

/// Short texts that were seen lately, shared instead of copied.
///
/// Programs, options and names repeat: most of an exec's texts are those of an exec before. A text has one slot by its
/// hash, and a newer one simply takes it, so the memory is bounded and a hostile stream only makes it useless.
#[derive(Clone, Debug)]
pub struct Texts {
    slots: Box<[Option<Arc<str>>]>,
    /// Room for the arguments of one program; empty in between.
    args: Vec<Arc<str>>,
}

impl Texts {
    const SLOTS: usize = 2048;
    /// Longer texts are seldom the same.
    const LEN_MAX: usize = 64;

    /// Shared text of bytes from outside, the same copy as last time if it is still here.
    pub fn share(&mut self, bytes: &[u8]) -> Arc<str> {
        if bytes.len() > Self::LEN_MAX {
            return shared(bytes);
        }
        let slot = &mut self.slots[slot_of(bytes) % Self::SLOTS];
        match slot {
            Some(known) if known.as_bytes() == bytes => known.clone(),
            _ => slot.insert(shared(bytes)).clone(),
        }
    }

    /// Splits an argument vector as the kernel keeps it (each argument ended by NUL).
    ///
    /// Returns the arguments and whether some were left out for [`ARGS_COUNT_MAX`]. Empty arguments in between are
    /// arguments; the NUL that ends the last one begins none.
    pub fn split_args(&mut self, bytes: &[u8]) -> (Arc<[Arc<str>]>, bool) {
        let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
        if bytes.is_empty() {
            return (Arc::from([]), false);
        }
        let mut parts = bytes.split(|byte| *byte == 0);
        let mut args = std::mem::take(&mut self.args);
        args.extend(parts.by_ref().take(ARGS_COUNT_MAX).map(|part| self.share(part)));
        let shared = args.drain(..).collect();
        self.args = args;
        (shared, parts.next().is_some())
    }
}

impl Default for Texts {
    fn default() -> Self {
        Self { slots: vec![None; Self::SLOTS].into(), args: Vec::new() }
    }
}

/// FNV-1a over eight bytes at a time: the choice of a slot only has to be quick and spread well.
fn slot_of(bytes: &[u8]) -> usize {
    hash(bytes) as usize
}

/// The same in every run, unlike the hashes of the standard library: for tables that only remember what was seen.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(PRIME);
    }
    hash ^ (hash >> 32)
}

/// Last component of a path.
#[must_use]
pub fn basename(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// Appends a number in lower-case hex without leading zeros: ids are made for every fact, `format!` is too slow there.
pub(crate) fn push_hex(text: &mut String, number: u64) {
    let digits = (16 - number.leading_zeros() as usize / 4).max(1);
    for shift in (0..digits).rev() {
        let digit = (number >> (shift * 4)) & 0xf;
        text.push(char::from(b"0123456789abcdef"[digit as usize]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(bytes: &[u8]) -> Vec<String> {
        Texts::default().split_args(bytes).0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn comm_ends_at_its_first_nul() {
        assert_eq!(Comm(*b"runc\0leftover\0\0\0").text(), "runc");
        assert_eq!(Comm(*b"0123456789abcdef").text(), "0123456789abcdef");
        assert_eq!(Comm::from("containerd-shim-runc-v2").text(), "containerd-shim");
    }

    #[test]
    fn invalid_utf8_becomes_the_replacement_character() {
        assert_eq!(&*shared(b"a\xffb"), "a\u{fffd}b");
    }

    #[test]
    fn arguments_are_split_at_nul_and_empty_ones_are_kept() {
        assert_eq!(args(b"sh\0-c\0\0echo hi\0"), ["sh", "-c", "", "echo hi"]);
        assert_eq!(args(b"cut off here"), ["cut off here"]);
        assert!(args(b"").is_empty());
    }

    #[test]
    fn too_many_arguments_are_cut_and_said_so() {
        let mut texts = Texts::default();
        let (exact, cut) = texts.split_args(&b"a\0".repeat(ARGS_COUNT_MAX));
        assert_eq!((exact.len(), cut), (ARGS_COUNT_MAX, false));
        let (kept, cut) = texts.split_args(&b"a\0".repeat(ARGS_COUNT_MAX + 1));
        assert_eq!((kept.len(), cut), (ARGS_COUNT_MAX, true));
    }

    #[test]
    fn repeated_text_is_one_copy_and_a_collision_only_costs_one() {
        let mut texts = Texts::default();
        let first = texts.share(b"--root");
        assert!(Arc::ptr_eq(&first, &texts.share(b"--root")));
        for number in 0..10 * Texts::SLOTS {
            assert_eq!(*texts.share(number.to_string().as_bytes()), number.to_string());
        }
        assert_eq!(&*texts.share(b"--root"), "--root");
        let long = "x".repeat(Texts::LEN_MAX + 1);
        assert_eq!(*texts.share(long.as_bytes()), long);
    }

    #[test]
    fn invalid_text_is_never_taken_for_the_valid_one_it_becomes() {
        let mut texts = Texts::default();
        assert_eq!(&*texts.share(b"a\xff"), "a\u{fffd}");
        assert_eq!(&*texts.share("a\u{fffd}".as_bytes()), "a\u{fffd}");
    }

    #[test]
    fn hex_has_no_leading_zeros() {
        let hex = |number| {
            let mut text = String::new();
            push_hex(&mut text, number);
            text
        };
        for number in [0, 1, 0xf, 0x10, 0xabc, u64::MAX] {
            assert_eq!(hex(number), format!("{number:x}"));
        }
    }
}
