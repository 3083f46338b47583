//! One direction of a connection, put back into order.
//!
//! A captured segment says where its bytes are in the stream and how far TCP had come when it passed ("settled"): what lies
//! below that and was not captured will never come. What lies above may, so later bytes wait for it. Of bytes that come
//! twice TCP keeps those that it took first, and so does this; where it cannot be known which these are, because a peer sent
//! two versions before TCP had taken either, the stream is in conflict and says nothing more.

use std::collections::BTreeMap;

/// Most bytes that wait for earlier ones.
pub const WAITING_BYTES_MAX: usize = 16 << 10;
/// Most segments that do.
pub const WAITING_MAX: usize = 16;

/// A captured segment, or the beginning of one.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Bytes of the stream before it.
    pub offset: u64,
    /// Bytes of the stream that TCP had taken (inbound) or sent (outbound) before it.
    pub settled: u64,
    /// What was captured of it.
    pub bytes: &'a [u8],
    /// How long it is.
    pub len: u64,
}

/// What comes out, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The next bytes.
    Bytes(&'a [u8]),
    /// So many that were not captured.
    Missing(u64),
}

/// Why the order is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disorder {
    /// Two versions of the same bytes, and no telling which one TCP took.
    Conflict,
    /// Too much waits for bytes that do not come.
    TooMuch,
}

/// The state of one direction.
#[derive(Debug, Default)]
pub struct Reassembly {
    /// Bytes that have come out, missing ones included.
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    waiting_bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    bytes: Box<[u8]>,
    len: u64,
}

impl From<u64> for Reassembly {
    /// Begins behind so many bytes.
    fn from(next: u64) -> Self {
        Self { next, ..Self::default() }
    }
}

impl Reassembly {
    /// Takes a segment and hands on what is in order now.
    ///
    /// # Errors
    /// When the order is lost; what comes after that means nothing.
    pub fn push(&mut self, piece: Piece<'_>, mut hand_on: impl FnMut(Part<'_>)) -> Result<(), Disorder> {
        self.settle(piece.settled, &mut hand_on);
        // What TCP had taken before is not this.
        let known = piece.settled.saturating_sub(piece.offset);
        let Some(len) = piece.len.checked_sub(known).filter(|len| *len > 0) else { return Ok(()) };
        let offset = piece.offset + known;
        let bytes =
            usize::try_from(known).ok().and_then(|known| piece.bytes.get(known..)).unwrap_or_default();
        if offset < self.next {
            return Err(Disorder::Conflict);
        }
        if offset > self.next {
            return self.wait(offset, bytes, len);
        }
        if self.waiting.range(..offset.saturating_add(len)).next().is_some() {
            return Err(Disorder::Conflict);
        }
        self.hand_on(bytes, len, &mut hand_on);
        while let Some(waiting) = self.waiting.remove(&self.next) {
            self.waiting_bytes -= waiting.bytes.len();
            self.hand_on(&waiting.bytes, waiting.len, &mut hand_on);
        }
        Ok(())
    }

    /// Bytes kept.
    #[must_use]
    pub const fn heap_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Hands on what TCP had taken by then, with its gaps.
    fn settle(&mut self, settled: u64, hand_on: &mut impl FnMut(Part<'_>)) {
        while self.next < settled {
            match self.waiting.first_key_value() {
                Some((&offset, _)) if offset <= self.next => {
                    let waiting = self.waiting.remove(&offset).expect("invariant: just seen");
                    self.waiting_bytes -= waiting.bytes.len();
                    self.hand_on(&waiting.bytes, waiting.len, hand_on);
                }
                first => {
                    let until = first.map_or(settled, |(&offset, _)| offset.min(settled));
                    hand_on(Part::Missing(until - self.next));
                    self.next = until;
                }
            }
        }
    }

    fn hand_on(&mut self, bytes: &[u8], len: u64, hand_on: &mut impl FnMut(Part<'_>)) {
        if !bytes.is_empty() {
            hand_on(Part::Bytes(bytes));
        }
        let missing = len.saturating_sub(bytes.len() as u64);
        if missing > 0 {
            hand_on(Part::Missing(missing));
        }
        self.next = self.next.saturating_add(len);
    }

    fn wait(&mut self, offset: u64, bytes: &[u8], len: u64) -> Result<(), Disorder> {
        let end = offset.saturating_add(len);
        if let Some((&before, waiting)) = self.waiting.range(..end).next_back()
            && before.saturating_add(waiting.len) > offset
        {
            // The same segment once more is none the worse; TCP takes either.
            let same = before == offset && waiting.len == len && *waiting.bytes == *bytes;
            return if same { Ok(()) } else { Err(Disorder::Conflict) };
        }
        if self.waiting.len() == WAITING_MAX || self.waiting_bytes + bytes.len() > WAITING_BYTES_MAX {
            return Err(Disorder::TooMuch);
        }
        self.waiting_bytes += bytes.len();
        self.waiting.insert(offset, Waiting { bytes: bytes.into(), len });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(offset: u64, settled: u64, bytes: &[u8]) -> Piece<'_> {
        Piece { offset, settled, bytes, len: bytes.len() as u64 }
    }

    /// What comes out: bytes as they are, each missing one as a dot.
    fn text(pieces: &[Piece<'_>]) -> (String, Result<(), Disorder>) {
        let mut reassembly = Reassembly::default();
        let mut out = String::new();
        for one in pieces {
            let result = reassembly.push(*one, |part| match part {
                Part::Bytes(bytes) => out.push_str(std::str::from_utf8(bytes).expect("text")),
                Part::Missing(count) => out.push_str(&".".repeat(usize::try_from(count).expect("few"))),
            });
            if result.is_err() {
                return (out, result);
            }
        }
        assert!(reassembly.heap_bytes() <= WAITING_BYTES_MAX);
        (out, Ok(()))
    }

    #[test]
    fn segments_in_order_come_out_as_they_are() {
        assert_eq!(
            text(&[piece(0, 0, b"GET"), piece(3, 3, b" /"), piece(5, 5, b"x")]),
            ("GET /x".into(), Ok(()))
        );
    }

    #[test]
    fn a_segment_that_overtook_another_waits_for_it() {
        let pieces = [piece(3, 0, b"def"), piece(6, 0, b"ghi"), piece(0, 0, b"abc")];
        assert_eq!(text(&pieces), ("abcdefghi".into(), Ok(())));
    }

    #[test]
    fn what_tcp_has_taken_and_was_not_captured_is_missing() {
        assert_eq!(text(&[piece(0, 0, b"ab"), piece(6, 6, b"cd")]), ("ab....cd".into(), Ok(())));
        assert_eq!(text(&[piece(4, 0, b"cd"), piece(6, 6, b"ef")]), ("....cdef".into(), Ok(())));
        let cut = Piece { offset: 0, settled: 0, bytes: b"ab", len: 5 };
        assert_eq!(text(&[cut, piece(5, 5, b"cd")]), ("ab...cd".into(), Ok(())));
    }

    #[test]
    fn repeated_bytes_come_out_once_and_as_they_were_first() {
        assert_eq!(
            text(&[piece(0, 0, b"abc"), piece(0, 3, b"xyz"), piece(3, 3, b"d")]),
            ("abcd".into(), Ok(()))
        );
        assert_eq!(text(&[piece(0, 0, b"abc"), piece(1, 3, b"yzde")]), ("abcde".into(), Ok(())));
        assert_eq!(
            text(&[piece(3, 0, b"d"), piece(3, 0, b"d"), piece(0, 0, b"abc")]),
            ("abcd".into(), Ok(()))
        );
    }

    #[test]
    fn two_versions_before_tcp_took_either_are_a_conflict() {
        for pieces in [
            [piece(0, 0, b"abc"), piece(0, 0, b"xyz")],
            [piece(3, 0, b"abc"), piece(3, 0, b"xyz")],
            [piece(3, 0, b"abc"), piece(2, 0, b"xy")],
            [piece(3, 0, b"abc"), piece(0, 0, b"wxyz")],
        ] {
            assert_eq!(text(&pieces).1, Err(Disorder::Conflict), "{pieces:?}");
        }
    }

    #[test]
    fn holes_do_not_fill_memory() {
        let bytes = [b'x'; 2048];
        let pieces: Vec<_> = (1..20).map(|index| piece(index * 4096, 0, &bytes)).collect();
        assert_eq!(text(&pieces).1, Err(Disorder::TooMuch));
    }
}
