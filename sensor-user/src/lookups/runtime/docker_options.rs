//! What docker was asked for: `hostconfig.json`, and the options within `config.v2.json`.
//!
//! The OCI spec is more exact, but it is gone as soon as the container has no process, and some things it does not say:
//! that `--privileged` was given, or that a container was exempted from a daemon's user namespace.

use std::sync::Arc;

use sensor_core::risks::{
    Capabilities, Capability, Device, DeviceRule, Mount, MountKind, Namespace, NamespaceSpec, ProcessSpec,
    Sharing, Spec, normal,
};
use serde::Deserialize;

use super::super::json::Limited;
use super::super::{Roots, paths};
use super::docker_ports::Bindings;
use super::{text, volumes};

/// Most entries of any list.
const ITEMS_MAX: usize = 4096;

type Items<T> = Limited<T, ITEMS_MAX>;

/// The part of `hostconfig.json` that is read.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct HostConfig {
    privileged: bool,
    cap_add: Items<String>,
    cap_drop: Items<String>,
    pid_mode: String,
    ipc_mode: String,
    network_mode: String,
    #[serde(rename = "UTSMode")]
    uts_mode: String,
    userns_mode: String,
    cgroupns_mode: String,
    cgroup_parent: String,
    security_opt: Items<String>,
    devices: Items<HostDevice>,
    device_cgroup_rules: Items<String>,
    port_bindings: Bindings,
}

impl HostConfig {
    /// Whether there are ports to publish, and a network of its own to publish them for.
    pub(super) fn publishes(&self) -> bool {
        let is_shared = matches!(self.network_mode.as_str(), "host" | "none")
            || self.network_mode.starts_with("container:");
        self.port_bindings.is_any() && !is_shared
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct HostDevice {
    path_on_host: String,
}

/// What the image or the command line says of the container's process.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ImageConfig {
    /// Its user, as `user[:group]`.
    user: String,
    working_dir: String,
}

/// Options in `config.v2.json` beside the container's identity.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Options {
    path: String,
    args: Items<String>,
    config: Option<ImageConfig>,
    mount_points: Items<MountPoint>,
    app_armor_profile: String,
    process_label: String,
    seccomp_profile: String,
    no_new_privileges: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct MountPoint {
    source: String,
    destination: String,
    #[serde(rename = "RW")]
    writable: bool,
}

/// What both files say, in the core's terms.
pub(super) fn read(host: HostConfig, options: Options, roots: &Roots, owner: Option<u32>) -> Spec {
    let rootless = owner.is_some();
    let config = options.config.unwrap_or_default();
    let has_option = |name: &str, value: &str| {
        host.security_opt.0.iter().any(|option| {
            let (known, given) = option.split_once(['=', ':']).unwrap_or((option, ""));
            known == name && given == value
        })
    };
    let unfiltered = options.seccomp_profile == "unconfined" || has_option("seccomp", "unconfined");
    let apparmor = if host.privileged { "unconfined" } else { options.app_armor_profile.as_str() };
    let binds = options.mount_points.0.iter().filter(|mount| mount.source.starts_with('/'));
    let mut mounts: Vec<Mount> = binds
        .map(|mount| Mount {
            kind: MountKind::Bind,
            source: paths::resolve(roots, &mount.source, !rootless),
            destination: mount.destination.as_str().into(),
            writable: mount.writable,
        })
        .collect();
    volumes::look_behind(&mut mounts, roots, owner);
    if host.privileged {
        mounts.extend([MountKind::Sysfs, MountKind::Cgroup].map(|kind| Mount {
            kind,
            source: "".into(),
            destination: "/sys".into(),
            writable: true,
        }));
    }
    Spec {
        process: ProcessSpec {
            args: std::iter::once(options.path).chain(options.args.0).map(Arc::from).collect(),
            cwd: text(&config.working_dir),
            uid: user_id(&config.user),
            capabilities: capabilities(&host),
            no_new_privileges: options.no_new_privileges,
            apparmor: Some(apparmor.into()),
            selinux: Some(options.process_label.into()),
        },
        namespaces: namespaces(&host),
        mounts,
        devices: host.devices.0.iter().map(device).collect(),
        device_rules: host.device_cgroup_rules.0.iter().filter_map(|rule| device_rule(rule)).collect(),
        seccomp: !(host.privileged || unfiltered),
        masked: !(host.privileged || has_option("systempaths", "unconfined")),
        privileged: host.privileged,
        new_privileges_wanted: has_option("no-new-privileges", "false"),
        maps_host_root: false,
        rootless,
        cgroup: text(&host.cgroup_parent),
    }
}

fn capabilities(host: &HostConfig) -> Capabilities {
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL");
    let adds_all = host.privileged || host.cap_add.0.iter().any(is_all);
    let mut set = if adds_all {
        Capabilities::ALL
    } else if host.cap_drop.0.iter().any(is_all) {
        Capabilities::default()
    } else {
        Capabilities::DEFAULT
    };
    if !host.privileged {
        host.cap_drop.0.iter().filter_map(|name| Capability::from_name(name)).for_each(|one| set.remove(one));
    }
    host.cap_add.0.iter().filter_map(|name| Capability::from_name(name)).for_each(|one| set.insert(one));
    set
}

fn namespaces(host: &HostConfig) -> Vec<NamespaceSpec> {
    let sharing = |mode: &str| match mode {
        "host" => Sharing::Host,
        _ if mode.starts_with("container:") => Sharing::Other,
        _ => Sharing::Own,
    };
    let mut namespaces: Vec<_> = [
        (Namespace::Pid, &host.pid_mode),
        (Namespace::Ipc, &host.ipc_mode),
        (Namespace::Net, &host.network_mode),
        (Namespace::Uts, &host.uts_mode),
    ]
    .into_iter()
    .map(|(namespace, mode)| NamespaceSpec { namespace: Some(namespace), sharing: sharing(mode) })
    .collect();
    namespaces.push(NamespaceSpec { namespace: None, sharing: Sharing::Own });
    // Not said, it is the daemon's choice, which is told by the OCI spec only.
    if host.userns_mode == "host" {
        namespaces.push(NamespaceSpec { namespace: Some(Namespace::User), sharing: Sharing::Host });
    }
    // Where there are version 1 hierarchies the host's is what everybody gets, and it is written as `host`, too: left to
    // the core, which knows the host.
    if host.cgroupns_mode != "host" {
        namespaces.push(NamespaceSpec { namespace: Some(Namespace::Cgroup), sharing: Sharing::Own });
    }
    namespaces
}

/// The user id of `user[:group]`; a name other than root's is somebody else.
fn user_id(user: &str) -> u32 {
    match user.split(':').next().unwrap_or_default() {
        "" | "root" => 0,
        name => name.parse().unwrap_or(u32::MAX),
    }
}

fn device(device: &HostDevice) -> Device {
    Device { path: normal(&device.path_on_host).into(), block: false, number: None }
}

/// `TYPE MAJOR:MINOR ACCESS`, as in `b 8:* rwm`.
fn device_rule(rule: &str) -> Option<DeviceRule> {
    let mut words = rule.split_whitespace();
    let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
    let block = match kind {
        "b" => Some(true),
        "c" => Some(false),
        _ => None,
    };
    let (major, minor) = numbers.split_once(':')?;
    let opens = access.contains(['r', 'w']);
    Some(DeviceRule { allow: true, block, major: major.parse().ok(), minor: minor.parse().ok(), opens })
}
