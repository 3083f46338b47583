//! Exit codes of `cargo xtask`, the same as the sensor's own where they mean the same.

use std::fmt;
use std::process::ExitCode;

/// Printed below `--help`.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  a step failed; the message says which
  2  wrong usage
  3  this system or this user cannot run it; the message says what is missing
  4  bench: beside the other tools, the sensor is not the lowest on slowdown and loss
  5  bench: the machine is too noisy to say whether it is";

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

/// A measurement has come to a verdict other than the promised one, and has printed it: this exit code and not another word.
#[derive(Debug)]
pub struct Verdict(pub u8);

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the verdict of a measurement has the exit code {}", self.0)
    }
}

impl std::error::Error for Verdict {}

/// Shorthand for an [`Unsupported`] error.
pub fn unsupported(sentence: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Unsupported(sentence.into()))
}

/// Prints the error and returns its exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(Verdict(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    if !error.is::<Reported>() {
        eprintln!("error: {error:#}");
    }
    ExitCode::from(if error.is::<Unsupported>() { 3 } else { 1 })
}
