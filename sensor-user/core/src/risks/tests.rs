//! Specs and what tells of them.

use super::*;

const ID: &str = "4b6832429f73fdc1073278bf44f3f837ce2be1c5356e81c659af68152cc21f1c";

fn namespace(namespace: Option<Namespace>, sharing: Sharing) -> NamespaceSpec {
    NamespaceSpec { namespace, sharing }
}

/// What docker asks for when nothing is said.
fn plain() -> Spec {
    let kinds = [Namespace::Pid, Namespace::Net, Namespace::Ipc, Namespace::Uts];
    let mut namespaces: Vec<_> = kinds.into_iter().map(|kind| namespace(Some(kind), Sharing::Own)).collect();
    namespaces.push(namespace(None, Sharing::Own));
    let deny_all = DeviceRule { allow: false, block: None, major: None, minor: None, opens: true };
    let null = DeviceRule { allow: true, block: Some(false), major: Some(1), minor: Some(3), opens: true };
    Spec {
        process: ProcessSpec {
            args: vec!["sleep".into(), "600".into()],
            capabilities: Capabilities::DEFAULT,
            ..ProcessSpec::default()
        },
        namespaces,
        mounts: vec![
            Mount { writable: false, ..mount(MountKind::Sysfs, "") },
            Mount { writable: false, ..mount(MountKind::Cgroup, "") },
            bind(&format!("/var/lib/docker/containers/{ID}/hosts")),
        ],
        device_rules: vec![deny_all, null],
        seccomp: true,
        masked: true,
        ..Spec::default()
    }
}

fn mount(kind: MountKind, source: &str) -> Mount {
    Mount { kind, source: source.into(), destination: "/there".into(), writable: true }
}

fn bind(source: &str) -> Mount {
    mount(MountKind::Bind, source)
}

fn names_on(spec: &Spec, host: &Host) -> Vec<String> {
    let own = Own { ids: vec![ID.into()], pod_uid: None };
    of_container(spec, host, &own).list.iter().map(|risk| risk.name().into_owned()).collect()
}

fn names(spec: &Spec) -> Vec<String> {
    names_on(spec, &Host::default())
}

#[test]
fn a_default_container_has_no_risk() {
    assert_eq!(names(&plain()), [""; 0]);
    // Its AppArmor profile is missing only where there is AppArmor.
    let host = Host { apparmor: true, selinux: true, ..Host::default() };
    assert_eq!(names_on(&plain(), &host), ["selinux-off", "apparmor-off"]);
    let mut confined = plain();
    confined.process.apparmor = Some("docker-default".into());
    confined.process.selinux = Some("system_u:system_r:container_t:s0:c1,c2".into());
    assert_eq!(names_on(&confined, &host), [""; 0]);
    confined.process.apparmor = Some("unconfined".into());
    confined.process.selinux = Some("system_u:system_r:spc_t:s0".into());
    assert_eq!(names_on(&confined, &host), ["selinux-off", "apparmor-off"]);
}

#[test]
fn privileged_is_said_or_made_of_its_parts() {
    let said = Spec { privileged: true, ..plain() };
    assert_eq!(names(&said), ["privileged"]);

    let mut parts = plain();
    parts.process.capabilities = Capabilities::ALL;
    parts.masked = false;
    parts.device_rules[0].allow = true;
    parts.devices = vec![Device { path: "/dev/sda".into(), block: true, number: Some((8, 0)) }];
    let found = names(&parts);
    assert_eq!(found[..3], ["cap:SYS_ADMIN", "cap:SYS_MODULE", "privileged"]);
    assert!(found.contains(&"cap:BPF".to_owned()), "each risk is told by itself: {found:?}");
    assert!(!found.iter().any(|name| name.starts_with("device:")), "{found:?}");
    parts.masked = true;
    let found = names(&parts);
    assert!(!found.contains(&"privileged".to_owned()) && found.contains(&"device:/dev/sda".to_owned()));
}

#[test]
fn capabilities_within_a_user_namespace_reach_no_further() {
    let mut spec = plain();
    spec.process.capabilities.insert(Capability::from_name("SYS_ADMIN").expect("a name"));
    assert_eq!(names(&spec), ["cap:SYS_ADMIN"]);
    assert_eq!(names(&Spec { rootless: true, ..spec.clone() }), [""; 0]);
    let own_users = |maps_host_root| {
        let own = NamespaceSpec { namespace: Some(Namespace::User), sharing: Sharing::Own };
        let namespaces = spec.namespaces.iter().cloned().chain([own]).collect();
        names(&Spec { namespaces, maps_host_root, ..spec.clone() })
    };
    assert_eq!(own_users(false), [""; 0]);
    assert_eq!(own_users(true), names(&spec));
    spec.namespaces.push(namespace(Some(Namespace::User), Sharing::Own));
    assert_eq!(names(&spec), [""; 0]);
}

#[test]
fn namespaces_that_are_not_asked_for_are_the_hosts() {
    let nothing = Spec { namespaces: Vec::new(), ..plain() };
    let mut expected = vec!["mount:/:rw", "host-pid", "host-net", "host-ipc", "host-uts"];
    assert_eq!(names(&nothing), expected);
    expected.insert(4, "host-cgroup");
    assert_eq!(names_on(&nothing, &Host { unified_cgroups: true, ..Host::default() }), expected);

    let mut spec = plain();
    spec.namespaces[1].sharing = Sharing::Host;
    spec.namespaces[2].sharing = Sharing::Other;
    spec.namespaces.push(namespace(Some(Namespace::User), Sharing::Host));
    assert_eq!(names(&spec), ["host-user", "host-net"]);
}

#[test]
fn mounts_of_the_host_are_told_with_how() {
    let mut spec = plain();
    spec.mounts.extend([
        bind("/"),
        Mount { writable: false, ..bind("/etc") },
        bind("/srv"),
        Mount { writable: false, ..bind("/usr/share/zoneinfo") },
        bind("/var/lib/kubelet/pki"),
    ]);
    assert_eq!(names(&spec), ["mount:/:rw", "mount:/var/lib/kubelet/pki:rw", "mount:/etc"]);
}

#[test]
fn sockets_are_told_by_themselves_and_by_their_directories() {
    let host = Host { sockets: vec!["/run/docker.sock".into(), "/srv/engine".into()], ..Host::default() };
    let of = |source: &str| {
        let mut spec = plain();
        spec.mounts.push(Mount { writable: false, ..bind(source) });
        names_on(&spec, &host)
    };
    assert_eq!(of("/run/docker.sock"), ["socket:/run/docker.sock"]);
    assert_eq!(of("/srv/engine"), ["socket:/srv/engine"]);
    assert_eq!(of("/somewhere/containerd.sock"), ["socket:/somewhere/containerd.sock"]);
    assert_eq!(of("/run"), ["socket:/run/docker.sock", "mount:/run"]);
    assert_eq!(of("/srv"), ["socket:/srv/engine"]);
}

#[test]
fn writable_kernel_file_systems_are_told() {
    let mut spec = plain();
    spec.mounts = vec![mount(MountKind::Sysfs, ""), mount(MountKind::Cgroup, "")];
    assert_eq!(names(&spec), ["mount:/sys:rw", "writable-cgroup"]);
    spec.namespaces.push(namespace(Some(Namespace::Cgroup), Sharing::Own));
    let unified = Host { unified_cgroups: true, ..Host::default() };
    assert_eq!(names_on(&spec, &unified), ["mount:/sys:rw"], "its own part is its own");
    assert_eq!(names(&spec), ["mount:/sys:rw", "writable-cgroup"]);
    spec.mounts = vec![bind("/sys/fs/cgroup")];
    assert_eq!(names(&spec), ["mount:/sys/fs/cgroup:rw", "writable-cgroup"]);
}

#[test]
fn devices_are_told_by_node_and_by_rule() {
    let rule = |block, major, minor| DeviceRule { allow: true, block, major, minor, opens: true };
    let mut spec = plain();
    spec.devices = vec![
        Device { path: "/dev/sda".into(), block: true, number: Some((8, 0)) },
        Device { path: "/dev/mine".into(), block: false, number: Some((1, 3)) },
        Device { path: "/dev/fuse".into(), block: false, number: Some((10, 229)) },
    ];
    spec.device_rules.extend([
        rule(Some(true), Some(8), Some(0)),
        rule(Some(true), Some(9), None),
        DeviceRule { opens: false, ..rule(Some(false), None, None) },
        rule(Some(false), Some(136), None),
    ]);
    assert_eq!(names(&spec), ["device:/dev/block/9:*", "device:/dev/fuse", "device:/dev/sda"]);
    spec.devices.clear();
    spec.device_rules.push(DeviceRule { allow: false, ..rule(None, None, None) });
    assert_eq!(names(&spec), [""; 0], "the last word counts");
}

#[test]
fn setuid_matters_where_it_gives_more_than_a_container_has() {
    let mut spec = plain();
    spec.process.uid = 1000;
    assert_eq!(names(&spec), [""; 0], "root in a default container is what everybody has");
    spec.process.capabilities.insert(Capability::from_name("NET_ADMIN").expect("a name"));
    assert_eq!(names(&spec), ["cap:NET_ADMIN", "new-privileges"]);
    spec.process.no_new_privileges = true;
    assert_eq!(names(&spec), ["cap:NET_ADMIN"]);
    assert_eq!(names(&Spec { new_privileges_wanted: true, ..plain() }), ["new-privileges"]);
}

#[test]
fn processes_put_into_a_container_are_judged_by_themselves() {
    let mut process = plain().process;
    let of = |process: &ProcessSpec| -> Vec<String> {
        let risks = of_process(process, &Host::default(), false);
        risks.list.iter().map(|risk| risk.name().into_owned()).collect()
    };
    assert_eq!(of(&process), [""; 0]);
    process.args = vec!["nsenter".into(), "-t".into(), "1".into()];
    assert_eq!(of(&process), ["entrypoint-escape"]);
    process.capabilities = Capabilities::ALL;
    assert!(of(&process).contains(&"privileged".to_owned()));
}

#[test]
fn names_are_read_back() {
    let path = |path: &str| Arc::<str>::from(path);
    let plain = Risk::plain_names().map(|name| Risk::from_name(name).expect(name));
    let risks: Vec<Risk> = plain
        .chain([
            Risk::Capability(Capability::SETUID),
            Risk::Mount { path: path("/"), writable: true },
            Risk::Mount { path: path("/"), writable: false },
            Risk::Mount { path: path("/etc/x:rw"), writable: false },
            Risk::Mount { path: path("/etc/x:rw"), writable: true },
            Risk::Socket(path("/run/docker.sock")),
            Risk::Device(path("/dev/block/8:*")),
        ])
        .collect();
    assert_eq!(Risk::plain_names().count(), 14);
    for risk in &risks {
        assert_eq!(Risk::from_name(&risk.name()).as_ref(), Some(risk), "{}", risk.name());
        assert!((1..=10).contains(&risk.weight()), "{}", risk.name());
    }
    for name in ["", "privilege", "cap:", "cap:NOTHING", "mount:", "mount:etc", "socket:x", "host-mount"] {
        assert_eq!(Risk::from_name(name), None, "{name}");
    }
}

#[test]
fn too_many_risks_keep_the_heaviest_and_say_so() {
    let light = (0..2 * RISKS_MAX).map(|index| Risk::Device(format!("/dev/x{index:04}").into()));
    let risks = Risks::new(light.chain([Risk::Privileged, Risk::Privileged]));
    assert_eq!((risks.list.len(), &risks.list[0]), (RISKS_MAX, &Risk::Privileged));
    assert!(risks.truncated);
    assert_eq!(risks.list.iter().filter(|risk| **risk == Risk::Privileged).count(), 1);

    let long = Risks::new([Risk::Socket(format!("/{}", "ü".repeat(PATH_MAX)).into())]);
    assert!(long.truncated && long.list[0].name().len() <= "socket:".len() + PATH_MAX);
    let few = Risks::new([Risk::SeccompOff]);
    assert!(!few.truncated && few.and(&long).truncated);
    assert_eq!(few.and(&few), few);
}

/// Rows of the tables of docs/detections/risks.md: the name in backquotes and the numbers behind it.
fn documented() -> Vec<(&'static str, Vec<u8>)> {
    let document = include_str!("../../../../docs/detections/risks.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let (name, rest) = row.split_once('`').expect("a name ends");
        let numbers = rest.split('|').filter_map(|cell| cell.trim().parse().ok()).collect();
        (name, numbers)
    })
    .collect()
}

#[test]
fn the_document_has_every_name_and_weight() {
    let documented = documented();
    let weights = |name: &str| {
        let row = documented.iter().find(|(known, _)| *known == name);
        row.map(|(_, weights)| weights.clone()).unwrap_or_else(|| panic!("{name} is not documented"))
    };
    for name in Risk::plain_names() {
        let risk = Risk::from_name(name).expect(name);
        assert_eq!(weights(name), [risk.weight()], "{name}");
    }
    for capability in Capabilities::ALL.telling() {
        assert_eq!(weights(capability.name()), [capability.weight()], "{}", capability.name());
    }
    for (place, writable, read_only) in mounts::SENSITIVE {
        assert_eq!(weights(place), [*writable, *read_only], "{place}");
    }
    assert_eq!(weights("socket:<path>"), [SOCKET_WEIGHT]);
    assert_eq!(weights("device:<path>"), [DEVICE_WEIGHT]);
    let known = Risk::plain_names().count() + 2 + Capabilities::ALL.telling().count();
    let valued = ["cap:<NAME>", "mount:<path>"].len();
    assert_eq!(documented.len(), known + valued + mounts::SENSITIVE.len(), "a row is of nothing");
}

#[test]
fn a_process_that_begins_at_the_runtimes_own_files_leaves() {
    let process = |program: &str, cwd: &str| ProcessSpec {
        args: vec![program.into()],
        cwd: Some(cwd.into()),
        ..ProcessSpec::default()
    };
    for (program, cwd, leaves) in [
        ("sh", "/srv", false),
        ("/proc/self/exe", "/", true),
        ("sh", "/proc/self/fd/8", true),
        ("sh", "/proc/self/fd/8/../..", true),
    ] {
        let found = of_process(&process(program, cwd), &Host::default(), false);
        assert_eq!(
            &*found.list,
            if leaves { &[Risk::EntrypointEscape][..] } else { &[] },
            "{program} in {cwd}"
        );
        let spec = Spec { process: process(program, cwd), ..plain() };
        let found = of_container(&spec, &Host::default(), &Own::default());
        assert_eq!(found.list.contains(&Risk::EntrypointEscape), leaves, "{program} in {cwd}");
    }
}
