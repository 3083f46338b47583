//! Programs of containers on the host's side, and the many that only set containers up.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use sensor_tests::containerd::Containerd;
use sensor_tests::dockerd::IMAGE;
use sensor_tests::lab::{CONFIGURATION, Lab, cgroups};
use sensor_tests::oci::{HybridControllers, Runtime};
use sensor_tests::podman::Podman;
use sensor_tests::process::{Process, run};
use sensor_tests::record::Record;
use sensor_tests::sensor::Sensor;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("nsenter_from_a_container_into_the_host_is_an_escape", nsenter),
    ("process_of_a_container_among_those_of_the_host_is_an_escape", pid_namespace),
    ("chroot_to_the_hosts_root_is_an_escape", chroot),
    ("detours_on_the_way_out_hide_no_escape", detours),
    ("runtimes_at_work_are_no_escape", runtimes),
];

/// A process of the host whose namespaces a container may enter: it has given up what would keep others away.
fn host_process() -> Result<Process> {
    let mut sleep = Command::new("setpriv");
    sleep.args(["--bounding-set=-all", "--inh-caps=-all", "sleep", "600"]);
    Process::start(&mut sleep)
}

fn wait_for_escape(sensor: &Sensor, id: &str) -> Result<Record> {
    sensor.wait("the escape", |record| record.is("escape", &[("container.id", id)]))
}

fn nsenter(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let host = host_process()?;
    let arguments = ["run", "--detach", "--name", "climber", "--pid=host", "--cap-add=SYS_ADMIN", IMAGE];
    let id = lab.dockerd.docker(&[&arguments[..], &["/bin/sleep", "600"]].concat())?;
    let pid = host.id().to_string();
    // The file of the machine proves that it is the host's mount namespace; what runs there forks once more.
    let seen = lab.dockerd.docker(&[
        "exec",
        "climber",
        "/bin/busybox",
        "nsenter",
        "-t",
        &pid,
        "-m",
        "/bin/sh",
        "-c",
        "readlink /proc/self/ns/mnt; true",
    ])?;
    let own = std::fs::read_link("/proc/self/ns/mnt")?;
    ensure!(*seen == *own.to_string_lossy(), "{seen} is not {}", own.display());
    let escape = wait_for_escape(&sensor, &id)?;
    ensure!(escape.list("host.namespaces") == ["mnt"], "{escape}");
    ensure!(escape.is("escape", &[("host.root", "true"), ("container.name", "climber")]), "{escape}");
    ensure!(escape.args().first() == Some(&"/bin/sh"), "{escape}");
    // What it runs is still the container's, and the same escape.
    sensor.wait("what it runs", |record| {
        record.is("exec", &[("container.id", &id)]) && record.args().first() == Some(&"readlink")
    })?;
    let recording = sensor.stop()?;
    let count = recording.of_kind("escape").count();
    ensure!(count == 1, "{count} escapes");
    Ok(())
}

/// The kernel lets nobody join a pid namespace above his own. What a container can have of the host's is a process that a
/// runtime let in, or left behind, without that namespace: it is in the container's cgroup and mounts, and among the host's
/// processes.
fn pid_namespace(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let id = lab.dockerd.docker(&["run", "--detach", "--name", "visited", IMAGE, "/bin/sleep", "600"])?;
    let pid = lab.dockerd.docker(&["inspect", "--format", "{{.State.Pid}}", "visited"])?;
    let started = sensor.wait("started", |record| record.is_container("started", &id))?;
    let mut script = String::new();
    for cgroup in cgroups(started.text("container.cgroup")) {
        script += &format!("echo $$ > {}/cgroup.procs; ", cgroup.display());
    }
    script += &format!("exec nsenter -t {pid} -m /bin/sh -c '/bin/true; /bin/true'");
    run(Command::new("sh").args(["-c", &script]))?;
    let escape = wait_for_escape(&sensor, &id)?;
    ensure!(escape.list("host.namespaces") == ["pid"] && escape.at("host.root").is_null(), "{escape}");
    ensure!(escape.is("escape", &[("container.name", "visited")]), "{escape}");
    sensor.stop().map(drop)
}

fn chroot(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let arguments = ["run", "--name", "mounter", "--volume", "/:/host", IMAGE];
    lab.dockerd.docker(&[&arguments[..], &["/bin/busybox", "chroot", "/host", "/bin/true"]].concat())?;
    let id = lab.dockerd.docker(&["inspect", "--format", "{{.Id}}", "mounter"])?;
    let escape = wait_for_escape(&sensor, &id)?;
    ensure!(escape.list("host.namespaces").is_empty(), "{escape}");
    ensure!(escape.is("escape", &[("host.root", "true"), ("process.exe", "/bin/true")]), "{escape}");
    sensor.stop().map(drop)
}

/// The same ways out by others' namespaces, forks, roots and programs; each is told with both identities.
fn detours(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let host = host_process()?;
    // A service of the host with mounts of its own, as systemd gives many.
    let mut service = Command::new("unshare");
    service.args(["--mount", "setpriv", "--bounding-set=-all", "--inh-caps=-all", "sleep", "600"]);
    let service = Process::start(&mut service)?;
    let options = ["--pid=host", "--cap-add=SYS_ADMIN", "--cap-add=SYS_PTRACE", "--volume", "/:/host"];
    let arguments = [&["run", "--detach", "--name", "wanderer"], &options[..], &[IMAGE, "/bin/sleep", "600"]];
    let id = lab.dockerd.docker(&arguments.concat())?;
    sensor.wait("started", |record| record.is_container("started", &id))?;
    let (pid, other) = (host.id().to_string(), service.id().to_string());
    let enter = format!("/bin/busybox nsenter -t {pid} -m");
    let ways = [
        ("namespaces of its own first", format!("/bin/busybox unshare -m {enter} /bin/true"), &["mnt"][..]),
        ("forks", format!("( ( {enter} /bin/sh -c '( /bin/true; /bin/true )' ) & ) ; sleep 0.3"), &["mnt"]),
        ("a program of the host", format!("{enter} /bin/sh -c 'exec /bin/true'"), &["mnt"]),
        ("the root of a process", format!("/bin/busybox chroot /proc/{pid}/root /bin/true"), &[]),
        ("a root below", "cd /host && /bin/busybox chroot . /bin/true".to_owned(), &[]),
        ("mounts of a service", format!("/bin/busybox nsenter -t {other} -m /bin/true"), &[]),
    ];
    for (way, script, namespaces) in ways {
        let mark = sensor.mark();
        lab.dockerd.docker(&["exec", "wanderer", "/bin/sh", "-c", &format!("{script}; true")])?;
        let escape = sensor
            .wait_after(mark, way, |record| record.is("escape", &[("container.id", &id)]))
            .with_context(|| format!("{way}: {script}"))?;
        ensure!(escape.list("host.namespaces") == namespaces, "{way}: {escape}");
        ensure!(
            escape.is("escape", &[("host.root", "true"), ("container.name", "wanderer")]),
            "{way}: {escape}"
        );
        ensure!(escape.number("process.pid").is_some(), "{way}: {escape}");
    }
    sensor.stop().map(drop)
}

fn runtimes(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    lab.dockerd.docker(&["run", "--detach", "--name", "quiet", "--pid=host", IMAGE, "/bin/sleep", "600"])?;
    lab.dockerd.docker(&["exec", "quiet", "/bin/echo", "x"])?;
    lab.dockerd.docker(&["run", "--rm", "--volume", "/:/host", IMAGE, "/bin/cat", "/host/etc/hostname"])?;
    lab.dockerd.docker(&["rm", "--force", "quiet"])?;

    let podman = Podman::new(lab.directory(), &lab.image_archive()?)?;
    let containerd = Containerd::start(lab.directory(), &lab.image_archive()?)?;
    containerd.ctr(&["run", "--rm", containerd.image(), "quiet", "/bin/true"])?;
    let _parked = HybridControllers::park()?;
    for program in ["runc", "crun"] {
        podman.run_detached(program, program, IMAGE, &["/bin/sleep", "600"])?;
        podman.run(&["exec", program, "/bin/echo", "x"])?;
        podman.run(&["rm", "--force", "--time=0", program])?;
        Runtime::new(program, lab.directory(), lab.rootfs())?.run("quiet", &["/bin/true"])?;
    }
    // A process of the host goes where it likes.
    let host = host_process()?;
    run(Command::new("nsenter").args(["-t", &host.id().to_string(), "-m", "-p", "true"]))?;

    let recording = sensor.stop()?;
    let started =
        recording.of_kind("container").filter(|record| record.text("container.action") == "started");
    let started = started.count();
    ensure!(started >= 6, "{started} containers were started, so this shows nothing");
    let escape = recording.of_kind("escape").next();
    ensure!(escape.is_none(), "nobody escaped: {escape:?}");
    Ok(())
}
