//! Which pod a container is of, and whose word counts for that.
//!
//! Annotations and labels are free text of whoever makes a container: one who may call Docker can name any pod. They count where
//! kubelets alone have containers made (containerd's own namespace for them, CRI-O), and elsewhere where the container's cgroup
//! lies below that of the very pod they name, as a kubelet puts it. Whoever may choose the parent of a cgroup as well can still pass for
//! a container of a pod that exists, of whose uid he must know.

use std::sync::Arc;

use crate::cgroup_path::pod_in_path;
use crate::fact::{K8s, Runtime};

/// The namespace in which containerd's CRI plugin keeps all that is a kubelet's.
const KUBELETS: &str = "k8s.io";

/// Whether a runtime makes containers for a kubelet only, so that nobody else sets their annotations. `user` is who called it: a
/// user's runtime may call its directories what it likes.
#[must_use]
pub fn is_of_kubelet(runtime: Runtime, namespace: Option<&str>, user: u32) -> bool {
    match runtime {
        Runtime::Crio => user == 0,
        Runtime::Containerd => user == 0 && namespace == Some(KUBELETS),
        _ => false,
    }
}

/// The identity to go by: `told` by annotations, labels and volumes, beside the path of the container's cgroup, or the one that its
/// runtime is asked to make.
#[must_use]
pub fn agreed(told: Option<&Arc<K8s>>, cgroup: Option<&str>, is_of_kubelet: bool) -> Option<Arc<K8s>> {
    let pod: Option<Arc<str>> = cgroup.and_then(pod_in_path).map(Arc::from);
    let told_pod = told.and_then(|told| told.pod_uid.as_ref());
    match (&pod, told) {
        (None, told) => told.filter(|_| is_of_kubelet).cloned(),
        (Some(_), Some(told)) if told_pod == pod.as_ref() => Some(told.clone()),
        (Some(_), Some(told)) if told_pod.is_none() && is_of_kubelet => {
            Some(Arc::new(K8s { pod_uid: pod, ..K8s::clone(told) }))
        }
        (Some(_), _) => Some(Arc::new(K8s { pod_uid: pod, ..K8s::default() })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0";
    const OTHER: &str = "11111111-2222-3333-4444-555555555555";

    fn told(pod: Option<&str>) -> Arc<K8s> {
        Arc::new(K8s { namespace: Some("shop".into()), pod_uid: pod.map(Arc::from), ..K8s::default() })
    }

    fn below(pod: &str) -> String {
        format!("/kubepods/burstable/pod{pod}/{}", "a".repeat(64))
    }

    #[test]
    fn only_the_runtimes_of_kubelets_are_believed_without_a_cgroup() {
        let annotated = told(Some(POD));
        for (runtime, namespace, user, is_believed) in [
            (Runtime::Crio, None, 0, true),
            (Runtime::Crio, None, 1000, false),
            (Runtime::Containerd, Some("k8s.io"), 0, true),
            (Runtime::Containerd, Some("k8s.io"), 1000, false),
            (Runtime::Containerd, Some("default"), 0, false),
            (Runtime::Containerd, None, 0, false),
            (Runtime::Docker, Some("k8s.io"), 0, false),
            (Runtime::Podman, None, 0, false),
            (Runtime::Runc, None, 0, false),
            (Runtime::Unknown, None, 0, false),
        ] {
            let found = agreed(Some(&annotated), Some("/docker/x"), is_of_kubelet(runtime, namespace, user));
            let expected = is_believed.then(|| annotated.clone());
            assert_eq!(found, expected, "{runtime:?} {namespace:?} {user}");
        }
    }

    #[test]
    fn the_cgroup_confirms_the_pod_and_wins_where_it_does_not() {
        let own = |pod: &str| Some(Arc::new(K8s { pod_uid: Some(pod.into()), ..K8s::default() }));
        for is_of_kubelet in [true, false] {
            let check = |told: Option<&Arc<K8s>>, cgroup: &str, expected: Option<Arc<K8s>>| {
                assert_eq!(
                    agreed(told, Some(cgroup), is_of_kubelet),
                    expected,
                    "{told:?} {cgroup} {is_of_kubelet}"
                );
            };
            check(Some(&told(Some(POD))), &below(POD), Some(told(Some(POD))));
            check(Some(&told(Some(POD))), &below(OTHER), own(OTHER));
            check(None, &below(POD), own(POD));
            check(None, "/system.slice/docker.service", None);
            let filled = if is_of_kubelet { Some(told(Some(POD))) } else { own(POD) };
            check(Some(&told(None)), &below(POD), filled);
        }
    }

    #[test]
    fn a_cgroup_that_is_asked_for_by_a_service_manager_tells_as_well() {
        let asked =
            format!("kubepods-burstable-pod{}.slice:docker:{}", POD.replace('-', "_"), "a".repeat(64));
        assert_eq!(agreed(Some(&told(Some(POD))), Some(&asked), false), Some(told(Some(POD))));
    }
}
