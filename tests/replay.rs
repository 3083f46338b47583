//! Golden replays: each directory under fixtures/replay is a configuration, a recording, and what comes out of them.
//!
//! `cargo xtask bless` rewrites the expected output; the tables below are not rewritten with it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sensor_tests::sensor;
use serde_json::Value;

#[path = "replay/silence.rs"]
mod silence;

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/replay")
}

fn replay(case: &Path, files: &[&Path]) -> String {
    let mut command = sensor::command().expect("the binary is built");
    command.args(["--log-level", "error", "replay", "--config"]).arg(case.join("config.yaml")).args(files);
    let output = command.stdin(Stdio::null()).output().expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{}: {}\n{stderr}", case.display(), output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn records(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Replays a case and returns peer address, port and entry of each accept.
fn verdicts(case: &str) -> Vec<(String, u64, String)> {
    let case = cases().join(case);
    let accepts = records(&replay(&case, &[&case.join("input.ndjson")]));
    accepts
        .iter()
        .filter(|record| record["kind"] == "accept")
        .map(|record| {
            let verdict = &record["verdict"];
            let entry = verdict["entry"].as_str();
            assert_eq!(verdict["listed"].as_bool(), Some(entry.is_some()), "{verdict}");
            let net = &record["net"];
            let peer = net["peer"]["ip"].as_str().expect("an address").to_owned();
            (peer, net["local"]["port"].as_u64().expect("a port"), entry.unwrap_or("-").to_owned())
        })
        .collect()
}

fn check_verdicts(case: &str, expected: &[(&str, u64, &str)]) {
    let found = verdicts(case);
    let found: Vec<_> =
        found.iter().map(|(peer, port, entry)| (peer.as_str(), *port, entry.as_str())).collect();
    assert_eq!(found, expected, "{case}");
}

#[test]
fn every_case_gives_what_is_expected_byte_for_byte() {
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(cases()).expect("fixtures are there") {
        let case = entry.expect("it can be read").path();
        let input = case.join("input.ndjson");
        let found = replay(&case, &[&input]);
        assert_eq!(found, replay(&case, &[&input]), "{}: two replays differ", case.display());
        let expected = case.join("expected.ndjson");
        if std::env::var_os("QUAYWATCH_BLESS").is_some() {
            std::fs::write(&expected, &found).expect("fixtures can be written");
        }
        let expected = std::fs::read_to_string(&expected).unwrap_or_default();
        assert!(found == expected, "{}: unexpected output; see `cargo xtask bless`\n{found}", case.display());
        seen.insert(case.file_name().expect("a name").to_os_string());
    }
    assert!(seen.len() >= 5, "only {seen:?}");
}

#[test]
fn networks_exceptions_services_and_ports_decide() {
    check_verdicts(
        "networks-and-services",
        &[
            ("10.20.1.5", 2375, "ops-vpn"),
            ("10.20.9.5", 2375, "-"),
            ("198.18.0.9", 2375, "-"),
            ("fd20::5", 2375, "ops-vpn"),
            ("fd21::5", 2375, "-"),
            ("10.20.1.6", 2375, "ops-vpn"),
            ("10.20.1.5", 10250, "-"),
            ("10.20.1.5", 9443, "ops-vpn"),
        ],
    );
}

#[test]
fn loopback_and_the_nodes_own_addresses_are_implied_as_of_the_latest_health() {
    let implied = "implied-local";
    check_verdicts(
        "implied-local",
        &[
            ("127.0.0.1", 2375, implied),
            ("127.8.8.8", 2375, implied),
            ("::1", 2375, implied),
            ("10.0.0.11", 2375, implied),
            ("fd00::11", 2375, implied),
            ("198.18.7.7", 2375, implied),
            ("10.0.0.12", 2375, "-"),
            ("198.18.0.9", 2375, "-"),
            ("10.0.0.11", 2375, "-"),
            ("10.0.0.12", 2375, implied),
        ],
    );
    let off = verdicts("implied-local-off");
    assert_eq!(off.len(), 10);
    assert!(off.iter().all(|(.., entry)| entry == "-"), "{off:?}");
}

#[test]
fn the_first_entry_that_matches_decides() {
    check_verdicts(
        "order",
        &[
            ("10.0.0.12", 10250, "cluster-nodes"),
            ("fd00::12", 10250, "cluster-nodes"),
            ("10.244.3.3", 10250, "pods-to-kubelet"),
            ("10.9.9.9", 10250, "everybody-in-ten"),
            ("127.0.0.1", 10250, "own"),
            ("10.244.3.3", 2375, "everybody-in-ten"),
        ],
    );
}

/// Replay gives facts a place in its own output and a verdict of its own; nothing else of them changes.
#[test]
fn facts_go_through_unchanged_and_nothing_else_does() {
    let case = cases().join("whole-run");
    let input = std::fs::read_to_string(case.join("input.ndjson")).expect("it is there");
    let is_fact = |record: &&Value| {
        !["health", "signal", "finding"].contains(&record["kind"].as_str().expect("a kind"))
    };
    let kept = |record: &Value| {
        let mut record = record.as_object().expect("an object").clone();
        record.remove("seq");
        record.remove("verdict");
        record
    };
    let recorded: Vec<_> = records(&input).iter().filter(is_fact).map(kept).collect();
    let mut output = records(&replay(&case, &[&case.join("input.ndjson")]));
    let last = output.pop().expect("a last record");
    assert_eq!((&last["kind"], &last["health"]["state"]), (&"health".into(), &"stopping".into()));
    assert_eq!(last["health"]["emitted"], output.len() + 1);
    assert_eq!(last["ts"], output.last().expect("facts")["ts"]);
    assert_eq!(output.iter().filter(is_fact).map(kept).collect::<Vec<_>>(), recorded);
    let kinds: BTreeSet<&str> =
        output.iter().filter(is_fact).filter_map(|record| record["kind"].as_str()).collect();
    assert_eq!(kinds.len(), 8, "{kinds:?}");
    for (position, record) in output.iter().chain([&last]).enumerate() {
        assert_eq!(
            record["seq"].as_u64(),
            Some(position as u64 + output[0]["seq"].as_u64().expect("a number"))
        );
    }
}

/// State, severity and confidence of each finding of a case, with the number of its candidates and the stages seen.
fn findings(case: &str) -> Vec<String> {
    let case = cases().join(case);
    let all = records(&replay(&case, &[&case.join("input.ndjson")]));
    let findings = all.iter().filter(|record| record["kind"] == "finding").map(|record| {
        let finding = &record["finding"];
        let text = |key: &str| finding[key].as_str().expect("a text").to_owned();
        let peers = finding["entities"]["peers"].as_array().map_or(1, Vec::len);
        let seen = finding["stages"].as_array().expect("stages").iter().filter(|stage| stage["seen"] == true);
        let (state, severity, confidence) = (text("state"), text("severity"), text("confidence"));
        format!("{state} {severity} {confidence} {peers} {}", seen.count())
    });
    findings.collect()
}

/// The truth table in docs/detections/an1007.md, the behaviours in an1352.md, the pair in an1547.md, and what must be silent.
#[test]
fn chains_are_found_where_there_are_any_and_nowhere_else() {
    let open_and_update = |open, update| vec![open, update];
    for (case, expected) in [
        (
            "an1007-proved",
            vec!["open high proved 1 2", "update critical proved 1 3", "closed critical proved 1 3"],
        ),
        ("an1007-proved-plain", open_and_update("open medium proved 1 2", "update high proved 1 3")),
        ("an1007-one-candidate", open_and_update("open medium inferred 1 2", "update high inferred 1 3")),
        (
            "an1007-several-candidates",
            open_and_update("open medium inferred 2 2", "update high inferred 2 3"),
        ),
        ("an1007-risks-known-late", open_and_update("open medium inferred 1 2", "update high inferred 1 3")),
        ("an1007-unreadable-plain", Vec::new()),
        ("an1007-better-explanation", Vec::new()),
        ("an1007-readable-none-made-it", Vec::new()),
        ("an1007-silence", Vec::new()),
        ("an1007-window-over", Vec::new()),
        ("an1352-docker-over-tcp", vec!["open high proved 1 1", "closed high proved 1 1"]),
        ("an1352-renamed-kubectl", vec!["open high proved 1 1", "closed high proved 1 1"]),
        (
            "an1352-kubelet-search",
            vec!["open high proved 1 1", "update high proved 1 1", "closed high proved 1 1"],
        ),
        ("an1352-silence", Vec::new()),
        (
            "an1547-token-taken",
            vec!["open medium inferred 1 2", "update medium inferred 1 2", "closed medium inferred 1 2"],
        ),
        ("an1547-silence", Vec::new()),
        ("shown-listed", Vec::new()),
        (
            "shown-unlisted",
            vec!["open medium proved 1 1", "open high proved 1 2", "open medium inferred 1 2"],
        ),
        ("containers-listed", Vec::new()),
        (
            "containers-unlisted",
            vec![
                "open medium inferred 1 2",
                "update medium inferred 1 2",
                "update high inferred 1 3",
                "open medium inferred 1 2",
                "open high proved 1 1",
                "open high proved 1 1",
            ],
        ),
    ] {
        assert_eq!(findings(case), expected, "{case}");
    }
}

/// What was derived when it was recorded is derived again, not read.
#[test]
fn a_replay_of_a_replay_gives_the_same_signals_and_findings() {
    let case = cases().join("an1007-proved");
    let derived = |file: &Path| {
        let mut all = records(&replay(&case, &[file]));
        // The last record of a replay bears the time of its last fact: what ends after that ends in the recording only.
        all.retain(|record| record["kind"] == "signal" || record["kind"] == "finding");
        all.retain(|record| record["finding"]["state"] != "closed");
        all.iter_mut().for_each(|record| record["seq"] = 0.into());
        all
    };
    let first = derived(&case.join("input.ndjson"));
    assert!(first.len() > 3, "{first:?}");
    assert_eq!(derived(&case.join("expected.ndjson")), first);
}

/// `health.emitted` and `seq` count what the engine numbered, also what `output.kinds` leaves out.
#[test]
fn records_that_are_left_out_keep_their_number() {
    let numbers = |case: &str| {
        let case = cases().join(case);
        let output = records(&replay(&case, &[&case.join("input.ndjson")]));
        let emitted = output.last().expect("a last record")["health"]["emitted"].as_u64();
        let numbered = |record: &Value| (record["id"].clone(), record["seq"].as_u64().expect("a number"));
        (output.iter().map(numbered).collect::<Vec<_>>(), emitted.expect("a number"))
    };
    let (all, emitted_of_all) = numbers("whole-run");
    let (filtered, emitted) = numbers("filtered");
    assert_eq!(emitted, emitted_of_all);
    assert_eq!(emitted, filtered.last().expect("records").1 + 1);
    assert_eq!(filtered.len(), 3, "{filtered:?}");
    assert!(emitted > filtered.len() as u64);
    assert!(filtered.iter().all(|record| all.contains(record)), "{filtered:?}");
}

#[test]
fn several_files_are_one_recording() {
    let case = cases().join("implied-local");
    let input = std::fs::read_to_string(case.join("input.ndjson")).expect("it is there");
    let middle = input.lines().take(5).map(|line| line.len() + 1).sum();
    let (first, second) = input.split_at(middle);
    let directory = tempfile::tempdir().expect("a directory");
    let part = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("it can be written");
        path
    };
    let (first, second) = (part("1", first), part("2", second));
    assert_eq!(replay(&case, &[&first, &second]), replay(&case, &[&case.join("input.ndjson")]));
}
