//! The sensor under test: started with a configuration, its output read line by line, stopped and checked.

use std::collections::HashSet;
use std::fs::{File, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use crate::process::{Process, read_log};
use crate::record::Record;

/// Longest time until the first record; loading takes a fraction of a second on an idle machine.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time between an action and its record.
pub const RECORD_TIMEOUT: Duration = Duration::from_secs(15);
/// Longer than the programs on packets outlast the last management listener.
const PACKETS_TIMEOUT: Duration = Duration::from_secs(90);
/// Pause before a look at new records, so that there are many of them.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// Longest time between a signal and the end.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// A running sensor.
pub struct Sensor {
    process: Process,
    output: Arc<Output>,
    directory: tempfile::TempDir,
}

/// The records of a sensor that has ended.
pub struct Recording {
    /// All records in the order of the output.
    pub records: Vec<Record>,
    /// When each of them was read, boot clock.
    pub read_at_ns: Vec<u64>,
    /// What it wrote to standard error.
    pub log: String,
}

#[derive(Default)]
struct Output {
    state: Mutex<State>,
    /// `paused` or `ended` changed, or a record came that somebody waits for.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    records: Vec<Record>,
    read_at_ns: Vec<u64>,
    malformed: Vec<String>,
    /// Nothing more is read until this is taken back.
    paused: bool,
    /// Somebody waits for the next record.
    awaited: bool,
    ended: bool,
}

/// Path of the sensor's binary: `QUAYWATCH_BIN`, or the release build in the target directory of this test.
///
/// # Errors
/// When it is not there.
pub fn binary() -> Result<PathBuf> {
    let path = match std::env::var_os("QUAYWATCH_BIN") {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?
            .ancestors()
            .nth(3)
            .context("the test is not in a target directory")?
            .join("release/quaywatch"),
    };
    ensure!(path.is_file(), "{} is not there; build it with `cargo build --release`", path.display());
    Ok(path)
}

/// A command of the sensor's binary that sees no configuration but its own.
///
/// # Errors
/// When there is no binary.
pub fn command() -> Result<Command> {
    let mut command = Command::new(binary()?);
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"QUAYWATCH_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    Ok(command)
}

/// What a record says of the program on packets that come in.
fn packets(record: &Record) -> Option<&str> {
    let hook = record.list("health.hooks").iter().find(|hook| hook["program"] == "packets_in")?;
    hook["state"].as_str()
}

impl Sensor {
    /// Starts the sensor with this configuration (YAML) and waits until it says that it is ready.
    ///
    /// # Errors
    /// When it does not become ready; with what it said.
    pub fn start(configuration: &str) -> Result<Self> {
        Self::start_by(command()?, configuration)
    }

    /// As [`Sensor::start`], by a command that is the sensor's or executes the arguments that are added to it.
    ///
    /// # Errors
    /// When it does not become ready; with what it said.
    pub fn start_by(mut run: Command, configuration: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("quaywatch-sensor-").tempdir()?;
        // The sensor may run as another user.
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
        let config = directory.path().join("quaywatch.yaml");
        std::fs::write(&config, configuration)?;
        run.arg("run").arg("--config").arg(&config);
        run.stdout(Stdio::piped()).stderr(File::create(directory.path().join("log"))?);
        let mut process = Process::start(&mut run)?;
        let stdout = process.0.stdout.take().context("standard output is not piped")?;
        let output = Arc::new(Output::default());
        std::thread::spawn({
            let output = Arc::clone(&output);
            move || output.read(stdout)
        });
        let sensor = Self { process, output, directory };
        let first = sensor.wait_within(READY_TIMEOUT, "the first record", |_| true)?;
        ensure!(first.is("health", &[("health.state", "ready")]), "the first record is not ready: {first}");
        Ok(sensor)
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Replaces its configuration, as a careful editor does: by a rename over the old one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn reconfigure(&self, configuration: &str) -> Result<()> {
        let (new, path) =
            (self.directory.path().join("quaywatch.yaml~"), self.directory.path().join("quaywatch.yaml"));
        std::fs::write(&new, configuration)?;
        std::fs::rename(new, path).context("the configuration cannot be replaced")
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When that fails.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Stops reading its output, as a log shipper that hangs does, or goes on. What is in the pipe stays there.
    pub fn pause_reading(&self, paused: bool) {
        self.lock().paused = paused;
        self.output.changed.notify_all();
    }

    /// Number of records so far; what comes later is found with [`Sensor::wait_after`].
    #[must_use]
    pub fn mark(&self) -> usize {
        self.lock().records.len()
    }

    /// All records so far.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.lock().records.clone()
    }

    /// Waits for a record; one that is already there counts.
    ///
    /// # Errors
    /// When there is none in time; with the records that there are.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Record) -> bool) -> Result<Record> {
        self.wait_within(RECORD_TIMEOUT, what, wanted)
    }

    /// Waits for a record with these values, as [`Record::is`] compares them.
    ///
    /// # Errors
    /// When there is none in time; with the records that there are.
    pub fn wait_is(&self, kind: &str, fields: &[(&str, &str)]) -> Result<Record> {
        self.wait(&format!("{kind} record with {fields:?}"), |record| record.is(kind, fields))
    }

    /// Waits for a step of a container, and for all there is to know of it: on a busy machine the runtime's state may be
    /// read after the record went out, which then says `partial` and is amended by an `enriched` one. Returns the record
    /// that is complete.
    ///
    /// # Errors
    /// When the step or its amendment does not come in time.
    pub fn wait_container(&self, action: &str, id: &str) -> Result<Record> {
        let step =
            self.wait(&format!("container {id} {action}"), |record| record.is_container(action, id))?;
        match step.text("quality.enrichment") {
            "ok" => Ok(step),
            "partial" => {
                self.wait(&format!("the amendment of {step}"), |record| record.is_container("enriched", id))
            }
            _ => bail!("nothing is known of the container: {step}"),
        }
    }

    /// Waits until the latest record that tells of the programs on packets says that they rest, as they do when there has been
    /// no management listener for a while, or that they do not. Returns that record.
    ///
    /// # Errors
    /// When they are not in time; with what was said last.
    pub fn wait_for_packets(&self, resting: bool) -> Result<Record> {
        let is_wanted =
            |record: &Record| packets(record).is_some_and(|state| (state == "standby") == resting);
        let last = {
            let state = self.lock();
            let last = state.records.iter().rposition(|record| packets(record).is_some());
            last.context("nothing is said of the programs on packets")?
        };
        let what = if resting { "programs on packets that rest" } else { "programs on packets at work" };
        self.search(last, PACKETS_TIMEOUT, what, is_wanted)
    }

    /// Waits for a record after the first `mark` ones.
    ///
    /// # Errors
    /// When there is none in time; with the records that there are.
    pub fn wait_after(&self, mark: usize, what: &str, wanted: impl Fn(&Record) -> bool) -> Result<Record> {
        self.search(mark, RECORD_TIMEOUT, what, wanted)
    }

    /// Waits for a record for a given time.
    ///
    /// # Errors
    /// When there is none in time; with the records that there are.
    pub fn wait_within(
        &self,
        timeout: Duration,
        what: &str,
        wanted: impl Fn(&Record) -> bool,
    ) -> Result<Record> {
        self.search(0, timeout, what, wanted)
    }

    fn search(
        &self,
        mark: usize,
        timeout: Duration,
        what: &str,
        wanted: impl Fn(&Record) -> bool,
    ) -> Result<Record> {
        let deadline = Instant::now() + timeout;
        let mut seen = mark;
        loop {
            // Looked at in batches: to be woken by every line would slow the reading down, and with it the sensor.
            let state = self.lock();
            if let Some(record) = state.records.iter().skip(seen).find(|record| wanted(record)) {
                return Ok(record.clone());
            }
            seen = state.records.len().max(mark);
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                let why = if state.ended {
                    "the sensor's output ended".to_owned()
                } else {
                    format!("not within {timeout:?}")
                };
                bail!("{what}: {why}\n{}", self.describe(&state, mark));
            }
            let is_missing = |state: &mut State| {
                state.awaited = true;
                !state.ended && state.records.len() <= seen
            };
            let waited = self.output.changed.wait_timeout_while(state, left, is_missing);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Ends the sensor as an operator does, with SIGTERM, and checks what must hold for every run: exit code 0, a last
    /// record with the totals, nothing unaccounted for.
    ///
    /// # Errors
    /// When one of that does not hold.
    pub fn stop(self) -> Result<Recording> {
        self.stop_with(Signal::TERM)
    }

    /// As [`Sensor::stop`], with another signal.
    ///
    /// # Errors
    /// When something does not hold that must hold for every run.
    pub fn stop_with(mut self, signal: Signal) -> Result<Recording> {
        self.process.signal(signal)?;
        let status = self.process.wait(STOP_TIMEOUT).context("the sensor did not end")?;
        let (records, read_at_ns, malformed) = {
            let mut state = self.lock();
            while !state.ended {
                state = self.output.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            (state.records.clone(), state.read_at_ns.clone(), state.malformed.clone())
        };
        let recording = Recording { records, read_at_ns, log: self.log() };
        ensure!(malformed.is_empty(), "lines that are no records: {malformed:#?}");
        recording.check(status)?;
        Ok(recording)
    }

    /// Ends the sensor as nothing can prepare for, with SIGKILL. Returns its records; the last line may be cut.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(mut self) -> Result<Vec<Record>> {
        self.process.signal(Signal::KILL)?;
        self.process.wait(STOP_TIMEOUT).context("the sensor did not end")?;
        let mut state = self.lock();
        while !state.ended {
            state = self.output.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(state.records.clone())
    }

    fn log(&self) -> String {
        read_log(&self.directory.path().join("log"))
    }

    fn describe(&self, state: &State, mark: usize) -> String {
        /// Enough to see what happened around a failure.
        const SHOWN: usize = 60;
        let skipped = state.records.len().saturating_sub(SHOWN).max(mark);
        let shown: Vec<&str> =
            state.records.iter().skip(skipped).map(|record| record.line.as_str()).collect();
        format!(
            "records ({} in all, those from {skipped} on):\n{}\nmalformed lines: {:?}\nlog:\n{}",
            state.records.len(),
            shown.join("\n"),
            state.malformed,
            self.log()
        )
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.output.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output {
    fn read(&self, stdout: ChildStdout) {
        for line in BufReader::new(stdout).lines() {
            let now = clock_gettime(ClockId::Boottime);
            let read_at_ns = now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned();
            let record = line.map_err(|error| error.to_string()).and_then(|line| Record::parse(&line));
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let mut state =
                self.changed.wait_while(state, |state| state.paused).unwrap_or_else(PoisonError::into_inner);
            match record {
                Ok(record) => {
                    state.records.push(record);
                    state.read_at_ns.push(read_at_ns);
                }
                Err(problem) => state.malformed.push(problem),
            }
            if std::mem::take(&mut state.awaited) {
                self.changed.notify_all();
            }
        }
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.changed.notify_all();
    }
}

impl Recording {
    /// The last record.
    #[must_use]
    pub fn last(&self) -> &Record {
        self.records.last().expect("invariant: a recording has a first record")
    }

    /// Lines that the sensor says it could not write because its reader was too slow.
    #[must_use]
    pub fn shed(&self) -> u64 {
        let losses = self.last().list("health.loss").iter();
        losses.filter(|loss| loss["kind"] == "output").filter_map(|loss| loss["lost"].as_u64()).sum()
    }

    /// Records of a kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Record> {
        self.records.iter().filter(move |record| record.kind() == kind)
    }

    /// Writes the recording as the sensor did.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text: String = self.records.iter().flat_map(|record| [record.line.as_str(), "\n"]).collect();
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn check(&self, status: ExitStatus) -> Result<()> {
        ensure!(status.code() == Some(0), "the sensor ended with {status}:\n{}", self.log);
        let last = self.last();
        ensure!(last.is("health", &[("health.state", "stopping")]), "the last record is {last}");
        ensure!(last.number("health.undecodable") == Some(0), "records were not understood: {last}");
        let emitted = last.number("health.emitted");
        let (written, shed) = (self.records.len() as u64, self.shed());
        ensure!(emitted == Some(written + shed), "{written} records and {shed} lost lines, but {last}");
        for balance in last.list("health.balance") {
            let count = |key: &str| balance[key].as_u64().with_context(|| format!("no {key} in {balance}"));
            ensure!(
                count("produced")? == count("received")? + count("lost")? + count("suppressed")?,
                "records are unaccounted for: {balance}"
            );
        }
        let mut ids = HashSet::new();
        let mut missing = 0;
        let mut expected = self.records[0].number("seq").context("no seq")?;
        for record in &self.records {
            let seq = record.number("seq").with_context(|| format!("no seq: {record}"))?;
            ensure!(record.text("schema") == "quaywatch/1", "another schema: {record}");
            ensure!(seq >= expected, "seq is not {expected} or later: {record}");
            ensure!(ids.insert(record.text("id")), "an id is used twice: {record}");
            missing += seq - expected;
            expected = seq + 1;
        }
        ensure!(missing == shed, "{missing} records are missing in the sequence: {last}");
        Ok(())
    }
}
