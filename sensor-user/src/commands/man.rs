//! `quaywatch man`.

use clap::CommandFactory as _;

use super::print;
use crate::cli::Cli;
use crate::exit::Exit;

/// Prints the manual page, for `man -l -`.
///
/// # Errors
/// When it cannot be printed.
pub fn man() -> anyhow::Result<Exit> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    print(&String::from_utf8(page)?)
}
