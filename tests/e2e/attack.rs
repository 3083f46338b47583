//! An attack in two steps, with room for something between them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use sensor_tests::dockerd::{IMAGE, TOLERANT, remote};
use sensor_tests::lab::Lab;
use sensor_tests::netns::{CLIENT_OUTSIDE, NODE_OUTSIDE};
use sensor_tests::record::Record;
use sensor_tests::sensor::Sensor;

/// A privileged container that an unlisted peer has had made, and that reaches out when it is told to.
pub struct Attack {
    container: String,
    /// The file that tells it.
    signal: PathBuf,
    /// The finding as it was opened.
    pub opened: Record,
}

impl Attack {
    /// Has the container made and waits for the finding.
    pub fn begin(lab: &Lab, sensor: &Sensor, name: &str) -> Result<Self> {
        let told = lab.directory().join(name);
        fs::create_dir_all(&told)?;
        let volume = format!("{}:/told", told.display());
        let reach =
            format!("until [ -e /told/go ]; do sleep 1; done; nc -w 1 {CLIENT_OUTSIDE} 22; sleep 600");
        let make = [
            "run",
            "--detach",
            "--privileged",
            "--runtime",
            TOLERANT,
            "--network",
            "host",
            "--volume",
            &volume,
        ];
        let make: Vec<&str> = make.into_iter().chain([IMAGE, "/bin/sh", "-c", &reach]).collect();
        let container = remote(&lab.network, NODE_OUTSIDE, &make)?;
        let opened =
            sensor.wait_is("finding", &[("finding.analytic", "AN1007"), ("finding.state", "open")])?;
        Ok(Self { container, signal: told.join("go"), opened })
    }

    /// Has the container reach out, and waits until the same finding says so.
    pub fn finish(&self, sensor: &Sensor) -> Result<Record> {
        fs::write(&self.signal, "")?;
        let whole = sensor.wait_is("finding", &[("finding.severity", "critical")])?;
        let expected = [
            ("finding.id", self.opened.text("finding.id")),
            ("finding.state", "update"),
            ("finding.confidence", "proved"),
        ];
        ensure!(whole.is("finding", &expected), "{whole}\nafter {}", self.opened);
        ensure!(whole.list("finding.entities.containers") == [self.container.as_str()], "{whole}");
        Ok(whole)
    }
}
