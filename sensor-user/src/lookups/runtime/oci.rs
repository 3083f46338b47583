//! The OCI bundle: annotations that tell who made the container and for which pod, and the spec that tells what it may do.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use sensor_core::fact::{K8s, Runtime};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::super::file;
use super::super::json::StringOrOther;
use super::spec::OciSpec;
use super::{Found, Search, text, time};

/// The part of `config.json` that tells who it is.
#[derive(serde::Deserialize)]
struct Config {
    #[serde(default)]
    annotations: Option<Annotations>,
}

/// Podman's word for `--privileged`.
const PODMAN_PRIVILEGED: &str = "io.podman.annotations.privileged";

/// CRI-O's copy of the kubelet's labels, a JSON document of its own.
const CRI_O_LABELS: &str = "io.kubernetes.cri-o.Labels";
/// The keys that mean something here; a container may have any number of others.
const KEYS: &[&str] = &[
    CRI_O_LABELS,
    "io.container.manager",
    "io.kubernetes.container.name",
    "io.kubernetes.cri-o.ContainerName",
    "io.kubernetes.cri-o.ContainerType",
    "io.kubernetes.cri-o.Created",
    "io.kubernetes.cri-o.Image",
    "io.kubernetes.cri-o.ImageName",
    "io.kubernetes.cri-o.KubeName",
    "io.kubernetes.cri-o.Name",
    "io.kubernetes.cri-o.Namespace",
    "io.kubernetes.cri-o.SandboxID",
    "io.kubernetes.cri.container-name",
    "io.kubernetes.cri.container-type",
    "io.kubernetes.cri.image-name",
    "io.kubernetes.cri.sandbox-id",
    "io.kubernetes.cri.sandbox-name",
    "io.kubernetes.cri.sandbox-namespace",
    "io.kubernetes.cri.sandbox-uid",
    "io.kubernetes.pod.name",
    "io.kubernetes.pod.namespace",
    "io.kubernetes.pod.uid",
    "io.kubernetes.sandbox.id",
    PODMAN_PRIVILEGED,
    "nerdctl/name",
    "org.opencontainers.image.ref.name",
];

/// Strings by key, of [`KEYS`] only: annotations of a bundle or labels of a container.
#[derive(Debug, Default)]
pub(super) struct Annotations(BTreeMap<&'static str, String>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Annotations;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("strings by key")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut kept = BTreeMap::new();
                while let Some(key) = entries.next_key::<String>()? {
                    let Some(known) = KEYS.iter().find(|known| **known == key) else {
                        entries.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    if let Some(value) = entries.next_value::<StringOrOther>()?.0 {
                        kept.insert(*known, value);
                    }
                }
                Ok(Annotations(kept))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl Annotations {
    fn get(&self, key: &str) -> Option<&str> {
        debug_assert!(KEYS.contains(&key), "{key} is looked for and never kept");
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn first(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|key| self.get(key))
    }

    /// Kubernetes identity from the keys of containerd's CRI plugin, of CRI-O, and of the labels that the kubelet has
    /// its runtime set.
    ///
    /// **Source**: containerd pkg/cri/annotations/annotations.go; CRI-O pkg/annotations; kubelet
    /// pkg/kubelet/types/labels.go.
    pub(super) fn k8s(&self) -> Option<K8s> {
        let field = |keys: &[&str]| self.first(keys).and_then(text);
        let k8s = K8s {
            namespace: field(&[
                "io.kubernetes.cri.sandbox-namespace",
                "io.kubernetes.pod.namespace",
                "io.kubernetes.cri-o.Namespace",
            ]),
            pod: field(&["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"])
                .or_else(|| self.cri_o_sandbox().then(|| field(&["io.kubernetes.cri-o.KubeName"]))?),
            pod_uid: field(&["io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"]),
            container: field(&["io.kubernetes.cri.container-name", "io.kubernetes.container.name"]),
            service_account: None,
        };
        (k8s != K8s::default()).then_some(k8s)
    }

    /// The container of the pod that keeps its namespaces.
    pub(super) fn sandbox(&self) -> Option<Arc<str>> {
        let keys =
            ["io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID", "io.kubernetes.sandbox.id"];
        self.first(&keys).and_then(text)
    }

    fn cri_o_sandbox(&self) -> bool {
        self.get("io.kubernetes.cri-o.ContainerType") == Some("sandbox")
    }

    fn runtime(&self) -> Option<Runtime> {
        match self.get("io.container.manager") {
            Some("libpod") => Some(Runtime::Podman),
            Some("cri-o") => Some(Runtime::Crio),
            _ if self.get("io.kubernetes.cri-o.ContainerType").is_some() => Some(Runtime::Crio),
            _ if self.get("io.kubernetes.cri.container-type").is_some() => Some(Runtime::Containerd),
            _ => None,
        }
    }

    /// CRI-O keeps the kubelet's labels as JSON in one annotation; they are spread out where they are missing.
    fn spread_labels(mut self) -> Self {
        let labels = self.0.remove(CRI_O_LABELS);
        let labels: Option<Self> = labels.and_then(|labels| serde_json::from_str(&labels).ok());
        for (key, value) in labels.unwrap_or_default().0 {
            if key.starts_with("io.kubernetes.") {
                self.0.entry(key).or_insert(value);
            }
        }
        self
    }
}

/// Reads a bundle; nothing when it has no readable `config.json`, or one that was changed after the container was made.
pub(super) fn read(search: Search<'_>, bundle: &Path, made_unix_ns: Option<u64>) -> Found {
    let config = bundle.join("config.json");
    let spec = file::read_json_older::<OciSpec>(&config, search.owner(), made_unix_ns);
    let refused = matches!(&spec, Err(error) if !error.is_absent());
    // Annotations are read by themselves: what is wrong with the rest must not hide who it is.
    let Ok(Config { annotations }) = file::read_json_older(&config, search.owner(), made_unix_ns) else {
        return Found { refused, ..Found::default() };
    };
    let annotations = annotations.unwrap_or_default().spread_labels();
    let spec = spec.ok().map(|spec| {
        // As the runtime sees it: relative mounts are relative to it.
        let place = search.query.bundle.as_deref().unwrap_or_default();
        let mut spec = spec.into_spec(search.host, place, search.owner());
        spec.privileged =
            annotations.get(PODMAN_PRIVILEGED).is_some_and(|said| said.eq_ignore_ascii_case("true"));
        spec
    });
    let value = |keys: &[&str]| annotations.first(keys).and_then(text);
    Found {
        runtime: annotations.runtime(),
        name: value(&[
            "io.kubernetes.cri.container-name",
            "io.kubernetes.cri-o.ContainerName",
            "io.kubernetes.cri-o.Name",
            "nerdctl/name",
        ]),
        image: value(&[
            "io.kubernetes.cri.image-name",
            "io.kubernetes.cri-o.ImageName",
            "io.kubernetes.cri-o.Image",
            "org.opencontainers.image.ref.name",
        ]),
        created: annotations.first(&["io.kubernetes.cri-o.Created"]).and_then(time),
        k8s: annotations.k8s(),
        sandbox: annotations.sandbox(),
        spec,
        refused,
        ..Found::default()
    }
}

/// The manager whose bundles have such a path.
pub(super) fn runtime_of_bundle(bundle: &str) -> Option<Runtime> {
    // Podman and CRI-O share a layout: only the annotations tell them apart.
    match namespace_of_bundle(bundle)? {
        "moby" => Some(Runtime::Docker),
        _ => Some(Runtime::Containerd),
    }
}

/// The namespace of containerd in which bundles of such a path are.
pub(super) fn namespace_of_bundle(bundle: &str) -> Option<&str> {
    let (tasks, _id) = bundle.trim_end_matches('/').rsplit_once('/')?;
    let (tasks, namespace) = tasks.rsplit_once('/')?;
    tasks.ends_with("/io.containerd.runtime.v2.task").then_some(namespace)
}

/// The directory of container images and containers to which a bundle of podman or CRI-O belongs.
pub(super) fn storage_of_bundle(bundle: &str) -> Option<&str> {
    let (directory, _) = bundle.trim_end_matches('/').strip_suffix("/userdata")?.rsplit_once('/')?;
    let (storage, driver) = directory.rsplit_once('/')?;
    driver.ends_with("-containers").then_some(storage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_strings_of_known_keys_are_kept() {
        let mut text = String::from("{\"io.kubernetes.pod.name\": \"web-0\", \"nerdctl/name\": 7");
        for index in 0..10_000 {
            text += &format!(", \"io.kubernetes.x{index}\": \"x\", \"label{index}\": {{}}");
        }
        let annotations: Annotations = serde_json::from_str(&(text + "}")).unwrap();
        assert_eq!(
            annotations.0.into_iter().collect::<Vec<_>>(),
            [("io.kubernetes.pod.name", "web-0".into())]
        );
    }

    #[test]
    fn bundle_paths_tell_the_manager() {
        let task = "/run/docker/containerd/daemon/io.containerd.runtime.v2.task";
        assert_eq!(runtime_of_bundle(&format!("{task}/moby/abc")), Some(Runtime::Docker));
        assert_eq!(runtime_of_bundle(&format!("{task}/k8s.io/abc/")), Some(Runtime::Containerd));
        for other in ["", "/", "/abc", "/home/user/bundle", "/a/overlay-containers/abc/userdata"] {
            assert_eq!(runtime_of_bundle(other), None, "{other}");
        }
    }

    #[test]
    fn storage_is_above_the_bundle() {
        let bundle = "/var/lib/containers/storage/overlay-containers/abc/userdata";
        assert_eq!(storage_of_bundle(bundle), Some("/var/lib/containers/storage"));
        assert_eq!(storage_of_bundle("/srv/bundle/userdata"), None);
        assert_eq!(storage_of_bundle("/userdata"), None);
    }
}
