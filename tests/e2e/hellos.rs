//! TLS clients are told by what they say first.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sensor_tests::dockerd::{Certificate, Dockerd, PORT};
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::netns::{CLIENT_OUTSIDE, NODE_OUTSIDE};
use sensor_tests::process::{Process, run, run_unchecked, wait_until};
use sensor_tests::record::Record;
use sensor_tests::sensor::Sensor;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("tls_clients_are_told_by_name_protocols_versions_and_fingerprint", clients),
    ("plaintext_on_a_tls_port_and_tls_on_a_plaintext_port_are_said", wrong_ports),
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

/// The hello of the next client of a service.
fn hello_after(sensor: &Sensor, mark: usize, service: &str) -> Result<Record> {
    let hello = sensor.wait_after(mark, "a hello", |record| {
        record.is("tls_hello", &[("net.service", service), ("net.peer.ip", CLIENT_OUTSIDE)])
    })?;
    ensure!(hello.is("tls_hello", &[("verdict.listed", "false")]), "{hello}");
    Ok(hello)
}

fn clients(lab: &Lab) -> Result<()> {
    let certificate = Certificate::make(lab.directory())?;
    let endpoint = format!("tcp://{NODE_OUTSIDE}:{DOCKER_TLS}");
    let _dockerd = Dockerd::start_tls(
        &lab.network.node,
        lab.directory().join("docker-tls"),
        std::slice::from_ref(&endpoint),
        &certificate,
    )?;
    let servers: Vec<Process> =
        KUBERNETES.iter().map(|(port, _)| serve(lab, &certificate, *port)).collect::<Result<_>>()?;
    let sensor = Sensor::start(CONFIGURATION)?;
    let ca = certificate.certificate.to_str().context("path is not text")?;
    let key = certificate.key.to_str().context("path is not text")?;
    let docker = [
        "docker",
        "--host",
        &endpoint,
        "--tls",
        "--tlscacert",
        ca,
        "--tlscert",
        ca,
        "--tlskey",
        key,
        "version",
    ];
    let mark = sensor.mark();
    client(lab, &docker)?;
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
    let certificate = Certificate::make(lab.directory())?;
    let endpoint = format!("tcp://{NODE_OUTSIDE}:{DOCKER_TLS}");
    let _dockerd = Dockerd::start_tls(
        &lab.network.node,
        lab.directory().join("docker-tls"),
        std::slice::from_ref(&endpoint),
        &certificate,
    )?;
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
