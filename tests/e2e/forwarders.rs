//! Programs of the host that pass connections on to the Docker API: who is behind them stays known.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sensor_tests::dockerd::{IMAGE, PORT, TOLERANT};
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::netns::{CLIENT_OUTSIDE, NODE_INSIDE, NODE_OUTSIDE};
use sensor_tests::process::{Process, run, wait_until};
use sensor_tests::sensor::Sensor;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("who_is_behind_socat_is_told_and_held_responsible", socat),
    ("who_is_behind_socat_in_front_of_a_socket_is_told_and_held_responsible", socket),
    ("who_is_behind_a_tunnel_of_ssh_is_told_and_held_responsible", ssh),
    ("who_is_behind_socat_cannot_hide_by_his_port", watched_port),
    ("a_program_with_connections_of_its_own_passes_nothing_on", own_connections),
    ("a_program_with_connections_of_several_names_none_of_them", several_connections),
];

/// A port of the node that nobody watches.
const ELSEWHERE: u16 = 9_999;
const SSH: u16 = 2_222;
const PATIENCE: Duration = Duration::from_secs(10);

/// What the forwarders lead to: an address from which everybody is listed, as the forwarder is by itself.
fn docker() -> String {
    format!("{NODE_INSIDE}:{PORT}")
}

fn socat(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let _socat = forward(lab, &format!("TCP:{}", docker()))?;
    attack(lab, &sensor, &format!("tcp://{NODE_OUTSIDE}:{ELSEWHERE}"))?;
    check_accept(&sensor)?;
    sensor.stop().map(drop)
}

fn socket(lab: &Lab) -> Result<()> {
    let socket = lab.dockerd.socket();
    let sensor =
        Sensor::start(&format!("{CONFIGURATION}watch: {{sockets: {{{}: docker}}}}\n", socket.display()))?;
    let _socat = forward(lab, &format!("UNIX-CONNECT:{}", socket.display()))?;
    attack(lab, &sensor, &format!("tcp://{NODE_OUTSIDE}:{ELSEWHERE}"))?;
    sensor.stop().map(drop)
}

/// The port of the far end is its own choice, and may be a watched one.
fn watched_port(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let _socat = forward(lab, &format!("TCP:{}", docker()))?;
    let script = format!(
        "import socket\n\
         far = socket.create_connection(('{NODE_OUTSIDE}', {ELSEWHERE}), source_address=('{CLIENT_OUTSIDE}', {PORT}))\n\
         far.sendall(b'GET /_ping HTTP/1.0\\r\\n\\r\\n')\n\
         print(far.recv(100))\n"
    );
    run(lab.network.client.command("python3").args(["-c", &script]))?;
    let port = PORT.to_string();
    let from = [("api.client.peer.ip", CLIENT_OUTSIDE), ("api.client.peer.port", &*port)];
    let request = sensor.wait_is("api_request", &from)?;
    ensure!(request.at("verdict.listed") == false, "judged by its last hop: {request}");
    sensor.stop().map(drop)
}

/// Passes on what comes to a port that nobody watches.
fn forward(lab: &Lab, to: &str) -> Result<Process> {
    let mut socat = lab.network.node.command("socat");
    let listen = format!("TCP-LISTEN:{ELSEWHERE},bind={NODE_OUTSIDE},reuseaddr,fork");
    let socat = Process::start(socat.arg(listen).arg(to))?;
    answers(lab, ELSEWHERE)?;
    Ok(socat)
}

fn ssh(lab: &Lab) -> Result<()> {
    let directory = lab.directory().join("ssh");
    std::fs::create_dir(&directory)?;
    let [host, user] = ["host", "user"].map(|name| directory.join(name));
    for key in [&host, &user] {
        run(Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(key))?;
    }
    let public = run(Command::new("dropbearkey").args(["-y", "-f"]).arg(&user))?;
    let public = public.lines().find(|line| line.starts_with("ssh-")).context("no public key")?;
    let authorized = directory.join("authorized_keys");
    std::fs::write(&authorized, format!("{public}\n"))?;
    // It reads the keys of the user's own directory, which is another one in its mount namespace only.
    let script = format!(
        "mount -t tmpfs -o mode=700 tmpfs /root && mkdir -m 700 /root/.ssh && install -m 600 {} /root/.ssh/authorized_keys \
         && exec dropbear -F -s -p {NODE_OUTSIDE}:{SSH} -r {} -P {}",
        authorized.display(),
        host.display(),
        directory.join("pid").display(),
    );
    let mut server = lab.network.node.command("unshare");
    let _server = Process::start(server.args(["--mount", "sh", "-c", &script]))?;
    answers(lab, SSH)?;

    let sensor = Sensor::start(CONFIGURATION)?;
    let mut client = lab.network.client.command("dbclient");
    client.args(["-y", "-y", "-N", "-L", &format!("127.0.0.1:{ELSEWHERE}:{}", docker()), "-i"]).arg(&user);
    let _client = Process::start(client.args(["-p", &SSH.to_string(), &format!("root@{NODE_OUTSIDE}")]))?;
    wait_until("the tunnel", PATIENCE, || {
        lab.network.client.within(|| TcpStream::connect(("127.0.0.1", ELSEWHERE))).ok()
    })?;
    attack(lab, &sensor, &format!("tcp://127.0.0.1:{ELSEWHERE}"))?;
    check_accept(&sensor)?;
    sensor.stop().map(drop)
}

/// Somebody unexpected starts a privileged container through a forwarder, which itself is expected.
fn attack(lab: &Lab, sensor: &Sensor, endpoint: &str) -> Result<()> {
    let mut docker = lab.network.client.command("docker");
    docker.env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT").args(["--host", endpoint]);
    docker.args(["run", "--detach", "--privileged", "--runtime", TOLERANT, IMAGE, "/bin/sleep", "600"]);
    let id = run(&mut docker)?;
    let create = [("api.client.peer.ip", CLIENT_OUTSIDE), ("api.class", "create")];
    let request = sensor.wait_is("api_request", &create)?;
    ensure!(request.at("verdict.listed") == false, "judged by its last hop: {request}");
    let finding =
        sensor.wait_is("finding", &[("finding.analytic", "AN1007"), ("finding.severity", "high")])?;
    let expected = [("finding.entities.peer", CLIENT_OUTSIDE), ("finding.confidence", "proved")];
    ensure!(finding.is("finding", &expected), "{finding}");
    ensure!(finding.list("finding.entities.containers") == [id.as_str()], "{finding}");
    Ok(())
}

fn check_accept(sensor: &Sensor) -> Result<()> {
    let accept = sensor.wait_is("accept", &[("accept.client.peer.ip", CLIENT_OUTSIDE)])?;
    ensure!(accept.at("verdict.listed") == false, "judged by its last hop: {accept}");
    ensure!(accept.text("net.peer.ip") == NODE_INSIDE, "{accept}");
    Ok(())
}

/// As an agent of a CI system that holds a connection to its server, and uses Docker for itself.
fn own_connections(lab: &Lab) -> Result<()> {
    /// As high as the ports that the kernel chooses.
    const SERVER: u16 = 50_051;
    let sensor = Sensor::start(CONFIGURATION)?;
    let mut server = lab.network.client.command("socat");
    let _server =
        Process::start(server.arg(format!("TCP-LISTEN:{SERVER},reuseaddr,fork")).arg("SYSTEM:sleep 30"))?;
    let script = format!(
        "import socket,time\n\
         for _ in range(100):\n\
         \x20   try: held = socket.create_connection(('{CLIENT_OUTSIDE}', {SERVER})); break\n\
         \x20   except OSError: time.sleep(0.1)\n\
         docker = socket.create_connection(('{NODE_INSIDE}', {PORT}))\n\
         docker.sendall(b'GET /_ping HTTP/1.0\\r\\n\\r\\n')\n\
         print(docker.recv(100))\n\
         held.close()\n"
    );
    run(lab.network.node.command("python3").args(["-c", &script]))?;
    names_nobody(sensor)
}

/// As a proxy that keeps connections: which of them its own one is for only it knows.
fn several_connections(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let script = format!(
        "import socket\n\
         server = socket.create_server(('{NODE_OUTSIDE}', {ELSEWHERE}))\n\
         held = [server.accept(), server.accept()]\n\
         docker = socket.create_connection(('{NODE_INSIDE}', {PORT}))\n\
         docker.sendall(b'GET /_ping HTTP/1.0\\r\\n\\r\\n')\n\
         print(docker.recv(100))\n"
    );
    let _server = Process::start(lab.network.node.command("python3").args(["-c", &script]))?;
    let server = SocketAddr::new(NODE_OUTSIDE.parse::<IpAddr>()?, ELSEWHERE);
    let connect = || lab.network.client.within(|| TcpStream::connect(server)).ok();
    let _held = [wait_until("the proxy", PATIENCE, connect)?, wait_until("the proxy", PATIENCE, connect)?];
    names_nobody(sensor)
}

/// Waits for the request from the node itself, and demands that it is nobody else's.
fn names_nobody(sensor: Sensor) -> Result<()> {
    let request = sensor.wait_is("api_request", &[("api.path", "/_ping"), ("net.peer.ip", NODE_INSIDE)])?;
    ensure!(request.at("api.client").is_null(), "nobody is behind it: {request}");
    ensure!(request.at("verdict.listed") == true, "{request}");
    let recording = sensor.stop()?;
    let told = recording.of_kind("accept").find(|record| !record.at("accept.client").is_null());
    ensure!(told.is_none(), "nobody is behind it: {told:?}");
    Ok(())
}

fn answers(lab: &Lab, port: u16) -> Result<()> {
    let address = SocketAddr::new(NODE_OUTSIDE.parse::<IpAddr>()?, port);
    wait_until("the forwarder", PATIENCE, || lab.network.client.within(|| TcpStream::connect(address)).ok())?;
    Ok(())
}
