//! Conversion of processes and what they execute.

use std::sync::Arc;

use sensor_core::fact;
use sensor_core::ids::FileKey;

use super::super::lists::ExeFlag;
use super::super::record::{Ancestor, ExeFile, Process};
use super::super::seq::List;
use super::{shared, text};

impl<'a> From<&'a fact::Process> for Process<'a> {
    fn from(process: &'a fact::Process) -> Self {
        let program = &process.program;
        Self {
            pid: process.pid,
            ppid: process.ppid,
            start_ns: process.start_ns,
            comm: (&process.comm).into(),
            exe: text(&process.exe),
            args: process.args.as_deref().map(List::Core),
            uid: process.uid,
            exe_file: program.file.map(|file| ExeFile { device: file.device, inode: file.inode }),
            exe_flags: flags(program.flags),
            tool: text(&program.tool),
            renamed: program.renamed,
            ancestors: List::Core(&process.ancestors),
        }
    }
}

impl<'a> From<&'a fact::Ancestor> for Ancestor<'a> {
    fn from(ancestor: &'a fact::Ancestor) -> Self {
        Self { pid: ancestor.pid, comm: (&ancestor.comm).into(), exe: text(&ancestor.exe) }
    }
}

impl From<Process<'_>> for fact::Process {
    fn from(process: Process<'_>) -> Self {
        let has = |flag| process.exe_flags.contains(&flag);
        let flags = fact::ExeFlags {
            deleted: has(ExeFlag::Deleted),
            memfd: has(ExeFlag::Memfd),
            script: has(ExeFlag::Script),
        };
        let file = process.exe_file.map(|file| FileKey { device: file.device, inode: file.inode });
        let (tool, renamed) = (shared(process.tool), process.renamed);
        let program = fact::Program { file, flags, tool, renamed };
        Self {
            pid: process.pid,
            ppid: process.ppid,
            start_ns: process.start_ns,
            comm: process.comm.into(),
            exe: shared(process.exe),
            args: process.args.map(|args| args.into_read().into_iter().map(Arc::from).collect()),
            uid: process.uid,
            program,
            ancestors: process.ancestors.into_read().into_iter().map(fact::Ancestor::from).collect(),
            // The line says it of the record as a whole.
            truncated: false,
        }
    }
}

impl From<Ancestor<'_>> for fact::Ancestor {
    fn from(ancestor: Ancestor<'_>) -> Self {
        Self { pid: ancestor.pid, comm: ancestor.comm.into(), exe: shared(ancestor.exe) }
    }
}

fn flags(flags: fact::ExeFlags) -> Vec<ExeFlag> {
    let flags =
        [(flags.deleted, ExeFlag::Deleted), (flags.memfd, ExeFlag::Memfd), (flags.script, ExeFlag::Script)];
    flags.into_iter().filter_map(|(is_so, flag)| is_so.then_some(flag)).collect()
}
