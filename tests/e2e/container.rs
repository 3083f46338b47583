//! What containers serve and whom they call.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sensor_tests::dockerd::IMAGE;
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::netns::{CLIENT_OUTSIDE, NODE_INSIDE, NODE_OUTSIDE, Netns};
use sensor_tests::process::wait_until;
use sensor_tests::sensor::Sensor;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("listener_inside_a_container_is_the_containers", listener_inside),
    ("listener_behind_the_bridge_is_the_containers", listener_behind_bridge),
    ("refused_connect_of_a_container_is_reported", refused_connect),
    ("container_reaching_the_nodes_docker_port_is_seen_from_both_ends", lateral_connect),
    ("connects_of_host_processes_are_not_reported", host_connect),
    ("cgroup_nested_in_a_containers_belongs_to_the_container", nested_cgroup),
];

/// Sends a request from a namespace to a server that closes when it has answered, and returns the answer.
pub fn request(netns: &Netns, server: SocketAddr, text: &str) -> Result<Vec<u8>> {
    netns.within(|| {
        let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(text.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    })
}

fn socket(address: &str, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address.parse::<IpAddr>().with_context(|| address.to_owned())?, port))
}

/// Sends the request again until the server is up.
fn request_when_up(netns: &Netns, server: SocketAddr) -> Result<()> {
    wait_until("the container serves", Duration::from_secs(15), || {
        request(netns, server, "GET / HTTP/1.0\r\n\r\n").ok()
    })
    .map(drop)
}

fn listener_inside(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let id = lab.dockerd.docker(&[
        "run",
        "--detach",
        "--network=host",
        "--name",
        "server",
        IMAGE,
        "/bin/httpd",
        "-f",
        "-p",
        "6443",
    ])?;
    let opened = sensor.wait("the listener", |record| {
        record.is("listener", &[("listener.state", "opened"), ("net.local.port", "6443")])
    })?;
    let fields =
        [("container.id", id.as_str()), ("listener.service", "kube-apiserver"), ("process.comm", "httpd")];
    ensure!(opened.is("listener", &fields), "{opened}\nhas not {fields:?}");

    request_when_up(&lab.network.client, socket(NODE_OUTSIDE, 6443)?)?;
    let accept = sensor.wait_is("accept", &[("net.local.port", "6443")])?;
    let fields = [
        ("net.peer.ip", CLIENT_OUTSIDE),
        ("net.service", "kube-apiserver"),
        ("process.comm", "httpd"),
        ("verdict.listed", "false"),
    ];
    ensure!(accept.is("accept", &fields), "{accept}\nhas not {fields:?}");
    ensure!(accept.is_about(&id, Some("server"), IMAGE), "{accept}");

    lab.dockerd.docker(&["rm", "--force", "server"])?;
    let closed = sensor.wait_is("listener", &[("listener.state", "closed"), ("net.local.port", "6443")])?;
    ensure!(closed.text("container.id") == id, "{closed}");
    sensor.stop().map(drop)
}

fn listener_behind_bridge(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let id = lab.dockerd.docker(&[
        "run",
        "--detach",
        "--name",
        "bridged",
        IMAGE,
        "/bin/httpd",
        "-f",
        "-p",
        "10250",
    ])?;
    let format = "{{.NetworkSettings.IPAddress}}";
    let address = lab.dockerd.docker(&["inspect", "--format", format, "bridged"])?;
    // The client is a process of the host, in another network namespace than the listener.
    request_when_up(&lab.network.node, socket(&address, 10250)?)?;
    let accept = sensor.wait_is("accept", &[("net.local.port", "10250"), ("net.local.ip", &address)])?;
    let fields = [("container.id", id.as_str()), ("net.service", "kubelet"), ("process.comm", "httpd")];
    ensure!(accept.is("accept", &fields), "{accept}\nhas not {fields:?}");
    sensor.stop().map(drop)
}

fn refused_connect(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    // Nobody listens there; that wget fails is the point.
    let script = format!("wget -q -O /dev/null http://{NODE_INSIDE}:9/ || exit 0");
    let id = lab.dockerd.docker(&["run", "--detach", "--name", "caller", IMAGE, "/bin/sh", "-c", &script])?;
    let connect = sensor.wait("the refused connect", |record| {
        record.is("connect", &[("container.id", &id), ("connect.result", "refused")])
    })?;
    let fields = [
        ("net.direction", "outbound"),
        ("net.peer.ip", NODE_INSIDE),
        ("net.peer.port", "9"),
        ("net.service", "other"),
    ];
    ensure!(connect.is("connect", &fields), "{connect}\nhas not {fields:?}");
    ensure!(connect.is_about(&id, Some("caller"), IMAGE), "{connect}");
    ensure!(connect.number("process.pid").is_some(), "no process: {connect}");
    sensor.stop().map(drop)
}

fn lateral_connect(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let script = format!("wget -q -O - http://{NODE_INSIDE}:2375/_ping");
    let id =
        lab.dockerd.docker(&["run", "--detach", "--name", "lateral", IMAGE, "/bin/sh", "-c", &script])?;
    let of_container = |result: &'static str| {
        let id = id.clone();
        move |record: &sensor_tests::record::Record| {
            record.is(
                "connect",
                &[("container.id", &id), ("connect.result", result), ("net.peer.port", "2375")],
            )
        }
    };
    sensor.wait("the attempt", of_container("attempted"))?;
    let connect = sensor.wait("the established connect", of_container("established"))?;
    ensure!(connect.is("connect", &[("net.service", "docker"), ("net.peer.ip", NODE_INSIDE)]), "{connect}");
    let (ip, port) = (connect.text("net.local.ip"), connect.at("net.local.port").to_string());
    let accept = sensor.wait("the other end", |record| {
        record.is("accept", &[("net.peer.ip", ip), ("net.peer.port", &port)])
    })?;
    ensure!(accept.is("accept", &[("process.comm", "dockerd"), ("verdict.listed", "false")]), "{accept}");
    for conn in [connect.text("net.conn"), accept.text("net.conn")] {
        sensor.wait_is("close", &[("net.conn", conn)])?;
    }
    sensor.stop().map(drop)
}

fn host_connect(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let ping = "GET /_ping HTTP/1.0\r\n\r\n";
    request(&lab.network.client, socket(NODE_INSIDE, 2375)?, ping)?;
    let accept = sensor.wait_is("accept", &[("net.local.port", "2375")])?;
    sensor.wait_is("close", &[("net.conn", accept.text("net.conn"))])?;
    let recording = sensor.stop()?;
    let own = std::process::id();
    let connect =
        recording.of_kind("connect").find(|record| record.number("process.pid") == Some(own.into()));
    ensure!(connect.is_none(), "a connect of the host was reported: {connect:?}");
    Ok(())
}

/// A cgroup made for a test below one that a container has; removed when dropped.
struct Nested(Vec<PathBuf>);

impl Nested {
    /// Makes it in every hierarchy in which the process is in a cgroup of this path, and moves the process into it.
    fn with(pid: &str, path: &str) -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let cgroups = mounts
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(' ').skip(1);
                let (mount_point, kind) = (fields.next()?, fields.next()?);
                matches!(kind, "cgroup" | "cgroup2")
                    .then(|| Path::new(mount_point).join(path.trim_start_matches('/')))
            })
            .filter(|cgroup| cgroup.is_dir());
        let mut nested = Self(Vec::new());
        for cgroup in cgroups {
            let cgroup = cgroup.join("nested");
            std::fs::create_dir(&cgroup)?;
            nested.0.push(cgroup.clone());
            // A cpuset is empty until it is told what it has.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = std::fs::read_to_string(cgroup.with_file_name(file)) {
                    let _ = std::fs::write(cgroup.join(file), value);
                }
            }
            std::fs::write(cgroup.join("cgroup.procs"), pid)
                .with_context(|| format!("cannot move {pid} into {}", cgroup.display()))?;
        }
        Ok(nested)
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        for cgroup in &self.0 {
            // The container may be gone already, and its cgroup with it.
            let _ = std::fs::remove_dir(cgroup);
        }
    }
}

fn nested_cgroup(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    // What a container with an init system of its own does: its shell goes to a cgroup below, then starts a program.
    let script = "while [ ! -e /go ]; do /bin/sleep 0.05; done; /bin/echo nested";
    let id = lab.dockerd.docker(&["run", "--detach", "--name", "nesting", IMAGE, "/bin/sh", "-c", script])?;
    let pid = lab.dockerd.docker(&["inspect", "--format", "{{.State.Pid}}", "nesting"])?;
    let started = sensor.wait("started", |record| record.is_container("started", &id))?;
    let _nested = Nested::with(&pid, started.text("container.cgroup"))?;
    lab.dockerd.docker(&["exec", "nesting", "/bin/touch", "/go"])?;
    let exec = sensor.wait("the exec in the nested cgroup", |record| {
        record.is("exec", &[("container.id", &id)]) && record.args() == ["/bin/echo", "nested"]
    })?;
    ensure!(exec.is_about(&id, Some("nesting"), IMAGE), "{exec}");
    let recording = sensor.stop()?;
    let created = recording.records.iter().filter(|record| record.is_container("created", &id)).count();
    ensure!(created == 1, "a nested cgroup is no further container: {created} were created");
    let others =
        recording.of_kind("container").filter(|record| record.text("container.id") == "nested").count();
    ensure!(others == 0, "the nested cgroup was taken for a container");
    Ok(())
}
