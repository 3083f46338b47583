//! TLS clients.

use std::sync::Arc;

use sensor_core::fact;

use super::super::record::{Text, Tls};
use super::super::seq::List;
use super::{shared, text};

impl<'a> From<&'a fact::TlsHello> for Tls<'a> {
    fn from(hello: &'a fact::TlsHello) -> Self {
        Self {
            sni: text(&hello.sni),
            alpn: List::Core(&hello.alpn),
            versions: List::Core(&hello.versions),
            ja4: text(&hello.ja4),
            flaw: hello.flaw.map(Into::into),
            stack: hello.stack.map(Into::into),
        }
    }
}

impl From<Tls<'_>> for fact::TlsHello {
    fn from(tls: Tls<'_>) -> Self {
        let shared_all =
            |list: List<'_, Arc<str>, Text<'_>>| list.into_read().into_iter().map(Arc::from).collect();
        Self {
            sni: shared(tls.sni),
            alpn: shared_all(tls.alpn),
            versions: shared_all(tls.versions),
            ja4: shared(tls.ja4),
            flaw: tls.flaw.map(Into::into),
            stack: tls.stack.map(Into::into),
        }
    }
}
