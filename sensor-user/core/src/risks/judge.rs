//! From what a runtime was asked for to what of it tells.

use super::spec::{Device, DeviceRule, Host, Mount, MountKind, Namespace, Own, ProcessSpec, Sharing, Spec};
use super::{Capabilities, Capability, Risk, Risks, entrypoint, mounts, path};

/// SELinux types that confine nothing: the last part but one of a label.
const UNCONFINED_TYPES: &[&str] = &["spc_t", "unconfined_t", "container_runtime_t"];
/// Character devices that every container may open, by major and minor number (`None`: any).
const HARMLESS: &[(i64, Option<i64>)] = &[
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// What tells of a container.
#[must_use]
pub fn of_container(spec: &Spec, host: &Host, own: &Own) -> Risks {
    let mut found = Vec::new();
    let privileged = is_privileged(spec);
    if privileged {
        found.push(Risk::Privileged);
    }
    // In a user namespace of its own, what it may do ends there, unless that has the host's root in it.
    let has_own_users = sharing(spec, Some(Namespace::User)) == Some(Sharing::Own) && !spec.maps_host_root;
    let is_confined = spec.rootless || has_own_users;
    add_process(&mut found, &spec.process, host, is_confined);
    if spec.new_privileges_wanted && !spec.process.no_new_privileges {
        found.push(Risk::NewPrivileges);
    }
    if !spec.seccomp {
        found.push(Risk::SeccompOff);
    }
    add_namespaces(&mut found, spec, host);
    for mount in &spec.mounts {
        add_mount(&mut found, mount, spec, host, own);
    }
    // A privileged container has all devices: the first risk says so.
    if !privileged {
        spec.devices.iter().filter(|device| !is_harmless(device)).for_each(|device| {
            found.push(Risk::Device(device.path.clone()));
        });
        add_device_rules(&mut found, &spec.device_rules, &spec.devices);
    }
    if entrypoint::is_escape(&spec.process, &spec.mounts) || begins_outside(&spec.process) {
        found.push(Risk::EntrypointEscape);
    }
    Risks::new(found)
}

/// What tells of a process that is put into a container that runs.
#[must_use]
pub fn of_process(process: &ProcessSpec, host: &Host, rootless: bool) -> Risks {
    let mut found = Vec::new();
    add_process(&mut found, process, host, rootless);
    if process.capabilities.is_full() {
        found.push(Risk::Privileged);
    }
    if entrypoint::is_escape(process, &[]) || begins_outside(process) {
        found.push(Risk::EntrypointEscape);
    }
    Risks::new(found)
}

/// Whether a process begins at a file that the runtime has open: in a directory of the host (CVE-2024-21626), or as the
/// runtime's own program (CVE-2019-5736).
fn begins_outside(process: &ProcessSpec) -> bool {
    let program = process.args.first();
    process.cwd.iter().chain(program).any(|path| entrypoint::is_of_runtime(path))
}

/// What tells of a bind mount as a request asks for it, before anybody has resolved its links.
#[must_use]
pub fn of_asked_mount(source: &str, writable: bool) -> Option<Risk> {
    if !source.starts_with('/') {
        // A volume of the runtime's.
        return None;
    }
    let path = path::without_links(source);
    if mounts::is_socket(&path) {
        return Some(Risk::Socket(path.into()));
    }
    // Where this host's managers keep their things is not known here.
    let tells = mounts::is_sensitive(&path, writable, &[])
        && !mounts::is_expected(&path, writable, &Own::default(), &[]);
    tells.then(|| Risk::Mount { path: path.into(), writable })
}

/// What tells of a device that a request asks for by its path on the host.
#[must_use]
pub fn of_asked_device(path: &str) -> Option<Risk> {
    let path = path::without_links(path);
    (!mounts::is_expected(&path, true, &Own::default(), &[])).then(|| Risk::Device(path.into()))
}

/// What tells of a capability that a request asks for by its name, `ALL` among them.
pub fn of_asked_capability(name: &str) -> impl Iterator<Item = Risk> + use<> {
    let is_all = name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL");
    let asked = if is_all { Capabilities::ALL } else { Capability::from_name(name).into_iter().collect() };
    asked.telling().map(Risk::Capability)
}

fn add_process(found: &mut Vec<Risk>, process: &ProcessSpec, host: &Host, is_confined: bool) {
    if !is_confined {
        found.extend(process.capabilities.telling().map(Risk::Capability));
        let is_lifted = process.uid != 0
            && !process.no_new_privileges
            && process.capabilities.contains(Capability::SETUID)
            && process.capabilities.telling().next().is_some();
        if is_lifted {
            found.push(Risk::NewPrivileges);
        }
    }
    let is_profile = |profile: &str| !matches!(profile, "" | "unconfined");
    if host.apparmor && !process.apparmor.as_deref().is_some_and(is_profile) {
        found.push(Risk::ApparmorOff);
    }
    if host.selinux && !process.selinux.as_deref().is_some_and(is_confining) {
        found.push(Risk::SelinuxOff);
    }
}

/// Whether a label `user:role:type:level` has a type that confines.
fn is_confining(label: &str) -> bool {
    label.split(':').nth(2).is_some_and(|kind| !UNCONFINED_TYPES.contains(&kind))
}

/// All capabilities, all devices, and nothing of /proc and /sys hidden: what managers mean by privileged.
fn is_privileged(spec: &Spec) -> bool {
    let by_parts = || {
        let wildcard = spec.device_rules.iter().rev().find(|rule| is_for_all(rule));
        spec.process.capabilities.is_full() && !spec.masked && wildcard.is_some_and(|rule| rule.allow)
    };
    spec.privileged || by_parts()
}

fn is_for_all(rule: &DeviceRule) -> bool {
    rule.block.is_none() && rule.major.is_none() && rule.minor.is_none() && rule.opens
}

/// What a spec says of a namespace; `None` when it does not speak of it.
fn sharing(spec: &Spec, namespace: Option<Namespace>) -> Option<Sharing> {
    spec.namespaces.iter().rev().find(|entry| entry.namespace == namespace).map(|entry| entry.sharing)
}

fn add_namespaces(found: &mut Vec<Risk>, spec: &Spec, host: &Host) {
    for namespace in Namespace::ALL {
        let is_hosts = match (sharing(spec, Some(namespace)), namespace) {
            (Some(sharing), _) => sharing == Sharing::Host,
            // No manager gives one unless it is asked to.
            (None, Namespace::User) => false,
            (None, Namespace::Cgroup) => host.unified_cgroups,
            (None, _) => true,
        };
        if is_hosts {
            found.push(Risk::HostNamespace(namespace));
        }
    }
    if matches!(sharing(spec, None), None | Some(Sharing::Host)) {
        found.push(Risk::Mount { path: "/".into(), writable: true });
    }
}

fn add_mount(found: &mut Vec<Risk>, mount: &Mount, spec: &Spec, host: &Host, own: &Own) {
    let path = match mount.kind {
        MountKind::Bind => &mount.source,
        // All of it, whatever part of the host's tree it is elsewhere.
        MountKind::Block => return found.push(Risk::Device(mount.source.clone())),
        MountKind::Sysfs if mount.writable => {
            return found.push(Risk::Mount { path: "/sys".into(), writable: true });
        }
        MountKind::Cgroup if mount.writable => {
            // Below its own root of the version 2 hierarchy it changes nobody's cgroup but its own.
            let is_delegated =
                host.unified_cgroups && sharing(spec, Some(Namespace::Cgroup)) == Some(Sharing::Own);
            if !is_delegated {
                found.push(Risk::WritableCgroup);
            }
            return;
        }
        MountKind::Sysfs | MountKind::Cgroup => return,
    };
    let sockets = host.sockets.iter().filter(|socket| mounts::is_within(socket, path));
    found.extend(sockets.cloned().map(Risk::Socket));
    if host.sockets.contains(path) || mounts::is_socket(path) {
        return found.push(Risk::Socket(path.clone()));
    }
    if mount.writable && mounts::is_within(path, "/sys/fs/cgroup") {
        found.push(Risk::WritableCgroup);
    }
    let Host { directories, .. } = host;
    if mounts::is_sensitive(path, mount.writable, directories)
        && !mounts::is_expected(path, mount.writable, own, directories)
    {
        found.push(Risk::Mount { path: path.clone(), writable: mount.writable });
    }
}

fn is_harmless(device: &Device) -> bool {
    device.number.is_some_and(|(major, minor)| !device.block && is_harmless_number(major, Some(minor)))
        || mounts::is_expected(&device.path, true, &Own::default(), &[])
}

fn is_harmless_number(major: i64, minor: Option<i64>) -> bool {
    HARMLESS.iter().any(|known| known.0 == major && (known.1.is_none() || known.1 == minor))
}

/// Devices that may be opened and have no node: MKNOD, which every container has, makes one.
fn add_device_rules(found: &mut Vec<Risk>, rules: &[DeviceRule], devices: &[Device]) {
    for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.allow && rule.opens) {
        let is_denied_later = rules[index + 1..].iter().any(|later| !later.allow && is_for_all(later));
        let of_node = devices
            .iter()
            .any(|device| rule.block == Some(device.block) && device.number == rule.major.zip(rule.minor));
        let harmless = rule.block == Some(false)
            && rule.major.is_some_and(|major| is_harmless_number(major, rule.minor));
        if is_denied_later || of_node || harmless {
            continue;
        }
        let kinds: &[&str] = match rule.block {
            Some(true) => &["block"],
            Some(false) => &["char"],
            None => &["block", "char"],
        };
        let number = |number: Option<i64>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        found.extend(kinds.iter().map(|kind| {
            let path = format!("/dev/{kind}/{}:{}", number(rule.major), number(rule.minor));
            Risk::Device(path.into())
        }));
    }
}
