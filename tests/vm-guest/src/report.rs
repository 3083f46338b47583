//! Verdicts on their way out: one line of fields, separated by tabs, on the second serial port.
//!
//! The first field says what the line is: `kernel RELEASE`, `row NAME OUTCOME DETAIL`, `program NAME COUNT`,
//! `stage NAME MILLISECONDS`, `end`. The reader is `xtask/src/vm_test/report.rs`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};

/// The port that carries nothing else; the first one is the console.
const PORT: &str = "/dev/ttyS1";

/// What a row of the matrix found, when it did not fail.
pub enum Outcome {
    /// What it promises was seen, by the only way there is.
    Seen,
    /// It was seen in this one of several ways.
    SeenBy(String),
}

/// The open port.
pub struct Report(File);

impl Report {
    /// Opens the port.
    pub fn open() -> Result<Self> {
        let path = Path::new(PORT);
        let port =
            OpenOptions::new().write(true).open(path).with_context(|| format!("cannot open {PORT}"))?;
        Ok(Self(port))
    }

    /// Runs a row and writes its verdict. A panic fails the row, not the machine.
    pub fn row(&mut self, name: &str, action: impl FnOnce() -> Result<Outcome>) -> io::Result<()> {
        let result = catch_unwind(AssertUnwindSafe(action)).unwrap_or_else(|_| Err(anyhow!("panicked")));
        let (outcome, detail) = match result {
            Ok(Outcome::Seen) => ("seen", String::new()),
            Ok(Outcome::SeenBy(way)) => ("seen-by", way),
            Err(error) => ("failed", format!("{error:#}")),
        };
        self.line(&["row", name, outcome, &detail])
    }

    /// Writes a line of other contents.
    pub fn line(&mut self, fields: &[&str]) -> io::Result<()> {
        let fields: Vec<String> = fields.iter().map(|field| field.escape_debug().to_string()).collect();
        self.0.write_all(format!("{}\n", fields.join("\t")).as_bytes())
    }
}
