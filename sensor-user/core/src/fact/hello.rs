//! What TLS clients say first.

use std::sync::Arc;

pub use crate::tls::reader::Flaw;

/// The first flight of a TLS client. What is not known is `None` or left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsHello {
    /// Host name that the client asks for.
    pub sni: Option<Arc<str>>,
    /// Protocols that it offers to speak inside, in its order.
    pub alpn: Arc<[Arc<str>]>,
    /// Versions that it offers, in its order.
    pub versions: Arc<[Arc<str>]>,
    /// Its fingerprint.
    pub ja4: Option<Arc<str>>,
    /// Why it has none.
    pub flaw: Option<Flaw>,
    /// Whether its address has used that software before.
    pub stack: Option<Stack>,
}

/// What is known of the software that an address uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stack {
    /// Nothing was known of this address.
    First,
    /// It has used this before.
    Known,
    /// It is known to use something else.
    New,
}
