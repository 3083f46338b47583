//! What tells of a container, read from the files of each manager.

use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use super::*;

mod pods;

mod places;

const POD: &str = "6f1c2f0e-7d5a-4e0f-9b43-3f1d2a5b6c7d";
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];
const MOBY: &str = "/run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby";

/// A spec as docker 28 writes it when nothing is asked for, shortened.
fn plain_spec() -> Value {
    let namespaces = ["mount", "network", "uts", "pid", "ipc"].map(|kind| json!({"type": kind}));
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": ["/bin/sleep", "600"], "env": [], "cwd": "/",
            "capabilities": {"bounding": DEFAULT_CAPABILITIES, "effective": DEFAULT_CAPABILITIES}
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
            {"destination": "/etc/hosts", "type": "bind", "options": ["rbind", "rprivate"],
             "source": format!("/var/lib/docker/containers/{ID}/hosts")}
        ],
        "linux": {
            "namespaces": namespaces, "resources": {"devices": [
                {"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
                {"allow": false, "type": "c", "major": 10, "minor": 229, "access": "rwm"}
            ]},
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"action": "SCMP_ACT_ALLOW"}]},
            "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"]
        }
    })
}

fn bind(source: &str, options: &[&str]) -> Value {
    json!({"destination": "/there", "type": "bind", "source": source, "options": options})
}

fn add_mounts(spec: &mut Value, mounts: impl IntoIterator<Item = Value>) {
    spec["mounts"].as_array_mut().unwrap().extend(mounts);
}

/// The names of a container's risks; `None` where nothing is known of them.
fn risks(metadata: &ContainerMetadata) -> Option<Vec<String>> {
    let risks = metadata.risks.as_ref()?;
    Some(risks.list.iter().map(|risk| risk.name().into_owned()).collect())
}

/// The risks of a spec in a bundle of containerd for docker.
fn risks_of(host: &Host, spec: &Value) -> Option<Vec<String>> {
    let bundle = format!("{MOBY}/{ID}");
    host.write(&format!("{bundle}/config.json"), spec);
    let query = ContainerQuery { bundle: Some(bundle.into()), ..query(ID, Runtime::Unknown) };
    risks(&host.read(&query))
}

#[track_caller]
fn expect(host: &Host, spec: &Value, expected: &[&str]) {
    assert_eq!(risks_of(host, spec).expect("a spec"), expected);
}

#[test]
fn a_default_container_is_known_to_have_none() {
    expect(&Host::new(), &plain_spec(), &[]);
}

#[test]
fn sources_of_mounts_are_what_they_lead_to() {
    let host = Host::new();
    for directory in ["etc/kubernetes", "srv", "root", "proc/1"] {
        fs::create_dir_all(host.path(directory)).unwrap();
    }
    symlink("/etc/kubernetes", host.path("/srv/manifests")).unwrap();
    symlink("../root", host.path("/srv/back")).unwrap();
    for (source, options, name) in [
        ("/", &["rbind", "rslave"][..], "mount:/:rw"),
        ("//", &["bind"], "mount:/:rw"),
        ("/.", &["bind", "ro"], "mount:/"),
        ("/proc/1/root", &["rbind"], "mount:/:rw"),
        ("/proc/1/root/etc", &["rbind", "rw", "ro"], "mount:/etc"),
        ("/srv/manifests", &["rbind", "ro", "rshared"], "mount:/etc/kubernetes"),
        ("/srv/back", &["rbind"], "mount:/root:rw"),
        ("/srv/../etc//kubernetes/", &["rbind"], "mount:/etc/kubernetes:rw"),
        ("../../../../../../../../etc", &["rbind"], "mount:/etc:rw"),
    ] {
        let mut spec = plain_spec();
        add_mounts(&mut spec, [bind(source, options)]);
        expect(&host, &spec, &[name]);
    }
    // Of any type, as long as it is a bind.
    let mut spec = plain_spec();
    add_mounts(
        &mut spec,
        [json!({"destination": "/x", "type": "none", "source": "/etc", "options": ["bind"]})],
    );
    expect(&host, &spec, &["mount:/etc:rw"]);
}

#[test]
fn sockets_are_found_where_daemons_have_them() {
    let host = Host::new();
    fs::create_dir_all(host.path("/run")).unwrap();
    fs::create_dir_all(host.path("/srv/engine")).unwrap();
    fs::create_dir_all(host.path("/var")).unwrap();
    symlink("../run", host.path("/var/run")).unwrap();
    let _sockets =
        ["/run/docker.sock", "/srv/engine/api"].map(|path| UnixListener::bind(host.path(path)).unwrap());
    let containers = host.containers_with(&["/srv/engine/api"]);
    for (source, expected) in [
        ("/var/run/docker.sock", &["socket:/run/docker.sock"][..]),
        ("/var/run", &["socket:/run/docker.sock", "mount:/run"]),
        ("/srv/engine", &["socket:/srv/engine/api"]),
    ] {
        let mut spec = plain_spec();
        add_mounts(&mut spec, [bind(source, &["rbind", "ro"])]);
        let bundle = format!("{MOBY}/{ID}");
        host.write(&format!("{bundle}/config.json"), spec);
        let query = ContainerQuery { bundle: Some(bundle.into()), ..query(ID, Runtime::Unknown) };
        assert_eq!(risks(&containers.read(&query)).unwrap(), expected, "{source}");
    }
}

#[test]
fn namespaces_are_compared_with_those_of_init() {
    let host = Host::new();
    for file in ["/proc/1/ns/net", "/proc/7/ns/net", "/proc/7/ns/pid", "/run/netns/other"] {
        host.write(file, "");
    }
    // What a bind mount of a namespace does: another name of the same file.
    fs::hard_link(host.path("/proc/1/ns/net"), host.path("/run/netns/default")).unwrap();
    let with = |index: usize, path: &str| {
        let mut spec = plain_spec();
        spec["linux"]["namespaces"][index]["path"] = json!(path);
        spec
    };
    expect(&host, &with(1, "/run/netns/default"), &["host-net"]);
    expect(&host, &with(1, "/proc/1/ns/net"), &["host-net"]);
    expect(&host, &with(1, "/run/netns/other"), &[]);
    expect(&host, &with(3, "/proc/7/ns/pid"), &[]);
    expect(&host, &with(1, "/run/netns/gone"), &[]);
    expect(&host, &with(1, ""), &[]);
    let mut spec = plain_spec();
    spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "network"}]);
    expect(&host, &spec, &["host-pid", "host-ipc", "host-uts"]);
}

#[test]
fn security_modules_count_where_the_host_has_them() {
    let host = Host::new();
    host.write("/sys/module/apparmor/parameters/enabled", "Y\n");
    expect(&host, &plain_spec(), &["apparmor-off"]);
    let mut spec = plain_spec();
    spec["process"]["apparmorProfile"] = json!("docker-default");
    expect(&host, &spec, &[]);
    host.write("/sys/module/apparmor/parameters/enabled", "N\n");
    expect(&host, &plain_spec(), &[]);
    host.write("/sys/fs/selinux/enforce", "1");
    expect(&host, &plain_spec(), &["selinux-off"]);
}

#[test]
fn a_filter_that_lets_the_ways_out_through_is_none() {
    let host = Host::new();
    let mut spec = plain_spec();
    let filter = |rules: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
    let refusal = |names: &[&str]| json!({"names": names, "action": "SCMP_ACT_ERRNO"});
    let ways_out = ["bpf", "finit_module", "init_module", "mount", "setns", "unshare"];
    let conditional = json!({"names": ways_out, "action": "SCMP_ACT_ERRNO",
        "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]});
    for rules in
        [json!([]), json!([refusal(&["vm86"])]), json!([refusal(&ways_out[1..])]), json!([conditional])]
    {
        spec["linux"]["seccomp"] = filter(rules);
        expect(&host, &spec, &["seccomp-off"]);
    }
    spec["linux"]["seccomp"] = filter(json!([refusal(&ways_out[..2]), refusal(&ways_out[2..])]));
    expect(&host, &spec, &[]);
    spec["linux"]["seccomp"] = Value::Null;
    expect(&host, &spec, &["seccomp-off"]);
}

/// A container of a pod in the layout of CRI-O, with the namespaces and files of its sandbox.
fn crio_spec() -> Value {
    let of_sandbox =
        |file: &str| format!("/run/containers/storage/overlay-containers/{OTHER}/userdata/{file}");
    let mut spec = plain_spec();
    for (index, path) in [(1, "/var/run/netns/0a1b"), (2, "/var/run/utsns/0a1b"), (4, "/var/run/ipcns/0a1b")]
    {
        spec["linux"]["namespaces"][index]["path"] = json!(path);
    }
    spec["mounts"] = json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
        {"destination": "/dev/shm", "type": "bind", "source": of_sandbox("shm"), "options": ["rw", "bind"]},
        {"destination": "/etc/resolv.conf", "type": "bind", "source": of_sandbox("resolv.conf"), "options": ["ro", "bind"]},
        {"destination": "/etc/hostname", "type": "bind", "source": of_sandbox("hostname"), "options": ["ro", "bind"]},
        {"destination": "/run/.containerenv", "type": "bind", "source": of_sandbox(".containerenv"), "options": ["rw", "bind"]},
        {"destination": "/etc/hosts", "type": "bind", "options": ["rw", "rbind"],
         "source": format!("/var/lib/kubelet/pods/{POD}/etc-hosts")},
        {"destination": "/dev/termination-log", "type": "bind", "options": ["rw", "rbind"],
         "source": format!("/var/lib/kubelet/pods/{POD}/containers/web/0a1b2c3d")},
        {"destination": "/var/run/secrets/kubernetes.io/serviceaccount", "type": "bind", "options": ["ro", "rbind"],
         "source": format!("/var/lib/kubelet/pods/{POD}/volumes/kubernetes.io~projected/kube-api-access-x7w2k")}
    ]);
    let labels = json!({
        "io.kubernetes.container.name": "web", "io.kubernetes.pod.name": "web-0",
        "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": POD
    });
    spec["annotations"] = json!({
        "io.container.manager": "cri-o", "io.kubernetes.cri-o.ContainerType": "container",
        "io.kubernetes.cri-o.SandboxID": OTHER, "io.kubernetes.cri-o.Labels": labels.to_string(),
        "io.kubernetes.cri-o.ImageName": "quay.io/web:2", "io.kubernetes.cri-o.Name": "k8s_web_web-0_shop_u_0"
    });
    spec
}

#[test]
fn crio_containers_are_judged_with_their_sandbox() {
    let host = Host::new();
    let directory = format!("/var/lib/containers/storage/overlay-containers/{ID}/userdata");
    let of = |spec: &Value| {
        host.write(&format!("{directory}/config.json"), spec);
        host.read(&query(ID, Runtime::Crio))
    };
    let metadata = of(&crio_spec());
    assert_eq!((metadata.runtime, risks(&metadata)), (Some(Runtime::Crio), Some(vec![])));
    let k8s = metadata.k8s.expect("a pod");
    let identity = [&k8s.namespace, &k8s.pod, &k8s.pod_uid, &k8s.container].map(|field| field.as_deref());
    assert_eq!(identity, [Some("shop"), Some("web-0"), Some(POD), Some("web")]);
    assert_eq!(k8s.service_account, None, "the token alone says so, and is not read");

    let mut on_host = crio_spec();
    on_host["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]);
    on_host["mounts"].as_array_mut().unwrap().extend([
        bind("/var/run/crio/crio.sock", &["rbind", "rw"]),
        bind("/etc/kubernetes/pki", &["rbind", "ro"]),
    ]);
    let found = risks(&of(&on_host)).expect("known");
    assert_eq!(found, ["socket:/run/crio/crio.sock", "mount:/etc/kubernetes/pki", "host-pid", "host-net"]);
}

fn write_docker(host: &Host, host_config: &Value, options: &Value) {
    let mut state = docker_state();
    state.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    let directory = format!("/var/lib/docker/containers/{ID}");
    host.write(&format!("{directory}/config.v2.json"), state);
    host.write(&format!("{directory}/hostconfig.json"), host_config);
}

#[test]
fn docker_options_stand_in_for_a_spec_that_is_gone() {
    let host = Host::new();
    let plain = json!({"Binds": null, "NetworkMode": "default", "CgroupnsMode": "host", "CapAdd": null,
        "PidMode": "", "Privileged": false, "SecurityOpt": null, "Devices": [], "IpcMode": "private",
        "MaskedPaths": ["/proc/kcore"], "ReadonlyPaths": ["/proc/sys"]});
    let of = |host_config: &Value, options: &Value| {
        write_docker(&host, host_config, options);
        risks(&host.read(&query(ID, Runtime::Docker))).expect("known")
    };
    assert_eq!(of(&plain, &json!({})), [""; 0]);

    let mut asked = plain.clone();
    for (key, value) in [
        ("CapAdd", json!(["CAP_SYS_PTRACE", "net_admin"])),
        ("PidMode", json!("host")),
        ("IpcMode", json!("container:x")),
        ("UsernsMode", json!("host")),
        ("SecurityOpt", json!(["seccomp=unconfined", "no-new-privileges=false"])),
        ("Devices", json!([{"PathOnHost": "/dev/sda"}, {"PathOnHost": "/dev/null"}])),
        ("DeviceCgroupRules", json!(["b 9:* rwm", "c 1:3 r", "nonsense"])),
    ] {
        asked[key] = value;
    }
    let options = json!({"Path": "chroot", "Args": ["/host"], "MountPoints": {
        "/host": {"Source": "/", "Destination": "/host", "RW": false, "Type": "bind"},
        "/d": {"Source": "/run/docker.sock", "Destination": "/d", "RW": true, "Type": "bind"},
        "/v": {"Source": "/var/lib/docker/volumes/v/_data", "Destination": "/v", "RW": true, "Name": "v"}
    }});
    let expected = [
        "entrypoint-escape",
        "socket:/run/docker.sock",
        "mount:/",
        "cap:SYS_PTRACE",
        "device:/dev/block/9:*",
        "device:/dev/sda",
        "host-pid",
        "cap:NET_ADMIN",
        "host-user",
        "new-privileges",
        "seccomp-off",
    ];
    assert_eq!(of(&asked, &options), expected);

    let found = of(&json!({"Privileged": true, "MaskedPaths": null}), &json!({}));
    for name in ["privileged", "cap:SYS_ADMIN", "mount:/sys:rw", "writable-cgroup", "seccomp-off"] {
        assert!(found.contains(&name.to_owned()), "no {name}: {found:?}");
    }
    let dropped = of(&json!({"CapDrop": ["ALL"], "CapAdd": ["SYS_TIME"]}), &json!({}));
    assert_eq!(dropped, ["cap:SYS_TIME"]);
}

#[test]
fn docker_says_what_the_spec_does_not() {
    let host = Host::new();
    write_docker(
        &host,
        &json!({"Privileged": true, "UsernsMode": "host", "NetworkMode": "host"}),
        &json!({}),
    );
    expect(&host, &plain_spec(), &["privileged", "host-user", "host-net"]);
}

#[test]
fn podman_says_that_a_container_is_privileged() {
    let host = Host::new();
    let directory = format!("/var/lib/containers/storage/overlay-containers/{ID}");
    let mut spec = plain_spec();
    spec["annotations"] =
        json!({"io.container.manager": "libpod", "io.podman.annotations.privileged": "TRUE"});
    host.write(&format!("{directory}/userdata/config.json"), spec);
    assert_eq!(risks(&host.read(&query(ID, Runtime::Podman))).unwrap(), ["privileged"]);
}

#[test]
fn a_process_to_be_put_into_a_container_is_read() {
    let host = Host::new();
    let containers = host.containers();
    let of = |process: &Value, uid: u32| {
        host.write("/tmp/runc-process1", process);
        containers.read_process(&ProcessQuery {
            number: 1,
            file: "/tmp/runc-process1".into(),
            uid: Some(uid),
        })
    };
    let names = |file: ProcessFile| -> Vec<String> {
        let risks = file.into_risks().expect("it can be read");
        risks.list.iter().map(|risk| risk.name().into_owned()).collect()
    };
    let mut process = plain_spec()["process"].clone();
    assert_eq!(names(of(&process, 0)), [""; 0]);
    process["args"] = json!(["nsenter", "-t", "1", "-m"]);
    process["capabilities"]["ambient"] = json!(["CAP_SYS_PTRACE"]);
    let mut outside = plain_spec()["process"].clone();
    outside["cwd"] = json!("/proc/self/fd/8");
    assert_eq!(names(of(&outside, 0)), ["entrypoint-escape"]);
    assert_eq!(names(of(&process, 0)), ["entrypoint-escape", "cap:SYS_PTRACE"]);

    let mine = rustix::process::geteuid().as_raw();
    assert_eq!(of(&process, some_user() + 1), ProcessFile::Refused, "another user's file, {mine}'s");
    assert_eq!(of(&json!(7), 0), ProcessFile::Refused);
    for file in ["/tmp/none", "relative"] {
        let query = ProcessQuery { number: 1, file: file.into(), uid: None };
        assert_eq!(containers.read_process(&query), ProcessFile::Absent, "{file}");
    }
}

#[test]
fn what_cannot_be_used_is_said_and_hides_nothing_else() {
    let host = Host::new();
    let task = format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}");
    let path = format!("{task}/config.json");
    let mut many = plain_spec();
    many["mounts"] = (0..5000).map(|_| bind("/srv", &["bind"])).collect();
    let mut wrong = plain_spec();
    wrong["process"]["args"] = json!({"a": 7});
    let twice = plain_spec().to_string().replacen("\"process\"", "\"process\":{},\"process\"", 1);
    for (case, text) in [("many", many.to_string()), ("wrong", wrong.to_string()), ("twice", twice)] {
        let annotations = r#"{"annotations":{"io.kubernetes.cri.container-name":"web"},"#;
        host.write(&path, text.replacen('{', annotations, 1));
        let metadata = host.read(&query(ID, Runtime::Containerd));
        assert_eq!((metadata.name.as_deref(), risks(&metadata)), (Some("web"), None), "{case}");
        assert!(metadata.spec_refused, "{case}");
    }
    for text in ["", "{", "null", &"[".repeat(100_000)] {
        host.write(&path, text);
        let metadata = host.read(&query(ID, Runtime::Containerd));
        assert_eq!((risks(&metadata), metadata.spec_refused), (None, true), "{text:.20}");
    }
    // A hundred megabytes are not read at all.
    fs::File::create(host.path(&path)).unwrap().set_len(100 << 20).unwrap();
    assert!(host.read(&query(ID, Runtime::Containerd)).spec_refused);
    for make in [
        |path: &Path| symlink(path, path).unwrap(),
        |path: &Path| assert!(process::Command::new("mkfifo").arg(path).status().unwrap().success()),
        |path: &Path| fs::create_dir(path).unwrap(),
    ] {
        let bundle = "/srv/bundle";
        let _ = fs::remove_dir_all(host.path(bundle));
        fs::create_dir_all(host.path(bundle)).unwrap();
        make(&host.path("/srv/bundle/config.json"));
        let query = ContainerQuery { bundle: Some(bundle.into()), ..query("x", Runtime::Runc) };
        assert!(host.read(&query).spec_refused);
    }
    let absent = ContainerQuery { bundle: Some("/srv/none".into()), ..query("x", Runtime::Runc) };
    assert!(!host.read(&absent).spec_refused, "what is not there (yet) is not refused");
}
