//! The OCI runtime spec, `config.json`, and the process spec of an exec: what of them tells, in the core's terms.
//!
//! Every list has a bound: a longer one makes the whole document one that cannot be used, which is reported.
//!
//! **Source**: opencontainers/runtime-spec `specs-go/config.go`.

use std::sync::Arc;

use sensor_core::risks::{
    Capabilities, Capability, Device, DeviceRule, Mount, Namespace, NamespaceSpec, ProcessSpec, Sharing,
    Spec, normal,
};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::json::Limited;
use super::super::paths;
use super::host::HostFacts;
use super::{mounts, text, volumes};

/// Most mounts: the kernel's own bound for a mount namespace is 100,000, and honest containers have dozens.
const MOUNTS_MAX: usize = 4096;
/// Most devices, and rules: a privileged container has every device of the host.
const DEVICES_MAX: usize = 65_536;
/// Most arguments, options of a mount, and whatever else is short.
const WORDS_MAX: usize = 65_536;

/// System calls of a container that leaves. A filter that carries out what it does not name confines only if it refuses
/// each of these.
const REFUSED: &[&str] = &["bpf", "finit_module", "init_module", "mount", "setns", "unshare"];

type Words = Limited<String, WORDS_MAX>;

/// The part of `config.json` that is read, annotations aside.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct OciSpec {
    process: Option<OciProcess>,
    mounts: Limited<OciMount, MOUNTS_MAX>,
    linux: Option<Linux>,
}

/// A process: of `config.json`, or the document that `runc exec --process` is given.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct OciProcess {
    user: Option<User>,
    args: Words,
    cwd: String,
    capabilities: Option<CapabilitySets>,
    #[serde(rename = "noNewPrivileges")]
    no_new_privileges: Option<bool>,
    #[serde(rename = "apparmorProfile")]
    apparmor: Option<String>,
    #[serde(rename = "selinuxLabel")]
    selinux: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    uid: u32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CapabilitySets {
    bounding: Words,
    effective: Words,
    inheritable: Words,
    permitted: Words,
    ambient: Words,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OciMount {
    destination: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    source: Option<String>,
    options: Words,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Limited<OciNamespace, WORDS_MAX>,
    devices: Limited<OciDevice, DEVICES_MAX>,
    #[serde(rename = "cgroupsPath")]
    cgroup: String,
    #[serde(rename = "uidMappings")]
    users: Limited<IdMapping, WORDS_MAX>,
    resources: Option<Resources>,
    seccomp: Option<Seccomp>,
    #[serde(rename = "maskedPaths")]
    masked: Words,
    #[serde(rename = "readonlyPaths")]
    read_only: Words,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OciNamespace {
    #[serde(rename = "type")]
    kind: String,
    path: Option<String>,
}

/// Ids of the host, from one on, in a user namespace.
#[derive(Default, Deserialize)]
#[serde(default)]
struct IdMapping {
    #[serde(rename = "hostID")]
    host: u32,
    size: u32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OciDevice {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    major: i64,
    minor: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resources {
    devices: Limited<OciDeviceRule, DEVICES_MAX>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OciDeviceRule {
    allow: bool,
    #[serde(rename = "type")]
    kind: Option<String>,
    major: Option<i64>,
    minor: Option<i64>,
    access: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Seccomp {
    #[serde(rename = "defaultAction")]
    default_action: String,
    syscalls: Limited<SyscallRule, WORDS_MAX>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SyscallRule {
    names: Words,
    action: String,
    /// Conditions: with any, the same call may go through by other arguments.
    args: Limited<IgnoredAny, WORDS_MAX>,
}

impl OciSpec {
    /// In the core's terms, with the paths of a bundle that a user's runtime wrote taken as text.
    pub(super) fn into_spec(self, host: &HostFacts, bundle: &str, owner: Option<u32>) -> Spec {
        let rootless = owner.is_some();
        let linux = self.linux.unwrap_or_default();
        let resources = linux.resources.unwrap_or_default();
        let place = |source: &str| {
            let absolute = source.starts_with('/');
            let path = if absolute { source.to_owned() } else { format!("{bundle}/{source}") };
            paths::resolve(host.roots(), &path, !rootless)
        };
        let mut mounts: Vec<Mount> = self.mounts.0.iter().flat_map(|mount| mount.read(&place)).collect();
        volumes::look_behind(&mut mounts, host.roots(), owner);
        Spec {
            process: self.process.unwrap_or_default().into(),
            namespaces: linux.namespaces.0.iter().filter_map(|entry| entry.read(host, rootless)).collect(),
            mounts,
            devices: linux.devices.0.into_iter().map(Device::from).collect(),
            device_rules: resources.devices.0.iter().map(DeviceRule::from).collect(),
            seccomp: linux.seccomp.is_some_and(|seccomp| seccomp.confines()),
            masked: !(linux.masked.0.is_empty() && linux.read_only.0.is_empty()),
            privileged: false,
            new_privileges_wanted: false,
            maps_host_root: linux.users.0.iter().any(|mapping| mapping.host == 0 && mapping.size > 0),
            rootless,
            cgroup: text(&linux.cgroup),
        }
    }
}

impl From<OciProcess> for ProcessSpec {
    fn from(process: OciProcess) -> Self {
        let sets = process.capabilities.unwrap_or_default();
        let sets = [sets.bounding, sets.effective, sets.inheritable, sets.permitted, sets.ambient];
        let capabilities: Capabilities =
            sets.iter().flat_map(|set| &set.0).filter_map(|name| Capability::from_name(name)).collect();
        Self {
            args: process.args.0.into_iter().map(Arc::from).collect(),
            cwd: (!process.cwd.is_empty()).then(|| process.cwd.into()),
            uid: process.user.unwrap_or_default().uid,
            capabilities,
            no_new_privileges: process.no_new_privileges.unwrap_or_default(),
            apparmor: process.apparmor.map(Arc::from),
            selinux: process.selinux.map(Arc::from),
        }
    }
}

impl OciMount {
    fn read(&self, place: &dyn Fn(&str) -> Arc<str>) -> Vec<Mount> {
        let options: Vec<&str> = self.options.0.iter().map(String::as_str).collect();
        let (kind, source) = (self.kind.as_deref(), self.source.as_deref());
        mounts::read(kind.unwrap_or_default(), source.unwrap_or_default(), &options, &self.destination, place)
    }
}

impl OciNamespace {
    fn read(&self, host: &HostFacts, rootless: bool) -> Option<NamespaceSpec> {
        let namespace = match self.kind.as_str() {
            "pid" => Some(Namespace::Pid),
            "network" => Some(Namespace::Net),
            "ipc" => Some(Namespace::Ipc),
            "uts" => Some(Namespace::Uts),
            "user" => Some(Namespace::User),
            "cgroup" => Some(Namespace::Cgroup),
            "mount" => None,
            _ => return None,
        };
        let sharing = match self.path.as_deref().filter(|path| !path.is_empty()) {
            None => Sharing::Own,
            Some(path) if host.is_host_namespace(&self.kind, path, !rootless) => Sharing::Host,
            Some(_) => Sharing::Other,
        };
        Some(NamespaceSpec { namespace, sharing })
    }
}

impl From<OciDevice> for Device {
    fn from(device: OciDevice) -> Self {
        let block = device.kind == "b";
        Self { path: normal(&device.path).into(), block, number: Some((device.major, device.minor)) }
    }
}

impl From<&OciDeviceRule> for DeviceRule {
    fn from(rule: &OciDeviceRule) -> Self {
        let block = match rule.kind.as_deref() {
            Some("b") => Some(true),
            Some("c" | "u") => Some(false),
            _ => None,
        };
        // Negative numbers stand for all, too.
        let number = |number: Option<i64>| number.filter(|number| *number >= 0);
        let opens =
            rule.access.as_deref().is_none_or(|access| access.is_empty() || access.contains(['r', 'w']));
        Self { allow: rule.allow, block, major: number(rule.major), minor: number(rule.minor), opens }
    }
}

impl Seccomp {
    /// Whether it refuses what it does not name, or else every call of [`REFUSED`].
    fn confines(&self) -> bool {
        let refused_by_name = |call: &str| self.syscalls.0.iter().any(|rule| rule.refuses(call));
        is_refusal(&self.default_action) || REFUSED.iter().all(|call| refused_by_name(call))
    }
}

impl SyscallRule {
    /// Whether it refuses a call, whatever its arguments are.
    fn refuses(&self, call: &str) -> bool {
        is_refusal(&self.action) && self.args.0.is_empty() && self.names.0.iter().any(|name| name == call)
    }
}

/// Whether an action has any other fate for a call than to be carried out.
fn is_refusal(action: &str) -> bool {
    !matches!(action, "" | "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG")
}
