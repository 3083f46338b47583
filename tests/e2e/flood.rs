//! A flood hides nothing: neither what happens meanwhile, nor its own author, nor its size.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sensor_tests::dockerd::{IMAGE, PORT, remote};
use sensor_tests::flood::{self, Account, Made, SOURCES};
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::netns::{CLIENT_OUTSIDE, CROWD_LEN, Crowd, NODE_OUTSIDE};
use sensor_tests::record::Record;
use sensor_tests::sensor::{Recording, Sensor};
use sensor_tests::traffic::{SynSender, connect_from};

use crate::Test;
use crate::docker::{check_container, check_runtime_chain};

pub const TESTS: &[Test] = &[
    ("flood_from_many_addresses_hides_no_attack_and_is_counted_to_the_last_connection", many_addresses),
    ("half_open_attempts_are_summarised", half_open),
];

/// At least this long; longer, until the attack is over.
const DURATION: Duration = Duration::from_secs(6);
/// The sensor may grow by this much while the flood goes on,
const GROWTH_KIB: u64 = 4 << 10;
/// in one interval of three,
const INTERVALS: u32 = 2;
/// and by what waits for a reader that is too slow, if this machine made it so.
const QUEUE_KIB: u64 = 16 << 10;

fn many_addresses(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let begun = Instant::now();
    let ((id, memory), made) = flood::during(lab, || {
        std::thread::sleep(DURATION / 3);
        let before = flood::resident_kib(&sensor)?;
        let run = ["run", "--detach", "--name", "flooded", IMAGE, "/bin/sleep", "600"];
        let id = remote(&lab.network, NODE_OUTSIDE, &run)?;
        std::thread::sleep(DURATION.saturating_sub(begun.elapsed()));
        let mut memory = [before, flood::resident_kib(&sensor)?];
        // Lines may have waited for a reader that was slow for a moment. The flood goes on: what it costs for good, it costs again.
        for _ in 0..INTERVALS {
            if memory[1] < memory[0] + GROWTH_KIB {
                break;
            }
            std::thread::sleep(DURATION - DURATION / 3);
            memory = [memory[1], flood::resident_kib(&sensor)?];
        }
        Ok((id, memory))
    })?;

    // The attack is in the output as if there were no flood.
    let accept = sensor.wait("the accept of the docker client", flood::is_of_client)?;
    ensure!(accept.is("accept", &[("verdict.listed", "false"), ("process.comm", "dockerd")]), "{accept}");
    check_runtime_chain(lab, &sensor, &id)?;
    for action in ["created", "started"] {
        check_container(&sensor, action, &id, "flooded")?;
    }
    sensor.wait("the container's first exec", |record| {
        record.is("exec", &[("container.id", &id), ("exec.role", "workload")])
    })?;

    // A reset that got lost leaves a connection behind; its end has no part in what follows.
    let open = lab.network.node.open_connections()?;
    let recording = sensor.stop()?;
    let account = Account::of(&recording);
    let Made { connections, completed, execs, seconds, slowest_second } = made;
    println!(
        "{completed} connections ({:.0}/s, {slowest_second:.0} in the slowest second) from {SOURCES} addresses, {execs} execs ({:.0}/s) of which {} have no record ({} lost, {} shed); sensor {} KiB, then {} KiB",
        made.per_second(),
        account.execs_per_second,
        execs - account.execs,
        flood::lost(&recording, "bulk"),
        recording.shed(),
        memory[0],
        memory[1],
    );
    let last = recording.last();
    ensure!(flood::lost(&recording, "management") == 0, "management records were lost: {last}");

    // Every connection is an accept or in a summary, as the kernel's own count says.
    let Account { accepts, of_client, suppressed, .. } = account;
    let skipped = flood::skipped(&recording);
    ensure!(completed <= connections + of_client, "{completed} connections of {connections} and {of_client}");
    ensure!(suppressed > completed / 2, "{suppressed} of {completed} connections withheld is no flood");
    ensure!(
        (completed.saturating_sub(skipped)..=completed).contains(&(accepts + suppressed)),
        "{completed} connections, but {accepts} accepts and {suppressed} suppressed: {last}"
    );
    for (kind, untold) in [("accept", skipped), ("close", skipped + open)] {
        let balance = last
            .list("health.balance")
            .iter()
            .find(|entry| entry["kind"] == kind && entry["ring"] == "management");
        let balance = balance.with_context(|| format!("no balance of {kind}: {last}"))?;
        ensure!(
            balance["suppressed"].as_u64() >= Some(suppressed.saturating_sub(untold)),
            "{balance}, but {suppressed} in the summaries, and {open} connections are open"
        );
    }
    // So is every exec of the container.
    let untold = flood::lost(&recording, "bulk") + recording.shed();
    ensure!(account.execs + untold >= execs, "{execs} execs, {} seen, {untold} lost: {last}", account.execs);

    // Flat: what gets a line does not grow with the flood, and neither does the sensor.
    let of_a_port = 16.0 * (64.0 + 32.0 * (seconds + 2.0));
    // Accepts, and those on which a request follows, on both ports.
    ensure!((accepts as f64) < 2.0 * 2.0 * of_a_port, "{accepts} accepts in {seconds} s");
    let waiting = if recording.shed() > 0 { QUEUE_KIB } else { 0 };
    ensure!(
        memory[1] < memory[0] + GROWTH_KIB + waiting,
        "the sensor has grown from {} to {} KiB",
        memory[0],
        memory[1]
    );
    Ok(())
}

fn half_open(lab: &Lab) -> Result<()> {
    /// From as many addresses, one each.
    const CROWD: u32 = 2000;
    /// From one address.
    const SCANNER: u32 = 400;
    let _crowd = Crowd::gather(&lab.network, CLIENT_OUTSIDE.parse()?)?;
    let sensor = Sensor::start(CONFIGURATION)?;
    let server = SocketAddrV4::new(NODE_OUTSIDE.parse()?, PORT);
    let scanner = Crowd::address(CROWD_LEN - 1);
    lab.network.client.within(|| {
        let sender = SynSender::new(server)?;
        for number in 0..CROWD {
            sender.send(SocketAddrV4::new(Crowd::address(number), 40_000), number)?;
        }
        for number in 0..SCANNER {
            let source = SocketAddrV4::new(scanner, 1024 + number as u16);
            sender.send(source, 7)?;
            // A repetition is no second attempt.
            sender.send(source, 7)?;
        }
        // A connection is no attempt that came to nothing.
        connect_from(SocketAddrV4::new(scanner, 0), server).map(drop)
    })?;
    let is_scan = |record: &Record| {
        record.is(
            "scan",
            &[("scan.shape", "half-open"), ("net.service", "docker"), ("process.comm", "dockerd")],
        )
    };
    let named = sensor.wait("a summary of the scanner", |record| {
        is_scan(record) && record.text("net.peer.ip") == scanner.to_string()
    })?;
    ensure!(named.at("net.peer.port").is_null(), "a peer has many ports: {named}");
    sensor.wait("a summary of the crowd", |record| is_scan(record) && record.at("net.peer").is_null())?;
    let recording = sensor.stop()?;
    let of_scanner: u64 = recording
        .of_kind("scan")
        // Its connection said nothing, which is another summary.
        .filter(|record| is_scan(record) && record.text("net.peer.ip") == scanner.to_string())
        .filter_map(|record| record.number("scan.count"))
        .sum();
    ensure!(of_scanner == u64::from(SCANNER), "{of_scanner} attempts of the scanner, not {SCANNER}");
    let count = sum(&recording, "half-open", "scan.count");
    ensure!(count == u64::from(CROWD + SCANNER), "{count} attempts that came to nothing");
    let crowd = recording.of_kind("scan").find(|record| record.at("net.peer").is_null());
    let peers = crowd.and_then(|record| record.number("scan.peers")).context("no number of peers")?;
    ensure!(peers > 1, "{peers} peers");
    Ok(())
}

/// Sum over the summaries of a shape.
fn sum(recording: &Recording, shape: &str, path: &str) -> u64 {
    let scans = recording.of_kind("scan").filter(|record| record.text("scan.shape") == shape);
    scans.filter_map(|record| record.number(path)).sum()
}
