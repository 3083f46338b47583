//! What a program is to container management, by its name.

use std::sync::Arc;

use crate::fact::ExecRole;
use crate::text::basename;

/// Every name with a role of its own; a name that begins with `containerd-shim` has one, too.
pub const BUILT_IN: &[&str] = &[
    "runc",
    "crun",
    "youki",
    "containerd-shim",
    "conmon",
    "docker-proxy",
    "dockerd",
    "containerd",
    "crio",
    "kubelet",
    "docker",
    "podman",
    "ctr",
    "crictl",
    "nerdctl",
    "kubectl",
];

/// The role of a program name; `None` for programs that have nothing to do with containers.
#[must_use]
pub fn of_name(name: &str, tools: &[Arc<str>]) -> Option<ExecRole> {
    Some(match name {
        "runc" | "crun" | "youki" => ExecRole::Runtime,
        "conmon" | "docker-proxy" => ExecRole::Shim,
        "dockerd" | "containerd" | "crio" | "kubelet" => ExecRole::Daemon,
        "docker" | "podman" | "ctr" | "crictl" | "nerdctl" | "kubectl" => ExecRole::Client,
        _ if name.starts_with("containerd-shim") => ExecRole::Shim,
        _ if tools.iter().any(|tool| **tool == *name) => ExecRole::Tool,
        _ => return None,
    })
}

/// The role of a program and the name that gave it, by the base name of its file or of `argv[0]`: runc runs as `runc`
/// from `/proc/self/exe`, scripts and links run under either name.
#[must_use]
pub fn of_program<'a>(
    exe: Option<&'a str>,
    arg0: Option<&'a str>,
    tools: &[Arc<str>],
) -> Option<(ExecRole, &'a str)> {
    let names = [exe.map(basename), arg0.map(basename)];
    names.into_iter().flatten().find_map(|name| of_name(name, tools).map(|role| (role, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_is_known_by_file_name_or_by_its_own_name() {
        let role = |exe, arg0| of_program(Some(exe), Some(arg0), &[]).map(|(role, _)| role);
        assert_eq!(role("/usr/bin/runc", "runc"), Some(ExecRole::Runtime));
        assert_eq!(role("/proc/self/exe", "runc"), Some(ExecRole::Runtime));
        assert_eq!(role("/usr/bin/containerd-shim-runc-v2", "x"), Some(ExecRole::Shim));
        assert_eq!(role("/usr/sbin/dockerd", "/usr/sbin/dockerd"), Some(ExecRole::Daemon));
        assert_eq!(role("/usr/local/bin/kubectl", "k"), Some(ExecRole::Client));
        assert_eq!(role("/usr/bin/runcible", "runcible"), None);
        assert_eq!(role("/bin/docker/sh", "sh"), None);
    }

    #[test]
    fn every_built_in_name_has_a_role() {
        assert!(BUILT_IN.iter().all(|name| of_name(name, &[]).is_some()));
    }

    #[test]
    fn configured_tools_have_a_role_of_their_own() {
        let tools = [Arc::from("deploy-agent")];
        assert_eq!(of_name("deploy-agent", &tools), Some(ExecRole::Tool));
        assert_eq!(of_name("deploy-agent", &[]), None);
    }
}
