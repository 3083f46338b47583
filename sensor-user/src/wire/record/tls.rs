//! Objects of TLS clients.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::lists::{HelloFlaw, Stack};
use super::super::seq::List;
use super::Text;

/// The first flight of a TLS client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tls<'a> {
    /// Host name that the client asks for.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<Text<'a>>,
    /// Protocols that it offers to speak inside, in its order; at most 16 of at most 64 bytes.
    #[serde(borrow, default, skip_serializing_if = "List::is_empty")]
    pub alpn: List<'a, Arc<str>, Text<'a>>,
    /// Versions that it offers, in its order, without GREASE: `1.0` to `1.3`, `ssl3`, or a number such as `0x7f1c`; at most
    /// 16.
    #[serde(borrow, default, skip_serializing_if = "List::is_empty")]
    pub versions: List<'a, Arc<str>, Text<'a>>,
    /// Its JA4 fingerprint; absent when the hello is flawed.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub ja4: Option<Text<'a>>,
    /// What is wrong with the hello; the other keys are what could be read of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flaw: Option<HelloFlaw>,
    /// Whether its address is known to use this software; absent without a fingerprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<Stack>,
}
