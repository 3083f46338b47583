//! The OCI bundle: annotations that tell who made the container and for which pod.

use std::collections::BTreeMap;
use std::path::Path;

use sensor_core::fact::{K8s, Runtime};
use serde::Deserialize;

use super::super::file;
use super::{Found, text, time};

/// The part of `config.json` that is read.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    annotations: Option<BTreeMap<String, serde_json::Value>>,
}

/// Strings by key: annotations of a bundle or labels of a container.
pub(super) struct Annotations(BTreeMap<String, serde_json::Value>);

impl Annotations {
    pub(super) fn new(values: BTreeMap<String, serde_json::Value>) -> Self {
        Self(values)
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str().filter(|value| !value.is_empty())
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
        let labels = self.get("io.kubernetes.cri-o.Labels").map(str::to_owned);
        let labels: Option<BTreeMap<String, serde_json::Value>> =
            labels.and_then(|labels| serde_json::from_str(&labels).ok());
        for (key, value) in labels.unwrap_or_default() {
            if key.starts_with("io.kubernetes.") {
                self.0.entry(key).or_insert(value);
            }
        }
        self
    }
}

/// Reads a bundle; nothing when it has no readable `config.json`.
pub(super) fn read(bundle: &Path, owner: Option<u32>) -> Found {
    let Ok(config) = file::read_json::<Config>(&bundle.join("config.json"), owner) else {
        return Found::default();
    };
    let annotations = Annotations(config.annotations.unwrap_or_default()).spread_labels();
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
        ..Found::default()
    }
}

/// The manager whose bundles have such a path.
pub(super) fn runtime_of_bundle(bundle: &str) -> Option<Runtime> {
    // Podman and CRI-O share a layout: only the annotations tell them apart.
    let (tasks, _id) = bundle.trim_end_matches('/').rsplit_once('/')?;
    let (tasks, namespace) = tasks.rsplit_once('/')?;
    match namespace {
        _ if !tasks.ends_with("/io.containerd.runtime.v2.task") => None,
        "moby" => Some(Runtime::Docker),
        _ => Some(Runtime::Containerd),
    }
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
