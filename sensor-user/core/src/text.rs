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
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(until_nul(&self.0))
    }

    /// The name as shared text.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::from(self.text())
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

/// Splits an argument vector as the kernel keeps it (each argument ended by NUL).
///
/// Returns the arguments and whether some were left out for [`ARGS_COUNT_MAX`]. Empty arguments in between are
/// arguments; the NUL that ends the last one begins none.
#[must_use]
pub fn split_args(bytes: &[u8]) -> (Arc<[Arc<str>]>, bool) {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    if bytes.is_empty() {
        return (Arc::from([]), false);
    }
    let mut parts = bytes.split(|byte| *byte == 0);
    let args: Vec<_> = parts.by_ref().take(ARGS_COUNT_MAX).map(shared).collect();
    (args.into(), parts.next().is_some())
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
        split_args(bytes).0.iter().map(ToString::to_string).collect()
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
        let (exact, cut) = split_args(&b"a\0".repeat(ARGS_COUNT_MAX));
        assert_eq!((exact.len(), cut), (ARGS_COUNT_MAX, false));
        let (kept, cut) = split_args(&b"a\0".repeat(ARGS_COUNT_MAX + 1));
        assert_eq!((kept.len(), cut), (ARGS_COUNT_MAX, true));
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
