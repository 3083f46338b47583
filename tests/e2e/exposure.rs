//! The exposure ledger: daemons on any port, who came from outside, and where published ports lead.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sensor_tests::dockerd::{Certificate, Dockerd, IMAGE, PORT};
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::netns::{CLIENT_OUTSIDE, NODE_OUTSIDE};
use sensor_tests::process::{run, wait_until};
use sensor_tests::record::Record;
use sensor_tests::sensor::{self, Sensor};
use serde_json::Value;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("dockerd_moved_to_tcp_shows_within_a_second", dockerd_moved),
    ("dockerd_on_another_port_is_told_of_with_its_peers", dockerd_elsewhere),
    ("dockerd_configured_by_its_file_says_what_it_serves_and_publishes", configured),
    ("dockerd_with_tls_in_its_file_or_arguments_says_so", with_tls),
    ("dockerd_inside_a_container_is_told_of_on_any_port", inside),
    ("published_port_that_leads_to_docker_is_followed", published),
    ("exposure_of_this_host_is_listed", host_is_listed),
];

/// A port that no configuration names.
const ELSEWHERE: u16 = 4243;

fn connect(lab: &Lab, port: u16) -> Option<TcpStream> {
    let server = SocketAddr::new(NODE_OUTSIDE.parse().expect("invariant: an address"), port);
    lab.network.client.within(|| TcpStream::connect_timeout(&server, Duration::from_secs(1))).ok()
}

/// From the unix socket to a port, to another port, and to all addresses: each move is told within a second of the kernel's
/// time, however busy the machine of the test is.
fn dockerd_moved(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let directory = lab.directory().join("moved");
    // In the client's namespace, where nothing else has the port.
    drop(Dockerd::start_bare(&lab.network.client, directory.clone(), &[])?);
    let mut told = Vec::new();
    for (host, port, scope) in [
        (format!("tcp://127.0.0.1:{PORT}"), PORT, "loopback"),
        (format!("tcp://127.0.0.1:{ELSEWHERE}"), ELSEWHERE, "loopback"),
        (format!("tcp://0.0.0.0:{PORT}"), PORT, "any"),
    ] {
        let mark = sensor.mark();
        let dockerd = Dockerd::start_bare(&lab.network.client, directory.clone(), &[host])?;
        let pid = dockerd.id().to_string();
        let of_it = |state| {
            let pid = pid.clone();
            move |record: &Record| {
                record.is("listener", &[("process.pid", &pid), ("listener.state", state)])
                    && record.number("net.local.port") == Some(port.into())
            }
        };
        let opened = sensor.wait_after(mark, "its listener", of_it("opened"))?;
        let fields = [
            ("listener.service", "docker"),
            ("listener.scope", scope),
            ("listener.tls", "plaintext"),
            ("process.comm", "dockerd"),
        ];
        ensure!(opened.is("listener", &fields), "{opened}\nhas not {fields:?}");
        if scope == "any" {
            // Go listens on all addresses of both families.
            ensure!(opened.text("net.local.ip") == "::", "{opened}");
        }
        drop(dockerd);
        let closed = sensor.wait_after(mark, "its end", of_it("closed"))?;
        told.extend([opened, closed]);
    }
    let recording = sensor.stop()?;
    for record in told {
        let index = recording.records.iter().position(|other| other.text("id") == record.text("id"));
        let read_ns = recording.read_at_ns[index.context("it was told of")?];
        let late_ns = read_ns.saturating_sub(record.number("boot_ns").context("no boot_ns")?);
        ensure!(late_ns < 1_000_000_000, "told after {late_ns} ns: {record}");
    }
    Ok(())
}

fn dockerd_elsewhere(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let hosts = [format!("tcp://{NODE_OUTSIDE}:{ELSEWHERE}")];
    let dockerd = Dockerd::start_bare(&lab.network.node, lab.directory().join("elsewhere"), &hosts)?;
    let port = ELSEWHERE.to_string();
    let state = |state| [("listener.state", state), ("net.local.port", port.as_str())];
    let opened = sensor.wait_is("listener", &state("opened"))?;
    let fields = [("listener.service", "docker"), ("listener.tls", "plaintext"), ("process.comm", "dockerd")];
    ensure!(opened.is("listener", &fields), "{opened}\nhas not {fields:?}");
    ensure!(opened.at("listener.accepts").is_null(), "nobody has connected yet: {opened}");

    let client = connect(lab, ELSEWHERE).context("dockerd does not answer there")?;
    let accept = sensor.wait_is("accept", &[("net.local.port", port.as_str())])?;
    ensure!(accept.is("accept", &[("net.service", "docker"), ("net.peer.ip", CLIENT_OUTSIDE)]), "{accept}");
    let reached = sensor.wait_is("listener", &state("changed"))?;
    let fields = [
        ("listener.accepts", "1"),
        ("listener.outside_peers", "1"),
        ("listener.first_peer.ip", CLIENT_OUTSIDE),
        ("listener.first_peer.ts", accept.text("ts")),
    ];
    ensure!(reached.is("listener", &fields), "{reached}\nhas not {fields:?}");
    drop(client);
    drop(connect(lab, ELSEWHERE));
    sensor.wait("the second accept", |record| {
        record.is("accept", &[("net.local.port", &port)]) && record.text("id") != accept.text("id")
    })?;
    drop(dockerd);
    let closed = sensor.wait_is("listener", &state("closed"))?;
    ensure!(closed.is("listener", &[("listener.accepts", "2"), ("listener.outside_peers", "1")]), "{closed}");

    let path = lab.directory().join("exposure.ndjson");
    sensor.stop()?.write(&path)?;
    ensure_reported(&path, &accept)
}

/// The recording says to `quaywatch exposure` what the records said.
fn ensure_reported(path: &std::path::Path, accept: &Record) -> Result<()> {
    let report = run(sensor::command()?.args(["exposure", "--json"]).arg(path))?;
    let report: Value = serde_json::from_str(&report)?;
    let endpoints = report["endpoints"].as_array().context("a list")?;
    let address = format!("{NODE_OUTSIDE}:{ELSEWHERE}");
    let found = endpoints.iter().find(|endpoint| endpoint["address"] == *address).context("not listed")?;
    ensure!(found["exposure"] == "closed" && found["accepts"] == 2, "{found}");
    ensure!(found["first_peer"]["ts"] == *accept.at("ts"), "{found}\nand\n{accept}");
    Ok(())
}

fn published(lab: &Lab) -> Result<()> {
    const PUBLISHED: u16 = 12375;
    let sensor = Sensor::start(CONFIGURATION)?;
    let publish = format!("{PUBLISHED}:{PORT}");
    let arguments = ["run", "--detach", "--publish", &publish, "--publish", "12380:8080", IMAGE];
    let id = lab
        .dockerd
        .docker(&[&arguments[..], &["/bin/busybox", "nc", "-ll", "-p", "2375", "-e", "/bin/cat"]].concat())?;
    let port = PUBLISHED.to_string();
    let opened = sensor.wait_is("listener", &[("net.local.port", &port), ("listener.state", "opened")])?;
    let fields = [
        ("process.comm", "docker-proxy"),
        ("listener.service", "docker"),
        ("listener.leads_to.port", "2375"),
        ("listener.leads_to.service", "docker"),
        ("listener.tls", "unknown"),
    ];
    ensure!(opened.is("listener", &fields), "{opened}\nhas not {fields:?}");
    let address = lab.dockerd.docker(&["inspect", "--format", "{{.NetworkSettings.IPAddress}}", &id])?;
    ensure!(opened.text("listener.leads_to.ip") == address, "{opened} does not lead to {address}");
    let _client = wait_until("the proxy accepts", Duration::from_secs(10), || connect(lab, PUBLISHED))?;
    let accept = sensor.wait_is("accept", &[("net.local.port", &port)])?;
    ensure!(accept.is("accept", &[("net.service", "docker"), ("net.peer.ip", CLIENT_OUTSIDE)]), "{accept}");
    let inner = sensor.wait("the other side of the proxy", |record| {
        record.is("accept", &[("container.id", &id)]) && record.number("net.local.port") == Some(PORT.into())
    })?;
    let behind = [("accept.client.peer.ip", CLIENT_OUTSIDE), ("accept.client.conn", accept.text("net.conn"))];
    ensure!(inner.is("accept", &behind), "{inner}");
    lab.dockerd.docker(&["rm", "--force", &id])?;
    sensor.wait("the end of the published port", |record| {
        record.is("listener", &[("net.local.port", &port), ("listener.state", "closed")])
    })?;
    let recording = sensor.stop()?;
    let web = recording.records.iter().find(|record| record.number("net.local.port") == Some(12380));
    ensure!(web.is_none(), "a published port that leads elsewhere is nobody's business: {web:?}");
    Ok(())
}

/// Everything is in `daemon.json`, and published ports have no proxy that would say where they lead.
fn configured(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let hosts = [format!("tcp://{NODE_OUTSIDE}:{ELSEWHERE}")];
    let directory = lab.directory().join("configured");
    let dockerd = Dockerd::start_configured(&lab.network.node, directory, lab.rootfs(), &hosts)?;
    let fields = [("listener.service", "docker"), ("listener.tls", "plaintext"), ("process.comm", "dockerd")];
    sensor.wait("what it serves", |record| {
        record.is("listener", &fields) && record.number("net.local.port") == Some(u64::from(ELSEWHERE))
    })?;
    let accept = connect(lab, ELSEWHERE).context("dockerd does not answer there")?;
    sensor.wait_is("accept", &[("net.service", "docker"), ("net.local.port", &ELSEWHERE.to_string())])?;
    drop(accept);

    let publish = format!("12377:{PORT}");
    let id = dockerd.docker(&["run", "--detach", "--publish", &publish, IMAGE, "/bin/sleep", "600"])?;
    let address = dockerd.docker(&["inspect", "--format", "{{.NetworkSettings.IPAddress}}", &id])?;
    let lead = |state| {
        let to = [("listener.leads_to.ip", address.as_str()), ("listener.leads_to.port", "2375")];
        let of = [("net.local.port", "12377"), ("listener.service", "docker"), ("listener.state", state)];
        [to, [of[0], of[1]], [of[2], ("listener.leads_to.service", "docker")]].concat()
    };
    // Docker keeps the port with a listener that takes nothing, which was there before it was known what for.
    sensor.wait("where the port leads", |record| {
        record.is("listener", &lead("changed")) || record.is("listener", &lead("opened"))
    })?;
    dockerd.docker(&["rm", "--force", &id])?;
    sensor.wait("the end of the published port", |record| {
        record.is("listener", &[("net.local.port", "12377"), ("listener.state", "closed")])
    })?;
    sensor.stop().map(drop)
}

fn with_tls(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let certificate = Certificate::make(lab.directory())?;
    let hosts = [format!("tcp://{NODE_OUTSIDE}:{ELSEWHERE}")];
    let start = |by_file: bool| {
        let directory = lab.directory().join(format!("with-tls-{by_file}"));
        let start = if by_file { Dockerd::start_tls_configured } else { Dockerd::start_tls };
        start(&lab.network.node, directory, &hosts, &certificate)
    };
    for by_file in [true, false] {
        let dockerd = start(by_file)?;
        let pid = dockerd.id().to_string();
        let fields =
            [("process.pid", pid.as_str()), ("listener.tls", "tls"), ("listener.service", "docker-tls")];
        let found = sensor.wait("what it serves", |record| record.is("listener", &fields))?;
        ensure!(found.number("net.local.port") == Some(u64::from(ELSEWHERE)), "{found}");
    }
    sensor.stop().map(drop)
}

/// A real dockerd with the programs of the host, in a network namespace of its own.
fn inside(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let host = format!("tcp://0.0.0.0:{ELSEWHERE}");
    let arguments = ["run", "--detach", "--volume=/:/host:ro", "--tmpfs=/host/tmp", IMAGE, "/bin/busybox"];
    let daemon = ["chroot", "/host", "dockerd", "--host", &host, "--tls=false", "--bridge=none"];
    let places = ["--data-root=/tmp/d", "--exec-root=/tmp/e", "--pidfile=/tmp/p", "--iptables=false"];
    let id = lab.dockerd.docker(&[&arguments[..], &daemon, &places].concat())?;
    let opened = sensor.wait("its listener", |record| {
        record.is("listener", &[("container.id", &id), ("listener.service", "docker")])
    })?;
    let fields = [("listener.tls", "plaintext"), ("listener.scope", "any"), ("listener.state", "opened")];
    ensure!(opened.is("listener", &fields), "{opened}\nhas not {fields:?}");
    ensure!(opened.number("net.local.port") == Some(u64::from(ELSEWHERE)), "{opened}");
    lab.dockerd.docker(&["rm", "--force", &id])?;
    sensor.wait("its end", |record| {
        record.is("listener", &[("container.id", &id), ("listener.state", "closed")])
    })?;
    sensor.stop().map(drop)
}

fn host_is_listed(lab: &Lab) -> Result<()> {
    let report = run(sensor::command()?.args(["exposure", "--json"]))?;
    let report: Value = serde_json::from_str(&report)?;
    ensure!(report["source"] == "host" && report["problem"].is_null(), "{report}");
    let address = format!("{NODE_OUTSIDE}:{PORT}");
    let endpoints = report["endpoints"].as_array().context("a list")?;
    let found = endpoints.iter().find(|endpoint| endpoint["address"] == *address).context("not listed")?;
    ensure!(found["process"]["pid"] == lab.dockerd.id() && found["process"]["comm"] == "dockerd", "{found}");
    for (key, expected) in
        [("exposure", "exposed"), ("service", "docker"), ("tls", "plaintext"), ("scope", "any")]
    {
        ensure!(found[key] == expected, "{key} is not {expected}: {found}");
    }
    Ok(())
}
