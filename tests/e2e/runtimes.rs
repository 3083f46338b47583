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
    ("living_containers_of_one_name_are_told_apart", namesakes),
    ("ctr_containers_of_one_name_in_two_namespaces_are_told_apart", namesakes_of_ctr),
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

/// Two containers of one name under two root directories of runc: one that is there before the sensor, and an abnormal one.
fn namesakes(lab: &Lab) -> Result<()> {
    const ID: &str = "twin";
    let runtime = |name: &str| {
        let directory = lab.directory().join(name);
        std::fs::create_dir_all(&directory)?;
        let runtime = Runtime::new("runc", &directory, lab.rootfs())?;
        anyhow::Ok(runtime.with_root(directory.join("state"), &format!("/quaywatch-{name}")))
    };
    let (mut one, mut two) = (runtime("twin-one")?, runtime("twin-two")?);
    let sensor = Sensor::start(CONFIGURATION)?;
    one.run_detached(ID, &["/bin/sleep", "600"])?;
    two.run_detached(ID, &["/bin/sh", "-c", "chroot /host /bin/true || sleep 600"])?;
    two.exec(ID, &["/bin/echo", "second"])?;
    one.exec(ID, &["/bin/echo", "first"])?;
    one.delete(ID)?;
    let ended = |cgroup: &'static str| {
        move |record: &sensor_tests::record::Record| {
            record.is_container("removed", ID) && record.text("container.cgroup") == cgroup
        }
    };
    sensor.wait("the end of the first", ended("/quaywatch-twin-one/twin"))?;
    two.delete(ID)?;
    sensor.wait("the end of the second", ended("/quaywatch-twin-two/twin"))?;
    let recording = sensor.stop()?;
    for (cgroup, word, risks) in [
        ("/quaywatch-twin-one/twin", "first", serde_json::json!(["seccomp-off"])),
        ("/quaywatch-twin-two/twin", "second", serde_json::json!(["entrypoint-escape", "seccomp-off"])),
    ] {
        let of_one: Vec<_> = recording
            .records
            .iter()
            .filter(|record| record.text("container.id") == ID && record.text("container.cgroup") == cgroup)
            .collect();
        let number = of_one[0].at("container.namesake");
        ensure!(number.is_null() == (word == "first"), "{}", of_one[0]);
        for record in &of_one {
            ensure!(record.at("container.namesake") == number, "another one: {record}");
        }
        for action in ["created", "started", "exec", "stopped", "removed"] {
            let steps = of_one.iter().filter(|record| record.is_container(action, ID)).count();
            ensure!(steps == 1, "{cgroup} was {action} {steps} times");
        }
        for record in of_one.iter().filter(|record| record.text("quality.enrichment") == "ok") {
            ensure!(*record.at("container.risks") == risks, "not its own risks: {record}");
        }
        let removed = of_one.iter().find(|record| record.is_container("removed", ID));
        ensure!(
            removed.is_some_and(|record| *record.at("container.risks") == risks),
            "{cgroup}: {removed:?}"
        );
        let exec = of_one.iter().find(|record| record.args() == ["/bin/echo", word]);
        ensure!(exec.is_some(), "the exec in {cgroup} is not its own");
    }
    Ok(())
}

/// The same of containerd, whose namespaces have ids of their own.
fn namesakes_of_ctr(lab: &Lab) -> Result<()> {
    const ID: &str = "twin.ctr";
    let containerd = Containerd::start(lab.directory(), &lab.image_archive()?)?;
    let sensor = Sensor::start(CONFIGURATION)?;
    for (namespace, options) in [(NAMESPACE, &[][..]), (KUBERNETES, &["--net-host"])] {
        let arguments =
            [&["run", "--detach"], options, &[containerd.image(), ID, "/bin/sleep", "600"]].concat();
        containerd.ctr_in(namespace, &arguments)?;
    }
    let cgroups = [NAMESPACE, KUBERNETES].map(|namespace| format!("/{namespace}/{ID}"));
    for (namespace, cgroup) in [NAMESPACE, KUBERNETES].into_iter().zip(&cgroups) {
        containerd.ctr_in(namespace, &["tasks", "delete", "--force", ID])?;
        sensor.wait("its end", |record| {
            record.is_container("removed", ID) && record.text("container.cgroup") == *cgroup
        })?;
    }
    let recording = sensor.stop()?;
    for (cgroup, of_host) in cgroups.iter().zip([false, true]) {
        for action in ["created", "started", "stopped", "removed"] {
            let steps: Vec<_> = recording
                .records
                .iter()
                .filter(|record| {
                    record.is_container(action, ID) && record.text("container.cgroup") == *cgroup
                })
                .collect();
            let [step] = *steps else { anyhow::bail!("{cgroup} was {action} {} times", steps.len()) };
            ensure!(step.text("quality.enrichment") == "ok", "{step}");
            ensure!(step.text("container.image") == containerd.image(), "{step}");
            let said = step.list("container.risks").iter().any(|risk| risk == "host-net");
            ensure!(said == of_host, "not its own risks: {step}");
        }
    }
    Ok(())
}
