//! Pods: what is their own, and who is believed to be one.

use super::*;

#[test]
fn a_pod_has_its_own_volumes_and_no_others() {
    let host = Host::new();
    let kubelet = |pod: &str| format!("/var/lib/kubelet/pods/{pod}");
    let spec = |token_of: &str| {
        let mut spec = plain_spec();
        let mut token = bind(
            &format!("{}/volumes/kubernetes.io~projected/kube-api-access-x7w2k", kubelet(token_of)),
            &["rbind", "ro"],
        );
        token["destination"] = json!("/var/run/secrets/kubernetes.io/serviceaccount");
        add_mounts(
            &mut spec,
            [
                token,
                bind(&format!("{}/etc-hosts", kubelet(POD)), &["rbind", "rw"]),
                bind(&format!("{}/containers/web/0a1b2c3d", kubelet(POD)), &["rbind", "rw"]),
                bind(
                    &format!("/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{OTHER}/hostname"),
                    &["rbind"],
                ),
                bind(&format!("/run/containerd/io.containerd.grpc.v1.cri/sandboxes/{OTHER}/shm"), &["rbind"]),
            ],
        );
        spec["annotations"] = json!({
            "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": OTHER,
            "io.kubernetes.cri.sandbox-uid": POD, "io.kubernetes.cri.sandbox-namespace": "shop"
        });
        spec["linux"]["cgroupsPath"] = json!(format!("/kubepods/burstable/pod{POD}/{ID}"));
        spec
    };
    expect(&host, &spec(POD), &[]);
    let other = "0".repeat(36);
    let stolen = format!("mount:{}/volumes/kubernetes.io~projected/kube-api-access-x7w2k", kubelet(&other));
    expect(&host, &spec(&other), &[&stolen]);

    // Whoever may call Docker says of a container that it is of a pod, and of a sandbox, and mounts what is theirs.
    for elsewhere in [format!("/docker/{ID}"), format!("/kubepods/burstable/pod{other}/{ID}")] {
        let mut named = spec(POD);
        named["linux"]["cgroupsPath"] = json!(elsewhere);
        let found = risks_of(&host, &named).expect("a spec");
        assert_eq!(found.iter().filter(|risk| risk.contains(POD)).count(), 3, "{elsewhere}: {found:?}");
    }
    let mut named = spec(POD);
    named["linux"]["cgroupsPath"] = json!(format!("/docker/{ID}"));
    let found = risks_of(&host, &named).expect("a spec");
    assert_eq!(found.iter().filter(|risk| risk.contains(OTHER)).count(), 2, "{found:?}");
    // Below containerd's namespace for kubelets nobody else has a say.
    let directory = format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}");
    host.write(&format!("{directory}/config.json"), &named);
    let query = ContainerQuery { bundle: Some(directory.into()), ..query(ID, Runtime::Unknown) };
    let of_docker = format!("mount:/var/lib/docker/containers/{ID}/hosts:rw");
    let found = risks(&host.read(&query)).expect("a spec");
    assert!(found.iter().all(|risk| *risk == of_docker), "{found:?}");
}

#[test]
fn the_token_volume_tells_the_pod_where_nobody_else_does() {
    let host = Host::new();
    let mut spec = plain_spec();
    let mut token = bind(
        &format!("/var/lib/kubelet/pods/{POD}/volumes/kubernetes.io~secret/ci-token-abcde"),
        &["rbind", "ro"],
    );
    token["destination"] = json!("/var/run/secrets/kubernetes.io/serviceaccount");
    add_mounts(&mut spec, [token]);
    let tasks = "/run/containerd/io.containerd.runtime.v2.task/k8s.io";
    host.write(&format!("{tasks}/{ID}/config.json"), &spec);
    let k8s = host.read(&query(ID, Runtime::Containerd)).k8s.expect("a pod");
    assert_eq!((k8s.pod_uid.as_deref(), k8s.service_account.as_deref()), (Some(POD), Some("ci")));
    assert_eq!(k8s.namespace, None, "no file says so");

    spec["annotations"] = json!({"io.kubernetes.cri.sandbox-uid": "0".repeat(36)});
    host.write(&format!("{tasks}/{ID}/config.json"), &spec);
    let k8s = host.read(&query(ID, Runtime::Containerd)).k8s.expect("a pod");
    assert_eq!(
        (k8s.pod_uid.as_deref(), k8s.service_account.as_deref()),
        (Some("0".repeat(36).as_str()), None)
    );
}
