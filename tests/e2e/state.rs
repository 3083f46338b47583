//! Open chains outlive the sensor, and what does not is said.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::process::run;
use sensor_tests::record::Record;
use sensor_tests::sensor::{self, Sensor};

use crate::Test;
use crate::attack::Attack;

pub const TESTS: &[Test] = &[
    ("a_chain_goes_on_under_its_id_after_the_sensor_was_killed", killed),
    ("a_state_that_cannot_be_used_or_kept_is_said", unusable),
];

/// More than may be lost by a kill.
const WRITTEN: Duration = Duration::from_millis(1500);

fn with_state(path: &Path) -> String {
    format!("{CONFIGURATION}state: {{path: {}}}\n", path.display())
}

fn killed(lab: &Lab) -> Result<()> {
    let path = lab.directory().join("killed.redb");
    let configuration = with_state(&path);
    let first = Sensor::start(&configuration)?;
    ensure!(first.records()[0].at("health.resumed").is_null(), "there was nothing before");
    let attack = Attack::begin(lab, &first, "killed")?;
    thread::sleep(WRITTEN);
    let before = first.kill()?;

    let second = Sensor::start(&configuration)?;
    let ready = second.records()[0].clone();
    ensure!(ready.at("health.resumed.clean") == false, "it was killed: {ready}");
    let run_of = |record: &Record| record.text("id").split('-').nth(1).unwrap_or_default().to_owned();
    ensure!(ready.text("health.resumed.run") == run_of(&before[0]), "another run: {ready}");
    let whole = attack.finish(&second)?;
    let stages = whole.list("finding.stages");
    ensure!(stages.iter().all(|stage| stage["seen"] == true), "{whole}");
    for (then, now) in attack.opened.list("finding.stages").iter().zip(stages).take(2) {
        let (then, now) = (then["events"].as_array(), now["events"].as_array());
        let (then, now) = (then.context("no evidence")?, now.context("no evidence")?);
        ensure!(now.starts_with(then), "the evidence of the earlier run: {whole}\nafter {}", attack.opened);
    }
    ensure!(whole.at("finding.completeness.complete") == false, "nobody watched in between: {whole}");
    let unwatched = whole.at("finding.completeness.unwatched_ns").as_u64().context("not said")?;
    let gap = |key: &str| ready.at(&format!("health.resumed.{key}_boot_ns")).as_u64().context("no time");
    ensure!(unwatched == gap("to")? - gap("from")?, "{whole}\nafter {ready}");
    ensure!(before.iter().all(|record| record.text("id") != whole.text("id")), "an id is given twice");
    let after = second.stop()?.records;
    replayed(lab, &before, &after)?;

    let third = Sensor::start(&configuration)?;
    ensure!(third.records()[0].at("health.resumed.clean") == true, "{}", third.records()[0]);
    let recording = third.stop()?;
    let again = recording.of_kind("finding").next();
    ensure!(again.is_none(), "nothing is new: {again:?}");
    Ok(())
}

/// What a replay of both recordings finds is what was found live.
fn replayed(lab: &Lab, before: &[Record], after: &[Record]) -> Result<()> {
    let path = lab.directory().join("killed.ndjson");
    let lines: Vec<&str> = before.iter().chain(after).map(|record| record.line.as_str()).collect();
    fs::write(&path, lines.join("\n"))?;
    let config = path.with_extension("yaml");
    fs::write(&config, CONFIGURATION)?;
    let output = run(sensor::command()?.arg("replay").arg("--config").arg(&config).arg(&path))?;
    let again: Vec<Record> =
        output.lines().map(|line| Record::parse(line).map_err(anyhow::Error::msg)).collect::<Result<_>>()?;
    let findings = |records: &mut dyn Iterator<Item = &Record>| -> Vec<String> {
        let findings = records.filter(|record| record.kind() == "finding");
        findings.map(|record| format!("{} {}", record.text("id"), record.at("finding"))).collect()
    };
    let (live, again) = (findings(&mut before.iter().chain(after)), findings(&mut again.iter()));
    ensure!(live == again, "live:\n{}\nreplayed:\n{}", live.join("\n"), again.join("\n"));
    Ok(())
}

fn unusable(lab: &Lab) -> Result<()> {
    let path = lab.directory().join("notes.redb");
    fs::write(&path, "these are somebody's notes")?;
    let sensor = Sensor::start(&with_state(&path))?;
    let ready = sensor.records()[0].clone();
    let reason = ready.text("health.coverage.chain-state.reason");
    ensure!(reason.contains("an earlier run could not be used"), "{ready}");
    sensor.stop()?;
    let aside = fs::read_to_string(path.with_extension("redb.unusable"))?;
    ensure!(aside == "these are somebody's notes", "{aside}");

    let sensor = Sensor::start(&with_state(&lab.directory().join("missing/state.redb")))?;
    let ready = sensor.records()[0].clone();
    let degraded = ready.is("health", &[("health.coverage.chain-state.state", "degraded")]);
    let reason = ready.text("health.coverage.chain-state.reason");
    ensure!(degraded && reason.contains("a restart forgets open chains"), "{ready}");
    let log = sensor.stop()?.log;
    ensure!(log.contains("is not there; make it, or set state.path"), "{log}");

    let sensor = Sensor::start(&with_state(&path))?;
    let ready = sensor.records()[0].clone();
    ensure!(ready.is("health", &[("health.coverage.chain-state.state", "live")]), "{ready}");
    sensor.stop().map(drop)
}
