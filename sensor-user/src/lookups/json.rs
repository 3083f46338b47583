//! Bounds for JSON that others write, put between the file and the decoder.
//!
//! The decoder collects a string before anybody can say whether it is wanted, and remembers every open bracket of what
//! it skips. [`Bounded`] passes the text on with strings cut and refuses deep nesting, so that the memory a document
//! takes depends on what is wanted of it and not on its length.

use std::fmt;
use std::io::{self, Read};

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most bytes of one string of a document; the longest honest ones hold documents themselves (labels of CRI-O).
pub const STRING_MAX: usize = 1 << 20;
/// Deepest nesting.
const DEPTH_MAX: usize = 128;

/// JSON text with bounded strings and bounded nesting.
#[derive(Debug)]
pub struct Bounded<R> {
    inner: R,
    string_max: usize,
    depth: usize,
    /// Bytes of the string that is being read.
    string: Option<usize>,
    /// The last byte was the backslash of an escape.
    escaped: bool,
    /// Hexadecimal digits of an escape that are still to come.
    digits: u8,
    /// The character or escape that is being read is left out.
    cut: bool,
}

impl<R: Read> Bounded<R> {
    /// Bounds the text of `inner`.
    pub fn new(inner: R) -> Self {
        Self::with_strings(inner, STRING_MAX)
    }

    fn with_strings(inner: R, string_max: usize) -> Self {
        Self { inner, string_max, depth: 0, string: None, escaped: false, digits: 0, cut: false }
    }

    /// Where the text comes from.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// Whether the next byte is passed on.
    fn keeps(&mut self, byte: u8) -> io::Result<bool> {
        let Some(length) = self.string else {
            match byte {
                b'"' => self.string = Some(0),
                b'{' | b'[' if self.depth >= DEPTH_MAX => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "nested too deeply"));
                }
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            return Ok(true);
        };
        let is_continued = self.escaped || self.digits > 0 || byte & 0xc0 == 0x80;
        if byte == b'"' && !is_continued {
            (self.string, self.cut) = (None, false);
            return Ok(true);
        }
        if !is_continued {
            // Cut between characters and never inside of one, so that the rest stays valid.
            self.cut = self.cut || length >= self.string_max;
        }
        if self.escaped {
            (self.escaped, self.digits) = (false, if byte == b'u' { 4 } else { 0 });
        } else if self.digits > 0 {
            self.digits -= 1;
        } else {
            self.escaped = byte == b'\\';
        }
        self.string = Some(length + 1);
        Ok(!self.cut)
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let length = self.inner.read(buffer)?;
            let mut kept = 0;
            for index in 0..length {
                let byte = buffer[index];
                if self.keeps(byte)? {
                    buffer[kept] = byte;
                    kept += 1;
                }
            }
            // Nothing left of a full buffer is not the end of the text.
            if kept > 0 || length == 0 {
                return Ok(kept);
            }
        }
    }
}

/// A string, or nothing where the document has another kind of value.
#[derive(Debug)]
pub struct StringOrOther(pub Option<String>);

impl<'de> Deserialize<'de> for StringOrOther {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = StringOrOther;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("any value")
            }
            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                Ok(StringOrOther(Some(value.to_owned())))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(StringOrOther(None))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(StringOrOther(None))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(StringOrOther(None))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(StringOrOther(None))
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(StringOrOther(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(StringOrOther(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(StringOrOther(None))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A list of at most `N` items, or the values of an object; `null` is an empty list, and a longer one is an error.
#[derive(Debug)]
pub struct Limited<T, const N: usize>(pub Vec<T>);

impl<T, const N: usize> Default for Limited<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Limited<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const N: usize>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Items<T, N> {
            type Value = Limited<T, N>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a list of at most {N} items")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Limited::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut kept = Vec::new();
                while let Some(item) = items.next_element()? {
                    if kept.len() == N {
                        return Err(serde::de::Error::invalid_length(N + 1, &self));
                    }
                    kept.push(item);
                }
                Ok(Limited(kept))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut kept = Vec::new();
                while let Some((IgnoredAny, item)) = entries.next_entry()? {
                    if kept.len() == N {
                        return Err(serde::de::Error::invalid_length(N + 1, &self));
                    }
                    kept.push(item);
                }
                Ok(Limited(kept))
            }
        }
        deserializer.deserialize_any(Items(std::marker::PhantomData))
    }
}

/// The first item of a list that passes a test; only one item is in memory at a time. `null` is an empty list.
#[derive(Debug)]
pub struct Find<F, T>(F, std::marker::PhantomData<T>);

impl<F: FnMut(&T) -> bool, T> Find<F, T> {
    /// Looks for an item that passes `test`.
    pub fn new(test: F) -> Self {
        Self(test, std::marker::PhantomData)
    }
}

impl<'de, F: FnMut(&T) -> bool, T: Deserialize<'de>> DeserializeSeed<'de> for Find<F, T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnMut(&T) -> bool, T: Deserialize<'de>> Visitor<'de> for Find<F, T> {
    type Value = Option<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(item) = items.next_element::<T>()? {
            if self.0(&item) {
                found = Some(item);
                break;
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounded(text: &str, string_max: usize) -> io::Result<String> {
        let mut out = String::new();
        Bounded::with_strings(text.as_bytes(), string_max).read_to_string(&mut out)?;
        Ok(out)
    }

    #[test]
    fn strings_are_cut_between_characters_and_nothing_else_is() {
        for (text, expected) in [
            (r#"{"abcdef": "ghijkl", "n": 12345678}"#, r#"{"abcd": "ghij", "n": 12345678}"#),
            (r#"["aaa\"bcd"]"#, r#"["aaa\""]"#),
            (r#"["aaa\u0041bcd", "xyz"]"#, r#"["aaa\u0041", "xyz"]"#),
            (r#"["aaaü\\bcd"]"#, r#"["aaaü"]"#),
            (r#"["aaaaaaaaaaa\"b\\"]"#, r#"["aaaa"]"#),
            ("{}", "{}"),
        ] {
            assert_eq!(bounded(text, 4).unwrap(), expected, "{text}");
        }
        let long = format!("\"{}\"", "x".repeat(1 << 20));
        assert_eq!(bounded(&long, 4).unwrap(), "\"xxxx\"", "a whole buffer may be left out");
    }

    #[test]
    fn nesting_is_bounded_outside_of_strings() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(bounded(&deep(DEPTH_MAX), 4).is_ok());
        assert!(bounded(&deep(DEPTH_MAX + 1), 4).is_err());
        assert!(bounded(&"[]".repeat(DEPTH_MAX * 2), 4).is_ok());
        assert!(bounded(&format!("\"{}\"", "[".repeat(1000)), 2000).is_ok());
    }

    #[test]
    fn other_values_than_strings_are_none() {
        for text in ["1", "-1", "1.5", "true", "null", "[1, {}]", "{\"a\": [2]}"] {
            assert_eq!(serde_json::from_str::<StringOrOther>(text).unwrap().0, None, "{text}");
        }
        assert_eq!(serde_json::from_str::<StringOrOther>("\"\\n\"").unwrap().0.as_deref(), Some("\n"));
    }

    #[test]
    fn lists_have_a_bound() {
        let read = |text: &str| serde_json::from_str::<Limited<u8, 2>>(text).map(|list| list.0);
        assert_eq!(read("[1, 2]").unwrap(), [1, 2]);
        assert!(read("null").unwrap().is_empty());
        assert!(read("[1, 2, 3]").unwrap_err().to_string().contains("a list of at most 2 items"));
        assert_eq!(read("{\"a\": 3, \"b\": 4}").unwrap(), [3, 4]);
        assert!(read("{\"a\": 3, \"b\": 4, \"c\": 5}").is_err());
        assert!(read("7").is_err());
    }

    #[test]
    fn the_first_match_of_a_list_is_found() {
        let find = |text: &str| {
            let mut deserializer = serde_json::Deserializer::from_str(text);
            Find::new(|item: &u32| *item > 1).deserialize(&mut deserializer)
        };
        assert_eq!(find("[1, 2, 3]").unwrap(), Some(2));
        assert_eq!(find("[1]").unwrap(), None);
        assert_eq!(find("null").unwrap(), None);
        assert!(find("{}").is_err());
    }
}
