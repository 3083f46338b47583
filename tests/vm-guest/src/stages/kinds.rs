//! Every kind of record, provoked once and compared with what really happened.

use std::net::{Ipv6Addr, TcpListener};

use anyhow::{Context as _, Result};
use sensor_tests::sensor::Sensor;

use super::{CONFIGURATION, hooks, processes, sockets, verifier};
use crate::report::{Outcome, Report};

/// A row of the matrix, tried with a running sensor.
pub type Row = (&'static str, fn(&Sensor) -> Result<Outcome>);

/// Rows of one sensor that runs all the time.
const ROWS: &[&[Row]] = &[sockets::ROWS, processes::ROWS, hooks::ROWS];

/// What shows that a sensor does its work, in short: for those that run under restrictions.
pub const ESSENTIAL: &[Row] = &[
    ("accept", sockets::accept),
    ("connect", sockets::connect),
    ("exec", processes::exec),
    ("container", processes::container),
];

/// Port of a listener that is there before the sensor.
pub const OLDER_PORT: u16 = 10_255;

/// Runs the stage.
pub fn run(report: &mut Report) -> Result<()> {
    let _older = TcpListener::bind((Ipv6Addr::UNSPECIFIED, OLDER_PORT))?;
    let _fixtures = hooks::Fixtures::create()?;
    let mut started = None;
    report.row("start", || {
        started = Some(Sensor::start(CONFIGURATION)?);
        Ok(Outcome::Seen)
    })?;
    let sensor = started.context("the sensor did not start")?;
    for (name, row) in ROWS.iter().copied().flatten() {
        report.row(name, || row(&sensor))?;
    }
    verifier::report(&sensor, report)?;
    report.row("stop", || {
        // The harness checks the exit code, the sequence of the records and the balance of every ring and kind.
        sensor.stop()?;
        Ok(Outcome::Seen)
    })?;
    Ok(())
}
