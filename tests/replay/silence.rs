//! What must be silent, each beside a twin that must not be: the same with one thing that nobody expects.
//!
//! Recordings are made here, so that 200 containers are a line of code. `containers-listed` and `shown-listed` among the golden
//! cases are of the same kind.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::{records, replay};

/// The recording of a node, one second of which passes with every fact.
#[derive(Default)]
struct Recording {
    text: String,
    facts: u64,
}

impl Recording {
    /// Adds a fact; returns its id.
    fn fact(&mut self, kind: &str, rest: Value) -> String {
        self.facts += 1;
        let (number, second) = (self.facts, self.facts % 60);
        let (hour, minute) = (10 + number / 3600, number / 60 % 60);
        let id = format!("0a1b2c3d4e5f-{number:x}");
        let mut record = json!({
            "schema": "quaywatch/1", "kind": kind, "id": id, "seq": number,
            "ts": format!("2026-11-22T{hour:02}:{minute:02}:{second:02}.000000000Z"),
            "boot_ns": (5000 + number) * 1_000_000_000,
            "node": {"name": "node-a", "boot_id": "6b1c2b8e-3d1f-4f6a-9c55-0e7a8f1b2c3d"},
            "quality": {"enrichment": "ok"},
        });
        let Value::Object(rest) = rest else { panic!("an object") };
        record.as_object_mut().expect("an object").extend(rest);
        writeln!(self.text, "{record}").expect("memory takes it");
        id
    }

    fn came(peer: &str, port: u16, service: &str, conn: u64) -> Value {
        json!({
            "direction": "inbound", "proto": "tcp", "peer": {"ip": peer, "port": 40_000},
            "local": {"ip": "10.0.0.11", "port": port}, "service": service, "conn": format!("0a1b2c3d4e5f-c{conn:x}"),
        })
    }

    fn accept(&mut self, peer: &str, port: u16, service: &str, conn: u64) {
        let net = Self::came(peer, port, service, conn);
        self.fact("accept", json!({"net": net, "verdict": {"listed": false}}));
    }

    fn asks(
        &mut self,
        peer: &str,
        (port, service): (u16, &str),
        conn: u64,
        what: (&str, &str, &str),
    ) -> String {
        let (method, path, class) = what;
        let net = Self::came(peer, port, service, conn);
        let api = json!({"service": service, "method": method, "path": path, "route": path, "class": class, "status": 200});
        self.fact("api_request", json!({"net": net, "verdict": {"listed": false}, "api": api}))
    }

    /// A step of a container; of a pod, where it has a namespace.
    fn step(&mut self, action: &str, number: u64, namespace: Option<&str>, risks: &[&str], origin: Value) {
        let runtime = if namespace.is_some() { "containerd" } else { "docker" };
        let mut container = json!({"action": action, "id": id(number), "runtime": runtime, "name": "web", "image": "busybox:1.36"});
        if !risks.is_empty() {
            container["risks"] = json!(risks);
        }
        let mut rest = json!({"container": container, "origin": origin});
        if let Some(namespace) = namespace {
            rest["k8s"] = json!({"namespace": namespace, "pod": "web-0", "pod_uid": "u", "container": "web"});
        }
        if action == "started" {
            rest["process"] = process(1000 * number, "web");
        }
        self.fact("container", rest);
    }

    /// A process that a runtime has put into a container does something there.
    fn inside(&mut self, kind: &str, number: u64, pid: u64, rest: Value) {
        let container =
            json!({"id": id(number), "runtime": "containerd", "name": "web", "image": "busybox:1.36"});
        let Value::Object(mut fact) = rest else { panic!("an object") };
        fact.insert("container".into(), container);
        fact.insert("process".into(), process(pid, "probe"));
        self.fact(kind, Value::Object(fact));
    }
}

fn id(number: u64) -> String {
    format!("{number:064x}")
}

fn process(pid: u64, comm: &str) -> Value {
    let shim = json!({"pid": 50, "comm": "containerd-shim", "exe": "/usr/bin/containerd-shim-runc-v2"});
    json!({"pid": pid, "ppid": 50, "start_ns": pid, "comm": comm, "exe": format!("/bin/{comm}"), "uid": 0, "ancestors": [shim]})
}

fn nobody() -> Value {
    json!({"class": "none"})
}

const RISKS: &[&str] = &["privileged", "host-net"];
const STRANGER: &str = "198.18.0.9";
const NODES: &str =
    "networks: {nodes: {members: {node-a: [10.0.0.11], node-b: [10.0.0.12]}}, kube-api: [10.96.0.1/32]}\n";

/// The analytics of which there are findings, and how many records were read.
fn findings(configuration: &str, recording: &Recording) -> (Vec<String>, usize) {
    let directory = tempfile::tempdir().expect("a directory");
    let write =
        |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("it is written");
    write("config.yaml", &format!("{NODES}{configuration}"));
    write("input.ndjson", &recording.text);
    let input = directory.path().join("input.ndjson");
    let all = records(&replay(directory.path(), &[Path::new(&input)]));
    let told = all.iter().filter(|record| record["finding"]["state"] == "open");
    let mut found: Vec<String> =
        told.map(|record| record["finding"]["analytic"].as_str().expect("a name").to_owned()).collect();
    found.sort();
    found.dedup();
    (found, all.iter().filter(|record| record["quality"].is_object()).count())
}

/// Records a day without and with what nobody expects, and looks for findings.
#[track_caller]
fn check(configuration: &str, record: impl Fn(&mut Recording, bool), expected: &[&str]) {
    for is_quiet in [true, false] {
        let mut recording = Recording::default();
        record(&mut recording, is_quiet);
        let (found, read) = findings(configuration, &recording);
        assert_eq!(read as u64, recording.facts, "all of it is read");
        let expected = if is_quiet { &[] } else { expected };
        assert_eq!(found, expected, "quiet: {is_quiet}");
    }
}

fn listed(from: &str, to: &str) -> String {
    format!("allow: [{{name: a, from: {from}, to: {to}}}]\n")
}

/// Somebody unexpected looks on meanwhile, and one container is his.
#[test]
fn two_hundred_containers_are_started_on_the_node() {
    let record = |recording: &mut Recording, is_quiet: bool| {
        recording.accept(STRANGER, 2375, "docker", 1);
        recording.asks(STRANGER, (2375, "docker"), 1, ("GET", "/containers/json", "discovery"));
        for number in 1..=200 {
            let risks = if number % 2 == 0 { RISKS } else { &[] };
            let origin = if number == 120 && !is_quiet {
                let request =
                    recording.asks(STRANGER, (2375, "docker"), 1, ("POST", "/containers/create", "create"));
                json!({"conn": "0a1b2c3d4e5f-c1", "request": request, "class": "proved"})
            } else {
                nobody()
            };
            recording.step("created", number, None, risks, origin);
            recording.step("started", number, None, risks, nobody());
        }
    };
    check("", record, &["AN1007"]);
}

#[test]
fn a_runner_builds_and_commits_all_day() {
    let record = |recording: &mut Recording, is_quiet: bool| {
        let runner = if is_quiet { "10.20.5.1" } else { STRANGER };
        for number in 1..=40 {
            let docker = (2375, "docker");
            recording.accept(runner, 2375, "docker", number);
            recording.asks(runner, docker, number, ("GET", "/images/json", "discovery"));
            recording.asks(runner, docker, number, ("POST", "/build", "build"));
            let request = recording.asks(runner, docker, number, ("POST", "/containers/create", "create"));
            let origin =
                json!({"conn": format!("0a1b2c3d4e5f-c{number:x}"), "request": request, "class": "proved"});
            recording.step("created", number, None, RISKS, origin.clone());
            recording.asks(runner, docker, number, ("POST", "/containers/{id}/start", "start"));
            recording.step("started", number, None, RISKS, origin);
            recording.asks(runner, docker, number, ("POST", "/commit", "build"));
            recording.asks(runner, docker, number, ("DELETE", "/containers/{id}", "destructive"));
            recording.step("removed", number, None, RISKS, nobody());
        }
    };
    check(&listed("{cidr: [10.20.0.0/16]}", "{services: [docker]}"), record, &["AN1007"]);
}

/// The probe of the twin reads the token of its pod and goes to the API server with it.
#[test]
fn a_kubelet_probes_its_containers() {
    let record = |recording: &mut Recording, is_quiet: bool| {
        recording.accept(STRANGER, 6443, "kube-apiserver", 1);
        for number in 1..=5 {
            recording.step("created", number, Some("shop"), &[], nobody());
            recording.step("started", number, Some("shop"), &[], nobody());
        }
        for round in 0..40 {
            recording.accept("127.0.0.1", 10250, "kubelet", 10 + round);
            for number in 1..=5 {
                let pid = 100_000 + round * 10 + number;
                recording.step("exec", number, Some("shop"), &[], nobody());
                recording.inside("exec", number, pid, json!({"exec": {"role": "workload"}}));
                if round == 20 && number == 3 && !is_quiet {
                    let file = json!({"path": "/var/run/secrets/kubernetes.io/serviceaccount/token", "class": "service-account-token"});
                    recording.inside("file_read", number, pid, json!({"file": file}));
                    let net = json!({"direction": "outbound", "proto": "tcp", "peer": {"ip": "10.96.0.1", "port": 443}, "service": "other", "conn": "0a1b2c3d4e5f-d1"});
                    recording.inside(
                        "connect",
                        number,
                        pid,
                        json!({"net": net, "connect": {"result": "established"}}),
                    );
                }
            }
        }
    };
    check("", record, &["AN1547"]);
}

/// Not from the node itself: from an address of its own, by an entry.
#[test]
fn prometheus_scrapes_kubelets() {
    const PAGES: [&str; 7] = [
        "/metrics",
        "/metrics/cadvisor",
        "/metrics/probes",
        "/metrics/resource",
        "/pods",
        "/spec",
        "/stats/summary",
    ];
    let record = |recording: &mut Recording, is_quiet: bool| {
        let prometheus = if is_quiet { "10.244.3.9" } else { "10.244.3.10" };
        for round in 0..20 {
            recording.accept(prometheus, 10250, "kubelet", round * 2);
            recording.accept(prometheus, 10255, "kubelet-readonly", round * 2 + 1);
            for page in PAGES {
                let kubelet = (10255, "kubelet-readonly");
                recording.asks(prometheus, kubelet, round * 2 + 1, ("GET", page, "discovery"));
            }
        }
    };
    let entry = listed("{cidr: [10.244.3.9]}", "{services: [kubelet, kubelet-readonly]}");
    check(&entry, record, &["AN1352"]);
}

#[test]
fn a_privileged_pod_crashes_and_is_started_again() {
    let record = |recording: &mut Recording, is_quiet: bool| {
        for number in 1..=50 {
            if number == 25 && !is_quiet {
                recording.accept(STRANGER, 6443, "kube-apiserver", 1);
            }
            recording.step("created", number, Some("shop"), RISKS, nobody());
            recording.step("started", number, Some("shop"), RISKS, nobody());
            recording.step("stopped", number, Some("shop"), RISKS, nobody());
        }
    };
    check("", record, &["AN1007"]);
}

/// Everybody comes to what is published; one of them goes to Docker's own port as well.
#[test]
fn a_published_web_port_has_visitors() {
    let record = |recording: &mut Recording, is_quiet: bool| {
        recording.step("created", 1, None, &[], nobody());
        recording.step("started", 1, None, &[], nobody());
        for visitor in 1..=150 {
            recording.accept(&format!("198.18.1.{visitor}"), 8080, "other", visitor);
        }
        let origin = if is_quiet {
            nobody()
        } else {
            recording.accept("198.18.1.7", 2375, "docker", 1000);
            let request = recording.asks(
                "198.18.1.7",
                (2375, "docker"),
                1000,
                ("POST", "/containers/create", "create"),
            );
            json!({"conn": "0a1b2c3d4e5f-c3e8", "request": request, "class": "proved"})
        };
        recording.step("created", 2, None, RISKS, origin);
        recording.step("started", 2, None, RISKS, nobody());
    };
    check("watch: {ports: {2375: docker, 8080: other}}\n", record, &["AN1007"]);
}

/// The twin is a node of which the configuration has not been told.
#[test]
fn a_node_joins_and_is_reloaded() {
    let record = |recording: &mut Recording, is_quiet: bool| {
        let new = if is_quiet { "10.0.0.12" } else { "10.0.0.13" };
        for round in 0..10 {
            recording.accept(new, 6443, "kube-apiserver", round * 2);
            recording.accept(new, 10250, "kubelet", round * 2 + 1);
            recording.step("created", round + 1, Some("kube-system"), RISKS, nobody());
            recording.step("started", round + 1, Some("kube-system"), RISKS, nobody());
        }
    };
    check(&listed("{nodes: true}", "{services: [any]}"), record, &["AN1007"]);
}
