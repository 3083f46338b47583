//! What is abnormal about containers, told with the first record about each.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use sensor_tests::containerd::Containerd;
use sensor_tests::dockerd::{IMAGE, TOLERANT};
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::oci::{HybridControllers, Runtime};
use sensor_tests::podman::Podman;
use sensor_tests::process::wait_until;
use sensor_tests::record::Record;
use sensor_tests::sensor::Sensor;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("default_docker_container_is_known_to_have_no_risk", default_docker),
    ("docker_run_options_are_risks", docker_options),
    ("privileged_docker_container_is_told_as_such", privileged),
    ("docker_exec_is_told_with_the_risks_of_its_process", exec),
    ("risks_of_a_container_older_than_the_sensor_are_known", older),
    ("risks_of_podman_containers_are_told", podman),
    ("overwritten_bundle_says_nothing_of_the_container_made_before", overwritten),
    ("hostile_specs_are_told_and_hold_nothing_up", hostile),
    ("a_thousand_short_lived_containers_are_complete", thousand),
    ("containers_of_managers_that_are_removed_at_their_end_are_complete", managed),
];

/// Containers of the last test.
const SHORT_LIVED: usize = 1000;
/// How long each may live at most, in nanoseconds.
const SHORT: u64 = 50_000_000;

/// The risks of the record, in its order.
fn risks(record: &Record) -> Result<Vec<&str>> {
    let list = record.at("container.risks").as_array();
    let list = list.with_context(|| format!("nothing is known of its risks: {record}"))?;
    Ok(list.iter().filter_map(|name| name.as_str()).collect())
}

fn expect(sensor: &Sensor, action: &str, id: &str, expected: &[&str]) -> Result<Record> {
    let record = sensor.wait_container(action, id)?;
    ensure!(risks(&record)? == expected, "not {expected:?}: {record}");
    Ok(record)
}

fn default_docker(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let id = lab.dockerd.docker(&["run", "--detach", IMAGE, "/bin/sleep", "600"])?;
    for action in ["created", "started"] {
        expect(&sensor, action, &id, &[])?;
    }
    sensor.stop().map(drop)
}

fn docker_options(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let socket = lab.dockerd.socket();
    let socket = socket.to_str().context("path is not text")?;
    let bind = format!("{socket}:/var/run/docker.sock:ro");
    for (name, options, expected) in [
        ("root", &["--volume=/:/host"][..], &["mount:/:rw"][..]),
        ("etc", &["--volume=/etc:/e:ro"], &["mount:/etc"]),
        ("spelled", &["--volume=//etc/.:/e:ro"], &["mount:/etc"]),
        ("socket", &["--volume", &bind], &[&format!("socket:{socket}")]),
        ("pid", &["--pid=host"], &["host-pid"]),
        ("network", &["--network=host"], &["host-net"]),
        ("user", &["--userns=host", "--uts=host"], &["host-user", "host-uts"]),
        (
            "capabilities",
            &["--cap-add=SYS_PTRACE", "--cap-add=NET_ADMIN"],
            &["cap:SYS_PTRACE", "cap:NET_ADMIN"],
        ),
        ("filter", &["--security-opt=seccomp=unconfined"], &["seccomp-off"]),
        ("rule", &["--device-cgroup-rule=b 8:* rwm"], &["device:/dev/block/8:*"]),
        ("volume", &["--volume=named:/data", "--tmpfs=/run"], &[]),
    ] {
        let arguments =
            [&["run", "--detach", "--name", name], options, &[IMAGE, "/bin/sleep", "600"]].concat();
        let id = lab.dockerd.docker(&arguments)?;
        expect(&sensor, "created", &id, expected).with_context(|| format!("{options:?}"))?;
        lab.dockerd.docker(&["rm", "--force", "--volumes", name])?;
    }
    let escape =
        ["run", "--volume=/:/host", "--name=out", IMAGE, "sh", "-c", "chroot /host /bin/true || true"];
    lab.dockerd.docker(&escape)?;
    let started = sensor.wait("the escape", |record| {
        record.is("container", &[("container.action", "started"), ("container.name", "out")])
    })?;
    ensure!(risks(&started)? == ["entrypoint-escape", "mount:/:rw"], "{started}");
    sensor.stop().map(drop)
}

fn privileged(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let id = lab.dockerd.docker(&[
        "run",
        "--detach",
        "--privileged",
        "--runtime",
        TOLERANT,
        IMAGE,
        "/bin/sleep",
        "600",
    ])?;
    let started = sensor.wait_container("started", &id)?;
    let found = risks(&started)?;
    for name in ["privileged", "cap:SYS_ADMIN", "cap:SYS_MODULE", "mount:/sys:rw", "seccomp-off"] {
        ensure!(found.contains(&name), "no {name}: {started}");
    }
    ensure!(
        !found.iter().any(|name| name.starts_with("device:")),
        "a privileged one has all devices: {started}"
    );
    sensor.stop().map(drop)
}

fn exec(lab: &Lab) -> Result<()> {
    let id = lab.dockerd.docker(&["run", "--detach", IMAGE, "/bin/sleep", "600"])?;
    let sensor = Sensor::start(CONFIGURATION)?;
    lab.dockerd.docker(&["exec", &id, "/bin/true"])?;
    let plain = sensor.wait("the plain exec", |record| record.is_container("exec", &id))?;
    ensure!(risks(&plain)?.is_empty() && plain.text("quality.enrichment") == "ok", "{plain}");
    let mark = sensor.mark();
    // There is nothing to be left for, so that it fails; that it was tried is what counts.
    lab.dockerd.docker(&["exec", &id, "sh", "-c", "chroot /proc/1/root /bin/true || true"])?;
    let escape = sensor.wait_after(mark, "the escape", |record| record.is_container("exec", &id))?;
    ensure!(risks(&escape)? == ["entrypoint-escape"], "{escape}");
    // CVE-2024-21626; a runtime that is not open to it refuses.
    let mark = sensor.mark();
    let _refused = lab.dockerd.docker(&["exec", "--workdir", "/proc/self/fd/8", &id, "/bin/true"]);
    let outside = sensor.wait_after(mark, "the way out", |record| record.is_container("exec", &id))?;
    ensure!(risks(&outside)? == ["entrypoint-escape"], "{outside}");
    let mark = sensor.mark();
    lab.dockerd.docker(&["kill", &id])?;
    let stopped = sensor.wait_after(mark, "the end", |record| record.is_container("stopped", &id))?;
    ensure!(risks(&stopped)?.is_empty(), "the container itself has none: {stopped}");
    sensor.stop().map(drop)
}

fn older(lab: &Lab) -> Result<()> {
    let id = lab.dockerd.docker(&[
        "run",
        "--detach",
        "--pid=host",
        "--volume=/root:/r",
        IMAGE,
        "/bin/sleep",
        "600",
    ])?;
    let sensor = Sensor::start(CONFIGURATION)?;
    lab.dockerd.docker(&["kill", &id])?;
    expect(&sensor, "stopped", &id, &["mount:/root:rw", "host-pid"])?;
    sensor.stop().map(drop)
}

fn podman(lab: &Lab) -> Result<()> {
    let _parked = HybridControllers::park()?;
    let podman = Podman::new(lab.directory(), &lab.image_archive()?)?;
    let sensor = Sensor::start(CONFIGURATION)?;
    for (runtime, options, expected) in [
        ("runc", &[][..], &[][..]),
        ("crun", &["--volume=/etc:/e:ro", "--uts=host"], &["mount:/etc", "host-uts"]),
    ] {
        let name = format!("risky-{runtime}");
        let id = podman.run_detached_with(runtime, &name, options, IMAGE, &["/bin/sleep", "600"])?;
        expect(&sensor, "started", &id, expected)?;
        podman.run(&["rm", "--force", "--time=0", &name])?;
    }
    sensor.stop().map(drop)
}

/// One bundle for one container after the other, as people do with plain runc.
fn overwritten(lab: &Lab) -> Result<()> {
    let mut runtime = Runtime::new("runc", lab.directory(), lab.rootfs())?;
    runtime.run_detached("first", &["/bin/sleep", "600"])?;
    // The kernel's clock for files steps.
    std::thread::sleep(std::time::Duration::from_millis(50));
    runtime.run_detached("second", &["/bin/sh", "-c", "chroot /host /bin/true || sleep 600"])?;
    let sensor = Sensor::start(CONFIGURATION)?;
    sensor.wait("the count", |record| {
        record.list("health.loss").iter().any(|loss| loss["kind"] == "container-spec")
    })?;
    for id in ["first", "second"] {
        runtime.delete(id)?;
    }
    expect(&sensor, "stopped", "second", &["entrypoint-escape", "seccomp-off"])?;
    let first = sensor.wait("the end of the first", |record| record.is_container("stopped", "first"))?;
    ensure!(first.at("container.risks").is_null(), "these are another container's: {first}");
    ensure!(first.text("quality.enrichment") == "partial", "{first}");
    sensor.stop().map(drop)
}

/// A bundle of root's is not to be trusted: it may lie where somebody else can write.
fn hostile(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    // Bundles of their own: a bundle is read again while its container is of interest.
    let runtime = |id: &str| {
        let directory = lab.directory().join(id);
        std::fs::create_dir_all(&directory)?;
        Runtime::new("runc", &directory, lab.rootfs())
    };
    let good = Runtime::config(&["/bin/true"]);
    // More than is read, and still what runc takes.
    let blanks = " ".repeat(100 << 20);
    runtime("hostile.long")?.run_config("hostile.long", &good.replacen('{', &format!("{{{blanks}"), 1))?;
    let twice = good.replacen("\"process\"", "\"process\":{},\"process\"", 1);
    runtime("hostile.twice")?.run_config("hostile.twice", &twice)?;
    for id in ["hostile.long", "hostile.twice"] {
        let stopped = sensor.wait("the end", |record| record.is_container("stopped", id))?;
        ensure!(stopped.at("container.risks").is_null(), "{stopped}");
        ensure!(stopped.text("quality.enrichment") == "partial", "{stopped}");
    }
    // The next one is told all the same, and in time.
    runtime("harmless")?.run("harmless", &["/bin/true"])?;
    expect(&sensor, "stopped", "harmless", &["seccomp-off"])?;
    sensor.wait("the count", |record| {
        record.list("health.loss").iter().any(|loss| loss["kind"] == "container-spec")
    })?;
    sensor.stop().map(drop)
}

/// Container records with this action, by container.
fn of<'a>(records: &'a [Record], action: &str) -> BTreeMap<&'a str, &'a Record> {
    let records = records.iter().filter(|record| record.is("container", &[("container.action", action)]));
    records.map(|record| (record.text("container.id"), record)).collect()
}

fn thousand(lab: &Lab) -> Result<()> {
    const ROUND: usize = 250;
    let sensor = Sensor::start(CONFIGURATION)?;
    let mut runtime = Runtime::new("runc", lab.directory(), lab.rootfs())?;
    let mut ids: Vec<String> = Vec::new();
    // A busy machine takes longer than that over some of them: those do not count.
    while short_lived(&sensor.records()) < SHORT_LIVED {
        ensure!(ids.len() < 4 * SHORT_LIVED, "{} of {}", short_lived(&sensor.records()), ids.len());
        for _ in 0..ROUND {
            let id = format!("short.{}", ids.len());
            runtime.run(&id, &["/bin/true"])?;
            ids.push(id);
        }
        let last = ids.last().context("there are some")?;
        sensor.wait("the end of the last", |record| record.is_container("stopped", last))?;
    }
    let recording = sensor.stop()?;
    let (started, enriched) = (of(&recording.records, "started"), of(&recording.records, "enriched"));
    for id in &ids {
        let find = |records: &BTreeMap<&str, &Record>| -> Result<Record> {
            let record = records.get(id.as_str()).with_context(|| format!("{id} is missing"))?;
            Ok((*record).clone())
        };
        let start = find(&started)?;
        // On a busy machine the files may be read after the record went out, which is amended then.
        let whole = if start.text("quality.enrichment") == "ok" { start } else { find(&enriched)? };
        ensure!(whole.text("container.image") == IMAGE, "no image: {whole}");
        ensure!(risks(&whole)? == ["seccomp-off"], "{whole}");
    }
    println!("{} containers, {} were amended", ids.len(), enriched.len());
    Ok(())
}

/// Containers that did not live longer than [`SHORT`].
fn short_lived(records: &[Record]) -> usize {
    let (started, stopped) = (of(records, "started"), of(records, "stopped"));
    let times = stopped
        .iter()
        .filter_map(|(id, end)| end.number("boot_ns")?.checked_sub(started.get(id)?.number("boot_ns")?));
    times.filter(|lived| *lived < SHORT).count()
}

/// Containers that their manager removes when they end, of three managers at a time.
fn managed(lab: &Lab) -> Result<()> {
    const EACH: usize = 12;
    let podman = Podman::new(lab.directory(), &lab.image_archive()?)?;
    let containerd = Containerd::start(lab.directory(), &lab.image_archive()?)?;
    let sensor = Sensor::start(CONFIGURATION)?;
    std::thread::scope(|scope| {
        let docker = scope.spawn(|| {
            (0..EACH).try_for_each(|_| {
                let arguments = ["run", "--rm", "--network=none", IMAGE, "/bin/true"];
                lab.dockerd.docker(&arguments).map(drop)
            })
        });
        let ctr = scope.spawn(|| {
            (0..EACH).try_for_each(|number| {
                let id = format!("brief.{number}");
                containerd.ctr(&["run", "--rm", containerd.image(), &id, "/bin/true"]).map(drop)
            })
        });
        let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];
        let podman = scope.spawn(move || {
            (0..EACH).try_for_each(|_| {
                let arguments = ["--runtime=runc", "run", "--rm", "--network=none"];
                podman.run(&[&arguments[..], &limits, &[IMAGE, "/bin/true"]].concat()).map(drop)
            })
        });
        [docker, ctr, podman].into_iter().try_for_each(|thread| thread.join().expect("a thread panicked"))
    })?;
    let of_runtime = |records: &[Record], action, runtime: &str| {
        let of_it =
            of(records, action).into_iter().filter(|(_, step)| step.text("container.runtime") == runtime);
        of_it.map(|(id, step)| (id.to_owned(), step.clone())).collect::<BTreeMap<String, Record>>()
    };
    let managers = ["docker", "containerd", "podman"];
    let ends =
        || managers.iter().all(|runtime| of_runtime(&sensor.records(), "removed", runtime).len() >= EACH);
    wait_until("all are gone", std::time::Duration::from_secs(20), || ends().then_some(()))?;
    let records = sensor.stop()?.records;
    for runtime in managers {
        let started = of_runtime(&records, "started", runtime);
        let amended = of_runtime(&records, "enriched", runtime);
        ensure!(started.len() == EACH, "{} of {runtime} were started", started.len());
        for (id, start) in &started {
            let is_whole = start.text("quality.enrichment") == "ok";
            let whole = if is_whole {
                start
            } else {
                amended.get(id).with_context(|| format!("partial: {start}"))?
            };
            ensure!(whole.text("container.image") == IMAGE, "no image: {whole}");
            ensure!(
                whole.text("quality.enrichment") == "ok" && !whole.at("container.risks").is_null(),
                "{whole}"
            );
            ensure!(runtime == "containerd" || id.len() == 64, "not a whole id: {whole}");
        }
        println!("{runtime}: {} of {} were amended", amended.len(), started.len());
    }
    Ok(())
}
