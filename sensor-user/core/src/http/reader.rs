//! One direction of a connection, cut into messages.
//!
//! Pulled: each call takes bytes off the front of its input and returns what they completed. How the body of a message is
//! framed is told from outside, because that depends on the request an answer belongs to.

use super::head::Framing;

/// Most bytes of a head, the empty line at its end included.
pub const HEAD_MAX: usize = 8 << 10;
/// Most bytes of the line in front of a chunk, and of a trailer.
const LINE_MAX: u32 = 4 << 10;
/// Digits of the length of a chunk: what Go takes.
const CHUNK_DIGITS_MAX: u32 = 16;

/// What was completed.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A head; [`Reader::frame`] must be called before more is read.
    Head(Vec<u8>),
    /// Bytes of a body.
    Body(&'a [u8]),
    /// The end of a body.
    End,
    /// Where the next message begins is not known any more.
    Lost(Loss),
}

/// Why the thread was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Bytes that say where a message ends were not captured.
    NotCaptured,
    /// A head is longer than [`HEAD_MAX`]; what there is of it.
    LongHead,
    /// What should frame a body is no framing.
    Malformed,
}

/// The state of one direction.
#[derive(Debug, Default)]
pub struct Reader {
    state: State,
    /// The head so far.
    head: Vec<u8>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    /// A head came out and nobody has said what follows.
    Unframed,
    Length(u64),
    ChunkLine {
        size: u64,
        digits: u32,
        read: u32,
        in_extension: bool,
    },
    Chunk(u64),
    ChunkEnd,
    Trailer {
        read: u32,
        in_line: bool,
    },
    UntilClose,
    /// Another protocol, or the thread is lost: nothing means anything.
    Deaf,
}

const CHUNK_LINE: State = State::ChunkLine { size: 0, digits: 0, read: 0, in_extension: false };

impl Reader {
    /// Says how the body of the message ends whose head came out last.
    pub fn frame(&mut self, framing: Framing) {
        self.state = match framing {
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => CHUNK_LINE,
            Framing::UntilClose => State::UntilClose,
            Framing::Opaque => State::Deaf,
        };
    }

    /// Begins anew with a head.
    pub fn restart(&mut self) {
        *self = Self::default();
    }

    /// Listens no more.
    pub fn stop(&mut self) {
        *self = Self { state: State::Deaf, head: Vec::new() };
    }

    /// Whether nothing that comes can mean anything.
    #[must_use]
    pub const fn is_deaf(&self) -> bool {
        matches!(self.state, State::Deaf)
    }

    /// Whether a message was framed whose body has not ended.
    #[must_use]
    pub const fn is_in_body(&self) -> bool {
        !matches!(self.state, State::Head | State::Unframed | State::Deaf)
    }

    /// What there is of a head that is not complete.
    #[must_use]
    pub fn partial_head(&self) -> &[u8] {
        &self.head
    }

    /// Takes what completes the next item off `input`; `None` when that is not enough.
    pub fn read<'a>(&mut self, input: &mut &'a [u8]) -> Option<Item<'a>> {
        loop {
            match &mut self.state {
                State::Length(0) => {
                    self.state = State::Head;
                    return Some(Item::End);
                }
                State::Deaf | State::Unframed => {
                    *input = &[];
                    return None;
                }
                _ if input.is_empty() => return None,
                State::Head => return self.read_head(input),
                State::Length(left) => return Some(Item::Body(take(input, left))),
                State::UntilClose => return Some(Item::Body(std::mem::take(input))),
                State::Chunk(0) => self.state = State::ChunkEnd,
                State::Chunk(left) => return Some(Item::Body(take(input, left))),
                _ => {
                    let byte = input[0];
                    *input = &input[1..];
                    match self.read_framing(byte) {
                        Ok(false) => {}
                        Ok(true) => return Some(Item::End),
                        Err(loss) => return Some(self.lose(loss)),
                    }
                }
            }
        }
    }

    /// Takes that so many bytes were not captured.
    pub fn skip(&mut self, count: u64) -> Option<Item<'static>> {
        match &mut self.state {
            State::Deaf | State::UntilClose => None,
            State::Length(left) | State::Chunk(left) if *left >= count => {
                *left -= count;
                None
            }
            _ => Some(self.lose(Loss::NotCaptured)),
        }
    }

    fn lose(&mut self, loss: Loss) -> Item<'static> {
        self.state = State::Deaf;
        Item::Lost(loss)
    }

    fn read_head<'a>(&mut self, input: &mut &'a [u8]) -> Option<Item<'a>> {
        while let [byte, rest @ ..] = *input {
            *input = rest;
            // Servers skip empty lines between messages.
            if self.head.is_empty() && matches!(byte, b'\r' | b'\n') {
                continue;
            }
            self.head.push(*byte);
            if *byte == b'\n' && (self.head.ends_with(b"\n\r\n") || self.head.ends_with(b"\n\n")) {
                self.state = State::Unframed;
                return Some(Item::Head(std::mem::take(&mut self.head)));
            }
            if self.head.len() == HEAD_MAX {
                return Some(self.lose(Loss::LongHead));
            }
        }
        None
    }

    /// Takes a byte between the chunks of a body; returns whether it was the last one of the body.
    fn read_framing(&mut self, byte: u8) -> Result<bool, Loss> {
        match &mut self.state {
            State::ChunkLine { size, digits, read, in_extension } => {
                *read += 1;
                if *read > LINE_MAX {
                    return Err(Loss::Malformed);
                }
                match (byte, char::from(byte).to_digit(16)) {
                    (b'\n', _) if *digits == 0 => return Err(Loss::Malformed),
                    (b'\n', _) if *size == 0 => self.state = State::Trailer { read: 0, in_line: false },
                    (b'\n', _) => self.state = State::Chunk(*size),
                    _ if *in_extension => {}
                    (_, Some(digit)) if *digits < CHUNK_DIGITS_MAX => {
                        *digits += 1;
                        *size = *size << 4 | u64::from(digit);
                    }
                    (b';' | b'\r' | b' ' | b'\t', _) => *in_extension = true,
                    _ => return Err(Loss::Malformed),
                }
            }
            State::ChunkEnd => match byte {
                b'\r' => {}
                b'\n' => self.state = CHUNK_LINE,
                _ => return Err(Loss::Malformed),
            },
            State::Trailer { read, in_line } => {
                *read += 1;
                if *read > LINE_MAX {
                    return Err(Loss::Malformed);
                }
                match byte {
                    b'\n' if !*in_line => {
                        self.state = State::Head;
                        return Ok(true);
                    }
                    b'\n' => *in_line = false,
                    b'\r' => {}
                    _ => *in_line = true,
                }
            }
            _ => {}
        }
        Ok(false)
    }
}

fn take<'a>(input: &mut &'a [u8], left: &mut u64) -> &'a [u8] {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    let (taken, rest) = input.split_at(count);
    *input = rest;
    *left -= count as u64;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads messages whose heads say nothing, in pieces of a length; bodies are framed as told.
    fn read(stream: &[u8], piece: usize, framing: Framing) -> Vec<String> {
        let mut reader = Reader::default();
        let mut found: Vec<String> = Vec::new();
        for mut input in stream.chunks(piece) {
            while let Some(item) = reader.read(&mut input) {
                match item {
                    Item::Head(head) => {
                        found.push(format!("head {}", head.len()));
                        reader.frame(framing);
                    }
                    Item::Body(bytes) => match found.last_mut().filter(|last| last.starts_with("body ")) {
                        Some(last) => last.push_str(std::str::from_utf8(bytes).expect("text")),
                        None => found.push(format!("body {}", std::str::from_utf8(bytes).expect("text"))),
                    },
                    Item::End => found.push("end".into()),
                    Item::Lost(loss) => found.push(format!("{loss:?}")),
                }
            }
        }
        found
    }

    #[test]
    fn messages_are_the_same_however_they_are_split() {
        let sized = b"A\r\n\r\nhello\r\nB\n\nworld";
        let chunked = b"A\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: x\r\n\r\nB\r\n\r\n0\r\n\r\n";
        for piece in 1..sized.len() {
            let expected = ["head 5", "body hello", "end", "head 3", "body world", "end"];
            assert_eq!(read(sized, piece, Framing::Length(5)), expected, "{piece}");
        }
        for piece in 1..chunked.len() {
            let expected = ["head 5", "body hello!", "end", "head 5", "end"];
            assert_eq!(read(chunked, piece, Framing::Chunked), expected, "{piece}");
        }
    }

    #[test]
    fn what_is_no_framing_loses_the_thread() {
        for body in ["x\r\n", "\r\n", "1\r\nab", "11111111111111111\r\n"] {
            let stream = format!("A\r\n\r\n{body}");
            let found = read(stream.as_bytes(), 64, Framing::Chunked);
            assert_eq!(found.last().map(String::as_str), Some("Malformed"), "{body}");
        }
        assert_eq!(read(&[b'a'; HEAD_MAX + 1], 100, Framing::Chunked), ["LongHead"]);
    }

    #[test]
    fn bytes_that_were_not_captured_are_skipped_within_a_body_of_known_length_only() {
        let mut reader = Reader::default();
        let mut input = &b"A\n\nab"[..];
        assert!(matches!(reader.read(&mut input), Some(Item::Head(_))));
        reader.frame(Framing::Length(10));
        assert_eq!(reader.read(&mut input), Some(Item::Body(b"ab")));
        assert_eq!(reader.skip(8), None);
        assert_eq!(reader.read(&mut &b""[..]), Some(Item::End));
        assert_eq!(reader.skip(1), Some(Item::Lost(Loss::NotCaptured)));
        assert!(reader.is_deaf());
    }
}
