//! The program a process runs: file, arguments, and what both make it for container management.

use std::sync::Arc;

use crate::fact::ExecRole;
use crate::role;
use crate::runtime_args::{self, RuntimeCall};

/// The program a process runs; shared by a process and its forks.
#[derive(Debug, Default)]
pub(crate) struct Image {
    pub(crate) exe: Option<Arc<str>>,
    pub(crate) args: Option<Arc<[Arc<str>]>>,
    pub(crate) truncated: bool,
    pub(crate) role: Option<ExecRole>,
    pub(crate) call: Option<RuntimeCall>,
    /// Memory its texts take.
    pub(crate) bytes: usize,
}

impl Image {
    pub(crate) fn new(
        exe: Option<Arc<str>>,
        args: Option<Arc<[Arc<str>]>>,
        truncated: bool,
        tools: &[Arc<str>],
    ) -> Self {
        let arg0 = args.as_ref().and_then(|args| args.first()).map(|arg| &**arg);
        let program = role::of_program(exe.as_deref(), arg0, tools);
        let call =
            program.and_then(|(_, name)| runtime_args::parse(name, args.as_deref().unwrap_or_default()));
        let role = program.map(|(role, _)| role);
        // An argument costs its text and its share of two reference counts and pointers.
        let args_bytes = args.iter().flat_map(|args| args.iter()).map(|arg| arg.len() + 32).sum::<usize>();
        let bytes = exe.as_ref().map_or(0, |exe| exe.len()) + args_bytes;
        Self { exe, args, truncated, role, call, bytes }
    }

    /// Names the file that its path given to the kernel stands for; what it is was told by the names it was given.
    pub(crate) fn set_exe(&mut self, exe: Arc<str>) {
        self.bytes += exe.len();
        self.bytes -= self.exe.replace(exe).map_or(0, |given| given.len());
    }

    /// The image of a process of which only the name is known.
    pub(crate) fn of_comm(comm: &str, tools: &[Arc<str>]) -> Self {
        Self { role: role::of_name(comm, tools), ..Self::default() }
    }

    /// Bytes that go when this handle, just taken out of the table, is dropped.
    pub(crate) fn bytes_freed(self: &Arc<Self>) -> usize {
        if Arc::strong_count(self) == 1 { self.bytes } else { 0 }
    }
}
