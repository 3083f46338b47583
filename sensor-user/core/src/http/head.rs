//! The head of a message: first line and headers.
//!
//! Reads what Go's `net/http`, which every Docker and Podman daemon uses, reads: bare line feeds, folded headers and an
//! absolute target are taken, a blank before the colon of a header is not. Where two servers might disagree about where a
//! message ends, the head is refused.

use std::sync::Arc;

use crate::text;

/// Most bytes kept of a path.
pub const PATH_MAX: usize = 512;
/// Most bytes kept of a user agent.
pub const USER_AGENT_MAX: usize = 256;

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// In chunks, each with its length.
    Chunked,
    /// It ends with the connection.
    UntilClose,
    /// It has none: what follows is another protocol.
    Opaque,
}

/// A head that is not HTTP, or in which two readers might see different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A request without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Method, as sent; at most 16 bytes.
    pub method: Arc<str>,
    /// Path as sent, without scheme, host and query; at most [`PATH_MAX`] bytes.
    pub path: Arc<str>,
    /// The path was longer.
    pub truncated: bool,
    /// `User-Agent`.
    pub user_agent: Option<Arc<str>>,
    /// The client asks to go on in another protocol.
    pub upgrade: bool,
    /// Where the body ends.
    pub framing: Framing,
}

/// An answer without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHead {
    /// Status code.
    pub status: u16,
    /// What the headers say of the length; which methods and codes have no body at all is [`Self::framing`]'s.
    length: Option<Framing>,
}

/// The second line of the preface of HTTP/2; its first line looks like a request.
pub const HTTP2_METHOD: &str = "PRI";

impl RequestHead {
    /// Reads a whole head, the empty line at its end included or not.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(head: &[u8]) -> Result<Self, Malformed> {
        let (first, headers) = split(head);
        let mut words = first.splitn(3, |byte| *byte == b' ');
        let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
            return Err(Malformed);
        };
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if method.is_empty() || method.len() > 16 || !method.iter().all(is_token) || target.is_empty() {
            return Err(Malformed);
        }
        let minor = version_minor(version)?;
        let headers = Headers::read(headers, minor)?;
        let path = path_of(target);
        let cut = &path[..path.len().min(PATH_MAX)];
        Ok(Self {
            method: text::shared(method),
            path: text::shared(cut),
            truncated: cut.len() < path.len(),
            user_agent: headers.user_agent,
            upgrade: headers.upgrade,
            framing: headers.length.unwrap_or(Framing::Length(0)),
        })
    }
}

impl ReplyHead {
    /// Reads a whole head.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(head: &[u8]) -> Result<Self, Malformed> {
        let (first, headers) = split(head);
        let mut words = first.splitn(3, |byte| *byte == b' ');
        let (Some(version), Some(code)) = (words.next(), words.next()) else { return Err(Malformed) };
        let minor = version_minor(version)?;
        if code.len() != 3 || !code.iter().all(u8::is_ascii_digit) || code[0] == b'0' {
            return Err(Malformed);
        }
        let status = code.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
        Ok(Self { status, length: Headers::read(headers, minor)?.length })
    }

    /// Whether the final answer is still to come.
    #[must_use]
    pub const fn is_interim(&self) -> bool {
        self.status / 100 == 1 && self.status != SWITCHING_PROTOCOLS
    }

    /// Where the body ends, of an answer to this method.
    #[must_use]
    pub fn framing(&self, method: &str) -> Framing {
        match self.status {
            SWITCHING_PROTOCOLS => Framing::Opaque,
            200..=299 if method == "CONNECT" => Framing::Opaque,
            204 | 304 | 100..=199 => Framing::Length(0),
            _ if method == "HEAD" => Framing::Length(0),
            _ => self.length.unwrap_or(Framing::UntilClose),
        }
    }
}

const SWITCHING_PROTOCOLS: u16 = 101;

/// What counts of the headers.
#[derive(Default)]
struct Headers {
    length: Option<Framing>,
    user_agent: Option<Arc<str>>,
    upgrade: bool,
}

impl Headers {
    fn read(lines: &[u8], minor: u8) -> Result<Self, Malformed> {
        let mut headers = Self::default();
        let (mut length, mut is_chunked) = (None, false);
        let mut rest = lines;
        while !rest.is_empty() {
            let (mut line, mut after) = split(rest);
            if line.is_empty() {
                break;
            }
            let folded;
            if after.first().is_some_and(is_blank) {
                let mut whole = line.to_vec();
                while after.first().is_some_and(is_blank) {
                    let (more, next) = split(after);
                    whole.push(b' ');
                    whole.extend_from_slice(more.trim_ascii());
                    after = next;
                }
                folded = whole;
                line = &folded;
            }
            rest = after;
            let colon = line.iter().position(|byte| *byte == b':').ok_or(Malformed)?;
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.is_empty() || name.iter().any(|byte| *byte <= b' ') {
                return Err(Malformed);
            }
            if name.eq_ignore_ascii_case(b"content-length") {
                let number = number_of(value).ok_or(Malformed)?;
                if length.replace(number).is_some_and(|other| other != number) {
                    return Err(Malformed);
                }
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") && minor >= 1 {
                if is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed);
                }
                is_chunked = true;
            } else if name.eq_ignore_ascii_case(b"user-agent") && headers.user_agent.is_none() {
                headers.user_agent = Some(text::shared(&value[..value.len().min(USER_AGENT_MAX)]));
            } else if name.eq_ignore_ascii_case(b"upgrade") {
                headers.upgrade = true;
            }
        }
        headers.length = if is_chunked { Some(Framing::Chunked) } else { length.map(Framing::Length) };
        Ok(headers)
    }
}

const fn is_blank(byte: &u8) -> bool {
    matches!(*byte, b' ' | b'\t')
}

/// The first line without its end, and what follows.
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (line, rest) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[][..]),
    };
    (line.strip_suffix(b"\r").unwrap_or(line), rest)
}

/// The number behind `HTTP/1.`; the preface of HTTP/2 passes too, so that it can be said.
fn version_minor(version: &[u8]) -> Result<u8, Malformed> {
    match version {
        b"HTTP/1.0" => Ok(0),
        b"HTTP/1.1" | b"HTTP/2.0" => Ok(1),
        _ => Err(Malformed),
    }
}

fn number_of(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    value.iter().try_fold(0_u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}

/// The path of a target in origin or absolute form. The query may hold secrets, and so may the user information before a
/// host; neither is kept.
fn path_of(target: &[u8]) -> &[u8] {
    let target = target.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    if target.first() == Some(&b'/') {
        return target;
    }
    match target.windows(3).position(|window| window == b"://") {
        Some(scheme) => {
            let rest = &target[scheme + 3..];
            rest.iter().position(|byte| *byte == b'/').map_or(b"/", |slash| &rest[slash..])
        }
        None if target == b"*" => target,
        // The target of CONNECT, or nonsense: a host and perhaps user information.
        None => b"",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(head: &str) -> Result<RequestHead, Malformed> {
        RequestHead::parse(head.as_bytes())
    }

    #[test]
    fn a_request_is_read_without_its_secrets() {
        let head = request(
            "POST /v1.41/images/create?fromImage=x&token=secret HTTP/1.1\r\nHost: h\r\nUser-Agent: Docker-Client/26\r\n\
             X-Registry-Auth: c2VjcmV0\r\nContent-Length: 12\r\n\r\n",
        )
        .expect("sound");
        assert_eq!((&*head.method, &*head.path), ("POST", "/v1.41/images/create"));
        assert_eq!(head.user_agent.as_deref(), Some("Docker-Client/26"));
        assert_eq!(head.framing, Framing::Length(12));
        assert!(!format!("{head:?}").contains("secret") && !format!("{head:?}").contains("c2VjcmV0"));
    }

    #[test]
    fn what_go_reads_is_read() {
        let head = request(
            "GET http://user:secret@host:2375/info HTTP/1.1\nhost: h\nTransfer-Encoding:\n chunked\n\n",
        );
        let head = head.expect("sound");
        assert_eq!((&*head.path, head.framing), ("/info", Framing::Chunked));
        let old = request("POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n")
            .expect("sound");
        assert_eq!(old.framing, Framing::Length(3), "HTTP/1.0 knows no transfer encoding");
        let both = request("POST /a HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: Chunked\r\n\r\n")
            .expect("sound");
        assert_eq!(both.framing, Framing::Chunked);
    }

    #[test]
    fn what_two_readers_might_read_differently_is_refused() {
        for head in [
            "GET /\r\n\r\n",
            "GET / HTTP/1.1 x\r\n\r\n",
            "G T / HTTP/1.1\r\n\r\n",
            "GET / HTTP/3.0\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length : 3\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: +3\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            "GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        ] {
            assert_eq!(request(head), Err(Malformed), "{head}");
        }
    }

    #[test]
    fn a_reply_has_the_body_that_its_status_and_the_method_allow() {
        let framing = |head: &str, method| ReplyHead::parse(head.as_bytes()).expect("sound").framing(method);
        let sized = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(framing(sized, "GET"), Framing::Length(5));
        assert_eq!(framing(sized, "HEAD"), Framing::Length(0));
        assert_eq!(
            framing("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "POST"),
            Framing::Length(0)
        );
        assert_eq!(framing("HTTP/1.1 101 UPGRADED\r\n\r\n", "POST"), Framing::Opaque);
        assert_eq!(framing("HTTP/1.1 200 OK\r\n\r\n", "GET"), Framing::UntilClose);
        assert!(ReplyHead::parse(b"HTTP/1.1 100 Continue\r\n\r\n").expect("sound").is_interim());
        for head in ["HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 x00 OK\r\n\r\n", "ICY 200 OK\r\n\r\n"] {
            assert_eq!(ReplyHead::parse(head.as_bytes()), Err(Malformed), "{head}");
        }
    }
}
