//! From the bytes of a stream to the ClientHello in them.

use super::hello::ClientHello;

/// Most bytes kept of the message; clients send some hundred, with keys against quantum computers two thousand.
pub const HELLO_MAX: usize = 16 << 10;

/// First byte of a record that carries a handshake.
pub const HANDSHAKE: u8 = 22;
/// Major version of every record since SSL 3.0.
const MAJOR: u8 = 3;
/// Bytes of a record's header.
const RECORD_HEADER: usize = 5;
/// Most bytes a record may carry.
const RECORD_MAX: usize = 1 << 14;
/// First byte of the message.
const CLIENT_HELLO: u8 = 1;
/// Bytes of a message's header.
const MESSAGE_HEADER: usize = 4;

/// What is wrong with a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// Its end did not come or was not captured.
    Cut,
    /// A length in it is not that of what follows, or it begins as TLS and goes on as something else.
    Malformed,
    /// It is longer than [`HELLO_MAX`].
    Oversized,
}

/// Takes the first bytes of a client's stream, in any pieces.
///
/// What it says depends on the bytes alone, not on how they were split into segments or records.
#[derive(Debug, Default)]
pub struct HelloReader {
    header: [u8; RECORD_HEADER],
    /// Bytes of the present record's header that are there.
    header_len: usize,
    /// Bytes of the present record that are still to come.
    left: usize,
    message: Vec<u8>,
    is_done: bool,
}

impl HelloReader {
    /// Takes the next bytes. Returns the hello once, when there is nothing more to wait for.
    pub fn push(&mut self, mut bytes: &[u8]) -> Option<ClientHello> {
        while !self.is_done && !bytes.is_empty() {
            if self.left == 0 {
                bytes = self.take_header(bytes);
                if self.header_len == RECORD_HEADER && !self.begin_record() {
                    return Some(self.end(Some(Flaw::Malformed)));
                }
                continue;
            }
            let (part, rest) = bytes.split_at(self.left.min(bytes.len()));
            bytes = rest;
            self.left -= part.len();
            let room = HELLO_MAX - self.message.len();
            self.message.extend_from_slice(&part[..part.len().min(room)]);
            if self.message.first() != Some(&CLIENT_HELLO) {
                // Nothing in it means anything.
                self.message.clear();
                return Some(self.end(Some(Flaw::Malformed)));
            }
            if let Some(end) = self.message_end() {
                if self.message.len() >= end {
                    self.message.truncate(end);
                    return Some(self.end(None));
                }
                if part.len() >= room {
                    return Some(self.end(Some(Flaw::Oversized)));
                }
            }
        }
        None
    }

    /// Nothing more comes, or what comes next was not captured. Returns what there is of a hello that was not returned yet.
    pub fn finish(&mut self) -> Option<ClientHello> {
        (!self.is_done).then(|| self.end(Some(Flaw::Cut)))
    }

    /// Bytes kept.
    #[must_use]
    pub const fn heap_bytes(&self) -> usize {
        self.message.capacity()
    }

    fn take_header<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (part, rest) = bytes.split_at((RECORD_HEADER - self.header_len).min(bytes.len()));
        self.header[self.header_len..][..part.len()].copy_from_slice(part);
        self.header_len += part.len();
        rest
    }

    /// Whether the header is one of a handshake's record. An empty record is one, too, and changes nothing.
    fn begin_record(&mut self) -> bool {
        let [kind, major, _minor, high, low] = self.header;
        self.header_len = 0;
        self.left = usize::from(u16::from_be_bytes([high, low]));
        kind == HANDSHAKE && major == MAJOR && self.left <= RECORD_MAX
    }

    /// Where the message says that it ends.
    fn message_end(&self) -> Option<usize> {
        let [_kind, high, middle, low] = *self.message.first_chunk()?;
        Some(MESSAGE_HEADER + u32::from_be_bytes([0, high, middle, low]) as usize)
    }

    fn end(&mut self, flaw: Option<Flaw>) -> ClientHello {
        self.is_done = true;
        let message = std::mem::take(&mut self.message);
        ClientHello::read(message.get(MESSAGE_HEADER..).unwrap_or_default(), flaw)
    }
}
