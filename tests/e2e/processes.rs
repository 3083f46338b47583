//! Programs run on the host: which of them are reported, and what they can do to a line.

use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use sensor_tests::dockerd::IMAGE;
use sensor_tests::lab::{CONFIGURATION, Lab, unified_cgroups};
use sensor_tests::process::Process;
use sensor_tests::record::Record;
use sensor_tests::sensor::Sensor;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("renamed_client_is_recognised_on_the_host_and_in_a_container", renamed_client),
    ("client_behind_the_loader_is_recognised_on_the_host_and_in_a_container", behind_loader),
    ("renamed_client_older_than_the_sensor_is_recognised", older_client),
    ("configured_tool_is_reported_and_other_programs_are_not", configured_tool),
    ("arguments_beyond_the_bound_are_cut_and_said", long_arguments),
    ("hostile_names_and_arguments_are_data_of_one_line", hostile_names),
    ("connects_of_a_runtime_process_of_the_host_are_reported", runtime_connects),
];

/// Most bytes of arguments in a record.
const ARGS_MAX: usize = 4096;

/// A copy of a program under another path.
fn copy(program: &str, path: &Path) -> Result<PathBuf> {
    std::fs::copy(program, path).with_context(|| format!("cannot copy {program} to {}", path.display()))?;
    Ok(path.to_owned())
}

fn run(program: &Path, arguments: &[impl AsRef<OsStr>]) -> Result<()> {
    let status = Command::new(program).args(arguments).status()?;
    ensure!(status.success(), "{} failed ({status})", program.display());
    Ok(())
}

/// The exec whose first argument after the program is this.
fn exec_with(sensor: &Sensor, argument: &str) -> Result<Record> {
    sensor.wait(&format!("exec with {argument}"), |record| {
        record.kind() == "exec" && record.args().get(1) == Some(&argument)
    })
}

fn renamed_client(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let directory = lab.directory().join("renamed");
    std::fs::create_dir_all(&directory)?;
    let hidden = copy("/usr/bin/docker", &directory.join("updater"))?;
    let socket = format!("unix://{}", lab.dockerd.socket().display());
    run(&hidden, &["--host", &socket, "version"])?;
    let is_renamed = |record: &Record, tool| {
        let fields = [("exec.role", "client"), ("process.renamed", "true"), ("process.tool", tool)];
        record.is("exec", &fields)
    };
    let on_host = sensor.wait("the renamed docker of the host", |record| is_renamed(record, "docker"))?;
    ensure!(on_host.program() == "updater" && on_host.at("container").is_null(), "{on_host}");
    ensure!(on_host.number("process.exe_file.inode") == Some(std::fs::metadata(&hidden)?.ino()), "{on_host}");

    // In a container, with the libraries of the host.
    let arguments = ["run", "--rm", "--volume", "/:/host:ro", IMAGE];
    let inside = ["/bin/busybox", "chroot", "/host", hidden.to_str().context("path is not text")?, "--help"];
    lab.dockerd.docker(&[&arguments[..], &inside].concat())?;
    let in_container = sensor.wait("the renamed docker of a container", |record| {
        is_renamed(record, "docker") && !record.at("container").is_null()
    })?;
    ensure!(in_container.program() == "updater", "{in_container}");
    // By its own name it is no news.
    lab.dockerd.docker(&["version"])?;
    let plain = sensor.wait("docker by its own name", |record| {
        record.is("exec", &[("exec.role", "client"), ("process.tool", "docker")])
            && record.program() == "docker"
    })?;
    ensure!(plain.at("process.renamed").is_null(), "{plain}");
    sensor.stop().map(drop)
}

fn behind_loader(lab: &Lab) -> Result<()> {
    // What it connects to answers late, so that it can be looked at.
    const LOADERS: [&str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    let loader = LOADERS.into_iter().find(|path| Path::new(path).exists()).context("no loader")?;
    let sensor = Sensor::start(CONFIGURATION)?;
    let directory = lab.directory().join("loaded");
    std::fs::create_dir_all(&directory)?;
    let hidden = copy("/usr/bin/docker", &directory.join("data"))?;
    let renamed_loader = copy(loader, &directory.join("worker"))?;
    let socket = format!("unix://{}", lab.dockerd.socket().display());
    let is_found = |record: &Record| {
        let fields = [("exec.role", "client"), ("process.renamed", "true"), ("process.tool", "docker")];
        record.is("exec", &fields)
    };
    for through in [Path::new(loader), &renamed_loader] {
        let mut command = Command::new(through);
        command.arg(&hidden).args(["--host", &socket, "events"]).stdout(std::process::Stdio::null());
        let client = Process::start(&mut command)?;
        let pid = u64::from(client.id());
        let found = sensor.wait("the client on the host", |record| {
            is_found(record) && record.number("process.pid") == Some(pid)
        })?;
        ensure!(found.at("container").is_null(), "{found}");
        ensure!(found.text("process.exe") == through.to_string_lossy(), "{found}");
    }
    let hidden = hidden.to_str().context("path is not text")?;
    let arguments = ["run", "--detach", "--volume", "/:/host:ro", "--volume", "/run:/host/run", IMAGE];
    let inside = ["/bin/busybox", "chroot", "/host", loader, hidden, "--host", &socket, "events"];
    let id = lab.dockerd.docker(&[&arguments[..], &inside].concat())?;
    let found = sensor
        .wait("the client in a container", |record| is_found(record) && record.text("container.id") == id)?;
    ensure!(found.args().contains(&"events"), "{found}");
    // Whatever else is started so is no client.
    run(Path::new(loader), &["/bin/true"])?;
    lab.dockerd.docker(&["rm", "--force", &id])?;
    let recording = sensor.stop()?;
    let others = recording.of_kind("exec").filter(|record| is_found(record)).count();
    ensure!(others == 3, "{others} clients were told of");
    Ok(())
}

fn older_client(lab: &Lab) -> Result<()> {
    let hidden = copy("/usr/bin/docker", &lab.directory().join("indexer"))?;
    let socket = format!("unix://{}", lab.dockerd.socket().display());
    let mut command = Command::new(&hidden);
    command.args(["--host", &socket, "events"]).stdout(std::process::Stdio::null());
    let client = Process::start(&mut command)?;
    std::fs::remove_file(&hidden)?;
    let sensor = Sensor::start(CONFIGURATION)?;
    let pid = client.id().to_string();
    let found = sensor.wait("the renamed docker", |record| {
        record.is("exec", &[("exec.role", "client"), ("process.pid", &pid), ("process.renamed", "true")])
    })?;
    ensure!(found.text("process.tool") == "docker" && found.program() == "indexer", "{found}");
    ensure!(found.list("process.exe_flags") == ["deleted"], "{found}");
    sensor.stop().map(drop)
}

fn configured_tool(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start("watch:\n  runtimes: [harbourmaster]\n")?;
    let other = copy("/bin/true", &lab.directory().join("stevedore"))?;
    run(&other, &["unwatched"])?;
    let tool = copy("/bin/true", &lab.directory().join("harbourmaster"))?;
    run(&tool, &["watched"])?;
    let exec = exec_with(&sensor, "watched")?;
    ensure!(exec.is("exec", &[("exec.role", "tool"), ("process.comm", "harbourmaster")]), "{exec}");
    ensure!(exec.text("process.exe") == tool.to_string_lossy(), "{exec}");
    let own = std::process::id();
    ensure!(exec.number("process.ppid") == Some(own.into()), "this test ran it: {exec}");
    let recording = sensor.stop()?;
    let unwatched = recording.of_kind("exec").find(|record| record.args().contains(&"unwatched"));
    ensure!(unwatched.is_none(), "a program of the host that nobody asked for: {unwatched:?}");
    Ok(())
}

fn long_arguments(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start("watch:\n  runtimes: [longshoreman]\n")?;
    let tool = copy("/bin/true", &lab.directory().join("longshoreman"))?;
    run(&tool, &["short".to_owned(), "x".repeat(1_000)])?;
    run(&tool, &["long".to_owned(), "y".repeat(3_000), "z".repeat(3_000), "unseen".to_owned()])?;
    let short = exec_with(&sensor, "short")?;
    ensure!(short.at("quality.truncated").is_null(), "everything is in it: {short}");
    ensure!(short.args()[2].len() == 1_000, "{short}");
    let long = exec_with(&sensor, "long")?;
    ensure!(long.at("quality.truncated") == true, "not all is in it: {long}");
    ensure!(long.args()[2] == "y".repeat(3_000), "{long}");
    let bytes: usize = long.args().iter().map(|argument| argument.len() + 1).sum();
    ensure!((ARGS_MAX - 1..=ARGS_MAX + 1).contains(&bytes), "{bytes} bytes of arguments: {long}");
    sensor.stop().map(drop)
}

/// Everything here is chosen by whoever attacks: the path of a program, its name, its arguments, the name of a cgroup. It
/// comes out as the values of one object per line, or the harness fails to read the line.
fn hostile_names(lab: &Lab) -> Result<()> {
    const LOOKALIKE: &str = r#""}],"verdict":{"listed":true},"x":"\"#;
    const FORGED: &str = "x\n{\"schema\":\"quaywatch/1\",\"kind\":\"finding\",\"id\":\"forged\"}\n";
    const COLOURS: &str = "\u{1b}[2J\u{1b}]0;gone\u{7}\r\u{2028}\u{202e}";
    let sensor = Sensor::start("watch:\n  runtimes: ['tool\"},{']\n")?;
    let directory = lab.directory().join("a\nb\"c\\d");
    std::fs::create_dir(&directory)?;
    let tool = copy("/bin/true", &directory.join("tool\"},{"))?;
    let invalid = OsString::from_vec(b"hostile\xff\xfe\xc3\x28\xed\xa0\x80".to_vec());
    let arguments = ["marker", LOOKALIKE, FORGED, COLOURS].map(OsString::from);
    run(&tool, &[&arguments[..], &[invalid, OsString::new()]].concat())?;

    let exec = exec_with(&sensor, "marker")?;
    ensure!(exec.text("process.exe") == tool.to_string_lossy(), "{exec}");
    ensure!(exec.text("process.comm") == "tool\"},{", "{exec}");
    let args = exec.args();
    ensure!(args[2..5] == [LOOKALIKE, FORGED, COLOURS], "{exec}");
    ensure!(args[5].starts_with("hostile\u{fffd}") && args[6..] == [""], "{exec}");
    ensure!(exec.at("verdict").is_null(), "{exec}");

    // A cgroup that is called like a container's, below one whose name looks like JSON and is not UTF-8.
    let id = "0123456789abcdef".repeat(4);
    let parent = unified_cgroups()?.join(OsStr::from_bytes(b"{\"kind\":\"finding\"}\xff\\"));
    let cgroup = parent.join(format!("docker-{id}.scope"));
    std::fs::create_dir(&parent)?;
    let made = std::fs::create_dir(&cgroup);
    let removed = made.and_then(|()| std::fs::remove_dir(&cgroup));
    std::fs::remove_dir(&parent)?;
    removed?;
    let created = sensor.wait("container created", |record| record.is_container("created", &id))?;
    let path = created.text("container.cgroup");
    ensure!(path.starts_with("/{\"kind\":\"finding\"}\u{fffd}\\/docker-"), "{created}");

    let recording = sensor.stop()?;
    ensure!(recording.of_kind("finding").next().is_none(), "a line was forged");
    Ok(())
}

fn runtime_connects(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port().to_string();
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let closed = free.local_addr()?.port().to_string();
    drop(free);
    // A client that talks to anything at all is a runtime process; one of another name is nobody's business.
    let client = copy("/usr/bin/curl", &lab.directory().join("crictl"))?;
    for program in [client.as_path(), Path::new("/usr/bin/curl")] {
        for port in [&port, &closed] {
            let url = format!("http://127.0.0.1:{port}/");
            Command::new(program).args(["--silent", "--max-time", "1", &url]).status()?;
        }
    }
    for (port, result) in [(&port, "established"), (&closed, "refused")] {
        let fields =
            [("net.peer.port", port.as_str()), ("connect.result", result), ("process.comm", "crictl")];
        let connect = sensor.wait_is("connect", &fields)?;
        ensure!(connect.is("connect", &[("net.direction", "outbound")]), "{connect}");
    }
    let recording = sensor.stop()?;
    let other = recording.of_kind("connect").find(|record| record.text("process.comm") == "curl");
    ensure!(other.is_none(), "a connect of an ordinary process of the host: {other:?}");
    Ok(())
}
