//! Processes and what they execute.

use std::sync::Arc;

use schemars::JsonSchema;
use sensor_core::fact;
use serde::{Deserialize, Serialize};

use super::super::lists::ExeFlag;
use super::super::seq::List;
use super::Text;

/// A process; `pid` and `start_ns` together are its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Process<'a> {
    /// Thread group id in the initial pid namespace.
    pub pid: u32,
    /// Parent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ppid: Option<u32>,
    /// Start of the process on CLOCK_BOOTTIME, nanoseconds.
    pub start_ns: u64,
    /// Name, at most 15 bytes.
    #[serde(borrow)]
    pub comm: Text<'a>,
    /// Path of the executable.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<Text<'a>>,
    /// Arguments, the program's own name first; at most 4 KiB.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub args: Option<List<'a, Arc<str>, Text<'a>>>,
    /// Real user id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The file that was loaded: of a script, its interpreter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe_file: Option<ExeFile>,
    /// What that file is like. Absent: nothing of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exe_flags: Vec<ExeFlag>,
    /// The tool of container management that it is, by its contents where these are known, else by its name.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<Text<'a>>,
    /// It is that tool by its contents, and goes by another name. Absent: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renamed: bool,
    /// Parent first.
    #[serde(borrow, default, skip_serializing_if = "List::is_empty")]
    pub ancestors: List<'a, fact::Ancestor, Ancestor<'a>>,
}

/// One ancestor of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ancestor<'a> {
    /// Thread group id.
    pub pid: u32,
    /// Name.
    #[serde(borrow)]
    pub comm: Text<'a>,
    /// Path of the executable.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<Text<'a>>,
}

/// A file, the same under every name and in every mount namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExeFile {
    /// Device of its file system as the kernel numbers it: the major number above the twenty bits of the minor one.
    pub device: u32,
    /// Inode number.
    pub inode: u64,
}
