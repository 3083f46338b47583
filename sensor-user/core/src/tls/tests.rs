use super::*;
use crate::tls::hello::{SIGNATURE_ALGORITHMS, SUPPORTED_VERSIONS};
use crate::tls::reader::{Flaw, HELLO_MAX, HelloReader};

/// Lists of the example that the specification publishes, in the client's order.
const CIPHERS: &str = "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035";
const EXTENSIONS: &str = "001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015";
const ALGORITHMS: &str = "0403,0804,0401,0503,0805,0501,0806,0601";

fn numbers(list: &str) -> Vec<u16> {
    list.split(',').map(|digits| u16::from_str_radix(digits, 16).unwrap()).collect()
}

fn published() -> ClientHello {
    ClientHello {
        versions: vec![0x0304, 0x0303],
        ciphers: numbers(CIPHERS),
        extensions: numbers(EXTENSIONS),
        signature_algorithms: numbers(ALGORITHMS),
        server_name: Some(b"api.example".to_vec()),
        alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        flaw: None,
    }
}

fn list(len_bytes: usize, content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&len[4 - len_bytes..], content].concat()
}

fn bytes_of(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// The message that a client with these fields sends, GREASE among each kind of value.
fn message(hello: &ClientHello) -> Vec<u8> {
    let with_grease = |values: &[u16]| bytes_of(&[&[0x1a1a], values, &[0xfafa]].concat());
    let mut extensions = vec![0x2a, 0x2a, 0, 0];
    for kind in &hello.extensions {
        let content = match *kind {
            SERVER_NAME => {
                let name = list(2, hello.server_name.as_deref().unwrap_or_default());
                list(2, &[&[0], &*name].concat())
            }
            ALPN => list(2, &hello.alpn.iter().flat_map(|name| list(1, name)).collect::<Vec<_>>()),
            SUPPORTED_VERSIONS => list(1, &with_grease(&hello.versions)),
            SIGNATURE_ALGORITHMS => list(2, &with_grease(&hello.signature_algorithms)),
            _ => vec![7; 3],
        };
        extensions.extend(kind.to_be_bytes());
        extensions.extend(list(2, &content));
    }
    let mut body = vec![3, 3];
    body.extend([9; 32]);
    body.extend(list(1, &[5; 32]));
    body.extend(list(2, &with_grease(&hello.ciphers)));
    body.extend([1, 0]);
    body.extend(list(2, &extensions));
    [&[1], &*list(3, &body)].concat()
}

/// As records that carry so many bytes each.
fn records(message: &[u8], each: usize) -> Vec<u8> {
    message.chunks(each).flat_map(|part| [&[22, 3, 1], &*list(2, part)].concat()).collect()
}

fn read(stream: &[u8], each: usize) -> Option<ClientHello> {
    let mut reader = HelloReader::default();
    stream.chunks(each).find_map(|bytes| reader.push(bytes)).or_else(|| reader.finish())
}

/// What a real client sent; see the file's neighbour `README.md`.
macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!("../../../../tests/fixtures/tls/", $name, ".hello"))
    };
}

#[test]
fn fingerprints_of_real_clients() {
    let clients: [(&[u8], &str, Option<&str>); 12] = [
        (recorded!("curl-7.88-openssl-3.0"), "t13d3112h2_e8f1e7e78f70_b26ce05bbdd6", Some("api.example")),
        (recorded!("curl-7.88-http1"), "t13i3111h1_e8f1e7e78f70_b26ce05bbdd6", None),
        (recorded!("curl-7.88-tls12"), "t12d2807h2_d943125447b4_a44c6288192a", Some("api.example")),
        (recorded!("docker-20.10-cli"), "t13d070900_04ca88ad2b9b_97f8aa674fd9", Some("localhost")),
        (recorded!("docker-28.2-cli"), "t13d071000_04ca88ad2b9b_e7c285222651", Some("localhost")),
        // Published for Go programs, too: https://github.com/FoxIO-LLC/ja4/blob/main/ja4plus-mapping.csv
        (recorded!("go-1.19-net-http"), "t13d190900_9dc949149365_97f8aa674fd9", Some("localhost")),
        (recorded!("kubectl-1.20"), "t13d1910h2_9dc949149365_97f8aa674fd9", Some("localhost")),
        (recorded!("kubectl-1.32"), "t13d1311h2_f57a46bbacb6_e7c285222651", Some("localhost")),
        (recorded!("openssl-3.0-s_client"), "t13d311000_e8f1e7e78f70_1f22a2ca17c4", Some("api.example")),
        (recorded!("openssl-3.0-s_client-noname"), "t13i3110h2_e8f1e7e78f70_1f22a2ca17c4", None),
        (recorded!("python-3.11-ssl"), "t13d311100_e8f1e7e78f70_d41ae481755e", Some("api.example")),
        (recorded!("wget-1.21-gnutls-3.7"), "t13d291300_723694b0fccc_899037bd0b8c", Some("localhost")),
    ];
    for (stream, fingerprint, name) in clients {
        let hello = read(stream, stream.len()).unwrap();
        assert_eq!(ja4(&hello).as_deref(), Some(fingerprint));
        assert_eq!(hello.server_name.as_deref(), name.map(str::as_bytes), "{fingerprint}");
    }
}

#[test]
fn fingerprint_of_the_published_example_is_the_published_one() {
    let mut hello = published();
    assert_eq!(ja4(&hello).as_deref(), Some("t13d1516h2_8daaf6152771_e5627efa2ab1"));
    let raw_form = "t13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_\
                    0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01_\
                    0403,0804,0401,0503,0805,0501,0806,0601";
    assert_eq!(raw(&hello), raw_form);
    hello.signature_algorithms.clear();
    assert_eq!(ja4(&hello).as_deref(), Some("t13d1516h2_8daaf6152771_6d807ffa2a79"));
}

#[test]
fn message_with_grease_everywhere_has_the_same_fields() {
    assert_eq!(read(&records(&message(&published()), 1 << 14), 1 << 14), Some(published()));
}

#[test]
fn first_protocol_is_told_by_its_ends() {
    for (name, expected) in [
        (&b""[..], "00"),
        (b"h2", "h2"),
        (b"http/1.1", "h1"),
        (b"x", "xx"),
        (b"\xab", "ab"),
        (b" ", "20"),
        (b"\xab\xcd", "ad"),
        (b" a", "21"),
        (b"0\xab", "3b"),
        (b"a ", "60"),
        (b"01\xab\xcd", "3d"),
        (b"0\xab\xcd1", "01"),
        (b"\x0a\x0a", "0a"),
    ] {
        assert_eq!(String::from_iter(protocol(name)), expected, "{name:?}");
    }
}

#[test]
fn hello_without_extensions_says_so_in_zeros() {
    let hello = ClientHello { versions: vec![0x0301], ..ClientHello::default() };
    assert_eq!(ja4(&hello).as_deref(), Some("t10i000000_000000000000_000000000000"));
    let named = ClientHello { extensions: vec![SERVER_NAME, ALPN], ..hello };
    assert_eq!(ja4(&named).as_deref(), Some("t10d000200_000000000000_000000000000"));
    // Before TLS 1.2 a hello may end behind the compression methods.
    let old = [&[3, 1][..], &[9; 32], &[0, 0, 2, 0, 5, 1, 0]].concat();
    let read = ClientHello::read(&old, None);
    assert_eq!((&*read.versions, &*read.ciphers, read.flaw), (&[0x0301][..], &[5][..], None));
}

#[test]
fn more_than_ninety_nine_of_something_are_ninety_nine() {
    let hello = ClientHello { ciphers: (0..200).collect(), ..published() };
    assert!(ja4(&hello).unwrap().starts_with("t13d9916h2_"));
}

#[test]
fn every_version_has_its_sign() {
    for (version, sign) in [
        (0x0304, "13"),
        (0x0303, "12"),
        (0x0302, "11"),
        (0x0301, "10"),
        (0x0300, "s3"),
        (0x0002, "s2"),
        (0xfeff, "d1"),
        (0xfefd, "d2"),
        (0xfefc, "d3"),
        (0x7f1c, "00"),
    ] {
        let hello = ClientHello { versions: vec![version], ..ClientHello::default() };
        assert_eq!(ja4(&hello).unwrap()[1..3], *sign);
    }
}

#[test]
fn bytes_in_front_of_the_message_are_no_hello() {
    for stream in [
        // An alert between two handshake records; an SSL 2 record version; too long a record; a ServerHello.
        &[22, 3, 1, 0, 1, 1, 21, 3, 1, 0, 2, 1, 0][..],
        &[22, 2, 0, 0, 4, 1, 0, 0, 0],
        &[22, 3, 1, 0x40, 1, 1],
        &[22, 3, 1, 0, 4, 2, 0, 0, 0],
        &[&[22, 3, 1, 1, 0, 2, 0, 0, 0xfc, 3, 3][..], &[9; 32], &[0, 0, 2, 0, 5, 1, 0]].concat(),
    ] {
        for each in [1, stream.len()] {
            let hello = read(stream, each).unwrap();
            assert_eq!(hello, ClientHello { flaw: Some(Flaw::Malformed), ..ClientHello::default() });
        }
    }
}

#[test]
fn empty_records_change_nothing() {
    let stream = [&[22, 3, 1, 0, 0][..], &records(&message(&published()), 50)].concat();
    assert_eq!(read(&stream, 7), Some(published()));
}

#[test]
fn cut_hello_keeps_what_came_and_has_no_fingerprint() {
    let message = message(&published());
    for len in 0..message.len() {
        let hello = read(&records(&message[..len], 100), 33).unwrap();
        assert_eq!((hello.flaw, ja4(&hello)), (Some(Flaw::Cut), None), "{len}");
        assert!(published().ciphers.starts_with(&hello.ciphers[..hello.ciphers.len().min(15)]));
        assert!(hello.server_name.is_none() || hello.server_name == published().server_name);
        assert!(hello.versions.is_empty() || hello.versions == published().versions);
    }
    let all_but_one = read(&records(&message[..message.len() - 1], 100), 33).unwrap();
    assert_eq!(all_but_one.server_name, published().server_name);
}

#[test]
fn oversized_hello_is_read_to_the_bound() {
    let mut message = message(&published());
    let padding = list(2, &vec![0; HELLO_MAX]);
    message.extend([0, 0x15]);
    message.extend(padding);
    let len = u32::try_from(message.len() - 4).unwrap().to_be_bytes();
    message[1..4].copy_from_slice(&len[1..]);
    let hello = read(&records(&message, 1 << 14), 1400).unwrap();
    assert_eq!(hello.flaw, Some(Flaw::Oversized));
    assert_eq!((hello.ciphers, hello.versions), (published().ciphers, published().versions));
}

#[test]
fn lengths_that_do_not_fit_are_malformed() {
    let sound = message(&published());
    for at in [38, 71, 72, 109] {
        let mut message = sound.clone();
        message[at] ^= 0x80;
        let hello = read(&records(&message, 1 << 14), 1 << 14).unwrap();
        assert_eq!((hello.flaw, ja4(&hello)), (Some(Flaw::Malformed), None), "{at}");
    }
}

#[test]
fn reader_says_its_word_once() {
    let mut reader = HelloReader::default();
    assert!(reader.push(&records(&message(&published()), 64)).is_some());
    assert_eq!((reader.push(&[22, 3, 1, 0, 4]), reader.finish(), reader.heap_bytes()), (None, None, 0));
}
