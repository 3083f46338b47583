//! TLS clients are told by what they say first.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sensor_tests::dockerd::{Certificate, Dockerd, IMAGE, PORT};
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::netns::{CLIENT_OUTSIDE, NODE_OUTSIDE};
use sensor_tests::process::{Process, run, run_unchecked, wait_until};
use sensor_tests::record::Record;
use sensor_tests::sensor::Sensor;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("tls_clients_are_told_by_name_protocols_versions_and_fingerprint", clients),
    ("plaintext_on_a_tls_port_and_tls_on_a_plaintext_port_are_said", wrong_ports),
    ("what_is_asked_for_over_tls_is_inferred_and_all_candidates_are_named", inferred),
];

const DOCKER_TLS: u16 = 2376;
/// Ports on which `openssl s_server` stands for the API server and the kubelet.
const KUBERNETES: [(u16, &str); 2] = [(6443, "kube-apiserver"), (10250, "kubelet")];
/// What kubectl 1.32 says first, and its fingerprint.
const KUBECTL: &[u8] = include_bytes!("../fixtures/tls/kubectl-1.32.hello");
const KUBECTL_JA4: &str = "t13d1311h2_f57a46bbacb6_e7c285222651";
/// Longest wait for a server to listen, or to answer.
const PATIENCE: Duration = Duration::from_secs(10);

fn serve(lab: &Lab, certificate: &Certificate, port: u16) -> Result<Process> {
    let mut server = lab.network.node.command("openssl");
    server.args(["s_server", "-quiet", "-www", "-accept", &port.to_string(), "-cert"]);
    server.arg(&certificate.certificate).arg("-key").arg(&certificate.key);
    server.stdin(Stdio::null()).stdout(Stdio::null());
    let server = Process::start(server.stderr(File::create(lab.directory().join("s_server"))?))?;
    let probe = SocketAddr::new(NODE_OUTSIDE.parse()?, port);
    wait_until("the server listens", PATIENCE, || {
        lab.network.client.within(|| TcpStream::connect(probe)).ok()
    })?;
    Ok(server)
}

fn client(lab: &Lab, command: &[&str]) -> Result<()> {
    let (program, arguments) = command.split_first().context("no program")?;
    // That the server's certificate is nobody's does not matter: the hello is what counts.
    run_unchecked(lab.network.client.command(program).args(arguments).stdin(Stdio::null())).map(drop)
}

fn endpoint_over_tls() -> String {
    format!("tcp://{NODE_OUTSIDE}:{DOCKER_TLS}")
}

/// `docker` in the client's network namespace.
fn docker_over_tls(lab: &Lab, certificate: &Certificate) -> Command {
    let mut docker = lab.network.client.command("docker");
    docker.args(["--host", &endpoint_over_tls(), "--tls", "--tlscacert"]).arg(&certificate.certificate);
    docker.arg("--tlscert").arg(&certificate.certificate).arg("--tlskey").arg(&certificate.key);
    docker.stdin(Stdio::null());
    docker
}

/// The hello of the next client of a service.
fn hello_after(sensor: &Sensor, mark: usize, service: &str) -> Result<Record> {
    let hello = sensor.wait_after(mark, "a hello", |record| {
        record.is("tls_hello", &[("net.service", service), ("net.peer.ip", CLIENT_OUTSIDE)])
    })?;
    ensure!(hello.is("tls_hello", &[("verdict.listed", "false")]), "{hello}");
    Ok(hello)
}

/// A dockerd that asks for TLS, and its certificate.
fn dockerd_over_tls(lab: &Lab) -> Result<(Dockerd, Certificate)> {
    let certificate = Certificate::make(lab.directory())?;
    let directory = lab.directory().join("docker-tls");
    let dockerd = Dockerd::start_tls(&lab.network.node, directory, &[endpoint_over_tls()], &certificate)?;
    Ok((dockerd, certificate))
}

fn clients(lab: &Lab) -> Result<()> {
    let (_dockerd, certificate) = dockerd_over_tls(lab)?;
    let servers: Vec<Process> =
        KUBERNETES.iter().map(|(port, _)| serve(lab, &certificate, *port)).collect::<Result<_>>()?;
    let sensor = Sensor::start(CONFIGURATION)?;
    let mark = sensor.mark();
    run(docker_over_tls(lab, &certificate).arg("version"))?;
    let first = hello_after(&sensor, mark, "docker-tls")?;
    ensure!(first.text("process.comm") == "dockerd" && first.text("tls.stack") == "first", "{first}");
    let mut of_tools = vec![first.text("tls.ja4").to_owned()];

    let python = "import ssl, socket, sys\n\
        ssl._create_unverified_context().wrap_socket(\n\
        socket.create_connection((sys.argv[1], int(sys.argv[2]))), server_hostname='api.example')";
    for (port, service) in KUBERNETES {
        let (port, address) = (port.to_string(), format!("{NODE_OUTSIDE}:{port}"));
        let resolve = format!("api.example:{port}:{NODE_OUTSIDE}");
        let url = format!("https://api.example:{port}/");
        let tools: [&[&str]; 3] = [
            &["curl", "--silent", "--insecure", "--max-time", "5", "--resolve", &resolve, &url],
            &["openssl", "s_client", "-connect", &address, "-servername", "api.example", "-alpn", "h2"],
            &["/usr/bin/python3", "-c", python, NODE_OUTSIDE, &port],
        ];
        for (index, tool) in tools.into_iter().enumerate() {
            let mark = sensor.mark();
            client(lab, tool)?;
            let hello = hello_after(&sensor, mark, service)?;
            ensure!(hello.text("tls.sni") == "api.example", "{}: {hello}", tool[0]);
            ensure!(hello.list("tls.versions").iter().any(|version| version == "1.3"), "{hello}");
            let offers_h2 = hello.list("tls.alpn").iter().any(|protocol| protocol == "h2");
            ensure!(offers_h2 == (index < 2), "{}: {hello}", tool[0]);
            // On the first port each is new behind a known address, on the second one it is known.
            let fingerprint = hello.text("tls.ja4").to_owned();
            ensure!(fingerprint.starts_with("t13d"), "{hello}");
            let is_known = of_tools.contains(&fingerprint);
            ensure!(hello.text("tls.stack") == if is_known { "known" } else { "new" }, "{hello}");
            if !is_known {
                of_tools.push(fingerprint);
            }
        }
    }
    ensure!(of_tools.len() == 4, "docker, curl, openssl and Python look alike: {of_tools:?}");

    // The server waits for all of it, however small its parts.
    let mark = sensor.mark();
    let server = SocketAddr::new(NODE_OUTSIDE.parse()?, KUBERNETES[0].0);
    let mut stream = lab.network.client.within(|| TcpStream::connect(server))?;
    stream.set_nodelay(true)?;
    for part in KUBECTL.chunks(29) {
        stream.write_all(part)?;
    }
    let hello = hello_after(&sensor, mark, "kube-apiserver")?;
    ensure!(hello.text("tls.ja4") == KUBECTL_JA4 && hello.text("tls.sni") == "localhost", "{hello}");
    stream.set_read_timeout(Some(PATIENCE))?;
    ensure!(stream.read(&mut [0; 16])? > 0, "the server takes it for a hello, too");
    drop(servers);
    sensor.stop().map(drop)
}

fn wrong_ports(lab: &Lab) -> Result<()> {
    let (_dockerd, _) = dockerd_over_tls(lab)?;
    let sensor = Sensor::start(CONFIGURATION)?;
    run(lab
        .network
        .client
        .command("curl")
        .args(["--silent", &format!("http://{NODE_OUTSIDE}:{DOCKER_TLS}/info")]))?;
    let request = sensor.wait("plaintext on the TLS port", |record| {
        record
            .is("api_request", &[("net.service", "docker-tls"), ("api.path", "/info"), ("api.method", "GET")])
    })?;
    ensure!(request.text("api.user_agent").starts_with("curl/"), "{request}");
    let mark = sensor.mark();
    client(lab, &["openssl", "s_client", "-connect", &format!("{NODE_OUTSIDE}:{PORT}"), "-noservername"])?;
    let hello = hello_after(&sensor, mark, "docker")?;
    ensure!(hello.at("tls.sni").is_null() && hello.text("tls.ja4").starts_with("t13i"), "{hello}");
    sensor.stop().map(drop)
}

fn inferred(lab: &Lab) -> Result<()> {
    let (dockerd, certificate) = dockerd_over_tls(lab)?;
    let image = lab.directory().join("image.tar");
    lab.dockerd.save_image(&image)?;
    dockerd.docker(&["load", "--input", image.to_str().context("path is not text")?])?;
    let sensor = Sensor::start(CONFIGURATION)?;
    let start = || {
        let mut docker = docker_over_tls(lab, &certificate);
        run(docker.args(["run", "--detach", "--network", "none", IMAGE, "/bin/sleep", "600"]))
    };
    let step = |id: &str, action| sensor.wait(action, |record| record.is_container(action, id.trim()));

    // A connection that says nothing did not ask for it.
    let _silent = lab.network.client.within(|| TcpStream::connect((NODE_OUTSIDE, PORT)))?;
    let first = start()?;
    for action in ["created", "started"] {
        // The client has one connection to make the container, another to wait for its end.
        let step = step(&first, action)?;
        ensure!(step.text("origin.class") == "inferred" && step.at("origin.request").is_null(), "{step}");
        ensure!(step.list("origin.candidates").len() == 2, "{step}");
        for conn in step.list("origin.candidates") {
            sensor.wait("its hello", |record| {
                let of_client = [("net.service", "docker-tls"), ("net.peer.ip", CLIENT_OUTSIDE)];
                record.is("tls_hello", &of_client) && record.text("net.conn") == conn
            })?;
        }
    }

    let mut other = docker_over_tls(lab, &certificate);
    let mark = sensor.mark();
    let _other = Process::start(other.arg("events").stdout(Stdio::null()))?;
    let watcher = hello_after(&sensor, mark, "docker-tls")?;
    let step = step(&start()?, "started")?;
    let candidates = step.list("origin.candidates");
    ensure!(step.text("origin.class") == "inferred" && step.at("origin.conn").is_null(), "{step}");
    ensure!(candidates.iter().any(|conn| *conn == watcher.text("net.conn")), "{step}");
    sensor.stop().map(drop)
}
