//! Running other programs so that a reader of the log sees what is run, and a failure names it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

/// Prints one line about what is going on.
pub fn say(text: impl AsRef<str>) {
    eprintln!("==> {}", text.as_ref());
}

/// Root of the checkout.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("invariant: xtask is a directory of the repository")
        .to_path_buf()
}

/// The cargo that runs this program, or the one in PATH, in the repository's root, without a standard input to wait for.
pub fn cargo() -> Command {
    let mut command = program(std::env::var_os("CARGO").as_deref().unwrap_or_else(|| OsStr::new("cargo")));
    // Set by `cargo run` for this package; a build script of another package must not see them.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR") {
            command.env_remove(name);
        }
    }
    command
}

/// A program, in the repository's root, without a standard input to wait for.
pub fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(repository()).stdin(Stdio::null());
    command
}

/// Says and runs a command; an exit status other than 0 is an error.
pub fn check(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    ensure(command, status)
}

/// Says and runs a command and returns how it ended.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    say(display(command));
    command.status().with_context(|| format!("cannot start `{}`", display(command)))
}

/// Runs a command quietly and returns its standard output, if it ran and exited with 0.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Says and runs a command whose standard output is passed on line by line and also handed to `each_line`.
pub fn stream(command: &mut Command, mut each_line: impl FnMut(&str)) -> Result<ExitStatus> {
    say(display(command));
    let started = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", display(command)))?;
    let stdout = child.stdout.take().expect("invariant: stdout is piped");
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.with_context(|| format!("cannot read the output of `{}`", display(command)))?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        each_line(&line);
    }
    let status = child.wait()?;
    say(format!("{status} after {:.0} s", started.elapsed().as_secs_f32()));
    Ok(status)
}

fn ensure(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` failed: {status}", display(command));
    }
    Ok(())
}

fn display(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let environment = command
        .get_envs()
        // Lists of flags are separated by a control character.
        .filter_map(|(name, value)| Some(format!("{}={:?} ", name.to_str()?, value?.to_str()?)))
        .collect::<String>();
    let arguments = command.get_args().map(|argument| format!(" {}", argument.to_string_lossy()));
    format!("{environment}{}{}", name.to_string_lossy(), arguments.collect::<String>())
}
