//! Another configuration while the sensor runs: taken as a whole or not at all, and open chains go on.

use std::net::{IpAddr, SocketAddr, TcpStream};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use sensor_tests::dockerd::PORT;
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::netns::{CLIENT_OUTSIDE, NODE_OUTSIDE};
use sensor_tests::record::Record;
use sensor_tests::sensor::Sensor;

use crate::Test;
use crate::attack::Attack;

pub const TESTS: &[Test] = &[
    ("another_configuration_judges_the_next_accept_and_an_invalid_one_does_not", verdicts),
    ("a_chain_that_was_begun_before_a_reload_is_completed_after_it", chain),
];

/// With what is expected of the client outside, too.
fn wider() -> String {
    format!(
        "{CONFIGURATION}  - {{name: new-node, from: {{cidr: [{CLIENT_OUTSIDE}]}}, to: {{services: [any]}}}}\n"
    )
}

/// What the sensor says of a connection that is made now.
fn accept(lab: &Lab, sensor: &Sensor) -> Result<Record> {
    let mark = sensor.mark();
    let address = SocketAddr::new(NODE_OUTSIDE.parse::<IpAddr>()?, PORT);
    drop(lab.network.client.within(|| TcpStream::connect(address))?);
    sensor.wait_after(mark, "the accept", |record| {
        record.is("accept", &[("net.peer.ip", CLIENT_OUTSIDE), ("net.local.ip", NODE_OUTSIDE)])
    })
}

fn reload_after(sensor: &Sensor, mark: usize) -> Result<Record> {
    sensor.wait_after(mark, "what came of the configuration", |record| {
        record.kind() == "health" && !record.at("health.reload").is_null()
    })
}

fn verdicts(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    ensure!(accept(lab, &sensor)?.at("verdict.listed") == false, "nobody expects it yet");

    let mark = sensor.mark();
    sensor.reconfigure(&format!("{}rings: {{poll: 7ms}}\n", wider()))?;
    let reloaded = reload_after(&sensor, mark)?;
    let expected = [("health.state", "reloaded"), ("health.reload.applied", "true")];
    ensure!(reloaded.is("health", &expected), "{reloaded}");
    ensure!(reloaded.list("health.reload.restart") == ["rings"], "{reloaded}");
    let listed = accept(lab, &sensor)?;
    ensure!(listed.is("accept", &[("verdict.entry", "new-node")]), "{listed}");

    let mark = sensor.mark();
    sensor.reconfigure("allow:\n  - {name: a, form: {local: true}}\n")?;
    let refused = reload_after(&sensor, mark)?;
    ensure!(refused.at("health.reload.applied") == false, "{refused}");
    ensure!(refused.text("health.state") != "reloaded", "{refused}");
    let problems = refused.list("health.reload.problems");
    let is_placed = |problem: &str| problem.contains("quaywatch.yaml:2:") && problem.contains("form");
    ensure!(problems.iter().any(|problem| problem.as_str().is_some_and(is_placed)), "{refused}");
    let still = accept(lab, &sensor)?;
    ensure!(still.is("accept", &[("verdict.entry", "new-node")]), "the policy before stays: {still}");

    // What is asked for is answered even though nothing has changed.
    let mark = sensor.mark();
    sensor.signal(Signal::HUP)?;
    let refused = reload_after(&sensor, mark)?;
    ensure!(refused.at("health.reload.applied") == false, "{refused}");
    let log = sensor.stop()?.log;
    ensure!(log.contains("the one before stays in effect") && log.contains("quaywatch.yaml:2:"), "{log}");
    Ok(())
}

fn chain(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let attack = Attack::begin(lab, &sensor, "reloaded")?;

    let mark = sensor.mark();
    sensor.reconfigure(&wider())?;
    let reloaded = reload_after(&sensor, mark)?;
    ensure!(reloaded.at("health.reload.applied") == true, "{reloaded}");
    attack.finish(&sensor)?;
    sensor.stop().map(drop)
}
