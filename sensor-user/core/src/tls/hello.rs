//! The fields of a ClientHello.

use super::reader::Flaw;

/// `server_name`: whom the client means to reach.
pub const SERVER_NAME: u16 = 0x0000;
/// `signature_algorithms`.
pub const SIGNATURE_ALGORITHMS: u16 = 0x000d;
/// `application_layer_protocol_negotiation`: what is to be spoken inside.
pub const ALPN: u16 = 0x0010;
/// `supported_versions`.
pub const SUPPORTED_VERSIONS: u16 = 0x002b;

/// Bytes of the random value.
const RANDOM_LEN: usize = 32;
/// The only kind of name that `server_name` knows.
const HOST_NAME: u8 = 0;

/// What a client offers, in its order and without GREASE.
///
/// Bounds: together not longer than the message it was read from.
/// Source: [RFC 8446, 4.1.2](https://www.rfc-editor.org/rfc/rfc8446#section-4.1.2),
/// [RFC 8701](https://www.rfc-editor.org/rfc/rfc8701) (GREASE).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Those of `supported_versions`, else the one of the message itself.
    pub versions: Vec<u16>,
    /// Cipher suites, signalling values included.
    pub ciphers: Vec<u16>,
    /// Types of the extensions.
    pub extensions: Vec<u16>,
    /// Signature algorithms.
    pub signature_algorithms: Vec<u16>,
    /// Host name of `server_name`.
    pub server_name: Option<Vec<u8>>,
    /// Protocols of ALPN.
    pub alpn: Vec<Vec<u8>>,
    /// Why the message is not whole or not sound; the fields are what could be read before.
    pub flaw: Option<Flaw>,
}

impl ClientHello {
    /// Reads the message behind its header, as far as it goes. It may be known to be flawed; else it is
    /// [`Flaw::Malformed`] when a length in it is not that of what follows.
    #[must_use]
    pub fn read(message: &[u8], flaw: Option<Flaw>) -> Self {
        let mut hello = Self::default();
        let mut body = Field::new(message);
        let version = body.number();
        body.take(RANDOM_LEN);
        let _session_id = body.short_list();
        hello.ciphers = body.list().numbers(&mut body.is_sound);
        let _compression = body.short_list();
        // Before TLS 1.2 a hello may end here.
        if !body.rest.is_empty() {
            let mut extensions = body.list();
            while !extensions.rest.is_empty() {
                let kind = extensions.number();
                let content = extensions.list();
                hello.extension(kind, content, &mut extensions.is_sound);
            }
            body.is_sound &= extensions.is_sound;
        }
        let is_sound = body.is_sound && body.rest.is_empty();
        hello.flaw = flaw.or((!is_sound).then_some(Flaw::Malformed));
        // An extension that was not read may say otherwise.
        hello.versions.extend((hello.versions.is_empty() && hello.flaw.is_none()).then_some(version));
        hello
    }

    fn extension(&mut self, kind: u16, mut content: Field<'_>, is_sound: &mut bool) {
        if is_grease(kind) {
            return;
        }
        // Of an extension that is there twice, which no server takes, the first counts.
        let is_read = content.is_sound && !self.extensions.contains(&kind);
        self.extensions.push(kind);
        match kind {
            _ if !is_read => return,
            SERVER_NAME => {
                let mut names = content.list();
                if !names.rest.is_empty() {
                    let (kind, name) = (names.byte(), names.list());
                    let is_name = kind == HOST_NAME && name.is_sound && !name.rest.is_empty();
                    self.server_name = is_name.then(|| name.rest.to_vec());
                }
                content.is_sound &= names.is_sound;
            }
            ALPN => {
                let mut protocols = content.list();
                while !protocols.rest.is_empty() {
                    let protocol = protocols.short_list();
                    self.alpn.extend(protocol.is_sound.then(|| protocol.rest.to_vec()));
                }
                content.is_sound &= protocols.is_sound;
            }
            SUPPORTED_VERSIONS => self.versions = content.short_list().numbers(&mut content.is_sound),
            SIGNATURE_ALGORITHMS => {
                self.signature_algorithms = content.list().numbers(&mut content.is_sound);
            }
            _ => return,
        }
        *is_sound &= content.is_sound && content.rest.is_empty();
    }
}

/// Whether a value stands for nothing and is there only to keep servers tolerant.
#[must_use]
pub const fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

/// Bytes that are read from the front; what is missing reads as nothing and is remembered.
struct Field<'a> {
    rest: &'a [u8],
    /// Nothing was missing.
    is_sound: bool,
}

impl<'a> Field<'a> {
    const fn new(rest: &'a [u8]) -> Self {
        Self { rest, is_sound: true }
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        self.is_sound &= len <= self.rest.len();
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    fn number(&mut self) -> u16 {
        <[u8; 2]>::try_from(self.take(2)).map(u16::from_be_bytes).unwrap_or_default()
    }

    /// What a length of two bytes is in front of.
    fn list(&mut self) -> Self {
        let len = self.number();
        self.part(len.into())
    }

    /// What a length of one byte is in front of.
    fn short_list(&mut self) -> Self {
        let len = self.byte();
        self.part(len.into())
    }

    /// A part that is not whole is not sound, and neither is what it is a part of.
    fn part(&mut self, len: usize) -> Self {
        let rest = self.take(len);
        Self { rest, is_sound: rest.len() == len }
    }

    /// All numbers in it but GREASE.
    fn numbers(self, is_sound: &mut bool) -> Vec<u16> {
        let (pairs, odd) = self.rest.as_chunks();
        *is_sound &= self.is_sound && odd.is_empty();
        pairs.iter().map(|pair| u16::from_be_bytes(*pair)).filter(|value| !is_grease(*value)).collect()
    }
}
