//! Exit codes, and which error has which.

use std::fmt;
use std::process::ExitCode;

use crate::config::Invalid;

/// What `--help` says of the exit codes.
pub const HELP: &str = "\
Exit codes:
  0  done; an end by SIGINT or SIGTERM included
  1  failure at run time
  2  wrong usage or invalid configuration
  3  this system cannot run it; the message says what is missing
  4  `check` found something: the configuration can be used, but has warnings; or `doctor` did: the sensor runs here,
     but something would not be seen; or `policy test` did: something changes";

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failure at run time.
    Failure = 1,
    /// Wrong usage or invalid configuration; clap uses the same code.
    Usage = 2,
    /// This system cannot run it.
    Unsupported = 3,
    /// A check found something.
    Found = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that says that this system lacks something, with the remedy; ends with [`Exit::Unsupported`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported(pub String);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsupported {}

/// Returns the exit code of an error, whatever context was added to it.
#[must_use]
pub fn of_error(error: &anyhow::Error) -> Exit {
    // `downcast_ref` of anyhow looks through context, the chain through sources.
    if error.downcast_ref::<Invalid>().is_some() || error.chain().any(|cause| cause.is::<Invalid>()) {
        Exit::Usage
    } else if error.downcast_ref::<Unsupported>().is_some()
        || error.chain().any(|cause| cause.is::<Unsupported>())
    {
        Exit::Unsupported
    } else {
        Exit::Failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn context_does_not_hide_the_code() {
        let unsupported =
            || Err::<(), _>(Unsupported("no BTF".to_owned())).context("loading").context("starting");
        assert_eq!(of_error(&unsupported().expect_err("an error")), Exit::Unsupported);
        let invalid = Err::<(), _>(Invalid { problems: Vec::new() }).context("reading the configuration");
        assert_eq!(of_error(&invalid.expect_err("an error")), Exit::Usage);
        assert_eq!(of_error(&anyhow::anyhow!("anything else")), Exit::Failure);
    }
}
