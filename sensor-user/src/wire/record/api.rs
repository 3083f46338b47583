//! Objects of requests to management APIs and of what they cause.

use std::sync::Arc;

use schemars::JsonSchema;
use sensor_core::ids::ConnId;
use sensor_core::risks::Risk;
use serde::{Deserialize, Serialize};

use super::super::lists::{ApiClass, OriginClass, Protocol, Service};
use super::super::risk::RiskName;
use super::super::seq::List;
use super::{Client, Text};

/// A request on a management connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Api<'a> {
    /// Service by the port.
    pub service: Service,
    /// Method, as sent; absent when no HTTP/1 is spoken.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Text<'a>>,
    /// Path, as sent, without its query; at most 512 bytes.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Text<'a>>,
    /// The path without version and with its variable parts collapsed: one of a fixed number of routes, `/{path}` for all
    /// others.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Text<'a>>,
    /// What the request does.
    pub class: ApiClass,
    /// Version of the API that the path names.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Text<'a>>,
    /// Status of the answer; absent when none was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// `User-Agent`, at most 256 bytes.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<Text<'a>>,
    /// Names of risks that the body of a create request asks for, as far as it was captured.
    #[serde(default, skip_serializing_if = "List::is_empty")]
    pub body_flags: List<'a, Risk, RiskName>,
    /// Image that the body of a create request names.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Text<'a>>,
    /// Entry point and command that the body of a create request names, at most 32 words.
    #[serde(borrow, default, skip_serializing_if = "List::is_empty")]
    pub command: List<'a, Arc<str>, Text<'a>>,
    /// What is spoken, if it is not HTTP/1; told once for a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Who is behind the connection, when a program of the node passes on what that one says.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Client<'a>>,
}

/// The cause of a container's step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Origin<'a> {
    /// The connection on which it was asked for: `net.conn` of other records.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub conn: Option<Text<'a>>,
    /// The record of the request.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Text<'a>>,
    /// The connections on one of which it was asked for, at most 16, when nobody can tell which: `conn` is absent then.
    #[serde(borrow, default, skip_serializing_if = "List::is_empty")]
    pub candidates: List<'a, ConnId, Text<'a>>,
    /// How sure the sensor is of it.
    pub class: OriginClass,
}
