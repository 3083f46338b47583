//! Processes of this program in other roles, see [`crate::actor`].

use std::io::{BufRead as _, BufReader};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sensor_tests::process::Process;

use crate::PROGRAM;

const END_TIMEOUT: Duration = Duration::from_secs(20);

/// A running actor, which ends when it is told to or dropped.
pub struct Actor {
    process: Process,
    output: BufReader<ChildStdout>,
}

impl Actor {
    /// Starts this program in a role.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Process::start(&mut command)?;
        let output = BufReader::new(process.0.stdout.take().context("standard output is not piped")?);
        Ok(Self { process, output })
    }

    /// Starts this program in a role, in the cgroups of a container.
    pub fn start_within(id: &str, arguments: &[&str]) -> Result<Self> {
        let mut all = vec!["within", id, PROGRAM];
        all.extend(arguments);
        Self::start(&all)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The next line it writes.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(line.ends_with('\n'), "the actor ended without a word");
        Ok(line.trim_end().to_owned())
    }

    /// Ends its standard input and waits until it is gone.
    pub fn finish(mut self) -> Result<ExitStatus> {
        drop(self.process.0.stdin.take());
        self.process.wait(END_TIMEOUT)
    }
}
