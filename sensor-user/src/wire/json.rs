//! A JSON writer for records: every line goes through it, and it takes some 60 % of the time of the general one.
//!
//! It takes keys and names of variants as they are, which ours may be, and looks at texts eight bytes at a time. It writes
//! exactly what `serde_json` writes; a property test compares them.

use std::fmt::Display;

use serde::ser::{self, Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, Serializer};

/// Appends a value to `out` as compact JSON.
///
/// # Errors
/// When the value has something in it that records never have: floats, bytes, tuples, variants with content.
pub fn append(value: &impl Serialize, out: &mut Vec<u8>) -> Result<(), NotInRecords> {
    value.serialize(&mut Writer { out })
}

/// A value that records never have.
#[derive(Debug, thiserror::Error)]
#[error("not in records: {0}")]
pub struct NotInRecords(String);

impl ser::Error for NotInRecords {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

fn never<T>(what: &str) -> Result<T, NotInRecords> {
    Err(NotInRecords(what.to_owned()))
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    /// Writes a text that needs no escapes.
    fn plain(&mut self, text: &'static str) {
        self.out.push(b'"');
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'"');
    }

    fn text(&mut self, text: &str) {
        let bytes = text.as_bytes();
        // Room for all of a text without escapes, so that nothing below has to ask again.
        self.out.reserve(bytes.len() + 2);
        self.out.push(b'"');
        if needs_no_escape(bytes) {
            self.out.extend_from_slice(bytes);
        } else {
            self.escaped(bytes);
        }
        self.out.push(b'"');
    }

    #[cold]
    fn escaped(&mut self, mut bytes: &[u8]) {
        while let Some(clean) = bytes.iter().position(|byte| is_special(*byte)) {
            self.out.extend_from_slice(&bytes[..clean]);
            self.escape(bytes[clean]);
            bytes = &bytes[clean + 1..];
        }
        self.out.extend_from_slice(bytes);
    }

    fn escape(&mut self, byte: u8) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let short = match byte {
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            0..=0x1f => {
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                self.out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
                return;
            }
            // The quote and the backslash themselves.
            _ => byte,
        };
        self.out.extend_from_slice(&[b'\\', short]);
    }

    fn number(&mut self, value: u64) {
        let mut digits = itoa::Buffer::new();
        self.out.extend_from_slice(digits.format(value).as_bytes());
    }
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

/// A list or an object that is being written.
struct Items<'w, 'a> {
    writer: &'w mut Writer<'a>,
    first: bool,
    end: u8,
}

impl Items<'_, '_> {
    fn separate(&mut self) {
        if !std::mem::replace(&mut self.first, false) {
            self.writer.out.push(b',');
        }
    }

    fn close(self) {
        self.writer.out.push(self.end);
    }
}

impl<'w, 'a> Serializer for &'w mut Writer<'a> {
    type Ok = ();
    type Error = NotInRecords;
    type SerializeSeq = Items<'w, 'a>;
    type SerializeMap = Items<'w, 'a>;
    type SerializeStruct = Items<'w, 'a>;
    type SerializeTuple = Impossible<(), NotInRecords>;
    type SerializeTupleStruct = Impossible<(), NotInRecords>;
    type SerializeTupleVariant = Impossible<(), NotInRecords>;
    type SerializeStructVariant = Impossible<(), NotInRecords>;

    fn serialize_bool(self, value: bool) -> Result<(), NotInRecords> {
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }
    fn serialize_u8(self, value: u8) -> Result<(), NotInRecords> {
        self.number(value.into());
        Ok(())
    }
    fn serialize_u16(self, value: u16) -> Result<(), NotInRecords> {
        self.number(value.into());
        Ok(())
    }
    fn serialize_u32(self, value: u32) -> Result<(), NotInRecords> {
        self.number(value.into());
        Ok(())
    }
    fn serialize_u64(self, value: u64) -> Result<(), NotInRecords> {
        self.number(value);
        Ok(())
    }
    fn serialize_str(self, text: &str) -> Result<(), NotInRecords> {
        self.text(text);
        Ok(())
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<(), NotInRecords> {
        self.plain(name);
        Ok(())
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NotInRecords> {
        value.serialize(self)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), NotInRecords> {
        value.serialize(self)
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'w, 'a>, NotInRecords> {
        self.out.push(b'[');
        Ok(Items { writer: self, first: true, end: b']' })
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Items<'w, 'a>, NotInRecords> {
        self.out.push(b'{');
        Ok(Items { writer: self, first: true, end: b'}' })
    }
    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Items<'w, 'a>, NotInRecords> {
        self.serialize_map(Some(len))
    }

    fn serialize_i8(self, _: i8) -> Result<(), NotInRecords> {
        never("a signed number")
    }
    fn serialize_i16(self, _: i16) -> Result<(), NotInRecords> {
        never("a signed number")
    }
    fn serialize_i32(self, _: i32) -> Result<(), NotInRecords> {
        never("a signed number")
    }
    fn serialize_i64(self, _: i64) -> Result<(), NotInRecords> {
        never("a signed number")
    }
    fn serialize_f32(self, _: f32) -> Result<(), NotInRecords> {
        never("a float")
    }
    fn serialize_f64(self, _: f64) -> Result<(), NotInRecords> {
        never("a float")
    }
    fn serialize_char(self, _: char) -> Result<(), NotInRecords> {
        never("a char")
    }
    fn serialize_bytes(self, _: &[u8]) -> Result<(), NotInRecords> {
        never("bytes")
    }
    fn serialize_none(self) -> Result<(), NotInRecords> {
        never("an absent value with a key")
    }
    fn serialize_unit(self) -> Result<(), NotInRecords> {
        never("a unit")
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), NotInRecords> {
        never("a unit")
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), NotInRecords> {
        never("a variant with content")
    }
    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, NotInRecords> {
        never("a tuple")
    }
    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, NotInRecords> {
        never("a tuple")
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, NotInRecords> {
        never("a variant with content")
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, NotInRecords> {
        never("a variant with content")
    }
}

impl SerializeSeq for Items<'_, '_> {
    type Ok = ();
    type Error = NotInRecords;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotInRecords> {
        self.separate();
        value.serialize(&mut *self.writer)
    }
    fn end(self) -> Result<(), NotInRecords> {
        self.close();
        Ok(())
    }
}

impl SerializeMap for Items<'_, '_> {
    type Ok = ();
    type Error = NotInRecords;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), NotInRecords> {
        self.separate();
        // The keys of our maps are names of closed lists, which are written as texts.
        key.serialize(&mut *self.writer)
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotInRecords> {
        self.writer.out.push(b':');
        value.serialize(&mut *self.writer)
    }
    fn end(self) -> Result<(), NotInRecords> {
        self.close();
        Ok(())
    }
}

impl SerializeStruct for Items<'_, '_> {
    type Ok = ();
    type Error = NotInRecords;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), NotInRecords> {
        let out = &mut *self.writer.out;
        out.reserve(key.len() + 4);
        if !std::mem::replace(&mut self.first, false) {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"\":");
        value.serialize(&mut *self.writer)
    }
    fn end(self) -> Result<(), NotInRecords> {
        self.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ours(value: &impl Serialize) -> String {
        let mut out = Vec::new();
        append(value, &mut out).expect("in records");
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn every_ascii_byte_is_written_as_it_should_be() {
        let text: String = (0_u8..128).map(char::from).collect();
        assert_eq!(ours(&text), serde_json::to_string(&text).expect("JSON"));
    }

    #[test]
    fn what_records_never_have_is_refused() {
        assert!(append(&1.5, &mut Vec::new()).is_err());
        assert!(append(&-1, &mut Vec::new()).is_err());
        assert!(append(&None::<u8>, &mut Vec::new()).is_err());
        assert!(append(&(1_u8, 2_u8), &mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn texts_and_numbers_are_those_of_serde_json(text: String, quoted in "[\"\\\\\\n\\x00a-zé]{0,80}", number: u64) {
            prop_assert_eq!(ours(&text), serde_json::to_string(&text).expect("JSON"));
            prop_assert_eq!(ours(&quoted), serde_json::to_string(&quoted).expect("JSON"));
            prop_assert_eq!(ours(&number), number.to_string());
        }
    }
}
