//! Requests on the unix socket of a runtime: each is a record with who asks, and proves the cause of what it makes.

use anyhow::{Context as _, Result, ensure};
use sensor_tests::dockerd::IMAGE;
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::podman::{LIMITS, Podman};
use sensor_tests::process::run;
use sensor_tests::record::Record;
use sensor_tests::sensor::Sensor;

use crate::Test;
use crate::credentials::run_client_inside;

pub const TESTS: &[Test] = &[
    ("requests_on_a_socket_are_records_with_the_caller_and_its_container", callers),
    ("a_request_on_a_socket_proves_the_cause_of_what_it_makes", proved),
    ("requests_on_the_socket_of_podman_are_records_and_prove_the_cause_of_what_they_make", podman),
];

fn watch(lab: &Lab) -> Result<Sensor> {
    let socket = lab.dockerd.socket();
    Sensor::start(&format!("{CONFIGURATION}watch: {{sockets: {{{}: docker}}}}\n", socket.display()))
}

fn is_request(record: &Record, route: &str, status: &str) -> bool {
    record.is("api_request", &[("api.route", route), ("api.status", status)])
}

fn callers(lab: &Lab) -> Result<()> {
    let sensor = watch(lab)?;
    lab.dockerd.docker(&["ps"])?;
    let id = run_client_inside(lab)?;
    let outside = sensor.wait("the list asked for from the host", |record| {
        is_request(record, "/containers/json", "200") && record.at("container").is_null()
    })?;
    let inside = sensor.wait("the list asked for from the container", |record| {
        is_request(record, "/containers/json", "200") && record.text("container.id") == id
    })?;
    let socket = lab.dockerd.socket();
    let socket = socket.to_str().context("path is not text")?;
    let fields = [
        ("socket.path", socket),
        ("socket.service", "docker"),
        ("api.service", "docker"),
        ("api.class", "discovery"),
        ("process.comm", "docker"),
    ];
    for request in [&outside, &inside] {
        ensure!(request.is("api_request", &fields), "{request}\nhas not {fields:?}");
        ensure!(request.text("api.user_agent").starts_with("Docker-Client/"), "{request}");
        ensure!(request.args().contains(&"ps"), "{request}");
        ensure!(!request.text("socket.conn").is_empty(), "{request}");
        ensure!(request.at("net").is_null() && request.at("verdict").is_null(), "{request}");
    }
    ensure!(inside.text("process.exe") == "/docker", "{inside}");
    sensor.stop().map(drop)
}

fn proved(lab: &Lab) -> Result<()> {
    let sensor = watch(lab)?;
    // A value that the client takes from its own environment.
    let arguments = ["run", "--detach", "--pid", "host", "--env", "TOKEN", IMAGE, "/bin/sleep", "600"];
    let id = run(lab.dockerd.client().env("TOKEN", "secret-value").args(arguments))?;
    lab.dockerd.docker(&["exec", &id, "/bin/echo", "x"])?;
    let created = sensor.wait("the creation", |record| record.is_container("created", &id))?;
    let started = sensor.wait("the start", |record| record.is_container("started", &id))?;
    let entered = sensor.wait("the exec", |record| record.is_container("exec", &id))?;
    let recording = sensor.stop()?;

    let cause = |step: &Record| {
        ensure!(step.text("origin.class") == "proved", "not proved: {step}");
        let causes: Vec<_> = recording
            .of_kind("api_request")
            .filter(|request| request.text("socket.conn") == step.text("origin.conn"))
            .collect();
        ensure!(!causes.is_empty(), "no request on that connection: {step}");
        Ok(causes)
    };
    for (step, route, status) in [
        (&created, "/containers/create", "201"),
        (&started, "/containers/{id}/start", "204"),
        (&entered, "/containers/{id}/exec", "201"),
    ] {
        let causes = cause(step)?;
        let request = causes.iter().find(|request| is_request(request, route, status));
        let request = request.with_context(|| format!("no {route}: {step}\n{causes:?}"))?;
        let named = step.text("origin.request");
        // A container starts before its request is answered.
        ensure!(
            step.text("container.action") == "started" || named == request.text("id"),
            "{step}\n{request}"
        );
        ensure!(request.text("process.comm") == "docker", "{request}");
    }
    let create =
        recording.of_kind("api_request").find(|request| is_request(request, "/containers/create", "201"));
    let create = create.context("just found")?;
    ensure!(create.list("api.body_flags").iter().any(|flag| flag == "host-pid"), "{create}");
    ensure!(create.text("api.image") == IMAGE, "{create}");
    let leak = recording.of_kind("api_request").find(|record| record.line.contains("secret-value"));
    ensure!(leak.is_none(), "an environment value: {leak:?}");
    Ok(())
}

fn podman(lab: &Lab) -> Result<()> {
    let podman = Podman::new(lab.directory(), &lab.image_archive()?)?;
    let service = podman.serve("runc")?;
    let socket = service.socket().to_str().context("path is not text")?;
    let sensor = Sensor::start(&format!("{CONFIGURATION}watch: {{sockets: {{{socket}: podman}}}}\n"))?;
    service.podman(&["ps"])?;
    let listed = sensor.wait("the list", |record| is_request(record, "/containers/json", "200"))?;
    let options = ["run", "--detach", "--network=none", "--pid=host", "--env", "TOKEN"];
    // Its value is in the client's environment.
    let arguments = [&options[..], &LIMITS, &[IMAGE, "/bin/sleep", "600"]].concat();
    let id = run(service.client().env("TOKEN", "secret-value").args(arguments))?;
    let created = sensor.wait("the creation", |record| record.is_container("created", &id))?;
    let create =
        sensor.wait("what asked for it", |record| is_request(record, "/containers/create", "201"))?;
    service.podman(&["rm", "--force", "--time=0", &id])?;
    let recording = sensor.stop()?;

    for (request, class) in [(&listed, "discovery"), (&create, "create")] {
        let fields = [
            ("socket.path", socket),
            ("socket.service", "podman"),
            ("api.service", "docker"),
            ("api.class", class),
            ("process.comm", "podman"),
        ];
        ensure!(request.is("api_request", &fields), "{request}\nhas not {fields:?}");
    }
    ensure!(listed.args().contains(&"ps"), "{listed}");
    ensure!(create.list("api.body_flags").iter().any(|flag| flag == "host-pid"), "{create}");
    ensure!(create.text("api.image").contains(IMAGE), "{create}");
    let cause = [("origin.class", "proved"), ("origin.conn", create.text("socket.conn"))];
    ensure!(created.is("container", &cause), "{created}\n{create}");
    let leak = recording.of_kind("api_request").find(|record| record.line.contains("secret-value"));
    ensure!(leak.is_none(), "an environment value: {leak:?}");
    Ok(())
}
