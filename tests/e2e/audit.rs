//! Audit logs that are read while they are written, rotated and emptied.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flate2::read::MultiGzDecoder;
use sensor_tests::lab::Lab;
use sensor_tests::process::run;
use sensor_tests::record::Record;
use sensor_tests::sensor::{self, Recording, Sensor};
use serde_json::Value;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("audit_every_event_is_told_once_through_rotation_truncation_and_restart", followed),
    ("audit_waits_for_a_reader_that_hangs", waiting),
    ("audit_says_what_it_cannot_read", unreadable),
];

/// Longest time until all of a log is read.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A log in a directory of its own.
struct Log {
    path: PathBuf,
    positions: PathBuf,
    rotations: u32,
}

impl Log {
    fn new(lab: &Lab, name: &str) -> Result<Self> {
        let directory = lab.directory().join(name);
        fs::create_dir(&directory)?;
        Ok(Self { path: directory.join("audit.log"), positions: directory.join("positions"), rotations: 0 })
    }

    fn configuration(&self) -> String {
        format!(
            "audit: {{files: [{}], positions: {}}}\nnetworks: {{pods: [10.244.0.0/16]}}\n",
            self.path.display(),
            self.positions.display()
        )
    }

    fn write(&self, lines: &[&str]) -> Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        for line in lines {
            // Whole lines at once, as the API server writes them, and sometimes in two pieces, as a full disk leaves them.
            let (head, tail) = line.split_at(if line.len() % 7 == 0 { line.len() / 2 } else { 0 });
            file.write_all(head.as_bytes())?;
            file.write_all(format!("{tail}\n").as_bytes())?;
        }
        Ok(())
    }

    /// As the API server does it.
    fn rename(&mut self) -> Result<()> {
        self.rotations += 1;
        let name = format!("audit-2026-11-23T11-00-00.{:03}.log", self.rotations);
        Ok(fs::rename(&self.path, self.path.with_file_name(name))?)
    }

    /// As logrotate does it with `copytruncate`.
    fn copy_and_truncate(&mut self) -> Result<()> {
        self.rotations += 1;
        fs::copy(&self.path, self.path.with_file_name(format!("audit.log.{}", self.rotations)))?;
        OpenOptions::new().write(true).truncate(true).open(&self.path)?;
        Ok(())
    }
}

fn attacks() -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/audit/audit-mixed-all-attacks.ndjson.gz");
    let mut text = String::new();
    MultiGzDecoder::new(fs::File::open(&path)?).read_to_string(&mut text)?;
    Ok(text)
}

/// An event whose request no other event is of: when it is told, all before it was. The last line of the fixture is the end
/// of a watch that was told long before.
fn end_of(lines: &[&str]) -> String {
    renamed(lines[lines.len() / 2], "end")
}

/// The event under another id.
fn renamed(line: &str, prefix: &str) -> String {
    line.replacen("\"auditID\":\"", &format!("\"auditID\":\"{prefix}-"), 1)
}

fn id_of(line: &str) -> Result<String> {
    let event: Value = serde_json::from_str(line)?;
    Ok(event["auditID"].as_str().context("no id")?.to_owned())
}

/// Id and time of the request that this event answers, if it does. What begins in one run and ends in the next, as a watch
/// does, is answered in both.
fn answered(line: &str) -> Result<Option<(String, String)>> {
    let event: Value = serde_json::from_str(line)?;
    let text =
        |key: &str| event[key].as_str().map(str::to_owned).with_context(|| format!("no {key}: {line}"));
    let answer = (text("auditID")?, text("requestReceivedTimestamp")?);
    Ok((event["stage"] != "RequestReceived").then_some(answer))
}

/// How often each request was told.
fn told<'a>(records: impl IntoIterator<Item = &'a Record>) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for record in records.into_iter().filter(|record| record.kind() == "audit") {
        *told.entry(record.text("audit.audit_id").to_owned()).or_default() += 1;
    }
    told
}

fn wait_for(sensor: &Sensor, line: &str) -> Result<()> {
    let id = id_of(line)?;
    sensor.wait_within(READ_TIMEOUT, "the last event", |record| {
        record.is("audit", &[("audit.audit_id", &id)])
    })?;
    Ok(())
}

/// What the last record says of a log.
fn counted(recording: &Recording) -> Result<&Value> {
    recording.last().list("health.audit").first().context("the last record says nothing of the log")
}

fn followed(lab: &Lab) -> Result<()> {
    let mut log = Log::new(lab, "followed")?;
    let text = attacks()?;
    let lines: Vec<&str> = text.lines().collect();
    let parts: Vec<&[&str]> = lines.chunks(lines.len().div_ceil(8)).collect();
    log.write(parts[0])?;

    let sensor = Sensor::start(&log.configuration())?;
    log.write(parts[1])?;
    log.rename()?;
    log.write(parts[2])?;
    wait_for(&sensor, parts[2].last().context("no line")?)?;
    log.copy_and_truncate()?;
    log.write(parts[3])?;
    wait_for(&sensor, parts[3].last().context("no line")?)?;
    let first = sensor.stop()?;

    log.write(parts[4])?;
    log.rename()?;
    log.write(parts[5])?;
    log.rename()?;
    log.write(parts[6])?;
    let sensor = Sensor::start(&log.configuration())?;
    log.write(parts[7])?;
    let end = end_of(&lines);
    log.write(&[&end])?;
    wait_for(&sensor, &end)?;
    let live = sensor.wait("the coverage", |record| !record.at("health.coverage.audit").is_null())?;
    ensure!(live.text("health.coverage.audit.state") == "live", "{live}");
    let second = sensor.stop()?;

    let mut expected = BTreeMap::new();
    for run in lines.chunks(4 * parts[0].len()) {
        for (id, _) in
            run.iter().map(|line| answered(line)).collect::<Result<BTreeSet<_>>>()?.into_iter().flatten()
        {
            *expected.entry(id).or_insert(0) += 1;
        }
    }
    expected.insert(id_of(&end)?, 1);
    let told = told(first.records.iter().chain(&second.records));
    let wrong = |id: &&String| told.get(*id) != expected.get(*id);
    let differing: Vec<_> = expected.keys().chain(told.keys()).filter(wrong).take(9).collect();
    ensure!(
        differing.is_empty(),
        "{} requests, {} told; among others {differing:?}",
        expected.len(),
        told.len()
    );
    for recording in [&first, &second] {
        let log = counted(recording)?;
        ensure!(log["invalid"] == 0 && log["oversize"] == 0 && log["gaps"] == 0, "{log}");
        ensure!(log["behind_bytes"] == 0, "{log}");
        same_findings(lab, recording, &log_configuration())?;
    }
    Ok(())
}

/// What a replay of the recording is to judge by.
fn log_configuration() -> String {
    "networks: {pods: [10.244.0.0/16]}\n".to_owned()
}

/// A replay of the recording comes to the same findings, but for time on the boot clock, which a log does not tell.
fn same_findings(lab: &Lab, recording: &Recording, configuration: &str) -> Result<()> {
    let path = lab.directory().join("audit-recording.ndjson");
    recording.write(&path)?;
    let config = path.with_extension("yaml");
    fs::write(&config, configuration)?;
    let replayed = run(sensor::command()?.arg("replay").arg("--config").arg(&config).arg(&path))?;
    let replayed: Vec<Record> = replayed
        .lines()
        .map(|line| Record::parse(line).map_err(anyhow::Error::msg))
        .collect::<Result<_>>()?;
    let findings = |records: &[Record]| -> BTreeMap<String, Value> {
        let findings = records.iter().filter(|record| record.kind() == "finding");
        findings.map(|record| (record.text("id").to_owned(), record.at("finding").clone())).collect()
    };
    let (live, again) = (findings(&recording.records), findings(&replayed));
    ensure!(!live.is_empty(), "a log full of attacks has findings");
    ensure!(live == again, "live:\n{live:#?}\nreplayed:\n{again:#?}");
    Ok(())
}

fn waiting(lab: &Lab) -> Result<()> {
    let log = Log::new(lab, "waiting")?;
    let text = attacks()?;
    let lines: Vec<&str> = text.lines().collect();
    let sensor = Sensor::start(&log.configuration())?;
    sensor.pause_reading(true);
    // More than the half of the output's queue that such lines get.
    let copies = (24 << 20) / text.len() + 1;
    for copy in 0..copies {
        let again: Vec<String> = lines.iter().map(|line| renamed(line, &copy.to_string())).collect();
        log.write(&again.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    let end = end_of(&lines);
    log.write(&[&end])?;
    std::thread::sleep(Duration::from_secs(3));
    sensor.pause_reading(false);
    wait_for(&sensor, &end)?;
    let recording = sensor.stop()?;
    let told = told(&recording.records);
    let mut expected = BTreeSet::new();
    for line in &lines {
        expected.insert(id_of(line)?);
    }
    let owed = copies * expected.len() + 1;
    ensure!(told.len() == owed, "{} told of {owed}", told.len());
    ensure!(told.values().all(|count| *count == 1), "some were told twice");
    ensure!(recording.shed() == 0, "{} lines were shed", recording.shed());
    Ok(())
}

fn unreadable(lab: &Lab) -> Result<()> {
    let log = Log::new(lab, "unreadable")?;
    let sensor = Sensor::start(&log.configuration())?;
    let blind = sensor.wait_is("health", &[("health.coverage.audit.state", "blind")])?;
    let reason = format!("{}: it is not there", log.path.display());
    ensure!(blind.text("health.coverage.audit.reason") == reason, "{blind}");
    // The first look may be before the ready record or after it.
    ensure!(["ready", "degraded"].contains(&blind.text("health.state")), "{blind}");
    let text = attacks()?;
    let mut lines: Vec<&str> = text.lines().take(10).collect();
    lines.insert(3, "{\"no\":\"event\"}");
    let long = "x".repeat((8 << 20) + 1);
    lines.insert(5, &long);
    let mark = sensor.mark();
    log.write(&lines)?;
    wait_for(&sensor, lines.last().context("no line")?)?;
    sensor.wait_after(mark, "the end of the blindness", |record| {
        record.is("health", &[("health.blind.capability", "audit")])
    })?;
    let lost = |kind: &'static str| {
        move |record: &Record| {
            record.list("health.loss").iter().any(|loss| loss["kind"] == kind && loss["lost"] == 1)
        }
    };
    sensor.wait_after(mark, "the line that is no event", lost("audit-invalid"))?;
    sensor.wait_after(mark, "the line that is too long", lost("audit-oversize"))?;
    let recording = sensor.stop()?;
    let place = format!("file={} byte=", log.path.display());
    ensure!(recording.log.contains(&place), "no place in the log:\n{}", recording.log);
    let counted = counted(&recording)?;
    ensure!(counted["invalid"] == 1 && counted["oversize"] == 1 && counted["events"] == 10, "{counted}");
    Ok(())
}
