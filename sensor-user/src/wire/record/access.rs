//! Objects of the records that say who reaches something: a connection, a socket, a credential.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::lists::{ConnectResult, CredentialClass, Runtime};
use super::{End, Text};

/// How a connection was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Accept<'a> {
    /// The task that took it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub task: Option<AcceptingTask<'a>>,
    /// Who is behind it, when a program of the node passes on what that one says.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Client<'a>>,
    /// Told by the first data of the connection and with their time, because the kernel has called no program when it was
    /// completed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
}

/// The far end of a connection that is passed on over another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Client<'a> {
    /// Address and port of whoever opened it.
    pub peer: End,
    /// That connection, if it is told of: `net.conn` of other records.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub conn: Option<Text<'a>>,
}

/// The task that took a connection; `pid` and `start_ns` together are the key of its process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AcceptingTask<'a> {
    /// Thread group id in the initial pid namespace.
    pub pid: u32,
    /// Start of the process on CLOCK_BOOTTIME, nanoseconds.
    pub start_ns: u64,
    /// Name, at most 15 bytes.
    #[serde(borrow)]
    pub comm: Text<'a>,
    /// Path of the executable.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<Text<'a>>,
}

/// The unix socket of a runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Socket<'a> {
    /// Path that its listener is bound to on the host, whatever the caller named; absent when it is gone.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Text<'a>>,
    /// Inode number of that path.
    pub inode: u64,
    /// The runtime that serves it; absent when the path is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Runtime>,
    /// The connection on which a request was made: `origin.conn` of what it caused.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub conn: Option<Text<'a>>,
}

/// A credential file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct File<'a> {
    /// Path as the process sees it; absent when it is longer than 1023 bytes.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Text<'a>>,
    /// What the file is good for.
    pub class: CredentialClass,
}

/// The end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Conn {
    /// From establishment to the end, nanoseconds; absent when the record of the establishment was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ns: Option<u64>,
    /// Payload bytes received.
    pub bytes_in: u64,
    /// Payload bytes sent, retransmissions excluded.
    pub bytes_out: u64,
}

/// An outbound connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Connect {
    /// How it went.
    pub result: ConnectResult,
}
