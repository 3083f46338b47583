//! What peers and servers say on a plaintext port, split into segments as an attacker likes.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sensor_core::http::Api;
use sensor_core::http::conversation::{Conversation, Step, WAITING_MAX, Way};
use sensor_core::http::create::{BODY_MAX, CreateBody, created_id};
use sensor_core::http::reassembly::Piece;
use sensor_core::time::Timestamp;

/// Somebody says something.
#[derive(Arbitrary, Debug)]
struct Turn<'a> {
    to_client: bool,
    bytes: &'a [u8],
    /// Bytes of a segment.
    segment: u8,
    /// Bytes at the end of the turn that are not captured.
    missing: u16,
}

/// What is told when every turn comes in segments of its own length, or in one.
fn told(turns: &[Turn<'_>], split: bool) -> Vec<Step> {
    let mut conversation = Conversation::new(Api::Docker);
    let mut steps = Vec::new();
    let (mut sent, mut last) = ([0_u64; 2], None);
    for turn in turns {
        let way = if turn.to_client { Way::ToClient } else { Way::ToServer };
        let segment = if split { usize::from(turn.segment).max(1) } else { turn.bytes.len().max(1) };
        let mut pieces: Vec<(&[u8], u64)> =
            turn.bytes.chunks(segment).map(|bytes| (bytes, bytes.len() as u64)).collect();
        if turn.missing > 0 {
            pieces.push((&[], turn.missing.into()));
        }
        for (bytes, len) in pieces {
            let place = &mut sent[usize::from(turn.to_client)];
            let piece = Piece { offset: *place, settled: *place, bytes, len };
            *place += len;
            let is_turn = last.replace(turn.to_client) != Some(turn.to_client);
            conversation.push(Timestamp::default(), way, piece, is_turn, &mut steps);
            assert!(conversation.heap_bytes() < (WAITING_MAX + 2) * (2 * BODY_MAX), "memory is bounded");
        }
    }
    conversation.close(Timestamp::default(), &mut steps);
    steps
}

fuzz_target!(|turns: Vec<Turn<'_>>| {
    assert_eq!(told(&turns, true), told(&turns, false), "segments move nothing");
    for turn in &turns {
        let _ = (CreateBody::read(turn.bytes), created_id(turn.bytes));
    }
});
