//! containerd as Debian installs it, asked by `ctr`.

use std::process::Command;

use anyhow::{Result, ensure};
use sensor_tests::containerd::KUBERNETES;
use sensor_tests::dockerd::IMAGE;
use sensor_tests::process::run;
use sensor_tests::sensor::Sensor;

use super::engines::{Container, systemctl};
use super::kinds::Row;
use crate::report::Outcome;

pub const ROWS: &[Row] = &[("ctr", ctr), ("kubernetes", kubernetes)];

const UNIT: &str = "containerd.service";
/// The namespace that `ctr` uses when nothing is said.
const DEFAULT: &str = "default";
/// Copies files: others need modules of the kernel or a device.
const SNAPSHOTTER: &str = "--snapshotter=native";

/// Puts the image of an archive into both namespaces.
pub fn fill_stores(archive: &str) -> Result<()> {
    start()?;
    for namespace in [DEFAULT, KUBERNETES] {
        in_namespace(namespace, &["images", "import", SNAPSHOTTER, archive])?;
    }
    systemctl(&["stop", UNIT])?;
    Ok(())
}

fn start() -> Result<()> {
    systemctl(&["start", UNIT]).map(drop)
}

fn in_namespace(namespace: &str, arguments: &[&str]) -> Result<String> {
    run(Command::new("ctr").args(["--namespace", namespace]).args(arguments))
}

fn ctr(sensor: &Sensor) -> Result<Outcome> {
    const ID: &str = "quay.one";
    start()?;
    in_namespace(DEFAULT, &["run", "--rm", SNAPSHOTTER, IMAGE, ID, "/bin/echo", "x"])?;
    let cgroup = format!("/{DEFAULT}/{ID}");
    let container = Container { id: ID, runtime: "containerd", name: None, image: None, cgroup: &cgroup };
    container.check(sensor, &["created", "started", "stopped", "removed"])?;
    let exec = sensor.wait_is("exec", &[("container.id", ID), ("exec.role", "workload")])?;
    ensure!(exec.args() == ["/bin/echo", "x"], "{exec}");
    Ok(Outcome::Seen)
}

/// What the kubelet asks of containerd on a node whose cgroups systemd makes.
fn kubernetes(sensor: &Sensor) -> Result<Outcome> {
    const POD_UID: &str = "6f1c2f0e-7d5a-4e0f-9b43-3f1d2a5b6c7d";
    const ETCD: &str = "registry.k8s.io/etcd:3.5";
    start()?;
    let id = "5a97dff9".repeat(8);
    let slice = format!("kubepods-burstable-pod{}.slice", POD_UID.replace('-', "_"));
    let place = format!("{slice}:cri-containerd:{id}");
    let sandbox_uid = format!("sandbox-uid={POD_UID}");
    let image = format!("image-name={ETCD}");
    let annotations = [
        "container-type=container",
        "container-name=etcd",
        &image,
        "sandbox-name=etcd-node-a",
        "sandbox-namespace=kube-system",
        &sandbox_uid,
    ]
    .map(|annotation| format!("--annotation=io.kubernetes.cri.{annotation}"));
    let mut arguments = vec!["run", "--detach", SNAPSHOTTER, "--runc-systemd-cgroup", "--cgroup", &place];
    arguments.extend(annotations.iter().map(String::as_str));
    arguments.extend([IMAGE, &id, "/bin/sleep", "600"]);
    in_namespace(KUBERNETES, &arguments)?;

    let cgroup = format!("/kubepods.slice/kubepods-burstable.slice/{slice}/cri-containerd-{id}.scope");
    let container =
        Container { id: &id, runtime: "containerd", name: Some("etcd"), image: Some(ETCD), cgroup: &cgroup };
    container.check(sensor, &["created", "started"])?;
    let fields = [
        ("k8s.namespace", "kube-system"),
        ("k8s.pod", "etcd-node-a"),
        ("k8s.pod_uid", POD_UID),
        ("k8s.container", "etcd"),
    ];
    let started = sensor.wait_container("started", &id)?;
    ensure!(started.is("container", &fields), "not {fields:?}: {started}");
    in_namespace(KUBERNETES, &["tasks", "delete", "--force", &id])?;
    container.check(sensor, &["stopped", "removed"])?;
    Ok(Outcome::Seen)
}
