//! Places of the host that a spec brings into a container by another way than its own name, and whose users it has.

use super::*;

#[test]
fn a_user_namespace_with_the_hosts_root_confines_nobody() {
    let host = Host::new();
    let mut spec = plain_spec();
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    spec["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN"]);
    for (mappings, expected) in [
        (json!([{"containerID": 0, "hostID": 0, "size": 4_294_967_295_u32}]), &["cap:SYS_ADMIN"][..]),
        (
            json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}, {"containerID": 70_000, "hostID": 0, "size": 1}]),
            &["cap:SYS_ADMIN"],
        ),
        (json!([{"containerID": 0, "hostID": 0, "size": 0}]), &[]),
        (json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]), &[]),
    ] {
        spec["linux"]["uidMappings"] = mappings;
        expect(&host, &spec, expected);
    }
}

#[test]
fn file_systems_and_layers_of_a_spec_are_the_hosts() {
    let host = Host::new();
    let bundle = format!("{MOBY}/{ID}");
    let mounted = |kind: &str, source: &str, options: &[&str]| {
        let mut spec = plain_spec();
        add_mounts(
            &mut spec,
            [json!({"destination": "/x", "type": kind, "source": source, "options": options})],
        );
        risks_of(&host, &spec).expect("a spec")
    };
    assert_eq!(mounted("ext4", "/dev/vda1", &[]), ["device:/dev/vda1"]);
    assert_eq!(mounted("ext4", "node", &["ro"]), [format!("device:{bundle}/node")]);
    assert_eq!(mounted("overlay", "overlay", &["lowerdir=/etc:/root"]), ["mount:/etc", "mount:/root"]);
    assert_eq!(mounted("overlay", "x", &["lowerdir=/srv", "upperdir=/etc"]), ["mount:/etc:rw"]);
}

#[test]
fn directories_that_managers_were_told_to_use_are_sensitive() {
    let host = Host::new();
    write_daemon(&host, 1, "init\0", "mnt:[1]");
    write_daemon(&host, 70, "dockerd\0--data-root\0data\0--exec-root=/srv/exec\0", "mnt:[1]");
    for (pid, comm, arguments) in [
        (71, "containerd", "containerd\0--root\0/a/root\0--state=/a/state\0"),
        (72, "kubelet", "kubelet\0--root-dir=/a/kubelet\0"),
        (73, "k3s-server", "k3s server\0--data-dir\0/a/k3s\0"),
        (74, "crio", "crio\0--config=/opt/crio.conf\0"),
    ] {
        write_daemon(&host, pid, arguments, "mnt:[1]");
        host.write(&format!("/proc/{pid}/comm"), format!("{comm}\n"));
    }
    // In a container, whose word does not count; and in the root, where everything would be the manager's.
    write_daemon(&host, 75, "dockerd\0--data-root=/theirs\0", "mnt:[2]");
    write_daemon(&host, 76, "dockerd\0--data-root=/\0", "mnt:[1]");
    host.write("/opt/crio.conf", "[crio]\nroot = \"/a/crio\"\nrunroot = '/a/run'\n");
    host.write("/etc/containers/storage.conf", "[storage]\ngraphroot = \"/a/graph\"\n");
    host.write("/etc/docker/daemon.json", json!({"data-root": "/a/docker"}));
    for place in [
        "/srv/data",
        "/srv/exec",
        "/a/root",
        "/a/state",
        "/a/kubelet",
        "/a/k3s",
        "/a/crio",
        "/a/run",
        "/a/graph",
        "/a/docker",
    ] {
        let mut spec = plain_spec();
        add_mounts(&mut spec, [bind(&format!("{place}/x"), &["ro"]), bind(place, &[]), bind("/theirs", &[])]);
        let expected = [format!("mount:{place}:rw"), format!("mount:{place}/x")];
        assert_eq!(risks_of(&host, &spec).expect("a spec"), expected, "{place}");
        let mut volume = plain_spec();
        add_mounts(&mut volume, [bind(&format!("{place}/volumes/v/_data"), &[])]);
        assert_eq!(risks_of(&host, &volume).expect("a spec"), [""; 0], "{place}");
    }
}
