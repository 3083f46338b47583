//! From the kernel's event to the line on standard output.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::loops::{WATCHED, tcp_once};
use crate::sensor::Sensor;

/// Accepts whose latency is measured.
const ACCEPTS: usize = 1_000;

/// Measures and prints the table.
pub fn print(_scratch: &Path) -> anyhow::Result<()> {
    let latencies = measure(ACCEPTS)?;
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100] as f64 / 1e6;
    println!("kernel to line, {} accepts", latencies.len());
    println!("  p50 {:8.2} ms", at(50));
    println!("  p99 {:8.2} ms   aim <= 12\n", at(99));
    Ok(())
}

/// Makes `count` connections at uneven distances and times the `accept` line of each. Returns nanoseconds, ascending.
fn measure(count: usize) -> anyhow::Result<Vec<u64>> {
    let mut child = Sensor::telling().stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("the sensor has no standard output")?;
    let (send, receive) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Read first, parsed later: parsing is not part of the way.
            if send.send((boot_ns(), line)).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (_, line) = receive.recv_timeout(deadline.saturating_duration_since(Instant::now()))?;
        if line.contains(r#""state":"ready""#) {
            break;
        }
    }
    let listener = TcpListener::bind(("127.0.0.1", WATCHED))?;
    for number in 0..count {
        tcp_once(&listener)?;
        // 3 to 10 ms in steps that are no multiple of the poll interval.
        std::thread::sleep(Duration::from_micros(3_000 + (number as u64 * 1_237) % 7_000));
    }
    std::thread::sleep(Duration::from_millis(100));
    kill_process(Pid::from_child(&child), Signal::TERM)?;
    child.wait()?;
    drop(listener);
    reader.join().map_err(|_| anyhow::anyhow!("the reader of the sensor's output panicked"))?;

    let mut latencies = Vec::with_capacity(count);
    for (arrived_ns, line) in receive {
        let record: Value = serde_json::from_str(&line)?;
        // Ours: other daemons of the machine may be busy, too.
        if record["kind"] == "accept" && record["process"]["pid"] == std::process::id() {
            let happened_ns = record["boot_ns"].as_u64().context("an accept without boot_ns")?;
            latencies.push(arrived_ns.saturating_sub(happened_ns));
        }
    }
    anyhow::ensure!(latencies.len() == count, "{} of {count} accepts were reported", latencies.len());
    latencies.sort_unstable();
    Ok(latencies)
}

fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
