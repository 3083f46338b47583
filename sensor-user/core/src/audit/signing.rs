//! Certificate signing requests: which groups a certificate is to name.
//!
//! Kubernetes takes groups from the organizations of the subject. The request is PEM in base64 in JSON; only the one
//! attribute is looked for, because nothing else of it is judged.

use std::sync::Arc;

use super::request::NAME_MAX;

/// Longest request that is looked at; one with an RSA key of 4096 bits and some names has 3 KiB.
const REQUEST_MAX: usize = 32 << 10;
/// Organizations kept.
const ORGANIZATIONS_MAX: usize = 16;
/// `06 03 55 04 0a`: the object identifier 2.5.4.10, organizationName, in DER.
const ORGANIZATION: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x0a];
/// The string types of DER: UTF8String, PrintableString, T61String, IA5String.
const STRINGS: [u8; 4] = [0x0c, 0x13, 0x14, 0x16];

/// Organizations in the subject of a request as the API has it: base64 of PEM.
///
/// What cannot be read has none.
pub(super) fn organizations(request: &str) -> Vec<Arc<str>> {
    if request.len() > REQUEST_MAX {
        return Vec::new();
    }
    let pem = decode(request.as_bytes());
    let body: Vec<u8> = pem
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.starts_with(b"-----"))
        .flatten()
        .copied()
        .collect();
    let der = decode(&body);
    let mut found = Vec::new();
    for start in 0..der.len() {
        let Some(value) = der[start..].strip_prefix(ORGANIZATION) else { continue };
        // Short lengths only: a group's name of more than 127 bytes is none that Kubernetes knows.
        let &[kind, len @ 0..0x80, ref rest @ ..] = value else { continue };
        if let (true, Some(name)) = (STRINGS.contains(&kind), rest.get(..len.into()))
            && found.len() < ORGANIZATIONS_MAX
        {
            let name = String::from_utf8_lossy(name);
            found.push(Arc::from(&name[..name.floor_char_boundary(NAME_MAX)]));
        }
    }
    found
}

/// Base64 with the standard alphabet; whatever is not in it is passed over.
fn decode(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(bytes: &[u8]) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let mut group = [0; 4];
            group[1..=chunk.len()].copy_from_slice(chunk);
            let bits = u32::from_be_bytes(group);
            for index in 0..4 {
                let digit = ALPHABET[(bits >> (18 - 6 * index) & 63) as usize];
                text.push(if index > chunk.len() { '=' } else { char::from(digit) });
            }
        }
        text
    }

    fn request(der: &[u8]) -> String {
        encode(
            format!(
                "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
                encode(der)
            )
            .as_bytes(),
        )
    }

    #[test]
    fn base64_is_read_whatever_its_padding() {
        for bytes in [&b""[..], b"a", b"ab", b"abc", b"abcd", &[0xff, 0, 0x80]] {
            assert_eq!(decode(encode(bytes).as_bytes()), bytes);
        }
    }

    #[test]
    fn organizations_of_the_subject_are_found() {
        let mut der = vec![0x30, 0x20];
        for (kind, name) in [(0x0c, "system:masters"), (0x13, "team")] {
            der.extend_from_slice(ORGANIZATION);
            der.extend([kind, name.len() as u8]);
            der.extend_from_slice(name.as_bytes());
        }
        assert_eq!(organizations(&request(&der)), ["system:masters".into(), Arc::from("team")]);
    }

    #[test]
    fn broken_requests_have_none() {
        let mut cut = ORGANIZATION.to_vec();
        cut.extend([0x0c, 9, b'x']);
        for der in [&cut[..], ORGANIZATION, b"", &[0xff; 64]] {
            assert_eq!(organizations(&request(der)), []);
        }
        assert_eq!(organizations("@@@@"), []);
        assert_eq!(organizations(&"A".repeat(REQUEST_MAX + 1)), []);
    }
}
