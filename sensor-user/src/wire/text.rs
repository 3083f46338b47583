//! The pieces of a JSON line, appended to a buffer: texts, numbers, addresses.
//!
//! Texts are looked at eight bytes at a time, because most need no escape.

use std::io::Write as _;
use std::net::IpAddr;

/// Appends a text in quotes.
pub fn push_text(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    // Room for all of a text without escapes, so that nothing below has to ask again.
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    if needs_no_escape(bytes) {
        out.extend_from_slice(bytes);
    } else {
        push_escaped(out, bytes);
    }
    out.push(b'"');
}

/// Appends a number.
pub fn push_number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends an address in quotes.
pub fn push_ip(out: &mut Vec<u8>, ip: IpAddr) {
    out.push(b'"');
    match ip {
        IpAddr::V4(v4) => {
            for (index, octet) in v4.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                push_number(out, octet.into());
            }
        }
        IpAddr::V6(v6) => write!(out, "{v6}").expect("invariant: memory can be written"),
    }
    out.push(b'"');
}

#[cold]
fn push_escaped(out: &mut Vec<u8>, mut bytes: &[u8]) {
    while let Some(clean) = bytes.iter().position(|byte| is_special(*byte)) {
        out.extend_from_slice(&bytes[..clean]);
        push_escape(out, bytes[clean]);
        bytes = &bytes[clean + 1..];
    }
    out.extend_from_slice(bytes);
}

fn push_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        0..=0x1f => {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            return;
        }
        // The quote and the backslash themselves.
        _ => byte,
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Whether JSON wants the byte escaped.
const fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Whether no byte is special; eight at a time, the last eight overlapping those before.
fn needs_no_escape(bytes: &[u8]) -> bool {
    match bytes.last_chunk::<8>() {
        Some(last) => {
            let (blocks, _) = bytes.as_chunks::<8>();
            let found = blocks.iter().fold(specials(*last), |found, block| found | specials(*block));
            found == 0
        }
        None => !bytes.iter().any(|byte| is_special(*byte)),
    }
}

/// Returns zero if no byte of the block is special.
///
/// Subtracting n from each byte sets its top bit if it is below n, and borrows from its neighbour only if it is; so
/// the result can name a wrong neighbour, but is never zero by mistake and never else when nothing is below.
const fn specials(block: [u8; 8]) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = ONES << 7;
    let word = u64::from_le_bytes(block);
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    (control | (quote.wrapping_sub(ONES) & !quote) | (backslash.wrapping_sub(ONES) & !backslash)) & TOPS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> String {
        let mut out = Vec::new();
        push_text(&mut out, text);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn every_ascii_byte_at_every_place_is_written_as_it_should_be() {
        for byte in 0_u8..128 {
            for place in 0..20 {
                let mut bytes = [b'x'; 20];
                bytes[place] = byte;
                let plain = std::str::from_utf8(&bytes).expect("ASCII");
                for plain in [plain, &plain[..=place], &plain[place..]] {
                    assert_eq!(text(plain), serde_json::to_string(plain).expect("JSON"));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_are_those_of_serde_json(any: String, quoted in "[\"\\\\\\n\\x00a-zé]{0,80}", number: u64, ip: IpAddr) {
            prop_assert_eq!(text(&any), serde_json::to_string(&any).expect("JSON"));
            prop_assert_eq!(text(&quoted), serde_json::to_string(&quoted).expect("JSON"));
            let mut out = Vec::new();
            push_number(&mut out, number);
            prop_assert_eq!(out, number.to_string().into_bytes());
            let mut out = Vec::new();
            push_ip(&mut out, ip);
            prop_assert_eq!(out, serde_json::to_vec(&ip).expect("JSON"));
        }
    }
}
