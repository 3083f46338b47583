//! Containers of everything that is not Docker.

use anyhow::{Result, ensure};
use sensor_tests::containerd::{Containerd, KUBERNETES, NAMESPACE};
use sensor_tests::dockerd::IMAGE;
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::oci::{HybridControllers, Runtime};
use sensor_tests::podman::Podman;
use sensor_tests::sensor::Sensor;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("ctr_run_has_its_free_text_id_and_namespace", ctr),
    ("container_of_kubernetes_has_its_pod", kubernetes),
    ("podman_run_has_name_and_image", podman_runc),
    ("podman_run_with_crun_has_name_and_image", podman_crun),
    ("plain_runc_run_has_its_free_text_id", plain_runc),
    ("plain_crun_run_has_its_free_text_id", plain_crun),
    ("runc_container_older_than_the_sensor_is_known", older_runc),
];

/// Waits for the steps of a container and checks its runtime in each.
fn check_steps(sensor: &Sensor, id: &str, runtime: &str, steps: &[&str]) -> Result<()> {
    for action in steps {
        let record =
            sensor.wait(&format!("container {id} {action}"), |record| record.is_container(action, id))?;
        ensure!(record.text("container.runtime") == runtime, "not of {runtime}: {record}");
    }
    Ok(())
}

fn ctr(lab: &Lab) -> Result<()> {
    let containerd = Containerd::start(lab.directory(), &lab.image_archive()?)?;
    let sensor = Sensor::start(CONFIGURATION)?;
    containerd.ctr(&["run", "--rm", containerd.image(), "quay.one", "/bin/echo", "x"])?;
    check_steps(&sensor, "quay.one", "containerd", &["created", "started", "stopped"])?;
    let started = sensor.wait_container("started", "quay.one")?;
    // Only containerd's own database has the image.
    ensure!(started.text("container.image") == containerd.image(), "{started}");
    ensure!(started.text("container.created").ends_with('Z'), "no creation time: {started}");
    let exec = sensor.wait_is("exec", &[("container.id", "quay.one"), ("exec.role", "workload")])?;
    ensure!(exec.args() == ["/bin/echo", "x"], "{exec}");
    ensure!(exec.text("container.cgroup") == format!("/{NAMESPACE}/quay.one"), "{exec}");
    let client = sensor.wait("exec of ctr", |record| {
        record.is("exec", &[("exec.role", "client")]) && record.program() == "ctr"
    })?;
    ensure!(client.args().contains(&"quay.one"), "{client}");
    sensor.wait("removal", |record| record.is_container("removed", "quay.one"))?;
    sensor.stop().map(drop)
}

/// What the kubelet asks of containerd, asked by `ctr`: the namespace, the annotations of the CRI plug-in, and a cgroup
/// below that of the pod.
fn kubernetes(lab: &Lab) -> Result<()> {
    const POD_UID: &str = "6f1c2f0e-7d5a-4e0f-9b43-3f1d2a5b6c7d";
    let containerd = Containerd::start(lab.directory(), &lab.image_archive()?)?;
    let sensor = Sensor::start(CONFIGURATION)?;
    let id = "5a97dff9ab9f".repeat(6)[..64].to_owned();
    let cgroup = format!("/kubepods/burstable/pod{POD_UID}/{id}");
    let annotations = [
        "container-type=container",
        "container-name=etcd",
        "image-name=registry.k8s.io/etcd:3.5",
        "sandbox-name=etcd-node-a",
        "sandbox-namespace=kube-system",
        &format!("sandbox-uid={POD_UID}"),
    ]
    .map(|annotation| format!("--annotation=io.kubernetes.cri.{annotation}"));
    let mut arguments = vec!["run", "--detach", "--cgroup", &cgroup];
    arguments.extend(annotations.iter().map(String::as_str));
    arguments.extend([containerd.image(), &id, "/bin/sleep", "600"]);
    containerd.ctr_in(KUBERNETES, &arguments)?;
    check_steps(&sensor, &id, "containerd", &["created", "started"])?;
    let exec = sensor.wait_is("exec", &[("container.id", &id), ("exec.role", "workload")])?;
    let fields = [
        ("container.name", "etcd"),
        ("container.image", "registry.k8s.io/etcd:3.5"),
        ("container.cgroup", cgroup.as_str()),
        ("k8s.namespace", "kube-system"),
        ("k8s.pod", "etcd-node-a"),
        ("k8s.pod_uid", POD_UID),
        ("k8s.container", "etcd"),
    ];
    let started = sensor.wait_container("started", &id)?;
    ensure!(started.is("container", &fields), "{started}\nhas not {fields:?}");
    ensure!(exec.text("process.comm") == "sleep", "{exec}");
    ensure!(exec.is_about(&id, Some("etcd"), "registry.k8s.io/etcd:3.5"), "{exec}");
    containerd.ctr_in(KUBERNETES, &["tasks", "delete", "--force", &id])?;
    check_steps(&sensor, &id, "containerd", &["stopped", "removed"])?;
    let recording = sensor.stop()?;
    let of_pod = recording.records.iter().filter(|record| record.text("container.id") == id);
    for record in of_pod {
        // The cgroup alone tells the pod; what only files tell is there as soon as they were read.
        ensure!(record.text("k8s.pod_uid") == POD_UID, "no pod: {record}");
        let whole = record.text("quality.enrichment") != "ok" || record.text("k8s.pod") == "etcd-node-a";
        ensure!(whole, "no identity: {record}");
    }
    Ok(())
}

/// One podman container from start to removal.
fn podman(lab: &Lab, runtime: &str) -> Result<()> {
    let podman = Podman::new(lab.directory(), &lab.image_archive()?)?;
    let sensor = Sensor::start(CONFIGURATION)?;
    let name = format!("pod-{runtime}");
    let id = podman.run_detached(runtime, &name, IMAGE, &["/bin/sleep", "600"])?;
    check_steps(&sensor, &id, "podman", &["created", "started"])?;
    let started = sensor.wait_container("started", &id)?;
    let fields = [("container.name", name.as_str()), ("container.image", IMAGE)];
    ensure!(started.is("container", &fields), "{started}\nhas not {fields:?}");
    let exec = sensor.wait("exec of the runtime", |record| {
        record.is("exec", &[("exec.role", "runtime")])
            && record.program() == runtime
            && record.args().contains(&"create")
    })?;
    ensure!(exec.args().contains(&id.as_str()), "{exec}");
    ensure!(exec.ancestors().contains(&"conmon"), "the runtime is not called by conmon: {exec}");
    podman.run(&["rm", "--force", "--time=0", &name])?;
    check_steps(&sensor, &id, "podman", &["stopped", "removed"])?;
    sensor.stop().map(drop)
}

fn podman_runc(lab: &Lab) -> Result<()> {
    podman(lab, "runc")
}

fn podman_crun(lab: &Lab) -> Result<()> {
    let _parked = HybridControllers::park()?;
    podman(lab, "crun")
}

/// One container of an OCI runtime that nobody manages.
fn plain(lab: &Lab, program: &'static str) -> Result<()> {
    let mut runtime = Runtime::new(program, lab.directory(), lab.rootfs())?;
    let sensor = Sensor::start(CONFIGURATION)?;
    let id = format!("plain.{program}");
    runtime.run(&id, &["/bin/echo", "plain"])?;
    let steps = ["created", "started", "stopped", "removed"];
    for action in steps {
        sensor.wait(&format!("container {id} {action}"), |record| record.is_container(action, &id))?;
    }
    let exec = sensor.wait_is("exec", &[("container.id", &id), ("exec.role", "workload")])?;
    ensure!(exec.args() == ["/bin/echo", "plain"], "{exec}");
    ensure!(exec.text("container.cgroup") == format!("/{id}"), "{exec}");
    let call = sensor.wait("exec of the runtime", |record| {
        record.is("exec", &[("exec.role", "runtime")])
            && record.program() == program
            && record.args().contains(&"run")
    })?;
    ensure!(call.args().contains(&id.as_str()), "{call}");
    sensor.stop().map(drop)
}

fn plain_runc(lab: &Lab) -> Result<()> {
    plain(lab, "runc")
}

fn plain_crun(lab: &Lab) -> Result<()> {
    let _parked = HybridControllers::park()?;
    plain(lab, "crun")
}

fn older_runc(lab: &Lab) -> Result<()> {
    let mut runtime = Runtime::new("runc", lab.directory(), lab.rootfs())?;
    runtime.run_detached("older.one", &["/bin/sleep", "600"])?;
    let sensor = Sensor::start(CONFIGURATION)?;
    runtime.exec("older.one", &["/bin/echo", "again"])?;
    let exec = sensor.wait("the exec inside", |record| {
        record.is("exec", &[("container.id", "older.one")]) && record.args() == ["/bin/echo", "again"]
    })?;
    ensure!(exec.text("container.runtime") == "runc" && exec.is_about("older.one", None, IMAGE), "{exec}");
    sensor.wait("exec of the container", |record| record.is_container("exec", "older.one"))?;
    runtime.delete("older.one")?;
    check_steps(&sensor, "older.one", "runc", &["stopped", "removed"])?;
    sensor.stop().map(drop)
}
