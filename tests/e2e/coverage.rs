//! Coverage that proves itself.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sensor_tests::bpf::{self, SharedArray};
use sensor_tests::fanotify;
use sensor_tests::held::Held;
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::record::Record;
use sensor_tests::sensor::Sensor;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("canaries_come_back_at_every_interval_and_are_never_shown", canaries),
    ("a_hook_that_another_program_silences_is_blind_until_it_reports_again", silenced),
    ("a_tracepoint_whose_table_is_kept_empty_is_silent_until_that_ends", kept_silent),
    ("fanotify_whose_marks_another_program_removes_is_blind_and_marks_anew", unmarked),
    ("a_table_that_another_program_changes_is_blindness_since_the_last_look_and_is_written_again", changed),
    ("a_hook_that_another_program_detaches_is_reported_and_attached_again", detached),
    ("a_canary_that_hangs_is_degraded_coverage_until_it_goes_on", hanging),
];

/// As often as the configuration allows.
const OFTEN: &str = "coverage: {interval: 1s}\n";
/// A port of the default configuration that is read.
const WATCHED: u16 = 2375;

fn canaries(_: &Lab) -> Result<()> {
    /// Rounds that fit into the wait, with room for a busy machine.
    const ROUNDS: u64 = 3;
    let sensor = Sensor::start(&format!("{CONFIGURATION}{OFTEN}"))?;
    let own = sensor.id().to_string();
    sleep(Duration::from_secs(6));
    let recording = sensor.stop()?;
    let last = recording.last();
    for (ring, kind) in [
        ("management", "listener-opened"),
        ("management", "listener-closed"),
        ("management", "accept"),
        ("management", "close"),
        ("bulk", "connect"),
        ("bulk", "close"),
        ("bulk", "fork"),
        ("bulk", "exec"),
        ("bulk", "exit"),
        ("management", "cgroup-mkdir"),
        ("management", "cgroup-rmdir"),
    ] {
        let of_kind = |entry: &&serde_json::Value| entry["ring"] == ring && entry["kind"] == kind;
        let balance = last.list("health.balance").iter().find(of_kind);
        let seen = balance.and_then(|entry| entry["canaries"].as_u64()).unwrap_or(0);
        ensure!(seen >= ROUNDS, "{seen} canaries of {ROUNDS} or more: {ring} {kind} in {last}");
    }
    // Of what depends on the kernel, whatever it has is proved.
    for capability in ["scans", "runtime-sockets", "credential-files", "accept-tasks", "socket-requests"] {
        let reason = recording.records[0].text(&format!("health.coverage.{capability}.reason"));
        ensure!(!reason.contains("not tested") && !reason.contains("not proved"), "{capability}: {reason}");
    }
    for record in &recording.records {
        ensure!(!record.is(record.kind(), &[("process.pid", &own)]), "the sensor shows itself: {record}");
        ensure!(!record.line.contains("quaywatch-canary"), "a canary is shown: {record}");
    }
    let first = states(&recording.records[0]);
    ensure!(!first.is_empty(), "nothing is said of coverage: {}", recording.records[0]);
    let changed =
        recording.of_kind("health").find(|record| ![Vec::new(), first.clone()].contains(&states(record)));
    ensure!(changed.is_none(), "coverage was in doubt: {changed:?}");
    Ok(())
}

fn silenced(_: &Lab) -> Result<()> {
    const PROGRAM: &str = "packets_in";
    let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, WATCHED))?;
    let sensor = Sensor::start(&format!("{CONFIGURATION}{OFTEN}"))?;
    sensor.wait("a proof of the hook", |record| {
        record.is("health", &[("health.coverage.requests.state", "live")])
            && record.at("health.coverage.requests.reason").is_null()
    })?;
    let before = sensor.mark();
    // The link stays in its place; what it runs does not report.
    bpf::silence(PROGRAM)?;
    let blind = sensor.wait_after(before, "blind requests", |record| {
        record.is("health", &[("health.coverage.requests.state", "blind")])
    })?;
    ensure!(blind.text("health.state") == "degraded", "{blind}");
    let reason = blind.text("health.coverage.requests.reason");
    ensure!(reason.contains("in place and does not report the sensor's own canary"), "{blind}");
    for of_others in ["listeners", "accepts", "execs"] {
        ensure!(blind.text(&format!("health.coverage.{of_others}.state")) == "live", "{blind}");
    }
    let since = blind.text("health.coverage.requests.since");
    ensure!(since < blind.text("ts"), "blind since it was seen last: {blind}");

    let seen = sensor.wait_after(before, "the end of the blindness", |record| {
        record.is("health", &[("health.blind.capability", "requests")])
    })?;
    ensure!(seen.text("health.blind.from") == since, "{seen}\nafter {blind}");
    let live = sensor.wait_after(before, "requests live again", |record| {
        record.number("seq") > blind.number("seq") && record.text("health.coverage.requests.state") == "live"
    })?;
    // What this kernel has no hook for is no alarm.
    let running = sensor.wait_after(before, "everything as it was", |record| {
        record.is("health", &[("health.state", "running")])
    })?;
    ensure!(running.number("seq") >= live.number("seq"), "{running}\nbefore {live}");
    let recording = sensor.stop()?;
    ensure!(recording.log.contains("was attached again"), "nothing on standard error: {}", recording.log);
    recording.last().number("health.emitted").context("no totals").map(drop)
}

/// The port of the canaries is taken out of the table again and again, as fast as the sensor can write it: nothing detaches
/// the hook, and it does not report.
fn kept_silent(_: &Lab) -> Result<()> {
    /// The flag of that port, in `sensor_common::settings::port_flags`.
    const CANARY: u8 = 1 << 3;
    let sensor = Sensor::start(&format!("{CONFIGURATION}{OFTEN}"))?;
    sensor.wait_is("health", &[("health.state", "ready"), ("health.coverage.accepts.state", "live")])?;
    let before = sensor.mark();
    let ports = SharedArray::find("PORTS")?;
    let mut without = ports.read()?;
    without.iter_mut().filter(|flags| **flags & CANARY != 0).for_each(|flags| *flags = 0);
    let stop = AtomicBool::new(false);
    let blind = thread::scope(|scope| -> Result<Record> {
        let keep_empty = || -> Result<()> {
            while !stop.load(Ordering::Acquire) {
                ports.write(&without)?;
            }
            Ok(())
        };
        let keeper = scope.spawn(keep_empty);
        let blind = sensor.wait_after(before, "a silent hook", |record| {
            let text = |key: &str| record.text(&format!("health.coverage.accepts.{key}"));
            text("state") == "blind" && text("reason").contains("does not report the sensor's own canary")
        });
        stop.store(true, Ordering::Release);
        keeper.join().map_err(|_| anyhow::anyhow!("the thread that empties the table panicked"))??;
        blind
    })?;
    for capability in ["listeners", "connects"] {
        let reason = blind.text(&format!("health.coverage.{capability}.reason"));
        ensure!(reason.contains("does not report the sensor's own canary"), "{capability}: {blind}");
    }
    ensure!(blind.text("health.coverage.execs.state") == "live", "{blind}");
    let over = sensor.wait_after(before, "the end of the blindness", |record| {
        record.is("health", &[("health.blind.capability", "accepts")])
    })?;
    ensure!(over.text("health.blind.from") == blind.text("health.coverage.accepts.since"), "{blind}\n{over}");
    sensor.wait_after(before, "everything as it was", |record| {
        record.is("health", &[("health.state", "running"), ("health.coverage.accepts.state", "live")])
    })?;
    let recording = sensor.stop()?;
    ensure!(recording.log.contains("was attached again"), "nothing on standard error: {}", recording.log);
    Ok(())
}

/// Another program has fanotify's groups in hand and takes all marks out of them.
fn unmarked(_: &Lab) -> Result<()> {
    const NAME: &str = "credential-files";
    let sensor = Sensor::start(&format!("{CONFIGURATION}{OFTEN}"))?;
    let ready = sensor.wait_is("health", &[("health.state", "ready")])?;
    let serves = ready
        .list("health.hooks")
        .iter()
        .any(|hook| hook["program"] == "fanotify" && hook["state"] == "attached");
    if !serves {
        // A program serves here: what silences that is tried on the kernels of the matrix.
        ensure!(ready.text("health.coverage.credential-files.state") == "live", "{ready}");
        return sensor.stop().map(drop);
    }
    let of = |record: &Record, key: &str| record.text(&format!("health.coverage.{NAME}.{key}")).to_owned();
    ensure!(of(&ready, "state") == "degraded", "{ready}");
    let before = sensor.mark();
    fanotify::remove_marks(sensor.id())?;
    let blind =
        sensor.wait_after(before, "blind credential files", |record| of(record, "state") == "blind")?;
    ensure!(of(&blind, "reason").contains("does not report the sensor's own canary"), "{blind}");
    ensure!(of(&blind, "since").as_str() < blind.text("ts"), "{blind}");
    ensure!(blind.text("health.state") == "degraded", "{blind}");
    let over = sensor.wait_after(before, "the end of the blindness", |record| {
        record.is("health", &[("health.blind.capability", NAME)])
    })?;
    ensure!(over.text("health.blind.from") == of(&blind, "since"), "{blind}\n{over}");
    sensor.wait_after(before, "everything as it was", |record| {
        record.is("health", &[("health.state", "running")]) && of(record, "state") == "degraded"
    })?;
    let recording = sensor.stop()?;
    ensure!(recording.log.contains("everything is marked anew"), "{}", recording.log);
    let own = recording.of_kind("file_read").find(|record| record.text("process.comm") == "quaywatch");
    ensure!(own.is_none(), "the sensor shows itself: {own:?}");
    Ok(())
}

fn changed(_: &Lab) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, WATCHED))?;
    let sensor = Sensor::start(&format!("{CONFIGURATION}{OFTEN}"))?;
    let process = Pid::from_raw(sensor.id().cast_signed()).context("no process id")?;
    let connect = || -> Result<String> {
        let client = TcpStream::connect(listener.local_addr()?)?;
        listener.accept()?;
        Ok(client.local_addr()?.port().to_string())
    };
    let ports = SharedArray::find("PORTS")?;
    let watched = ports.read()?;
    let mut without = watched.clone();
    without[usize::from(WATCHED)] = 0;
    // While it stands still, so that no look at the table falls in between; the probes go on. Whatever comes of that, it is
    // let go on.
    let before = sensor.mark();
    kill_process(process, Signal::STOP)?;
    let missed = ports.write(&without).and_then(|()| connect());
    kill_process(process, Signal::CONT)?;
    let missed = missed?;
    let blind = sensor.wait_after(before, "blind accepts", |record| {
        record.is("health", &[("health.state", "degraded"), ("health.coverage.accepts.state", "blind")])
    })?;
    for capability in ["listeners", "accepts", "scans", "requests"] {
        let text = |key: &str| blind.text(&format!("health.coverage.{capability}.{key}"));
        ensure!(text("state") == "blind", "{capability}: {blind}");
        ensure!(text("reason") == "the table of watched ports was changed by another program", "{blind}");
        ensure!(text("since") < blind.text("ts"), "since the last look: {blind}");
    }
    ensure!(blind.text("health.coverage.execs.state") == "live", "{blind}");
    let over = sensor.wait_after(before, "the end of the blindness", |record| {
        record.is("health", &[("health.blind.capability", "accepts")])
    })?;
    ensure!(over.text("health.blind.from") == blind.text("health.coverage.accepts.since"), "{blind}\n{over}");
    ensure!(ports.read()? == watched, "the table is not as it was");
    sensor.wait_after(before, "everything as it was", |record| {
        record.is("health", &[("health.state", "running"), ("health.coverage.accepts.state", "live")])
    })?;
    let seen = connect()?;
    let is_of = |port: &str, record: &Record| record.is("accept", &[("net.peer.port", port)]);
    sensor.wait_after(before, "the next connection", |record| is_of(&seen, record))?;
    let recording = sensor.stop()?;
    let shown = recording.records.iter().find(|record| is_of(&missed, record));
    ensure!(shown.is_none(), "the port was out of the table: {shown:?}");
    ensure!(recording.log.contains("another program has changed"), "{}", recording.log);
    Ok(())
}

fn detached(_: &Lab) -> Result<()> {
    const PROGRAM: &str = "packets_in";
    let sensor = Sensor::start(CONFIGURATION)?;
    let ready = sensor.wait_is("health", &[("health.state", "ready")])?;
    ensure!(ready.text("health.coverage.scans.state") == "live", "{ready}");
    let state_of = |record: &Record| {
        let hook = record.list("health.hooks").iter().find(|hook| hook["program"] == PROGRAM);
        hook.and_then(|hook| hook["state"].as_str()).unwrap_or_default().to_owned()
    };
    // Twice: what was attached anew is watched like the first.
    for _ in 0..2 {
        let before = sensor.mark();
        bpf::detach(PROGRAM)?;
        let lost =
            sensor.wait_after(before, "the loss of the hook", |record| state_of(record) == "unavailable")?;
        let fields = [("health.state", "degraded"), ("health.coverage.scans.state", "degraded")];
        ensure!(lost.is("health", &fields), "{lost}");
        ensure!(lost.text("health.coverage.scans.since") < lost.text("ts"), "since the last look: {lost}");
        let again =
            sensor.wait_after(before, "the hook in its place", |record| state_of(record) == "attached")?;
        let doubt = again.text("health.coverage.scans.reason");
        ensure!(doubt.contains("has not reported a canary yet"), "in its place is not enough: {again}");
        // Canaries prove that attempts are counted and requests read again.
        sensor.wait_after(before, "the proof", |record| {
            let is_live = |name: &str| record.text(&format!("health.coverage.{name}.state")) == "live";
            record.is("health", &[("health.state", "running")]) && is_live("requests") && is_live("scans")
        })?;
    }
    sensor.stop().map(drop)
}

/// The thread that does what the canaries do stands still: nothing is proved any more, and nothing is taken for blind.
fn hanging(_: &Lab) -> Result<()> {
    /// What the canaries prove without help of others.
    const PROVED: [&str; 4] = ["listeners", "accepts", "connects", "execs"];
    let sensor = Sensor::start(&format!("{CONFIGURATION}{OFTEN}"))?;
    let before = sensor.mark();
    let held = Held::thread(sensor.id(), "canaries")?;
    // After three intervals and the grace of the last round: four seconds. A busy machine has time for more.
    let stale = sensor.wait_after(before, "coverage that is no longer proved", |record| {
        record.is("health", &[("health.coverage.accepts.state", "degraded")])
    })?;
    ensure!(stale.text("health.state") == "degraded", "{stale}");
    for capability in PROVED {
        let text = |key: &str| stale.text(&format!("health.coverage.{capability}.{key}"));
        ensure!(text("state") == "degraded", "{capability} has no proof: {stale}");
        for reason in ["no longer proved", "a round of canaries has not ended"] {
            ensure!(text("reason").contains(reason), "{capability} does not say {reason:?}: {stale}");
        }
        ensure!(text("since") < stale.text("ts"), "since the last proof: {stale}");
    }

    let before = sensor.mark();
    drop(held);
    let again = sensor.wait_after(before, "coverage that is proved again", |record| {
        record.is("health", &[("health.state", "running"), ("health.coverage.accepts.state", "live")])
    })?;
    let all_are = |record: &Record, state| {
        PROVED.iter().all(|capability| states(record).contains(&(capability, state)))
    };
    ensure!(all_are(&again, "live"), "{again}");
    let recording = sensor.stop()?;
    // Nothing was seen to be missing: the hooks worked all the time.
    let is_blind = |record: &Record| PROVED.iter().any(|name| states(record).contains(&(name, "blind")));
    let blind = recording.of_kind("health").find(|record| is_blind(record));
    ensure!(blind.is_none(), "taken for blind: {blind:?}");
    Ok(())
}

/// The state of every capability in a health record.
fn states(record: &Record) -> Vec<(&str, &str)> {
    let coverage = record.at("health.coverage").as_object();
    let states = coverage.into_iter().flatten();
    states
        .map(|(capability, entry)| (capability.as_str(), entry["state"].as_str().unwrap_or_default()))
        .collect()
}
