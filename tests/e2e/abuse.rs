//! What the sensor does when it is treated badly.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::netns::NODE_OUTSIDE;
use sensor_tests::process::{Process, run};
use sensor_tests::record::Record;
use sensor_tests::sensor::{self, Sensor};

use crate::Test;

pub const TESTS: &[Test] = &[
    ("stopped_for_three_seconds_it_goes_on_and_accounts_for_everything", stopped),
    ("a_full_disk_costs_counted_whole_lines_and_ends_with_the_shortage", full_disk),
    ("twenty_thousand_short_lived_containers_leave_no_trace_in_memory", short_lived_containers),
];

const PORT: u16 = 10250;

/// Makes connections one after the other until told to stop; returns how many.
fn connections(lab: &Lab, go_on: impl Fn(usize) -> bool + Sync) -> Result<usize> {
    let listener = lab.network.node.within(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
    let server = SocketAddr::new(NODE_OUTSIDE.parse()?, PORT);
    lab.network
        .client
        .within(|| {
            let mut made = 0;
            while go_on(made) {
                let client = TcpStream::connect_timeout(&server, Duration::from_secs(5))?;
                drop(listener.accept()?);
                drop(client);
                made += 1;
            }
            Ok(made)
        })
        .context("connecting")
}

fn stopped(lab: &Lab) -> Result<()> {
    const STOPPED: Duration = Duration::from_secs(3);
    let sensor = Sensor::start(&format!("{CONFIGURATION}coverage: {{interval: 1s}}\n"))?;
    let process = Pid::from_raw(sensor.id().cast_signed()).context("no process id")?;
    kill_process(process, Signal::STOP)?;
    let since = Instant::now();
    let made = connections(lab, |_| since.elapsed() < STOPPED);
    kill_process(process, Signal::CONT)?;
    let made = made?;
    ensure!(made > 100, "only {made} connections in {STOPPED:?}");
    let before = sensor.mark();
    // It goes on: what happens from now on is seen.
    connections(lab, |made| made < 1)?;
    sensor.wait_after(before, "an accept after the pause", |record| {
        record.is("accept", &[("net.local.port", "10250")])
    })?;
    // Two rounds of canaries, so that a false alarm would have been raised.
    sleep(Duration::from_secs(4));
    let recording = sensor.stop()?;
    let doubtful = |record: &&Record| {
        !record.at("health.blind").is_null() || record.text("health.coverage.accepts.state") == "degraded"
    };
    let doubt = recording.of_kind("health").find(doubtful);
    ensure!(doubt.is_none(), "a pause is neither blindness nor an old proof: {doubt:?}");
    // The harness has checked that produced = received + lost + suppressed; here, that the load is in it.
    let accepts = recording.last().list("health.balance").iter().find(|entry| entry["kind"] == "accept");
    let produced = accepts.and_then(|entry| entry["produced"].as_u64());
    ensure!(produced > Some(made as u64), "{made} connections, {produced:?} produced");
    Ok(())
}

/// A file system of its own, unmounted at the end.
struct Disk(PathBuf);

impl Disk {
    fn mount(place: PathBuf, size: &str) -> Result<Self> {
        fs::create_dir(&place)?;
        run(Command::new("mount").args(["-t", "tmpfs", "-o", size, "quaywatch-test"]).arg(&place))?;
        Ok(Self(place))
    }

    fn resize(&self, size: &str) -> Result<()> {
        let size = format!("remount,{size}");
        run(Command::new("mount").args(["-o", &size]).arg(&self.0)).map(drop)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The laboratory unmounts what is left below its directory.
        let _ = run(Command::new("umount").arg(&self.0));
    }
}

/// The records in a file; every line must be whole.
fn records(path: &Path) -> Result<Vec<Record>> {
    let content = fs::read_to_string(path)?;
    ensure!(content.is_empty() || content.ends_with('\n'), "the last line of {} is torn", path.display());
    let parsed: Result<Vec<Record>, String> = content.lines().map(Record::parse).collect();
    parsed.map_err(|problem| anyhow::anyhow!("a torn line: {problem}"))
}

fn wait_for(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done()? {
        ensure!(Instant::now() < deadline, "{what}: not in time");
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn full_disk(lab: &Lab) -> Result<()> {
    let disk = Disk::mount(lab.directory().join("full"), "size=32k")?;
    let path = disk.0.join("events.ndjson");
    let config = lab.directory().join("full.yaml");
    let output = format!("output: [{{type: file, path: {}}}]\n", path.display());
    fs::write(&config, format!("{CONFIGURATION}{output}"))?;
    let log = lab.directory().join("full.log");
    let mut command = sensor::command()?;
    command.arg("run").arg("--config").arg(&config).stdout(Stdio::null()).stderr(File::create(&log)?);
    let mut sensor = Process::start(&mut command)?;
    wait_for("the ready record", || Ok(path.exists() && !records(&path)?.is_empty()))?;

    // Each gives two lines of several hundred bytes, until flood control withholds the rest.
    connections(lab, |made| made < 200)?;
    wait_for("the shortage on standard error", || {
        Ok(fs::read_to_string(&log)?.contains("the output file cannot be written"))
    })?;
    ensure!(records(&path)?[0].is("health", &[("health.state", "ready")]), "the first record is lost");

    disk.resize("size=16m")?;
    connections(lab, |made| made < 5)?;
    wait_for("the loss in a health record", || {
        let of_output =
            |record: &Record| record.list("health.loss").iter().any(|loss| loss["kind"] == "output");
        Ok(records(&path)?.iter().any(of_output))
    })?;
    sensor.signal(Signal::TERM)?;
    let status = sensor.wait(Duration::from_secs(20))?;
    ensure!(status.code() == Some(0), "{status}: {}", fs::read_to_string(&log)?);
    let log = fs::read_to_string(&log)?;
    ensure!(log.contains("the output file is written again"), "{log}");

    let written = records(&path)?;
    let last = written.last().context("no record")?;
    ensure!(last.is("health", &[("health.state", "stopping")]), "the last record is {last}");
    let lost = last.list("health.loss").iter().find(|loss| loss["kind"] == "output");
    let lost = lost.and_then(|loss| loss["lost"].as_u64()).unwrap_or(0);
    ensure!(lost > 0, "the totals lack the lost lines: {last}");
    let all = written.len() as u64 + lost;
    ensure!(last.number("health.emitted") == Some(all), "{} written, {lost} lost: {last}", written.len());
    Ok(())
}

/// A number in kB from `/proc/<pid>/status`.
fn memory_kib(pid: u32, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
    Ok(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?)
}

fn descriptors(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// The directory of Docker's cgroups in the hierarchy that names the cgroup of a task.
fn docker_cgroups() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let place = |wanted: &dyn Fn(&[&str]) -> bool| {
        let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        fields
            .filter(|fields| fields.len() > 3 && wanted(fields))
            .map(|fields| PathBuf::from(fields[1]))
            .next()
    };
    place(&|fields| fields[2] == "cgroup" && fields[3].split(',').any(|option| option == "pids"))
        .or_else(|| place(&|fields| fields[2] == "cgroup2"))
        .map(|mount| mount.join("docker"))
        .context("no cgroup hierarchy")
}

fn short_lived_containers(_: &Lab) -> Result<()> {
    /// More than the sensor keeps in mind.
    const CONTAINERS: u64 = 20_000;
    /// Fewer than there is room for in the sensor's output, however slowly that is read.
    const AT_A_TIME: u64 = 5000;
    /// What the sensor may use in all.
    const MEMORY_MAX_KIB: u64 = 64 << 10;
    let sensor = Sensor::start(CONFIGURATION)?;
    let (pid, parent) = (sensor.id(), docker_cgroups()?);
    fs::create_dir_all(&parent)?;
    let before = descriptors(pid)?;
    for number in 0..CONTAINERS {
        let id = format!("{number:064x}");
        let cgroup = parent.join(&id);
        fs::create_dir(&cgroup)?;
        fs::remove_dir(&cgroup)?;
        if (number + 1).is_multiple_of(AT_A_TIME) {
            // Thousands of records to read, most of them held back for names that nobody has.
            let is_last = |record: &Record| record.is_container("stopped", &id);
            sensor.wait_within(Duration::from_secs(60), "the end of the last container", is_last)?;
        }
    }
    let (peak, now) = (memory_kib(pid, "VmHWM")?, memory_kib(pid, "VmRSS")?);
    ensure!(peak < MEMORY_MAX_KIB, "{peak} KiB at most, {now} KiB now");
    let after = descriptors(pid)?;
    ensure!(after <= before + 8, "{before} descriptors before, {after} after");
    let recording = sensor.stop()?;
    let created = recording.records.iter().filter(|record| record.text("container.action") == "created");
    let created = created.count() as u64;
    ensure!(created + recording.shed() >= CONTAINERS, "{created} of {CONTAINERS} were told");
    // More than the table holds: what was dropped from it is counted under its name.
    let evicted = recording.last().list("health.loss").iter().find(|loss| loss["kind"] == "containers");
    ensure!(evicted.and_then(|loss| loss["evicted"].as_u64()) > Some(0), "{}", recording.last());
    Ok(())
}
