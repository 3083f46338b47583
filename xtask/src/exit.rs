//! Exit codes of `cargo xtask`, the same as the sensor's own where they mean the same.

use std::fmt;
use std::process::ExitCode;

/// Printed below `--help`.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  a step failed; the message says which
  2  wrong usage
  3  this system or this user cannot run it; the message says what is missing";

/// The system or the user's rights do not suffice: exit code 3 and one sentence.
#[derive(Debug)]
pub struct Unsupported(pub String);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsupported {}

/// A step failed and has been reported: exit code 1 and not another word.
#[derive(Debug)]
pub struct Reported;

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a step failed")
    }
}

impl std::error::Error for Reported {}

/// Shorthand for an [`Unsupported`] error.
pub fn unsupported(sentence: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Unsupported(sentence.into()))
}

/// Prints the error and returns its exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if !error.is::<Reported>() {
        eprintln!("error: {error:#}");
    }
    ExitCode::from(if error.is::<Unsupported>() { 3 } else { 1 })
}
