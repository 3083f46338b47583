//! JA4: a fingerprint of the program that made a ClientHello.
//!
//! The order in which a client lists ciphers and extensions does not count, because some clients shuffle it, and neither do
//! the name it asks for and the values that stand for nothing. What remains differs between TLS libraries, their versions and
//! how a program sets them up.

use std::fmt::Write as _;
use std::ops::RangeFrom;

use sha2::{Digest as _, Sha256};

use super::hello::{ALPN, ClientHello, SERVER_NAME};

/// Hex digits kept of a digest.
const DIGEST_LEN: usize = 12;
/// The part of a fingerprint that is the same whatever name is asked for and whatever is to be spoken inside.
pub const SOFTWARE: RangeFrom<usize> = 11..;
/// What stands for the digest of nothing.
const NOTHING: &str = "000000000000";
/// The greatest number that is told.
const COUNT_MAX: usize = 99;

/// The fingerprint, 36 bytes such as `t13d1516h2_8daaf6152771_e5627efa2ab1`. A flawed hello has none: what could be read of
/// it depends on where it was cut.
///
/// Source: [JA4](https://github.com/FoxIO-LLC/ja4/blob/main/technical_details/JA4.md).
#[must_use]
pub fn ja4(hello: &ClientHello) -> Option<String> {
    if hello.flaw.is_some() {
        return None;
    }
    let [ciphers, extensions] = lists(hello).map(|list| digest(&list));
    Some(format!("{}_{ciphers}_{extensions}", properties(hello)))
}

/// The fingerprint's lists as they are, not their digests.
#[cfg(test)]
fn raw(hello: &ClientHello) -> String {
    let [ciphers, extensions] = lists(hello);
    format!("{}_{ciphers}_{extensions}", properties(hello))
}

/// The part that is readable: transport, version, whether a name is asked for, how many ciphers and extensions, and the
/// first protocol.
fn properties(hello: &ClientHello) -> String {
    let version = match hello.versions.iter().max() {
        Some(0x0304) => "13",
        Some(0x0303) => "12",
        Some(0x0302) => "11",
        Some(0x0301) => "10",
        Some(0x0300) => "s3",
        Some(0x0002) => "s2",
        Some(0xfeff) => "d1",
        Some(0xfefd) => "d2",
        Some(0xfefc) => "d3",
        _ => "00",
    };
    let name = if hello.extensions.contains(&SERVER_NAME) { 'd' } else { 'i' };
    let count = |list: &[u16]| list.len().min(COUNT_MAX);
    let (ciphers, extensions) = (count(&hello.ciphers), count(&hello.extensions));
    let [first, last] = protocol(hello.alpn.first().map_or(&[], Vec::as_slice));
    format!("t{version}{name}{ciphers:02}{extensions:02}{first}{last}")
}

/// First and last character of a protocol's name, or of its hex digits where one of them is neither letter nor digit.
fn protocol(name: &[u8]) -> [char; 2] {
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return ['0', '0'] };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [char::from(*first), char::from(*last)];
    }
    [first >> 4, last & 0xf].map(|digit| char::from_digit(digit.into(), 16).expect("invariant: four bits"))
}

/// What the digests are of: the ciphers; the extensions without those that the readable part tells of, and the signature
/// algorithms. Everything is in order of number but the algorithms, whose order is the client's.
fn lists(hello: &ClientHello) -> [String; 2] {
    let told = |kind: &u16| [SERVER_NAME, ALPN].contains(kind);
    let mut ciphers = hello.ciphers.clone();
    let mut extensions: Vec<u16> = hello.extensions.iter().copied().filter(|kind| !told(kind)).collect();
    ciphers.sort_unstable();
    extensions.sort_unstable();
    let mut second = joined(&extensions);
    if !extensions.is_empty() && !hello.signature_algorithms.is_empty() {
        second.push('_');
        second.push_str(&joined(&hello.signature_algorithms));
    }
    [joined(&ciphers), second]
}

fn joined(values: &[u16]) -> String {
    let mut text = String::with_capacity(values.len() * 5);
    for (index, value) in values.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(text, "{comma}{value:04x}").expect("invariant: a string takes all");
    }
    text
}

fn digest(list: &str) -> String {
    if list.is_empty() {
        return NOTHING.to_owned();
    }
    let mut digits = String::with_capacity(DIGEST_LEN);
    for byte in &Sha256::digest(list)[..DIGEST_LEN / 2] {
        write!(digits, "{byte:02x}").expect("invariant: a string takes all");
    }
    digits
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
