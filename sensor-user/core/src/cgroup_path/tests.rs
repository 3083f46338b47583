//! Tests of [`super`]: the cgroup paths that runtimes, drivers and versions make.

use super::*;
use crate::fact::Runtime::{Containerd, Crio, Docker, Podman, Runc, Unknown};

const ID: &str = "4f1c5ea2b9d87306e1a4c8f2d5b0937a6c1e8f4d2b5a7093c6e1f8d4a2b57093";
const INNER: &str = "aaaabbbbccccddddeeeeffff0000111122223333444455556666777788889999";
const BUILD: &str = "k2s1wq8zr5t0xv3ynm6p4hjcb";
const POD: &str = "6f7a1b2c-3d4e-5f60-7182-93a4b5c6d7e8";

/// Fills `{id}`, `{inner}`, `{build}`, `{pod}` and `{pod_}` in.
fn path(template: &str) -> String {
    template
        .replace("{id}", ID)
        .replace("{inner}", INNER)
        .replace("{build}", BUILD)
        .replace("{pod}", POD)
        .replace("{pod_}", &POD.replace('-', "_"))
}

#[test]
fn own_cgroup_of_a_container_tells_runtime_and_id() {
    for (template, runtime, id) in [
        // Docker: cgroupfs driver, systemd driver, a cgroup-parent of either kind, BuildKit.
        ("/docker/{id}", Docker, ID),
        ("/system.slice/docker-{id}.scope", Docker, ID),
        ("/custom.slice/docker-{id}.scope", Docker, ID),
        ("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{id}.scope", Docker, ID),
        ("/custom/{id}", Unknown, ID),
        ("/docker/buildkit/{build}", Docker, BUILD),
        ("/system.slice/docker-{build}.scope", Docker, BUILD),
        ("/buildkit/{build}", Runc, BUILD),
        // Kubernetes with containerd, by driver and QoS class.
        ("/kubepods/besteffort/pod{pod}/{id}", Containerd, ID),
        ("/kubepods/burstable/pod{pod}/{id}", Containerd, ID),
        ("/kubepods/pod{pod}/{id}", Containerd, ID),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{pod_}.slice/cri-containerd-{id}.scope",
            Containerd,
            ID,
        ),
        ("/kubepods.slice/kubepods-pod{pod_}.slice/cri-containerd-{id}.scope", Containerd, ID),
        ("/k8s.io/{id}", Containerd, ID),
        // CRI-O.
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{pod_}.slice/crio-{id}.scope",
            Crio,
            ID,
        ),
        ("/kubepods/besteffort/pod{pod}/crio-{id}", Crio, ID),
        // Podman: rootful and rootless, either driver.
        ("/machine.slice/libpod-{id}.scope", Podman, ID),
        ("/libpod_parent/libpod-{id}", Podman, ID),
        ("/machine.slice/machine-libpod_pod_{inner}.slice/libpod-{id}.scope", Podman, ID),
        ("/libpod_parent/{inner}/libpod-{id}", Podman, ID),
        ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope", Podman, ID),
        // containerd's own tools.
        ("/default/web-1", Containerd, "web-1"),
        ("/system.slice/nerdctl-{id}.scope", Containerd, ID),
        // OCI runtimes by themselves.
        ("/system.slice/runc-my-box.scope", Runc, "my-box"),
        ("/user.slice/crun-my-box.scope", Runc, "my-box"),
        ("/system.slice/youki-my-box.scope", Runc, "my-box"),
        // A cluster in a container (kind): the innermost container counts.
        ("/docker/{inner}/kubelet/kubepods/burstable/pod{pod}/{id}", Containerd, ID),
        (
            "/docker/{inner}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{pod_}.slice/cri-containerd-{id}.scope",
            Containerd,
            ID,
        ),
        ("/docker/{inner}/docker/{id}", Docker, ID),
    ] {
        let path = path(template);
        let found = container_in_path(&path).unwrap_or_else(|| panic!("{template} names a container"));
        assert_eq!((found.runtime, found.id, found.path), (runtime, id, &*path), "{template}");
    }
}

#[test]
fn cgroup_inside_a_container_tells_the_container() {
    for (template, own) in [
        ("/docker/{id}/init", "/docker/{id}"),
        ("/docker/{id}/system.slice/cron.service", "/docker/{id}"),
        ("/machine.slice/libpod-{id}.scope/container", "/machine.slice/libpod-{id}.scope"),
        ("/machine.slice/libpod-{id}.scope/supervisor/deeper", "/machine.slice/libpod-{id}.scope"),
        ("/default/web-1/child", "/default/web-1"),
        ("/docker/{id}/", "/docker/{id}"),
    ] {
        let path_in = path(template);
        let found = container_in_path(&path_in).unwrap_or_else(|| panic!("{template} is in a container"));
        assert_eq!(found.path, path(own), "{template}");
    }
}

#[test]
fn cgroups_of_the_host_and_of_monitors_name_no_container() {
    for template in [
        "/",
        "",
        "/docker",
        "/default",
        "/system.slice/docker.service",
        "/system.slice/docker.socket",
        "/system.slice/containerd.service",
        "/system.slice/crio-conmon-{id}.scope",
        "/machine.slice/libpod-conmon-{id}.scope",
        "/libpod_parent/conmon",
        "/libpod_parent/{id}",
        "/libpod_parent/libpod-conmon-{id}",
        "/kubepods.slice",
        "/kubepods/burstable/pod{pod}",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{pod_}.slice",
        "/machine.slice/machine-libpod_pod_{id}.slice",
        "/user.slice/user-1000.slice/session-3.scope",
        "/system.slice/docker-short.scope",
        "/docker/not-an-id",
        "/runc-tests",
        "/lab/web-1",
    ] {
        assert_eq!(container_in_path(&path(template)), None, "{template}");
    }
}

#[test]
fn pod_uid_is_read_from_either_driver() {
    for template in [
        "/kubepods/burstable/pod{pod}/{id}",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{pod_}.slice/cri-containerd-{id}.scope",
        "/kubepods.slice/kubepods-pod{pod_}.slice/crio-{id}.scope/container",
    ] {
        let path = path(template);
        let found = container_in_path(&path).expect("a container");
        assert_eq!(found.pod_uid.as_deref(), Some(POD), "{template}");
    }
    // Static pods have an MD5.
    let path = path("/kubepods/pod0123456789abcdef0123456789abcdef/{id}");
    let found = container_in_path(&path).expect("a container");
    assert_eq!(found.pod_uid.as_deref(), Some("0123456789abcdef0123456789abcdef"));
    assert_eq!(container_in_path("/docker/pod1/x").and_then(|found| found.pod_uid), None);
}

#[test]
fn containerd_namespace_is_read_where_the_path_names_it() {
    for (template, namespace) in [
        ("/default/web-1", Some("default")),
        ("/k8s.io/{id}", Some("k8s.io")),
        ("/kubepods/pod{pod}/{id}", Some("k8s.io")),
        ("/docker/{id}", None),
    ] {
        let path = path(template);
        assert_eq!(container_in_path(&path).expect("a container").namespace, namespace, "{template}");
    }
}

#[test]
fn own_name_alone_tells_what_it_can() {
    let name = |template: &str| {
        let name = path(template);
        container_in_name(&name).map(|(runtime, id)| (runtime, id.to_owned()))
    };
    assert_eq!(name("docker-{id}.scope"), Some((Docker, ID.into())));
    assert_eq!(name("{id}"), Some((Unknown, ID.into())));
    assert_eq!(name("docker.service"), None);
    assert_eq!(name("libpod-conmon-{id}.scope"), None);
    assert_eq!(name(""), None);
}
