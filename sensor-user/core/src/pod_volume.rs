//! The kubelet's directory of a pod among a container's mounts: which pod it is, without asking anybody.
//!
//! Pure text. The token itself names its service account, and is a secret that is not read; only the volumes that
//! clusters before 1.24 made for a service account bear its name.
//!
//! Source: kubernetes `pkg/kubelet/kubelet_getters.go` (`pods/<uid>/volumes/<plugin>/<name>`), and
//! `pkg/serviceaccount` for where tokens are mounted.

use crate::cgroup_path::is_pod_uid;

/// Where tokens are mounted in a container, links resolved or not.
const TOKEN_PLACES: [&str; 2] =
    ["/var/run/secrets/kubernetes.io/serviceaccount", "/run/secrets/kubernetes.io/serviceaccount"];
/// What the name of the projected volume begins with.
const PROJECTED: &str = "kube-api-access-";
/// Characters after `<service account>-token-` in the name of a volume made from a secret.
const SUFFIX_LEN: usize = 5;

/// What the token volume of a container says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodVolume<'a> {
    /// The pod's uid.
    pub pod_uid: &'a str,
    /// The service account, where the volume is named for it.
    pub service_account: Option<&'a str>,
}

/// Finds the token volume among mounts, each a source on the host and a destination in the container.
pub fn find<'a>(mounts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<PodVolume<'a>> {
    mounts
        .into_iter()
        .filter(|(_, destination)| TOKEN_PLACES.contains(destination))
        .find_map(|mount| read(mount.0))
}

fn read(source: &str) -> Option<PodVolume<'_>> {
    let (_, below) = source.rsplit_once("/pods/")?;
    let (pod_uid, volume) = below.split_once("/volumes/kubernetes.io~")?;
    let (plugin, name) = volume.split_once('/')?;
    let service_account = match plugin {
        "projected" if name.starts_with(PROJECTED) => None,
        "secret" => {
            let (account, suffix) = name.rsplit_once("-token-")?;
            Some(account).filter(|account| !account.is_empty() && suffix.len() == SUFFIX_LEN)
        }
        _ => return None,
    };
    is_pod_uid(pod_uid).then_some(PodVolume { pod_uid, service_account })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "6f1c2f0e-7d5a-4e0f-9b43-3f1d2a5b6c7d";

    fn check(volume: &str, destination: &str, expected: Option<Option<&str>>) {
        let source = format!("/var/lib/kubelet/pods/{UID}/volumes/{volume}");
        let expected = expected.map(|service_account| PodVolume { pod_uid: UID, service_account });
        assert_eq!(find([("/etc", "/x"), (&source, destination)]), expected, "{volume} {destination}");
    }

    #[test]
    fn token_volumes_tell_the_pod_and_older_ones_the_account() {
        let [place, other] = TOKEN_PLACES;
        check("kubernetes.io~projected/kube-api-access-x7w2k", place, Some(None));
        check("kubernetes.io~projected/kube-api-access-x7w2k", other, Some(None));
        check("kubernetes.io~secret/ci-token-runner-token-abcde", place, Some(Some("ci-token-runner")));
        check("kubernetes.io~secret/default-token-abcde", place, Some(Some("default")));
        check("kubernetes.io~secret/mine", place, None);
        check("kubernetes.io~projected/other", place, None);
        check("kubernetes.io~projected/kube-api-access-x7w2k", "/elsewhere", None);
    }

    #[test]
    fn other_directories_are_no_pods() {
        let place = TOKEN_PLACES[0];
        for source in [
            "",
            "/pods/",
            "/var/lib/kubelet/pods/../volumes/kubernetes.io~projected/kube-api-access-x",
            "/var/lib/kubelet/pods/x/volumes/kubernetes.io~projected/kube-api-access-x",
            "/home/ann/volumes/kubernetes.io~projected/kube-api-access-x",
        ] {
            assert_eq!(find([(source, place)]), None, "{source}");
        }
    }
}
