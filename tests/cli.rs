//! The command line: exit codes, messages, and what is printed where. Needs neither root nor a kernel.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sensor_tests::sensor;
use serde_json::{Value, json};

#[path = "cli/policy.rs"]
mod policy;

fn quaywatch(arguments: &[&str]) -> Command {
    let mut command = sensor::command().expect("the binary is built");
    command.args(arguments).env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

/// Runs to the end and returns exit code, stdout and stderr.
fn outcome(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    outcome(&mut quaywatch(arguments))
}

fn with_stdin(arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut child = quaywatch(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("it is read");
    drop(stdin);
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn fixture(name: &str) -> String {
    format!("{}/fixtures/cli/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn help_documents_the_exit_codes() {
    for flag in ["-h", "--help"] {
        let (code, stdout, _) = run(&[flag]);
        assert_eq!(code, 0);
        for line in ["  0  done", "  1  failure", "  2  wrong usage", "  3  this system", "  4  `check`"] {
            assert!(stdout.contains(line), "{line:?} is not in {stdout}");
        }
    }
}

#[test]
fn wrong_usage_is_2() {
    for arguments in
        [&[][..], &["--nonsense"], &["nonsense"], &["check"], &["replay"], &["schema", "nonsense"]]
    {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(stderr.contains("--help"), "{stderr}");
    }
}

#[test]
fn the_version_tells_what_belongs_to_it() {
    let version = env!("CARGO_PKG_VERSION");
    for arguments in [["--version"], ["version"]] {
        assert_eq!(run(&arguments), (0, format!("quaywatch {version}\n"), String::new()));
    }
    let (code, stdout, _) = run(&["version", "--json"]);
    let document: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(
        (code, &document["version"], &document["schema"]),
        (0, &json!(version), &json!("quaywatch/1"))
    );
}

#[test]
fn doctor_answers_whatever_the_host_and_the_user() {
    let (code, stdout, _) = run(&["doctor", "--json"]);
    let report: Value = serde_json::from_str(&stdout).expect("one document");
    assert_eq!(report["schema"], "quaywatch-doctor/1");
    let verdict = report["verdict"].as_str().expect("a word");
    let expected = match verdict {
        "ready" => 0,
        "limited" => 4,
        "cannot-run" => 3,
        other => panic!("{other} is no verdict"),
    };
    assert_eq!(code, expected, "{stdout}");
    assert_eq!(report["problem"].is_string(), verdict == "cannot-run", "{stdout}");
    let checks = report["checks"].as_array().expect("a list");
    for name in ["kernel", "type information", "CAP_BPF", "cgroups"] {
        assert!(checks.iter().any(|check| check["name"] == name), "{name} was not looked at: {stdout}");
    }
    assert!(
        checks.iter().all(|check| check["state"] != "missing" || check["remedy"].is_string()),
        "everything that is missing has a remedy: {stdout}"
    );

    let (code, stdout, _) = run(&["doctor"]);
    assert_eq!(code, expected);
    assert!(stdout.contains("\nRuntimes\n") && stdout.contains("\nManagement listeners\n"), "{stdout}");
}

#[test]
fn check_says_valid_or_where_it_is_not() {
    let valid = fixture("valid.yaml");
    assert_eq!(run(&["check", &valid]), (0, format!("{valid}: valid\n"), String::new()));
    let shipped = repository("deploy/config/quaywatch.yaml").display().to_string();
    assert_eq!(run(&["check", &shipped]), (0, format!("{shipped}: valid\n"), String::new()));

    let warning = fixture("warning.yaml");
    let message = format!(
        "{warning}:3:19: warning: 10.20.1.0/16 has bits set beyond its prefix and is read as 10.20.0.0/16; write \
         that, or the bare address for one host\n"
    );
    assert_eq!(run(&["check", &warning]), (4, format!("{warning}: valid, with warnings\n"), message));

    let invalid = fixture("invalid.yaml");
    let message = format!("{invalid}:4:10: error: unknown key \"servces\"; did you mean \"services\"?\n");
    assert_eq!(run(&["check", &invalid]), (2, format!("{invalid}: invalid\n"), message));

    let (code, _, stderr) = run(&["check", "/nonexistent.yaml"]);
    assert_eq!(code, 2);
    assert!(stderr.starts_with("/nonexistent.yaml: error: cannot be read"), "{stderr}");
}

#[test]
fn check_does_not_look_at_the_environment() {
    let valid = fixture("valid.yaml");
    let (code, ..) = outcome(quaywatch(&["check", &valid]).env("QUAYWATCH_RINGS_POLL", "nonsense"));
    assert_eq!(code, 0);
}

#[test]
fn check_has_a_form_for_machines() {
    let document = |file: &str, expected: i32| {
        let (code, stdout, stderr) = run(&["check", "--json", file]);
        assert_eq!((code, stderr.as_str()), (expected, ""));
        serde_json::from_str::<Value>(&stdout).expect("JSON")
    };
    let valid = fixture("valid.yaml");
    assert_eq!(document(&valid, 0), json!({"file": valid, "valid": true, "problems": []}));
    let invalid = fixture("invalid.yaml");
    let problem = json!({
        "severity": "error", "file": invalid, "line": 4, "column": 10,
        "message": "unknown key \"servces\"; did you mean \"services\"?"
    });
    assert_eq!(document(&invalid, 2), json!({"file": invalid, "valid": false, "problems": [problem]}));
    let warning = document(&fixture("warning.yaml"), 4);
    assert_eq!((&warning["valid"], &warning["problems"][0]["severity"]), (&json!(true), &json!("warning")));
}

#[test]
fn the_configuration_in_effect_is_file_then_environment_then_flags() {
    let shown = |arguments: &[&str], variables: &[(&str, &str)]| {
        let all = [&["show-config", "--json"], arguments].concat();
        let (code, stdout, stderr) = outcome(quaywatch(&all).envs(variables.iter().copied()));
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str::<Value>(&stdout).expect("JSON")
    };
    let file = fixture("valid.yaml");
    let named = ["--config", &file];
    assert_eq!(shown(&named, &[])["node"]["name"], "node-a");
    assert_eq!(shown(&[], &[("QUAYWATCH_CONFIG", &file)])["node"]["name"], "node-a");
    let variable = [("QUAYWATCH_NODE_NAME", "from-env"), ("QUAYWATCH_RINGS_POLL", "7ms")];
    let config = shown(&named, &variable);
    assert_eq!((&config["node"]["name"], &config["rings"]["poll"]), (&json!("from-env"), &json!("7ms")));
    let flags = [&named[..], &["--node-name", "from-flag"]].concat();
    assert_eq!(shown(&flags, &variable)["node"]["name"], "from-flag");
}

#[test]
fn what_is_shown_is_a_configuration() {
    let (code, shown, _) = run(&["show-config", "--config", &fixture("valid.yaml")]);
    assert_eq!(code, 0);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &shown).expect("it can be written");
    let path = file.path().to_str().expect("UTF-8");
    assert_eq!(run(&["check", path]).0, 0, "{shown}");
    assert_eq!(run(&["show-config", "--config", path]).1, shown);
}

#[test]
fn an_invalid_configuration_is_2_for_every_command() {
    let invalid = fixture("invalid.yaml");
    let message = format!("{invalid}:4:10: error: unknown key \"servces\"; did you mean \"services\"?\n");
    for command in [&["run"][..], &["show-config"], &["replay", "-"]] {
        let arguments = [command, &["--config", &invalid]].concat();
        assert_eq!(run(&arguments), (2, String::new(), message.clone()), "{arguments:?}");
    }
    let (code, stdout, stderr) = outcome(quaywatch(&["show-config"]).env("QUAYWATCH_RINGS_POLL", "1h"));
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert_eq!(
        stderr,
        "environment variable QUAYWATCH_RINGS_POLL: error: 1h is out of range; write 1ms to 1s\n"
    );
    let (code, _, stderr) = run(&["show-config", "--config", "/nonexistent.yaml"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("create it, or leave --config out"), "{stderr}");
}

#[test]
fn schemas_are_those_of_the_documentation() {
    for name in ["event", "config"] {
        let (code, stdout, _) = run(&["schema", name]);
        assert_eq!(code, 0);
        let path = repository(&format!("docs/quaywatch-{name}.schema.json"));
        if std::env::var_os("QUAYWATCH_BLESS").is_some() {
            std::fs::write(&path, &stdout).expect("docs can be written");
        }
        let committed = std::fs::read_to_string(&path).expect("it is there");
        assert!(stdout == committed, "{} is out of date; run `cargo xtask bless`", path.display());
    }
}

#[test]
fn completions_and_manual_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = run(&["completions", shell]);
        assert!(code == 0 && script.contains("show-config"), "{shell}: {script}");
    }
    let (code, page, _) = run(&["man"]);
    assert_eq!(code, 0);
    assert!(page.contains(".TH quaywatch 1") && page.contains("Exit codes:"), "{page}");
}

#[test]
fn the_log_goes_to_stderr_in_the_form_asked_for() {
    let warning = fixture("warning.yaml");
    let (code, stdout, stderr) = run(&["--log-format", "json", "show-config", "--config", &warning]);
    assert_eq!(code, 0);
    assert!(stdout.starts_with("node:"), "{stdout}");
    let line: Value = serde_json::from_str(stderr.trim()).expect("one line of JSON");
    assert_eq!((&line["level"], &line["place"]), (&json!("WARN"), &json!(format!("{warning}:3:19"))));

    let (_, _, stderr) = run(&["show-config", "--config", &warning]);
    assert!(stderr.contains("WARN") && !stderr.contains('\u{1b}'), "{stderr:?}");
    let (_, _, stderr) = run(&["--log-level", "error", "show-config", "--config", &warning]);
    assert_eq!(stderr, "");
}

const EXIT: &str = r#"{"schema":"quaywatch/1","kind":"exit","id":"0a1b2c3d4e5f-1","ts":"2026-11-22T10:39:00.000000000Z","boot_ns":5,"seq":1,"node":{"name":"n","boot_id":"b"},"process":{"pid":1,"start_ns":0,"comm":"x"},"quality":{"enrichment":"ok"},"exit":{"code":0}}"#;

#[test]
fn rules_show_the_windows_in_effect_and_unknown_ones_are_2() {
    let (code, stdout, _) = run(&["rules", "list"]);
    assert!(code == 0 && stdout.starts_with("AN1007  T1133  "), "{code} {stdout}");
    let (code, stdout, _) = run(&["rules", "list", "--json"]);
    let list: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((code, &list[0]["id"]), (0, &json!("AN1007")));
    let mut show = quaywatch(&["rules", "show", "an1007", "--json"]);
    let (code, stdout, stderr) = outcome(show.env("QUAYWATCH_DETECT_AN1007_ACCESS_WINDOW", "7m"));
    assert_eq!(code, 0, "{stderr}");
    let rule: Value = serde_json::from_str(&stdout).expect("JSON");
    let stages = rule["stages"].as_array().expect("stages");
    let names: Vec<_> = stages.iter().filter_map(|stage| stage["name"].as_str()).collect();
    assert_eq!(names, ["exposed-service-access", "abnormal-container", "lateral-activity"]);
    assert_eq!(stages[1]["within"], json!({"detect.an1007.access_window": "7m"}));
    let (code, stdout, _) = run(&["rules", "show", "AN1007"]);
    assert!(code == 0 && stdout.starts_with("id: AN1007\n"), "{code} {stdout}");
    let mut show = quaywatch(&["rules", "show", "an1352", "--json"]);
    let (code, stdout, stderr) = outcome(show.env("QUAYWATCH_DETECT_AN1352_WINDOW", "3m"));
    assert_eq!(code, 0, "{stderr}");
    let rule: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((&rule["id"], &rule["techniques"]), (&json!("AN1352"), &json!(["T1613"])));
    assert_eq!(rule["stages"][0]["within"], json!({"detect.an1352.window": "3m"}));
    let mut show = quaywatch(&["rules", "show", "an1547", "--json"]);
    let (code, stdout, stderr) = outcome(show.env("QUAYWATCH_DETECT_AN1547_WINDOW", "4m"));
    assert_eq!(code, 0, "{stderr}");
    let rule: Value = serde_json::from_str(&stdout).expect("JSON");
    let stages = rule["stages"].as_array().expect("stages");
    let names: Vec<_> = stages.iter().filter_map(|stage| stage["name"].as_str()).collect();
    assert_eq!(names, ["credential-access", "unexpected-source", "cluster-use"]);
    assert_eq!(stages[1]["within"], json!({"detect.an1547.window": "4m"}));
    for (stage, signals) in stages.iter().zip([
        ["credential-read", "secrets-read"],
        ["cluster-connect", "bound-token-elsewhere"],
        ["pod-exec", "role-bound"],
    ]) {
        for signal in signals {
            assert!(stage["signals"][signal].is_string(), "{signal}: {stage}");
        }
    }
    let (code, _, stderr) = run(&["rules", "show", "AN9"]);
    assert!(code == 2 && stderr.contains("no analytic has this id; there are AN1007"), "{code} {stderr}");
}

#[test]
fn replay_reads_standard_input() {
    let (code, stdout, stderr) = with_stdin(&["replay", "-"], &format!("{EXIT}\n"));
    assert_eq!(code, 0, "{stderr}");
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["kind"], &lines[0]["id"]), (&json!("exit"), &json!("0a1b2c3d4e5f-1")));
    assert_eq!((&lines[1]["kind"], &lines[1]["health"]["state"]), (&json!("health"), &json!("stopping")));
}

#[test]
fn an_empty_recording_gives_nothing() {
    let (code, stdout, _) = with_stdin(&["replay", "-"], "\n\n");
    assert_eq!((code, stdout.as_str()), (0, ""));
}

#[test]
fn lines_that_cannot_be_read_are_named_and_the_rest_is_replayed() {
    let future = EXIT.replace("\"kind\":\"exit\"", "\"kind\":\"of_a_later_version\"");
    let foreign = EXIT.replace("quaywatch/1", "other/7");
    let broken = EXIT.replace("\"pid\":1,", "\"pid\":-1,");
    let input = format!("{EXIT}\nnonsense\n{future}\n{foreign}\n{broken}\n{EXIT}");
    let (code, stdout, stderr) = with_stdin(&["--log-level", "off", "replay", "-"], &input);
    assert_eq!((code, stdout.lines().count()), (1, 3));
    let column = broken.find("-1,").expect("it is there") + 2;
    let expected = format!(
        "<stdin>:2:2: error: expected ident\n\
         <stdin>:3:1: error: records of kind \"of_a_later_version\" are not known to this version\n\
         <stdin>:4:1: error: the schema is \"other/7\", this version reads \"quaywatch/1\"\n\
         <stdin>:5:{column}: error: invalid value: integer `-1`, expected u32\n\
         error: 4 lines could not be read\n"
    );
    assert_eq!(stderr, expected);
}

#[test]
fn a_recording_that_is_not_there_is_1() {
    let (code, stdout, stderr) = run(&["replay", "/nonexistent.ndjson"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("/nonexistent.ndjson cannot be read"), "{stderr}");
}

#[test]
fn a_reader_that_goes_away_ends_it_in_order() {
    let recording = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(recording.path(), format!("{EXIT}\n").repeat(100_000)).expect("it can be written");
    let path = recording.path().to_str().expect("UTF-8");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut replay = quaywatch(&["replay", path]);
    let child = replay.stdout(writer).stderr(Stdio::piped()).spawn().expect("the binary starts");
    drop(replay);
    let Output { status, stderr, .. } = child.wait_with_output().expect("it ends");
    assert_eq!(status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(stderr.ends_with("error: the reader of the output closed it\n"), "{stderr}");

    // Documents are another matter: `quaywatch schema event | head -1` has done what was asked.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = quaywatch(&["schema", "event"]).stdout(writer).status().expect("the binary starts");
    assert_eq!(status.code(), Some(0));
}
