//! The program a process runs: file, arguments, and what both make it for container management.

use std::sync::Arc;

use crate::event::ExecEvent;
use crate::fact::{ExecRole, Program};
use crate::ids::FileKey;
use crate::programs::Contents;
use crate::role;
use crate::runtime_args::{self, RuntimeCall};

/// The program a process runs; shared by a process and its forks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    pub(crate) exe: Option<Arc<str>>,
    pub(crate) args: Option<Arc<[Arc<str>]>>,
    pub(crate) truncated: bool,
    pub(crate) role: Option<ExecRole>,
    /// In a box: few processes have one, and all have an image.
    pub(crate) call: Option<Box<RuntimeCall>>,
    /// What is known of it beyond its path.
    pub(crate) program: Program,
    /// Contents of its file; unknown is zero.
    pub(crate) contents: Contents,
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
        let call = call.map(Box::new);
        let role = program.map(|(role, _)| role);
        let tool = program.map(|(_, name)| Arc::from(name));
        // An argument costs its text and its share of two reference counts and pointers.
        let args_bytes = args.iter().flat_map(|args| args.iter()).map(|arg| arg.len() + 32).sum::<usize>();
        let bytes = exe.as_ref().map_or(0, |exe| exe.len()) + args_bytes;
        let program = Program { tool, ..Program::default() };
        Self { exe, args, truncated, role, call, program, contents: Contents::default(), bytes }
    }

    /// Enters what the kernel says of its file, and the client that its contents are known to be.
    pub(crate) fn set_file(&mut self, event: &ExecEvent, client: Option<&Arc<str>>) {
        self.contents = event.contents().unwrap_or_default();
        self.program.file = (event.exe != FileKey::default()).then_some(event.exe);
        self.program.flags = event.exe_flags;
        // An interpreter is no client, whatever it interprets.
        if let Some(client) = client.filter(|_| !event.exe_flags.script) {
            self.recognise(client);
        }
    }

    /// Its contents are a client's. Returns whether it goes by another name.
    pub(crate) fn recognise(&mut self, client: &Arc<str>) -> bool {
        self.program.renamed = self.program.tool.as_ref() != Some(client);
        if self.program.renamed {
            self.program.tool = Some(client.clone());
            self.role = Some(ExecRole::Client);
            self.call = None;
        }
        self.program.renamed
    }

    /// Names the file that its path given to the kernel stands for; what it is was told by the names it was given.
    pub(crate) fn set_exe(&mut self, exe: Arc<str>) {
        self.bytes += exe.len();
        self.bytes -= self.exe.replace(exe).map_or(0, |given| given.len());
    }

    /// The image of a process of which only the name is known.
    pub(crate) fn of_comm(comm: &str, tools: &[Arc<str>]) -> Self {
        let role = role::of_name(comm, tools);
        let program = Program { tool: role.map(|_| Arc::from(comm)), ..Program::default() };
        Self { role, program, ..Self::default() }
    }

    /// Bytes that go when this handle, just taken out of the table, is dropped.
    pub(crate) fn bytes_freed(self: &Arc<Self>) -> usize {
        if Arc::strong_count(self) == 1 { self.bytes } else { 0 }
    }
}
