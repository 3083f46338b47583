//! What scanners do is one record for each time they do it.

use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sensor_tests::dockerd::IMAGE;
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::netns::{CLIENT_OUTSIDE, NODE_OUTSIDE};
use sensor_tests::process::run;
use sensor_tests::record::Record;
use sensor_tests::sensor::{Recording, Sensor};

use crate::Test;

pub const TESTS: &[Test] = &[
    ("scanners_that_do_not_complete_connections_are_one_summary_each", half_scans),
    ("connections_without_data_to_all_endpoints_are_one_summary", empty_connections),
    ("a_peer_that_tries_every_endpoint_is_one_summary", every_endpoint),
    ("a_version_scan_of_docker_is_a_request", version_scan),
    ("a_container_that_sweeps_others_is_one_summary", sweep),
];

/// All that nmap needs not to ask anybody else.
const NMAP: [&str; 3] = ["nmap", "-Pn", "-n"];
/// Every watched port that dockerd does not serve.
const OTHER_PORTS: [u16; 3] = [2376, 6443, 10250];
const ALL_PORTS: &str = "2375,2376,6443,10250";
/// How long a server of the tests waits for data.
const PATIENCE: Duration = Duration::from_secs(1);

fn client(lab: &Lab, command: &[&str]) -> Result<()> {
    let (program, arguments) = command.split_first().context("no program")?;
    run(lab.network.client.command(program).args(arguments)).map(drop)
}

fn is_scan(record: &Record, shape: &str) -> bool {
    let by_client = [("scan.shape", shape), ("net.peer.ip", CLIENT_OUTSIDE), ("net.direction", "inbound")];
    record.is("scan", &by_client)
}

/// The one scan record of a recording.
fn only_scan(recording: &Recording) -> Result<&Record> {
    let scans: Vec<&Record> = recording.of_kind("scan").collect();
    ensure!(scans.len() == 1, "not one summary: {scans:#?}");
    Ok(scans[0])
}

fn counts(scan: &Record) -> [Option<u64>; 3] {
    ["scan.targets", "scan.count", "scan.suppressed"].map(|path| scan.number(path))
}

fn half_scans(lab: &Lab) -> Result<()> {
    let link = run(lab.network.node.command("ip").args(["-oneline", "link", "show", "uplink"]))?;
    let mac = link.split_once("link/ether ").and_then(|(_, rest)| rest.split(' ').next());
    let mac = mac.with_context(|| format!("no link-layer address: {link}"))?;
    let scanners: [&[&str]; 3] = [
        &[NMAP[0], NMAP[1], NMAP[2], "-sS", "-p", "2375", NODE_OUTSIDE],
        &[
            "masscan",
            NODE_OUTSIDE,
            "--ports",
            "2375",
            "--rate",
            "100",
            "--wait",
            "1",
            "--interface",
            "uplink",
            "--source-ip",
            CLIENT_OUTSIDE,
            "--router-mac",
            mac,
        ],
        &[
            "zmap",
            "--target-port",
            "2375",
            "--interface",
            "uplink",
            "--source-ip",
            CLIENT_OUTSIDE,
            "--gateway-mac",
            mac,
            "--blacklist-file",
            "/dev/null",
            "--cooldown-time",
            "1",
            NODE_OUTSIDE,
        ],
    ];
    for scanner in scanners {
        let sensor = Sensor::start(CONFIGURATION)?;
        client(lab, scanner)?;
        sensor.wait(scanner[0], |record| is_scan(record, "half-open"))?;
        let recording = sensor.stop()?;
        let scan = only_scan(&recording)?;
        ensure!(counts(scan) == [Some(1), Some(1), Some(0)], "{}: {scan}", scanner[0]);
        ensure!(recording.of_kind("accept").next().is_none(), "{} completed a connection", scanner[0]);
    }
    Ok(())
}

/// Servers on the other ports, which read once from each connection and end it.
struct Servers(Vec<std::thread::JoinHandle<()>>);

impl Servers {
    fn start(lab: &Lab, connections: usize) -> Result<Self> {
        let serve = |port| {
            let listener = lab.network.node.within(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
            Ok(std::thread::spawn(move || {
                for mut stream in listener.incoming().take(connections).flatten() {
                    // Whatever comes, or does not.
                    let _ = stream.set_read_timeout(Some(PATIENCE));
                    let _ = stream.read(&mut [0; 512]);
                }
            }))
        };
        OTHER_PORTS.into_iter().map(serve).collect::<Result<_>>().map(Self)
    }

    fn finish(self) -> Result<()> {
        for server in self.0 {
            server.join().map_err(|_| anyhow::anyhow!("a server failed"))?;
        }
        Ok(())
    }
}

fn empty_connections(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let servers = Servers::start(lab, 1)?;
    client(lab, &[NMAP[0], NMAP[1], NMAP[2], "-sT", "-p", ALL_PORTS, NODE_OUTSIDE])?;
    servers.finish()?;
    sensor.wait("the summary", |record| is_scan(record, "no-data"))?;
    let recording = sensor.stop()?;
    let scan = only_scan(&recording)?;
    ensure!(counts(scan) == [Some(4), Some(4), Some(0)], "{scan}");
    ensure!(scan.text("net.local.ip") == NODE_OUTSIDE && scan.at("net.local.port").is_null(), "{scan}");
    ensure!(recording.of_kind("accept").count() == 4, "each has a record of its own");
    Ok(())
}

fn every_endpoint(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let servers = Servers::start(lab, 1)?;
    for port in ALL_PORTS.split(',') {
        let url = format!("http://{NODE_OUTSIDE}:{port}/");
        // Only one of the servers answers.
        let status =
            lab.network.client.command("curl").args(["--silent", "--output", "/dev/null", &url]).status()?;
        ensure!(status.success() == (port == "2375"), "curl of port {port}: {status}");
    }
    servers.finish()?;
    sensor.wait("the summary", |record| is_scan(record, "connect"))?;
    let recording = sensor.stop()?;
    let scan = only_scan(&recording)?;
    ensure!(counts(scan) == [Some(4), Some(4), Some(0)], "{scan}");
    let window = scan.number("scan.window_ns").context("no window")?;
    ensure!(window > 0 && window < 60_000_000_000, "{scan}");
    Ok(())
}

fn version_scan(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    client(
        lab,
        &[NMAP[0], NMAP[1], NMAP[2], "-sV", "--script", "docker-version", "-p", "2375", NODE_OUTSIDE],
    )?;
    // Other probes of nmap ask for the same without saying who they are.
    let request = sensor.wait("the script's request", |record| {
        record.is("api_request", &[("api.path", "/version"), ("net.peer.ip", CLIENT_OUTSIDE)])
            && record.text("api.user_agent").contains("Nmap Scripting Engine")
    })?;
    ensure!(request.number("api.status") == Some(200), "{request}");
    ensure!(
        request.is("api_request", &[("verdict.listed", "false"), ("net.service", "docker")]),
        "{request}"
    );
    sensor.stop().map(drop)
}

fn sweep(lab: &Lab) -> Result<()> {
    const HOSTS: u32 = 40;
    let sensor = Sensor::start(CONFIGURATION)?;
    let script = format!(
        "for host in $(seq 10 {}); do nc -w 1 198.18.0.$host 10250 </dev/null & done; wait",
        9 + HOSTS
    );
    let run = ["run", "--detach", "--name", "sweeping", IMAGE, "/bin/sh", "-c", &script];
    let id = lab.dockerd.docker(&run)?.trim().to_owned();
    let is_sweep = |record: &Record| record.is("scan", &[("scan.shape", "sweep"), ("container.id", &id)]);
    sensor.wait("the summary", is_sweep)?;
    let recording = sensor.stop()?;
    let scans: Vec<&Record> = recording.of_kind("scan").filter(|record| is_sweep(record)).collect();
    ensure!(scans.len() == 1, "not one summary: {scans:#?}");
    let [targets, count, _] = counts(scans[0]);
    ensure!((targets, count) == (Some(HOSTS.into()), Some(HOSTS.into())), "{}", scans[0]);
    ensure!(
        scans[0].is("scan", &[("net.service", "kubelet"), ("net.direction", "outbound")]),
        "{}",
        scans[0]
    );
    ensure!(scans[0].text("container.name") == "sweeping", "{}", scans[0]);
    Ok(())
}
