//! Time that jumps, sleeps, and process ids that come again.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use sensor_tests::record::Record;
use sensor_tests::sensor::Sensor;

use super::actor::Actor;
use super::kinds::Row;
use super::sockets::{UNLISTED, accept_of, address, connect_between};
use crate::cgroups::Container;
use crate::report::Outcome;

pub const ROWS: &[Row] = &[("clock-step", clock_step), ("pid-reuse", pid_reuse), ("suspend", suspend)];

const PORT: u16 = 10_250;

/// Sets the wall clock and waits until the sensor, which asks for it twice a second, has heard of that.
fn set_clock(seconds: i64) -> Result<()> {
    clock_settime(ClockId::Realtime, Timespec { tv_sec: seconds, tv_nsec: 0 })
        .context("setting the clock")?;
    sleep(Duration::from_millis(1500));
    Ok(())
}

/// The wall clock steps far ahead and far back: records show it, and neither their order nor their durations follow.
fn clock_step(sensor: &Sensor) -> Result<Outcome> {
    /// A time and how its timestamps begin.
    const STEPS: [(i64, &str); 2] = [(2_208_988_800, "2040-01-01T00:"), (1_000_000_000, "2001-09-09T01:")];
    let now = || (clock_gettime(ClockId::Realtime).tv_sec, clock_gettime(ClockId::Boottime).tv_sec);
    let (wall, boot) = now();
    let before = sensor.mark();
    let listener = TcpListener::bind(address(UNLISTED[0], PORT)?)?;
    let client = (connect_between(UNLISTED, PORT)?, listener.accept()?);
    let first = accept_of(sensor, &client.0)?;
    let mut last = first.clone();
    ensure!(STEPS.iter().all(|(_, begin)| !last.text("ts").starts_with(begin)), "an odd clock: {last}");
    for (seconds, begin) in STEPS {
        set_clock(seconds)?;
        let client = connect_between(UNLISTED, PORT)?;
        let next = accept_of(sensor, &client)?;
        ensure!(next.text("ts").starts_with(begin), "the wall clock says {begin}: {next}");
        check_order(&last, &next)?;
        last = next;
    }
    drop(client);
    let close = sensor.wait_is("close", &[("net.conn", first.text("net.conn"))])?;
    let duration = close.number("conn.duration_ns").with_context(|| format!("no duration: {close}"))?;
    ensure!(duration < 120_000_000_000, "it was open for seconds: {close}");
    set_clock(wall + now().1 - boot)?;
    check_no_doubt(sensor, before).context("a step of the clock is no loss")?;
    Ok(Outcome::Seen)
}

/// Demands that the sensor was in no doubt since a mark.
fn check_no_doubt(sensor: &Sensor, mark: usize) -> Result<()> {
    let records = sensor.records();
    let doubt = records[mark..].iter().find(|record| record.is("health", &[("health.state", "degraded")]));
    ensure!(doubt.is_none(), "{doubt:?}");
    Ok(())
}

fn check_order(earlier: &Record, later: &Record) -> Result<()> {
    for key in ["boot_ns", "seq"] {
        ensure!(earlier.number(key) < later.number(key), "{key} went back:\n{earlier}\n{later}");
    }
    let passed =
        later.number("boot_ns").zip(earlier.number("boot_ns")).map(|(later, earlier)| later - earlier);
    ensure!(passed.is_some_and(|passed| passed < 120_000_000_000), "minutes passed:\n{earlier}\n{later}");
    Ok(())
}

/// A process of one container has the id of a former process of another, and nothing else of it.
fn pid_reuse(sensor: &Sensor) -> Result<Outcome> {
    const LAST: &str = "/proc/sys/kernel/ns_last_pid";
    const ATTEMPTS: u32 = 20;
    let (before, after) = (Container::create("b1")?, Container::create("b2")?);
    let server = address(UNLISTED[0], PORT)?;
    let _listener = TcpListener::bind(server)?;
    let arguments = ["connect", &server.to_string()];
    for _ in 0..ATTEMPTS {
        let mut first = Actor::start_within(&before.id, &arguments)?;
        first.line()?;
        let pid = first.id();
        let id = pid.to_string();
        let of = |container: &Container, kind: &str| {
            let fields = [("container.id", container.id.as_str()), ("process.pid", &id)];
            sensor.wait_is(kind, &fields)
        };
        let former = of(&before, "connect")?;
        first.finish()?;
        of(&before, "exit")?;
        fs::write(LAST, (pid - 1).to_string()).context("choosing the next process id")?;
        let mut second = Actor::start_within(&after.id, &arguments)?;
        second.line()?;
        if second.id() != pid {
            // Somebody else was faster.
            second.finish()?;
            continue;
        }
        let exec = of(&after, "exec")?;
        let connect = of(&after, "connect")?;
        second.finish()?;
        let exit = of(&after, "exit")?;
        for record in [&exec, &connect, &exit] {
            let (old, new) = (former.number("process.start_ns"), record.number("process.start_ns"));
            ensure!(old < new, "the start of another process:\n{former}\n{record}");
            ensure!(record.args().contains(&"connect"), "other arguments: {record}");
            check_order(&former, record)?;
        }
        // Before it was executed in its container, it was this program on the host.
        let mixed = |record: &&Record| {
            record.text("container.id") == before.id
                && record.is(record.kind(), &[("process.pid", &id)])
                && record.number("boot_ns") > exec.number("boot_ns")
        };
        let records = sensor.records();
        let mixed = records.iter().find(mixed);
        ensure!(mixed.is_none(), "told of the container of the former process: {mixed:?}");
        return Ok(Outcome::Seen);
    }
    bail!("no process id came again in {ATTEMPTS} attempts")
}

/// How long this machine has slept so far: the boot clock counts that, the monotonic one does not.
fn time_asleep() -> Duration {
    let read = |clock| Duration::try_from(clock_gettime(clock)).expect("invariant: both clocks begin at 0");
    read(ClockId::Boottime).saturating_sub(read(ClockId::Monotonic))
}

/// The machine sleeps for seconds: they count, and nothing is lost or in doubt for them.
fn suspend(sensor: &Sensor) -> Result<Outcome> {
    const STATE: &str = "/sys/power/state";
    const ALARM: &str = "/sys/class/rtc/rtc0/wakealarm";
    const ASLEEP: u64 = 5;
    let states = fs::read_to_string(STATE).context("reading the sleep states")?;
    let state =
        ["mem", "freeze"].into_iter().find(|state| states.split_whitespace().any(|word| word == *state));
    let state = state.with_context(|| format!("no state to sleep in: {states:?}"))?;
    ensure!(Path::new(ALARM).exists(), "no clock can wake this machine");
    let mark = sensor.mark();
    let listener = TcpListener::bind(address(UNLISTED[0], PORT)?)?;
    let first = (connect_between(UNLISTED, PORT)?, listener.accept()?);
    let before = accept_of(sensor, &first.0)?;

    let never = time_asleep();
    fs::write(ALARM, format!("+{ASLEEP}")).context("setting the alarm")?;
    fs::write(STATE, state).with_context(|| format!("going to sleep by {state}"))?;
    // Less than was asked for, by what a slow machine takes to get there.
    let asleep = u64::try_from((time_asleep() - never).as_nanos())?;
    ensure!(asleep > 1_000_000_000, "it slept {asleep} ns only");

    let second = connect_between(UNLISTED, PORT)?;
    let after = accept_of(sensor, &second)?;
    let passed = after.number("boot_ns").zip(before.number("boot_ns")).map(|(after, before)| after - before);
    ensure!(passed > Some(asleep), "the sleep does not count:\n{before}\n{after}");
    drop(first);
    let close = sensor.wait_is("close", &[("net.conn", before.text("net.conn"))])?;
    let open = close.number("conn.duration_ns");
    ensure!(open > Some(asleep), "it was open while the machine slept: {close}");
    // Two rounds of canaries and more, so that a false alarm would have been raised.
    sleep(Duration::from_secs(5));
    check_no_doubt(sensor, mark).context("sleep is neither loss nor blindness")?;
    Ok(Outcome::SeenBy(state.to_owned()))
}
