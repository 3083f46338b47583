//! Directory fixtures in the layout of each manager.

use std::os::unix::fs::{chown, symlink};
use std::process;

use serde_json::json;

use super::super::cgroupfs::Hierarchy;
use super::*;

mod risks;

const ID: &str = "4b6832429f73fdc1073278bf44f3f837ce2be1c5356e81c659af68152cc21f1c";
const OTHER: &str = "5a97dff9ab9f0000000000000000000000000000000000000000000000000000";

/// A host made of directories.
struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir_all(host.path("/proc")).unwrap();
        // Through it the kernel says where an open file is.
        symlink("/proc/self", host.path("/proc/self")).unwrap();
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, content: impl ToString) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content.to_string()).unwrap();
    }

    fn containers(&self) -> Containers {
        self.containers_with(&[])
    }

    /// With sockets of runtimes beside the built-in ones.
    fn containers_with(&self, sockets: &[&str]) -> Containers {
        let roots = Roots { host: self.directory.path().into(), proc: self.path("/proc") };
        let sockets = sockets.iter().map(|path| (Arc::from(*path), Runtime::Docker)).collect();
        let hierarchies = Hierarchies {
            unified: Some(Hierarchy { id: 0, mount_point: "/sys/fs/cgroup/unified".into() }),
            pids: Some(Hierarchy { id: 8, mount_point: "/sys/fs/cgroup/pids".into() }),
        };
        Containers::new(roots, hierarchies, sockets)
    }

    fn read(&self, query: &ContainerQuery) -> ContainerMetadata {
        self.containers().read(query)
    }
}

fn query(id: &str, runtime: Runtime) -> ContainerQuery {
    ContainerQuery {
        key: id.into(),
        id: id.into(),
        runtime,
        namespace: None,
        bundle: None,
        root: None,
        uid: None,
        made_unix_ns: None,
    }
}

/// Name, image and creation time, for comparison.
fn fields(metadata: &ContainerMetadata) -> [Option<&str>; 3] {
    [metadata.name.as_deref(), metadata.image.as_deref(), metadata.created.as_deref()]
}

fn docker_state() -> serde_json::Value {
    json!({
        "StreamConfig": {}, "State": {"Running": true}, "ID": ID, "Created": "2026-11-22T10:49:41.69319877Z",
        "Path": "/bin/sleep", "Config": {"Hostname": "x", "Image": "registry/app:1", "Labels": {}},
        "Image": "sha256:3abf", "Name": "/second", "HostnamePath": "x"
    })
}

const DOCKER_FIELDS: [Option<&str>; 3] =
    [Some("second"), Some("registry/app:1"), Some("2026-11-22T10:49:41.693198770Z")];

#[test]
fn docker_container_is_read_from_the_default_root() {
    let host = Host::new();
    host.write(&format!("/var/lib/docker/containers/{ID}/config.v2.json"), docker_state());
    for runtime in [Runtime::Docker, Runtime::Unknown] {
        let metadata = host.read(&query(ID, runtime));
        assert_eq!((fields(&metadata), metadata.runtime), (DOCKER_FIELDS, Some(Runtime::Docker)));
        assert_eq!(metadata.k8s, None);
    }
    assert_eq!(host.read(&query(ID, Runtime::Podman)).name, None);
}

#[test]
fn docker_data_root_of_the_configuration_is_searched() {
    let host = Host::new();
    host.write("/etc/docker/daemon.json", json!({"data-root": "/srv/docker", "log-level": "warn"}));
    host.write(&format!("/srv/docker/containers/{ID}/config.v2.json"), docker_state());
    assert_eq!(fields(&host.read(&query(ID, Runtime::Docker))), DOCKER_FIELDS);
}

/// Writes the procfs entry of a daemon; its mount namespace is `mounts`.
fn write_daemon(host: &Host, pid: u32, arguments: &str, mounts: &str) {
    host.write(&format!("/proc/{pid}/comm"), "dockerd\n");
    host.write(&format!("/proc/{pid}/cmdline"), arguments);
    fs::create_dir_all(host.path(&format!("/proc/{pid}/ns"))).unwrap();
    symlink(mounts, host.path(&format!("/proc/{pid}/ns/mnt"))).unwrap();
    symlink("/srv", host.path(&format!("/proc/{pid}/cwd"))).unwrap();
}

#[test]
fn docker_data_root_of_a_running_daemon_is_searched() {
    let host = Host::new();
    write_daemon(&host, 1, "init\0", "mnt:[1]");
    write_daemon(&host, 70, "dockerd\0--data-root\0data\0-H\0unix:///x\0", "mnt:[1]");
    write_daemon(&host, 71, "dockerd\0--config-file=/opt/daemon.json\0", "mnt:[1]");
    host.write("/opt/daemon.json", json!({"graph": "/opt/graph"}));
    write_daemon(&host, 72, "dockerd\0--data-root=/container\0", "mnt:[2]");

    let containers = host.containers();
    for root in ["/srv/data", "/opt/graph"] {
        host.write(&format!("{root}/containers/{ID}/config.v2.json"), docker_state());
        assert_eq!(fields(&containers.read(&query(ID, Runtime::Docker))), DOCKER_FIELDS, "{root}");
        fs::remove_dir_all(host.path(root)).unwrap();
    }
    // A daemon in other mounts has its root there, and is not asked about this host.
    host.write(&format!("/container/containers/{ID}/config.v2.json"), docker_state());
    assert_eq!(containers.read(&query(ID, Runtime::Docker)).name, None);
}

#[test]
fn docker_daemon_started_later_is_found() {
    let host = Host::new();
    let containers = host.containers();
    host.write("/etc/docker/daemon.json", json!({"data-root": "/srv/docker"}));
    host.write(&format!("/srv/docker/containers/{ID}/config.v2.json"), docker_state());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while containers.read(&query(ID, Runtime::Docker)).name.is_none() {
        assert!(std::time::Instant::now() < deadline, "the new data root was never searched");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn docker_pod_labels_are_the_identity() {
    let host = Host::new();
    let mut state = docker_state();
    state["Config"]["Labels"] = json!({
        "io.kubernetes.pod.name": "web-0", "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.pod.uid": "u-1", "io.kubernetes.container.name": "web", "other": "x"
    });
    host.write(&format!("/var/lib/docker/containers/{ID}/config.v2.json"), state);
    let k8s = host.read(&query(ID, Runtime::Docker)).k8s.unwrap();
    let identity = [&k8s.namespace, &k8s.pod, &k8s.pod_uid, &k8s.container].map(|field| field.as_deref());
    assert_eq!(identity, [Some("shop"), Some("web-0"), Some("u-1"), Some("web")]);
}

fn cri_config() -> serde_json::Value {
    json!({"ociVersion": "1.0.2", "process": {"args": ["x"]}, "annotations": {
        "io.kubernetes.cri.container-name": "etcd", "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.image-name": "registry.k8s.io/etcd:3.5", "io.kubernetes.cri.sandbox-id": OTHER,
        "io.kubernetes.cri.sandbox-name": "etcd-node-a", "io.kubernetes.cri.sandbox-namespace": "kube-system",
        "io.kubernetes.cri.sandbox-uid": "0b1c"
    }})
}

#[test]
fn containerd_cri_container_has_its_pod() {
    let host = Host::new();
    let tasks = "/run/containerd/io.containerd.runtime.v2.task";
    host.write(&format!("{tasks}/k8s.io/{ID}/config.json"), cri_config());
    for runtime in [Runtime::Containerd, Runtime::Unknown] {
        let metadata = host.read(&query(ID, runtime));
        assert_eq!(fields(&metadata), [Some("etcd"), Some("registry.k8s.io/etcd:3.5"), None]);
        assert_eq!(metadata.runtime, Some(Runtime::Containerd));
        let k8s = metadata.k8s.unwrap();
        let identity = [&k8s.namespace, &k8s.pod, &k8s.pod_uid, &k8s.container].map(|field| field.as_deref());
        assert_eq!(identity, [Some("kube-system"), Some("etcd-node-a"), Some("0b1c"), Some("etcd")]);
    }
    let elsewhere = ContainerQuery { namespace: Some("lab".into()), ..query(ID, Runtime::Containerd) };
    assert_eq!(host.read(&elsewhere).name, None);
}

#[test]
fn containerd_container_with_a_free_text_id_is_found_by_its_bundle() {
    let host = Host::new();
    let bundle = "/srv/state/io.containerd.runtime.v2.task/lab/my task";
    host.write(&format!("{bundle}/config.json"), json!({"ociVersion": "1.0.2"}));
    let query = ContainerQuery { bundle: Some(bundle.into()), ..query("my task", Runtime::Unknown) };
    let containers = host.containers();
    let metadata = containers.read(&query);
    assert_eq!((fields(&metadata), metadata.runtime), ([None; 3], Some(Runtime::Containerd)));
    assert!(containers.exists(&query));
    fs::remove_dir_all(host.path(bundle)).unwrap();
    assert!(!containers.exists(&query));
}

#[test]
fn containerd_database_has_what_the_bundle_lacks() {
    use super::bolt::tests::{Node, write};

    let host = Host::new();
    let bundle = "/srv/state/io.containerd.runtime.v2.task/lab/one";
    host.write(&format!("{bundle}/config.json"), json!({"ociVersion": "1.0.2"}));
    symlink("/srv/root/io.containerd.runtime.v2.task/lab/one", host.path(&format!("{bundle}/work"))).unwrap();
    let mut created = vec![1];
    created.extend((1_795_344_598_i64 + 62_135_596_800).to_be_bytes());
    created.extend([0, 0, 0, 0, 0xff, 0xff]);
    let container = [
        ("createdat", Node::Value(&created)),
        ("image", Node::Value(b"docker.io/library/app:1")),
        ("labels", Node::Bucket(&[("nerdctl/name", Node::Value(b"web"))])),
    ];
    host.write("/srv/root/io.containerd.metadata.v1.bolt/meta.db", "");
    write(
        &[(
            "v1",
            Node::Bucket(&[(
                "lab",
                Node::Bucket(&[("containers", Node::Bucket(&[("one", Node::Bucket(&container))]))]),
            )]),
        )],
        &host.path("/srv/root/io.containerd.metadata.v1.bolt/meta.db"),
    );
    let query = ContainerQuery { bundle: Some(bundle.into()), ..query("one", Runtime::Unknown) };
    let expected = [Some("web"), Some("docker.io/library/app:1"), Some("2026-11-22T10:49:58.000000000Z")];
    assert_eq!(fields(&host.read(&query)), expected);
}

fn crio_config() -> serde_json::Value {
    json!({"ociVersion": "1.0.2", "annotations": {
        "io.container.manager": "cri-o", "io.kubernetes.cri-o.ContainerID": ID,
        "io.kubernetes.cri-o.ContainerName": "k8s_web_web-0_shop_u-1_0",
        "io.kubernetes.cri-o.ContainerType": "container",
        "io.kubernetes.cri-o.Created": "2022-01-07T11:33:26.50092793-06:00",
        "io.kubernetes.cri-o.Image": "9d3", "io.kubernetes.cri-o.ImageName": "quay.io/web:2",
        "io.kubernetes.cri-o.KubeName": "must not count as pod of a container",
        "io.kubernetes.cri-o.Labels":
            "{\"io.kubernetes.container.name\":\"web\",\"io.kubernetes.pod.name\":\"web-0\",\
              \"io.kubernetes.pod.namespace\":\"shop\",\"io.kubernetes.pod.uid\":\"u-1\",\"app\":\"web\"}",
        "io.kubernetes.cri-o.SandboxID": OTHER
    }})
}

#[test]
fn crio_container_is_read_from_its_annotations() {
    let host = Host::new();
    let directory = format!("/var/lib/containers/storage/overlay-containers/{ID}");
    host.write(&format!("{directory}/userdata/config.json"), crio_config());
    host.write(
        "/var/lib/containers/storage/overlay-containers/containers.json",
        json!([{"id": ID, "names": ["k8s_web_web-0_shop_u-1_0"], "metadata": "{}"}]),
    );
    for runtime in [Runtime::Crio, Runtime::Unknown] {
        let metadata = host.read(&query(ID, runtime));
        let expected =
            [Some("k8s_web_web-0_shop_u-1_0"), Some("quay.io/web:2"), Some("2022-01-07T17:33:26.500927930Z")];
        assert_eq!((fields(&metadata), metadata.runtime), (expected, Some(Runtime::Crio)));
        let k8s = metadata.k8s.unwrap();
        let identity = [&k8s.namespace, &k8s.pod, &k8s.pod_uid, &k8s.container].map(|field| field.as_deref());
        assert_eq!(identity, [Some("shop"), Some("web-0"), Some("u-1"), Some("web")]);
    }
}

#[test]
fn crio_sandbox_is_its_pod() {
    let host = Host::new();
    let config = json!({"annotations": {
        "io.kubernetes.cri-o.ContainerType": "sandbox", "io.kubernetes.cri-o.KubeName": "web-0",
        "io.kubernetes.cri-o.Namespace": "shop", "io.kubernetes.cri-o.Image": "registry/pause:3.5"
    }});
    host.write(&format!("/var/lib/containers/storage/overlay-containers/{ID}/userdata/config.json"), config);
    let metadata = host.read(&query(ID, Runtime::Crio));
    assert_eq!(
        (metadata.runtime, metadata.image.as_deref()),
        (Some(Runtime::Crio), Some("registry/pause:3.5"))
    );
    let k8s = metadata.k8s.unwrap();
    assert_eq!((k8s.namespace.as_deref(), k8s.pod.as_deref()), (Some("shop"), Some("web-0")));
}

/// Writes a podman container below a storage directory.
fn write_podman(host: &Host, storage: &str, driver: &str) {
    let directory = format!("{storage}/{driver}-containers");
    host.write(
        &format!("{directory}/{ID}/userdata/config.json"),
        json!({"annotations": {
            "io.container.manager": "libpod", "io.kubernetes.cri-o.Created": "2026-11-22T10:50:14.368717934Z"
        }}),
    );
    host.write(
        &format!("{directory}/containers.json"),
        json!([
            {"id": OTHER, "names": ["other"], "metadata": "{\"image-name\":\"other\"}"},
            {"id": ID, "names": ["podone"], "image": "3abf", "created": "2026-11-22T10:50:14.380172275Z",
             "metadata": "{\"image-name\":\"localhost/app:1\",\"name\":\"podone\",\"created-at\":1795344614}"},
        ]),
    );
}

const PODMAN_FIELDS: [Option<&str>; 3] =
    [Some("podone"), Some("localhost/app:1"), Some("2026-11-22T10:50:14.368717934Z")];

#[test]
fn podman_container_is_read_from_default_configured_and_given_storage() {
    for (storage, driver, given) in [
        ("/var/lib/containers/storage", "overlay", false),
        ("/srv/storage", "vfs", false),
        ("/somewhere/else", "btrfs", true),
    ] {
        let host = Host::new();
        host.write(
            "/etc/containers/storage.conf",
            "[storage]\n# graphroot = \"/no\"\n graphroot = \"/srv/storage\" # x\n",
        );
        write_podman(&host, storage, driver);
        let bundle = format!("{storage}/{driver}-containers/{ID}/userdata");
        let query = ContainerQuery { bundle: given.then(|| bundle.into()), ..query(ID, Runtime::Unknown) };
        let metadata = host.read(&query);
        assert_eq!(
            (fields(&metadata), metadata.runtime),
            (PODMAN_FIELDS, Some(Runtime::Podman)),
            "{storage}"
        );
    }
}

/// A user that the files of a test can belong to.
fn some_user() -> u32 {
    match rustix::process::geteuid().as_raw() {
        0 => 1234,
        uid => uid,
    }
}

fn chown_all(directory: &Path, uid: u32) {
    chown(directory, Some(uid), None).unwrap();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        chown_all(&entry.unwrap().path(), uid);
    }
}

#[test]
fn rootless_podman_container_is_read_from_its_users_home_and_from_no_other() {
    let uid = some_user();
    let host = Host::new();
    host.write(
        "/etc/passwd",
        format!("root:x:0:0::/root:/bin/sh\nann:x:{uid}:{uid}:Ann:/home/ann:/bin/sh\n"),
    );
    write_podman(&host, "/home/ann/.local/share/containers/storage", "overlay");
    chown_all(&host.path("/home/ann"), uid);
    let of = |uid| ContainerQuery { uid: Some(uid), ..query(ID, Runtime::Podman) };
    assert_eq!(fields(&host.read(&of(uid))), PODMAN_FIELDS);
    assert_eq!(fields(&host.read(&of(uid + 1))), [None; 3]);
    assert_eq!(fields(&host.read(&of(0))), [None; 3]);

    // Another user's home that is linked to it is not read in that user's name.
    host.write("/etc/passwd", format!("bob:x:{}:{}:Bob:/home/bob:/bin/sh\n", uid + 1, uid + 1));
    symlink("ann", host.path("/home/bob")).unwrap();
    assert_eq!(fields(&host.read(&of(uid + 1))), [None; 3]);
}

fn runc_state(bundle: &str) -> serde_json::Value {
    json!({
        "id": ID, "init_process_pid": 10160, "created": "2199-11-22T10:50:34.365726853Z",
        "config": {"cgroups": {"path": "/plain.one"}, "labels": [format!("bundle={bundle}")]},
        "cgroup_paths": {
            "": "/sys/fs/cgroup/unified/plain.one", "pids": "/sys/fs/cgroup/pids/plain.one",
            "cpu": "/sys/fs/cgroup/cpu/elsewhere", "name=systemd": "/sys/fs/cgroup/systemd/plain.one"
        }
    })
}

#[test]
fn plain_runc_container_is_read_from_its_state() {
    let host = Host::new();
    host.write("/run/runc/plain.one/state.json", runc_state("/srv/bundle"));
    host.write(
        "/srv/bundle/config.json",
        json!({"annotations": {"org.opencontainers.image.ref.name": "app:1"}}),
    );
    let metadata = host.read(&query("plain.one", Runtime::Runc));
    assert_eq!(fields(&metadata), [None, Some("app:1"), Some("2199-11-22T10:50:34.365726853Z")]);
    assert_eq!(metadata.runtime, Some(Runtime::Runc));
}

#[test]
fn a_bundle_that_was_overwritten_says_nothing_of_the_container_made_before() {
    let host = Host::new();
    let config = |privileged: bool| {
        let capabilities = if privileged { json!(["CAP_SYS_ADMIN"]) } else { json!([]) };
        json!({"process": {"args": ["x"], "capabilities": {"bounding": capabilities}},
            "annotations": {"org.opencontainers.image.ref.name": "app"}})
    };
    host.write("/srv/bundle/config.json", config(false));
    let made_unix_ns = Some(jiff::Timestamp::now().as_nanosecond() as u64);
    let old =
        ContainerQuery { bundle: Some("/srv/bundle".into()), made_unix_ns, ..query("old", Runtime::Runc) };
    assert!(host.read(&old).risks.is_some());

    std::thread::sleep(std::time::Duration::from_millis(50));
    host.write("/srv/bundle/config.json", config(true));
    let found = host.read(&old);
    assert_eq!((found.risks, found.image, found.spec_refused), (None, None, true));
    let made_unix_ns = Some(jiff::Timestamp::now().as_nanosecond() as u64);
    let new = host.read(&ContainerQuery { id: "new".into(), made_unix_ns, ..old });
    assert!(new.risks.is_some_and(|risks| !risks.list.is_empty()));

    // Of one that is older than the sensor its runtime knows when it was made.
    let mut state = runc_state("/srv/bundle");
    for (created, known) in [("2026-01-01T00:00:00Z", false), ("2999-01-01T00:00:00Z", true)] {
        state["created"] = json!(created);
        host.write("/run/runc/old/state.json", &state);
        let found = host.read(&query("old", Runtime::Runc));
        assert_eq!((found.risks.is_some(), found.spec_refused), (known, !known), "{created}");
        assert!(found.created.is_some());
        let existing = host.containers().existing();
        assert_eq!(existing[0].risks.is_some(), known, "{created}");
    }
}

#[test]
fn state_of_the_runtimes_gives_the_containers_that_exist() {
    let host = Host::new();
    host.write("/run/runc/plain.one/state.json", runc_state("/srv/bundle"));
    host.write(
        "/run/crun/plain.two/status",
        json!({"pid": 1, "cgroup-path": "/plain.two", "bundle": "/b", "created": "2026-11-22T10:51:17.295034Z"}),
    );
    let bundle = format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}");
    host.write(&format!("/run/containerd/runc/k8s.io/{ID}/state.json"), runc_state(&bundle));
    host.write(&format!("{bundle}/config.json"), cri_config());
    host.write("/run/runc/broken/state.json", "{");
    host.write("/run/runc/file-without-state/other", "");

    let mut existing = host.containers().existing();
    existing.sort_by(|a, b| a.id.cmp(&b.id));
    let found: Vec<_> = existing
        .iter()
        .map(|metadata| (&*metadata.id, metadata.runtime.unwrap(), metadata.cgroups.clone()))
        .collect();
    assert_eq!(
        found,
        [
            (ID, Runtime::Containerd, vec!["/plain.one".into()]),
            ("plain.one", Runtime::Runc, vec!["/plain.one".into()]),
            ("plain.two", Runtime::Runc, vec!["/plain.two".into()]),
        ]
    );
    assert_eq!(existing[0].name.as_deref(), Some("etcd"));
}

/// Writes what crun notes of a user's container, as that user.
fn write_users_state(host: &Host, uid: u32, id: &str, cgroup: &str) {
    let status = json!({"cgroup-path": cgroup, "bundle": format!("/run/user/{uid}/bundle")});
    host.write(&format!("/run/user/{uid}/crun/{id}/status"), status);
    let annotations = json!({"annotations": {"nerdctl/name": "mine"}});
    host.write(&format!("/run/user/{uid}/bundle/config.json"), annotations);
    chown_all(&host.path(&format!("/run/user/{uid}")), uid);
}

#[test]
fn a_users_state_gives_no_cgroups_but_those_of_the_users_containers() {
    let uid = some_user();
    let slice = format!("/user.slice/user-{uid}.slice");
    let good = format!("{slice}/user@{uid}.service/user.slice/libpod-x.scope");
    let cases = [
        (good.clone(), true),
        ("/system.slice/containerd.service".into(), false),
        ("/".into(), false),
        ("/user.slice".into(), false),
        (slice.clone(), false),
        (format!("{slice}/"), false),
        (format!("{slice}/user@{uid}.service"), false),
        (format!("{slice}/user@{uid}.service/"), false),
        (format!("{slice}/session-1.scope"), false),
        (format!("{slice}/a/../../../system.slice/x.service"), false),
        (format!("{slice}/./x"), false),
        (format!("/user.slice/user-{}.slice/user@1.service/x", uid + 1), false),
        (format!("/x{good}"), false),
        (good[1..].into(), false),
    ];
    for (cgroup, is_his) in cases {
        let host = Host::new();
        fs::create_dir_all(host.path("/run/systemd/system")).unwrap();
        write_users_state(&host, uid, "x", &cgroup);
        let found: Vec<_> =
            host.containers().existing().into_iter().flat_map(|metadata| metadata.cgroups).collect();
        assert_eq!(found, if is_his { vec![Arc::from(cgroup.as_str())] } else { vec![] }, "{cgroup}");
    }
}

#[test]
fn without_systemd_a_users_cgroup_is_one_that_was_handed_over() {
    let uid = some_user();
    let host = Host::new();
    write_users_state(&host, uid, "x", "/users/x");
    let cgroups = host.path("/cgroup");
    let hierarchies =
        Hierarchies { unified: Some(Hierarchy { id: 0, mount_point: cgroups.clone() }), pids: None };
    let containers = Containers::new(host.containers().roots, hierarchies, Vec::new());
    assert_eq!(containers.existing(), [], "there is no such cgroup");
    fs::create_dir_all(cgroups.join("users/x")).unwrap();
    if rustix::process::geteuid().is_root() {
        assert_eq!(containers.existing(), [], "it is root's");
    }
    chown_all(&cgroups.join("users"), uid);
    assert_eq!(containers.existing().len(), 1);
}

#[test]
fn a_users_state_never_touches_an_id_of_root() {
    let uid = some_user();
    let cgroup = format!("/user.slice/user-{uid}.slice/user@{uid}.service/x");
    let host = Host::new();
    fs::create_dir_all(host.path("/run/systemd/system")).unwrap();
    // One that root's runtime has state of, one that only its manager has, and one of the user's own.
    host.write("/run/crun/plain/status", json!({"cgroup-path": "/plain"}));
    host.write(&format!("/var/lib/docker/containers/{ID}/config.v2.json"), docker_state());
    for id in ["plain", ID, "own"] {
        write_users_state(&host, uid, id, &cgroup);
    }
    let containers = host.containers();
    let mut existing = containers.existing();
    existing.sort_by(|a, b| a.id.cmp(&b.id));
    let found: Vec<_> = existing
        .iter()
        .map(|metadata| (&*metadata.id, metadata.name.as_deref(), metadata.cgroups.clone()))
        .collect();
    assert_eq!(found, [("own", Some("mine"), vec![cgroup.into()]), ("plain", None, vec!["/plain".into()])]);

    // The same when the user's runtime is seen at work.
    let bundle = Some(format!("/run/user/{uid}/bundle").into());
    let of_user =
        |id| ContainerQuery { uid: Some(uid), bundle: bundle.clone(), ..query(id, Runtime::Unknown) };
    assert_eq!(fields(&host.read(&of_user(ID))), DOCKER_FIELDS);
    assert_eq!(host.read(&of_user("plain")).name, None);
    assert_eq!(host.read(&of_user("own")).name.as_deref(), Some("mine"));
    // Nor does removing the user's state count as a removal of root's container.
    fs::remove_dir_all(host.path(&format!("/run/user/{uid}"))).unwrap();
    assert!(containers.exists(&of_user(ID)));
    let bundle = Some("/home/ann/vfs-containers/x/userdata".into());
    assert!(host.containers().exists(&ContainerQuery { bundle, ..of_user(ID) }));
}

#[test]
fn megabytes_of_labels_hide_nothing() {
    let host = Host::new();
    let mut state = docker_state();
    state["Config"]["Labels"] =
        json!({"a": "x".repeat(5 << 20), "io.kubernetes.pod.name": "web-0", "z": {"b": ["x".repeat(100)]}});
    host.write(&format!("/var/lib/docker/containers/{ID}/config.v2.json"), &state);
    let metadata = host.read(&query(ID, Runtime::Docker));
    assert_eq!(fields(&metadata), DOCKER_FIELDS);
    assert_eq!(metadata.k8s.unwrap().pod.as_deref(), Some("web-0"));
}

#[test]
fn removal_is_the_end_of_a_state_that_was_there() {
    let host = Host::new();
    let containers = host.containers();
    let docker = query(ID, Runtime::Docker);
    assert!(containers.exists(&docker), "nothing is known of a container that was never found");
    host.write(&format!("/var/lib/docker/containers/{ID}/config.v2.json"), docker_state());
    assert!(containers.exists(&docker));
    fs::remove_dir_all(host.path(&format!("/var/lib/docker/containers/{ID}"))).unwrap();
    assert!(!containers.exists(&docker));
}

#[test]
fn removal_of_short_lived_containers_is_known_by_where_their_state_must_have_been() {
    let host = Host::new();
    let containers = host.containers();
    let of =
        |bundle: &str, runtime| ContainerQuery { bundle: Some(bundle.into()), ..query("quick", runtime) };

    let plain = of("/srv/bundle", Runtime::Runc);
    fs::create_dir_all(host.path("/run/crun/quick")).unwrap();
    assert!(containers.exists(&plain), "its state file is not written yet");
    fs::remove_dir_all(host.path("/run/crun/quick")).unwrap();
    assert!(!containers.exists(&plain));
    assert!(!host.containers().exists(&plain), "nobody saw it in time");
    assert!(host.containers().exists(&of("/srv/bundle", Runtime::Unknown)), "it may be anybody's");

    for (bundle, directory) in [
        (
            "/run/containerd/io.containerd.runtime.v2.task/lab/quick",
            "/run/containerd/io.containerd.runtime.v2.task/lab/quick",
        ),
        ("/srv/storage/vfs-containers/quick/userdata", "/srv/storage/vfs-containers/quick"),
    ] {
        fs::create_dir_all(host.path(bundle)).unwrap();
        let query = of(bundle, Runtime::Unknown);
        assert!(host.containers().exists(&query), "{bundle}");
        fs::remove_dir_all(host.path(directory)).unwrap();
        assert!(!host.containers().exists(&query), "{bundle}");
    }
}

#[test]
fn ids_that_are_paths_are_refused() {
    let host = Host::new();
    host.write("/var/lib/docker/config.v2.json", docker_state());
    host.write("/var/lib/docker/containers/config.v2.json", docker_state());
    for id in ["", ".", "..", "../containers", "/", "a/../..", "x\0y"] {
        assert_eq!(
            host.read(&query(id, Runtime::Unknown)),
            ContainerMetadata { id: id.into(), ..Default::default() }
        );
    }
}

#[test]
fn hostile_state_gives_nothing_or_bounded_strings() {
    let host = Host::new();
    let path = format!("/var/lib/docker/containers/{ID}/config.v2.json");
    for content in ["", "{", "[1]", "null", "{\"ID\":{}}", "{\"ID\":\"x\"}", "\u{0}\u{1}"] {
        host.write(&path, content);
        assert_eq!(fields(&host.read(&query(ID, Runtime::Docker))), [None; 3], "{content}");
    }
    let mut state = docker_state();
    state["Name"] = json!("ü".repeat(STRING_MAX));
    state["Created"] = json!("yesterday");
    state["Config"]["Image"] = json!("");
    host.write(&path, state);
    let metadata = host.read(&query(ID, Runtime::Docker));
    assert_eq!(metadata.name.unwrap().len(), STRING_MAX);
    assert_eq!((metadata.image, metadata.created), (None, None));

    fs::remove_file(host.path(&path)).unwrap();
    symlink("/etc/hostname", host.path(&path)).unwrap();
    assert_eq!(fields(&host.read(&query(ID, Runtime::Docker))), [None; 3]);
    fs::remove_file(host.path(&path)).unwrap();
    let status = process::Command::new("mkfifo").arg(host.path(&path)).status().unwrap();
    assert!(status.success());
    assert_eq!(fields(&host.read(&query(ID, Runtime::Docker))), [None; 3], "a pipe must not be waited for");
}

#[test]
fn zero_time_of_go_is_no_time() {
    assert_eq!(time("0001-01-01T00:00:00Z"), None);
    assert_eq!(time("2026-11-22T10:51:17Z").as_deref(), Some("2026-11-22T10:51:17.000000000Z"));
    assert_eq!(time(""), None);
}
