//! What a client says does not depend on how it is cut into pieces.

use proptest::prelude::*;
use proptest::sample::Index;
use sensor_core::tls::hello::ClientHello;
use sensor_core::tls::ja4::ja4;
use sensor_core::tls::reader::{HELLO_MAX, HelloReader};

/// Hellos of a client with a small message and of one with a large one.
const RECORDED: [&[u8]; 3] = [
    include_bytes!("../../../../tests/fixtures/tls/docker-28.2-cli.hello"),
    include_bytes!("../../../../tests/fixtures/tls/kubectl-1.32.hello"),
    include_bytes!("../../../../tests/fixtures/tls/curl-7.88-openssl-3.0.hello"),
];
const RECORD_HEADER: usize = 5;

/// Cuts bytes at these places.
fn cut<'a>(bytes: &'a [u8], places: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<ClientHello> {
    let mut reader = HelloReader::default();
    let mut found = None;
    for piece in pieces {
        let hello = reader.push(piece);
        assert!(hello.is_none() || found.is_none(), "it is told once");
        assert!(reader.heap_bytes() <= 2 * HELLO_MAX, "there is a bound");
        found = found.or(hello);
    }
    let rest = reader.finish();
    assert_ne!(found.is_some(), rest.is_some(), "it is told, or what there is of it");
    found.or(rest)
}

fn places() -> impl Strategy<Value = Vec<Index>> {
    proptest::collection::vec(any::<Index>(), 0..40)
}

proptest! {
    #[test]
    fn hello_is_the_same_however_it_is_split(
        recorded in proptest::sample::select(&RECORDED[..]),
        records in places(),
        segments in places(),
    ) {
        let parts = cut(&recorded[RECORD_HEADER..], &records);
        let stream: Vec<u8> = parts
            .iter()
            .flat_map(|part| {
                let len = u16::try_from(part.len()).expect("short").to_be_bytes();
                [&[22, 3, 3, len[0], len[1]], *part].concat()
            })
            .collect();
        let whole = read([recorded]);
        prop_assert!(whole.as_ref().and_then(ja4).is_some());
        prop_assert_eq!(read(cut(&stream, &segments)), whole);
    }

    #[test]
    fn any_bytes_say_the_same_however_they_are_split(
        recorded in proptest::sample::select(&RECORDED[..]),
        changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..6),
        end in any::<Index>(),
        segments in places(),
    ) {
        let mut bytes = recorded.to_vec();
        for (place, value) in changes {
            *place.get_mut(&mut bytes) = value;
        }
        bytes.truncate(end.index(2 * recorded.len()));
        prop_assert_eq!(read(cut(&bytes, &segments)), read([&*bytes]));
    }
}
