//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File {
        /// The file as named by the operator.
        path: PathBuf,
        /// Line and column, both from 1; `None` when it is about the file as a whole.
        position: Option<(u64, u64)>,
    },
    /// In an environment variable.
    Environment(&'static str),
    /// On the command line.
    Flag(&'static str),
}

impl Place {
    /// A place in this file.
    #[must_use]
    pub fn file(path: &Path, position: Option<(u64, u64)>) -> Self {
        Self::File { path: path.to_owned(), position }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, position: Some((line, column)) } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::File { path, position: None } => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// Whether the configuration can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but probably does not mean what was meant.
    Warning,
}

/// One thing wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether the configuration can be used.
    pub severity: Severity,
    /// Where.
    pub place: Place,
    /// What, and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}: {severity}: {}", self.place, self.message)
    }
}

/// The machine-readable form of a problem, for `check --json`.
#[derive(Serialize)]
pub struct ProblemJson<'a> {
    severity: Severity,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flag: Option<&'static str>,
    message: &'a str,
}

impl<'a> From<&'a Problem> for ProblemJson<'a> {
    fn from(problem: &'a Problem) -> Self {
        let mut json = Self {
            severity: problem.severity,
            file: None,
            line: None,
            column: None,
            environment: None,
            flag: None,
            message: &problem.message,
        };
        match &problem.place {
            Place::File { path, position } => {
                json.file = Some(path.display().to_string());
                json.line = position.map(|(line, _)| line);
                json.column = position.map(|(_, column)| column);
            }
            Place::Environment(name) => json.environment = Some(name),
            Place::Flag(name) => json.flag = Some(name),
        }
        json
    }
}

/// A configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Errors and, where the file could be read as a whole, warnings; never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}
