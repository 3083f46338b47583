//! A scan over JSON that may be cut off or nonsense.
//!
//! One pass, no tree: each scalar is told with the keys above it. What is nested deeper than [`DEPTH_MAX`], and texts
//! beyond [`TEXT_MAX`] bytes, are passed over or cut; the input is bounded by whoever captured it.

/// Levels of nesting of which the keys are known.
const DEPTH_MAX: usize = 8;
/// Most bytes kept of a text or key.
const TEXT_MAX: usize = 256;

/// A scalar, or the beginning of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    /// `true`, `false`, `null` or a number, as written.
    Word(String),
    /// An object begins here.
    Object,
}

impl Value {
    /// The text of one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Word(_) | Self::Object => None,
        }
    }

    pub(super) fn is_true(&self) -> bool {
        matches!(self, Self::Word(word) if word == "true")
    }
}

/// Tells every scalar and every object with the keys above it, outermost first, in lower case; an element of an array has the empty key.
/// Returns whether the input was one whole value.
pub(super) fn scan(input: &[u8], mut tell: impl FnMut(&[String], &Value)) -> bool {
    let mut scan = Scan { input, at: 0 };
    let mut keys: Vec<String> = Vec::new();
    // Whether each open value is an object; those deeper than DEPTH_MAX are counted only.
    let mut open: Vec<bool> = Vec::new();
    let mut beyond = 0_usize;
    loop {
        let Some(byte) = scan.next_token() else { return false };
        match byte {
            b'{' | b'[' if open.len() == DEPTH_MAX || beyond > 0 => beyond += 1,
            b'}' | b']' if beyond > 0 => beyond -= 1,
            b'{' | b'[' => {
                if byte == b'{' {
                    tell(&keys, &Value::Object);
                }
                open.push(byte == b'{');
                keys.push(String::new());
            }
            b'}' | b']' => {
                open.pop();
                keys.pop();
            }
            b',' | b':' => {}
            b'"' => {
                let Some(text) = scan.text() else { return false };
                let is_key = beyond == 0 && open.last() == Some(&true) && scan.peek() == Some(b':');
                if is_key {
                    if let Some(key) = keys.last_mut() {
                        *key = fold(&text);
                    }
                } else if beyond == 0 {
                    tell(&keys, &Value::Text(text));
                }
            }
            _ => {
                let word = scan.word();
                if beyond == 0 {
                    tell(&keys, &Value::Word(word));
                }
            }
        }
        if open.is_empty() && beyond == 0 {
            return true;
        }
    }
}

/// Keys are compared as Go's decoder does, which ignores case in all of Unicode: two letters beyond ASCII fold into it.
fn fold(key: &str) -> String {
    key.chars()
        .map(|char| match char {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            char => char.to_ascii_lowercase(),
        })
        .collect()
}

struct Scan<'a> {
    input: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = self.input.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    fn peek(&mut self) -> Option<u8> {
        while self.input.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.input.get(self.at).copied()
    }

    fn next_token(&mut self) -> Option<u8> {
        self.peek()?;
        self.byte()
    }

    /// The word of which the first byte was taken.
    fn word(&mut self) -> String {
        let start = self.at - 1;
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || b",:{}[]\"".contains(byte);
        let len = self.input[self.at..].iter().position(is_end).unwrap_or(self.input.len() - self.at);
        self.at += len;
        let kept = &self.input[start..self.at.min(start + TEXT_MAX)];
        String::from_utf8_lossy(kept).into_owned()
    }

    /// The text whose opening quote was taken; `None` when the input ends in it.
    fn text(&mut self) -> Option<String> {
        let mut bytes = Vec::new();
        let mut pending_surrogate = None;
        loop {
            let byte = self.byte()?;
            let mut buffer = [0; 4];
            let unit: &[u8] = match byte {
                b'"' => return Some(String::from_utf8_lossy(&bytes).into_owned()),
                b'\\' => match self.byte()? {
                    b'n' => b"\n",
                    b't' => b"\t",
                    b'r' => b"\r",
                    b'b' => b"\x08",
                    b'f' => b"\x0c",
                    b'u' => {
                        let unit = self.hex()?;
                        match (pending_surrogate.take(), unit) {
                            (_, high @ 0xd800..0xdc00) => {
                                pending_surrogate = Some(high);
                                continue;
                            }
                            (Some(high), low @ 0xdc00..0xe000) => {
                                let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                                char::from_u32(code)
                                    .unwrap_or(char::REPLACEMENT_CHARACTER)
                                    .encode_utf8(&mut buffer)
                                    .as_bytes()
                            }
                            (_, code) => char::from_u32(code)
                                .unwrap_or(char::REPLACEMENT_CHARACTER)
                                .encode_utf8(&mut buffer)
                                .as_bytes(),
                        }
                    }
                    other => {
                        buffer[0] = other;
                        &buffer[..1]
                    }
                },
                other => {
                    buffer[0] = other;
                    &buffer[..1]
                }
            };
            if bytes.len() + unit.len() <= TEXT_MAX {
                bytes.extend_from_slice(unit);
            }
        }
    }

    fn hex(&mut self) -> Option<u32> {
        (0..4).try_fold(0, |number, _| Some(number << 4 | char::from(self.byte()?).to_digit(16)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(input: &str) -> (Vec<String>, bool) {
        let mut told = Vec::new();
        let whole = scan(input.as_bytes(), |keys, value| {
            if *value != Value::Object {
                told.push(format!("{}={value:?}", keys.join(".")));
            }
        });
        (told, whole)
    }

    #[test]
    fn scalars_come_with_their_keys() {
        let (found, whole) = told(r#" {"A":{"b":[true,"x\u00e9\"\ud83d\ude00"]},"\u0043":1.5} "#);
        assert_eq!(found, ["a.b.=Word(\"true\")", "a.b.=Text(\"xé\\\"😀\")", "c=Word(\"1.5\")"]);
        assert!(whole);
        assert_eq!(
            told("{\"Pr\\u0131v\":1,\"\u{17f}\u{212a}\":2}").0,
            ["prıv=Word(\"1\")", "sk=Word(\"2\")"]
        );
    }

    #[test]
    fn what_is_cut_off_is_told_up_to_there() {
        let (found, whole) = told(r#"{"a":"x","b":{"c":tr"#);
        assert_eq!(found, ["a=Text(\"x\")", "b.c=Word(\"tr\")"]);
        assert!(!whole);
        for nonsense in ["", "]", "}{", "{{{{", "\"", "\\", ":::", "{\"a\""] {
            let _ = told(nonsense);
        }
    }

    #[test]
    fn what_is_deep_is_passed_over() {
        let deep = format!("{{\"a\":{}1{},\"b\":2}}", "[".repeat(500), "]".repeat(500));
        assert_eq!(told(&deep), (vec!["b=Word(\"2\")".to_owned()], true));
    }
}
