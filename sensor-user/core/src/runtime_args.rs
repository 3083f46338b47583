//! Arguments of OCI runtimes, shims and conmon: which container, which bundle, which namespace.
//!
//! Owns the option tables. Arguments are data from outside: whatever they are, the answer is a value or `None`, and
//! nothing here decides whether to believe it.

use std::sync::Arc;

use crate::cgroup_path::is_long_id;
use crate::text::basename;

/// Subcommand of an OCI runtime, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OciCommand {
    /// Makes a container.
    Create,
    /// Makes and starts a container.
    Run,
    /// Starts a container that was made.
    Start,
    /// Puts a process into a container.
    Exec,
    /// Drops a container's state.
    Delete,
    /// The runtime's own helper inside the container to be.
    Init,
    /// Any other.
    Other,
}

/// One call of an OCI runtime.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OciCall {
    /// Subcommand.
    pub command: OciCommand,
    /// The container, when the subcommand takes one.
    pub id: Option<Arc<str>>,
    /// `--bundle`.
    pub bundle: Option<Arc<str>>,
    /// `--root`.
    pub root: Option<Arc<str>>,
    /// What `exec` puts into the container.
    pub exec: Option<ExecSpec>,
    /// The id that Docker gave an exec, by which containerd names the file of `--pid-file`.
    pub exec_id: Option<Arc<str>>,
}

/// Where an `exec` has its process from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExecSpec {
    /// `--process`: a file with the process of an OCI spec.
    File(Arc<str>),
    /// The call itself; everything else is as for the container's first process.
    Words {
        /// Arguments behind the container's id.
        args: Vec<Arc<str>>,
        /// `--cwd`.
        cwd: Option<Arc<str>>,
        /// `--cap`.
        capabilities: Vec<Arc<str>>,
    },
}

/// One containerd shim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShimCall {
    /// `-namespace`; `moby` is Docker.
    pub namespace: Option<Arc<str>>,
    /// `-id`.
    pub id: Option<Arc<str>>,
    /// `-bundle`.
    pub bundle: Option<Arc<str>>,
}

/// One conmon, the monitor of podman and CRI-O.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConmonCall {
    /// `--cid`.
    pub id: Option<Arc<str>>,
    /// `--bundle`.
    pub bundle: Option<Arc<str>>,
    /// Started by CRI-O, else by podman.
    pub crio: bool,
}

/// What a runtime-side process was called to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RuntimeCall {
    /// runc, crun, youki.
    Oci(OciCall),
    /// containerd-shim*.
    Shim(ShimCall),
    /// conmon.
    Conmon(ConmonCall),
}

/// Whether a program name is an OCI runtime's.
#[must_use]
pub fn is_oci_runtime(name: &str) -> bool {
    matches!(name, "runc" | "crun" | "youki")
}

/// Reads the arguments of a program by its name; `None` for all other programs.
#[must_use]
pub fn parse(program: &str, args: &[Arc<str>]) -> Option<RuntimeCall> {
    let args = args.get(1..).unwrap_or_default();
    match program {
        name if is_oci_runtime(name) => Some(RuntimeCall::Oci(parse_oci(args))),
        "conmon" => Some(RuntimeCall::Conmon(parse_conmon(args))),
        name if name.starts_with("containerd-shim") => Some(RuntimeCall::Shim(parse_shim(args))),
        _ => None,
    }
}

/// Options of runc, crun and youki before the subcommand that take a value.
const OCI_GLOBAL_VALUES: [&str; 7] =
    ["root", "r", "log", "log-format", "log-level", "criu", "cgroup-manager"];

/// Options after the subcommand that take a value.
fn oci_command_values(command: OciCommand) -> &'static [&'static str] {
    match command {
        // `-f` names crun's configuration file here and is `--force` of `delete`.
        OciCommand::Create | OciCommand::Run => {
            &["bundle", "b", "config", "f", "console-socket", "pidfd-socket", "pid-file", "preserve-fds"]
        }
        OciCommand::Exec => &[
            "console-socket",
            "pidfd-socket",
            "cwd",
            "env",
            "e",
            "user",
            "u",
            "additional-gids",
            "g",
            "process",
            "p",
            "pid-file",
            "process-label",
            "apparmor",
            "cap",
            "c",
            "preserve-fds",
            "cgroup",
        ],
        _ => &[],
    }
}

fn parse_oci(args: &[Arc<str>]) -> OciCall {
    let mut call =
        OciCall { command: OciCommand::Other, id: None, bundle: None, root: None, exec: None, exec_id: None };
    let mut options = Options { args: args.iter(), values: &OCI_GLOBAL_VALUES };
    let subcommand = loop {
        match options.next() {
            Some(Word::Option("root" | "r", value)) => call.root = value.map(Arc::from),
            Some(Word::Option(..)) => {}
            Some(Word::Plain(word)) => break word,
            None => return call,
        }
    };
    call.command = match &**subcommand {
        "create" => OciCommand::Create,
        "run" => OciCommand::Run,
        "start" => OciCommand::Start,
        "exec" => OciCommand::Exec,
        "delete" => OciCommand::Delete,
        "init" => OciCommand::Init,
        _ => OciCommand::Other,
    };
    if matches!(call.command, OciCommand::Init | OciCommand::Other) {
        return call;
    }
    options.values = oci_command_values(call.command);
    let is_exec = call.command == OciCommand::Exec;
    let mut file = None;
    let mut capabilities = Vec::new();
    let mut cwd = None;
    for word in options.by_ref() {
        match word {
            Word::Option("bundle" | "b", value) => call.bundle = value.map(Arc::from),
            Word::Option("pid-file", value) if is_exec => {
                let name = value.map(basename).and_then(|name| name.strip_suffix(".pid"));
                call.exec_id = name.filter(|name| is_long_id(name)).map(Arc::from);
            }
            Word::Option("process" | "p", value) if is_exec => file = value.map(Arc::from),
            Word::Option("cwd", value) if is_exec => cwd = value.map(Arc::from),
            Word::Option("cap" | "c", value) if is_exec => capabilities.extend(value.map(Arc::from)),
            Word::Option(..) => {}
            Word::Plain(word) => {
                call.id = Some(word.clone());
                break;
            }
        }
    }
    if is_exec {
        let args = options.args.as_slice().to_vec();
        call.exec = Some(file.map_or(ExecSpec::Words { args, cwd, capabilities }, ExecSpec::File));
    }
    call
}

fn parse_shim(args: &[Arc<str>]) -> ShimCall {
    let mut call = ShimCall { namespace: None, id: None, bundle: None };
    let values = &["namespace", "id", "bundle", "address", "publish-binary", "socket", "workdir"];
    for word in (Options { args: args.iter(), values }) {
        match word {
            Word::Option("namespace", value) => call.namespace = value.map(Arc::from),
            Word::Option("id", value) => call.id = value.map(Arc::from),
            Word::Option("bundle", value) => call.bundle = value.map(Arc::from),
            _ => {}
        }
    }
    call
}

fn parse_conmon(args: &[Arc<str>]) -> ConmonCall {
    let mut call = ConmonCall { id: None, bundle: None, crio: false };
    let values = &[
        "cid",
        "c",
        "cuuid",
        "u",
        "runtime",
        "r",
        "bundle",
        "b",
        "pidfile",
        "p",
        "container-pidfile",
        "name",
        "n",
        "exit-dir",
        "persist-dir",
        "log-path",
        "l",
        "log-level",
        "log-tag",
        "conmon-pidfile",
        "P",
        "exit-command",
        "exit-command-arg",
        "exit-delay",
        "runtime-arg",
        "runtime-opt",
        "socket-dir-path",
        "api-version",
        "log-size-max",
        "log-size-global-max",
        "timeout",
        "T",
        "sdnotify-socket",
        "exec-process-spec",
        "restore",
        "restore-arg",
        "seccomp-notify-socket",
        "seccomp-notify-plugins",
        "attach-socket-path",
    ];
    for word in (Options { args: args.iter(), values }) {
        match word {
            Word::Option("cid" | "c", value) => call.id = value.map(Arc::from),
            Word::Option("bundle" | "b", value) => call.bundle = value.map(Arc::from),
            Word::Option("exit-dir", Some(dir)) => call.crio |= dir.split('/').any(|part| part == "crio"),
            _ => {}
        }
    }
    call
}

/// One word of a command line.
enum Word<'a> {
    /// An option, without its dashes, and its value.
    Option(&'a str, Option<&'a str>),
    /// Anything else.
    Plain(&'a Arc<str>),
}

/// Walks options in the styles of the Go and the C runtimes: `--name value`, `--name=value`, `-name value`, `-nVALUE`.
struct Options<'a> {
    args: std::slice::Iter<'a, Arc<str>>,
    /// Names of the options that take a value.
    values: &'a [&'a str],
}

impl<'a> Iterator for Options<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        let word = self.args.next()?;
        if &**word == "--" {
            return self.args.next().map(Word::Plain);
        }
        let Some(name) =
            word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|name| !name.is_empty())
        else {
            return Some(Word::Plain(word));
        };
        if let Some((name, value)) = name.split_once('=') {
            return Some(Word::Option(name, Some(value)));
        }
        if self.values.contains(&name) {
            return Some(Word::Option(name, self.args.next().map(|value| &**value)));
        }
        // A short option with its value attached, as in `-b/path`.
        if !word.starts_with("--") && name.is_char_boundary(1) {
            let (short, value) = name.split_at(1);
            if !value.is_empty() && self.values.contains(&short) {
                return Some(Word::Option(short, Some(value)));
            }
        }
        Some(Word::Option(name, None))
    }
}

#[cfg(test)]
mod tests;
