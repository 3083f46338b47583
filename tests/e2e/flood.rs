//! A flood hides nothing: neither what happens meanwhile, nor its own author, nor its size.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sensor_tests::dockerd::{IMAGE, PORT, remote};
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

/// Addresses that flood: more than the sensor can tell apart.
const SOURCES: u32 = 60_000;
/// How often the one that attacks takes part: every so many connections.
const AUTHOR_EVERY: u64 = 16;
/// Local ports of its part in the flood; those of its docker client are above.
const AUTHOR_PORTS: std::ops::Range<u16> = 10_000..30_000;
/// First port that the kernel chooses by itself.
const EPHEMERAL: u64 = 32_768;
/// At least this long; longer, until the attack is over.
const DURATION: Duration = Duration::from_secs(6);
/// What is aimed at; the machine may give less, and the test says what it gave.
const EXECS_PER_SECOND: u32 = 2000;

/// What was done, counted by those who did it.
#[derive(Default)]
struct Done {
    over: AtomicBool,
    connections: AtomicU64,
    execs: AtomicU64,
}

fn author() -> Ipv4Addr {
    Crowd::address(SOURCES / 2)
}

fn many_addresses(lab: &Lab) -> Result<()> {
    let _crowd = Crowd::gather(&lab.network, author())?;
    let tool = named_like_a_runtime(lab)?;
    let sensor = Sensor::start(CONFIGURATION)?;
    let done = Done::default();
    let completed_before = lab.network.node.completed_connections()?;
    let begun = Instant::now();
    let (id, memory) = std::thread::scope(|scope| -> Result<_> {
        let floods = [0, 1].map(|thread| {
            scope.spawn({
                let done = &done;
                move || flood(lab, done, thread)
            })
        });
        let execs = scope.spawn(|| execute(&tool, &done));
        let attack = || -> Result<_> {
            std::thread::sleep(DURATION / 3);
            let before = memory_kib(&sensor)?;
            let run = ["run", "--detach", "--name", "flooded", IMAGE, "/bin/sleep", "600"];
            let id = remote(&lab.network, NODE_OUTSIDE, &run)?;
            std::thread::sleep(DURATION.saturating_sub(begun.elapsed()));
            Ok((id, (before, memory_kib(&sensor)?)))
        };
        let result = attack();
        done.over.store(true, Ordering::Relaxed);
        for flood in floods {
            flood.join().expect("a flood panicked")?;
        }
        execs.join().expect("the execs panicked")?;
        result
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let (made, execs) = (done.connections.into_inner(), done.execs.into_inner());
    println!(
        "{made} connections ({:.0}/s) from {SOURCES} addresses, {execs} execs ({:.0}/s); sensor {} KiB, then {} KiB",
        made as f64 / seconds,
        execs as f64 / seconds,
        memory.0,
        memory.1
    );

    // The attack is in the output as if there were no flood.
    let is_author = |record: &Record| record.text("net.peer.ip") == author().to_string();
    let by_docker = |record: &Record| {
        record.kind() == "accept" && is_author(record) && record.number("net.peer.port") >= Some(EPHEMERAL)
    };
    let accept = sensor.wait("the accept of the docker client", by_docker)?;
    ensure!(accept.is("accept", &[("verdict.listed", "false"), ("process.comm", "dockerd")]), "{accept}");
    check_runtime_chain(lab, &sensor, &id)?;
    for action in ["created", "started"] {
        check_container(&sensor, action, &id, "flooded")?;
    }
    sensor.wait("the container's first exec", |record| {
        record.is("exec", &[("container.id", &id), ("exec.role", "workload")])
    })?;

    let recording = sensor.stop()?;
    let last = recording.last();
    let lost = |entry: &&serde_json::Value| entry["ring"] == "management" && entry["lost"] != 0;
    ensure!(
        !last.list("health.loss").iter().any(|entry| lost(&entry)),
        "management records were lost: {last}"
    );

    // Every connection is an accept or in a summary, and the summaries are those of the kernel's exact counts.
    let accepts: Vec<&Record> = recording.of_kind("accept").filter(|record| is_ours(record)).collect();
    let of_docker = accepts.iter().filter(|record| by_docker(record)).count() as u64;
    let suppressed = sum(&recording, "flood", "scan.suppressed") - sum(&recording, "flood", "scan.resumed");
    let completed = lab.network.node.completed_connections()? - completed_before;
    ensure!(
        completed <= made + of_docker,
        "{completed} connections, but only {made} and {of_docker} were tried"
    );
    ensure!(suppressed > completed / 2, "{suppressed} of {completed} connections withheld is no flood");
    ensure!(
        accepts.len() as u64 + suppressed == completed,
        "{completed} connections, but {} accepts and {suppressed} suppressed: {last}",
        accepts.len()
    );
    for kind in ["accept", "close"] {
        let balance = last
            .list("health.balance")
            .iter()
            .find(|entry| entry["kind"] == kind && entry["ring"] == "management");
        let balance = balance.with_context(|| format!("no balance of {kind}: {last}"))?;
        ensure!(
            balance["suppressed"].as_u64() >= Some(suppressed),
            "{balance}, but {suppressed} in the summaries"
        );
    }
    // Flat: what gets a line does not grow with the flood, and neither does the sensor.
    let bearable = 2.0 * 16.0 * (64.0 + 32.0 * (seconds + 2.0));
    ensure!((accepts.len() as f64) < bearable, "{} accepts in {seconds} s", accepts.len());
    ensure!(memory.1 < memory.0 + (32 << 10), "the sensor has grown from {} to {} KiB", memory.0, memory.1);
    Ok(())
}

fn is_ours(record: &Record) -> bool {
    record.is("accept", &[("net.local.ip", NODE_OUTSIDE), ("net.local.port", &PORT.to_string())])
}

/// Sum over the summaries of a shape.
fn sum(recording: &Recording, shape: &str, path: &str) -> u64 {
    let scans = recording.of_kind("scan").filter(|record| record.text("scan.shape") == shape);
    scans.filter_map(|record| record.number(path)).sum()
}

/// Connects and resets, one connection after the other, until it is over.
fn flood(lab: &Lab, done: &Done, thread: u64) -> Result<()> {
    let server = SocketAddrV4::new(NODE_OUTSIDE.parse()?, PORT);
    lab.network.client.within(|| {
        let mut ports = AUTHOR_PORTS.filter(|port| u64::from(*port) % 2 == thread).cycle();
        for number in 0_u64.. {
            if done.over.load(Ordering::Relaxed) {
                break;
            }
            let source = if number % AUTHOR_EVERY == 0 {
                SocketAddrV4::new(author(), ports.next().expect("invariant: a cycle"))
            } else {
                let number = (number * 2 + thread) % u64::from(SOURCES);
                SocketAddrV4::new(Crowd::address(number as u32), 0)
            };
            drop(connect_from(source, server)?);
            done.connections.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })
}

/// Executes a program as often as is aimed at, until it is over.
fn execute(program: &std::path::Path, done: &Done) -> Result<()> {
    let begun = Instant::now();
    let mut children = std::collections::VecDeque::new();
    while !done.over.load(Ordering::Relaxed) {
        let made = done.execs.fetch_add(1, Ordering::Relaxed);
        // Most have nothing to do with containers; some are named like a runtime, and each of those has a record.
        let program = if made.is_multiple_of(8) { program } else { std::path::Path::new("/bin/true") };
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        children.push_back(command.spawn()?);
        if children.len() > 16 {
            children.pop_front().expect("invariant: there are some").wait()?;
        }
        let due = Duration::from_secs(1) * made as u32 / EXECS_PER_SECOND;
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    children.into_iter().try_for_each(|mut child| child.wait().map(drop))?;
    Ok(())
}

/// A program that ends at once and has the name of an OCI runtime.
fn named_like_a_runtime(lab: &Lab) -> Result<std::path::PathBuf> {
    let directory = lab.directory().join("flood");
    std::fs::create_dir_all(&directory)?;
    let program = directory.join("runc");
    std::fs::copy(lab.rootfs().join("bin/busybox"), &program)?;
    Ok(program)
}

/// Resident memory of the sensor.
fn memory_kib(sensor: &Sensor) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sensor.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.trim().trim_end_matches(" kB").parse().context("not a number")
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
        .filter(|record| record.text("net.peer.ip") == scanner.to_string())
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
