//! Every kind of record, provoked once and compared with what really happened.

use std::net::{Ipv6Addr, TcpListener};

use anyhow::Result;
use sensor_tests::sensor::Sensor;

use super::{hooks, processes, sockets};
use crate::report::Outcome;

/// A row of the matrix, tried with a running sensor.
pub type Row = (&'static str, fn(&Sensor) -> Result<Outcome>);

/// The rows of the stage.
pub const ROWS: &[&[Row]] = &[sockets::ROWS, processes::ROWS, hooks::ROWS];

/// What shows that a sensor does its work, in short: for those that run under restrictions.
pub const ESSENTIAL: &[Row] = &[
    ("accept", sockets::accept),
    ("connect", sockets::connect),
    ("exec", processes::exec),
    ("container", processes::container),
];

/// Port of a listener that is there before the sensor.
pub const OLDER_PORT: u16 = 10_255;

/// What has to be there before the sensor.
pub struct Fixtures {
    _older: TcpListener,
    _hooks: hooks::Fixtures,
}

impl Fixtures {
    /// Makes it.
    pub fn create() -> Result<Self> {
        let older = TcpListener::bind((Ipv6Addr::UNSPECIFIED, OLDER_PORT))?;
        Ok(Self { _older: older, _hooks: hooks::Fixtures::create()? })
    }
}
