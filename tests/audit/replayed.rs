//! The same logs through the program: `quaywatch replay` as a user runs it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use sensor_tests::sensor;
use serde_json::Value;

use crate::{fixtures, malicious, scenarios, truth};

/// What the owner of the fixtures' cluster would write, from `cluster.json`.
fn config(directory: &Path) -> std::path::PathBuf {
    let text = std::fs::read(fixtures().join("cluster.json")).expect("the cluster is described");
    let cluster: Value = serde_json::from_slice(&text).expect("JSON");
    let values =
        |key: &str| -> Vec<Value> { cluster[key].as_object().expect(key).values().cloned().collect() };
    let mut members = serde_json::Map::new();
    for (name, address) in cluster["nodes"].as_object().expect("nodes") {
        members.insert(name.clone(), Value::from(vec![address.clone()]));
    }
    members.insert("control-plane".to_owned(), Value::from(vec![cluster["apiserver"]["address"].clone()]));
    let people: Vec<Value> = ["admin_networks", "ci_networks"]
        .iter()
        .flat_map(|key| cluster[*key].as_array().expect("a list").clone())
        .collect();
    let config = serde_json::json!({
        "networks": {
            "nodes": {"members": members},
            "pods": values("pod_cidrs"),
            "services": [cluster["service_cidr"]],
            "people": people,
        },
        "allow": [{
            "name": "people and CI", "from": {"cidr": people}, "to": {"services": ["kube-apiserver"]},
            "owner": "platform", "reason": "their daily work",
        }],
    });
    let path = directory.join("config.yaml");
    std::fs::write(&path, config.to_string()).expect("it can be written");
    path
}

fn replay(config: &Path, files: &[&Path]) -> Vec<Value> {
    let mut command = sensor::command().expect("the binary is built");
    command.args(["--log-level", "error", "replay", "--config"]).arg(config).args(files);
    let output = command.stdin(Stdio::null()).output().expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{files:?}: {}\n{stderr}", output.status);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn of_kind<'a>(records: &'a [Value], kind: &'static str) -> impl Iterator<Item = &'a Value> {
    records.iter().filter(move |record| record["kind"] == kind)
}

fn log(name: &str) -> std::path::PathBuf {
    fixtures().join(format!("{name}.ndjson.gz"))
}

/// Record ids of the requests with these ids of the API server.
fn records_of(records: &[Value], audit_ids: &BTreeSet<String>) -> BTreeSet<String> {
    of_kind(records, "audit")
        .filter(|record| audit_ids.contains(record["audit"]["audit_id"].as_str().expect("an id")))
        .map(|record| record["id"].as_str().expect("an id").to_owned())
        .collect()
}

#[test]
fn the_program_finds_every_scenario_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = config(directory.path());
    for name in scenarios() {
        let records = replay(&config, &[&log(&name)]);
        let bad = records_of(&records, &malicious(&truth(&name)));
        let points_at = |event: &Value| bad.contains(event.as_str().expect("an id"));
        let hits = of_kind(&records, "signal").filter(|record| points_at(&record["signal"]["keys"]["event"]));
        assert!(hits.count() > 0, "{name}");
        for record in of_kind(&records, "finding") {
            let stages = record["finding"]["stages"].as_array().expect("stages");
            let mut events = stages.iter().filter_map(|stage| stage["events"].as_array()).flatten();
            assert!(events.any(points_at), "{name}: {record}");
        }
    }
}

#[test]
fn the_program_is_silent_about_quiet_logs() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = config(directory.path());
    for names in [&["audit-bootstrap", "audit-benign"][..], &["rr-audit-benign"]] {
        let files: Vec<_> = names.iter().map(|name| log(name)).collect();
        let files: Vec<&Path> = files.iter().map(std::path::PathBuf::as_path).collect();
        let records = replay(&config, &files);
        assert!(of_kind(&records, "audit").count() > 100, "{names:?} has requests");
        assert_eq!(of_kind(&records, "finding").count(), 0, "{names:?}");
    }
}

#[test]
fn a_recording_of_a_replay_gives_the_same_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = config(directory.path());
    for name in ["audit-mixed-all-attacks", "rr-audit-mixed-all-attacks"] {
        let first = replay(&config, &[&log(name)]);
        let recording = directory.path().join("recording.ndjson");
        let lines: String = first.iter().map(|record| format!("{record}\n")).collect();
        std::fs::write(&recording, lines).expect("it can be written");
        let second = replay(&config, &[&recording]);
        assert_eq!(first, second, "{name}");
        assert!(of_kind(&first, "finding").count() > 0, "{name}");
    }
}
