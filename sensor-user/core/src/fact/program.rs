//! What is known of a program beyond the path it was executed by.

use std::sync::Arc;

use crate::ids::FileKey;

/// What a program's file is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExeFlags {
    /// The file has no name any more.
    pub deleted: bool,
    /// The file has never had one: it was made in memory.
    pub memfd: bool,
    /// An interpreter runs it: its arguments begin with that.
    pub script: bool,
}

impl ExeFlags {
    /// Whether there is anything to say.
    #[must_use]
    pub const fn is_any(self) -> bool {
        self.deleted || self.memfd || self.script
    }
}

/// A program beyond its path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The file that was loaded: of a script, its interpreter.
    pub file: Option<FileKey>,
    /// What it is like.
    pub flags: ExeFlags,
    /// The tool of container management that it is, by its contents where these are known, else by its name.
    pub tool: Option<Arc<str>>,
    /// It is that by its contents and goes by another name.
    pub renamed: bool,
}
