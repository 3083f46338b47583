//! What a TLS client says of itself before anything is encrypted.
//!
//! ```text
//! bytes of the stream, in order -> HelloReader -> ClientHello -> ja4()
//!                                  records        fields         fingerprint
//! ```
//!
//! Owns the reading of the first message. It takes it in whatever pieces it comes, keeps at most [`reader::HELLO_MAX`] bytes of
//! it, and says of what it cannot read what is wrong with it. It judges no client and remembers none.

pub mod hello;
pub mod ja4;
pub mod reader;
