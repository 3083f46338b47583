//! Whole chains against a real Docker API: found and proved where somebody unexpected is behind them, silent elsewhere.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sensor_tests::dockerd::{IMAGE, PORT, TOLERANT, remote};
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::netns::{CLIENT_OUTSIDE, CLIENT_V6_OUTSIDE, NODE_INSIDE, NODE_OUTSIDE, NODE_V6_OUTSIDE};
use sensor_tests::process::run;
use sensor_tests::record::Record;
use sensor_tests::sensor::{self, Recording, Sensor};

use crate::Test;

pub const TESTS: &[Test] = &[
    ("a_whole_chain_is_one_critical_finding_among_eight_innocent_clients", whole_chain),
    ("a_whole_chain_over_ipv6_is_the_same", whole_chain_v6),
    ("looking_around_in_docker_over_the_network_is_one_discovery", discovery),
    ("administrators_local_containers_and_bare_connections_are_no_findings", silence),
];

/// Clients that do what they are expected to do, at the same time.
const INNOCENT: usize = 8;
/// Containers that are started on the node itself.
const LOCAL: usize = 200;

fn whole_chain(lab: &Lab) -> Result<()> {
    attack(lab, NODE_OUTSIDE, CLIENT_OUTSIDE)
}

fn whole_chain_v6(lab: &Lab) -> Result<()> {
    attack(lab, NODE_V6_OUTSIDE, CLIENT_V6_OUTSIDE)
}

/// A container that has all rights and reaches for the port of another node.
fn privileged(target: &str) -> Vec<String> {
    let reach = format!("sleep 1; nc -w 1 {target} 22; sleep 600");
    let run = ["run", "--detach", "--privileged", "--runtime", TOLERANT, "--network", "host", IMAGE];
    run.into_iter().chain(["/bin/sh", "-c", &reach]).map(str::to_owned).collect()
}

fn attack(lab: &Lab, node: &str, client: &str) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let as_texts = |arguments: &[String]| remote(&lab.network, node, &texts(arguments));
    let (taken, innocent) = thread::scope(|scope| {
        let innocent: Vec<_> = (0..INNOCENT)
            .map(|_| scope.spawn(|| remote(&lab.network, NODE_INSIDE, &texts(&privileged(client)))))
            .collect();
        let taken = as_texts(&privileged(client));
        let innocent: Result<BTreeSet<String>> =
            innocent.into_iter().map(|client| client.join().expect("the client panicked")).collect();
        (taken, innocent)
    });
    let (taken, innocent) = (taken?, innocent?);
    let finding = sensor.wait("the whole chain", |record| {
        record.is("finding", &[("finding.analytic", "AN1007"), ("finding.severity", "critical")])
    })?;
    for id in &innocent {
        sensor.wait("what an innocent one reaches for", |record| {
            record.is("connect", &[("container.id", id), ("net.peer.ip", client)])
        })?;
    }
    let recording = sensor.stop()?;
    let of_peer = [("finding.entities.peer", client), ("finding.confidence", "proved")];
    ensure!(finding.is("finding", &of_peer), "{finding}");
    ensure!(finding.list("finding.entities.containers") == [taken.as_str()], "{finding}");
    let stages = finding.list("finding.stages");
    ensure!(stages.len() == 3 && stages.iter().all(|stage| stage["seen"] == true), "{finding}");
    evidence(&recording, &finding, &taken)?;
    for other in recording.of_kind("finding") {
        ensure!(other.text("finding.id") == finding.text("finding.id"), "another finding: {other}");
    }
    ensure!(recording.of_kind("finding").next().is_some_and(|first| first.text("finding.state") == "open"));
    replayed(lab, &recording)
}

fn texts(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// Every record that a finding names is there, and of the kind that its stage is made of.
fn evidence(recording: &Recording, finding: &Record, container: &str) -> Result<()> {
    let record_of = |id: &str| {
        let record = recording.records.iter().find(|record| record.text("id") == id);
        record.with_context(|| format!("no record {id}, which is evidence: {finding}"))
    };
    let kinds: [&[&str]; 3] = [&["accept", "api_request"], &["container"], &["connect"]];
    for (stage, kinds) in finding.list("finding.stages").iter().zip(kinds) {
        for event in stage["events"].as_array().context("no events")? {
            let record = record_of(event.as_str().context("no id")?)?;
            ensure!(kinds.contains(&record.kind()), "{record} is no evidence of {stage}");
            let is_of_container = record.kind() != "container" || record.text("container.id") == container;
            ensure!(is_of_container, "another container: {record}");
        }
    }
    for link in finding.list("finding.links") {
        ensure!(link["class"] == "proved", "{link}");
        record_of(link["from"].as_str().context("no id")?)?;
        record_of(link["to"].as_str().context("no id")?)?;
    }
    Ok(())
}

/// What a replay of the recording finds is what was found when it was made, byte for byte but for the place in the output.
fn replayed(lab: &Lab, recording: &Recording) -> Result<()> {
    let path = lab.directory().join("chains.ndjson");
    recording.write(&path)?;
    let config = path.with_extension("yaml");
    std::fs::write(&config, CONFIGURATION)?;
    let output = run(sensor::command()?.arg("replay").arg("--config").arg(&config).arg(&path))?;
    let again: Vec<Record> =
        output.lines().map(|line| Record::parse(line).map_err(anyhow::Error::msg)).collect::<Result<_>>()?;
    let told = |records: &[Record]| -> Vec<String> {
        let derived = records.iter().filter(|record| ["signal", "finding"].contains(&record.kind()));
        let without_place = derived.map(|record| {
            format!(
                "{} {} {} {}",
                record.text("id"),
                record.text("ts"),
                record.at("signal"),
                record.at("finding")
            )
        });
        without_place.collect()
    };
    let (live, again) = (told(&recording.records), told(&again));
    ensure!(live == again, "live:\n{}\nreplayed:\n{}", live.join("\n"), again.join("\n"));
    Ok(())
}

/// Somebody asks for containers and images and inspects them, as an administrator has done before.
fn discovery(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    let container = lab.dockerd.docker(&["run", "--detach", IMAGE, "/bin/sleep", "600"])?;
    let calls: [&[&str]; 7] = [
        &["ps", "--all"],
        &["images"],
        &["container", "inspect", &container],
        &["image", "inspect", IMAGE],
        &["network", "ls"],
        &["volume", "ls"],
        &["info"],
    ];
    for address in [NODE_INSIDE, NODE_OUTSIDE] {
        for call in calls {
            remote(&lab.network, address, call)?;
        }
    }
    let finding = sensor.wait("the discovery", |record| record.kind() == "finding")?;
    let expected = [
        ("finding.analytic", "AN1352"),
        ("finding.severity", "high"),
        ("finding.confidence", "proved"),
        ("finding.entities.peer", CLIENT_OUTSIDE),
    ];
    ensure!(finding.is("finding", &expected), "{finding}");
    let recording = sensor.stop()?;
    let others = recording.of_kind("finding").count();
    ensure!(others == 1, "{others} findings of one burst");
    replayed(lab, &recording)
}

fn silence(lab: &Lab) -> Result<()> {
    let sensor = Sensor::start(CONFIGURATION)?;
    // Somebody unexpected connects, and looks around, and makes nothing.
    let address = SocketAddr::new(NODE_OUTSIDE.parse::<IpAddr>()?, PORT);
    let held = lab.network.client.within(|| TcpStream::connect(address))?;
    remote(&lab.network, NODE_OUTSIDE, &["ps"])?;
    // Meanwhile an administrator does what only administrators may, and so does the node itself.
    let admins = remote(&lab.network, NODE_INSIDE, &texts(&privileged(CLIENT_OUTSIDE)))?;
    let mut last = String::new();
    for number in 0..LOCAL {
        let mut arguments = vec!["run", "--detach"];
        if number % 2 == 0 {
            arguments.extend(["--privileged", "--runtime", TOLERANT]);
        }
        arguments.extend([IMAGE, "/bin/true"]);
        last = lab.dockerd.docker(&arguments)?;
    }
    sensor.wait_container("started", &last)?;
    sensor.wait("the administrator's container", |record| {
        record.is("connect", &[("container.id", &admins), ("net.peer.port", "22")])
    })?;
    drop(held);
    thread::sleep(Duration::from_millis(200));
    let recording = sensor.stop()?;
    let signals =
        recording.of_kind("signal").filter(|record| record.text("signal.name") == "unlisted-accept");
    ensure!(signals.count() >= 2, "connections nobody expects are signals");
    let finding = recording.of_kind("finding").next();
    ensure!(finding.is_none(), "{finding:?}");
    replayed(lab, &recording)
}
