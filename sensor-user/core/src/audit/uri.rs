//! The query of a request: keys and values, percent signs undone.

use std::borrow::Cow;

/// Parameters looked at in one query.
const PARAMETERS_MAX: usize = 128;

/// Keys and values as they are written.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').take(PARAMETERS_MAX).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// The values of one key, decoded; bytes that are no UTF-8 become U+FFFD.
pub(super) fn values<'a>(query: &'a str, key: &'static str) -> impl Iterator<Item = Cow<'a, str>> {
    pairs(query).filter(move |(name, _)| *name == key).map(|(_, value)| decode(value))
}

fn decode(value: &str) -> Cow<'_, str> {
    if !value.contains(['%', '+']) {
        return Cow::Borrowed(value);
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let escaped = match tail {
            [high, low, ..] if byte == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = &tail[2..];
            }
            None => bytes.push(if byte == b'+' { b' ' } else { byte }),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_broken_escapes_kept() {
        let query = "command=sh&container=c&command=-c&command=cat+%2Fetc%2fpasswd&command=%zz%&commands=x&command=%ff";
        let values: Vec<_> = values(query, "command").collect();
        assert_eq!(values, ["sh", "-c", "cat /etc/passwd", "%zz%", "\u{fffd}"]);
    }
}
