//! What containers reach of their host through files: the sockets of runtimes, and credentials.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use sensor_tests::dockerd::IMAGE;
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::netns::CLIENT_OUTSIDE;
use sensor_tests::process::{run, run_unchecked};
use sensor_tests::sensor::Sensor;
use serde_json::Value;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("container_that_uses_the_sockets_of_a_runtime_is_seen", socket_in_container),
    ("container_that_reads_its_token_is_seen", token_in_container),
    ("token_that_is_taken_from_a_workload_and_used_is_a_finding", token_taken),
    ("hooks_that_the_kernel_lacks_are_said", absent_hooks),
];

const IN_POD: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Lists the containers from one: the client of the machine, in a container that has nothing but its libraries, with the
/// socket under another name. Returns the id of the container.
pub fn run_client_inside(lab: &Lab) -> Result<String> {
    let mounts = [
        format!("{}:/hidden", lab.dockerd.socket().display()),
        "/usr/bin/docker:/docker:ro".to_owned(),
        "/lib/x86_64-linux-gnu:/lib/x86_64-linux-gnu:ro".to_owned(),
        "/lib64:/lib64:ro".to_owned(),
    ];
    let volumes = mounts.iter().flat_map(|mount| ["--volume", mount.as_str()]);
    let inside = [IMAGE, "/docker", "--host", "unix:///hidden", "ps", "--quiet", "--no-trunc"];
    let arguments: Vec<&str> = ["run", "--rm"].into_iter().chain(volumes).chain(inside).collect();
    let id = lab.dockerd.docker(&arguments)?;
    ensure!(id.len() == 64, "the container sees itself: {id}");
    Ok(id)
}

fn socket_in_container(lab: &Lab) -> Result<()> {
    let socket = lab.dockerd.socket();
    let socket = socket.to_str().context("path is not text")?;
    let sensor = Sensor::start(&format!("{CONFIGURATION}watch: {{sockets: {{{socket}: docker}}}}\n"))?;
    let id = run_client_inside(lab)?;

    let fields = [("socket.path", socket), ("socket.service", "docker")];
    let inside = sensor.wait("the connect from the container", |record| {
        record.is("socket_connect", &fields) && record.text("container.id") == id
    })?;
    ensure!(inside.is("socket_connect", &[("process.exe", "/docker"), ("process.uid", "0")]), "{inside}");
    ensure!(inside.number("socket.inode").is_some_and(|inode| inode > 0), "{inside}");
    // The administrator of this machine, who started the container.
    let outside = sensor.wait("the connect from the host", |record| {
        record.is("socket_connect", &fields) && record.at("container").is_null()
    })?;
    ensure!(outside.args().contains(&"run"), "{outside}");
    let recording = sensor.stop()?;
    let of_daemon =
        recording.of_kind("socket_connect").find(|record| record.text("process.comm") == "dockerd");
    ensure!(of_daemon.is_none(), "a daemon's own connects are no news: {of_daemon:?}");
    Ok(())
}

/// A volume as the kubelet makes it for the token of a pod.
struct Volume {
    path: PathBuf,
    /// What was made for it.
    made: PathBuf,
}

impl Volume {
    fn create() -> Result<Self> {
        let pod = format!("quaywatch-test-{}", std::process::id());
        let path = Path::new("/var/lib/kubelet/pods")
            .join(pod)
            .join("volumes/kubernetes.io~projected/kube-api-access");
        let missing = path.ancestors().take_while(|directory| !directory.exists()).last();
        let made = missing.context("the directory is there")?.to_owned();
        fs::create_dir_all(&path)?;
        let volume = Self { path, made };
        run(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&volume.path))?;
        for (name, content) in [("token", "secret"), ("ca.crt", "public")] {
            fs::write(volume.path.join(name), content)?;
        }
        Ok(volume)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = run_unchecked(Command::new("umount").arg("--lazy").arg(&self.path));
        let _ = fs::remove_dir_all(&self.made);
    }
}

fn token_in_container(lab: &Lab) -> Result<()> {
    let before = Volume::create()?;
    let sensor = Sensor::start(CONFIGURATION)?;
    let mount = format!("{}:{IN_POD}:ro", before.path.display());
    let script = format!("cat {IN_POD}/ca.crt {IN_POD}/token; sleep 0.2");
    let arguments = ["run", "--detach", "--volume", &mount, IMAGE, "/bin/sh", "-c", &script];
    let id = lab.dockerd.docker(&arguments)?;
    let read = sensor.wait("the read of the token", |record| {
        record.is("file_read", &[("container.id", &id), ("file.class", "service-account-token")])
    })?;
    ensure!(read.text("file.path") == format!("{IN_POD}/token"), "{read}");
    ensure!(read.args().first() == Some(&"cat"), "{read}");
    let recording = sensor.stop()?;
    let beside = recording.of_kind("file_read").find(|record| record.text("file.path").ends_with("ca.crt"));
    ensure!(beside.is_none(), "a certificate of an authority is no credential: {beside:?}");
    Ok(())
}

/// The workload does the very same as the intruder, and is nothing.
fn token_taken(lab: &Lab) -> Result<()> {
    const API: u16 = 6443;
    let volume = Volume::create()?;
    let server: SocketAddr = format!("{CLIENT_OUTSIDE}:{API}").parse()?;
    let listener = lab.network.client.within(|| TcpListener::bind(server))?;
    let sensor = Sensor::start(CONFIGURATION)?;
    let mount = format!("{}:{IN_POD}:ro", volume.path.display());
    // The shell itself reads: fanotify names who opened a file only while he lives.
    let use_token = format!("read -r token < {IN_POD}/token; nc -w 1 {CLIENT_OUTSIDE} {API} < /dev/null");
    let workload = format!("{use_token}; sleep 600");
    let run = ["run", "--detach", "--network", "host", "--volume", &mount, IMAGE, "/bin/sh", "-c", &workload];
    let id = lab.dockerd.docker(&run)?;
    listener.accept().context("the workload")?;
    let intruder = sensor.mark();
    lab.dockerd.docker(&["exec", "--detach", &id, "/bin/sh", "-c", &use_token])?;
    listener.accept().context("the intruder")?;
    let finding = sensor.wait_is("finding", &[("finding.analytic", "AN1547"), ("finding.state", "open")])?;
    let recording = sensor.stop()?;

    let expected = [("finding.severity", "medium"), ("finding.confidence", "inferred")];
    ensure!(finding.is("finding", &expected), "{finding}");
    ensure!(finding.list("finding.entities.containers") == [id.as_str()], "{finding}");
    ensure!(finding.list("finding.entities.targets") == [server.to_string().as_str()], "{finding}");
    let seen: Vec<bool> = finding.list("finding.stages").iter().map(|stage| stage["seen"] == true).collect();
    ensure!(seen == [true, true, false], "{finding}");
    let told_later = &recording.records[intruder..];
    for (stage, kind) in finding.list("finding.stages").iter().zip(["file_read", "connect"]) {
        let events = stage["events"].as_array().context("no events")?;
        let is_the_intruders = |event: &Value| {
            told_later.iter().any(|record| record.kind() == kind && *event == record.text("id"))
        };
        ensure!(!events.is_empty() && events.iter().all(is_the_intruders), "{finding}");
    }
    let mut signals: Vec<&str> = recording
        .of_kind("signal")
        .filter(|signal| signal.text("signal.analytic") == "AN1547")
        .map(|signal| signal.text("signal.name"))
        .collect();
    // Of the other end, which is on the same machine, and which nobody expects there.
    let server_side = "unlisted-cluster-peer";
    let expected = ["cluster-connect", "credential-read", server_side, server_side];
    signals.sort_unstable();
    ensure!(signals == expected, "{signals:?}");
    Ok(())
}

fn absent_hooks(_: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let ready =
        sensor.wait("the ready record", |record| record.is("health", &[("health.state", "ready")]))?;
    let hooks = ready.list("health.hooks");
    for hook in hooks {
        let reason = hook["reason"].as_str().unwrap_or_default();
        match hook["state"].as_str() {
            Some("attached" | "standby") => ensure!(reason.is_empty(), "{hook}"),
            _ => ensure!(reason.len() > 20, "no reason that explains: {hook}"),
        }
    }
    let attached = |programs: &[&str]| {
        hooks.iter().any(|hook| {
            hook["state"] == "attached" && programs.contains(&hook["program"].as_str().unwrap_or_default())
        })
    };
    for (capability, programs) in [
        ("runtime-sockets", &["lsm_unix_connect", "fentry_unix_connect", "unix_data_ready"][..]),
        ("credential-files", &["lsm_file_open", "fentry_file_open", "fanotify"]),
        ("accept-tasks", &["accept_task", "accept_task_of_four"]),
    ] {
        let coverage = |key: &str| ready.text(&format!("health.coverage.{capability}.{key}")).to_owned();
        let blind = coverage("state") == "blind";
        ensure!(blind != attached(programs), "{capability} is {} with {hooks:?}", coverage("state"));
        ensure!(!blind || coverage("reason").contains("/"), "no hook is named: {}", coverage("reason"));
    }
    sensor.stop().map(drop)
}
