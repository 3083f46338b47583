//! `quaywatch policy test`: what a changed policy makes of a recording, compared with a golden answer.
//!
//! `cargo xtask bless` rewrites the expected output; what is asserted beside it is not rewritten.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use sensor_tests::sensor;
use serde_json::{Value, json};

fn fixtures(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Tries a file against the chain of `replay/an1007-proved`, where `config` is in effect. Exit code, stdout, stderr.
fn test(file: &Path, config: &Path, json: bool) -> (i32, String, String) {
    test_against("an1007-proved", file, config, json)
}

fn test_against(case: &str, file: &Path, config: &Path, json: bool) -> (i32, String, String) {
    let mut command = sensor::command().expect("the binary is built");
    // Relative paths, because the answer repeats them.
    command.current_dir(fixtures("")).args(["--log-level", "error", "policy", "test"]).arg(file);
    command.args(["--against", &format!("replay/{case}/input.ndjson"), "--config"]).arg(config);
    let output = command.args(json.then_some("--json")).stdin(Stdio::null()).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
}

const PRESENT: &str = "replay/an1007-proved/config.yaml";
const WIDER: &str = "policy/wider.yaml";

fn compare(golden: &str, found: &str) {
    let path = fixtures("policy").join(golden);
    if std::env::var_os("QUAYWATCH_BLESS").is_some() {
        std::fs::write(&path, found).expect("fixtures can be written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{golden}: unexpected output; see `cargo xtask bless`\n{found}");
}

#[test]
fn an_entry_that_expects_the_attacker_is_named_for_what_it_silences() {
    let (code, stdout, stderr) = test(Path::new(WIDER), Path::new(PRESENT), true);
    assert_eq!((code, stderr.as_str()), (4, ""));
    compare("wider.json", &stdout);
    let report: Value = serde_json::from_str(&stdout).expect("JSON");
    let change = &report["verdicts"][0];
    assert_eq!(change["before"], json!({"listed": false}));
    assert_eq!(change["after"], json!({"listed": true, "entry": "contractor"}));
    assert_eq!(change["peers"], json!(["198.18.0.9"]));
    assert_eq!(change["records"], change["examples"].as_array().map_or(0, Vec::len));
    let findings = &report["findings"];
    assert_eq!(findings["raised"], json!([]));
    let [finding] = findings["silenced"].as_array().map_or(&[][..], Vec::as_slice) else {
        panic!("{findings}")
    };
    assert_eq!((&finding["analytic"], &finding["entries"]), (&json!("AN1007"), &json!(["contractor"])));
    let (code, text, _) = test(Path::new(WIDER), Path::new(PRESENT), false);
    assert_eq!(code, 4);
    compare("wider.txt", &text);
    assert!(text.contains("(unlisted) -> contractor") && text.contains("by contractor"), "{text}");
}

#[test]
fn what_is_silenced_one_way_is_raised_the_other_way() {
    let parse =
        |(_, stdout, _): (i32, String, String)| -> Value { serde_json::from_str(&stdout).expect("JSON") };
    let there = parse(test(Path::new(WIDER), Path::new(PRESENT), true));
    let back = parse(test(Path::new(PRESENT), Path::new(WIDER), true));
    for key in ["signals", "findings"] {
        assert_eq!(there[key]["silenced"], back[key]["raised"], "{key}");
        assert_eq!(there[key]["raised"], back[key]["silenced"], "{key}");
    }
    assert_eq!(there["verdicts"][0]["before"], back["verdicts"][0]["after"]);
    assert!(there["signals"]["silenced"].as_array().is_some_and(|signals| !signals.is_empty()), "{there}");
}

#[test]
fn the_same_policy_changes_nothing() {
    let (code, stdout, stderr) = test(Path::new(PRESENT), Path::new(PRESENT), false);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.ends_with("\nnothing changes\n"), "{stdout}");
}

#[test]
fn what_cannot_be_used_has_its_exit_code() {
    let (code, stdout, stderr) = test(Path::new("cli/invalid.yaml"), Path::new(PRESENT), true);
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("cli/invalid.yaml:"), "{stderr}");
    let run = |against: &str| {
        let mut command = sensor::command().expect("the binary is built");
        command.args(["policy", "test", "--against", against, "--"]).arg(fixtures(WIDER));
        let output = command.stdin(Stdio::null()).output().expect("it starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run("-").0, Some(2));
    let (code, stderr) = run("/nowhere/recording.ndjson");
    assert_eq!(code, Some(1));
    assert!(stderr.contains("/nowhere/recording.ndjson cannot be read"), "{stderr}");
}

#[test]
fn an_entry_is_told_with_the_conditions_that_agreed() {
    let policies =
        ["replay/containers-unlisted/config.yaml", "replay/containers-listed/config.yaml"].map(Path::new);
    let (code, stdout, stderr) = test_against("containers-unlisted", policies[1], policies[0], true);
    assert_eq!((code, stderr.as_str()), (4, ""));
    let report: Value = serde_json::from_str(&stdout).expect("JSON");
    let changes = report["verdicts"].as_array().expect("changes");
    let of = |entry: &str| {
        let change = changes.iter().find(|change| change["after"]["entry"] == entry);
        change.unwrap_or_else(|| panic!("{entry}: {changes:?}"))
    };
    assert_eq!(
        of("cni")["after_by"],
        json!(["act credentials", "act start", "image quay.io/cilium/cilium", "namespace kube-system"])
    );
    assert_eq!(
        of("csi")["after_by"],
        json!([
            "act discovery",
            "act start",
            "container driver",
            "image registry.k8s.io/sig-storage/csi-driver:v4",
            "namespace kube-system"
        ])
    );
    assert_eq!(of("monitoring")["records"], 1);
    assert_eq!(of("monitoring")["containers"], json!(["e3".repeat(32)]));
    assert!(changes.iter().all(|change| change["before_by"].is_null()), "{changes:?}");
    let silenced = report["findings"]["silenced"].as_array().expect("findings");
    assert_eq!(silenced.len(), 4, "{silenced:?}");
    assert!(silenced.iter().all(|finding| finding["entries"].as_array().is_some_and(|all| !all.is_empty())));
    let (_, text, _) = test_against("containers-unlisted", policies[1], policies[0], false);
    assert!(
        text.contains("monitoring by act discovery, image quay.io/prometheus/agent, namespace monitoring"),
        "{text}"
    );
}
