//! A flood: connections from many addresses and execs in a container, as fast as is aimed at and as the machine gives, and
//! what a sensor's recording says of them.

use std::collections::{BTreeSet, VecDeque};
use std::fs::Permissions;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, accept, bind, listen, shutdown, socket_with, sockopt,
};

use crate::dockerd::{self, IMAGE};
use crate::lab::Lab;
use crate::netns::{Crowd, NODE_OUTSIDE, Netns};
use crate::process::{COMMAND_TIMEOUT, Process};
use crate::record::Record;
use crate::sensor::{Recording, Sensor};
use crate::traffic::connect_from;

/// The watched port that most of the flood goes to. A server that does nothing but accept takes what dockerd could not.
pub const PORT: u16 = 6443;
/// Addresses that flood: more than the sensor can tell apart.
pub const SOURCES: u32 = 60_000;
/// Connections that are made in a second, as far as the machine bears it: somewhat more than the 20,000 that a flood is to
/// have, so that what a late start of a thread costs is made up for.
const CONNECTIONS_PER_SECOND: u64 = 21_000;
/// Execs, likewise for 2,000.
const EXECS_PER_SECOND: u64 = 2100;
/// Between two looks at what the kernel has counted.
const SECOND: Duration = Duration::from_secs(1);

/// How often the one that attacks takes part, at dockerd: every so many connections.
const AUTHOR_EVERY: u64 = 16;
/// Local ports of its part in the flood; those of its docker client are above.
const AUTHOR_PORTS: std::ops::Range<u16> = 10_000..30_000;
/// First port that the kernel chooses by itself.
const EPHEMERAL: u64 = 32_768;
/// Local ports of all others, one after the other.
const PORTS: std::ops::Range<u16> = 10_000..60_000;
/// Threads that connect.
const THREADS: u64 = 2;
/// Connections of a thread between two looks at the clock.
const BATCH: u64 = 32;
/// What the container executes, with one number after the other.
const PROGRAM: &str = "/bin/nothing";

/// The address that attacks.
#[must_use]
pub fn author() -> Ipv4Addr {
    Crowd::address(SOURCES / 2)
}

/// What was done.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// Connections tried.
    pub connections: u64,
    /// Connections that listeners of the node have completed, as its kernel counts them; of the docker client, too.
    pub completed: u64,
    /// Execs of the container.
    pub execs: u64,
    /// How long connections were made.
    pub seconds: f64,
    /// Connections completed in the slowest of its seconds, the last one left out.
    pub slowest_second: f64,
}

impl Made {
    /// Connections completed in a second, from the first to the last.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.completed as f64 / self.seconds
    }
}

/// Floods the node as long as something else takes.
///
/// # Errors
/// When the flood cannot be made, or the other thing fails.
pub fn during<T>(lab: &Lab, meanwhile: impl FnOnce() -> Result<T>) -> Result<(T, Made)> {
    let _crowd = Crowd::gather(&lab.network, author())?;
    let _server = Server::start(&lab.network.node)?;
    let executor = Executor::start(lab)?;
    let before = lab.network.node.completed_connections()?;
    let (over, connections) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    let (done, execs, seconds, rates) = std::thread::scope(|scope| {
        let (over, connections) = (&over, &connections);
        let rates = scope.spawn(move || completed_per_second(&lab.network.node, over));
        let floods: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || connect(lab, thread, over, connections))).collect();
        let execs = scope.spawn(move || executor.execute(over));
        let done = meanwhile();
        over.store(true, Ordering::Relaxed);
        for flood in floods {
            flood.join().expect("a flood panicked")?;
        }
        // The container takes a while to end, and that is no part of the flood.
        let seconds = begun.elapsed().as_secs_f64();
        let execs = execs.join().expect("the execs panicked")?;
        Ok::<_, anyhow::Error>((done?, execs, seconds, rates.join().expect("the count panicked")?))
    })?;
    let completed = lab.network.node.completed_connections()? - before;
    let slowest_second = rates.into_iter().reduce(f64::min).context("the flood took no second")?;
    Ok((done, Made { connections: connections.into_inner(), completed, execs, seconds, slowest_second }))
}

/// Connections that the listeners of a node complete, for each whole second until it is over.
fn completed_per_second(node: &Netns, over: &AtomicBool) -> Result<Vec<f64>> {
    let mut rates = Vec::new();
    let mut before = (Instant::now(), node.completed_connections()?);
    loop {
        std::thread::sleep(SECOND);
        let now = (Instant::now(), node.completed_connections()?);
        if over.load(Ordering::Relaxed) {
            return Ok(rates);
        }
        rates.push((now.1 - before.1) as f64 / (now.0 - before.0).as_secs_f64());
        before = now;
    }
}

/// Connects and resets, one connection after the other, until it is over.
fn connect(lab: &Lab, thread: u64, over: &AtomicBool, connections: &AtomicU64) -> Result<()> {
    let node: Ipv4Addr = NODE_OUTSIDE.parse()?;
    let (server, docker) = (SocketAddrV4::new(node, PORT), SocketAddrV4::new(node, dockerd::PORT));
    lab.network.client.within(|| {
        let begun = Instant::now();
        let mut of_author = AUTHOR_PORTS.filter(|port| u64::from(*port) % THREADS == thread).cycle();
        let mut ports = PORTS.cycle();
        for number in 0_u64.. {
            if number.is_multiple_of(BATCH) {
                connections.fetch_add(if number == 0 { 0 } else { BATCH }, Ordering::Relaxed);
                if over.load(Ordering::Relaxed) {
                    break;
                }
                wait_for(begun, number * THREADS, CONNECTIONS_PER_SECOND);
            }
            let (source, port, server) = if number.is_multiple_of(AUTHOR_EVERY) {
                (author(), of_author.next(), docker)
            } else {
                let source = (number * THREADS + thread) % u64::from(SOURCES);
                (Crowd::address(source as u32), ports.next(), server)
            };
            drop(connect_from(SocketAddrV4::new(source, port.expect("invariant: a cycle")), server)?);
        }
        Ok(())
    })
}

/// Accepts whatever comes and closes it when its peer is gone.
///
/// Whoever closes first waits for the answer in a timer of the kernel's, which runs on the way out of an interrupt. Where
/// that interrupted a probe, the kernel runs no probe, and does not always count that: of a flood of resets alone every end
/// is seen.
struct Server {
    listener: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(node: &Netns) -> Result<Self> {
        /// More than come before the thread runs again.
        const BACKLOG: i32 = 4096;
        /// Connections that are open at a time: their peers are long gone when it is their turn.
        const HELD: usize = 512;
        let address = SocketAddrV4::new(NODE_OUTSIDE.parse()?, PORT);
        let listener = node.within(|| {
            let listener = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            // What is left of the connections of an earlier flood must not be in the way.
            sockopt::set_socket_reuseaddr(&listener, true)?;
            bind(&listener, &address)?;
            listen(&listener, BACKLOG)?;
            Ok(Arc::new(listener))
        })?;
        let accepting = Arc::clone(&listener);
        // Ends with the listener; a connection that is gone before it is taken is no error.
        let thread = std::thread::spawn(move || {
            let mut held = VecDeque::with_capacity(HELD + 1);
            while let Ok(connection) = accept(&accepting) {
                held.push_back(connection);
                if held.len() > HELD {
                    held.pop_front();
                }
            }
        });
        Ok(Self { listener, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes the thread. What was not closed in order is closed with the socket.
        let _ = shutdown(&self.listener, Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server panicked");
        }
    }
}

/// Sleeps until so many of something are due.
fn wait_for(begun: Instant, number: u64, per_second: u64) {
    let due = Duration::from_nanos(number * 1_000_000_000 / per_second);
    std::thread::sleep(due.saturating_sub(begun.elapsed()));
}

/// A container that executes [`PROGRAM`] with each number that it is told.
struct Executor(Process);

impl Executor {
    fn start(lab: &Lab) -> Result<Self> {
        let program = lab.directory().join("nothing");
        std::fs::write(&program, nothing())?;
        std::fs::set_permissions(&program, Permissions::from_mode(0o755))?;
        let mount = format!("{}:{PROGRAM}:ro", program.display());
        let mut run = lab.dockerd.client();
        run.args(["run", "--rm", "--interactive", "--volume", &mount, IMAGE]);
        run.args(["/bin/busybox", "xargs", "-n", "1", PROGRAM]);
        run.stdin(Stdio::piped()).stdout(Stdio::null());
        Ok(Self(Process::start(&mut run)?))
    }

    /// Tells it numbers until it is over; returns how many, when it has executed all of them.
    fn execute(mut self, over: &AtomicBool) -> Result<u64> {
        /// Numbers at a time.
        const BATCH: u64 = 20;
        let mut numbers = self.0.0.stdin.take().context("standard input is not piped")?;
        let (begun, mut told) = (Instant::now(), 0);
        while !over.load(Ordering::Relaxed) {
            let batch: String = (told..told + BATCH).map(|number| format!("{number}\n")).collect();
            numbers.write_all(batch.as_bytes())?;
            told += BATCH;
            wait_for(begun, told, EXECS_PER_SECOND);
        }
        drop(numbers);
        let status = self.0.wait(COMMAND_TIMEOUT).context("the container did not end")?;
        ensure!(status.success(), "the container ended with {status}");
        Ok(told)
    }
}

/// A program that ends at once. A real one, with a runtime library, would spend ten times as long on itself as the kernel
/// does on executing it.
fn nothing() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    /// Lengths of the header of the file and of its one segment.
    const HEADERS: u64 = 64 + 56;
    // exit(0)
    #[cfg(target_arch = "x86_64")]
    const MACHINE: u16 = 62;
    #[cfg(target_arch = "x86_64")]
    const CODE: &[u8] = &[0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05];
    #[cfg(target_arch = "aarch64")]
    const MACHINE: u16 = 183;
    #[cfg(target_arch = "aarch64")]
    const CODE: &[u8] = &[0xa8, 0x0b, 0x80, 0xd2, 0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4];
    let mut file = Vec::new();
    let words =
        |file: &mut Vec<u8>, words: &[u64]| file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    file.extend(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0");
    file.extend(MACHINE.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    // Entry, offset of the segments' headers, of the sections'; then flags, and lengths and numbers of all headers.
    words(&mut file, &[BASE + HEADERS, 64, 0]);
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // To be loaded, readable and executable: the whole file.
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    let len = HEADERS + CODE.len() as u64;
    words(&mut file, &[0, BASE, BASE, len, len, 0x1000]);
    file.extend(CODE);
    file
}

/// What a recording says of the flood.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    /// Accepts with a record.
    pub accepts: u64,
    /// Of these, those of the docker client.
    pub of_client: u64,
    /// Accepts without, as summaries count them.
    pub suppressed: u64,
    /// Execs of the container.
    pub execs: u64,
    /// Of these in a second, from the first to the last, in kernel time.
    pub execs_per_second: f64,
}

impl Account {
    /// Adds up a recording.
    #[must_use]
    pub fn of(recording: &Recording) -> Self {
        let ports = [PORT, dockerd::PORT].map(u64::from);
        let is_ours = |record: &&Record| {
            record.text("net.local.ip") == NODE_OUTSIDE
                && record.number("net.local.port").is_some_and(|port| ports.contains(&port))
        };
        let accepts: Vec<&Record> = recording.of_kind("accept").filter(is_ours).collect();
        let sum = |path: &str| -> u64 {
            let scans = recording.of_kind("scan").filter(|scan| scan.text("scan.shape") == "flood");
            scans.filter_map(|scan| scan.number(path)).sum()
        };
        let execs: Vec<&Record> =
            recording.of_kind("exec").filter(|exec| number_of(exec).is_some()).collect();
        let numbers: BTreeSet<u64> = execs.iter().filter_map(|exec| number_of(exec)).collect();
        let times = || execs.iter().filter_map(|exec| exec.number("boot_ns"));
        let nanoseconds = times().max().zip(times().min()).map_or(0, |(last, first)| last - first);
        Self {
            accepts: accepts.len() as u64,
            of_client: accepts.iter().filter(|record| is_of_client(record)).count() as u64,
            suppressed: sum("scan.suppressed") - sum("scan.resumed"),
            execs: numbers.len() as u64,
            execs_per_second: execs.len() as f64 / (nanoseconds as f64 / 1e9),
        }
    }
}

/// Whether this is the accept of a connection of the attacker's docker client.
#[must_use]
pub fn is_of_client(record: &Record) -> bool {
    record.is("accept", &[("net.peer.ip", &*author().to_string())])
        && record.number("net.peer.port") >= Some(EPHEMERAL)
}

/// Which of the container's execs this is.
fn number_of(exec: &Record) -> Option<u64> {
    match exec.args()[..] {
        [PROGRAM, number] => number.parse().ok(),
        _ => None,
    }
}

/// Lost records of a ring, of all kinds.
#[must_use]
pub fn lost(recording: &Recording, ring: &str) -> u64 {
    let losses = recording.last().list("health.loss").iter().filter(|entry| entry["ring"] == ring);
    losses.filter_map(|entry| entry["lost"].as_u64()).sum()
}

/// Events that the kernel did not run the probes for, because they were running already: both ends of the flood are on this
/// machine.
#[must_use]
pub fn skipped(recording: &Recording) -> u64 {
    let losses = recording.last().list("health.loss").iter();
    losses.filter(|entry| entry["kind"] == "probe-recursion").filter_map(|entry| entry["lost"].as_u64()).sum()
}

/// Resident memory of the sensor.
///
/// # Errors
/// When it is gone.
pub fn resident_kib(sensor: &Sensor) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sensor.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.trim().trim_end_matches(" kB").parse().context("not a number")
}
