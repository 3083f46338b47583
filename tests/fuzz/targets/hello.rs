//! The first bytes of a TLS client, as whoever connects chooses them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sensor_core::tls::hello::ClientHello;
use sensor_core::tls::ja4::ja4;
use sensor_core::tls::reader::{HELLO_MAX, HelloReader};

/// Bytes of a fingerprint, and where its parts end.
const JA4_LEN: usize = 36;
const JA4_BREAKS: [usize; 2] = [10, 23];

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> ClientHello {
    let mut reader = HelloReader::default();
    for piece in pieces {
        if let Some(hello) = reader.push(piece) {
            assert_eq!((reader.push(piece), reader.finish()), (None, None), "it is told once");
            return hello;
        }
        assert!(reader.heap_bytes() <= 2 * HELLO_MAX, "there is a bound");
    }
    reader.finish().expect("nothing was told yet")
}

fuzz_target!(|bytes: &[u8]| {
    let each = usize::from(bytes.last().copied().unwrap_or_default()) + 1;
    let hello = read(std::iter::once(bytes));
    assert_eq!(read(bytes.chunks(each)), hello, "the pieces do not matter");
    let names: usize = hello.alpn.iter().chain(&hello.server_name).map(Vec::len).sum();
    let numbers = hello.ciphers.len() + hello.extensions.len() + hello.signature_algorithms.len();
    assert!(names + 2 * (numbers + hello.versions.len()) <= HELLO_MAX + 2, "no more than there was");
    let Some(fingerprint) = ja4(&hello) else {
        return assert!(hello.flaw.is_some(), "every sound hello has a fingerprint");
    };
    assert!(fingerprint.len() == JA4_LEN && fingerprint.is_ascii(), "{fingerprint}");
    let breaks: Vec<usize> = fingerprint.match_indices('_').map(|(at, _)| at).collect();
    assert_eq!(breaks, JA4_BREAKS, "{fingerprint}");
});
