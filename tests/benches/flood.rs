//! How large a flood the sensor takes while an attack goes on; run by `cargo xtask bench flood`.
//!
//! Aimed at are 20,000 connections and 2,000 execs a second. Both ends of the connections, the daemon, the sensor and the
//! reader of its output share the machine, which may give less.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sensor_tests::dockerd::{IMAGE, remote};
use sensor_tests::flood::{self, Account, Made};
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::netns::NODE_OUTSIDE;
use sensor_tests::sensor::Sensor;

const ROUNDS: u32 = 3;
const DURATION: Duration = Duration::from_secs(10);
/// Until the rings and the queue of the output have seen their share.
const WARM_UP: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    // `cargo test --benches` calls benchmarks with this flag, to see that they start.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let lab = Lab::build()?;
    println!(
        "flood: connections from {} addresses, execs in a container, one `docker run` over TCP\n",
        flood::SOURCES
    );
    println!(
        "| connections/s | with a record | execs/s | lost: management | bulk | skipped | lines shed | RSS KiB |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|");
    for round in 0..ROUNDS {
        print(&lab, round)?;
    }
    Ok(())
}

fn print(lab: &Lab, round: u32) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let name = format!("attack-{round}");
    let begun = Instant::now();
    let ((id, before, after), made) = flood::during(lab, || {
        std::thread::sleep(WARM_UP);
        let before = flood::resident_kib(&sensor)?;
        let id =
            remote(&lab.network, NODE_OUTSIDE, &["run", "--detach", "--name", &name, IMAGE, "/bin/true"])?;
        std::thread::sleep(DURATION.saturating_sub(begun.elapsed()));
        Ok((id, before, flood::resident_kib(&sensor)?))
    })?;
    sensor.wait("the accept of the docker client", flood::is_of_client)?;
    sensor.wait_container("started", &id)?;
    let recording = sensor.stop()?;
    let Made { completed, execs, .. } = made;
    let Account { accepts, suppressed, execs: seen, execs_per_second, .. } = Account::of(&recording);
    let [management, bulk] = ["management", "bulk"].map(|ring| flood::lost(&recording, ring));
    let (skipped, shed) = (flood::skipped(&recording), recording.shed());
    ensure!(
        accepts + suppressed + skipped >= completed,
        "{completed} connections, {accepts} and {suppressed}"
    );
    ensure!(seen + bulk + shed >= execs, "{execs} execs, {seen} seen");
    println!(
        "| {:.0} | {accepts} of {completed} | {:.0} | {management} | {bulk} | {skipped} | {shed} | {before} → {after} |",
        made.per_second(),
        execs_per_second,
    );
    Ok(())
}
