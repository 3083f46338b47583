//! `quaywatch completions`.

use clap::CommandFactory as _;

use super::print;
use crate::cli::{Cli, CompletionsArgs};
use crate::exit::Exit;

/// Prints the completion script of a shell.
///
/// # Errors
/// When it cannot be printed.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "quaywatch", &mut script);
    print(&String::from_utf8(script)?)
}
